"""What was laid around or over a picture after it was shot: black bars, subtitles, a station's logo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from domain.looks import Bars
from domain.pictures import Box

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]
Marks = NDArray[np.bool_]

BLACK_LUMA = 32
"""Of 255: video black is 0 once converted, 16 in a mislabelled clip."""

_BLACK_SPREAD = 6
"""Grey levels that compression spills into a bar. Small, so that a dark picture between bars is told from them."""

_BLACK_SHARE = 0.55
"""Of a line that belongs to a bar. Less than all, because subtitles often stand in the bar."""

_SMALLEST_BAR = 3
_LARGEST_BAR_SHARE = 0.4
_EDGE_RISE = 0.4
"""How much of a line's blackness must end within four lines: a night sky ends raggedly, a dark ceiling slowly."""

_BAR_DRIFT = 2.0
"""Grey levels by which a bar may differ between its outer and its inner edge."""

_CELL = 8
_STROKE_STEP = 60
_STROKE_LUMA = 140
_CELL_SHARE = (0.10, 0.75)
_BOTTOM_FROM = 0.7
_CORNER_ROWS, _CORNER_COLUMNS = 0.2, 0.34

_LETTER_SPREAD = 30.0
"""Grey levels between the quartiles of the strokes: letters are thinner than a pixel here and there, a row of lit
windows or fence posts is not (measured on the development half of the quality test set: 39–86 against mostly 0–15)."""

_STILLER = 1.3
"""How many times less a logo changes, for its contrast, than what is around it."""


def find_bars(grey: Grey) -> Bars:
    """Black bars at the edges, in pixels of this picture; 0 where no straight edge ends them, as under a night sky.

    One line more than is black is counted: compression softens the edge. Whether they are bars indeed only the whole
    clip tells (`domain.frame_rules.common_bars`).
    """
    height = grey.shape[0]
    top, bottom = _bar(grey), _bar(grey[::-1])
    columns = np.ascontiguousarray(grey[top : height - bottom].T)
    return Bars(left=_bar(columns), top=top, right=_bar(columns[::-1]), bottom=bottom)


def text_share_of(grey: Grey, burst: Sequence[Grey], bars: Bars) -> float:
    """Share of the picture's area under burnt-in text, 0…1: a centred line near the bottom, or a mark in a corner.

    Thin bright strokes with darkness on both sides, packed in lines. A mark in a corner counts only where the burst
    shows it standing still before a picture that moves; a subtitle by its place alone. Light lettering only; titles in
    the middle of the picture are not looked for. Words in a bar do not count: the bar is cut off.
    """
    height, width = grey.shape
    inner = grey[bars.top : height - bars.bottom, bars.left : width - bars.right]
    rows, columns = inner.shape[0] // _CELL, inner.shape[1] // _CELL
    if rows < 8 or columns < 12:
        return 0.0
    corner_rows, corner = max(2, round(rows * _CORNER_ROWS)), max(4, round(columns * _CORNER_COLUMNS))
    bottom = round(rows * _BOTTOM_FROM)
    zones = (
        Box(left=0, top=bottom, right=columns, bottom=rows),
        Box(left=0, top=0, right=corner, bottom=corner_rows),
        Box(left=columns - corner, top=0, right=columns, bottom=corner_rows),
    )
    found = 0
    for zone in zones:
        part = inner[zone.top * _CELL : zone.bottom * _CELL, zone.left * _CELL : zone.right * _CELL]
        strokes = _strokes(part)
        for group in _groups(_cells(strokes)):
            if not _reads_as_letters(part, strokes, group):
                continue
            box = Box(
                left=zone.left + group.left,
                top=zone.top + group.top,
                right=zone.left + group.right,
                bottom=zone.top + group.bottom,
            )
            if _is_subtitle(box, columns, bottom) or (
                _is_in_corner(box, rows, columns) and _stands_still(box, burst, grey.shape, bars)
            ):
                found += box.area
    return float(found / (rows * columns))


def _bar(lines: Grey) -> int:
    """How many lines from the first one are a bar, the softened one after them included."""
    level = float(np.median(lines[:2]))
    if level > BLACK_LUMA:
        return 0
    longest = int(_LARGEST_BAR_SHARE * lines.shape[0])
    black_share = (lines[: longest + 4] <= level + _BLACK_SPREAD).mean(axis=1)
    is_black = black_share >= _BLACK_SHARE
    count = len(is_black) if is_black.all() else int(np.argmin(is_black))
    if not _SMALLEST_BAR <= count <= longest:
        return 0
    inside, beyond = float(black_share[count - 3 : count - 1].mean()), float(black_share[count + 1 : count + 4].max())
    is_flat = abs(float(np.median(lines[max(0, count - 4) : count - 1])) - level) <= _BAR_DRIFT
    return count + 1 if is_flat and inside - beyond >= _EDGE_RISE else 0


def _strokes(part: Grey) -> Marks:
    """Where a bright line at most six pixels wide runs, darker by a step on both sides within four pixels."""
    padded = np.pad(part, 4, mode="edge")
    across = _darkness_around(padded[4:-4])
    down = _darkness_around(np.ascontiguousarray(padded[:, 4:-4].T)).T
    strokes: Marks = (part >= _STROKE_LUMA) & (np.minimum(across, down) <= part - np.minimum(part, _STROKE_STEP))
    return strokes


def _darkness_around(padded: Grey) -> Grey:
    """The brighter of the darkest pixel two to four to the left and the darkest two to four to the right."""
    left = np.minimum(np.minimum(padded[:, 2:-6], padded[:, 1:-7]), padded[:, :-8])
    right = np.minimum(np.minimum(padded[:, 6:-2], padded[:, 7:-1]), padded[:, 8:])
    brighter: Grey = np.maximum(left, right)
    return brighter


def _cells(strokes: Marks) -> Marks:
    rows, columns = strokes.shape[0] // _CELL, strokes.shape[1] // _CELL
    counts = strokes[: rows * _CELL, : columns * _CELL].reshape(rows, _CELL, columns, _CELL).sum(axis=(1, 3))
    low, high = _CELL_SHARE
    cells: Marks = (counts >= low * _CELL**2) & (counts <= high * _CELL**2)
    return cells


def _groups(cells: Marks) -> Iterator[Box]:
    """Boxes of cells that touch (a gap of one between words allowed), thin rows at their top and bottom taken off."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(cells), strict=True)}
    while left:
        group = [left.pop()]
        for row, column in group:
            near = {(row + down, column + across) for down in (-1, 0, 1) for across in (-2, -1, 0, 1, 2)} & left
            left -= near
            group.extend(near)
        counts = np.bincount([row for row, _ in group])
        full = np.nonzero(counts >= 0.35 * counts.max())[0]
        kept = [column for row, column in group if full[0] <= row <= full[-1]]
        box = Box(left=min(kept), top=int(full[0]), right=max(kept) + 1, bottom=int(full[-1]) + 1)
        if len(kept) >= 8 and len(kept) >= 0.4 * box.area and box.width >= 2.5 * box.height:
            yield box


def _reads_as_letters(part: Grey, strokes: Marks, box: Box) -> bool:
    place = (slice(box.top * _CELL, box.bottom * _CELL), slice(box.left * _CELL, box.right * _CELL))
    levels = part[place][strokes[place]]
    low, high = np.percentile(levels, (25, 75))
    return bool(high - low >= _LETTER_SPREAD)


def _is_subtitle(box: Box, columns: int, bottom: int) -> bool:
    is_centred = abs(box.left + box.right - columns) <= 0.1 * columns
    return box.top >= bottom and is_centred and box.height <= 5 and 0.15 * columns <= box.width <= 0.9 * columns


def _is_in_corner(box: Box, rows: int, columns: int) -> bool:
    middle = (box.left + box.right) / 2
    is_aside = middle <= _CORNER_COLUMNS * columns or middle >= (1 - _CORNER_COLUMNS) * columns
    return is_aside and box.height <= 4 and (box.bottom <= 0.3 * rows or box.top >= 0.7 * rows)


def _stands_still(box: Box, burst: Sequence[Grey], shape: tuple[int, ...], bars: Bars) -> bool:
    """Whether this part of the picture changes less, for the contrast it has, than the part around it."""
    if len(burst) < 2:
        return False
    frames = np.stack(burst).astype(np.float32)
    down, across = frames.shape[1] / shape[0], frames.shape[2] / shape[1]
    top, bottom = ((bars.top + _CELL * row) * down for row in (box.top, box.bottom))
    left, right = ((bars.left + _CELL * column) * across for column in (box.left, box.right))
    inside = (slice(int(top), int(np.ceil(bottom))), slice(int(left), int(np.ceil(right))))
    around = (
        slice(max(0, int(top) - 4), int(np.ceil(bottom)) + 4),
        slice(max(0, int(left) - 4), int(np.ceil(right)) + 4),
    )
    steps = np.abs(np.diff(frames[:, around[0], around[1]], axis=0)).mean(axis=0)
    first = frames[0]
    contrast = np.zeros_like(first)
    contrast[:, 1:-1] += np.abs(first[:, 2:] - first[:, :-2]) / 2
    contrast[1:-1] += np.abs(first[2:] - first[:-2]) / 2
    outer_contrast, outer_change = float(contrast[around].sum()), float(steps.sum())
    inner_contrast = float(contrast[inside].sum())
    own = np.abs(np.diff(frames[:, inside[0], inside[1]], axis=0)).mean(axis=0)
    inner_change, ring = float(own.sum()), steps.size - own.size
    ring_change, ring_contrast = outer_change - inner_change, outer_contrast - inner_contrast
    if ring <= 0 or ring_change / ring < 0.8:
        return False
    inner_rate, ring_rate = inner_change / (inner_contrast + 1), ring_change / (ring_contrast + 1)
    return ring_rate >= _STILLER * (inner_rate + 0.01)
