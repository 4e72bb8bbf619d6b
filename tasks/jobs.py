"""The one door for money: estimate → reserve → submit once → poll → keep the file → settle.

In order: (a) one transaction writes the row and reserves its ceiling; (b) the row is marked *submitting* and
committed; (c) one POST is made, and only by the process that marked it; (d) the vendor's id is committed before
anything else; (e) polling, from any process, by id; (f) the output is downloaded at once into our own store;
(g) it settles, and only then the job has succeeded. A refusal goes back to *planned*; a lost answer becomes
*submission_unknown*, keeps its reservation and waits for a person. Nothing here POSTs a job twice.
"""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from prefect import State, Task, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.runtime import flow_run

from domain import errors
from domain.costs import FREE, job_cost
from domain.errors import (
    BadInput,
    JobFailed,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    RateLimited,
    Rejected,
    ResultExpired,
    Retryable,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import (
    BlobRef,
    JobOrder,
    JobState,
    KeptFile,
    Operation,
    OutputFile,
    ProviderJob,
    VendorState,
)
from providers.wiring import open_ports

if TYPE_CHECKING:
    from providers.vendor_ports import Vendor
    from providers.wiring import Ports

log = logging.getLogger("onmodel.jobs")

UPLOADS_KEPT_FOR = timedelta(hours=12)
"""fal keeps uploads at least days (fal.md 1.9); half a day is well inside it."""

REFUSALS_BEFORE_GIVING_UP = 6
TIME_LIMIT_SECONDS = {
    Operation.TRAIN_LORA: 4 * 3600.0,
    Operation.MAKE_STILL: 900.0,
    Operation.MAKE_VIDEO: 3600.0,
    Operation.DESCRIBE_PICTURE: 900.0,
}
LOOKS_BEFORE_GONE = 3
"""A 404 on a job just accepted can be the vendor's own lag; three in a row are believed."""

POLL_RETRIES = 8
POLL_RETRY_SECONDS = [0.5, 1, 2, 5, 10, 30, 60, 120]


def plan_job(ports: Ports, order: JobOrder, *, max_attempts: int = 1) -> str:
    """The key of the job that does this work: the one there is, or a new attempt with its ceiling reserved.

    Safe to repeat: work that is open or done keeps its key, and so does work whose `max_attempts` are used up or whose
    request was refused: awaiting that key raises its error again. Costs nothing. `OverBudget` when the ceiling does
    not fit; then nothing is written.
    """
    latest = ports.ledger.latest(order.work_key)
    if latest is None:
        return ports.ledger.plan(order, 1).key
    is_dead = latest.state in (JobState.FAILED, JobState.EXPIRED)
    if is_dead and latest.attempt < max_attempts and not was_refused(latest):
        return ports.ledger.plan(order, latest.attempt + 1).key
    return latest.key


def plan_again(ports: Ports, key: str, *, max_attempts: int) -> str | None:
    """The next attempt at a job's work after it failed, or None when its attempts are used up or it was refused."""
    job = ports.ledger.get(key)
    if job.attempt >= max_attempts or was_refused(job):
        return None
    order = JobOrder(
        season_id=job.season_id,
        slot_number=job.slot_number,
        character_id=job.character_id,
        stage=job.stage,
        operation=job.operation,
        api_name=job.api_name,
        model_key=job.model_key,
        request=job.request,
        estimate_usd=job.estimate_usd,
        ceiling_usd=job.ceiling_usd,
        is_simulated=job.is_simulated,
    )
    return plan_job(ports, order, max_attempts=max_attempts)


def submit_job(ports: Ports, key: str) -> None:
    """Bring a planned job to its vendor, once. Safe to call again at any time, from any process.

    Returns when the vendor has the job (or it is over). `SubmissionUnknown` when that cannot be known: the job waits
    for a person. `OutOfCredit`, `NotConfigured`, `Unavailable`: it stays planned. `Rejected`: it has failed.
    """
    refusals = 0
    while True:
        with ports.ledger.submitter(key) as is_ours:
            job = ports.ledger.get(key)
            if job.state is JobState.PLANNED and is_ours and _is_due(ports, job):
                try:
                    _submit_once(ports, job)
                except Retryable as refusal:
                    refusals += 1
                    if refusals >= REFUSALS_BEFORE_GIVING_UP:
                        raise
                    _wait_before_again(ports, job, refusal, refusals)
                continue
            if job.state is JobState.SUBMITTING and is_ours:
                # Its marker is gone (we hold the lock it would hold): the POST may or may not have left.
                ports.ledger.lose(key, "the process that was submitting died before the answer was stored")
                continue
            if job.state is JobState.SUBMISSION_UNKNOWN:
                raise SubmissionUnknown(
                    f"Job {key} ({job.api_name} at {job.request.vendor}) was sent, but its answer was lost "
                    f"({job.error_message}). It may be running and paid for, so it is not sent again: look it up "
                    f"in the vendor's request list before anything else."
                )
            if job.state not in (JobState.PLANNED, JobState.SUBMITTING):
                return
        ports.clock.sleep(0.2)


def _is_due(ports: Ports, job: ProviderJob) -> bool:
    return job.not_before is None or job.not_before <= ports.clock.now()


def _submit_once(ports: Ports, job: ProviderJob) -> None:
    vendor = ports.vendor(job.request.vendor)
    url_of = {ref.sha256: _vendor_url(ports, vendor, job.request.vendor, ref) for ref in job.request.blobs()}
    if not ports.ledger.claim(job.key, ports.clock.now()):
        return
    try:
        ids = vendor.submit(job.request, url_of)
    except Retryable as refusal:
        wait = (refusal.retry_after_seconds if isinstance(refusal, RateLimited) else None) or 0.0
        ports.ledger.postpone(job.key, ports.clock.now() + timedelta(seconds=wait), refusal.message)
        raise
    except Rejected as refusal:
        ports.ledger.end(
            job.key,
            JobState.FAILED,
            type(refusal).__name__,
            refusal.message,
            job_cost(job, FREE, f"refused by {job.request.vendor}, nothing charged"),
        )
        raise
    except (OutOfCredit, NotConfigured) as refusal:
        ports.ledger.postpone(job.key, ports.clock.now(), refusal.message)
        raise
    except SubmissionUnknown as lost:
        ports.ledger.lose(job.key, lost.message)
        return
    try:
        ports.ledger.submitted(job.key, ids)
    except Exception:
        # Paid work without a row to find it by: the log is the last place that can still name it.
        log.critical(
            "%s: %s accepted request %s, which could not be stored", job.key, job.request.vendor, ids.request_id
        )
        raise


def _wait_before_again(ports: Ports, job: ProviderJob, refusal: Retryable, refusals: int) -> None:
    asked = refusal.retry_after_seconds if isinstance(refusal, RateLimited) else None
    seconds = asked if asked is not None else min(30.0, 0.5 * 2**refusals) * random.uniform(0.5, 1.0)  # noqa: S311
    log.warning("%s refused for now (%s); trying again in %.1f s", job.api_name, refusal.message, seconds)
    ports.clock.sleep(seconds)


def _vendor_url(ports: Ports, vendor: Vendor, name: str, ref: BlobRef) -> str:
    known = ports.ledger.uploaded_url(name, ref.sha256, ports.clock.now() - UPLOADS_KEPT_FOR)
    if known:
        return known
    url = vendor.upload(ports.blobs.local_path(ref.sha256), ref)
    ports.ledger.keep_uploaded_url(name, ref.sha256, url)
    return url


def await_job(ports: Ports, key: str, tell: Callable[[ProviderJob, float], None] | None = None) -> None:
    """Poll a submitted job to its end, keep its files and settle. Free, and safe to repeat from any process.

    `tell` is called with the share done, 0 to 1, where the vendor says it.
    Returns when it has succeeded. `JobFailed`, `Rejected` or `ResultExpired` when it ended otherwise; `Retryable` when
    a look or a download failed (call again); `Unavailable` when it is still not over after its time limit.
    """
    job = ports.ledger.get(key)
    if job.is_over:
        if job.state is not JobState.SUCCEEDED:
            raise _remembered(job)
        return
    assert job.ids is not None, f"job {key} is {job.state}, not submitted"
    vendor = ports.vendor(job.request.vendor)
    deadline = ports.clock.now() + timedelta(seconds=TIME_LIMIT_SECONDS[job.operation])
    interval = ports.poll_seconds(job)
    gone = 0
    while True:
        status = vendor.status(job.request, job.ids)
        match status.state:
            case VendorState.DONE | VendorState.FAILED:
                _finish(ports, vendor, job)
                return
            case VendorState.CANCELLED:
                _fail(
                    ports, job, JobState.CANCELLED, JobFailed(f"{_title(job)} was cancelled at {job.request.vendor}.")
                )
            case VendorState.GONE:
                gone += 1
                if gone >= LOOKS_BEFORE_GONE:
                    lost = ResultExpired(
                        f"{_title(job)}: {job.request.vendor} no longer knows request {job.ids.request_id}. "
                        f"It was accepted, so its estimate counts as spent."
                    )
                    _fail(ports, job, JobState.EXPIRED, lost, charged=job.estimate_usd)
            case VendorState.QUEUED | VendorState.RUNNING | VendorState.UNKNOWN_WORD:
                gone = 0
                is_running = status.state is VendorState.RUNNING
                ports.ledger.beat(key, is_running=is_running, progress=status.progress)
                if tell is not None and status.progress is not None:
                    tell(job, status.progress)
        if ports.clock.now() > deadline:
            raise Unavailable(
                f"{_title(job)} is still not over at {job.request.vendor} (request {job.ids.request_id}); "
                f"it is not lost: run again to go on waiting."
            )
        ports.clock.sleep(interval)
        interval = min(interval * 1.3, ports.poll_seconds(job) * 4)


def _finish(ports: Ports, vendor: Vendor, job: ProviderJob) -> None:
    assert job.ids is not None
    try:
        output = vendor.output(job.request, job.ids)
    except (JobFailed, Rejected) as failure:
        _fail(ports, job, JobState.FAILED, failure)
    except ResultExpired as gone:
        _fail(ports, job, JobState.EXPIRED, gone, charged=job.estimate_usd)
    billed = output.billed_usd if output.billed_usd is not None else job.estimate_usd
    try:
        files = tuple(_keep(ports, vendor, job, file) for file in output.files)
    except (JobFailed, ResultExpired) as failure:
        state = JobState.EXPIRED if isinstance(failure, ResultExpired) else JobState.FAILED
        _fail(ports, job, state, failure, charged=billed)
    ports.ledger.succeed(job.key, files, output.seed, job_cost(job, billed, _title(job)), text=output.text)


def _keep(ports: Ports, vendor: Vendor, job: ProviderJob, file: OutputFile) -> KeptFile:
    """Download an output, check it, and store it under its SHA-256."""
    with tempfile.TemporaryDirectory(dir=ports.scratch()) as folder:
        path = Path(folder) / f"download{_suffix(file)}"
        with path.open("w+b") as target:
            vendor.download(file, target)
        if path.stat().st_size == 0:
            raise JobFailed(f"{_title(job)}: {job.request.vendor} returned an empty {file.role} file.")
        try:
            if file.role == "image":
                ports.media.load_image(path)
            elif file.role == "video":
                ports.media.probe_clip(path)
        except BadInput as problem:
            raise JobFailed(
                f"{_title(job)}: the {file.role} from {job.request.vendor} cannot be used ({problem.message})."
            ) from problem
        media_type = file.content_type or "application/octet-stream"
        sha256 = ports.blobs.put_file(path, media_type)
    # A vendor's word, which later becomes a file name again: only its last part counts.
    name = PurePosixPath((file.file_name or "").replace("\\", "/")).name or f"{file.role}{_suffix(file)}"
    return KeptFile(role=file.role, sha256=sha256, media_type=media_type, file_name=name, url=file.url)


def _fail(ports: Ports, job: ProviderJob, state: JobState, error: OnModelError, *, charged: Decimal = FREE) -> NoReturn:
    why = "charged although it failed" if charged else "failed, nothing charged"
    cost = job_cost(job, charged, f"{_title(job)}: {why}")
    ports.ledger.end(job.key, state, type(error).__name__, error.message, cost)
    raise error


def was_refused(job: ProviderJob) -> bool:
    """Whether the vendor said no to the request itself, so that asking again is useless."""
    return job.error_class in ("Rejected", "PromptRefused", "BadTrainingSet")


def _remembered(job: ProviderJob) -> OnModelError:
    """The error a job ended with, as it was raised then."""
    kind = getattr(errors, job.error_class or "", JobFailed)
    return kind(job.error_message or f"{_title(job)} ended as {job.state}.")


def _title(job: ProviderJob) -> str:
    whom = f" for slot {job.slot_number}" if job.slot_number is not None else ""
    return f"{job.api_name}{whom} (attempt {job.attempt})"


def _suffix(file: OutputFile) -> str:
    name = file.file_name or file.url.split("?")[0]
    suffix = Path(name).suffix
    return suffix if suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= 12 else ""


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
    ports.ledger.note_flow_run(key, str(flow_run.id or ""))
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
    """A training's share done, on the log and as a Prefect artifact, told at every quarter."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._told = 0.0

    def __call__(self, job: ProviderJob, share: float) -> None:
        if job.operation is not Operation.TRAIN_LORA or share < self._told + 0.25:
            return
        self._told = share
        whom = open_ports().cast.get(job.character_id).name if job.character_id else job.api_name
        log.info("%s: %d %% trained", whom, 100 * share)
        if self._artifact is None:
            created = create_progress_artifact(
                100 * share, key=f"job-{job.key[:12]}", description=f"{whom}, {job.api_name}"
            )
            assert isinstance(created, UUID)
            self._artifact = created
        else:
            update_progress_artifact(self._artifact, 100 * share)


def wait_before_retry(seconds: float) -> None:
    """Wait by the ports' clock; blocks the thread it is called in."""
    open_ports().clock.sleep(seconds)


@task(name="plan-again", cache_policy=NO_CACHE)
def plan_again_task(key: str, max_attempts: int) -> str | None:
    """Plan the next attempt at a failed job's work, if there is one."""
    return plan_again(open_ports(), key, max_attempts=max_attempts)
