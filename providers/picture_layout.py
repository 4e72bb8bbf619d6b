"""`layout-v1`: what a whole picture looks like, by its colours and edges and where in the frame they are.

It knows nothing of who is shown. Own code on numpy, no weights: none of the general image embeddings that a package
carries states its licence (embedded_parts.md section 4). It is compared by the dot product. Measured, with the
thresholds that follow from it, by benchmarks/choosing.py.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from domain.errors import BadInput
from providers.ports import RgbImage
from providers.subject import Floats, lab_of

WORKING_SIDE = 64
"""The picture is brought to this many px square, whatever its shape."""

COLOUR_CELLS = 8
EDGE_CELLS = 8
DIRECTIONS = 8
COLOUR_SHARE = 0.5
"""Of the squared length; the rest are the edges."""

CHROMA_UNIT = 25.0
"""CIE Lab chroma that weighs as much as one standard deviation of lightness."""

LEAST_SPREAD = 4.0
"""Standard deviation of lightness (0…100) below which contrast is not raised further: noise is no picture."""


class LayoutDescriber:
    """A `PictureDescriber`. Safe to share between threads."""

    layout = "layout-v1"

    def __init__(self) -> None:
        self._colour_window = _windows(WORKING_SIDE, COLOUR_CELLS)
        self._edge_window = _windows(WORKING_SIDE, EDGE_CELLS)

    def describe(self, image: RgbImage) -> Floats:
        """Unit length. `BadInput` for an array that is not height × width × 3 of 8 bits."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise BadInput(f"A picture of type {image.dtype} and shape {image.shape} has no layout: give 8-bit RGB.")
        size = (WORKING_SIDE, WORKING_SIDE)
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=2.0))
        lab = lab_of(small)
        lightness = lab[..., 0]
        even = (lightness - lightness.mean()) / max(float(lightness.std()), LEAST_SPREAD)
        colour = self._colours(even, lab[..., 1:] / CHROMA_UNIT)
        edges = self._edges(even)
        vector = np.concatenate([colour * COLOUR_SHARE**0.5, edges * (1 - COLOUR_SHARE) ** 0.5])
        return (vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)

    def _colours(self, even: Floats, chroma: Floats) -> Floats:
        planes = np.concatenate([even[..., None], chroma], axis=2)
        cells = np.einsum("iy,jx,yxc->ijc", self._colour_window, self._colour_window, planes, optimize=True)
        return _unit(cells.ravel())

    def _edges(self, even: Floats) -> Floats:
        down, across = np.gradient(even)
        strength = np.hypot(down, across)
        turn = (np.arctan2(down, across) / np.pi % 1.0) * DIRECTIONS
        low = turn.astype(np.int64) % DIRECTIONS
        part = (turn - np.floor(turn)).astype(np.float32)
        planes = np.zeros((*even.shape, DIRECTIONS), np.float32)
        rows, columns = np.indices(even.shape)
        planes[rows, columns, low] = strength * (1 - part)
        planes[rows, columns, (low + 1) % DIRECTIONS] += strength * part
        cells = np.einsum("iy,jx,yxd->ijd", self._edge_window, self._edge_window, planes, optimize=True)
        rooted = np.sqrt(cells)
        return _unit((rooted - rooted.mean(axis=(0, 1))).ravel())


def _windows(side: int, cells: int) -> Floats:
    """Cells × side: overlapping triangles, twice as wide as a cell, so that a small shift changes little."""
    centres = (np.arange(cells) + 0.5) * side / cells
    places = np.arange(side) + 0.5
    weight = np.maximum(0, 1 - np.abs(places[None, :] - centres[:, None]) * cells / side)
    windows: Floats = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return windows


def _unit(vector: Floats) -> Floats:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
