"""Jobs in flight that nobody watches any more: found again, looked at, settled, stopped when their time is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.errors import NeedsPerson, NotConfigured, OnModelError, OutOfCredit, SubmissionUnknown
from domain.jobs import JobState, ProviderJob
from domain.upkeep import UNWATCHED_AFTER, StepReport, UpkeepStep
from tasks.cancelling import cancel_job
from tasks.insisting import take_up_note
from tasks.lost_answers import look_up_lost
from tasks.results import look_once, title

if TYPE_CHECKING:
    from providers.wiring import Ports

FOR_A_PERSON = (SubmissionUnknown, NeedsPerson, NotConfigured, OutOfCredit)
IN_FLIGHT = (JobState.SUBMITTED, JobState.RUNNING)


def take_up_orphans(ports: Ports, *, is_dry_run: bool) -> StepReport:
    """Take up every job in flight that nobody has looked at for ten minutes. Free, safe to repeat; POSTs nothing.

    One whose submitter died is lost, and looked up; one that was accepted is looked at once: what is done is kept and
    settled, what passed its time limit or was to be cancelled is stopped. A dry run asks no vendor.
    """
    did, waits, problems = [], [], []
    for job in ports.ledger.unwatched(UNWATCHED_AFTER):
        try:
            if is_dry_run:
                did.append(_would_do(ports, job))
            elif line := _take_up(ports, job):
                did.append(line)
        except FOR_A_PERSON as error:
            waits.append(error.message)
        except OnModelError as error:
            problems.append(f"Job {job.key[:12]}, {title(job)}, could not be looked at: {error.message}")
    return StepReport(step=UpkeepStep.JOBS, did=tuple(did), waits=tuple(waits), problems=tuple(problems))


def _would_do(ports: Ports, job: ProviderJob) -> str:
    name = f"{job.key[:12]}, {title(job)} at {job.request.vendor}"
    with ports.ledger.submitter(job.key) as hold:
        if not hold.is_ours:
            return f"{name}, would be left to the process that is sending it."
    if job.state in IN_FLIGHT:
        verb = "stopped, as it was to be" if _is_to_stop(job) else "looked at"
        return f"{name}, is {job.state} and nobody watches it: it would be {verb}."
    return f"{name}, has no answer to its submit: it would be looked up."


def _take_up(ports: Ports, job: ProviderJob) -> str:
    """What was done, as one sentence; '' when another process is at it."""
    name = f"{job.key[:12]}, {title(job)}"
    with ports.ledger.submitter(job.key) as hold:
        if not hold.is_ours:
            return ""
        job = ports.ledger.get(job.key)
        was = job.state
        if was is JobState.SUBMITTING and not take_up_note(ports, job.key):
            ports.ledger.lose(job.key, "the process that was submitting died before the answer was stored")
        look_up_lost(ports, job.key)
        job = ports.ledger.get(job.key)
        if job.state is JobState.PLANNED:
            if job.cancel_requested_at is not None:
                ports.ledger.cancel_planned(job.key, "cancelled by a person, and its vendor never had it")
                return f"{name}, never reached {job.request.vendor} and is cancelled, as it was to be."
            return f"{name}, never reached {job.request.vendor}: its run sends it again."
    # From here on the ledger itself keeps two from settling it twice; nobody who wants to send has to wait for us.
    if job.state in IN_FLIGHT:
        _look(ports, job)
    now = ports.ledger.get(job.key)
    found = f"was found at {job.request.vendor} and " if was not in IN_FLIGHT else ""
    match now.state:
        case JobState.SUCCEEDED:
            return f"{name}, {found}is done: its files are kept, {now.billed_usd} USD are settled."
        case JobState.SUBMITTED | JobState.RUNNING:
            stop = "; it was asked to stop and does not yet" if _is_to_stop(now) else ""
            return f"{name}, {found}is still {now.state}{stop}."
        case _:
            return f"{name}, {found}ended as {now.state}: {now.error_message or 'no reason given'}"


def _look(ports: Ports, job: ProviderJob) -> None:
    try:
        if _is_to_stop(job):
            cancel_job(ports, job.key)
        else:
            look_once(ports, job.key, silent_seconds=UNWATCHED_AFTER.total_seconds())
    except OnModelError:
        # Its failure is the ledger's to tell; only what kept us from looking, or goes on all the same, is trouble.
        if not ports.ledger.get(job.key).is_over:
            raise


def _is_to_stop(job: ProviderJob) -> bool:
    """Whether a person wanted this very POST stopped; one that was sent after the wish was wanted after all."""
    if job.cancel_requested_at is None:
        return False
    return job.submitting_at is None or job.cancel_requested_at >= job.submitting_at
