"""Looking at pictures: finding the subject in one, cutting it out, and resizing.

The subject is what differs from the colours at the picture's edge, lies near its middle and, when several
pictures are given, what they have in common. Where nothing stands out, a soft oval in the middle is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Histogram = NDArray[np.float64]

_LOOK_SIDE = 144  # px; the subject is found at this size, its edge refined at the size it is cut at
_BINS = (10, 14, 14)  # Lab histogram
_SMALLEST_SHARE, _LARGEST_SHARE = 0.02, 0.80  # of the picture; outside them the finding is not believed
_MARGIN = 0.02
_ROUNDS = 6


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

    Raises what Pillow raises for a file it cannot read; the caller knows which of its own errors that is.
    """
    with Image.open(source) as opened:
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
    """Cut the subject out and stretch it to `width`×`height`; `finding` is one of `find_subjects`."""
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
        cleanness=finding.cleanness if finding is not None else 0.0,
        detail=float(min(1.0, (box[3] - box[1]) / height)),
    )


def find_subjects(images: Sequence[Bytes]) -> list[Finding | None]:
    """Where each picture's subject is, or None where nothing stands out.

    Pictures given together are taken to show the same subject: what they share counts for it, what only one
    of them has counts for the background. One picture alone works too.
    """
    looks = [_Look.at(image) for image in images]
    for _ in range(_ROUNDS):
        shared, others = None, None
        if len(looks) > 1:
            # The power mean asks for a colour in many pictures, not for much of it in one.
            roots = [np.sqrt(look.histogram(look.likelihood)) for look in looks]
            shared = (sum(roots, np.zeros(_BINS)) / len(looks)) ** 2
            shared /= shared.sum()
            others = sum((look.histogram(1 - look.likelihood) for look in looks), np.zeros(_BINS)) / len(looks)
        for look in looks:
            look.judge_again(shared, others)
    return [look.settle() for look in looks]


class _Look:
    """One picture while its subject is being found."""

    def __init__(self, lab: Floats, likelihood: Floats) -> None:
        self.lab = lab
        self.likelihood = likelihood
        scaled = (lab - np.float32([0, -90, -90])) / np.float32([100, 180, 180]) * np.float32(_BINS)
        index = np.clip(scaled, 0, np.float32(_BINS) - 1).astype(np.int64)
        self.bin = np.ravel_multi_index((index[..., 0], index[..., 1], index[..., 2]), _BINS)
        self.place = np.log(_centre(*likelihood.shape) + 1e-3)
        self.kinship = np.ones_like(likelihood)

    @classmethod
    def at(cls, image: Bytes) -> _Look:
        scale = _LOOK_SIDE / max(image.shape[:2])
        size = max(8, round(image.shape[1] * scale)), max(8, round(image.shape[0] * scale))
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        lab = rgb_to_lab(small.astype(np.float32) / np.float32(255))
        distance = _distance_to_border(lab)
        level = max(14.0, float(np.percentile(distance, 60)))
        odds = (distance - level) / np.float32(6) + 2.0 * (_centre(*lab.shape[:2]) - 0.45) / 0.45
        return cls(lab, _sigmoid(blur(odds.astype(np.float32), 1)))

    def histogram(self, weights: Floats) -> NDArray[np.float64]:
        counts = np.bincount(self.bin.ravel(), weights.ravel().astype(np.float64), minlength=int(np.prod(_BINS)))
        smooth = counts.reshape(_BINS)
        for axis in range(3):
            smooth = 0.6 * smooth + 0.2 * (_shift(smooth, 1, axis) + _shift(smooth, -1, axis))
        return smooth / max(smooth.sum(), 1e-9)

    def judge_again(self, shared: Histogram | None, others: Histogram | None) -> None:
        """One round: learn the two colour models from the present guess, then guess anew with them."""
        subject = self.histogram(self.likelihood)
        ground = self.histogram(1 - self.likelihood)
        doubt = 3e-4
        if shared is not None and others is not None:
            subject = 0.1 * subject + 0.9 * shared
            ground = 0.7 * ground + 0.3 * others
            doubt = 5e-5  # a colour that neither model knows is rather not the subject's
        colour = np.log((subject + doubt) / (ground + 3e-4)).ravel()[self.bin]
        self.kinship = np.clip(colour, 0, 3)
        shape = np.log(blur(self.likelihood, 6) + 0.02) - np.log(1.02 - blur(self.likelihood, 6))
        odds = np.clip(colour, -3, 3) + 0.4 * shape + 0.5 * (self.place + 1.2)
        self.likelihood = _sigmoid(1.4 * blur(odds.astype(np.float32), 1))

    def settle(self) -> Finding | None:
        inside = _main_parts(self.likelihood > 0.5, np.exp(self.place) * (self.kinship + 0.02))
        share = float(inside.mean())
        if not _SMALLEST_SHARE < share < _LARGEST_SHARE:
            return None
        likelihood = np.where(inside, np.maximum(self.likelihood, 0.55), np.minimum(self.likelihood, 0.2))
        cleanness = float((blur(self.kinship.astype(np.float32), 1)[inside] > 0.6).mean())
        return Finding(likelihood.astype(np.float32), cleanness)


def rgb_to_lab(rgb: Floats) -> Floats:
    """CIE L*a*b* (D65) of sRGB values 0–1; shape kept."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack(
        [116 * root[..., 1] - 16, 500 * (root[..., 0] - root[..., 1]), 200 * (root[..., 1] - root[..., 2])], axis=-1
    )
    return lab.astype(np.float32)


def _distance_to_border(lab: Floats) -> Floats:
    """Lab distance of each pixel to the nearest of eight colours found at the top, left and right edges."""
    rows, columns = lab.shape[:2]
    ring = max(2, round(0.05 * min(rows, columns)))
    sides = lab[: int(rows * 0.85)]
    border = np.concatenate(
        [lab[:ring].reshape(-1, 3), sides[:, :ring].reshape(-1, 3), sides[:, -ring:].reshape(-1, 3)]
    ) * np.float32([0.7, 1, 1])
    centres = border[:: max(1, len(border) // 8)][:8].copy()
    for _ in range(5):
        nearest = np.argmin(((border[:, None] - centres[None]) ** 2).sum(-1), axis=1)
        for k in range(len(centres)):
            if (nearest == k).any():
                centres[k] = border[nearest == k].mean(axis=0)
    weighted = lab * np.float32([0.7, 1, 1])
    distance: Floats = np.sqrt(((weighted[:, :, None] - centres) ** 2).sum(-1)).min(axis=-1)
    return distance


def _main_parts(inside: Flags, worth: Floats) -> Flags:
    """The connected part of the most worth, and lesser parts above or below it; small holes filled."""
    labels, count = _label(inside)
    if count == 0:
        return inside
    weight = np.bincount(labels.ravel(), worth.ravel(), minlength=count + 1)
    weight[0] = 0
    main = int(weight.argmax())
    columns = np.nonzero((labels == main).any(axis=0))[0]
    kept = labels == main
    for part in range(1, count + 1):
        if part != main and weight[part] > 0.06 * weight[main]:
            middle = np.nonzero(labels == part)[1].mean()
            if columns[0] <= middle <= columns[-1]:
                kept |= labels == part
    holes, hole_count = _label(~kept)
    sizes = np.bincount(holes.ravel(), minlength=hole_count + 1)
    outside = set(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]).tolist())
    for hole in range(1, hole_count + 1):
        if hole not in outside and sizes[hole] < 0.06 * kept.sum():
            kept |= holes == hole
    return kept


def _label(flags: Flags) -> tuple[NDArray[np.int64], int]:
    """Connected parts (4-neighbours) numbered from 1; 0 is where `flags` is false. Joins runs row by row."""
    labels = np.zeros(flags.shape, dtype=np.int64)
    parent = [0]

    def root(k: int) -> int:
        while parent[k] != k:
            k = parent[k]
        return k

    padded = np.pad(flags.astype(np.int8), ((0, 0), (1, 1)))
    changes = np.diff(padded, axis=1)
    for row in range(flags.shape[0]):
        starts, ends = np.nonzero(changes[row] == 1)[0], np.nonzero(changes[row] == -1)[0]
        for start, end in zip(starts, ends, strict=True):
            above = {root(int(k)) for k in np.unique(labels[row - 1, start:end]) if k} if row else set()
            if not above:
                parent.append(len(parent))
                mine = len(parent) - 1
            else:
                mine = min(above)
                for other in above:
                    parent[other] = mine
            labels[row, start:end] = mine
    flat, number = np.unique([root(k) for k in range(len(parent))], return_inverse=True)
    return number[labels], len(flat) - 1


def _refine(colour: Floats, rough: Floats) -> Floats:
    """Draw a rough outline to the edges in the picture: a guided filter on the luma, then a steeper slope."""
    luma = colour @ np.float32([0.3, 0.59, 0.11])
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
    scale = _LOOK_SIDE / max(rows, columns)
    high, wide = max(8, round(rows * scale)), max(8, round(columns * scale))
    y, x = np.mgrid[0:high, 0:wide]
    radius = np.hypot((x / (wide - 1) - 0.5) / 0.36, (y / (high - 1) - 0.52) / 0.46)
    oval: Floats = np.clip((1.15 - radius) / 0.3, 0, 1).astype(np.float32)
    return oval


def _centre(rows: int, columns: int) -> Floats:
    y, x = np.mgrid[0:rows, 0:columns]
    across = (x / max(1, columns - 1) - 0.5) / (0.26 if columns >= rows else 0.34)
    down = (y / max(1, rows - 1) - 0.55) / 0.45
    centre: Floats = np.exp(-0.5 * (across**2 + down**2)).astype(np.float32)
    return centre


def blur(plane: Floats, radius: int) -> Floats:
    """Box filter of side 2·radius+1, edges repeated."""
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(plane, pad, mode="edge"), axis=axis, dtype=np.float64)
        side = 2 * radius + 1
        upper = np.take(total, range(side, total.shape[axis]), axis=axis)
        lower = np.take(total, range(total.shape[axis] - side), axis=axis)
        plane = ((upper - lower) / side).astype(np.float32)
    return plane


def _shift(values: NDArray[np.float64], by: int, axis: int) -> NDArray[np.float64]:
    moved = np.roll(values, by, axis)
    edge = [slice(None)] * values.ndim
    edge[axis] = slice(0, 1) if by > 0 else slice(-1, None)
    moved[tuple(edge)] = 0
    return moved


def _sigmoid(odds: Floats) -> Floats:
    value: Floats = (1 / (1 + np.exp(-np.clip(odds, -30, 30)))).astype(np.float32)
    return value
