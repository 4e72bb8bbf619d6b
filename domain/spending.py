"""What was spent, grouped as a person asks: by stage, service, character, slot or day; and per accepted second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from enum import StrEnum
from zoneinfo import ZoneInfo

from domain.costs import CostEntry
from domain.jobs import Stage
from domain.records import Record

WHOLE_SEASON = "the season as a whole"
NO_SLOT = "no one slot"
TO_COME = "to come"
"""The day of what is not bought yet."""


class Grouping(StrEnum):
    """By what costs are summed up."""

    STAGE = "stage"
    API = "api"
    CHARACTER = "character"
    SLOT = "slot"
    DAY = "day"


class Purpose(Record):
    """What a cost is for, in the words of the groups; `day` is in the season's time zone."""

    stage: Stage
    api_name: str
    character: str | None
    slot_number: int | None
    day: str


class CostGroup(Record):
    """The sums of one group, USD. `entries` counts free steps too."""

    key: str
    entries: int
    forecast_usd: Decimal
    amount_usd: Decimal

    @property
    def difference_usd(self) -> Decimal:
        """Positive where it cost more than was foreseen."""
        return self.amount_usd - self.forecast_usd


class AcceptedVideo(Record):
    """The rendered clips that are in the season; clips that were brought along are not counted."""

    clips: int
    seconds: float

    def usd_per_second(self, total_usd: Decimal) -> Decimal | None:
        """The headline: everything the season has cost, per second of it; None while there is none."""
        return total_usd / Decimal(str(self.seconds)) if self.seconds > 0 else None


def zone_of(name: str) -> tzinfo:
    """The season's zone; UTC where this machine does not know it (a slim image has no zone files)."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC


def purpose_of(entry: CostEntry, names: Mapping[int, str], zone: tzinfo) -> Purpose:
    """What an entry was for. A character that has left the cast keeps its number as its name."""
    who = entry.character_id
    return Purpose(
        stage=entry.stage,
        api_name=entry.api_name,
        character=None if who is None else names.get(who, f"character {who}"),
        slot_number=entry.slot_number,
        day=_day(entry.created_at, zone),
    )


def group_key(purpose: Purpose, by: Grouping) -> str:
    """The group something belongs to, as it is read."""
    match by:
        case Grouping.STAGE:
            return purpose.stage.value
        case Grouping.API:
            return purpose.api_name
        case Grouping.CHARACTER:
            return purpose.character or WHOLE_SEASON
        case Grouping.SLOT:
            return NO_SLOT if purpose.slot_number is None else str(purpose.slot_number)
        case Grouping.DAY:
            return purpose.day


def sort_keys(keys: Iterable[str], by: Grouping) -> list[str]:
    """Groups in the order people read them: stages as they follow, slots by number, what belongs to none last."""
    stages = [stage.value for stage in Stage]

    def rank(key: str) -> tuple[bool, int, str]:
        is_rest = key in (WHOLE_SEASON, NO_SLOT, TO_COME)
        number = stages.index(key) if by is Grouping.STAGE else int(key) if by is Grouping.SLOT and not is_rest else 0
        return is_rest, number, key

    return sorted(set(keys), key=rank)


def group_costs(
    entries: Iterable[CostEntry], by: Grouping, names: Mapping[int, str], zone: tzinfo
) -> tuple[CostGroup, ...]:
    """One group per stage, service, character, slot or day. Their sums are the sums of the entries."""
    groups: dict[str, list[CostEntry]] = {}
    for entry in entries:
        groups.setdefault(group_key(purpose_of(entry, names, zone), by), []).append(entry)
    return tuple(
        CostGroup(
            key=key,
            entries=len(groups[key]),
            forecast_usd=sum((entry.forecast_usd for entry in groups[key]), Decimal(0)),
            amount_usd=sum((entry.amount_usd for entry in groups[key]), Decimal(0)),
        )
        for key in sort_keys(groups, by)
    )


def _day(moment: datetime | None, zone: tzinfo) -> str:
    return moment.astimezone(zone).date().isoformat() if moment is not None else TO_COME
