"""`maintain`: one pass over everything that a crash may have left behind, step by step, and the report of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.errors import OnModelError
from domain.upkeep import MaintenanceReport, StepReport, UpkeepStep
from providers.wiring import open_ports
from tasks.dead_runs import take_up_dead_runs
from tasks.dropping import drop_leftovers
from tasks.orphans import take_up_orphans
from tasks.reaping import HostReport, reap_pods
from tasks.vendor_health import ask_vendors

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.upkeep")

FILES_EVERY = timedelta(days=1)
"""Looking for forgotten files reads every row and lists the whole store: once a day is enough for a term of 14 days."""


def tidy(ports: Ports, *, is_dry_run: bool, is_scheduled: bool = False) -> MaintenanceReport:
    """One pass of upkeep: vendors, jobs, runs, rented machines, files. Costs nothing and is safe to repeat.

    Never two at once: the second does nothing and says so (`is_busy`). What goes wrong in one step keeps no other from
    its work. A dry run changes nothing anywhere, and asks vendors only whether they are there and what they rent out.
    A scheduled pass looks for forgotten files once a day.
    """
    started_at = ports.clock.now()
    if is_dry_run:
        return MaintenanceReport(is_dry_run=True, started_at=started_at, steps=_steps(ports, is_dry_run=True))
    with ports.runs.only_one("maintain") as is_ours:
        if not is_ours:
            return MaintenanceReport(is_dry_run=False, started_at=started_at, is_busy=True)
        with_files = not is_scheduled or _are_files_due(ports)
        return MaintenanceReport(
            is_dry_run=False, started_at=started_at, steps=_steps(ports, is_dry_run=False, with_files=with_files)
        )


def _steps(ports: Ports, *, is_dry_run: bool, with_files: bool = True) -> tuple[StepReport, ...]:
    steps: list[tuple[UpkeepStep, Callable[[], StepReport]]] = [
        (UpkeepStep.VENDORS, lambda: ask_vendors(ports, is_dry_run=is_dry_run)),
        (UpkeepStep.JOBS, lambda: take_up_orphans(ports, is_dry_run=is_dry_run)),
        (UpkeepStep.RUNS, lambda: take_up_dead_runs(ports, is_dry_run=is_dry_run)),
        (UpkeepStep.PODS, lambda: _reap(ports, is_dry_run=is_dry_run)),
    ]
    if with_files:
        steps.append((UpkeepStep.FILES, lambda: drop_leftovers(ports, is_dry_run=is_dry_run)))
    return tuple(_fenced(step, work) for step, work in steps)


def _fenced(step: UpkeepStep, work: Callable[[], StepReport]) -> StepReport:
    """A step's report, whatever became of it; even a bug of ours in one step leaves the pods to the next."""
    try:
        return work()
    except OnModelError as error:
        return StepReport(step=step, problems=(error.message,))
    except Exception as error:
        log.exception("the step %s failed", step)
        return StepReport(step=step, problems=(f"A bug of OnModel ({type(error).__name__}: {error}).",))


def _are_files_due(ports: Ports) -> bool:
    last = ports.upkeep.tidied_files_at()
    # A time that is yet to come means that a clock was set back: then it is due as well.
    return last is None or not timedelta(0) <= ports.clock.now() - last < FILES_EVERY


# --- rented machines ---


def _reap(ports: Ports, *, is_dry_run: bool) -> StepReport:
    report = reap_pods(ports, is_dry_run=is_dry_run)
    did, waits, problems = [], [], []
    for host in report.hosts:
        did += _reaped(host, is_dry_run=is_dry_run)
        waits += [
            f"{host.vendor}: the pod {pod.pod_id} ({pod.name}) may still cost. {pod.problem} "
            "Delete it on the vendor's own page."
            for pod in host.failed
        ]
        problems += [f"{host.vendor}: {problem}" for problem in host.problems]
    return StepReport(step=UpkeepStep.PODS, did=tuple(did), waits=tuple(waits), problems=tuple(problems))


def _reaped(host: HostReport, *, is_dry_run: bool) -> list[str]:
    pods = host.condemned if is_dry_run else host.deleted
    done = "would be deleted" if is_dry_run else "is deleted"
    return [f"{host.vendor}: the pod {pod.pod_id} ({pod.name}) {done}. {pod.reason}" for pod in pods] + [
        f"{host.vendor}: the job {key[:12]} is ended with its pod." for key in host.ended_jobs
    ]


# --- for the flow ---


@task(name="tidy", cache_policy=NO_CACHE)
def tidy_task() -> int | None:
    """One scheduled pass; the number of its report, None when another pass was at work."""
    ports = open_ports()
    report = tidy(ports, is_dry_run=False, is_scheduled=True)
    return None if report.is_busy else ports.upkeep.keep_report(report)


def maintenance_note(number: int | None) -> tuple[str, int]:
    """A stored report as markdown for Prefect's pages, and its exit code."""
    report = open_ports().upkeep.report(number) if number is not None else None
    if report is None:
        return "Another pass was at work: nothing was done.", 0
    lines = [f"# Upkeep of {report.started_at:%Y-%m-%d %H:%M} UTC", ""]
    if report.is_quiet:
        lines.append("There was nothing to do.")
    for step in report.steps:
        said = [*step.did, *(f"**Waits for you:** {line}" for line in step.waits)]
        said += [f"**Not done:** {line}" for line in step.problems]
        if said:
            lines += [f"## {str(step.step).capitalize()}", "", *(f"- {line}" for line in said), ""]
    return "\n".join(lines), report.exit_code
