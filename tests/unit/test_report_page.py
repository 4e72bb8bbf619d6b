"""The report page: what it must say, what it must never do, and figures that add up."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import dataclass, field
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from domain.characters import CharacterKind
from domain.jobs import Stage
from domain.reports import (
    CharacterReport,
    CostLine,
    SeasonReport,
    SlotCharacter,
    SlotReport,
    SlotState,
)
from tasks.report_page import render_report, write_report
from tests.report_drawings import HOSTILE, PictureShelf
from tests.report_samples import empty_season, identity, rich_season

_VOID = {"meta", "img", "link", "br", "hr", "input", "line", "circle"}
_ADDRESSES = {"src", "href", "poster", "action", "data", "srcset", "xlink:href"}


@dataclass
class ReadPage(HTMLParser):
    """The page as a browser's parser sees it: tags with attributes, the text, and the tables."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    style: str = ""
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.style += data
            return
        self.words.append(data)
        if "table" in self._open and {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(report: SeasonReport, shelf: PictureShelf) -> ReadPage:
    page = ReadPage()
    page.feed(render_report(report, shelf.read))
    page.close()
    assert page._open == [], "something was left open"
    return page


@pytest.fixture(scope="module")
def shelf() -> PictureShelf:
    return PictureShelf()


@pytest.fixture(scope="module")
def season(shelf: PictureShelf) -> SeasonReport:
    return rich_season(shelf)


@pytest.fixture(scope="module")
def page(season: SeasonReport, shelf: PictureShelf) -> ReadPage:
    return read(season, shelf)


def dollars(text: str) -> Decimal:
    return Decimal(text.replace("$", "").replace(",", "").replace("−", "-")) if text != "not yet" else Decimal(0)


# --- what the page must never do ---


def test_the_page_reaches_for_nothing_but_clips_beside_it(page: ReadPage) -> None:
    addresses = [value or "" for _, attributes in page.tags for name, value in attributes.items() if name in _ADDRESSES]
    assert addresses
    for address in addresses:
        assert re.match(r"data:image/jpeg;base64,|#|\./", address), address[:80]
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}


def test_no_word_from_outside_becomes_markup(page: ReadPage) -> None:
    assert f"@{HOSTILE} lifts" in page.text or f"@{HOSTILE}" in page.text
    assert '"&amp;" <img src=x onerror=alert(2)>' in page.text
    assert "echo '<b>done</b>'" in page.text
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_any_title_and_any_prompt_come_out_as_they_went_in(words: str) -> None:
    slot = SlotReport(number=1, state=SlotState.PLANNED, prompt=words)
    report = empty_season(title=words, owner=words, slots=(slot,))
    shown = ReadPage()
    shown.feed(render_report(report, PictureShelf().read))
    assert "".join(shown.words).count(words) >= 3
    assert "script" not in {tag for tag, _ in shown.tags}


def test_a_clip_outside_the_reports_folder_is_refused() -> None:
    for path in ("/etc/passwd", "../secret.mp4", "clips/../../secret.mp4", "clips\\slot.mp4", ""):
        with pytest.raises(ValidationError, match="beside or below the report"):
            SlotReport(number=1, state=SlotState.DONE, clip=path)


def test_a_clip_with_an_odd_name_is_still_only_a_file() -> None:
    slot = SlotReport(number=1, state=SlotState.DONE, clip='java script:"#?.mp4')
    shown = read(empty_season(slots=(slot,)), PictureShelf())
    assert shown.all("video")[0]["src"] == "./java%20script%3A%22%23%3F.mp4"


def test_a_report_that_cannot_be_drawn_leaves_the_old_one_alone(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("the old one")

    def broken(_: str) -> bytes:
        raise RuntimeError("the disk is gone")

    slot = SlotReport(number=1, state=SlotState.DONE, picture="a" * 64)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        write_report(empty_season(slots=(slot,)), out, broken)
    assert out.read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_writing_twice_gives_the_same_page_and_nothing_beside_it(tmp_path: Path) -> None:
    shelf = PictureShelf()
    season = rich_season(shelf)
    out = tmp_path / "new" / "report.html"
    write_report(season, out, shelf.read)
    first = out.read_bytes()
    write_report(season, out, shelf.read)
    assert out.read_bytes() == first
    assert first.startswith(b"<!doctype html>")
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    assert len(first) < 3_000_000, "75 slots must stay a page one can send by mail"


# --- pictures ---


def test_a_large_picture_is_made_smaller_before_it_is_embedded() -> None:
    packed = io.BytesIO()
    Image.new("RGB", (1920, 1080), (180, 60, 50)).save(packed, "JPEG")
    slot = SlotReport(number=1, state=SlotState.WAITING, picture="a" * 64)
    markup = render_report(empty_season(slots=(slot,)), lambda _: packed.getvalue())
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(data))).size
        for data in re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", markup)
    ]
    assert sorted(sizes) == [(168, 95), (480, 270)]


@pytest.mark.parametrize("data", [b"", b"<svg onload='alert(1)'/>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff truncated"])
def test_bytes_that_are_no_jpeg_leave_an_empty_frame(data: bytes) -> None:
    slot = SlotReport(number=1, state=SlotState.WAITING, picture="a" * 64)
    markup = render_report(empty_season(slots=(slot,)), lambda _: data)
    assert "data:image" not in markup
    assert 'class="empty"' in markup


def test_a_picture_missing_from_the_store_leaves_an_empty_frame() -> None:
    shelf = PictureShelf()
    lost = hashlib.sha256(b"lost").hexdigest()
    character = rich_season(shelf).characters[0]
    character = character.model_copy(update={"sheet": (character.sheet[0].model_copy(update={"sha256": lost}),)})
    assert "picture missing" in read(empty_season(characters=(character,)), shelf).text


# --- money ---


def test_every_money_table_adds_up_to_what_was_spent(page: ReadPage, season: SeasonReport) -> None:
    stages, characters, *slots = page.tables
    by_slot = [row for table in slots for row in table if row[0] != "slot"]
    for rows in (stages[1:], characters[1:], by_slot):
        *lines, total = rows
        assert total[0] == "Total"
        assert dollars(total[2]) == season.spent_usd == sum(dollars(line[2]) for line in lines)
        assert dollars(total[1]) == season.forecast_usd == sum(dollars(line[1]) for line in lines)


def test_money_that_no_line_explains_is_said() -> None:
    line = CostLine(stage=Stage.VIDEO, api_name="x", actual_usd=Decimal("0.35"))
    honest = read(empty_season(spent_usd=Decimal("0.35"), costs=(line,)), PictureShelf())
    assert "unaccounted" not in honest.text
    off = read(empty_season(spent_usd=Decimal("1.35"), costs=(line,)), PictureShelf())
    assert "$1.00 is unaccounted for" in off.text


def test_a_rehearsal_says_that_no_money_was_spent_and_a_real_season_does_not(shelf: PictureShelf) -> None:
    assert "no money was spent" in read(rich_season(shelf), shelf).text
    real = read(rich_season(shelf, is_simulated=False), shelf).text
    assert "no money was spent" not in real
    assert "simulated" not in real


# --- a number always carries its control ---


def test_a_slots_score_stands_beside_threshold_control_counts_and_metric() -> None:
    result = identity(0.81, 0.44, judged=6, abstained=2)
    player = SlotCharacter(name="Mei", route_key="direct", route_label="direct LoRA", identity=result)
    slot = SlotReport(number=6, state=SlotState.DONE, characters=(player,))
    text = read(empty_season(slots=(slot,)), PictureShelf()).text
    for part in ("0.81", "threshold 0.62", "without LoRA 0.44", "6 judged, 2 abstained (no subject found)",
                 "patch-colour-v1, threshold 0.62: midway between 9", "gain at least +0.28 (95 %)"):  # fmt: skip
        assert part in text, part


# --- what stands on the page ---


def test_the_page_can_be_read_aloud(page: ReadPage) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))
    assert all("alt" in image for image in page.all("img"))
    assert all(video.get("aria-label") for video in page.all("video"))
    assert page.all("html")[0]["lang"] == "en"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    jumps = [link["href"] or "" for link in page.all("a")]
    assert {jump.removeprefix("#") for jump in jumps if jump.startswith("#")} <= set(ids)


def test_videos_wait_until_they_are_asked_for(page: ReadPage, season: SeasonReport) -> None:
    videos = page.all("video")
    assert len(videos) == 1 + sum(slot.clip is not None for slot in season.slots)
    assert {video["preload"] for video in videos} == {"none"}
    assert videos[0]["src"] == "./season.mp4"


def test_failed_waiting_and_missing_slots_are_said_plainly(page: ReadPage) -> None:
    for part in ("The model refused the prompt (content_policy_violation)", "The answer to the paid request was lost",
                 "33–36 Gap: nothing was written for these slots.", "8 gaps: 29, 33–36, 41, 52, 60", "not begun",
                 "onmodel jobs resolve 5f0c1a2b --not-there"):  # fmt: skip
        assert part in page.text, part


def test_a_fallback_says_why(page: ReadPage) -> None:
    assert "Its LoRA is failed (off-model), so the original references were used." in page.text
    assert "LoRA still → video" in page.text


def test_a_season_that_has_not_begun_has_a_page_too() -> None:
    text = read(empty_season(), PictureShelf()).text
    for part in ("not assembled yet", "No characters were declared", "no slots", "Nothing waits for you"):
        assert part in text, part


def test_a_character_without_pictures_or_lora_has_a_card() -> None:
    character = CharacterReport(name="Old Bram", kind=CharacterKind.OTHER, no_lora_because="it is switched off")
    text = read(empty_season(characters=(character,)), PictureShelf()).text
    assert "no reference sheet yet" in text
    assert "No LoRA: it is switched off" in text


def test_a_time_zone_this_machine_does_not_know_falls_back_to_utc() -> None:
    assert "08:00 (UTC)" in read(empty_season(time_zone="Mars/Olympus"), PictureShelf()).text
    assert "09:00 (Europe/Lisbon)" in read(empty_season(time_zone="Europe/Lisbon"), PictureShelf()).text
