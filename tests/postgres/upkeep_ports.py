"""What the tests of upkeep stand on: ports a month from now over tables of their own, orphaned jobs, old files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import sql

from domain.errors import Unavailable
from domain.jobs import VendorState
from domain.upkeep import BLOB_KEPT_FOR, StepReport, UpkeepStep
from providers.vendor_ports import Pod
from tasks.jobs import submit_job
from tasks.maintaining import tidy
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import HandClock, PortsForTests, new_database, settings_for_tests
from tests.postgres.door_orders import planned

QUEUED, RUNNING, DONE = VendorState.QUEUED, VendorState.RUNNING, VendorState.DONE
MONTH = timedelta(days=30)


@pytest.fixture(scope="module")
def tables(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortsForTests]:
    """A database of this file's own: upkeep looks at all of it."""
    with new_database(server_url) as url:
        ports = PortsForTests(settings_for_tests(tmp_path_factory.mktemp("home"), url), {})
        yield ports
        ports.close()


class Upkeep(PortsForTests):
    """Ports a month from now, with a vendor and a host of pods that the test holds."""

    def __init__(self, of: PortsForTests, vendor: StandinVendor, host: StandinHost | None = None) -> None:
        super().__init__(of.settings, {"sandbox": vendor}, HandClock(datetime.now(UTC) + MONTH))
        self.host = host

    def pod_hosts(self) -> tuple[StandinHost, ...]:
        return (self.host,) if self.host else ()

    def left(self, *keys: str) -> None:
        """As if nobody had looked at these jobs for eleven minutes."""
        with self.database.transaction() as db:
            query = "UPDATE provider_jobs SET heartbeat_at = now() - interval '11 minutes' WHERE key = ANY(%s)"
            db.execute(query, (list(keys),))

    def do(self, query: str) -> None:
        with self.database.transaction() as db:
            db.execute(sql.SQL(query))

    def tidied(self, step: UpkeepStep) -> StepReport:
        """What one step of a whole pass reports."""
        report = tidy(self, is_dry_run=False)
        return next(one for one in report.steps if one.step is step)


class StandinHost:
    """A vendor of machines in memory."""

    vendor = "runpod"

    def __init__(self, *names: str, deletes: bool = True) -> None:
        self._pods = {f"pod-{name}": name for name in names}
        self._deletes = deletes
        self.lists = True

    def pods(self) -> tuple[Pod, ...]:
        if not self.lists:
            raise Unavailable("RunPod did not answer.")
        return tuple(Pod(pod_id=pod_id, name=name, status="RUNNING") for pod_id, name in self._pods.items())

    def delete_pod(self, pod_id: str) -> None:
        if not self._deletes:
            raise Unavailable("RunPod refused.")
        self._pods.pop(pod_id, None)


@pytest.fixture
def opened() -> Iterator[list[PortsForTests]]:
    ports: list[PortsForTests] = []
    yield ports
    for one in ports:
        one.close()


Make = Callable[..., Upkeep]


@pytest.fixture
def make(tables: PortsForTests, opened: list[PortsForTests]) -> Iterator[Make]:
    """Makes ports; afterwards no job, run or circuit of this test is left for the next to tidy up."""

    def make(vendor: StandinVendor | None = None, host: StandinHost | None = None) -> Upkeep:
        ports = Upkeep(tables, vendor or StandinVendor(), host)
        opened.append(ports)
        return ports

    yield make
    make().do("DELETE FROM vendor_circuits; DELETE FROM season_runs; DELETE FROM maintenance_runs")
    make().do("UPDATE provider_jobs SET heartbeat_at = now()")


def sent(ports: Upkeep) -> str:
    """A new season's job that its vendor has accepted and that nobody has looked at since."""
    _, key = planned(ports)
    submit_job(ports, key)
    ports.left(key)
    return key


def died_before_its_answer(ports: Upkeep) -> str:
    """A job whose submitter was killed in the middle of its POST."""
    _, key = planned(ports)
    assert ports.ledger.claim(key, ports.clock.now(), {})
    ports.left(key)
    return key


def stored(ports: Upkeep, text: str, *, age: timedelta) -> str:
    """Bytes that were put so long before the test's now."""
    sha256 = ports.blobs.put_bytes(text.encode(), "text/plain")
    at = (ports.clock.now() - age).timestamp()
    os.utime(ports.blobs.local_path(sha256), (at, at))
    return sha256


OLD = BLOB_KEPT_FOR + timedelta(hours=1)
YOUNG = BLOB_KEPT_FOR - timedelta(hours=1)
