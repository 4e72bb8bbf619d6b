"""What a cell of the matrix came to: jobs taken, results lost, cents over budget, pods left, and what must not be."""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx
from pydantic import SecretStr

from domain.jobs import LEGAL_EDGES, JobState, ProviderJob
from domain.pods import key_parts
from domain.records import Record
from providers.runpod.vendor import RunPodVendor
from providers.sandbox.handover import SandboxHandover
from providers.sandbox.places import RENTED_HOSTS
from providers.sandbox.transport import SandboxTransport
from providers.settings import Settings
from providers.vendor_ports import PodHost
from tasks.reaping import reap_pods
from tests.faults.matrix import Cell, VendorName
from tests.faults.stands import ESTIMATE_USD, Stand
from tests.faults.worker import Ended
from tests.ports_for_tests import HandClock, PortsForTests

PAST_THE_GRACE = timedelta(minutes=30)
"""Younger pods are not the reaper's."""


class Count(Record):
    """What a cell came to. `problems` are sentences about what must never be; a good cell has none."""

    ended: str
    accepted: int
    lost: int = 0
    over_cents: int = 0
    pods: int = 0
    problems: tuple[str, ...] = ()
    told: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.ended} {self.accepted}/{self.lost}/{self.over_cents}/{self.pods}"

    def is_as(self, cell: Cell) -> bool:
        """Whether it is what the cell expects, with nothing lost, passed or left."""
        expected = (cell.expected.how, cell.expected.accepted, 0, 0, 0, ())
        return expected == (self.ended, self.accepted, self.lost, self.over_cents, self.pods, self.problems)


def count_cell(ports: CellPorts, stand: Stand, season_id: int, ended: Ended, problems: list[str]) -> Count:
    """What the cell came to; `problems` are those seen on the way."""
    how = "done" if ended.exit_code == 0 else f"exit {ended.exit_code}"
    pods = _pods_left(ports, stand)
    jobs = ports.ledger.jobs_of_season(season_id)
    (budget,) = ports.budgets.of_season(season_id)
    costs = sum((entry.amount_usd for entry in ports.ledger.costs(season_id)), Decimal(0))
    is_open = any(not job.is_over for job in jobs)
    passed = max(budget.reserved_usd + budget.spent_usd - budget.limit_usd, Decimal(0)) + budget.overrun_usd
    problems += [sentence for job in jobs for sentence in _illegal(ports, job)]
    if budget.spent_usd != costs:
        problems.append(f"{budget.spent_usd} USD are spent and {costs} logged")
    if budget.reserved_usd and not is_open:
        problems.append(f"{budget.reserved_usd} USD stay reserved although everything is over")
    if how == "exit 6" and "onmodel jobs resolve" not in ended.told:
        problems.append("the person who must decide is not told how")
    if how == "done":
        problems += _unsettled(jobs, getattr(stand, "billed_usd", ESTIMATE_USD))
    lost = _lost(ports, stand, jobs, is_done=how == "done")
    return Count(
        ended=how,
        accepted=stand.accepted(),
        lost=lost,
        over_cents=int(100 * passed),
        pods=pods,
        problems=tuple(problems),
        told=ended.told,
    )


def _unsettled(jobs: list[ProviderJob], billed_usd: Decimal | None) -> list[str]:
    """`billed_usd`: what the vendor says it charged, or the estimate where it does not say; None for a machine by the
    hour, which costs something and less than its ceiling."""
    found = [f"job {job.key[:12]} is still {job.state}" for job in jobs if not job.is_over]
    good = [job for job in jobs if job.state is JobState.SUCCEEDED]
    if len(good) != 1:
        found.append(f"{len(good)} jobs have succeeded")
    return found + [f"job {job.key[:12]} counts {job.billed_usd}" for job in good if not _is_right(job, billed_usd)]


def _is_right(job: ProviderJob, billed_usd: Decimal | None) -> bool:
    if billed_usd is not None:
        return job.billed_usd == billed_usd
    return job.billed_usd is not None and 0 < job.billed_usd < job.ceiling_usd


def _lost(ports: CellPorts, stand: Stand, jobs: list[ProviderJob], *, is_done: bool) -> int:
    """Results that were paid for and called ours, and are not in our store as the vendor made them."""
    served = stand.served()
    files = [file for job in jobs if job.state is JobState.SUCCEEDED for file in job.files]
    missing = sum(1 for file in files if file.sha256 not in served or not _is_kept(ports, file.sha256))
    return missing + (is_done and not any(file.role in ("lora", "image") for file in files))


def _pods_left(ports: CellPorts, stand: Stand) -> int:
    """Pods that run without a living job, after the reaper has come by."""
    if stand.vendor is not VendorName.RUNPOD:
        return 0
    ports.clock.sleep(PAST_THE_GRACE.total_seconds())
    reap_pods(ports, is_dry_run=False)
    pods = ports.vendor_of_pods().pods()
    rows = ports.ledger.jobs_by_key_prefix(key_parts(pods)) if pods else {}
    living = sum(1 for job in rows.values() if not job.is_over)
    return len(pods) - living


def _is_kept(ports: CellPorts, sha256: str) -> bool:
    return ports.blobs.has(sha256) and hashlib.sha256(ports.blobs.read(sha256)).hexdigest() == sha256


def _illegal(ports: PortsForTests, job: ProviderJob) -> list[str]:
    """Moves of a job that no edge allows, or that do not join; nothing when its history is whole."""
    events = ports.ledger.events(job.key)
    states = [event.to_state for event in events]
    befores = [event.from_state for event in events]
    found = [
        f"job {job.key[:12]} went from {before} to {after}"
        for before, after in itertools.pairwise(states)
        if after not in LEGAL_EDGES[before]
    ]
    if befores != [None, *states[:-1]] or not states or states[-1] is not job.state:
        found.append(f"the events of job {job.key[:12]} do not join: {states}")
    return found


class CellPorts(PortsForTests):
    """A cell's tables and store as its driver sees them; a context manager."""

    def __init__(self, settings: Settings, stand: Stand) -> None:
        super().__init__(settings, {}, HandClock(datetime.now(UTC)))
        self._stand = stand
        way = SandboxTransport(stand.url, hosts=RENTED_HOSTS)
        self._rented = httpx.Client(transport=way, trust_env=False)

    def __enter__(self) -> CellPorts:
        return self

    def __exit__(self, *_: object) -> None:
        self._rented.close()
        self.close()

    def vendor_of_pods(self) -> RunPodVendor:
        handover = SandboxHandover(self._rented)
        return RunPodVendor(self._rented, SecretStr("test"), self.registry, handover=handover, clock=self.clock)

    def pod_hosts(self) -> tuple[PodHost, ...]:
        return (self.vendor_of_pods(),)
