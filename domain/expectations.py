"""What is expected of vendors: how often work is done again and how long a job takes, assumed or measured.

The assumed figures stand in `expectations.toml` with date and confidence. The ledger's own replace them, each for
itself, as soon as it holds enough real jobs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from enum import StrEnum
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, Literal

from domain.jobs import JobState, Operation, ProviderJob
from domain.money import PriceUnit, load_prices
from domain.records import Record
from domain.registry import load_registry

FILE = "domain/expectations.toml"

JOBS_FOR_A_SHARE = 10
"""Real jobs of an operation before its measured share replaces the assumed one (issue)."""

JOBS_FOR_A_DURATION = 3
"""Succeeded real jobs of a model before the median of their durations replaces the assumed one (issue)."""

Confidence = Literal["assumed", "third_party", "measured"]


class ShareKind(StrEnum):
    """What may have to be done again."""

    TRAINING_AGAIN = "training_again"
    VIDEO_AGAIN = "video_again"
    JOB_FAILED = "job_failed"


class Share(Record):
    """How much of some work is done again, 0…; `what` names it, `note` says where the number is from.

    `operation` is set where it was measured, or is meant, for one operation only. `charged` is the part of a failed
    job's price that the vendor bills all the same.
    """

    kind: ShareKind
    operation: Operation | None = None
    share: float
    charged: float = 0.0
    what: str
    date: str
    confidence: Confidence
    note: str


class Duration(Record):
    """Seconds from the submit to the end of one job of a model: always, or at `at_units` steps or seconds of video."""

    model_key: str
    seconds: float
    at_units: float | None = None
    date: str
    confidence: Confidence
    note: str

    def of(self, units: float) -> float:
        """Seconds of a job of so many units (steps of a training, seconds of a clip)."""
        return self.seconds * units / self.at_units if self.at_units and units else self.seconds


class Expectations(Record):
    """Every share and duration a forecast reckons with."""

    shares: tuple[Share, ...]
    durations: tuple[Duration, ...]

    def share(self, kind: ShareKind, operation: Operation | None = None) -> Share:
        """The share of this kind, the operation's own where there is one."""
        found = [share for share in self.shares if share.kind is kind and share.operation in (None, operation)]
        return max(found, key=lambda share: share.operation is not None)

    def duration(self, model_key: str) -> Duration | None:
        """How long a job of this model takes; None where nobody knows anything."""
        return next((duration for duration in self.durations if duration.model_key == model_key), None)

    def with_measured(self, jobs: Sequence[ProviderJob]) -> Expectations:
        """The same with what these jobs show, where they are enough. Simulated ones and open ones show nothing."""
        real = [job for job in jobs if job.is_over and not job.is_simulated]
        shares = [share for share in (*_retakes(real, self), *_failures(real, self)) if share is not None]
        kept = [one for one in self.shares if (one.kind, one.operation) not in {(s.kind, s.operation) for s in shares}]
        measured = _durations(real)
        known = {duration.model_key for duration in measured}
        durations = [*measured, *(one for one in self.durations if one.model_key not in known)]
        return Expectations(shares=(*shares, *kept), durations=tuple(durations))


@cache
def load_expectations() -> Expectations:
    """The assumed ones of `expectations.toml`, read at the first call."""
    return parse_expectations(Path(__file__).with_name("expectations.toml").read_text("utf-8"))


def parse_expectations(text: str) -> Expectations:
    """Expectations from TOML text; a `ValueError` says what is wrong with it."""
    tables = tomllib.loads(text)
    return Expectations(
        shares=tuple(Share(kind=ShareKind(kind), **entry) for kind, entry in tables["share"].items()),
        durations=_every_duration(tables["duration"], tables["duration_of_kind"]),
    )


def _every_duration(stated: dict[str, Any], of_kind: dict[str, Any]) -> tuple[Duration, ...]:
    """The stated durations, and for every other model of the registry what its kind usually takes; on a machine by the
    hour, the time that its price is reckoned with."""
    found = [Duration(model_key=key, **entry) for key, entry in stated.items()]
    prices = load_prices().prices
    for model in load_registry().models:
        price = prices.get(model.key)
        if model.key in stated or price is None:
            continue
        if price.unit is PriceUnit.MACHINE_HOUR and (price.seconds_each or price.seconds_before):
            units = model.training.steps.default if model.training is not None else None
            seconds = float(price.seconds_before + price.seconds_each * Decimal(str(units or 1)))
            note = "the machine's time that its price is reckoned with"
            found.append(
                Duration(
                    model_key=model.key,
                    seconds=seconds,
                    at_units=units,
                    date=price.date,
                    confidence="assumed",
                    note=note,
                )
            )
        else:
            found.append(Duration(model_key=model.key, **of_kind[model.kind]))
    return tuple(found)


def _retakes(jobs: Sequence[ProviderJob], assumed: Expectations) -> Iterable[Share | None]:
    """Purchases beyond the first for one LoRA or one slot, as a share of the firsts."""
    trainings = [job for job in jobs if job.operation is Operation.TRAIN_LORA]
    videos = [job for job in jobs if job.operation is Operation.MAKE_VIDEO and job.slot_number is not None]
    yield _beyond_the_first(
        trainings, assumed.share(ShareKind.TRAINING_AGAIN), lambda job: (job.season_id, job.character_id, job.model_key)
    )
    yield _beyond_the_first(
        videos, assumed.share(ShareKind.VIDEO_AGAIN), lambda job: (job.season_id, job.slot_number, None)
    )


def _beyond_the_first(
    jobs: Sequence[ProviderJob], assumed: Share, thing_of: Callable[[ProviderJob], tuple[object, ...]]
) -> Share | None:
    if len(jobs) < JOBS_FOR_A_SHARE:
        return None
    made = [job for job in jobs if job.state is JobState.SUCCEEDED]
    things = {thing_of(job) for job in made}
    if not things:
        return None
    note = f"{len(made)} succeeded jobs of the ledger for {len(things)} of them"
    share = len(made) / len(things) - 1
    return assumed.model_copy(update={"share": share, "confidence": "measured", "note": note, "date": _date(jobs)})


def _failures(jobs: Sequence[ProviderJob], assumed: Expectations) -> Iterable[Share | None]:
    """Jobs that ended without a result per job that succeeded, for each operation, with what was billed for them."""
    for operation in Operation:
        own = [job for job in jobs if job.operation is operation and job.state is not JobState.CANCELLED]
        made = [job for job in own if job.state is JobState.SUCCEEDED]
        if len(own) < JOBS_FOR_A_SHARE or not made:
            continue
        dead = [job for job in own if job.state is not JobState.SUCCEEDED]
        billed = sum((job.billed_usd or Decimal(0) for job in dead), Decimal(0))
        price = sum((job.estimate_usd for job in dead), Decimal(0))
        yield assumed.share(ShareKind.JOB_FAILED).model_copy(
            update={
                "operation": operation,
                "share": len(dead) / len(made),
                "charged": float(billed / price) if price else 0.0,
                "confidence": "measured",
                "note": f"{len(dead)} of {len(own)} jobs of the ledger failed; {billed:.2f} USD were billed for that",
                "date": _date(own),
            }
        )


def _durations(jobs: Sequence[ProviderJob]) -> list[Duration]:
    seconds: dict[str, list[float]] = {}
    for job in jobs:
        if job.state is JobState.SUCCEEDED and job.submitted_at is not None and job.finished_at is not None:
            took = (job.finished_at - job.submitted_at).total_seconds()
            if took >= 0:  # a clock that was set back says nothing
                seconds.setdefault(job.model_key, []).append(took)
    return [
        Duration(
            model_key=model_key,
            seconds=median(took),
            confidence="measured",
            note=f"the median of {len(took)} jobs of the ledger",
            date=_date([job for job in jobs if job.model_key == model_key]),
        )
        for model_key, took in seconds.items()
        if len(took) >= JOBS_FOR_A_DURATION
    ]


def _date(jobs: Sequence[ProviderJob]) -> str:
    latest = max(job.finished_at or job.created_at for job in jobs)
    return latest.date().isoformat()
