"""Stopping what is bought: one job, a run's or a season's, by hand or because its run was cancelled in Prefect.

Only a person's wish cancels. A run that crashes cancels nothing: what it bought is taken up by the next.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from domain.errors import OnModelError
from domain.jobs import JobState, ProviderJob
from providers.wiring import open_ports
from tasks.results import stop_as_asked, title

if TYPE_CHECKING:
    from prefect import Flow, State
    from prefect.client.schemas.objects import FlowRun

    from providers.wiring import Ports

log = logging.getLogger("onmodel.jobs")

IN_FLIGHT = (JobState.SUBMITTED, JobState.RUNNING)
UNSURE = (JobState.SUBMITTING, JobState.SUBMISSION_UNKNOWN)
WHY = "cancelled by a person before it was sent"


def cancel_job(ports: Ports, key: str) -> JobState:
    """Stop a job; where it stands afterwards. Safe to repeat, and free but for what has been running.

    One that was not sent is cancelled. One that runs is stopped at its vendor: what turns out done is kept and settled,
    because it is paid for; what was stopped is cancelled, and counts its estimate if it ran. What the vendor does not
    confirm stays as it is and is followed by `maintain`, and so does one whose answer is not known yet.
    `Retryable`, `OutOfCredit` or `NotConfigured` when the vendor could not be asked: the wish is noted all the same.
    """
    if ports.ledger.cancel_planned(key, WHY):
        return JobState.CANCELLED
    job = ports.ledger.get(key)
    if job.state in UNSURE:
        # Nobody can stop what may not exist; once it is found, `maintain` stops it.
        ports.ledger.note_cancel(key)
    elif job.state in IN_FLIGHT:
        ports.ledger.note_cancel(key)
        _stop(ports, job)
    return ports.ledger.get(key).state


def _stop(ports: Ports, job: ProviderJob) -> None:
    try:
        stop_as_asked(ports, ports.job_vendor(job.request.vendor), job)
    except OnModelError:
        # How it ended is told by the ledger; what kept us from asking is the caller's.
        if not ports.ledger.get(job.key).is_over:
            raise


def cancel_jobs_of_run(ports: Ports, flow_run_id: str) -> tuple[tuple[str, JobState], ...]:
    """Cancel every open job that a Prefect run, or a run inside it, was at work on: (key, where it stands now) each.

    One job's trouble keeps no other from being cancelled: it is told in the log, and its state shows it.
    """
    return _cancel_all(ports, ports.ledger.jobs_of_run(flow_run_id))


def cancel_jobs_of_season(ports: Ports, season_id: int) -> tuple[tuple[str, JobState], ...]:
    """Cancel every open job of a season, as `cancel_jobs_of_run`."""
    return _cancel_all(ports, ports.ledger.open_jobs(season_id))


def _cancel_all(ports: Ports, jobs: list[ProviderJob]) -> tuple[tuple[str, JobState], ...]:
    # What is not sent yet goes first: nothing of it may be sent while the others are stopped.
    jobs = sorted(jobs, key=lambda job: job.state is not JobState.PLANNED)
    ends = []
    for job in jobs:
        trouble = ""
        try:
            cancel_job(ports, job.key)
        except OnModelError as error:
            trouble = error.message
        job = ports.ledger.get(job.key)
        log.log(logging.INFO if job.is_over else logging.WARNING, "%s: %s", job.key[:12], trouble or told(job))
        ends.append((job.key, job.state))
    return tuple(ends)


def told(job: ProviderJob) -> str:
    """What became of a job that was to be cancelled, as one sentence for a person."""
    what, vendor = title(job), job.request.vendor
    match job.state:
        case JobState.CANCELLED:
            spent = f"{job.billed_usd} USD are counted, because it was running" if job.billed_usd else "nothing counted"
            return f"{what} is cancelled; {spent}."
        case JobState.SUCCEEDED:
            return f"{what} was finished already: it is kept, and paid for."
        case JobState.FAILED | JobState.EXPIRED:
            return f"{what} was over already: {job.error_message}"
        case JobState.SUBMITTING | JobState.SUBMISSION_UNKNOWN:
            return f"{what} was sent to {vendor} and its answer is not known: once it is found it is stopped."
        case JobState.PLANNED:
            return f"{what} is planned again and was not sent."
        case JobState.SUBMITTED | JobState.RUNNING:
            return f"{what} was asked to stop, which {vendor} has not confirmed: onmodel maintain goes on with it."


def stop_paid_work(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's hook)
    """What Prefect calls when a run of ours was cancelled, in a process of its own after the run's is gone.

    Cancels what it was buying, and notes that a person ended it, so that nobody starts it again.
    """
    ports = open_ports()
    run_id = str(flow_run.id)
    try:
        ports.upkeep.end_runs_of(run_id, "interrupted")
    finally:
        cancel_jobs_of_run(ports, run_id)
