"""A training set: which pictures are trained, which are held out and never seen by the trainer."""

from __future__ import annotations

from domain.records import Record

TRAINED_AIM = 20
"""10–20 trained images (issue); more than 20 adds little (curation_and_identity.md section 1)."""

HELD_OUT_AIM = 4
FULL_HOLD_OUT_FROM = 13
"""With fewer images in all, fewer are held out; under 6, none (issue)."""

NO_HOLD_OUT_UNDER = 6

EVERY_SECONDS = 0.5
"""Frames of one clip are at least this far apart (waifuc, curation_and_identity.md section 1)."""

KEPT_PER_CLIP = 12
"""At most so many frames of one clip, so that no clip drowns the others."""

SMALLEST_SIDE = 512
"""Pixels. Under this a picture would have to be enlarged for training: left out (issue; buckets 512/768/1024)."""


class TrainingImage(Record):
    """One picture of a set, and where it comes from."""

    sha256: str
    file_name: str
    media_type: str
    caption: str
    source: str
    at_seconds: float | None = None
    sharpness: float | None = None
    width: int
    height: int


class TrainingSet(Record):
    """A stored set. `zip_sha256` is what goes to the trainer."""

    id: int
    character_id: int
    digest: str
    zip_sha256: str
    trained: tuple[TrainingImage, ...]
    held_out: tuple[TrainingImage, ...]
    warnings: tuple[str, ...]


def held_out_count(total: int, min_images: int) -> int:
    """How many of `total` pictures to hold out: 4 where there are enough, fewer in a small set, none under 6.

    Never so many that fewer than `min_images` would be left to train on.
    """
    if total < NO_HOLD_OUT_UNDER:
        return 0
    wanted = HELD_OUT_AIM if total >= FULL_HOLD_OUT_FROM else max(1, total // 5)
    return max(0, min(wanted, total - min_images))
