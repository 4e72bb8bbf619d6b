"""Draws a season's report: records in, one HTML file out that needs nothing but the clips beside it.

No script, no request to anywhere: pictures are embedded as JPEG, the style is inlined, and the page's own
Content-Security-Policy forbids the rest. Every word that a person, a vendor or a model wrote is escaped.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from jinja2 import Template
from markupsafe import Markup
from PIL import Image

from domain.errors import OnModelError
from domain.prompts import find_mentions
from domain.reports import (
    CharacterReport,
    CostLine,
    IdentityResult,
    Money,
    SeasonReport,
    SlotReport,
    SlotState,
    Verdict,
    money_of,
    on_model_share,
)
from domain.spending import zone_of
from tasks.page_templates import TEMPLATES, open_templates
from tasks.report_figures import (
    date_range,
    decimals_of,
    duration,
    is_rounded,
    number_ranges,
    score_text,
    stage_words,
    usd,
)
from tasks.whole_files import whole_file

_WIDEST_PIXELS = 480
_STRIP_PIXELS = 168  # a frame of the strip is up to 84 px wide, on screens of double density
_FACE_PIXELS = 96
_SLOT_ROWS = 26  # rows of one money table; 75 slots and the rest stand in three side by side
_Key = TypeVar("_Key")
_ROUTES = ("won", "elements", "direct", "preprocessed", "face_still", "originals")


def write_report(report: SeasonReport, out: Path, thumb: Callable[[str], bytes]) -> None:
    """Write the page to `out`, replacing it at once or not at all. Free, and safe to repeat.

    `thumb` gives the JPEG bytes of a picture by its SHA-256; larger ones than 480 px are made smaller here. A
    picture that cannot be had (an `OnModelError`, or bytes that are no picture) leaves an empty frame, because
    the report of a season is needed most when something is missing.
    """
    page = render_report(report, thumb)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as stream:
        stream.write(page.encode())


def render_report(report: SeasonReport, thumb: Callable[[str], bytes]) -> str:
    """The page as text; see `write_report`."""
    names = [character.name for character in report.characters]
    zone = zone_of(report.time_zone)
    marks = _measure_marks(report)

    @cache
    def picture(sha256: str, pixels: int = _WIDEST_PIXELS) -> str | None:
        return _data_url(thumb, sha256, pixels)

    places = decimals_of(report.costs)
    page = _template().render(
        report=report,
        exact=lambda amount: usd(amount, places),
        mark=lambda result: marks[_measure_key(result)],
        when=lambda moment: f"{moment.astimezone(zone).day} {moment.astimezone(zone):%B %Y, %H:%M}",
        words=lambda prompt: words_of(prompt, names),
        css=Markup((TEMPLATES / "report.css").read_text("utf-8")),  # noqa: S704 (our own file)
        dates=date_range(report.begun_at, report.ended_at or report.generated_at, zone),
        zone_name=report.time_zone if zone is not UTC else "UTC",
        picture=picture,
        strip_pixels=_STRIP_PIXELS,
        faces=_faces(report.characters, lambda sha256: picture(sha256, _FACE_PIXELS)),
        slots={slot.number: slot for slot in report.slots},
        shelf=shelve(report),
        share=on_model_share(report.slots),
        route_counts=_route_counts(report.slots),
        known_routes=_ROUTES,
        measures=list(marks.items()),
        total=money_of(report.costs),
        by_stage=_rows(report.costs, lambda line: stage_words(line.stage), "no stage"),
        by_character=_rows(report.costs, lambda line: line.character, "several, or the season as a whole"),
        by_slot=_rows(report.costs, lambda line: line.slot_number, "no one slot: cast and season"),
        slot_money={
            number: money_of(lines)
            for number, lines in _grouped(report.costs, lambda line: line.slot_number)
            if number is not None
        },
        is_rounded=is_rounded(report.costs),
        slot_rows=_SLOT_ROWS,
        gap_words=number_ranges(report.gaps),
        budget=budget_shares(report),
        State=SlotState,
        Verdict=Verdict,
    )
    return page.lstrip()


@cache
def _template() -> Template:
    environment = open_templates()
    environment.filters.update(
        percent=lambda share: f"{100 * share:.0f} %",
        position=lambda score: f"{100 * min(max(score, 0.0), 1.0):.1f}%",
        relative=lambda path: quote("./" + path),
        score=score_text,
        seconds=duration,
        signed=lambda number: ("+" if number >= 0 else "") + score_text(number),
        usd=usd,
    )
    environment.tests["gap"] = lambda piece: isinstance(piece, Gap)
    environment.tests["won_run"] = lambda piece: isinstance(piece, WonRun)
    return environment.get_template("report.html")


# --- what the page shows that no record says ---


class Word(NamedTuple):
    """A piece of a prompt; `is_name` where it names one of the cast."""

    text: str
    is_name: bool


def words_of(prompt: str, names: Iterable[str]) -> list[Word]:
    """Cut a prompt at its @Names, by the rule of the manifest."""
    pieces: list[Word] = []
    cursor = 0
    for mention in find_mentions(prompt, list(names)):
        pieces += [Word(prompt[cursor : mention.start], False), Word(prompt[mention.start : mention.end], True)]
        cursor = mention.end
    return [piece for piece in [*pieces, Word(prompt[cursor:], False)] if piece.text]


class Gap(NamedTuple):
    """Slots one after the other of which nothing is known but that they are missing."""

    first: int
    last: int


class WonRun(NamedTuple):
    """Won clips one after the other with nothing to tell but that they are won; they stand side by side."""

    slots: tuple[SlotReport, ...]


def shelve(report: SeasonReport) -> list[SlotReport | WonRun | Gap]:
    """What stands on the page, in the order of the season: fifty bare gaps side by side take one line."""
    slots = {slot.number: slot for slot in report.slots}
    shelf: list[SlotReport | WonRun | Gap] = []
    for number in report.slot_numbers:
        last = shelf[-1] if shelf else None
        slot = slots.get(number)
        if slot is None:
            if isinstance(last, Gap) and last.last == number - 1:
                shelf[-1] = Gap(last.first, number)
            else:
                shelf.append(Gap(number, number))
        elif slot.state is SlotState.WON and not (slot.prompt or slot.characters or slot.notes or slot.reason):
            if isinstance(last, WonRun):
                shelf[-1] = WonRun((*last.slots, slot))
            else:
                shelf.append(WonRun((slot,)))
        else:
            shelf.append(slot)
    return shelf


class MoneyRow(NamedTuple):
    """One line of a money table; `key` is a slot's number or a name, `label` what is read."""

    key: str | int | None
    label: str
    sums: Money
    is_simulated: bool


def _rows(costs: Iterable[CostLine], key_of: Callable[[CostLine], str | int | None], rest: str) -> list[MoneyRow]:
    """One row per key in order of appearance (slots by number), and last what belongs to none of them."""
    groups = _grouped(costs, key_of)
    groups.sort(key=lambda group: (group[0] is None, group[0] if isinstance(group[0], int) else 0))
    return [
        MoneyRow(
            key=key,
            label=rest if key is None else f"slot {key}" if isinstance(key, int) else key,
            sums=money_of(lines),
            is_simulated=any(line.is_simulated for line in lines),
        )
        for key, lines in groups
    ]


def _grouped(costs: Iterable[CostLine], key_of: Callable[[CostLine], _Key]) -> list[tuple[_Key, list[CostLine]]]:
    groups: dict[_Key, list[CostLine]] = {}
    for line in costs:
        groups.setdefault(key_of(line), []).append(line)
    return list(groups.items())


class BudgetShare(NamedTuple):
    """A stretch of the budget bar: `part` of the whole bar, 0…1."""

    kind: str
    amount_usd: Decimal
    part: float


def budget_shares(report: SeasonReport) -> list[BudgetShare]:
    """Spent, reserved, still to come by the forecast, and free: the whole budget, or the spending where it is more.

    Still to come is what the unbilled lines foresee, or the rest of the season's forecast where that is more.
    """
    foreseen = max(money_of(report.costs).unbilled_usd, report.forecast_usd - report.spent_usd)
    to_come = max(foreseen - report.reserved_usd, Decimal(0))
    free = max(report.budget_usd - report.spent_usd - report.reserved_usd - to_come, Decimal(0))
    amounts = {"spent": report.spent_usd, "reserved": report.reserved_usd, "to come": to_come, "free": free}
    whole = sum(amounts.values(), Decimal(0))
    return [
        BudgetShare(kind, amount, float(amount / whole) if whole else 0.0)
        for kind, amount in amounts.items()
        if amount > 0
    ]


def _route_counts(slots: Iterable[SlotReport]) -> list[tuple[str, str, int]]:
    """(key, label, how many characters in slots), in the order of preference."""
    labels: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for slot in slots:
        for character in slot.characters:
            labels.setdefault(character.route_key, character.route_label)
            counts[character.route_key] += 1
    order = {key: place for place, key in enumerate(_ROUTES)}
    return [(key, labels[key], counts[key]) for key in sorted(counts, key=lambda key: (order.get(key, 99), key))]


def _measure_key(result: IdentityResult) -> tuple[str, float, str]:
    return (result.metric, result.threshold, result.calibration)


def _measure_marks(report: SeasonReport) -> dict[tuple[str, float, str], str]:
    """A letter for every way of measuring, so that each score can point at how its threshold was found."""
    results: list[IdentityResult | None] = [
        lora.identity for character in report.characters for lora in character.loras
    ]
    results += [character.identity for slot in report.slots for character in slot.characters]
    keys = dict.fromkeys(_measure_key(result) for result in results if result is not None)
    return {key: _letter(index) for index, key in enumerate(keys)}


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else f"{_letter(index // 26 - 1)}{_letter(index % 26)}"


def _faces(
    characters: Iterable[CharacterReport], picture: Callable[[str], str | None]
) -> dict[str, tuple[int, str | None]]:
    """Name → (place in the cast, small portrait)."""
    faces: dict[str, tuple[int, str | None]] = {}
    for place, character in enumerate(characters, start=1):
        views = sorted(character.sheet, key=lambda view: not view.is_primary)
        faces[character.name] = (place, picture(views[0].sha256) if views else None)
    return faces


# --- the outside world ---


def _data_url(thumb: Callable[[str], bytes], sha256: str, pixels: int) -> str | None:
    """The picture at most `pixels` wide and high as a `data:` address; None where there is none to be had."""
    try:
        with Image.open(io.BytesIO(thumb(sha256)), formats=["JPEG"]) as image:
            image.draft("RGB", (pixels, pixels))
            small = image.convert("RGB")
            small.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    except (OnModelError, OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    packed = io.BytesIO()
    # Written anew even where it is small enough, so that no byte of the page comes from outside unread.
    small.save(packed, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
