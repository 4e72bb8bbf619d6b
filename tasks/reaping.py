"""The reaper: no pod of ours outlives its job, whoever made it and whatever died since.

It asks the vendor what runs and the ledger what should, and deletes the difference; the rules are in `domain/pods.py`.
A ledger must be the only one with pods on its vendor account: what another one rents is an orphan to it. Never run two
at once: `maintain` holds the lock for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from domain.costs import job_cost
from domain.errors import JobFailed, OnModelError
from domain.jobs import JobState, ProviderJob, VendorJobIds
from domain.money import ESTIMATE_STEP, round_up
from domain.pods import PodVerdict, judge_pods, key_parts
from domain.records import Record

if TYPE_CHECKING:
    from providers.vendor_ports import Pod, PodHost
    from providers.wiring import Ports

log = logging.getLogger("onmodel.reaping")

LOOKS_TO_CONFIRM = 3
SECONDS_BETWEEN_LOOKS = 5.0
"""A pod just deleted may stay in a list for a moment, as one just made may be missing from it (runpod_trainers.md 5.2);
one that is still there after these looks counts as not deleted."""


class FailedDelete(Record):
    """A pod that should be gone and is not, or not surely: it may still cost. `problem` is one sentence."""

    pod_id: str
    name: str
    problem: str


class HostReport(Record):
    """What the reaper found and did at one vendor.

    `stranger_count` pods do not carry our prefix and were not touched. `condemned` are all that should go: `deleted`
    of them are confirmed to be gone, `failed` are not. `ended_jobs` are the keys of jobs ended with their pod.
    `problems` are sentences about what could not be done; with a listing that failed, nothing else is filled.
    """

    vendor: str
    stranger_count: int = 0
    kept: tuple[PodVerdict, ...] = ()
    condemned: tuple[PodVerdict, ...] = ()
    deleted: tuple[PodVerdict, ...] = ()
    failed: tuple[FailedDelete, ...] = ()
    ended_jobs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class ReapReport(Record):
    """What the reaper did everywhere. A dry run deletes nothing and ends nothing: read `condemned`."""

    is_dry_run: bool
    hosts: tuple[HostReport, ...]

    @property
    def is_whole(self) -> bool:
        """Whether everything could be asked and everything condemned is gone; a dry run: whether it could be asked."""
        return not any(host.failed or host.problems for host in self.hosts)


def reap_pods(ports: Ports, *, is_dry_run: bool) -> ReapReport:
    """Delete every pod of ours that is past its deadline or that no living job of the ledger stands for.

    Costs nothing and is safe to repeat; what one run leaves undone the next does. Never raises for a vendor that
    cannot be asked: that stands in `problems`, and nothing is concluded from it.
    """
    return ReapReport(
        is_dry_run=is_dry_run, hosts=tuple(_reap(ports, host, is_dry_run=is_dry_run) for host in ports.pod_hosts())
    )


def _reap(ports: Ports, host: PodHost, *, is_dry_run: bool) -> HostReport:
    try:
        pods = host.pods()
    except OnModelError as error:
        return HostReport(vendor=host.vendor, problems=(f"The pods could not be listed: {error.message}",))
    # The ledger is read after the list: a row is at least as new as the pods it is held against.
    parts = key_parts(pods)
    jobs = ports.ledger.jobs_by_key_prefix(parts) if parts else {}
    now = ports.clock.now()
    verdicts = judge_pods(pods, jobs, now, installation=ports.ledger.installation())
    condemned = tuple(verdict for verdict in verdicts if verdict.is_to_delete)
    report = HostReport(
        vendor=host.vendor,
        stranger_count=len(pods) - len(verdicts),
        kept=tuple(verdict for verdict in verdicts if not verdict.is_to_delete),
        condemned=condemned,
    )
    if is_dry_run or not condemned:
        return report
    failed = {failure.pod_id: failure for failure in _delete(ports, host, condemned)}
    deleted = tuple(verdict for verdict in condemned if verdict.pod_id not in failed)
    for verdict in deleted:
        log.info("%s: pod %s (%s) deleted. %s", host.vendor, verdict.pod_id, verdict.name, verdict.reason)
    ended, problems = _end_jobs(ports, host.vendor, deleted, {pod.pod_id: pod for pod in pods}, now)
    return report.model_copy(
        update={"deleted": deleted, "failed": tuple(failed.values()), "ended_jobs": ended, "problems": problems}
    )


def _delete(ports: Ports, host: PodHost, condemned: tuple[PodVerdict, ...]) -> list[FailedDelete]:
    """Delete each, then list again until none is there any more; what remains, with the reason."""
    failed, asked = [], []
    for verdict in condemned:
        try:
            host.delete_pod(verdict.pod_id)
            asked.append(verdict)
        except OnModelError as error:
            failed.append(_failed(verdict, f"It could not be deleted: {error.message}"))
    for look in range(LOOKS_TO_CONFIRM):
        if not asked:
            break
        if look:
            ports.clock.sleep(SECONDS_BETWEEN_LOOKS)
        try:
            listed = {pod.pod_id for pod in host.pods()}
        except OnModelError as error:
            unsure = f"It was deleted, but not confirmed to be gone: {error.message}"
            return [*failed, *(_failed(verdict, unsure) for verdict in asked)]
        asked = [verdict for verdict in asked if verdict.pod_id in listed]
    return [
        *failed,
        *(_failed(verdict, "The vendor said it is deleted and lists it all the same.") for verdict in asked),
    ]


def _failed(verdict: PodVerdict, problem: str) -> FailedDelete:
    log.warning("pod %s (%s) may still cost. %s", verdict.pod_id, verdict.name, problem)
    return FailedDelete(pod_id=verdict.pod_id, name=verdict.name, problem=problem)


def _end_jobs(
    ports: Ports, vendor: str, deleted: Iterable[PodVerdict], pods: dict[str, Pod], now: datetime
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """End the living jobs whose time was up and whose pods are gone: (their keys, problems)."""
    pods_of: dict[str, list[Pod]] = {}
    for verdict in deleted:
        if verdict.ends_job and verdict.job_key is not None:
            pods_of.setdefault(verdict.job_key, []).append(pods[verdict.pod_id])
    ended, problems = [], []
    for key, its_pods in pods_of.items():
        try:
            if _end_job(ports, vendor, key, its_pods, now):
                ended.append(key)
        except OnModelError as error:
            problems.append(f"The job {key[:12]} could not be ended after its pod was deleted: {error.message}")
    return tuple(ended), tuple(problems)


def _end_job(ports: Ports, vendor: str, key: str, its_pods: list[Pod], now: datetime) -> bool:
    job = ports.ledger.get(key)
    if job.is_over:
        return False
    names = ", ".join(pod.pod_id for pod in its_pods)
    charged, how = _charge(job, its_pods, now)
    if job.ids is None:
        # Its answer was lost, and here is the proof that it existed: it is adopted first, and so ends as what it was.
        ids = VendorJobIds(request_id=its_pods[0].pod_id)
        ports.ledger.adopt(key, ids, f"found at {vendor} as {names} when its time was up")
    message = (
        f"{job.api_name} (attempt {job.attempt}) passed its hard stop at {vendor}, and its pod {names} was deleted: "
        f"{charged} USD are counted, {how}."
    )
    cost = job_cost(job, charged, f"{job.api_name} (attempt {job.attempt}): pod stopped at its deadline, {how}")
    ports.ledger.end(key, JobState.FAILED, JobFailed.__name__, message, cost)
    return True


def _charge(job: ProviderJob, pods: list[Pod], now: datetime) -> tuple[Decimal, str]:
    """What the pods have cost, rounded up to 0.0001 USD, and how that is known."""
    spent = [_spent_usd(pod, now) for pod in pods]
    known = [usd for usd in spent if usd is not None]
    if len(known) < len(spent):
        return job.ceiling_usd, "its ceiling, because the pod no longer tells its price or its start"
    return round_up(sum(known, Decimal(0)), ESTIMATE_STEP), "its price per hour times its hours"


def _spent_usd(pod: Pod, now: datetime) -> Decimal | None:
    """Price × hours; None where either is unknown. A pod that has exited says 0.0 per hour, whatever it was before."""
    if not pod.cost_usd_per_hour or pod.started_at is None or pod.started_at > now:
        return None
    seconds = Decimal(str((now - pod.started_at).total_seconds()))
    return pod.cost_usd_per_hour * seconds / 3600
