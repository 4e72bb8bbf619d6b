"""Crops: which part of a picture is trained on, and at what size. Pure geometry; never enlarges.

A trainer sorts pictures into buckets: sizes of about one area (512², 768² or 1024² pixels) whose sides are multiples
of 64 (ai-toolkit and LoRA Dataset Studio, curation_and_identity.md section 1; runpod_trainers.md 2.2). A picture that
fits no bucket would be cut by the trainer wherever it likes, so it is cut here, where the subject is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import gcd, log

from domain.pictures import Box
from domain.records import Record

CROP_RULES_VERSION = 1
"""Raised whenever a rule of this file changes, so that datasets cropped by older ones are made anew."""

RESOLUTIONS = (512, 768, 1024)
"""1024 is wanted, 768 the floor for fine detail, 512 still learns (curation_and_identity.md section 1)."""

STEP = 64
"""Pixels that both sides of a bucket are multiples of."""

MAX_ASPECT = 3.0
"""No bucket is longer than this to one; a picture that is, loses its ends. Ours: no source states one."""

TINY_SHARE = 0.25
"""A subject lower than this share of the crop's height is tiny. Ours, not measured against trained LoRAs."""

CLOSER_SHARE = 0.40
"""A tiny subject is cropped closer until it is this share of the crop's height, or the bucket ends it."""

HEADROOM = 0.04
"""Of the crop's height, left above the head of a subject too tall to be whole: boxes cut hair short."""


class Bucket(Record):
    """A size a trainer trains at. `resolution`² is the area it stays within."""

    width: int
    height: int
    resolution: int


class CropPlan(Record):
    """Cut `box` out of the picture and reduce it to width × height. `scale` is that reduction, 1 at most.

    `is_subject_whole` is True where no subject is known. `has_keep_out`: something that should have been kept out
    could not be, because it stands before the subject or too little would be left.
    """

    box: Box
    width: int
    height: int
    resolution: int
    scale: float
    is_subject_whole: bool = True
    is_closer: bool = False
    has_keep_out: bool = False


class TooSmall(Record):
    """A picture that fills no bucket: its size, and the bucket nearest to its shape that it would have to fill."""

    width: int
    height: int
    needs_width: int
    needs_height: int
    resolution: int

    def sentence(self, what: str) -> str:
        """Why `what` (such as `slot-01.mp4 at 3.5 s`) is not trained on."""
        return (
            f"{what} is {self.width}×{self.height}; the smallest bucket needs {self.resolution}×{self.resolution} "
            f"pixels of area, {self.needs_width}×{self.needs_height} in its shape, and nothing is enlarged: "
            "give it larger or leave it out."
        )


@cache
def buckets_of(resolution: int) -> tuple[Bucket, ...]:
    """All buckets of a resolution, narrow to wide: for each width the tallest height within the area."""
    area = resolution * resolution
    found: list[Bucket] = []
    for width in range(STEP, area // STEP + 1, STEP):
        height = area // width // STEP * STEP
        if height and max(width, height) <= MAX_ASPECT * min(width, height):
            found.append(Bucket(width=width, height=height, resolution=resolution))
    return tuple(found)


def plan_crop(
    width: int,
    height: int,
    subject: Box | None = None,
    keep_out: Sequence[Box] = (),
    resolutions: Sequence[int] = RESOLUTIONS,
) -> CropPlan | TooSmall:
    """The crop of a width × height picture: the largest bucket it fills, as much of the picture as its shape allows.

    The subject is in the middle and whole where it fits; where it does not, its head is. A tiny subject is cropped
    closer. `keep_out` (other people, burnt-in text) is cut off where subject and bucket allow. The box has exactly
    the bucket's aspect. Deterministic; microseconds.
    """
    whole = Box(left=0, top=0, right=width, bottom=height)
    body = _inside(subject, whole) if subject is not None else None
    room = _room_without(whole, body, keep_out)
    planned = _plan(room, body, resolutions)
    if room != whole and (planned is None or not planned.is_subject_whole):
        wider = _plan(whole, body, resolutions)
        planned = wider if planned is None or (wider is not None and wider.is_subject_whole) else planned
    if planned is not None:
        return planned.model_copy(update={"has_keep_out": any(_overlap(planned.box, box) for box in keep_out)})
    nearest = _nearest(min(resolutions), width, height)
    return TooSmall(
        width=width,
        height=height,
        needs_width=nearest.width,
        needs_height=nearest.height,
        resolution=nearest.resolution,
    )


def _plan(room: Box, body: Box | None, resolutions: Sequence[int]) -> CropPlan | None:
    """The widest crop of the largest bucket that fits; a closer one when the subject would be tiny in it."""
    wide: CropPlan | None = None
    close: CropPlan | None = None
    for resolution in sorted(resolutions, reverse=True):
        bucket = _nearest(resolution, room.width, room.height)
        unit = gcd(bucket.width, bucket.height)
        unit_width, unit_height = bucket.width // unit, bucket.height // unit
        most = min(room.width // unit_width, room.height // unit_height)
        if most < unit:
            continue
        if wide is None:
            wide = _placed(room, body, bucket, most)
        if body is None or body.height >= TINY_SHARE * wide.box.height:
            return wide
        wanted = max(
            unit,
            int(body.height / CLOSER_SHARE / unit_height),
            -(-body.height // unit_height),
            -(-body.width // unit_width),
        )
        if wanted < most:
            close = _placed(room, body, bucket, wanted).model_copy(update={"is_closer": True})
            if body.height >= TINY_SHARE * close.box.height:
                return close
    return close or wide


def _placed(room: Box, body: Box | None, bucket: Bucket, units: int) -> CropPlan:
    """A crop of so many units of the bucket's aspect, put where the subject is."""
    unit = gcd(bucket.width, bucket.height)
    width, height = units * (bucket.width // unit), units * (bucket.height // unit)
    left = _start(room.left, room.right, width, None if body is None else (body.left, body.right), None)
    top = _start(room.top, room.bottom, height, None if body is None else (body.top, body.bottom), HEADROOM)
    box = Box(left=left, top=top, right=left + width, bottom=top + height)
    return CropPlan(
        box=box,
        width=bucket.width,
        height=bucket.height,
        resolution=bucket.resolution,
        scale=bucket.width / width,
        is_subject_whole=body is None or _inside(body, box) == body,
    )


def _start(low: int, high: int, length: int, body: tuple[int, int] | None, headroom: float | None) -> int:
    """Where a stretch of this length begins between low and high, so that the body is in its middle.

    Of a body longer than the stretch the first end stays (a head, not feet), that share of the stretch before it;
    where `headroom` is None the middles meet.
    """
    first, last = body if body is not None else (low, high)
    if last - first <= length or headroom is None:
        start = (first + last - length) // 2
    else:
        start = first - int(headroom * length)
    return max(low, min(start, high - length))


def _nearest(resolution: int, width: int, height: int) -> Bucket:
    """The bucket whose aspect is nearest, by ratio; of two equally near ones the larger."""
    wanted = log(width / height) if width > 0 and height > 0 else 0.0
    return min(
        buckets_of(resolution),
        key=lambda bucket: (
            round(abs(log(bucket.width / bucket.height) - wanted), 9),
            -bucket.width * bucket.height,
            bucket.width,
        ),
    )


def _room_without(whole: Box, body: Box | None, keep_out: Sequence[Box]) -> Box:
    """The picture less what is to be kept out: each is cut off on the side that costs least and spares the subject."""
    room = whole
    for box in keep_out:
        if not _overlap(room, box):
            continue
        sides = (
            room.model_copy(update={"right": min(room.right, box.left)}),
            room.model_copy(update={"left": max(room.left, box.right)}),
            room.model_copy(update={"bottom": min(room.bottom, box.top)}),
            room.model_copy(update={"top": max(room.top, box.bottom)}),
        )
        sparing = [
            side
            for side in sides
            if side.width > 0 and side.height > 0 and (body is None or _inside(body, side) == body)
        ]
        if sparing:
            room = max(sparing, key=lambda side: side.area)
    return room


def _inside(box: Box, room: Box) -> Box | None:
    """The part of a box that lies in the room, or None."""
    part = Box(
        left=max(box.left, room.left),
        top=max(box.top, room.top),
        right=min(box.right, room.right),
        bottom=min(box.bottom, room.bottom),
    )
    return part if part.width > 0 and part.height > 0 else None


def _overlap(one: Box, other: Box) -> bool:
    return _inside(one, other) is not None
