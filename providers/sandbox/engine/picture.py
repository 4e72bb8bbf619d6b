"""Pictures as arrays: loading, resizing, smoothing, and cutting a subject out once `subjects` has found it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]

_MOST_PIXELS = 64_000_000
_MARGIN = 0.02  # of the picture, left around the subject
_OVAL_SIDE = 160  # px, longer side


@dataclass(frozen=True)
class Finding:
    """Where a picture's subject is: a small plane 0–1 over the whole picture, and how sure that is, 0–1."""

    likelihood: Floats
    cleanness: float


@dataclass(frozen=True)
class Cutout:
    """A subject cut from its picture.

    `colour` is H×W×3, 0–1, multiplied by `matte` (H×W, 0–1), both stretched to the box that was asked for.
    `aspect` is the subject's true width / height. `is_cut_*` say at which of the picture's edges it is cropped.
    `detail` is the subject's height in its own picture over the box's height, at most 1; `cleanness`, 0–1, how
    much of what was cut is surely subject and not background.
    """

    colour: Floats
    matte: Floats
    aspect: float
    is_cut_below: bool
    is_cut_aside: bool
    cleanness: float
    detail: float


def load_rgb(source: Path | BinaryIO, longest_side: int) -> Bytes:
    """The picture as H×W×3 sRGB, EXIF rotation applied, transparency on white, not larger than `longest_side`.

    Raises `OSError`, `ValueError` or `SyntaxError` for what is no JPEG, PNG or WebP, is damaged, or claims more than
    64 million pixels (looked at before decoding); the caller knows which of our errors that is.
    """
    with warnings.catch_warnings():
        # Pillow would only warn of what we refuse ourselves.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            opened = Image.open(source, formats=("JPEG", "PNG", "WEBP"))
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from error
    with opened:
        if opened.width * opened.height > _MOST_PIXELS:
            raise ValueError(f"it claims {opened.width}×{opened.height} pixels and {_MOST_PIXELS} are the most")
        opened.draft("RGB", (longest_side, longest_side))
        picture = ImageOps.exif_transpose(opened)
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            rgba = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
        picture = picture.convert("RGB")
        picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
        return np.asarray(picture)


def resize(values: Floats, width: int, height: int) -> Floats:
    """A plane H×W or H×W×C brought to `height`×`width` with Pillow's bicubic filter."""
    planes = values[..., None] if values.ndim == 2 else values
    done = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(planes[..., c])).resize((width, height), Image.Resampling.BICUBIC)
        )
        for c in range(planes.shape[2])
    ]
    return done[0] if values.ndim == 2 else np.stack(done, axis=-1)


def cut_subject(image: Bytes, finding: Finding | None, width: int, height: int) -> Cutout:
    """Cut the subject out and stretch it to `width`×`height`; `finding` is one of `find_subjects`.

    Where nothing was found (None) a soft oval in the middle is taken.
    """
    rows, columns = image.shape[:2]
    seen = finding.likelihood if finding is not None else _oval(rows, columns)
    small_rows, small_columns = seen.shape
    inside = seen > 0.5
    filled_rows, filled_columns = np.nonzero(inside.any(axis=1))[0], np.nonzero(inside.any(axis=0))[0]
    top, bottom = filled_rows[0] / small_rows, (filled_rows[-1] + 1) / small_rows
    left, right = filled_columns[0] / small_columns, (filled_columns[-1] + 1) / small_columns
    edge = 1.5 / small_rows
    is_cut_below = bool(bottom > 1 - edge)
    is_cut_aside = bool(left < edge or right > 1 - 1.5 / small_columns)
    top, left = max(0.0, top - _MARGIN), max(0.0, left - _MARGIN)
    bottom, right = min(1.0, bottom + _MARGIN), min(1.0, right + _MARGIN)
    box = (left * columns, top * rows, right * columns, bottom * rows)
    colour = np.asarray(
        Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box), dtype=np.float32
    ) / np.float32(255)
    small_box = (left * small_columns, top * small_rows, right * small_columns, bottom * small_rows)
    rough = np.asarray(
        Image.fromarray(seen).resize((width, height), Image.Resampling.BICUBIC, box=small_box), dtype=np.float32
    )
    matte = _refine(colour, rough) if finding is not None else np.clip(rough, 0, 1)
    return Cutout(
        colour=colour * matte[..., None],
        matte=matte,
        aspect=float((box[2] - box[0]) / (box[3] - box[1])),
        is_cut_below=is_cut_below,
        is_cut_aside=is_cut_aside,
        cleanness=finding.cleanness * _tidiness(matte[::4, ::4] > 0.5) if finding is not None else 0.0,
        detail=float(min(1.0, (box[3] - box[1]) / height)),
    )


def _tidiness(inside: Flags) -> float:
    """0–1: how much a cut-out looks like one whole person.

    A person fills about half of the box around them and is met once per row; with bits of scenery stuck to them
    they do neither, and a head that lost its hair is flat on top. Thresholds from cut-outs of drawn characters,
    looked at one by one.
    """
    rows = inside[inside.any(axis=1)]
    if not rows.size:
        return 0.0
    fill = float(rows[:, inside.any(axis=0)].mean())
    runs = float((np.diff(np.pad(rows, ((0, 0), (1, 0))).astype(np.int8), axis=1) == 1).sum(axis=1).mean())
    widths = rows.sum(axis=1)
    crown = float(widths[: max(1, len(rows) // 16)].max() / max(1, widths[: max(2, len(rows) // 4)].max()))
    tidy = 0.6 * min(1.0, max(0.0, (fill - 0.25) / 0.3)) + 0.4 * min(1.0, max(0.0, 2 - runs))
    return tidy * (1 - 0.7 * min(1.0, max(0.0, (crown - 0.66) / 0.16)))


def _refine(colour: Floats, rough: Floats) -> Floats:
    """Draw a rough outline to the edges in the picture: a guided filter on the luma, then a steeper slope."""
    luma: Floats = np.einsum("yxc,c->yx", colour, np.asarray([0.3, 0.59, 0.11], np.float32))
    radius = max(3, colour.shape[0] // 90)
    mean_luma, mean_rough = blur(luma, radius), blur(rough, radius)
    covariance = blur(luma * rough, radius) - mean_luma * mean_rough
    slope = covariance / (blur(luma * luma, radius) - mean_luma**2 + np.float32(4e-4))
    offset = mean_rough - slope * mean_luma
    guided = blur(slope, radius) * luma + blur(offset, radius)
    matte: Floats = np.clip((guided - 0.36) / 0.28, 0, 1).astype(np.float32)
    return matte


def _oval(rows: int, columns: int) -> Floats:
    """The soft oval that stands for a subject nobody can see; 0–1 at the look's size."""
    scale = _OVAL_SIDE / max(rows, columns)
    high, wide = max(8, round(rows * scale)), max(8, round(columns * scale))
    y, x = np.mgrid[0:high, 0:wide]
    radius = np.hypot((x / (wide - 1) - 0.5) / 0.36, (y / (high - 1) - 0.52) / 0.46)
    oval: Floats = np.clip((1.15 - radius) / 0.3, 0, 1).astype(np.float32)
    return oval


def blur(plane: Floats, radius: int) -> Floats:
    """Box filter of side 2·radius+1, edges repeated."""
    for axis in (0, 1):
        first, last = (plane[:1], plane[-1:]) if axis == 0 else (plane[:, :1], plane[:, -1:])
        edged = [first.repeat(radius + 1, axis=axis), plane, last.repeat(radius, axis=axis)]
        total = np.cumsum(np.concatenate(edged, axis=axis), axis=axis, dtype=np.float64)
        side = 2 * radius + 1
        sums = total[side:] - total[:-side] if axis == 0 else total[:, side:] - total[:, :-side]
        plane = (sums / side).astype(np.float32)
    return plane
