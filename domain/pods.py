"""Pods of ours: what they are called, how long they may live, and which of them must go.

A pod bills by the hour until somebody deletes it, and RunPod's own timers do nothing (runpod_trainers.md 0.4). So its
name says when it was ordered and for which job, and whoever finds it can judge it without having made it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from domain.errors import BadInput
from domain.jobs import JobState, ProviderJob
from domain.records import Record
from domain.submissions import Submission

PREFIX = "onmodel-"
NAME = re.compile(r"onmodel-([0-9]{9,11})-([0-9a-f]{8})-([0-9a-f]{20})-([1-9][0-9]{0,5})")

GRACE = timedelta(minutes=10)
"""A younger pod is never touched: longer than a POST may take and the looks for its lost answer (4.5 minutes,
`RunPodVendor.absence`), so that its job has had its chance to learn of it."""

HARD_STOP_ARGUMENT = "hard_stop_seconds"
DEFAULT_HARD_STOP = timedelta(hours=6)
LONGEST_HARD_STOP = timedelta(days=7)


class RentedPod(Protocol):
    """What judging needs to know of a pod."""

    @property
    def pod_id(self) -> str: ...

    @property
    def name(self) -> str: ...


class PodName(Record):
    """A pod's name, read: when it was ordered (UTC), by which installation (`Submission.installation`), the first 20
    digits of its job's key, and which POST it was."""

    ordered_at: datetime
    installation: str
    key_part: str
    number: int


class PodVerdict(Record):
    """What is to become of a pod whose name has our prefix, with the reason as one sentence.

    `job_key` is the job it was rented for, where the ledger has it. `ends_job` is set where that job is still alive and
    must be ended with its pod.
    """

    pod_id: str
    name: str
    is_to_delete: bool
    reason: str
    job_key: str | None = None
    ends_job: bool = False


def pod_name(submission: Submission) -> str:
    """The name of the pod that this POST asks for: nobody else's, and the same whenever it is asked for again.

    At most 61 characters of `a-z`, `0-9` and `-`; RunPod takes 191 (runpod_trainers.md 1.3).
    """
    return f"{PREFIX}{_epoch(submission.sent_at)}-{submission.mark}"


def read_pod_name(name: str) -> PodName | None:
    """A name of ours, read back; None for any other, also where only the prefix is ours."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    ordered_at = datetime.fromtimestamp(int(found[1]), UTC)
    return PodName(ordered_at=ordered_at, installation=found[2], key_part=found[3], number=int(found[4]))


def hard_stop(arguments: Mapping[str, Any]) -> timedelta:
    """How long the pod of a request may live: its `hard_stop_seconds`, else 6 hours.

    `BadInput` for what is no number of seconds above zero and up to 7 days.
    """
    seconds = arguments.get(HARD_STOP_ARGUMENT, DEFAULT_HARD_STOP.total_seconds())
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= LONGEST_HARD_STOP.total_seconds():
        raise BadInput(
            f"A pod's {HARD_STOP_ARGUMENT} is {seconds!r}: give a number of seconds above 0, "
            f"at most {LONGEST_HARD_STOP.total_seconds():.0f} (7 days)."
        )
    return timedelta(seconds=seconds)


def deadline_epoch(submission: Submission, arguments: Mapping[str, Any]) -> int:
    """When the pod of this POST must be gone, in whole seconds since 1970 (UTC). Errors as `hard_stop`.

    Absolute, so that a container that is started again gains no time (runpod_trainers.md 5.1).
    """
    return _epoch(submission.sent_at) + int(hard_stop(arguments).total_seconds())


def key_parts(pods: Iterable[RentedPod]) -> tuple[str, ...]:
    """The beginnings of the keys whose jobs `judge_pods` needs, each once."""
    names = (read_pod_name(pod.name) for pod in pods)
    return tuple(dict.fromkeys(name.key_part for name in names if name is not None))


def judge_pods(
    pods: Iterable[RentedPod],
    jobs: Mapping[str, ProviderJob],
    now: datetime,
    *,
    installation: str,
    grace: timedelta = GRACE,
) -> tuple[PodVerdict, ...]:
    """A verdict on every pod whose name begins with our prefix, in their order; others are not ours to judge.

    `jobs` are the ledger's rows by the beginning of their key, read after the pods were listed; `now` is the caller's
    clock; `installation` is the mark of the database that `jobs` come from: what another OnModel rented is kept.
    What is too young, lies in the future or cannot be read is kept too. Rules: runpod_trainers.md 5.4.
    """
    return tuple(_judge(pod, jobs, now, installation, grace) for pod in pods if pod.name.startswith(PREFIX))


def _judge(
    pod: RentedPod, jobs: Mapping[str, ProviderJob], now: datetime, installation: str, grace: timedelta
) -> PodVerdict:
    name = read_pod_name(pod.name)
    if name is None:
        return _kept(pod, "Its name has our prefix, but no age can be read from it: delete it by hand if it is yours.")
    if name.installation != installation:
        return _kept(
            pod, f"Another OnModel rented it ({name.installation}; this one is {installation}): "
            "if that one is no more, delete it by hand."
        )  # fmt: skip
    age = now - name.ordered_at
    if age < timedelta(0):
        return _kept(
            pod, f"Its name says it was ordered at {name.ordered_at:%Y-%m-%d %H:%M:%S} UTC, which is yet to come: "
            "check the clocks."
        )  # fmt: skip
    if age < grace:
        return _kept(pod, f"It is {_length(age)} old, and a pod under {_length(grace)} is left alone.")
    job = jobs.get(name.key_part)
    if job is None:
        return _condemned(pod, f"The ledger has no job {name.key_part}…, so nobody waits for it.")
    return _judge_by_job(pod, name, job, now)


def _judge_by_job(pod: RentedPod, name: PodName, job: ProviderJob, now: datetime) -> PodVerdict:
    if job.is_over:
        return _condemned(pod, f"Its job is over ({job.state}).", job)
    if job.state is JobState.PLANNED:
        # The POST that asked for it counts as refused or as never arrived: a next one asks for a pod of its own.
        return _condemned(pod, "Its job is planned to be sent again and will not look for this pod.", job)
    if job.ids is not None and job.ids.request_id != pod.pod_id:
        return _condemned(pod, f"Its job runs on the pod {job.ids.request_id}; this one is a second.", job)
    if job.ids is None and name.number < job.post_count:
        return _condemned(
            pod, f"It was asked for by POST {name.number} of its job, which is at POST {job.post_count}.", job
        )
    longest = _hard_stop_of(job)
    late = now - (name.ordered_at + longest)
    if late > timedelta(0):
        return _condemned(
            pod, f"It is {_length(late)} past its hard stop of {_length(longest)}, with its job {job.state}.", job,
            ends_job=True,
        )  # fmt: skip
    return _kept(pod, f"Its job is {job.state} and has {_length(-late)} left.", job)


def _kept(pod: RentedPod, reason: str, job: ProviderJob | None = None) -> PodVerdict:
    key = job.key if job else None
    return PodVerdict(pod_id=pod.pod_id, name=pod.name, is_to_delete=False, reason=reason, job_key=key)


def _condemned(pod: RentedPod, reason: str, job: ProviderJob | None = None, *, ends_job: bool = False) -> PodVerdict:
    key = job.key if job else None
    return PodVerdict(
        pod_id=pod.pod_id, name=pod.name, is_to_delete=True, reason=reason, job_key=key, ends_job=ends_job
    )


def _hard_stop_of(job: ProviderJob) -> timedelta:
    try:
        return hard_stop(job.request.arguments)
    except BadInput:
        # Such a request is never sent; should one stand in the ledger all the same, the other pods are judged too.
        return DEFAULT_HARD_STOP


def _epoch(when: datetime) -> int:
    return int(when.timestamp())


def _length(span: timedelta) -> str:
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{seconds} s"
