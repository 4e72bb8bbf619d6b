"""The measures a frame is judged by: how sharp it is, how bright, and a hash that finds its look-alikes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from providers.ports import RgbImage, SampledFrame

_MEASURED_WIDTH = 480
_TILE_COLUMNS = 8
_MIN_TILE = 16
_NORMAL_CONTRAST = 50.0
_MAX_GAIN = 4.0


def measured(image: RgbImage, at_seconds: float = 0.0) -> SampledFrame:
    """The picture with its measures. Deterministic; about 8 ms for 1920×1080 on one core."""
    grey = Image.fromarray(image).convert("L")
    return SampledFrame(
        at_seconds=at_seconds,
        image=image,
        sharpness=_sharpness(grey),
        brightness=float(np.asarray(grey, dtype=np.float32).mean() / 255),
        hash64=_difference_hash(grey),
    )


def hash_distance(one: int, other: int) -> int:
    """In how many of 64 bits two hashes differ; 8 or fewer is a near-duplicate (curation_and_identity.md §1)."""
    return (one ^ other).bit_count()


def _sharpness(grey: Image.Image) -> float:
    """90th percentile over tiles of the Laplacian's variance, at 480 px width and normal contrast.

    Tiles, so that a sharp face before a soft background counts as sharp; the percentile and the width are
    those of curation_and_identity.md §1 (LDS), where about 150 begins to be sharp. The contrast is brought to a
    standard deviation of 50 first (at most fourfold, or noise would count), because the plain variance falls
    tenfold where a picture is merely dark (embedded_parts.md §4). Compare within one clip.
    """
    width, height = grey.size
    if width > _MEASURED_WIDTH:
        grey = grey.resize((_MEASURED_WIDTH, max(1, round(height * _MEASURED_WIDTH / width))), Image.Resampling.BOX)
    pixels: NDArray[np.float32] = np.asarray(grey, dtype=np.float32)
    if min(pixels.shape) < 3:
        return 0.0
    contrast = float(pixels.std())
    pixels = pixels * min(_NORMAL_CONTRAST / contrast, _MAX_GAIN) if contrast > 0 else pixels
    laplacian = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:] - 4 * pixels[1:-1, 1:-1]
    tile = max(_MIN_TILE, laplacian.shape[1] // _TILE_COLUMNS)
    rows, columns = max(1, laplacian.shape[0] // tile), max(1, laplacian.shape[1] // tile)
    variances = [
        float(part.var()) for row in np.array_split(laplacian, rows, 0) for part in np.array_split(row, columns, 1)
    ]
    return float(np.percentile(variances, 90))


def _difference_hash(grey: Image.Image) -> int:
    """64 bits, unsigned: is each of 8×8 places brighter than its right neighbour (dHash, N. Krawetz 2013)."""
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, :-1] > small[:, 1:]).flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
