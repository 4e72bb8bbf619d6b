"""`layout-v1`: what a whole picture looks like, by its colours and edges and where in the frame they are.

It knows nothing of who is shown. Own code on numpy, no weights: none of the general image embeddings that a package
carries states its licence (embedded_parts.md section 4). A picture is described whole and as nine of its crops, so
that a slow push-in or a pan is seen for what it is. How well it tells twins from look-alikes is measured by
benchmarks/choosing.py; the decision is docs/decisions/0005.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from domain.errors import BadInput
from providers.ports import RgbImage
from providers.subject import Floats, lab_of

WORKING_SIDE = 96
"""Every picture is brought to this many px square, whatever its shape."""

CROP_SHARE = 0.9
"""Of each side: how much of the picture a crop shows."""

CELLS = 8
DIRECTIONS = 8

CHROMA_UNIT = 25.0
"""CIE Lab chroma that weighs as much as one standard deviation of lightness."""

LEAST_SPREAD = 4.0
"""Standard deviation of lightness (0…100) below which contrast is not raised further: noise is no picture."""


class LayoutDescriber:
    """A `PictureDescriber`. Safe to share between threads."""

    layout = "layout-v1"

    def __init__(self) -> None:
        self._windows = np.concatenate(
            [_window(0, 1)] + [_window(place * (1 - CROP_SHARE), CROP_SHARE) for place in (0, 0.5, 1)]
        )

    def describe(self, image: RgbImage) -> Floats:
        """10 × 64 × 11: the whole picture, then its nine crops, each of unit length; by 8 × 8 cells, from the top left.

        A cell has three numbers for its colour and eight for its edges by direction; each sort is half of the squared
        length. Light and contrast are evened out. Deterministic; 3 ms at 1080p.

        `BadInput` for an array that is not height × width × 3 of 8 bits.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise BadInput(f"A picture of type {image.dtype} and shape {image.shape} has no layout: give 8-bit RGB.")
        size = (WORKING_SIDE, WORKING_SIDE)
        small = Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
        lab = lab_of(np.asarray(small))
        cells = self._in_cells(np.concatenate([lab, lab[..., :1] ** 2, _edges(lab[..., 0])], axis=2))
        lightness, chroma, squared, edges = cells[..., :1], cells[..., 1:3], cells[..., 3:4], np.sqrt(cells[..., 4:])
        mean = lightness.mean(axis=(1, 2), keepdims=True)
        spread = np.sqrt(np.maximum(squared.mean(axis=(1, 2), keepdims=True) - mean**2, LEAST_SPREAD**2))
        colours = _unit(np.concatenate([(lightness - mean) / spread, chroma / CHROMA_UNIT], axis=3))
        both = _unit(np.concatenate([colours, _unit(edges - edges.mean(axis=(1, 2), keepdims=True))], axis=3))
        return both.reshape(len(both), CELLS * CELLS, -1)

    def _in_cells(self, planes: Floats) -> Floats:
        """Height × width × n, averaged in the cells of the whole and of each crop: 10 × 8 × 8 × n."""
        count = planes.shape[2]
        down = (self._windows @ planes.reshape(WORKING_SIDE, -1)).reshape(4, CELLS, WORKING_SIDE, count)
        across = self._windows.reshape(4, CELLS, WORKING_SIDE)
        whole = across[0] @ down[:1]
        crops = across[None, 1:, None] @ down[1:, None]
        cells: Floats = np.concatenate([whole, crops.reshape(9, CELLS, CELLS, count)])
        return cells


def _edges(lightness: Floats) -> Floats:
    """Strength of change at each place, shared between the two nearest of eight directions (unsigned, as in HOG)."""
    down, across = np.gradient(lightness)
    turn = (np.arctan2(down, across) / np.pi % 1.0) * DIRECTIONS
    away = np.abs(turn[..., None] - np.arange(DIRECTIONS, dtype=np.float32))
    share = np.maximum(0, 1 - np.minimum(away, DIRECTIONS - away))
    planes: Floats = (np.hypot(down, across)[..., None] * share).astype(np.float32)
    return planes


def _window(start: float, share: float) -> Floats:
    """Cells × pixels over a stretch of a side: triangles two cells wide, so that a small shift changes little."""
    width = WORKING_SIDE * share / CELLS
    centres = WORKING_SIDE * start + (np.arange(CELLS) + 0.5) * width
    places = np.arange(WORKING_SIDE) + 0.5
    inside = (places > WORKING_SIDE * start) & (places < WORKING_SIDE * (start + share))
    weight = np.maximum(0, 1 - np.abs(places[None, :] - centres[:, None]) / width) * inside
    window: Floats = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return window


def _unit(values: Floats) -> Floats:
    """Each crop's numbers brought to length 1; a blank one stays 0."""
    length = np.sqrt((values**2).sum(axis=(1, 2, 3), keepdims=True))
    units: Floats = (values / np.maximum(length, 1e-6)).astype(np.float32)
    return units
