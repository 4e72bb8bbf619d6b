"""Finding the subject of a picture: what the middle holds and the border does not, by colour alone.

No network and no training: the border's colours are taken as background, what differs from them near the middle as
a first guess, and two rounds of colour statistics sharpen it. The constants were chosen on drawn people
(benchmarks/identity_dev.py, development designs) and are frozen; changing one makes a new metric version.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

LIGHTNESS_WEIGHT = 0.7
BACKGROUND_COLOURS = 8
SMALLEST_BACKGROUND_SHARE = 0.02
COLOUR_REACH = 20.0
"""CIE Lab distance (lightness × 0.7) at which a pixel is 63 % foreground."""

SAME_COLOUR = 12.0
CENTRAL_SHARE_OF_BACKGROUND = 0.38
"""A border colour with more than this share of its pixels in the middle third of the width is the subject's own
(a close-up's shoulders and hat reach the border); colours behind a subject have a third or less there."""

CENTRE_WIDTH = 0.22
CENTRE_HEIGHT = 0.6
ROUNDS = 2
SUBJECT_PROBABILITY = 0.33


def lab_of(image: NDArray[np.uint8]) -> Floats:
    """CIE Lab (D65, 2°) of 8-bit sRGB, same height × width × 3; formulae of IEC 61966-2-1 and CIE 15."""
    return lab_of_linear(linear_of(image))


def linear_of(image: NDArray[np.uint8]) -> Floats:
    """Linear light 0..1 of 8-bit sRGB."""
    levels = np.arange(256, dtype=np.float32) / 255
    table = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4).astype(np.float32)
    linear: Floats = table[image]
    return linear


def lab_of_linear(linear: Floats) -> Floats:
    """CIE Lab of linear sRGB, any leading shape × 3."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32
    ) / np.array([[0.95047], [1.0], [1.08883]], np.float32)
    ratio = linear @ to_xyz.T
    bent = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    x, y, z = bent[..., 0], bent[..., 1], bent[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def find_subject(lab: Floats, colour: NDArray[np.int64] | None = None) -> Mask | None:
    """The pixels of the most central thing that is not background, or None when nothing stands out.

    `lab` is height × width × 3 of a picture reduced to about 200 px (cost grows with its area: about 10 ms), `colour`
    its `colour_codes`, for who has them already. Deterministic. Two people who touch are found as one.
    """
    height, width, _ = lab.shape
    weighted = lab * np.array([LIGHTNESS_WEIGHT, 1, 1], np.float32)
    distance = _distance_to_background(weighted)
    foreground = 1 - np.exp(-((distance / COLOUR_REACH) ** 2))
    if not (foreground > 0.5).any():
        return None
    across = (np.arange(width) + 0.5) / width - 0.5
    down = (np.arange(height) + 0.5) / height - 0.52
    centre = np.exp(-0.5 * (down[:, None] / CENTRE_HEIGHT) ** 2 - 0.5 * (across[None, :] / CENTRE_WIDTH) ** 2)
    probability = foreground * centre
    colour = colour_codes(lab) if colour is None else colour
    for _ in range(ROUNDS):
        inside = np.bincount(colour.ravel(), probability.ravel(), _CODES)
        outside = np.bincount(colour.ravel(), (1 - probability).ravel(), _CODES)
        inside, outside = inside / inside.sum(), outside / outside.sum()
        likely = (inside / (inside + outside + 1e-9))[colour]
        nearby = blurred(probability, max(2, width // 40))
        probability = (likely * (0.35 + 0.65 * centre) * np.clip(nearby * 2.2, 0.05, 1)) ** 0.8
    parts = components(blurred(probability, 1) > SUBJECT_PROBABILITY)
    weight = np.bincount(parts.ravel(), (probability * centre).ravel())
    weight[0] = 0
    if weight.max() == 0:
        return None
    return np.asarray(parts == int(weight.argmax()))


def centre_ellipse(height: int, width: int) -> Mask:
    """What is looked at when nothing stands out: the ellipse over the middle 50 % × 80 %."""
    down = ((np.arange(height) + 0.5) / height - 0.5) / 0.4
    across = ((np.arange(width) + 0.5) / width - 0.5) / 0.25
    return np.asarray(down[:, None] ** 2 + across[None, :] ** 2 <= 1)


def _distance_to_background(weighted: Floats) -> Floats:
    width = weighted.shape[1]
    palette = _palette(_border(weighted))
    squared = _squared_distances(weighted, palette)
    nearest = squared.argmin(axis=0)
    is_close = squared.min(axis=0) < SAME_COLOUR**2
    third = max(1, width // 3)
    shares = []
    for index in range(len(palette)):
        columns = ((nearest == index) & is_close).sum(axis=0)
        shares.append(columns[third : width - third].sum() / max(1, int(columns.sum())))
    central = np.array(shares)
    kept = central <= max(CENTRAL_SHARE_OF_BACKGROUND, float(central.min()))
    distance: Floats = np.sqrt(squared[kept].min(axis=0))
    return distance


def _squared_distances(points: Floats, palette: Floats) -> Floats:
    """From every point (any leading shape × 3) to every colour: colour × that shape."""
    planes = [np.ascontiguousarray(points[..., channel]) for channel in range(3)]
    distances = np.empty((len(palette), *points.shape[:-1]), np.float32)
    for squared, colour in zip(distances, palette, strict=True):
        # Plane by plane, because sums over an axis of three are what numpy does slowest.
        first, second, third = (np.square(plane - value) for plane, value in zip(planes, colour, strict=True))
        np.add(np.add(first, second, out=first), third, out=squared)
    return distances


def _border(weighted: Floats) -> Floats:
    """Sides and upper corners fully, the lowest quarter of the sides thinly: that is where people leave the frame."""
    height, width, _ = weighted.shape
    side, top, third = max(2, round(0.05 * width)), max(2, round(0.04 * height)), max(1, width // 3)
    low = int(0.72 * height)
    strips = (
        weighted[:low, :side],
        weighted[:low, -side:],
        weighted[:top, :third],
        weighted[:top, -third:],
        weighted[low::4, :side],
        weighted[low::4, -side:],
    )
    return np.concatenate([strip.reshape(-1, 3) for strip in strips])[::3]


def _palette(points: Floats) -> Floats:
    """The border's main colours: k-means from a farthest-point start, so that equal pictures give equal palettes."""
    centres = [np.median(points, axis=0)]
    distance = ((points - centres[0]) ** 2).sum(axis=1)
    for _ in range(BACKGROUND_COLOURS - 1):
        centres.append(points[distance.argmax()])
        distance = np.minimum(distance, ((points - centres[-1]) ** 2).sum(axis=1))
    palette = np.array(centres, np.float32)
    owner = np.zeros(len(points), np.int64)
    for _ in range(4):
        owner = _squared_distances(points, palette).argmin(axis=0)
        for index in range(BACKGROUND_COLOURS):
            if (is_owned := owner == index).any():
                palette[index] = points[is_owned].mean(axis=0)
    share = np.bincount(owner, minlength=BACKGROUND_COLOURS) / len(points)
    return palette[share > SMALLEST_BACKGROUND_SHARE]


_CODES = 12 * 20 * 20


def colour_codes(lab: Floats) -> NDArray[np.int64]:
    lightness = np.clip(lab[..., 0] // 9, 0, 11)
    a, b = (np.clip((lab[..., channel] + 100) // 10, 0, 19) for channel in (1, 2))
    return (lightness * 400 + a * 20 + b).astype(np.int64)


def blurred(values: NDArray[np.floating], radius: int) -> NDArray[np.floating]:
    """Box mean over (2·radius + 1)², edges repeated."""
    span = 2 * radius + 1
    for axis in (0, 1):
        before, after = (values[:1], values[-1:]) if axis == 0 else (values[:, :1], values[:, -1:])
        edged = [before.repeat(radius + 1, axis=axis), values, after.repeat(radius, axis=axis)]
        sums = np.concatenate(edged, axis=axis).cumsum(axis=axis)
        sums = sums[span:] - sums[:-span] if axis == 0 else sums[:, span:] - sums[:, :-span]
        values = sums / span
    return values


def components(mask: Mask) -> NDArray[np.int64]:
    """Label of the 4-connected part each pixel belongs to, 0 outside; runs of a row are joined with those above."""
    parent = [0]

    def root(label: int) -> int:
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    labels = np.zeros(mask.shape, np.int64)
    above: list[tuple[int, int, int]] = []
    edged = np.zeros((mask.shape[0], mask.shape[1] + 2), np.bool_)
    edged[:, 1:-1] = mask
    rows, columns = np.nonzero(edged[:, 1:] != edged[:, :-1])
    ends = np.searchsorted(rows, np.arange(mask.shape[0] + 1)).tolist()
    places = columns.tolist()
    for row in range(mask.shape[0]):
        turns = places[ends[row] : ends[row + 1]]
        runs: list[tuple[int, int, int]] = []
        for start, stop in zip(turns[::2], turns[1::2], strict=True):
            touching = {root(label) for left, right, label in above if left < stop and right > start}
            if touching:
                label = min(touching)
                for other in touching:
                    parent[other] = label
            else:
                label = len(parent)
                parent.append(label)
            runs.append((start, stop, label))
            labels[row, start:stop] = label
        above = runs
    return np.array([root(label) for label in range(len(parent))])[labels]
