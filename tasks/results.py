"""From an accepted job to its kept result: poll, download, check, settle, and stop what takes too long."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from domain import errors
from domain.costs import FREE, job_cost
from domain.errors import (
    BadInput,
    JobFailed,
    NeedsPerson,
    OnModelError,
    OutOfCredit,
    Overdue,
    Rejected,
    ResultExpired,
    Retryable,
)
from domain.jobs import JobOutput, JobState, JobStatus, KeptFile, Operation, OutputFile, ProviderJob, VendorState
from domain.pods import HARD_STOP_ARGUMENT
from tasks.breaker import note_refusal

if TYPE_CHECKING:
    from providers.vendor_ports import JobVendor
    from providers.wiring import Ports

TIME_LIMIT_SECONDS = {
    Operation.TRAIN_LORA: 4 * 3600.0,
    Operation.MAKE_STILL: 900.0,
    Operation.MAKE_VIDEO: 3600.0,
    Operation.DESCRIBE_PICTURE: 900.0,
}
"""Time really waited (`ProviderJob.waited_seconds`), not time by the clock, after which a job is stopped."""

HARD_STOP_MARGIN_SECONDS = 1800.0
"""A machine of ours ends itself at its hard stop; only when it has not, half an hour later, the job is stopped here."""

LOOKS_BEFORE_GONE = 3
"""A 404 on a job just accepted can be the vendor's own lag; three in a row are believed."""

LOOKS_AFTER_CANCEL = 5
"""A vendor that was asked to stop a job says so within a few looks, or a person is told."""

FETCH_AFTER_SECONDS = (0.0, 2.0, 15.0)
"""A result or an address that is not there, or a file that does not decode, is fetched twice more, so much later and
through a fresh answer, before a job that was paid for counts as one without a result. Our choice."""


def await_job(ports: Ports, key: str, tell: Callable[[ProviderJob, JobStatus], None] | None = None) -> None:
    """Poll a submitted job to its end, keep its files and settle. Free, and safe to repeat from any process.

    `tell` is called with each look that says how much is done.
    Returns when it has succeeded. `JobFailed` or `Rejected` when it ended otherwise; `ResultExpired` or `Overdue` when
    only a person's word buys it again; `Retryable` when
    a look or a download failed (call again); `NeedsPerson` when it goes on past its time limit and cannot be stopped.
    """
    job = ports.ledger.get(key)
    if job.is_over:
        if job.state is not JobState.SUCCEEDED:
            raise remembered(job)
        return
    if _settle_kept(ports, job):
        return
    assert job.ids is not None, f"job {key} is {job.state}, not submitted"
    vendor = ports.job_vendor(job.request.vendor)
    limit = time_limit_seconds(job)
    interval, waited = ports.poll_seconds(job), job.waited_seconds
    slept, gone = 0.0, 0
    while True:
        status = _look(ports, vendor, job)
        if status.state is VendorState.GONE:
            gone += 1
            if gone >= LOOKS_BEFORE_GONE:
                _end_gone(ports, job)
        else:
            gone = 0
            if ended(ports, vendor, job, status.state):
                return
            is_running = status.state is VendorState.RUNNING
            ports.ledger.beat(key, is_running=is_running, progress=status.progress, waited_seconds=slept)
            if tell is not None and status.progress is not None:
                tell(job, status)
        if waited > limit:
            stop_overdue(ports, vendor, job)
            return
        ports.clock.sleep(interval)
        slept = interval
        waited += interval
        interval = min(interval * 1.3, ports.poll_seconds(job) * 4)


def time_limit_seconds(job: ProviderJob) -> float:
    """How long a job may be waited for: its operation's limit, or where its request states a hard stop, that and half
    an hour."""
    hard_stop = job.request.arguments.get(HARD_STOP_ARGUMENT)
    if isinstance(hard_stop, int | float):
        return float(hard_stop) + HARD_STOP_MARGIN_SECONDS
    return TIME_LIMIT_SECONDS[job.operation]


def _look(ports: Ports, vendor: JobVendor, job: ProviderJob) -> JobStatus:
    assert job.ids is not None
    try:
        return vendor.status(job.request, job.ids)
    except OutOfCredit as refusal:
        # What refuses a look would refuse a submit: the other jobs need not find out by themselves.
        note_refusal(ports, job.request.vendor, refusal)
        raise


def look_once(ports: Ports, key: str, *, silent_seconds: float) -> None:
    """One look at a job that nobody watches, and what follows from it: settled, stopped, or left to run on.

    `silent_seconds`, how long nobody has looked, counts as waited, so that its time limit comes. Free, safe to repeat,
    errors as `await_job`.
    """
    job = ports.ledger.get(key)
    if job.is_over or _settle_kept(ports, job):
        return
    assert job.ids is not None, f"job {key} is {job.state}, not submitted"
    vendor = ports.job_vendor(job.request.vendor)
    for look in range(LOOKS_BEFORE_GONE):
        if look:
            ports.clock.sleep(ports.poll_seconds(job))
        status = vendor.status(job.request, job.ids)
        if status.state is not VendorState.GONE:
            break
    else:
        _end_gone(ports, job)
    if ended(ports, vendor, job, status.state):
        return
    is_running = status.state is VendorState.RUNNING
    ports.ledger.beat(key, is_running=is_running, progress=status.progress, waited_seconds=silent_seconds)
    if job.waited_seconds + silent_seconds > time_limit_seconds(job):
        stop_overdue(ports, vendor, job)


def ended(ports: Ports, vendor: JobVendor, job: ProviderJob, state: VendorState) -> bool:
    """Whether the vendor's word means that the job is over; then it is settled here, and its failure raised."""
    if state in (VendorState.DONE, VendorState.FAILED):
        _finish(ports, vendor, job)
        return True
    if state is VendorState.CANCELLED:
        by_itself = JobState.CANCELLED, JobFailed(f"{title(job)} was cancelled at {job.request.vendor}.")
        ends_as, error = _why_stopped(ports, job) or by_itself
        _fail(ports, job, ends_as, error, charged=charge_when_stopped(ports, job))
    return False


def stop_as_asked(ports: Ports, vendor: JobVendor, job: ProviderJob) -> bool:
    """Stop a job that a person wants stopped; False when the vendor does not confirm it, and it may be asked again.

    What turns out done is kept and settled. Raises the error that the job ended with, as `await_job` does.
    """
    return _settle_stopped(ports, vendor, job, JobState.CANCELLED, stopped_as_asked(job))


def stopped_as_asked(job: ProviderJob) -> NeedsPerson:
    """What a run that waits for a job is told when a person stopped it: not to buy it again by itself."""
    return NeedsPerson(f"{title(job)} was cancelled as asked. To buy it after all, run the season again.")


def stop_overdue(ports: Ports, vendor: JobVendor, job: ProviderJob) -> None:
    """Stop a job that passed its time limit: what turns out done is kept, what was stopped has failed."""
    assert job.ids is not None
    hours = time_limit_seconds(job) / 3600
    if _settle_stopped(ports, vendor, job, JobState.FAILED, _late(job)):
        return
    command = f"onmodel jobs resolve {job.key[:12]}"
    raise NeedsPerson(
        f"{title(job)} is still not over at {job.request.vendor} after {hours:g} h of waiting (request "
        f"{job.ids.request_id}), and {job.request.vendor} does not stop it: it may still cost. Stop it on the vendor's "
        f"own page, or wait and run again; to give it up: {command} --abandon"
    )


def _settle_stopped(ports: Ports, vendor: JobVendor, job: ProviderJob, ends_as: JobState, error: OnModelError) -> bool:
    if _settle_kept(ports, job):
        return True
    state = stop_at_vendor(ports, vendor, job)
    if state in (VendorState.CANCELLED, VendorState.GONE):
        _fail(ports, job, ends_as, error, charged=charge_when_stopped(ports, job))
    if state in (VendorState.DONE, VendorState.FAILED):
        _finish(ports, vendor, job, stopped=(ends_as, error))
        return True
    return False


def _why_stopped(ports: Ports, job: ProviderJob) -> tuple[JobState, OnModelError] | None:
    """How a job ends that its vendor was asked to stop, by a person or for its time limit; None when nobody asked."""
    now = ports.ledger.get(job.key)
    if now.cancel_requested_at is None:
        return None
    if now.waited_seconds > time_limit_seconds(job):
        return JobState.FAILED, _late(job)
    return JobState.CANCELLED, stopped_as_asked(job)


def _late(job: ProviderJob) -> Overdue:
    hours = time_limit_seconds(job) / 3600
    return Overdue(f"{title(job)} was not over after {hours:g} h of waiting and was stopped. {_word_wanted(job)}")


def stop_at_vendor(ports: Ports, vendor: JobVendor, job: ProviderJob) -> VendorState:
    """Ask the vendor to stop a job, and look until it says what became of it. Free; safe to repeat."""
    assert job.ids is not None
    ports.ledger.note_cancel(job.key)
    vendor.cancel(job.request, job.ids)
    state = VendorState.RUNNING
    for look in range(LOOKS_AFTER_CANCEL):
        if look:
            ports.clock.sleep(ports.poll_seconds(job))
        state = vendor.status(job.request, job.ids).state
        if state in (VendorState.DONE, VendorState.FAILED, VendorState.CANCELLED, VendorState.GONE):
            break
    return state


def charge_when_stopped(ports: Ports, job: ProviderJob) -> Decimal:
    """What a stopped job counts: nothing when it was never seen running, else its estimate, as it may be billed.

    Where failures are charged it always counts: a machine bills from its first minute, whatever it was seen doing.
    """
    was_running = ports.ledger.get(job.key).state is JobState.RUNNING
    return job.estimate_usd if was_running or ports.job_vendor(job.request.vendor).charges_failures else FREE


def _end_gone(ports: Ports, job: ProviderJob) -> NoReturn:
    assert job.ids is not None
    lost = ResultExpired(
        f"{title(job)}: {job.request.vendor} no longer knows request {job.ids.request_id}. "
        f"It was accepted, so its estimate counts as spent. {_word_wanted(job)}"
    )
    _fail(ports, job, JobState.EXPIRED, lost, charged=job.estimate_usd)


def _finish(
    ports: Ports, vendor: JobVendor, job: ProviderJob, stopped: tuple[JobState, OnModelError] | None = None
) -> None:
    """Fetch and keep everything a finished job made, and settle; a second answer is asked for before giving up.

    `stopped`: how it ends when it was asked to stop and has nothing to show.
    """
    billed: Decimal = job.estimate_usd
    missing: JobFailed | ResultExpired | None = None
    for wait_seconds in FETCH_AFTER_SECONDS:
        if wait_seconds:
            ports.clock.sleep(wait_seconds)
        try:
            output = _output(ports, vendor, job, stopped)
        except ResultExpired as gone:
            missing = ResultExpired(f"{title(job)}: {gone.message} {_word_wanted(job)}")
            continue
        billed = output.billed_usd if output.billed_usd is not None else job.estimate_usd
        try:
            files = tuple(_keep(ports, vendor, job, file) for file in output.files)
        except (JobFailed, ResultExpired) as unusable:
            missing = unusable
            continue
        ports.ledger.keep(job.key, files, output.seed, billed, text=output.text)
        ports.ledger.succeed(job.key, files, output.seed, job_cost(job, billed, title(job)), text=output.text)
        return
    assert missing is not None
    state = JobState.EXPIRED if isinstance(missing, ResultExpired) else JobState.FAILED
    _fail(ports, job, state, missing, charged=billed)


def _word_wanted(job: ProviderJob) -> str:
    command = f"onmodel jobs resolve {job.key[:12]}"
    return (
        f"It may have been paid, so it is not bought again by itself. To buy it again: {command} --resubmit; to do "
        f"without it: {command} --abandon. Then run again."
    )


def _settle_kept(ports: Ports, job: ProviderJob) -> bool:
    """Settle a job whose result an earlier process kept and noted before it died; the vendor is not asked any more."""
    if job.billed_usd is None or not all(ports.blobs.has(file.sha256) for file in job.files):
        return False
    cost = job_cost(job, job.billed_usd, title(job))
    ports.ledger.succeed(job.key, job.files, job.seed, cost, text=job.text)
    return True


def _output(
    ports: Ports, vendor: JobVendor, job: ProviderJob, stopped: tuple[JobState, OnModelError] | None
) -> JobOutput:
    assert job.ids is not None
    try:
        return vendor.output(job.request, job.ids)
    except (JobFailed, Rejected) as failure:
        # A job that was stopped is COMPLETED at fal too, and only its result is missing (fal.md 1.4).
        stopped = stopped or _why_stopped(ports, job)
        if stopped is not None and isinstance(failure, JobFailed):
            ends_as, error = stopped
            _fail(ports, job, ends_as, error, charged=charge_when_stopped(ports, job))
        charged = job.estimate_usd if vendor.charges_failures else FREE
        if isinstance(failure, JobFailed) and failure.billed_usd is not None:
            charged = failure.billed_usd  # what the vendor's own figures say
        _fail(ports, job, JobState.FAILED, failure, charged=charged)


def _keep(ports: Ports, vendor: JobVendor, job: ProviderJob, file: OutputFile) -> KeptFile:
    """Download an output, check size, kind and content, and store it under its SHA-256."""
    with tempfile.TemporaryDirectory(dir=ports.scratch()) as folder:
        path = Path(folder) / f"download{_suffix(file)}"
        with path.open("w+b") as target:
            try:
                vendor.download(file, target)
            except ResultExpired as gone:
                raise ResultExpired(
                    f"{title(job)}: its {file.role} file can no longer be fetched from {job.request.vendor} "
                    f"(job {job.key[:12]}): {gone.message} {_word_wanted(job)}"
                ) from gone
        _check(ports, job, file, path)
        media_type = file.content_type or "application/octet-stream"
        sha256 = ports.blobs.put_file(path, media_type)
    # A vendor's word, which later becomes a file name again: only its last part counts.
    name = PurePosixPath((file.file_name or "").replace("\\", "/")).name or f"{file.role}{_suffix(file)}"
    return KeptFile(role=file.role, sha256=sha256, media_type=media_type, file_name=name, url=file.url)


def _check(ports: Ports, job: ProviderJob, file: OutputFile, path: Path) -> None:
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise JobFailed(f"{title(job)}: {job.request.vendor} returned an empty {file.role} file.")
    if file.size_bytes and file.size_bytes != size_bytes:
        raise JobFailed(
            f"{title(job)}: the {file.role} file from {job.request.vendor} has {size_bytes} bytes, "
            f"{file.size_bytes} were promised."
        )
    try:
        match file.role:
            case "image":
                ports.media.load_image(path)
            case "video":
                ports.media.probe_clip(path)
            case "lora" | "lora_high_noise":
                ports.check_lora_header(path)
    except BadInput as problem:
        raise JobFailed(
            f"{title(job)}: the {file.role} from {job.request.vendor} cannot be used ({problem.message})."
        ) from problem


def _fail(ports: Ports, job: ProviderJob, state: JobState, error: OnModelError, *, charged: Decimal = FREE) -> NoReturn:
    why = "charged although it failed" if charged else "failed, nothing charged"
    cost = job_cost(job, charged, f"{title(job)}: {why}")
    ports.ledger.end(job.key, state, type(error).__name__, error.message, cost)
    raise error


def remembered(job: ProviderJob) -> OnModelError:
    """The error a job ended with, as it was raised then; never one that would be retried for ever."""
    if job.state is JobState.CANCELLED and job.error_class is None and job.moved_to is None:
        return stopped_as_asked(job)
    if job.error_class == "Abandoned":
        return NeedsPerson(f"{title(job)} was given up by a person. To buy it anew, run the season again.")
    kind = getattr(errors, job.error_class or "", JobFailed)
    if not issubclass(kind, OnModelError) or issubclass(kind, Retryable):
        kind = JobFailed
    return kind(job.error_message or f"{title(job)} ended as {job.state}.")


def title(job: ProviderJob) -> str:
    """A job in the words of a log line."""
    whom = f" for slot {job.slot_number}" if job.slot_number is not None else ""
    return f"{job.api_name}{whom} (attempt {job.attempt})"


def _suffix(file: OutputFile) -> str:
    name = file.file_name or file.url.split("?")[0]
    suffix = Path(name).suffix
    return suffix if suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= 12 else ""
