"""How the report writes figures: dollars, scores, lengths of time, dates and slot numbers, as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, tzinfo
from decimal import ROUND_HALF_UP, Decimal

from domain.jobs import Stage
from domain.reports import CostLine

_MOST_DECIMALS = 4


def stage_words(stage: Stage) -> str:
    """`LoRA training`, `identity check`."""
    return stage.value.replace("_", " ").replace("lora", "LoRA")


def usd(amount: Decimal, places: int = 2) -> str:
    """`$1,234.50`; a sum that would read as zero and is not shows as many digits as it needs, up to four."""
    while places < _MOST_DECIMALS and amount and abs(amount) < Decimal(1).scaleb(-places):
        places += 1
    rounded = amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return f"{'−' if rounded < 0 else ''}${abs(rounded):,.{places}f}"


def decimals_of(costs: Iterable[CostLine]) -> int:
    """Digits that show every amount of the tables exactly, 2…4, so that the reader can add them up."""
    amounts = [amount for line in costs for amount in (line.forecast_usd, line.actual_usd) if amount is not None]
    exponents = [amount.normalize().as_tuple().exponent for amount in amounts]
    return min(max([2, *(-exponent for exponent in exponents if isinstance(exponent, int))]), _MOST_DECIMALS)


def is_rounded(costs: Iterable[CostLine]) -> bool:
    """Whether some amount has more digits than the tables show."""
    smallest = Decimal(1).scaleb(-_MOST_DECIMALS)
    return any((line.forecast_usd or 0) % smallest or (line.actual_usd or 0) % smallest for line in costs)


def number_ranges(numbers: Iterable[int]) -> str:
    """`3–5, 9`."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ", ".join(f"{first}–{last}" if last > first else f"{first}" for first, last in runs)


def score_text(number: float) -> str:
    """Two digits, with a real minus sign."""
    return f"{number:.2f}".replace("-0.00", "0.00").replace("-", "−")


def duration(seconds: float) -> str:
    """`48 s`, `4.5 s`, `6 min 15 s`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def date_range(begun_at: datetime, ended_at: datetime, zone: tzinfo) -> str:
    """`3–5 May 2031`, in the season's time zone."""
    first, last = begun_at.astimezone(zone), ended_at.astimezone(zone)
    until = f"{last.day} {last:%B %Y}"
    if first.date() == last.date():
        return until
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}–{until}"
    return f"{first.day} {first:%B}{'' if first.year == last.year else f' {first.year}'} – {until}"
