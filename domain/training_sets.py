"""A training set: which pictures are trained, which are held out and never seen by the trainer."""

from __future__ import annotations

from pydantic import Field

from domain.pictures import Box, Framing, Light, Origin, View
from domain.records import Record

TRAINED_AIM = 20
"""10–20 trained images (issue); more than 20 adds little (curation_and_identity.md section 1)."""

HELD_OUT_AIM = 4
FULL_HOLD_OUT_FROM = 13
"""With fewer images in all, fewer are held out; under 6, none (issue)."""

NO_HOLD_OUT_UNDER = 6

SMALLEST_SIDE = 512
"""Pixels. Under this a picture would have to be enlarged for training: left out (issue; buckets 512/768/1024)."""


class TrainingImage(Record):
    """One picture of a set, whole and of one person: what it shows, and where it comes from.

    `name` is how a person calls it (`f12`: frame 12, `s2`: the second still); `subject` lies in this picture's pixels;
    `made_from` is the SHA-256 of the picture it was cut from to leave somebody out; `cut` lies in that one's pixels.
    """

    sha256: str
    file_name: str
    media_type: str
    caption: str
    is_caption_own: bool = False
    """A person or a vendor's captioner wrote it, so no rule rewrites it."""
    source: str
    at_seconds: float | None = None
    sharpness: float | None = None
    width: int
    height: int
    name: str = ""
    origin: Origin = Origin.CLIP
    subject: Box | None = None
    made_from: str | None = None
    cut: Box | None = None
    framing: Framing = Framing.UNKNOWN
    view: View = View.UNKNOWN
    light: Light = Light.SOFT
    outfit: int = 0
    likeness: float | None = None
    rights: str = ""


class LeftOut(Record):
    """A picture that was considered and not taken, with its reason; a doubtful one waits for a person's word."""

    name: str
    sha256: str | None
    """A picture to show of it; None when there is none any more."""
    source: str
    at_seconds: float | None
    reason: str
    is_doubtful: bool = False


class Coverage(Record):
    """How often a set shows each framing, view and light; `gaps` say what it never shows and where to look for it."""

    framings: dict[str, int] = Field(default_factory=dict)
    views: dict[str, int] = Field(default_factory=dict)
    lights: dict[str, int] = Field(default_factory=dict)
    outfits: int = 0
    gaps: tuple[str, ...] = ()


class TrainingSet(Record):
    """A stored set. What goes to a trainer is a `Dataset` made of it."""

    id: int
    character_id: int
    digest: str
    trained: tuple[TrainingImage, ...]
    held_out: tuple[TrainingImage, ...]
    left_out: tuple[LeftOut, ...] = ()
    coverage: Coverage = Coverage()
    warnings: tuple[str, ...]


class CuratedSet(Record):
    """A training set as it comes out of curation, before it has an id."""

    character_id: int
    digest: str
    trained: tuple[TrainingImage, ...]
    held_out: tuple[TrainingImage, ...]
    left_out: tuple[LeftOut, ...]
    coverage: Coverage
    warnings: tuple[str, ...]


class Dataset(Record):
    """A training set laid out for one trainer: the zip it takes, and the manifest beside it. Both are blobs."""

    id: int
    training_set_id: int
    layout: str
    zip_sha256: str
    manifest_sha256: str
    file_count: int
    size_bytes: int
    warnings: tuple[str, ...] = ()


def held_out_count(total: int, min_images: int) -> int:
    """How many of `total` pictures to hold out: 4 where there are enough, fewer in a small set, none under 6.

    Never so many that fewer than `min_images` would be left to train on.
    """
    if total < NO_HOLD_OUT_UNDER:
        return 0
    wanted = HELD_OUT_AIM if total >= FULL_HOLD_OUT_FROM else max(1, total // 5)
    return max(0, min(wanted, total - min_images))
