"""Finding every figure of a picture by colour: windows slide over it, and what many of them find is somebody.

Each window is searched as a picture of its own (providers/subject.py: what its middle holds and its border does not).
Equal finds are put together; a find's shape, colours and the number of windows that agree say whether it is a figure
or a thing of the place. The weights were fitted by logistic regression on drawn people (benchmarks/crossing.py,
development designs) and are frozen; on designs drawn afterwards they are measured by `python -m benchmarks.crossing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from providers.subject import Floats, Mask, colour_codes, components, find_subject

WORKING_WIDTH = 192
"""Longest side in pixels at which figures are sought: the scorer's own (providers/vision.py)."""

WINDOW_SHARES = (0.25, 0.35, 0.5, 0.7, 1.0)
WINDOW_STEP = 0.25
"""Windows of these shares of the width, each moved by a quarter of its own."""

SAME_FIND = 0.6
"""Overlap (intersection over union) from which two windows found the same thing."""

FIGURE_FROM = -2.2
"""Log-odds from which a find may be a figure."""

HIDES_SHARE = 0.25
"""A find with more of it than this inside a likelier figure is a part of that one, or both together."""

PART_INSIDE, PARTS_APART, PARTS_COVER = 0.75, 0.15, 0.55
"""Two finds are parts of a third: so much of each inside it, at most so much in common, so much of it theirs."""

UNLIKE_COLOURS = 0.5
"""Likeness of colours under which two parts are two people; the left and the right half of one have more."""

BEHIND_SHARE, BEHIND_FROM = 0.35, -1.2
"""What is left of a find behind a likelier figure is somebody when it is so much of the find, with such log-odds."""

SMALLEST_SHARE = 0.01
"""Of the picture's area; as in providers/vision.py."""

_WEIGHTS = {
    "votes": 0.92,
    "height": 0.33,
    "bottom": 10.03,
    "slender": -4.09,
    "slender2": -2.25,
    "filled": -2.44,
    "colours": 1.36,
    "head": -2.22,
    "elsewhere": -9.87,
}
_CONSTANT = -10.94
"""Fitted to finds that overlap a person by 0.62 and more, against those that do by less than 0.5."""


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
    """Every figure of a picture given as CIE Lab at working size, the likeliest first. About 0.1 s.

    Of two finds in the same place the likelier one stays; of one that is two others side by side, those; and what is
    left of one behind a likelier one stays too where it is a figure by itself.
    """
    codes = colour_codes(lab)
    judged = [(odds_of(find.measures), find) for find in propose_figures(lab)]
    likely = sorted((item for item in judged if item[0] >= FIGURE_FROM), key=lambda item: -item[0])
    figures: list[Figure] = []
    for odds, find in likely:
        if _is_two(find.mask, [other.mask for _, other in likely if other is not find], codes):
            continue
        hidden = _hidden(find.mask, figures)
        if not hidden.any():
            figures.append(Figure(find.mask, odds))
        elif (behind := _behind(find, figures, codes)) is not None:
            figures.append(behind)
    return figures


def _hidden(mask: Mask, figures: list[Figure]) -> Mask:
    """What of a find is the same pixels as a figure's, where that is more than a touch."""
    hidden = np.zeros_like(mask)
    for figure in figures:
        common = mask & figure.mask
        if common.sum() > HIDES_SHARE * min(mask.sum(), figure.mask.sum()):
            hidden |= common
    return hidden


def _is_two(mask: Mask, others: list[Mask], codes: NDArray[np.int64]) -> bool:
    """Whether two finds of unlike colours stand side by side in this one and make up most of it."""
    size = mask.sum()
    inside = [
        other for other in others if other.sum() < 0.9 * size and (other & mask).sum() >= PART_INSIDE * other.sum()
    ]
    for one, other in combinations(inside, 2):
        sizes = one.sum(), other.sum()
        if (one & other).sum() > PARTS_APART * min(sizes) or (one | other).sum() < PARTS_COVER * size:
            continue
        if _likeness_of_colours(one, other, codes) < UNLIKE_COLOURS:
            return True
    return False


def _behind(find: Find, figures: list[Figure], codes: NDArray[np.int64]) -> Figure | None:
    """The part of a find that likelier figures do not hold, when it is large, of other colours and a figure itself."""
    rest = find.mask.copy()
    for figure in figures:
        rest &= ~figure.mask
    part = _largest_part(rest)
    if part is None or part.sum() < max(BEHIND_SHARE * find.mask.sum(), SMALLEST_SHARE * part.size):
        return None
    if any(_likeness_of_colours(part, figure.mask, codes) >= UNLIKE_COLOURS for figure in figures):
        return None
    odds = odds_of(measures_of(part, codes, 1))
    return Figure(part, odds) if odds >= BEHIND_FROM else None


def _likeness_of_colours(one: Mask, other: Mask, codes: NDArray[np.int64]) -> float:
    """Bhattacharyya coefficient of two parts' colours: 0 none in common, 1 the same."""
    first, second = (np.bincount(codes[mask], minlength=4800) / mask.sum() for mask in (one, other))
    return float(np.sqrt(first * second).sum())


def odds_of(measures: dict[str, float]) -> float:
    """Log-odds that a find with these measures is a figure."""
    return _CONSTANT + sum(weight * measures[name] for name, weight in _WEIGHTS.items())


def propose_figures(lab: Floats) -> list[Find]:
    """Everything that stands out in some window, figure or not, each thing once."""
    height, width, _ = lab.shape
    masks: list[Mask] = []
    codes = colour_codes(lab)
    for left, right in _windows(width):
        found = find_subject(lab[:, left:right], codes[:, left:right])
        if found is not None and found.sum() >= SMALLEST_SHARE * height * width:
            whole = np.zeros((height, width), np.bool_)
            whole[:, left:right] = found
            masks.append(whole)
    if not masks:
        return []
    finds = []
    for members in _same_finds(masks):
        mask = _largest_part(np.mean([masks[index] for index in members], axis=0) > 0.5)
        if mask is not None:
            finds.append(Find(mask, measures_of(mask, codes, len(members))))
    return finds


def measures_of(mask: Mask, codes: NDArray[np.int64], votes: int) -> dict[str, float]:
    """What tells a figure from a thing: how many windows agree (log), how tall it is and how low it stands (shares of
    the picture), how slender, how ragged, how many colours it has (entropy), how broad its top is, and which share of
    its colours the rest of the picture has too: a wall's or a row of seats' are everywhere, a person's coat is not."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    tall, broad = bottom - top, int(columns[-1]) + 1 - int(columns[0])
    inside = np.bincount(codes[mask], minlength=4800) / mask.sum()
    some = inside[inside > 0]
    everywhere = np.bincount(codes.ravel(), minlength=4800)
    elsewhere = 1 - inside * mask.sum() / np.maximum(1, everywhere)
    slender = float(np.log(broad / tall))
    return {
        "votes": float(np.log(votes)),
        "height": tall / mask.shape[0],
        "bottom": bottom / mask.shape[0],
        "slender": slender,
        "slender2": slender**2,
        "filled": float(mask.sum()) / (tall * broad),
        "colours": float(-(some * np.log(some)).sum()),
        "head": float(np.median(mask[top : top + max(1, tall // 5)].sum(axis=1))) / broad,
        "elsewhere": float((inside * elsewhere).sum()),
    }


def _windows(width: int) -> Iterator[tuple[int, int]]:
    for share in WINDOW_SHARES:
        across = round(share * width)
        count = 1 if share == 1 else int(np.ceil((1 - share) / (share * WINDOW_STEP))) + 1
        for left in np.linspace(0, width - across, count).astype(int).tolist():
            yield left, left + across


def _same_finds(masks: list[Mask]) -> list[list[int]]:
    """Groups of masks that are the same thing: the one that most others agree with first, with those."""
    bits = np.array([np.packbits(mask) for mask in masks])
    common = np.bitwise_count(bits[:, None] & bits).sum(axis=2, dtype=np.int64)
    sizes = common.diagonal()
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
