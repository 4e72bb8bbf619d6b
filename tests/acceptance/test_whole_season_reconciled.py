"""`onmodel reconcile`: nothing to compare, a ledger that agrees, a stranger's purchase, and a whole season."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import httpx
import pytest
from pydantic import SecretStr

from domain.jobs import BlobRef, VendorJobIds, VendorState
from domain.registry import load_registry
from domain.submissions import last_submission
from providers.fal.vendor import FalVendor
from providers.sandbox.launcher import ensure_sandbox
from providers.sandbox.transport import SandboxTransport
from providers.vendor_ports import TrainingOrder
from providers.web import open_http
from tasks.jobs import await_job, plan_job, submit_job
from tasks.reconciling import reconcile
from tests.acceptance.season_homes import Harbor, Studio
from tests.command_runs import Machine, own_machine
from tests.contract.sandbox_fixtures import STAND_IN, training_zip, wait_until
from tests.ports_for_tests import PortsForTests, settings_for_tests, store_season
from tests.postgres.door_orders import order_in


@pytest.fixture
def machine(server_url: str) -> Iterator[Machine]:
    with own_machine(server_url) as machine:
        yield machine


@contextmanager
def ports_on(machine: Machine) -> Iterator[PortsForTests]:
    """The machine's tables, and its sandbox with an engine that makes next to nothing."""
    url = ensure_sandbox(machine.home, more_arguments=("--engine", STAND_IN)).url
    with open_http(SandboxTransport(url), timeout=httpx.Timeout(10)) as http:
        vendor = FalVendor(http, SecretStr("sandbox"), load_registry(), name="sandbox")
        ports = PortsForTests(settings_for_tests(machine.home, machine.database_url), {"sandbox": vendor})
        yield ports
        ports.close()


def test_without_a_key_and_a_purchase_there_is_nothing_to_compare(machine: Machine) -> None:
    keyless = {"FAL_KEY": "", "FAL_API_KEY": "", "RUNPOD_API_KEY": "", "ONMODEL_COMFYUI_URL": ""}
    ended = machine.onmodel("reconcile", **keyless)
    assert (ended.exit_code, ended.out) == (3, "")
    assert "nothing to compare" in ended.err
    ended = machine.onmodel("reconcile", "--vendor", "fal", **keyless)
    assert ended.exit_code == 3
    assert "FAL_KEY is not set" in ended.err
    assert machine.onmodel("reconcile", "--days", "0").exit_code == 2


def test_a_ledger_that_agrees_ends_well_and_a_strangers_purchase_asks_for_a_person(machine: Machine) -> None:
    data = training_zip()
    with ports_on(machine) as ports:
        ref = BlobRef(
            sha256=ports.blobs.put_bytes(data, "application/zip"), media_type="application/zip", file_name="a"
        )
        wanted = TrainingOrder(
            trainer_key="fal_flux_lora_fast", zip=ref, trigger_word="MEIKOB_01", steps=100, image_count=5
        )
        vendor = ports.job_vendor("sandbox")
        request = vendor.training_request(wanted)
        key = plan_job(ports, order_in(ports, store_season(ports, "little"), usd="0.40", request=request))
        submit_job(ports, key)
        await_job(ports, key)

        ended = machine.onmodel("reconcile", "--json")
        assert ended.exit_code == 0, ended.err
        (found,) = ended.document["vendors"]
        assert (found["vendor"], found["is_simulated"], found["differences"]) == ("sandbox", True, [])
        assert Decimal(found["vendor_usd"]) == Decimal(found["ledger_usd"]) == Decimal("0.2")

        job = ports.ledger.get(key)
        stranger: VendorJobIds = vendor.submit(request, last_submission(job))
        wait_until(lambda: vendor.status(request, stranger).state is VendorState.DONE)

    ended = machine.onmodel("reconcile", "--vendor", "sandbox", "--days", "1")
    assert ended.exit_code == 6, ended.err
    assert stranger.request_id in ended.out
    assert "sandbox (simulated)" in ended.out
    table = ended.out[ended.out.index("1 difference") :].splitlines()[:3]
    assert max(map(len, table)) <= 80


def test_every_job_of_a_whole_season_was_charged_as_its_ledger_says(harbor: Harbor, studio: Studio) -> None:
    now = studio.clock.now()
    found = reconcile(studio.ports, "sandbox", now - timedelta(days=1), now + timedelta(hours=1))
    # Other seasons of this home may have been made to fail on purpose.
    season_id = studio.ports.seasons.by_slug(harbor.manifest.stem).id
    assert [one for one in found.differences if one.season_id == season_id] == []
    charged = {line.subject for line in studio.ports.usage_reader("sandbox").usage(found.since, found.until)}
    paid = [job for job in studio.jobs(harbor.manifest) if job.billed_usd]
    assert len(paid) > 10
    assert all(job.ids is not None and job.ids.request_id in charged for job in paid)
