"""The contact sheet: what it must show, what it must never do, and where its pictures go when they are many."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from domain.errors import BadInput
from domain.pictures import Decision
from tasks.contact_sheet import (
    BESIDE,
    ContactSheet,
    SheetFigure,
    SheetGroup,
    SheetPart,
    SheetPicture,
    render_contact_sheet,
    small_jpeg,
    write_contact_sheet,
)
from tests.media_samples import drawn_frame

HOSTILE = '<script>alert("1")</script>\' onload="x'


class ReadSheet(HTMLParser):
    """The page as a browser's parser sees it: its tags, its words, and which part each card stands in."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def sources(self) -> list[str]:
        return [str(attributes["src"]) for tag, attributes in self.tags if tag == "img"]

    def count(self, tag: str, css_class: str) -> int:
        return sum(name == tag and css_class in str(attrs.get("class")).split() for name, attrs in self.tags)


def picture(number: int = 1, form: str = "JPEG", size: tuple[int, int] = (640, 360)) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(drawn_frame(number, *size)).save(packed, form)
    return packed.getvalue()


def shelf(key: str) -> bytes:
    if key == "lost":
        raise BadInput("There is no such picture.")
    return b"no picture" if key == "damaged" else picture(int(key))


def card(name: str, key: str | None = "1", **fields: object) -> SheetPicture:
    return SheetPicture.model_validate({"name": name, "picture": key, "place": "00:03.500", **fields})


def sheet_of(*parts: SheetPart, **fields: object) -> ContactSheet:
    whole = {
        "title": "Mei",
        "byline": "for flux-dev",
        "figures": (SheetFigure(label="Kept", value="2"),),
        "groups": (SheetGroup(title="slot-01", parts=parts, facts=("4.7 s",)),),
    }
    return ContactSheet.model_validate({**whole, **fields})


def read(sheet: ContactSheet) -> ReadSheet:
    return ReadSheet(render_contact_sheet(sheet, lambda key: f"data:image/jpeg;base64,{key}"))


def test_each_picture_is_shown_with_its_name_its_place_and_why_it_was_left() -> None:
    page = read(
        sheet_of(
            SheetPart(
                title="Kept", pictures=(card("slot-01@3.500", facts=("bust", "frontal"), caption="in the rain"),)
            ),
            SheetPart(title="Left out", pictures=(card("slot-01@7.000", reason="blurred"),), is_folded=True),
            warnings=("Only 1 image could be held out.",),
            gaps=("It is never seen from behind: slot-02.mp4 may have it.",),
            commands=(("--drop NAME", "takes a picture out"),),
        )
    )
    for words in (
        *("slot-01@3.500", "00:03.500", "bust · frontal", "in the rain", "slot-01@7.000", "blurred", "4.7 s"),
        *("Only 1 image could be held out.", "What it shows too little of", "slot-02.mp4 may have it", "--drop NAME"),
    ):
        assert words in page.text
    assert page.count("details", "part") == 1
    assert page.count("li", "out") == 1
    assert len(page.sources()) == 2


def test_what_a_person_said_stands_beside_the_picture_and_nothing_where_nobody_spoke() -> None:
    spoken = SheetPart(
        title="Kept",
        pictures=(card("a", decision=Decision.KEEP), card("b", decision=Decision.DROP, reason="x"), card("c")),
    )
    page = read(sheet_of(spoken))
    assert page.text.count("kept by you") == 1
    assert page.text.count("dropped by you") == 1
    assert page.count("li", "decided") == 2


def test_a_part_without_pictures_is_left_out_and_a_sheet_without_any_says_so() -> None:
    assert "Held out" not in read(sheet_of(SheetPart(title="Held out", pictures=()))).text
    assert "There is no picture to show." in read(sheet_of(groups=())).text


def test_every_word_from_outside_is_escaped() -> None:
    part = SheetPart(
        title=HOSTILE,
        note=HOSTILE,
        pictures=(card(HOSTILE, place=HOSTILE, reason=HOSTILE, mark=HOSTILE, caption=HOSTILE, facts=(HOSTILE,)),),
    )
    group = SheetGroup(title=HOSTILE, facts=(HOSTILE,), note=HOSTILE, parts=(part,))
    sheet = sheet_of(
        title=HOSTILE,
        byline=HOSTILE,
        figures=(SheetFigure(label=HOSTILE, value=HOSTILE, small=HOSTILE),),
        groups=(group,),
        warnings=(HOSTILE,),
        gaps=(HOSTILE,),
        commands=((HOSTILE, HOSTILE),),
    )
    page = read(sheet)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) == 21  # each of the 20 words shown, the title in the tab too


def test_the_page_asks_nobody_for_anything_and_forbids_itself_to() -> None:
    page = read(sheet_of(SheetPart(title="Kept", pictures=(card("a"),))))
    policy = next(
        str(attributes["content"])
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert all(source.startswith("data:") for source in page.sources())
    assert not [attributes for tag, attributes in page.tags if tag in ("script", "link", "iframe", "object")]


def test_a_picture_that_cannot_be_had_leaves_an_empty_frame(tmp_path: Path) -> None:
    part = SheetPart(title="Kept", pictures=tuple(card(key, key) for key in ("1", "lost", "damaged", "2")))
    out = tmp_path / "sheet.html"
    assert write_contact_sheet(sheet_of(part), out, shelf) == ()
    page = ReadSheet(out.read_text("utf-8"))
    assert len(page.sources()) == 2
    assert page.text.count("no picture") == 2


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_made_small_and_written_anew(form: str) -> None:
    small = small_jpeg(lambda _: picture(form=form, size=(800, 400)), "x")
    assert small is not None
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.size) == ("JPEG", (320, 160))


def test_a_picture_of_absurd_size_or_another_kind_is_not_opened() -> None:
    huge = io.BytesIO()
    Image.new("1", (9000, 9000)).save(huge, "PNG")
    gif = picture(form="GIF", size=(80, 60))
    assert small_jpeg(lambda _: huge.getvalue(), "x") is None
    assert small_jpeg(lambda _: gif, "x") is None


def test_a_sheet_that_would_grow_too_large_keeps_its_pictures_in_a_folder_beside_it(tmp_path: Path) -> None:
    part = SheetPart(title="Kept", pictures=tuple(card(str(number), str(number)) for number in range(4)))
    out = tmp_path / "sheet.html"
    assert write_contact_sheet(sheet_of(part), out, shelf, embedded_bytes=1_000_000) == ()
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.html"]
    for _ in range(2):  # again adds no second one
        written = write_contact_sheet(sheet_of(part), out, shelf, embedded_bytes=10_000)
    sources = ReadSheet(out.read_text("utf-8")).sources()
    assert len(set(sources)) == 4
    assert {tmp_path / source for source in sources} == set(written) == set((tmp_path / BESIDE).iterdir())
    assert sources[0].startswith(f"./{BESIDE}/")


def test_the_same_sheet_is_the_same_page(tmp_path: Path) -> None:
    part = SheetPart(title="Kept", pictures=(card("a"),))
    pages = []
    for name in ("one.html", "two.html"):
        write_contact_sheet(sheet_of(part), tmp_path / name, shelf)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
