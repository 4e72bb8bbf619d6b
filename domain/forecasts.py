"""Forecasts: the jobs that a season will buy, what they cost and how long they take, before anything is spent.

A forecast without its retakes equals what a run in which nothing fails writes into `job_costs.forecast_usd`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from domain.expectations import Duration, Expectations, Share, ShareKind
from domain.jobs import Operation, Stage
from domain.money import ESTIMATE_STEP, round_up
from domain.records import Record
from domain.spending import TO_COME, CostGroup, Grouping, Purpose, group_key, sort_keys

SLOTS_AT_ONCE = 4
"""As flows/render_season.py does it when nobody says otherwise."""

UNKNOWN_SECONDS = 120.0
"""Of a job whose model nobody has timed: a guess, and told as one."""


class Purchase(Record):
    """`count` equal jobs for one character or slot, at `estimate_usd` each.

    `units` are the steps of a training, the seconds of a clip, else 0; `base_model` the LoRA's, where it is for one.
    `again_usd` is what it costs to do all of it once more when its result is not good enough (0: that never happens):
    a training then runs longer, and its views with the LoRA are drawn again.
    """

    stage: Stage
    operation: Operation
    api_name: str
    model_key: str
    character: str | None = None
    slot_number: int | None = None
    base_model: str = ""
    count: int = 1
    estimate_usd: Decimal
    units: float = 0.0
    again_usd: Decimal = Decimal(0)
    again_longer: float = 1.0

    @property
    def cost_usd(self) -> Decimal:
        return self.count * self.estimate_usd

    @property
    def purpose(self) -> Purpose:
        return Purpose(
            stage=self.stage,
            api_name=self.api_name,
            character=self.character,
            slot_number=self.slot_number,
            day=TO_COME,
        )


class ForecastRow(Record):
    """One group: what was bought of it (forecast and cost), and what is still to come, with its vendors' time."""

    key: str
    forecast_usd: Decimal
    cost_usd: Decimal
    jobs_to_come: int
    to_come_usd: Decimal
    seconds_to_come: float


class Forecast(Record):
    """What a season will cost and how long its vendors will take.

    `notes` are sentences about what could not be known, or will not be bought. Bought so far: `bought_forecast_usd`
    and `bought_usd`, both 0 for a manifest. `free_usd` is what the budget still has.
    """

    season: str
    is_simulated: bool
    budget_usd: Decimal
    free_usd: Decimal
    bought_forecast_usd: Decimal = Decimal(0)
    bought_usd: Decimal = Decimal(0)
    purchases: tuple[Purchase, ...]
    expectations: Expectations
    notes: tuple[str, ...] = ()

    @property
    def to_come_usd(self) -> Decimal:
        """If nothing has to be done again."""
        return sum((purchase.cost_usd for purchase in self.purchases), Decimal(0))

    @property
    def retakes_usd(self) -> Decimal:
        """What is expected on top: the shares that fail or are done again, rounded up to 0.0001 USD."""
        return round_up(sum((_retake_usd(one, self.expectations) for one in self.purchases), Decimal(0)), ESTIMATE_STEP)

    @property
    def total_usd(self) -> Decimal:
        """Everything: bought, to come, and done again."""
        return self.bought_usd + self.to_come_usd + self.retakes_usd

    @property
    def waiting_seconds(self) -> float:
        """The vendors' time of every job to come, one after the other, without retakes."""
        return sum((one.count * self.seconds_each(one) for one in self.purchases), 0.0)

    @property
    def likely_seconds(self) -> float:
        """The same side by side as the flows run it; no vendor's queue or limit is reckoned with."""
        return likely_seconds(self.purchases, self.seconds_each)

    @property
    def likely_seconds_with_retakes(self) -> float:
        """Side by side, every job longer by the share of it that is done again."""
        return likely_seconds(
            self.purchases, lambda one: self.seconds_each(one) * _longer_by_retakes(one, self.expectations)
        )

    def seconds_each(self, purchase: Purchase) -> float:
        """One job of it, from the submit to the end."""
        known = self.expectations.duration(purchase.model_key)
        return known.of(purchase.units) if known is not None else UNKNOWN_SECONDS

    @property
    def shares_used(self) -> tuple[Share, ...]:
        """The assumptions that this forecast rests on."""
        used = {
            share.model_dump_json(): share for one in self.purchases for share in _shares_of(one, self.expectations)
        }
        return tuple(sorted(used.values(), key=lambda share: list(ShareKind).index(share.kind)))

    @property
    def durations_used(self) -> tuple[Duration, ...]:
        """How long each model to be used takes; a model nobody has timed is not in it."""
        keys = dict.fromkeys(one.model_key for one in self.purchases)
        return tuple(known for key in keys if (known := self.expectations.duration(key)) is not None)

    @property
    def untimed_models(self) -> tuple[str, ...]:
        keys = dict.fromkeys(one.model_key for one in self.purchases)
        return tuple(key for key in keys if self.expectations.duration(key) is None)

    @property
    def budget_sentence(self) -> str:
        """Whether it fits, in a sentence."""
        left = f"the {self.free_usd:.2f} USD that are free of the budget of {self.budget_usd:.2f}"
        needed = self.to_come_usd + self.retakes_usd
        if needed <= self.free_usd:
            return f"It fits: {needed:.2f} USD, retakes included, of {left}."
        if self.to_come_usd <= self.free_usd:
            return (
                f"It fits only if little has to be done again: {self.to_come_usd:.2f} USD of {left}, and with retakes "
                f"{needed - self.free_usd:.2f} too much."
            )
        return (
            f"It does not fit: {self.to_come_usd:.2f} USD without retakes, and {left} are "
            f"{self.to_come_usd - self.free_usd:.2f} too few; a run stops there."
        )

    def rows(self, by: Grouping, bought: Sequence[CostGroup] = ()) -> tuple[ForecastRow, ...]:
        """One row per group, with the sums of what was bought (`group_costs` of the same grouping)."""
        known = {group.key: group for group in bought}
        ahead: dict[str, list[Purchase]] = {}
        for purchase in self.purchases:
            ahead.setdefault(group_key(purchase.purpose, by), []).append(purchase)
        return tuple(
            ForecastRow(
                key=key,
                forecast_usd=known[key].forecast_usd if key in known else Decimal(0),
                cost_usd=known[key].amount_usd if key in known else Decimal(0),
                jobs_to_come=sum(one.count for one in ahead.get(key, [])),
                to_come_usd=sum((one.cost_usd for one in ahead.get(key, [])), Decimal(0)),
                seconds_to_come=sum((one.count * self.seconds_each(one) for one in ahead.get(key, [])), 0.0),
            )
            for key in sort_keys([*known, *ahead], by)
        )


def likely_seconds(
    purchases: Sequence[Purchase], seconds_each: Callable[[Purchase], float], slots_at_once: int = SLOTS_AT_ONCE
) -> float:
    """How long it takes side by side: all characters at once, then the slots, so many at a time, in order.

    A character: its captions, then each base model's training and views, then its references; jobs of one kind run
    side by side (flows/train_character.py, generate_references.py, render_season.py).
    """
    learning: dict[str, list[Purchase]] = {}
    slots: dict[int, list[Purchase]] = {}
    for one in purchases:
        if one.slot_number is not None:
            slots.setdefault(one.slot_number, []).append(one)
        else:
            learning.setdefault(one.character or "", []).append(one)
    workers = [0.0] * slots_at_once
    for number in sorted(slots):
        heapq.heapreplace(workers, workers[0] + _one_after_the_other(slots[number], seconds_each))
    return max((_learning_seconds(own, seconds_each) for own in learning.values()), default=0.0) + max(workers)


def _learning_seconds(purchases: Sequence[Purchase], seconds_each: Callable[[Purchase], float]) -> float:
    loras: dict[str, list[Purchase]] = {}
    rest: list[Purchase] = []
    for one in purchases:
        if one.stage in (Stage.LORA_TRAINING, Stage.IDENTITY_CHECK):
            loras.setdefault(one.base_model, []).append(one)
        else:
            rest.append(one)
    slowest = max((_one_after_the_other(own, seconds_each) for own in loras.values()), default=0.0)
    return slowest + _one_after_the_other(rest, seconds_each)


def _one_after_the_other(purchases: Iterable[Purchase], seconds_each: Callable[[Purchase], float]) -> float:
    """Stages follow each other; the jobs within one run side by side."""
    longest: dict[Stage, float] = {}
    for one in purchases:
        longest[one.stage] = max(longest.get(one.stage, 0.0), seconds_each(one))
    return sum(longest.values())


def _again(purchase: Purchase, expectations: Expectations) -> Share | None:
    if not purchase.again_usd:
        return None
    is_training = purchase.operation is Operation.TRAIN_LORA
    return expectations.share(ShareKind.TRAINING_AGAIN if is_training else ShareKind.VIDEO_AGAIN)


def _shares_of(purchase: Purchase, expectations: Expectations) -> list[Share]:
    failed = expectations.share(ShareKind.JOB_FAILED, purchase.operation)
    again = _again(purchase, expectations)
    return [failed] if again is None else [again, failed]


def _retake_usd(purchase: Purchase, expectations: Expectations) -> Decimal:
    failed = expectations.share(ShareKind.JOB_FAILED, purchase.operation)
    again = _again(purchase, expectations)
    lost = Decimal(str(failed.share * failed.charged)) * purchase.cost_usd
    return lost + (Decimal(str(again.share)) * purchase.again_usd if again is not None else 0)


def _longer_by_retakes(purchase: Purchase, expectations: Expectations) -> float:
    failed = expectations.share(ShareKind.JOB_FAILED, purchase.operation)
    again = _again(purchase, expectations)
    return (1 + failed.share) * (1 + (again.share * purchase.again_longer if again is not None else 0.0))
