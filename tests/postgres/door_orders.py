"""Orders, and the ports over shared tables to send them through: what the tests of the door for money stand on."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from domain.jobs import JobOrder, JobState, Operation, Stage, VendorRequest
from tasks.jobs import await_job, plan_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import HandClock, PortsForTests, new_database, settings_for_tests, store_season

slugs = (f"season-{n}" for n in itertools.count(1))


@pytest.fixture(scope="module")
def shared(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortsForTests]:
    """One database for each whole file; every test has its own season in it."""
    with new_database(server_url) as url:
        ports = PortsForTests(settings_for_tests(tmp_path_factory.mktemp("home"), url), {})
        yield ports
        ports.close()


Open = Callable[..., PortsForTests]
"""Takes the vendors, each a `StandinVendor`."""


@pytest.fixture
def open_with(shared: PortsForTests) -> Iterator[Open]:
    """Ports over the shared tables with the vendors a test wants; each call is like another process."""
    opened: list[PortsForTests] = []

    def open_one(*vendors: StandinVendor) -> PortsForTests:
        given = {vendor.vendor: vendor for vendor in vendors}
        opened.append(PortsForTests(shared.settings, given, HandClock(shared.clock.now())))
        return opened[-1]

    yield open_one
    for ports in opened:
        ports.close()
    # The next test's vendor has the same name, and no trouble yet.
    with shared.database.transaction() as db:
        db.execute("DELETE FROM vendor_circuits")


def order_in(
    ports: PortsForTests, season_id: int, *, usd: str = "2.00", prompt: str = "a pier", **fields: Any
) -> JobOrder:
    request = VendorRequest(vendor="sandbox", endpoint="train/flux", arguments={"prompt": prompt})
    return JobOrder(
        **{
            "season_id": season_id,
            "stage": Stage.LORA_TRAINING,
            "operation": Operation.TRAIN_LORA,
            "api_name": "fal_flux_lora_fast",
            "model_key": "fal_flux_lora_fast",
            "request": request,
            "estimate_usd": Decimal(usd) / 2,
            "ceiling_usd": Decimal(usd),
            "is_simulated": True,
            **fields,
        }
    )


def planned(ports: PortsForTests, *, budget_usd: str = "60", **fields: Any) -> tuple[JobOrder, str]:
    """A new season and one planned job in it."""
    order = order_in(ports, store_season(ports, next(slugs), budget_usd=budget_usd), **fields)
    return order, plan_job(ports, order)


def request_at(vendor: str, prompt: str = "a pier") -> VendorRequest:
    """The same work in another vendor's words."""
    return VendorRequest(vendor=vendor, endpoint=f"train/{vendor}", arguments={"prompt": prompt})


def run_whole(ports: PortsForTests, key: str) -> None:
    """Submit and await: a job taken from plan to settlement."""
    submit_job(ports, key)
    await_job(ports, key)


def budget(ports: PortsForTests, order: JobOrder) -> tuple[Decimal, Decimal]:
    """(reserved, spent)."""
    _, reserved, spent = ports.ledger.budget(order.season_id)
    return reserved, spent


def state(ports: PortsForTests, key: str) -> JobState:
    return ports.ledger.get(key).state


def run_together(*works: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
