"""The ledger against what the sandbox says it charged, on real tables: through the door, and beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from domain.errors import JobFailed, NotConfigured, Unavailable
from domain.jobs import BlobRef, VendorState
from domain.money import price_of_training
from domain.registry import load_registry
from domain.submissions import last_submission
from providers.fal.vendor import FalVendor
from providers.sandbox.server import SandboxServer
from providers.sandbox.transport import SandboxTransport
from providers.vendor_ports import TrainingOrder
from providers.web import open_http
from tasks.jobs import await_job, plan_job, submit_job
from tasks.reconciling import Disagreement, Reconciliation, reconcile
from tests.contract.sandbox_fixtures import running_sandbox, training_zip, wait_until
from tests.ports_for_tests import PortsForTests, new_database, settings_for_tests, store_season
from tests.postgres.door_orders import order_in, slugs

PRICE = price_of_training("fal_flux_lora_fast", 100)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxServer]:
    with running_sandbox(tmp_path / "vendor") as server:
        yield server


@pytest.fixture
def tables(server_url: str, tmp_path: Path, sandbox: SandboxServer) -> Iterator[PortsForTests]:
    """An empty ledger, with the real adapter on a sandbox that has done nothing yet."""
    with new_database(server_url) as url, open_http(SandboxTransport(sandbox.url), timeout=httpx.Timeout(5)) as http:
        vendor = FalVendor(http, SecretStr("test"), load_registry(), name="sandbox")
        ports = PortsForTests(settings_for_tests(tmp_path, url), {"sandbox": vendor})
        yield ports
        ports.close()


def planned_training(ports: PortsForTests, trigger: str) -> str:
    """A training in the ledger, not yet sent."""
    data = training_zip()
    ports.blobs.put_bytes(data, "application/zip")
    ref = BlobRef(sha256=hashlib.sha256(data).hexdigest(), media_type="application/zip", file_name="set.zip")
    order = TrainingOrder(trainer_key="fal_flux_lora_fast", zip=ref, trigger_word=trigger, steps=100, image_count=5)
    request = ports.job_vendor("sandbox").training_request(order)
    season = store_season(ports, next(slugs))
    return plan_job(ports, order_in(ports, season, usd=str(2 * PRICE), request=request))


def trained(ports: PortsForTests, trigger: str = "MEIKOB_01") -> str:
    key = planned_training(ports, trigger)
    submit_job(ports, key)
    await_job(ports, key)
    return key


def today(ports: PortsForTests) -> Reconciliation:
    now = datetime.now(UTC)
    return reconcile(ports, "sandbox", now - timedelta(hours=1), now + timedelta(hours=2))


def told(found: Reconciliation) -> list[tuple[Disagreement, Decimal]]:
    return [(one.kind, one.difference_usd) for one in found.differences]


def test_a_job_through_the_door_agrees_to_the_cent(tables: PortsForTests) -> None:
    trained(tables)
    found = today(tables)
    assert (found.differences, found.needs_person) == ((), False)
    assert (found.vendor_usd, found.ledger_usd, found.job_count) == (PRICE, PRICE, 1)
    assert (found.is_by_job, found.is_simulated) == (True, True)


def test_what_was_bought_beside_the_door_is_found(tables: PortsForTests) -> None:
    job = tables.ledger.get(trained(tables))
    assert job.ids is not None
    vendor = tables.job_vendor("sandbox")
    elsewhere = vendor.submit(job.request, last_submission(job))
    wait_until(lambda: vendor.status(job.request, elsewhere).state is VendorState.DONE)
    found = today(tables)
    assert [(one.kind, one.subject, one.vendor_usd) for one in found.differences] == [
        (Disagreement.NOT_IN_LEDGER, elsewhere.request_id, PRICE)
    ]
    assert (found.vendor_usd, found.ledger_usd, found.needs_person) == (2 * PRICE, PRICE, True)


def test_another_price_than_ours_is_found_and_the_ledger_stays_as_it_was(
    tables: PortsForTests, sandbox: SandboxServer
) -> None:
    sandbox.faults.set("job:charge=2.5")
    key = trained(tables)
    job = tables.ledger.get(key)
    entries = tables.ledger.costs(job.season_id)
    assert told(today(tables)) == [(Disagreement.AMOUNT, Decimal("2.5") - PRICE)]
    assert (tables.ledger.get(key), tables.ledger.costs(job.season_id)) == (job, entries)


def test_a_failure_that_is_charged_all_the_same_is_found(tables: PortsForTests, sandbox: SandboxServer) -> None:
    sandbox.faults.set("job:fail=422,job:charge")
    with pytest.raises(JobFailed):
        trained(tables)
    assert told(today(tables)) == [(Disagreement.AMOUNT, PRICE)]


def test_a_job_that_is_done_there_and_not_settled_here_is_no_difference(tables: PortsForTests) -> None:
    key = planned_training(tables, "MEIKOB_01")
    submit_job(tables, key)
    job = tables.ledger.get(key)
    assert job.ids is not None
    ids, vendor = job.ids, tables.job_vendor("sandbox")
    wait_until(lambda: vendor.status(job.request, ids).state is VendorState.DONE)
    found = today(tables)
    assert (found.differences, found.unsettled, found.vendor_usd, found.ledger_usd) == ((), 1, PRICE, Decimal(0))


def test_sums_of_the_days_are_compared_where_requests_are_not_told(
    tables: PortsForTests, sandbox: SandboxServer
) -> None:
    trained(tables)
    sandbox.faults.set("usage:vanish@billing-events,job:charge=9")
    assert (today(tables).differences, today(tables).is_by_job) == ((), False)
    trained(tables, "MEIKOB_02")
    assert told(today(tables)) == [(Disagreement.AMOUNT, 9 - PRICE)]


def test_a_list_of_charges_that_fails_is_no_agreement(tables: PortsForTests, sandbox: SandboxServer) -> None:
    sandbox.faults.set("usage:unavailable=502")
    with pytest.raises(Unavailable):
        today(tables)
    sandbox.faults.set("usage:refuse=403")
    assert "Admin scope" in today(tables).not_compared


def test_a_vendor_that_is_not_set_up_is_an_error(tables: PortsForTests) -> None:
    now = datetime.now(UTC)
    with pytest.raises(NotConfigured):
        reconcile(tables, "fal", now - timedelta(days=1), now)
