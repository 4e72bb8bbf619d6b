"""What a picture shows of a character: where it stands, how close, from which side, in what light."""

from __future__ import annotations

from enum import StrEnum

from domain.records import Record

JPEG_QUALITY = 95
"""Of every picture cut out of a clip or for a trainer; from 90 up colours keep their full resolution."""


class Framing(StrEnum):
    """How much of a person is in the picture."""

    CLOSE_UP = "close_up"
    BUST = "bust"
    FULL = "full"
    UNKNOWN = "unknown"


class View(StrEnum):
    """From which side a person is seen."""

    FRONTAL = "frontal"
    THREE_QUARTER = "three_quarter"
    PROFILE = "profile"
    BACK = "back"
    UNKNOWN = "unknown"


class Light(StrEnum):
    """How the picture is lit; `LIGHT_WORDS` in the captions."""

    NIGHT = "night"
    DIM = "dim"
    SOFT = "soft"
    BRIGHT = "bright"


class Origin(StrEnum):
    """Where a picture comes from. `GENERATED` ones this project made itself: allowed, marked, counted, warned about."""

    CLIP = "clip"
    STILL = "still"
    GENERATED = "generated"


class CaptionMode(StrEnum):
    """Where captions come from. `OWN`: a `.txt` beside a given image, of the same stem; the others are automatic.

    `DESCRIBED`: a vendor's captioner, which costs money; what it says is cleaned (domain/captions.py).
    """

    AUTO = "auto"
    FIXED = "fixed"
    OWN = "own"
    DESCRIBED = "described"


class Decision(StrEnum):
    """What a person said of a picture; it overrules every rule."""

    KEEP = "keep"
    DROP = "drop"


class Box(Record):
    """A part of a picture in its pixels; right and bottom are just outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def area(self) -> int:
        return max(0, self.width) * max(0, self.height)


def suffix_of(media_type: str) -> str:
    """The usual end of a picture's file name; `.jpg` for whatever is no PNG or WebP."""
    return {"image/png": ".png", "image/webp": ".webp"}.get(media_type, ".jpg")
