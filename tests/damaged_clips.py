"""Damaged clips for tests: sound ones of every container and codec, broken in ways that downloads, disks and people do.

Everything follows from a seed, so that a clip that did harm can be made again.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.media_samples import make_clip

KINDS = (
    ("mp4", "libx264"),
    ("mp4", "libx265"),
    ("mp4", "libsvtav1"),
    ("mp4", "libvpx-vp9"),
    ("mov", "libx264"),
    ("mov", "mjpeg"),
    ("webm", "libvpx-vp9"),
    ("webm", "libsvtav1"),
    ("mkv", "libx264"),
    ("mkv", "libx265"),
    ("mkv", "mjpeg"),
    ("avi", "mjpeg"),
    ("avi", "libx264"),
    ("ts", "libx264"),
    ("ts", "libx265"),
)
"""Container and encoder of each sound clip."""

_HEAD_BYTES = 1500
"""Where a container keeps what it says of itself; half of all damage lands there or as close to the end."""


def make_originals(folder: Path, kinds: tuple[tuple[str, str], ...] = KINDS) -> list[Path]:
    """One sound clip of each kind, 0.6 s of 96×64, half of them with sound and with their index in front."""
    return [
        make_clip(
            folder / f"{codec}-{place}.{container}",
            seconds=0.6,
            size=(96, 64),
            codec=codec,
            pixel_format="yuvj420p" if codec == "mjpeg" else "yuv420p",
            keyframe_every=6,
            has_sound=place % 2 == 0,
            is_index_first=container in ("mp4", "mov") and place % 2 == 0,
        )
        for place, (container, codec) in enumerate(kinds)
    ]


def damage(data: bytes, seed: int) -> bytes:
    """The same bytes with one to three things wrong with them; never empty."""
    dice = random.Random(seed)
    broken = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        _break_once(broken, dice)
    return bytes(broken) or b"\0"


def _break_once(data: bytearray, dice: random.Random) -> None:
    at = _somewhere(data, dice)
    length = dice.choice((1, 4, 16, 64, 256, 1024))
    match dice.randrange(8):
        case 0:
            del data[at:]
        case 1 | 2:
            for _ in range(dice.choice((1, 2, 8, 40))):
                place = _somewhere(data, dice)
                data[place : place + 1] = dice.randbytes(1)
        case 3:
            data[at : at + length] = bytes(len(data[at : at + length]))
        case 4:
            data[at:at] = data[at : at + length]
        case 5:
            del data[at : at + length]
        case 6:
            data[at : at + length] = dice.randbytes(len(data[at : at + length]))
        case _:  # a number of the header made enormous, or negative
            data[at : at + 4] = dice.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00"))


def _somewhere(data: bytearray, dice: random.Random) -> int:
    if not data:
        return 0
    match dice.randrange(4):
        case 0:
            return dice.randrange(min(len(data), _HEAD_BYTES))
        case 1:
            return len(data) - 1 - dice.randrange(min(len(data), _HEAD_BYTES))
        case _:
            return dice.randrange(len(data))
