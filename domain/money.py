"""Money: what a job will cost, estimated from `domain/prices/*.toml`, and the ceiling that is reserved for it.

All amounts are `Decimal` US dollars. An estimate is rounded up to 0.0001, a ceiling to a cent, so that
rounding never makes a job look cheaper than it is.
"""

from __future__ import annotations

import tomllib
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from domain.errors import BadInput, NotConfigured
from domain.model_rules import Model
from domain.records import Record

ESTIMATE_STEP = Decimal("0.0001")
CENT = Decimal("0.01")
CEILING_FACTOR = Decimal("1.2")
"""Reserved above the estimate: prices move between two readings of a price list, and videos overrun by a frame."""

PIXELS_PER_MEGAPIXEL = 1024 * 1024


class PriceUnit(StrEnum):
    """What is counted: a training step, a megapixel of a still, a second or a whole video, a picture described, a still
    whatever its size, a machine's hour."""

    RUN_STEP = "run_step"
    MEGAPIXEL = "megapixel"
    STILL = "still"
    MACHINE_HOUR = "machine_hour"
    SECOND = "second"
    VIDEO = "video"
    PICTURE = "picture"


class Price(Record):
    """One model's price. `when` holds the request fields it is true for.

    A price by the `machine_hour` says in `seconds_each` how long one unit of work takes there (a step, a still, a
    second of video) and in `seconds_before` what comes before it (boot, downloads); one's own machine costs 0.
    `amount_by_seconds` stands in place of `amount_usd` where a vendor sells fixed lengths. `note` is there whenever
    `confidence` is not `confirmed`.
    """

    model_key: str
    unit: PriceUnit
    amount_usd: Decimal | None = None
    amount_by_seconds: dict[int, Decimal] = Field(default_factory=dict)
    seconds_each: Decimal = Decimal(0)
    seconds_before: Decimal = Decimal(0)
    minimum_units: Decimal = Decimal(0)
    round_up_units: bool = False
    when: dict[str, Any] = Field(default_factory=dict)
    source: str
    date: str
    confidence: Literal["confirmed", "third_party", "assumed"]
    note: str | None = None


class PriceList(Record):
    """Every price, by model key."""

    prices: dict[str, Price]

    def price(self, model_key: str) -> Price:
        """A model's price; `NotConfigured` when none is known, because a job without a price cannot be reserved."""
        try:
            return self.prices[model_key]
        except KeyError:
            raise NotConfigured(
                f"There is no price for the model {model_key!r}, so nothing can be reserved for it: "
                "add it to domain/prices/ with its source and date."
            ) from None


@cache
def load_prices() -> PriceList:
    """The price list of `domain/prices/*.toml`, read at the first call."""
    files = sorted(Path(__file__).with_name("prices").glob("*.toml"))
    return parse_prices(*(path.read_text("utf-8") for path in files))


def parse_prices(*texts: str) -> PriceList:
    """A price list from TOML texts, one per vendor; amounts are texts there, so that no float comes near them."""
    entries: dict[str, Any] = {}
    for text in texts:
        entries |= tomllib.loads(text).get("price", {})
    return PriceList(prices={key: Price(model_key=key, **entry) for key, entry in entries.items()})


def price_of_training(model_key: str, steps: int, prices: PriceList | None = None) -> Decimal:
    """Estimate in USD of a training run. `NotConfigured` without a price."""
    _check_positive("steps", steps)
    return _linear(_priced_by(model_key, PriceUnit.RUN_STEP, prices), Decimal(steps))


def price_of_still(model_key: str, width: int, height: int, prices: PriceList | None = None) -> Decimal:
    """Estimate in USD of one picture of `width` × `height` pixels. `NotConfigured` without a price."""
    _check_positive("width", width)
    _check_positive("height", height)
    megapixels = Decimal(width * height) / PIXELS_PER_MEGAPIXEL
    return _linear(_priced_by(model_key, PriceUnit.MEGAPIXEL, prices), megapixels)


def price_of_video(model_key: str, seconds: float, prices: PriceList | None = None) -> Decimal:
    """Estimate in USD of one clip. `NotConfigured` without a price, for this length where lengths are sold singly."""
    _check_positive("seconds", seconds)
    price = _priced_by(model_key, PriceUnit.SECOND, prices)
    if price.unit is not PriceUnit.VIDEO:
        return _linear(price, Decimal(str(seconds)))
    amount = price.amount_by_seconds.get(int(seconds)) if seconds == int(seconds) else None
    if amount is None:
        sold = ", ".join(f"{length} s" for length in sorted(price.amount_by_seconds))
        raise NotConfigured(f"{model_key} has no price for {seconds:g} s: choose one of {sold}.")
    return round_up(amount, ESTIMATE_STEP)


def price_of_caption(model_key: str, prices: PriceList | None = None) -> Decimal:
    """Estimate in USD of one picture described. `NotConfigured` without a price."""
    return _linear(_priced_by(model_key, PriceUnit.PICTURE, prices), Decimal(1))


def ceiling_usd(estimate: Decimal) -> Decimal:
    """What is reserved before a job is sent: the estimate × 1.2, rounded up to a cent."""
    return round_up(estimate * CEILING_FACTOR, CENT)


def ceiling_of_training(model: Model, estimate: Decimal) -> Decimal:
    """What is reserved for a training: as `ceiling_usd`, but for a machine by the hour its price cap × its hard stop,
    which is the most it can cost whatever happens (rule 1a of the architecture)."""
    program = model.training.program if model.training is not None else None
    if program is None or not estimate:
        return ceiling_usd(estimate)
    hours = Decimal(program.hard_stop_seconds) / 3600
    return round_up(Decimal(program.price_cap_usd_per_hour) * hours, CENT)


def round_up(amount: Decimal, step: Decimal) -> Decimal:
    """The smallest multiple of `step`, a power of ten, that is not below `amount`."""
    return amount.quantize(step, ROUND_CEILING)


def _priced_by(model_key: str, unit: PriceUnit, prices: PriceList | None) -> Price:
    price = (prices or load_prices()).price(model_key)
    if price.unit is PriceUnit.MACHINE_HOUR:
        return price
    sold_by = {PriceUnit.VIDEO: PriceUnit.SECOND, PriceUnit.STILL: PriceUnit.MEGAPIXEL}.get(price.unit, price.unit)
    if sold_by is not unit:
        raise NotConfigured(f"{model_key} is priced per {price.unit}, not per {unit}: ask for its own kind of price.")
    return price


def _linear(price: Price, units: Decimal) -> Decimal:
    if price.amount_usd is None:
        raise NotConfigured(f"The price of {price.model_key} has no amount_usd: add it to domain/prices/.")
    if price.unit is PriceUnit.STILL:
        units = Decimal(1)
    if price.unit is PriceUnit.MACHINE_HOUR:
        units = (price.seconds_before + price.seconds_each * units) / 3600
    if price.round_up_units:
        units = units.to_integral_value(ROUND_CEILING)
    return round_up(max(units, price.minimum_units) * price.amount_usd, ESTIMATE_STEP)


def _check_positive(what: str, value: float) -> None:
    if not value > 0:
        raise BadInput(f"A price for {what} {value} makes no sense: give a number above zero.")
