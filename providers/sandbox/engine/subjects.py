"""Finding the subject of pictures: where in each of them the person or thing is that it is about.

The subject is what differs from the colours at the picture's edges, is set off by an outline, lies near the middle
and, when several pictures are given, is what different places have in common. Nothing is learned beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from providers.sandbox.engine.picture import Bytes, Finding, Flags, Floats, blur

Histogram = NDArray[np.float64]

_LOOK_SIDE = 176  # px; the subject is found at this size, its edge refined at the size it is cut at
_BINS = (18, 30, 30)  # Lab histogram
_SMALLEST_SHARE, _LARGEST_SHARE = 0.02, 0.80  # of the picture; outside them the finding is not believed
_ROUNDS = 6
_APART_WEIGHT = 1.2
_FREE_SLOPE = 2.0  # Lab units per pixel of the look
_SAME_PLACE = 0.6  # Bhattacharyya coefficient of the colours at the sides


def find_subjects(images: Sequence[Bytes]) -> list[Finding | None]:
    """Where each picture's subject is, or None where nothing stands out.

    Pictures given together are taken to show the same subject: what they share counts for it, what only one
    of them has counts for the background. One picture alone works too.
    """
    looks = [_Look.at(image) for image in images]
    places = _group_by_place(looks)
    for _ in range(_ROUNDS):
        subjects = [look.histogram(_sharpened(look.likelihood)) for look in looks]
        grounds = [look.histogram(np.maximum(1 - _sharpened(look.likelihood), look.off_centre)) for look in looks]
        # The power mean asks for a colour in many places, not for much of it in one: several pictures of one place
        # share that place too, so each place speaks once.
        roots = [np.mean([subjects[k] for k in place], axis=0) ** 0.4 for place in places]
        shared: Histogram = np.mean(roots, axis=0) ** 2.5
        shared /= max(float(shared.sum()), 1e-9)
        for place in places:
            around = np.mean([grounds[k] for k in place], axis=0)
            for k in place:
                ground = 0.5 * grounds[k] + 0.5 * around
                looks[k].judge_again(subjects[k], ground, shared if len(places) > 1 else None)
    return [look.settle() for look in looks]


def _group_by_place(looks: Sequence[_Look]) -> list[list[int]]:
    """Pictures whose edges show the same colours, together: they were probably taken at the same place."""
    edges = [np.sqrt(look.histogram(look.edge)) for look in looks]
    places: list[list[int]] = []
    for k, edge in enumerate(edges):
        alike = [float(np.sum(edge * edges[place[0]])) for place in places]
        if alike and max(alike) > _SAME_PLACE:
            places[int(np.argmax(alike))].append(k)
        else:
            places.append([k])
    return places


class _Look:
    """One picture while its subject is being found."""

    def __init__(self, lab: Floats, likelihood: Floats) -> None:
        self.lab = lab
        self.likelihood = likelihood
        low, span = np.asarray([0, -90, -90], np.float32), np.asarray([100, 180, 180], np.float32)
        scaled = (lab - low) / span * np.asarray(_BINS, np.float32)
        index = np.clip(scaled, 0, np.asarray(_BINS) - 1).astype(np.int64)
        self.bin = np.ravel_multi_index((index[..., 0], index[..., 1], index[..., 2]), _BINS)
        self.place = np.log(_centre(*likelihood.shape) + 1e-3)
        self.apart = np.clip((_climb_from_border(lab) - 7) / 5, -1.4, 1.4)
        self.kinship = np.ones_like(likelihood)
        # Whatever lies far from the middle speaks for the background a little, however much it looks like a subject.
        self.off_centre = 0.6 * (1 - np.exp(self.place)).astype(np.float32)
        self.edge = np.zeros_like(likelihood)
        ring = max(2, likelihood.shape[1] // 8)
        self.edge[:, :ring], self.edge[:, -ring:] = 1, 1

    @classmethod
    def at(cls, image: Bytes) -> _Look:
        scale = _LOOK_SIDE / max(image.shape[:2])
        size = max(8, round(image.shape[1] * scale)), max(8, round(image.shape[0] * scale))
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        lab = rgb_to_lab(small.astype(np.float32) / np.float32(255))
        distance = _distance_to_border(lab)
        level = min(16.0, max(9.0, 1.2 * float(np.percentile(distance, 60))))
        odds = (distance - level) / np.float32(4) + 1.4 * (_centre(*lab.shape[:2]) - 0.5) / 0.5
        return cls(lab, _sigmoid(blur(odds.astype(np.float32), 1)))

    def histogram(self, weights: Floats) -> NDArray[np.float64]:
        counts = np.bincount(self.bin.ravel(), weights.ravel().astype(np.float64), minlength=int(np.prod(_BINS)))
        smooth: Histogram = counts.reshape(_BINS).astype(np.float64)
        for axis in range(3):
            smooth = 0.8 * smooth + 0.1 * (_shift(smooth, 1, axis) + _shift(smooth, -1, axis))
        smooth /= max(float(smooth.sum()), 1e-9)
        return smooth

    def judge_again(self, subject: Histogram, ground: Histogram, shared: Histogram | None) -> None:
        """One round: guess anew with the colour models that the last guess gave."""
        doubt = 3e-4
        if shared is not None:
            subject = 0.08 * subject + 0.92 * shared
            doubt = 5e-5  # a colour that neither model knows is rather not the subject's
        colour = np.log((subject + doubt) / (ground + 3e-4)).ravel()[self.bin]
        self.kinship = np.clip(colour, 0, 3)
        shape = np.log(blur(self.likelihood, 6) + 0.02) - np.log(1.02 - blur(self.likelihood, 6))
        self._recentre()
        # An outline speaks for a subject only near its axis, and only where other places say which colours to expect.
        for_it = np.exp(2 * self.place) if shared is not None else np.float32(0.15)
        apart = np.where(self.apart > 0, self.apart * for_it, self.apart)
        odds = np.clip(colour, -3, 3) + 0.4 * shape + 0.6 * (self.place + 1.2) + _APART_WEIGHT * apart
        self.likelihood = _sigmoid(1.4 * blur(odds.astype(np.float32), 1))

    def _recentre(self) -> None:
        """Let the prior for the place follow the subject: where its surest pixels stand, and as wide as they reach."""
        weights = (self.likelihood * self.kinship).sum(axis=0) + 1e-6
        reached = np.cumsum(weights) / weights.sum()
        low, middle, high = (float(np.searchsorted(reached, share)) for share in (0.2, 0.5, 0.8))
        width = len(weights)
        reach = max(0.06 * width, 0.95 * (high - low))
        across = (np.arange(width) - middle) / reach
        down = (np.linspace(0, 1, self.likelihood.shape[0]) - 0.55) / 0.45
        self.place = np.maximum(-0.5 * (across[None] ** 2 + down[:, None] ** 2), -6.5).astype(np.float32)

    def settle(self) -> Finding | None:
        inside = _main_parts(self.likelihood > 0.5, np.exp(self.place) * (self.kinship + 0.02))
        share = float(inside.mean())
        if not _SMALLEST_SHARE < share < _LARGEST_SHARE:
            return None
        likelihood = np.where(inside, np.maximum(self.likelihood, 0.55), np.minimum(self.likelihood, 0.2))
        return Finding(likelihood.astype(np.float32), float(self.kinship[inside].mean() / 3) ** 0.5)


def rgb_to_lab(rgb: Floats) -> Floats:
    """CIE L*a*b* (D65) of sRGB values 0–1; shape kept."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.einsum("...c,kc->...k", linear, matrix) / np.array([0.9505, 1.0, 1.089])
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack(
        [116 * root[..., 1] - 16, 500 * (root[..., 0] - root[..., 1]), 200 * (root[..., 1] - root[..., 2])], axis=-1
    )
    return lab.astype(np.float32)


def _distance_to_border(lab: Floats) -> Floats:
    """Lab distance of each pixel to the background as the top, left and right edges tell it.

    The least of three guesses: one of eight colours found there, the colours at both ends of the pixel's own row
    (skies, seas and floors lie in rows), and a smooth surface through the edges (backdrops with a falling light).
    """
    rows, columns = lab.shape[:2]
    weighted = lab * np.asarray([0.6, 1, 1], dtype=np.float32)
    ring = max(2, round(0.05 * min(rows, columns)))
    is_border = np.zeros((rows, columns), dtype=bool)
    is_border[:ring], is_border[: int(rows * 0.85), :ring], is_border[: int(rows * 0.85), -ring:] = True, True, True
    border = weighted[is_border]
    centres = border[:: max(1, len(border) // 8)][:8].copy()
    for _ in range(5):
        nearest = np.argmin(_squared_distances(border, centres), axis=0)
        for k in range(len(centres)):
            if (nearest == k).any():
                centres[k] = border[nearest == k].mean(axis=0)
    to_colours = _squared_distances(weighted, centres).min(axis=0)
    share = np.linspace(0, 1, columns, dtype=np.float32)[None, :, None]
    ends = weighted[:, :ring].mean(axis=1)[:, None] * (1 - share) + weighted[:, -ring:].mean(axis=1)[:, None] * share
    to_row = ((weighted - ends) ** 2).sum(-1)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    known = terms[is_border]
    # einsum rather than matmul: BLAS threads that wait for each other cost more here than the sums themselves.
    weights = np.linalg.solve(
        np.einsum("ni,nj->ij", known, known) + 1e-6 * np.eye(6), np.einsum("ni,nc->ic", known, border)
    )
    surface = np.einsum("yxi,ic->yxc", terms, weights)
    to_surface = ((weighted - np.clip(surface, border.min(axis=0), border.max(axis=0) + 6)) ** 2).sum(-1)
    distance: Floats = np.sqrt(np.minimum(np.minimum(to_colours, to_row), to_surface)).astype(np.float32)
    return distance


def _squared_distances(points: Floats, colours: Floats) -> Floats:
    """From every point (any leading shape × 3) to every colour: colour × that shape."""
    planes = [np.ascontiguousarray(points[..., channel]) for channel in range(3)]
    distances = np.empty((len(colours), *points.shape[:-1]), np.float32)
    for squared, colour in zip(distances, colours, strict=True):
        # Plane by plane, because sums over an axis of three are what numpy does slowest.
        first, second, third = (np.square(plane - value) for plane, value in zip(planes, colour, strict=True))
        np.add(np.add(first, second, out=first), third, out=squared)
    return distances


def _climb_from_border(lab: Floats) -> Floats:
    """How many steps of colour one must climb, at least, to reach each pixel from the upper and side edges (Lab units).

    Skies, seas, hills and floors run to the edge and cost nothing, whatever their colour; an outlined subject costs
    its outline, even where its colour is the background's. Slopes as soft as a painted sky's are free.
    """
    rows, columns = lab.shape[:2]
    weighted = lab * np.asarray([0.7, 1, 1], dtype=np.float32)
    across = np.maximum(np.sqrt((np.diff(weighted, axis=1) ** 2).sum(-1)) - _FREE_SLOPE, 0)
    down = np.maximum(np.sqrt((np.diff(weighted, axis=0) ** 2).sum(-1)) - _FREE_SLOPE, 0)
    climb = np.full((rows, columns), 1e3, dtype=np.float32)
    climb[0] = 0
    climb[: int(rows * 0.7), 0] = climb[: int(rows * 0.7), -1] = 0
    for _ in range(4):
        before = climb.copy()
        for k in range(1, rows):
            np.minimum(climb[k], climb[k - 1] + down[k - 1], out=climb[k])
        for k in range(1, columns):
            np.minimum(climb[:, k], climb[:, k - 1] + across[:, k - 1], out=climb[:, k])
        for k in range(rows - 2, -1, -1):
            np.minimum(climb[k], climb[k + 1] + down[k], out=climb[k])
        for k in range(columns - 2, -1, -1):
            np.minimum(climb[:, k], climb[:, k + 1] + across[:, k], out=climb[:, k])
        if np.array_equal(before, climb):
            break
    return climb


def _main_parts(inside: Flags, worth: Floats) -> Flags:
    """The connected part of the most worth, and lesser parts above or below it; small holes filled."""
    labels, count = _label(inside)
    if count == 0:
        return inside
    weight = np.bincount(labels.ravel(), worth.ravel(), minlength=count + 1)
    weight[0] = 0
    main = int(weight.argmax())
    columns = np.nonzero((labels == main).any(axis=0))[0]
    kept: Flags = labels == main
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

    padded = np.zeros((flags.shape[0], flags.shape[1] + 2), dtype=bool)
    padded[:, 1:-1] = flags
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    reached = np.searchsorted(rows, np.arange(flags.shape[0] + 1)).tolist()
    changes = columns.tolist()
    for row in range(flags.shape[0]):
        turns = changes[reached[row] : reached[row + 1]]
        for start, end in zip(turns[::2], turns[1::2], strict=True):
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


def _centre(rows: int, columns: int) -> Floats:
    y, x = np.mgrid[0:rows, 0:columns]
    across = (x / max(1, columns - 1) - 0.5) / (0.26 if columns >= rows else 0.34)
    down = (y / max(1, rows - 1) - 0.55) / 0.45
    centre: Floats = np.exp(-0.5 * (across**2 + down**2)).astype(np.float32)
    return centre


def _shift(values: Histogram, by: int, axis: int) -> Histogram:
    moved = np.roll(values, by, axis)
    edge = [slice(None)] * values.ndim
    edge[axis] = slice(0, 1) if by > 0 else slice(-1, None)
    moved[tuple(edge)] = 0
    return moved


def _sharpened(likelihood: Floats) -> Floats:
    """Likely counts as sure and unlikely as not at all, or a large faint background would pass for the subject."""
    sure: Floats = np.clip((likelihood - 0.35) / 0.3, 0, 1)
    return sure


def _sigmoid(odds: Floats) -> Floats:
    value: Floats = (1 / (1 + np.exp(-np.clip(odds, -30, 30)))).astype(np.float32)
    return value
