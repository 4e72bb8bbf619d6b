"""Draws a contact sheet: pictures kept and dropped on one page, each with its name, its place and the reason.

Like the report it needs nothing beside it: no script, no request to anywhere, a Content-Security-Policy of its own,
every word from outside escaped. Pictures are embedded; a sheet that would grow past `EMBEDDED_BYTES` keeps them as
files in a folder beside it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

from jinja2 import Template
from markupsafe import Markup
from PIL import Image

from domain.errors import OnModelError
from domain.pictures import Decision
from domain.records import Record
from tasks.page_templates import TEMPLATES, open_templates
from tasks.whole_files import whole_file

EMBEDDED_BYTES = 8_000_000
"""Above this the pictures lie beside the page, so that it opens at once and fits into a message."""

BESIDE = "contact-sheet-pictures"
_WIDEST_PIXELS = 320
_LARGEST_SOURCE_PIXELS = 50_000_000


class SheetPicture(Record):
    """One picture of the sheet. `name` is what a person types to overrule; `picture` is the key `thumb` knows it by."""

    name: str
    picture: str | None
    place: str
    facts: tuple[str, ...] = ()
    reason: str = ""
    """Why it was left out; '' when it was not."""
    mark: str = ""
    """What a person should know of it: burnt-in text, or that the project made it itself."""
    caption: str = ""
    decision: Decision | None = None
    """What a person said of it, where somebody did: then this, and no rule, put it where it stands."""


class SheetPart(Record):
    """Pictures of one verdict under one heading; `is_folded` where they only matter to those who doubt it."""

    title: str
    pictures: tuple[SheetPicture, ...]
    note: str = ""
    is_folded: bool = False
    is_pressing: bool = False
    """A person's word is needed."""


class SheetGroup(Record):
    """What belongs together, such as all of one clip."""

    title: str
    parts: tuple[SheetPart, ...]
    facts: tuple[str, ...] = ()
    note: str = ""


class SheetFigure(Record):
    """A number of the sheet's head, with what it counts and a smaller line below."""

    label: str
    value: str
    small: str = ""


class ContactSheet(Record):
    """Everything on the page. `commands` are what a person types to overrule it, each with what it does."""

    title: str
    byline: str
    figures: tuple[SheetFigure, ...]
    groups: tuple[SheetGroup, ...]
    warnings: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()


def write_contact_sheet(
    sheet: ContactSheet, out: Path, thumb: Callable[[str], bytes], *, embedded_bytes: int = EMBEDDED_BYTES
) -> tuple[Path, ...]:
    """Write the page to `out`, replacing it at once or not at all. Free, and safe to repeat.

    Returns the picture files written beside it, none while they are embedded. `thumb` gives the bytes of a picture
    (JPEG, PNG or WebP) by its key; larger ones than 320 px are made smaller here. A picture that cannot be had (an
    `OnModelError`, or bytes that are no picture) leaves an empty frame. Pictures are read one at a time.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    room = embedded_bytes
    jpegs: dict[str, bytes] = {}
    for key in _keys_of(sheet):
        jpeg = small_jpeg(thumb, key)
        if jpeg is None:
            continue
        room -= len(jpeg) * 4 // 3
        if room < 0:
            return _write_with_files(sheet, out, thumb)
        jpegs[key] = jpeg
    _write_whole(out, render_contact_sheet(sheet, lambda key: _data_url(jpegs.get(key))).encode())
    return ()


def render_contact_sheet(sheet: ContactSheet, address_of: Callable[[str], str | None]) -> str:
    """The page as text; `address_of` gives a picture's address by its key, None where there is none to be had."""
    css = (TEMPLATES / "report.css").read_text("utf-8") + (TEMPLATES / "contact_sheet.css").read_text("utf-8")
    page = _template().render(
        sheet=sheet,
        picture=lambda key: None if key is None else address_of(key),
        css=Markup(css),  # noqa: S704 (our own files)
        Decision=Decision,
    )
    return page.lstrip()


def small_jpeg(thumb: Callable[[str], bytes], key: str) -> bytes | None:
    """A picture at most 320 px wide and high, written anew so that no byte of the page comes from outside unread.

    None where there is none to be had.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(thumb(key)), formats=["JPEG", "PNG", "WEBP"]) as image:
                if image.width * image.height > _LARGEST_SOURCE_PIXELS:
                    return None
                image.draft("RGB", (_WIDEST_PIXELS, _WIDEST_PIXELS))
                small = image.convert("RGB")
                small.thumbnail((_WIDEST_PIXELS, _WIDEST_PIXELS), Image.Resampling.LANCZOS)
    except (OnModelError, OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning):
        return None
    packed = io.BytesIO()
    small.save(packed, "JPEG", quality=78, optimize=True)
    return packed.getvalue()


def _write_with_files(sheet: ContactSheet, out: Path, thumb: Callable[[str], bytes]) -> tuple[Path, ...]:
    """Each picture under its digest in a folder beside the page, so that writing again adds no second one."""
    folder = out.parent / BESIDE
    folder.mkdir(exist_ok=True)
    addresses: dict[str, str] = {}
    written: dict[Path, None] = {}
    for key in _keys_of(sheet):
        jpeg = small_jpeg(thumb, key)
        if jpeg is None:
            continue
        path = folder / f"{hashlib.sha256(jpeg).hexdigest()[:24]}.jpg"
        if path not in written:
            _write_whole(path, jpeg)
        written[path] = None
        addresses[key] = f"./{BESIDE}/{path.name}"
    _write_whole(out, render_contact_sheet(sheet, addresses.get).encode())
    return tuple(written)


def _keys_of(sheet: ContactSheet) -> list[str]:
    pictures = (picture for group in sheet.groups for part in group.parts for picture in part.pictures)
    return list(dict.fromkeys(picture.picture for picture in pictures if picture.picture is not None))


def _data_url(jpeg: bytes | None) -> str | None:
    return None if jpeg is None else "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _write_whole(path: Path, data: bytes) -> None:
    with whole_file(path) as stream:
        stream.write(data)


@cache
def _template() -> Template:
    return open_templates().get_template("contact_sheet.html")
