"""The one door for money: estimate → reserve → submit once → poll → keep the file → settle.

In order: (a) one transaction writes the row and reserves its ceiling; (b) the row is marked *submitting* and
committed; (c) one POST is made, and only by the process that marked it; (d) the vendor's id is committed before
anything else; (e) polling, from any process, by id; (f) the output is downloaded at once into our own store;
(g) it settles, and only then the job has succeeded. A refusal goes back to *planned*; a lost answer becomes
*submission_unknown*, keeps its reservation and is looked up. Nothing here POSTs a job twice.

Beside it: `results.py` (e to g), `lost_answers.py`, `breaker.py` (vendors in trouble), `insisting.py` (a database
away).
"""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import State, Task, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.runtime import flow_run

from domain.costs import FREE, job_cost
from domain.errors import (
    NotConfigured,
    OutOfCredit,
    RateLimited,
    Rejected,
    Retryable,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import BlobRef, JobOrder, JobState, JobStatus, Operation, ProviderJob, TrainingProgress
from domain.retries import LONGEST_ASKED_SECONDS, PATIENCE_SECONDS, is_due, wait_before_again
from providers.wiring import open_ports
from tasks.breaker import is_open, let_through, note_refusal, note_taken
from tasks.insisting import insist, store_accepted, take_up_note
from tasks.lost_answers import GIVEN_UP, RELEASED, look_up_lost
from tasks.results import await_job

if TYPE_CHECKING:
    from providers.ports import SubmitterHold
    from providers.vendor_ports import JobVendor
    from providers.wiring import Ports

log = logging.getLogger("onmodel.jobs")

UPLOADS_KEPT_FOR = timedelta(hours=12)
"""fal keeps uploads at least days (fal.md 1.9); half a day is well inside it. A vendor that keeps them for less says so
in `uploads_kept_for`, as Replicate does."""

SUBMITTER_SECONDS = 900.0
"""How long one process waits for another that is submitting the same job: longer than any POST may take."""

FIRST_GLANCE_SECONDS = 0.2
LONGEST_GLANCE_SECONDS = 2.0
"""How often a job that another process sends, or whose time has not come, is glanced at: each takes a connection."""

ENDED_BY_OTHERS = ("JobFailed", "Abandoned")
"""Error classes of cancelled jobs: the vendor did it by itself (results.py), a person gave it up (lost_answers.py)."""

_TO_BE_SENT = (JobState.PLANNED, JobState.SUBMITTING, JobState.SUBMISSION_UNKNOWN)

TELL_EVERY = 0.1
"""A training's progress is told whenever so much more of it is done."""

POLL_RETRIES = 8
POLL_RETRY_SECONDS = [0.5, 1, 2, 5, 10, 30, 60, 120]


def plan_job(ports: Ports, order: JobOrder, *, max_attempts: int = 1) -> str:
    """The key of the job that does this work: the one there is, or a new attempt with its ceiling reserved.

    Safe to repeat: work that is open or done keeps its key, wherever it has moved, and so does work whose
    `max_attempts` have failed, whose request was refused, or which may have been paid without a result: awaiting that
    key raises its error again. What a person cancelled or wants bought again is bought anew. Costs nothing.
    `OverBudget` or `AsksForBudget` when the ceiling does not fit: then nothing is written.
    """
    latest = current_job(ports, order.work_key)
    if latest is None:
        return ports.ledger.plan(order, 1).key
    is_dead = latest.state in (JobState.FAILED, JobState.EXPIRED)
    if (
        latest.state is JobState.CANCELLED
        or (is_dead and latest.error_class == RELEASED)
        or (is_dead and _may_try_again(ports, latest, max_attempts))
    ):
        again = order if latest.work_key == order.work_key else latest.order()
        return ports.ledger.plan(again, latest.attempt + 1).key
    return latest.key


def plan_again(ports: Ports, key: str, *, max_attempts: int) -> str | None:
    """The next attempt at a job's work after it failed, or None when its attempts are used up or it was refused.

    None also for one that its vendor cancelled or a person gave up: the run that was waiting for it must not buy it
    again at once, and as often as that happens.
    """
    job = ports.ledger.get(key)
    was_ended = job.state is JobState.CANCELLED and job.error_class in ENDED_BY_OTHERS
    if was_ended or not _may_try_again(ports, job, max_attempts):
        return None
    return plan_job(ports, job.order(), max_attempts=max_attempts)


def current_job(ports: Ports, work_key: str) -> ProviderJob | None:
    """The newest attempt at this work, at whichever vendor it is by now; None when nobody ordered it yet."""
    job = ports.ledger.latest(work_key)
    while job is not None and job.moved_to is not None:
        job = ports.ledger.latest(ports.ledger.get(job.moved_to).work_key)
    return job


def move_to_next_vendor(ports: Ports, key: str) -> str | None:
    """Give work whose vendor is down, and which it definitely does not have, to the next vendor of the manifest.

    The key of the new job, reserved within the budget; None when there is no other vendor, or the first may have it.
    Safe to repeat. Costs nothing.
    """
    job = ports.ledger.get(key)
    if job.state is not JobState.PLANNED:
        return job.moved_to
    for place, order in enumerate(job.fallbacks):
        vendor = order.request.vendor
        try:
            ports.job_vendor(vendor)
        except NotConfigured as reason:
            log.warning("%s cannot take over from %s: %s", vendor, job.request.vendor, reason.message)
            continue
        if is_open(ports, vendor):
            continue
        rest = order.model_copy(update={"fallbacks": job.fallbacks[place + 1 :]})
        known = ports.ledger.latest(rest.work_key)
        why = ports.circuits.get(job.request.vendor).reason or "it is down"
        log.warning("%s moves from %s to %s: %s", job.api_name, job.request.vendor, vendor, why)
        moved = ports.ledger.move(key, rest, known.attempt if known else 1, why)
        return moved.key if moved is not None else None
    return None


def submit_job(ports: Ports, key: str) -> None:
    """Bring a planned job to its vendor, once. Safe to call again at any time, from any process.

    Returns when the vendor has the job (or it is over). `SubmissionUnknown` when that cannot be known: the job waits
    for a person. `OutOfCredit`, `OverBudget`, `NotConfigured`, `Retryable`: it stays planned. `Rejected`: it has
    failed.
    """
    refusals, waited, idled = 0, 0.0, 0.0
    while ports.ledger.get(key).state in _TO_BE_SENT:
        pause = FIRST_GLANCE_SECONDS
        with ports.ledger.submitter(key) as hold:
            job = ports.ledger.get(key)
            if hold.is_ours and job.state is JobState.SUBMITTING:
                # Its marker is gone (we hold the lock it would hold): the POST may or may not have left.
                if not take_up_note(ports, key):
                    ports.ledger.lose(key, "the process that was submitting died before the answer was stored")
                continue
            if hold.is_ours and job.state is JobState.SUBMISSION_UNKNOWN:
                look_up_lost(ports, key)
                continue
            if job.state not in _TO_BE_SENT:
                return
            if hold.is_ours and is_due(job.not_before, ports.clock.now()):
                try:
                    let_through(ports, job.request.vendor)
                    _submit_once(ports, job, hold)
                    continue
                except Retryable as refusal:
                    refusals += 1
                    pause = _pause_after(ports, job, refusal, refusals, waited)
                    waited += pause
            elif hold.is_ours:
                pause = _until_due(ports, job)
            else:
                pause = min(FIRST_GLANCE_SECONDS + idled / 4, LONGEST_GLANCE_SECONDS)
                idled += pause
                if idled > SUBMITTER_SECONDS:
                    raise Unavailable(
                        f"Another process has been submitting job {key[:12]} for {SUBMITTER_SECONDS / 60:.0f} minutes: "
                        f"it may be stopped. End it, then run again; nothing is sent twice."
                    )
        ports.clock.sleep(pause)


def _until_due(ports: Ports, job: ProviderJob) -> float:
    """Seconds until a postponed job may be sent; it is glanced at meanwhile, because somebody may have cancelled it."""
    left = (job.not_before - ports.clock.now()).total_seconds() if job.not_before is not None else 0.0
    return min(max(left, FIRST_GLANCE_SECONDS), LONGEST_GLANCE_SECONDS)


def _pause_after(ports: Ports, job: ProviderJob, refusal: Retryable, refusals: int, waited: float) -> float:
    """Seconds until the job is sent again; raises the refusal when this run has waited enough, or need not wait."""
    seconds = wait_before_again(refusal, refusals, random.random())  # noqa: S311 (no secret: it spreads retries)
    can_move = bool(job.fallbacks) and is_open(ports, job.request.vendor)
    if seconds is None or can_move or waited + seconds > PATIENCE_SECONDS:
        raise refusal
    log.warning("%s refused for now (%s); trying again in %.1f s", job.api_name, refusal.message, seconds)
    return seconds


def _submit_once(ports: Ports, job: ProviderJob, hold: SubmitterHold) -> None:
    key, name = job.key, job.request.vendor
    vendor = ports.job_vendor(name)
    try:
        url_of = {ref.sha256: _vendor_url(ports, vendor, name, ref) for ref in job.request.blobs()}
    except (Unavailable, OutOfCredit) as refusal:
        note_refusal(ports, name, refusal)
        raise
    except Rejected as refusal:
        ports.ledger.cancel_planned(key, f"a file it needs was refused: {refusal.message}")
        raise
    submission = ports.ledger.claim(key, ports.clock.now(), url_of)
    if submission is None:
        return
    try:
        is_still_ours = hold.still_submitting()
    except Unavailable as away:
        why = f"not sent: {away.message}"
        insist(ports, lambda: ports.ledger.postpone(key, ports.clock.now(), why, post=submission.number))
        raise
    if not is_still_ours:
        return
    try:
        ids = vendor.submit(job.request, submission)
    except (Retryable, OutOfCredit, NotConfigured) as refusal:
        wait = (refusal.retry_after_seconds if isinstance(refusal, RateLimited) else None) or 0.0
        not_before = ports.clock.now() + timedelta(seconds=min(wait, LONGEST_ASKED_SECONDS))
        why = refusal.message
        insist(ports, lambda: ports.ledger.postpone(key, not_before, why, post=submission.number))
        if not isinstance(refusal, NotConfigured):
            note_refusal(ports, name, refusal)
        raise
    except Rejected as refusal:
        cost = job_cost(job, FREE, f"refused by {name}, nothing charged")
        kind, why = type(refusal).__name__, refusal.message
        insist(ports, lambda: ports.ledger.refuse(key, kind, why, cost, post=submission.number))
        note_taken(ports, name)
        raise
    except SubmissionUnknown as lost:
        why = lost.message
        insist(ports, lambda: ports.ledger.lose(key, why, post=submission.number))
        note_refusal(ports, name, lost)
        return
    store_accepted(ports, key, name, ids)
    note_taken(ports, name)


def _vendor_url(ports: Ports, vendor: JobVendor, name: str, ref: BlobRef) -> str:
    kept_for: timedelta = getattr(vendor, "uploads_kept_for", UPLOADS_KEPT_FOR)
    known = ports.ledger.uploaded_url(name, ref.sha256, ports.clock.now() - kept_for)
    if known:
        return known
    url = vendor.upload(ports.blobs.local_path(ref.sha256), ref)
    ports.ledger.keep_uploaded_url(name, ref.sha256, url)
    return url


def _may_try_again(ports: Ports, job: ProviderJob, max_attempts: int) -> bool:
    if job.was_refused or job.needs_word or job.error_class == GIVEN_UP:
        return False
    return ports.ledger.failed_attempts(job.work_key) < max_attempts


def _is_worth_repeating(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    try:
        state.result()
    except Retryable:
        return True
    except Exception:  # noqa: BLE001 (whatever else it is, it is not worth repeating)
        return False
    return False


@task(name="submit-job", cache_policy=NO_CACHE, retries=0)
def submit_job_task(key: str) -> str:
    """Send a planned job, once."""
    ports = open_ports()
    ports.ledger.note_flow_run(key, str(flow_run.id or ""), str(flow_run.root_flow_run_id or ""))
    submit_job(ports, key)
    return key


@task(
    name="await-job",
    cache_policy=NO_CACHE,
    retries=POLL_RETRIES,
    retry_delay_seconds=POLL_RETRY_SECONDS,
    retry_condition_fn=_is_worth_repeating,
)
def await_job_task(key: str) -> str:
    """Poll a job to its end, keep its files, settle; a training's progress is shown in the run's artifacts."""
    await_job(open_ports(), key, _TrainingProgress())
    return key


class _TrainingProgress:
    """A training's share done, with step, loss and the time left where its trainer says them: on the log and as a
    Prefect artifact, told at every tenth."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._told = 0.0

    def __call__(self, job: ProviderJob, status: JobStatus) -> None:
        share = status.progress or 0.0
        if job.operation is not Operation.TRAIN_LORA or share < self._told + TELL_EVERY:
            return
        self._told = share
        whom = open_ports().cast.get(job.character_id).name if job.character_id else job.api_name
        log.info("%s: %d %% trained%s", whom, 100 * share, _in_figures(status.training))
        words = f"{whom}, {job.api_name}{_in_figures(status.training)}"
        if self._artifact is None:
            created = create_progress_artifact(100 * share, key=f"job-{job.key[:12]}", description=words)
            assert isinstance(created, UUID)
            self._artifact = created
        else:
            update_progress_artifact(self._artifact, 100 * share, description=words)


def _in_figures(training: TrainingProgress | None) -> str:
    """`, step 240 of 2000, loss 0.351, 38 min left`, as far as it is known."""
    if training is None:
        return ""
    parts = [f"step {training.step} of {training.total_steps}"]
    parts += [f"loss {training.loss:.3g}"] if training.loss is not None else []
    if training.seconds_left is not None:
        minutes = training.seconds_left / 60
        parts.append(f"{minutes:.0f} min left" if minutes >= 1 else "under a minute left")
    return ", " + ", ".join(parts)


def wait_before_retry(seconds: float) -> None:
    """Wait by the ports' clock; blocks the thread it is called in."""
    open_ports().clock.sleep(seconds)


@task(name="plan-again", cache_policy=NO_CACHE)
def plan_again_task(key: str, max_attempts: int) -> str | None:
    """Plan the next attempt at a failed job's work, if there is one."""
    return plan_again(open_ports(), key, max_attempts=max_attempts)


@task(name="move-job", cache_policy=NO_CACHE)
def move_job_task(key: str) -> str | None:
    """Give a job whose vendor is down to the next vendor of the manifest, if there is one."""
    return move_to_next_vendor(open_ports(), key)
