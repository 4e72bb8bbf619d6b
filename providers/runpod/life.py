"""Whether a pod lives: its phases, their deadlines, and what its worker tells, put together to one state of its job.

Times are RunPod's and the store's own, ours only where RunPod does not say: a wrong clock of ours kills no pod.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import parse_qs, quote, urlsplit

from domain.jobs import JobStatus, TrainingProgress, VendorJobIds, VendorState
from domain.money import ESTIMATE_STEP, round_up
from domain.pods import read_pod_name
from domain.records import Record
from providers.runpod.client import read_decimal
from providers.runpod.listing import PodLook
from providers.trainers.worker_job import WorkerStatus
from providers.vendor_ports import Pod

UNTIL_RUNTIME = timedelta(minutes=20)
"""From its creation until its container runs: an image of 16 GB took 3 minutes, a hanging pull takes for ever
(runpod_trainers.md 5.2)."""
UNTIL_FIRST_HEARTBEAT = timedelta(minutes=15)
"""From there until the worker's first word. It speaks before it fetches anything, so no download is in this."""
UNTIL_ANY_WORD = UNTIL_RUNTIME + UNTIL_FIRST_HEARTBEAT + timedelta(minutes=10)
"""A container that is started again and again never runs long: so much after its creation, no word is none."""
BETWEEN_HEARTBEATS = timedelta(minutes=10)
AFTER_HARD_STOP = timedelta(minutes=10)
ZERO_GPUS_FOR = timedelta(minutes=5)
"""A pod that comes back may have no GPU (5.2); one that has just started may not list it yet."""

STATE_OF = {
    "PROVISIONING": VendorState.QUEUED,
    "STARTING": VendorState.QUEUED,
    "RUNNING": VendorState.RUNNING,
    "EXITED": VendorState.FAILED,
    "ERROR": VendorState.FAILED,
    "TERMINATED": VendorState.CANCELLED,
}
"""`PodStatus` of the specification. A pod has no word for done: that is its worker's."""

_FINAL = {"done": VendorState.DONE, "failed": VendorState.FAILED, "cancelled": VendorState.CANCELLED}


class PodTicket(Record):
    """What we note of a pod when it is made: beside its id its name, which is its box in the handover too, and its
    price, which it no longer tells once it has ended."""

    pod_id: str
    name: str
    usd_per_hour: Decimal | None = None

    def ids(self) -> VendorJobIds:
        price = f"?usd_per_hour={self.usd_per_hour}" if self.usd_per_hour else ""
        return VendorJobIds(request_id=self.pod_id, status_url=f"pod:{quote(self.name)}{price}")


def ticket_of(pod: Pod) -> PodTicket:
    return PodTicket(pod_id=pod.pod_id, name=pod.name, usd_per_hour=pod.cost_usd_per_hour)


def read_ticket(ids: VendorJobIds) -> PodTicket | None:
    """The ticket behind the ids of a job; None where they are a bare id, as a person or the reaper gives it."""
    parts = urlsplit(ids.status_url or "")
    if parts.scheme != "pod" or read_pod_name(parts.path) is None:
        return None
    (price,) = parse_qs(parts.query).get("usd_per_hour", [""])[:1]
    return PodTicket(pod_id=ids.request_id, name=parts.path, usd_per_hour=read_decimal(price))


def judge(look: PodLook | None, told: WorkerStatus | None, *, hard_stop: timedelta) -> JobStatus:
    """One state of what RunPod shows (None: it has no such pod) and what the worker last told (None: nothing).

    What is final in the worker's mouth is final. The message of a failure says why, in one sentence without its end.
    """
    if told is not None and told.is_final:
        return _status(_FINAL[told.state], told, _quoted(told.reason))
    if look is None:
        return _status(VendorState.GONE, told, "RunPod has no such pod, and it left no result")
    state = STATE_OF.get(look.pod.status, VendorState.UNKNOWN_WORD)
    if state in (VendorState.FAILED, VendorState.CANCELLED):
        return _status(state, told, f"RunPod says {look.pod.status}, and it left no result")
    if state is VendorState.RUNNING and look.uptime_seconds is None:
        state = VendorState.QUEUED  # RUNNING is said while the image is pulled
    dead = _why_dead(look, told, hard_stop)
    if dead is not None:
        return _status(VendorState.FAILED, told, dead)
    if state is VendorState.UNKNOWN_WORD:
        return _status(state, told, f"RunPod says {look.pod.status[:40]!r}")
    return _status(state, told, _quoted(told.phase) if told is not None else None)


def _why_dead(look: PodLook, told: WorkerStatus | None, hard_stop: timedelta) -> str | None:
    now, began = look.seen_at, look.pod.started_at
    if now is None or began is None:
        return None  # without their clock nothing is concluded; the hard stop is the reaper's, too
    age = now - began
    uptime = None if look.uptime_seconds is None else timedelta(seconds=look.uptime_seconds)
    if age > hard_stop + AFTER_HARD_STOP:
        return f"it is {_minutes(age)} old, past its hard stop of {_minutes(hard_stop)}"
    if look.gpu_count == 0 and uptime is not None and uptime > ZERO_GPUS_FOR:
        return "its machine has no GPU (any more)"
    if told is not None:
        silent = now - _moment(told.at)
        is_dead = silent > BETWEEN_HEARTBEATS
        return f"its worker has said nothing for {_minutes(silent)}, last while {told.phase!r}" if is_dead else None
    if uptime is None and age > UNTIL_RUNTIME:
        return f"its container does not run after {_minutes(age)}: the image may be too large, or not be there"
    if uptime is not None and uptime > UNTIL_FIRST_HEARTBEAT:
        return f"its container runs for {_minutes(uptime)}, and its worker has not said a word"
    if age > UNTIL_ANY_WORD:
        return f"its worker has not said a word in {_minutes(age)}"
    return None


def billed_usd(ticket: PodTicket, look: PodLook | None, told: WorkerStatus | None, *, cap: Decimal) -> Decimal | None:
    """What the pod cost: its price by the hour × its life, rounded up to 0.0001 USD; None where the life is unknown.

    Its life ends at the look, or where it is gone already with its worker's last word. The pulling of the image is in
    it (runpod_trainers.md 5.2). Without a price noted, the most it may have been.
    """
    name = read_pod_name(ticket.name)
    began = look.pod.started_at if look is not None else name.ordered_at if name is not None else None
    ended = look.seen_at if look is not None else _moment(told.finished_at or told.at) if told is not None else None
    if began is None or ended is None or ended < began:
        return None
    price = ticket.usd_per_hour or (look.pod.cost_usd_per_hour if look is not None else None) or cap
    return round_up(price * Decimal(str((ended - began).total_seconds())) / 3600, ESTIMATE_STEP)


def _status(state: VendorState, told: WorkerStatus | None, message: str | None) -> JobStatus:
    if told is None or told.step is None or not told.total_steps or not 0 <= told.step <= told.total_steps:
        return JobStatus(state=state, message=message)
    return JobStatus(
        state=state,
        progress=told.step / told.total_steps,
        message=message,
        training=TrainingProgress(
            step=told.step, total_steps=told.total_steps, loss=told.loss, seconds_left=told.seconds_left
        ),
    )


def _moment(epoch: float) -> datetime:
    """A machine's word for a time; what is none lies in 1970."""
    try:
        return datetime.fromtimestamp(epoch, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def _quoted(words: str | None) -> str | None:
    """A machine's words on one printable line, cut."""
    line = "".join(letter if letter.isprintable() else " " for letter in words or "")
    return " ".join(line.split())[:300] or None


def _minutes(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:.0f} min"
