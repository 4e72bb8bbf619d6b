"""Finding every figure of a picture by colour: windows slide over it, and what many of them find is somebody.

Each window is searched as a picture of its own (providers/subject.py: what its middle holds and its border does not).
Equal finds are put together; a find's shape, colours and the number of windows that agree say whether it is a figure
or a thing of the place. The weights were fitted by logistic regression on drawn people (benchmarks/crossing.py,
development designs) and are frozen; on designs drawn afterwards they are measured by `python -m benchmarks.crossing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from providers.subject import Floats, Mask, blurred, colour_codes, components, find_subject

WORKING_WIDTH = 192
"""Longest side in pixels at which figures are sought: the scorer's own (providers/vision.py)."""

WINDOW_SHARES = (0.25, 0.35, 0.5, 0.7, 1.0)
WINDOW_STEP = 0.25
"""Windows of these shares of the width, each moved by a quarter of its own."""

SAME_FIND = 0.6
"""Overlap (intersection over union) from which two windows found the same thing."""

FIGURE_FROM = 0.0
"""Log-odds from which a find is a figure."""

HIDES_SHARE = 0.25
"""A find with more of it than this inside a likelier figure is a part of that one, or both together."""

SMALLEST_SHARE = 0.01
"""Of the picture's area; as in providers/vision.py."""

_WEIGHTS = {
    "votes": 1.25,
    "height": 0.46,
    "bottom": 15.2,
    "slender": -3.37,
    "slender2": -2.15,
    "filled": -6.69,
    "blends_in": -10.85,
    "colours": 1.62,
    "head": -2.37,
    "area": 1.18,
}
_CONSTANT = -8.95


@dataclass(frozen=True, slots=True)
class Figure:
    """Somebody: the pixels at working size, and the log-odds that this is a figure at all."""

    mask: Mask
    odds: float

    @property
    def extent(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the mask in working pixels, the last two just outside."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True, slots=True)
class Find:
    """What some windows found in the same place, with its measures (see `measures_of`)."""

    mask: Mask
    measures: dict[str, float]


def find_figures(lab: Floats) -> list[Figure]:
    """Every figure of a picture given as CIE Lab at working size, the likeliest first. Deterministic.

    Figures do not overlap much: of two finds in the same place the likelier one stays. About 0.15 s.
    """
    judged = sorted(
        ((odds_of(find.measures), index, find) for index, find in enumerate(propose_figures(lab))),
        key=lambda item: (-item[0], item[1]),
    )
    figures: list[Figure] = []
    for odds, _, find in judged:
        if odds < FIGURE_FROM:
            break
        size = int(find.mask.sum())
        if all(
            int((find.mask & other.mask).sum()) <= HIDES_SHARE * min(size, int(other.mask.sum())) for other in figures
        ):
            figures.append(Figure(find.mask, odds))
    return figures


def odds_of(measures: dict[str, float]) -> float:
    """Log-odds that a find with these measures is a figure."""
    return _CONSTANT + sum(weight * measures[name] for name, weight in _WEIGHTS.items())


def propose_figures(lab: Floats) -> list[Find]:
    """Everything that stands out in some window, figure or not, each thing once."""
    height, width, _ = lab.shape
    masks: list[Mask] = []
    for left, right in _windows(width):
        found = find_subject(lab[:, left:right])
        if found is not None and found.sum() >= SMALLEST_SHARE * height * width:
            whole = np.zeros((height, width), np.bool_)
            whole[:, left:right] = found
            masks.append(whole)
    if not masks:
        return []
    codes = colour_codes(lab)
    finds = []
    for members in _same_finds(masks):
        mask = _largest_part(np.mean([masks[index] for index in members], axis=0) > 0.5)
        if mask is not None:
            finds.append(Find(mask, measures_of(mask, codes, len(members))))
    return finds


def measures_of(mask: Mask, codes: NDArray[np.int64], votes: int) -> dict[str, float]:
    """What tells a figure from a thing: how many windows agree (log), where and how large it is (shares of the
    picture), how slender, how ragged, how unlike its surroundings, how many colours it has, how narrow at the top."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    tall, broad = bottom - top, int(columns[-1]) + 1 - int(columns[0])
    around = (blurred(mask.astype(np.float32), max(4, mask.shape[1] // 16)) > 0) & ~mask
    inside = np.bincount(codes[mask], minlength=4800) / mask.sum()
    outside = np.bincount(codes[around], minlength=4800) / max(1, int(around.sum()))
    some = inside[inside > 0]
    slender = float(np.log(broad / tall))
    return {
        "votes": float(np.log(votes)),
        "height": tall / mask.shape[0],
        "bottom": bottom / mask.shape[0],
        "slender": slender,
        "slender2": slender**2,
        "filled": float(mask.sum()) / (tall * broad),
        "blends_in": float(np.sqrt(inside * outside).sum()),
        "colours": float(-(some * np.log(some)).sum()),
        "head": float(np.median(mask[top : top + max(1, tall // 5)].sum(axis=1))) / broad,
        "area": float(np.log(mask.mean())),
    }


def _windows(width: int) -> Iterator[tuple[int, int]]:
    for share in WINDOW_SHARES:
        across = round(share * width)
        count = 1 if share == 1 else int(np.ceil((1 - share) / (share * WINDOW_STEP))) + 1
        for left in np.linspace(0, width - across, count).astype(int).tolist():
            yield left, left + across


def _same_finds(masks: list[Mask]) -> list[list[int]]:
    """Groups of masks that are the same thing: the one that most others agree with first, with those."""
    flat = np.array([mask.ravel() for mask in masks], np.float32)
    common = flat @ flat.T
    sizes = flat.sum(axis=1)
    is_same = common / (sizes[:, None] + sizes - common) > SAME_FIND
    left = list(range(len(masks)))
    groups = []
    while left:
        part = is_same[np.ix_(left, left)]
        middle = int(part.sum(axis=1).argmax())
        group = [left[place] for place in np.flatnonzero(part[middle])]
        groups.append(group)
        left = [index for index in left if index not in group]
    return groups


def _largest_part(mask: Mask) -> Mask | None:
    parts = components(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == int(sizes.argmax())) if sizes.max() else None
