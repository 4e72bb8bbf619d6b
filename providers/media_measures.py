"""The measures a frame is judged by: sharpness, softness, noise, light, bars, and what its burst tells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domain.looks import Bars, LookMeasures
from providers.media_overlays import find_bars, text_share_of
from providers.ports import RgbImage, SampledFrame

Floats = NDArray[np.float32]
Grey = NDArray[np.uint8]

MEASURED_WIDTH = 480
"""Pixels: sharpness floors hold at one width only (LDS measured theirs so, curation_and_identity.md section 1)."""

_TILE_COLUMNS = 12
_MIN_TILE = 16
_NORMAL_CONTRAST = 50.0
_MAX_GAIN = 6.0

_SOFT_TILE = 32
_EDGES_SHARE = 0.3
"""Of the mean tile's edges: a tile with less has nothing to be judged by."""

_CRISP_SHARE = 0.2

_NOISE_QUANTILE = 0.2
_LAPLACIAN_OF_NOISE = 0.40625
"""Variance of the Laplacian of white noise of variance 1 after the 1-2-1 smoothing: the kernel's squares summed."""

_REPEATED_CHANGE = 0.05
"""Grey levels: less is no change but compression's (`domain.frame_flaws.STILL_CHANGE`)."""

_BLOCK = 6
"""Pixels of the burst's tiny pictures, a sixteenth of their width."""


def measure_look(
    small: RgbImage,
    burst: Sequence[Grey],
    *,
    at_seconds: float,
    is_keyframe: bool,
    shown_size: tuple[int, int],
) -> LookMeasures:
    """The measures of one look. `small` is the frame reduced to at most 480 px width, height × width × 3.

    `burst` holds tiny grey pictures (about 96×54, all of one shape) of this frame and those after it within 0.2 s, in
    order; it may be empty or hold one only. `shown_size` is the full picture's width and height, in which the bars are
    told. Deterministic. About 4 ms on one core for 480×270 with six burst pictures (docs/curation.md).
    """
    whole = np.asarray(Image.fromarray(small).convert("L"))
    found = find_bars(whole)
    height, width = whole.shape
    part = (slice(found.top, height - found.bottom), slice(found.left, width - found.right))
    picture = Image.fromarray(np.ascontiguousarray(small[part]))
    grey = np.ascontiguousarray(whole[part])
    noise = noise_of(grey)
    low, high = _quantiles(grey, 0.05, 0.95)
    change, bend, jump = _burst_measures(burst)
    return LookMeasures(
        at_seconds=at_seconds,
        is_keyframe=is_keyframe,
        sharpness=sharpness_of(grey, noise),
        softness=softness_of(grey),
        noise=noise,
        brightness=float(grey.mean() / 255),
        contrast=(high - low) / 255,
        hash64=_difference_hash(Image.fromarray(grey)),
        signature=_signature(picture),
        change=change,
        bend=bend,
        jump=jump,
        bars=_scaled(found, shown_size[0] / width, shown_size[1] / height),
        text_share=text_share_of(whole, burst, found),
    )


def measured(image: RgbImage, at_seconds: float = 0.0) -> SampledFrame:
    """A single picture with its measures. Deterministic; about 8 ms for 1920×1080 on one core."""
    grey = Image.fromarray(image).convert("L")
    width, height = grey.size
    small = grey
    if width > MEASURED_WIDTH:
        size = (MEASURED_WIDTH, max(1, round(height * MEASURED_WIDTH / width)))
        small = grey.resize(size, Image.Resampling.BOX)
    pixels = np.asarray(small)
    return SampledFrame(
        at_seconds=at_seconds,
        image=image,
        sharpness=sharpness_of(pixels, noise_of(pixels)),
        brightness=float(np.asarray(grey, dtype=np.float32).mean() / 255),
        hash64=_difference_hash(grey),
    )


def sharpness_of(grey: Grey, noise: float = 0.0) -> float:
    """90th percentile over tiles of the Laplacian's variance, after light denoising, at normal contrast.

    Tiles, so that a sharp face before a soft background counts as sharp (curation_and_identity.md section 1, LDS). The
    plain variance falls tenfold where a picture is merely dark and rises threefold with noise (embedded_parts.md
    section 4): so the picture is smoothed by 1-2-1 both ways, what noise of that strength still adds is taken off, and
    the contrast is brought to a standard deviation of 50 grey levels (at most sixfold). Compare within one clip.
    """
    if min(grey.shape) < 5:
        return 0.0
    smooth = _smoothed(grey)
    contrast = float(smooth.std())
    if contrast == 0:
        return 0.0
    middle = smooth[1:-1, 1:-1]
    laplacian = smooth[:-2, 1:-1] + smooth[2:, 1:-1] + smooth[1:-1, :-2] + smooth[1:-1, 2:] - 4 * middle
    energy = float(np.quantile(_tile_means(np.square(laplacian)), 0.9)) - _LAPLACIAN_OF_NOISE * noise**2
    gain = min(_NORMAL_CONTRAST / contrast, _MAX_GAIN)
    return max(0.0, energy * gain**2)


def noise_of(grey: Grey) -> float:
    """Standard deviation of the noise in grey levels, from the calmest fifth of the tiles.

    J. Immerkaer, Fast Noise Variance Estimation, 1996: a mask blind to edges and slopes; per tile, because texture
    answers to it too while noise is everywhere. Tiles all black or all white hide their noise and are left out.
    """
    if min(grey.shape) < 5:
        return 0.0
    values = grey.astype(np.int16)
    rows = values[:-2] - 2 * values[1:-1] + values[2:]
    response = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]).astype(np.float32)
    levels = _tile_means(grey[1:-1, 1:-1].astype(np.float32))
    tiles = _tile_means(response)
    open_tiles = tiles[(levels > 10) & (levels < 245)]
    if not open_tiles.size:
        return 0.0
    return float(np.quantile(open_tiles, _NOISE_QUANTILE) * np.sqrt(np.pi / 2) / 6)


def softness_of(grey: Grey) -> float:
    """0 (crisp) … 1 (soft), of the crispest fifth of the tiles with edges: how little blurring once more takes away.

    The measure of `providers.vision.blur_of` (F. Crete et al., The Blur Effect, SPIE 6492, 2007; window 9 px, steps of
    a fifth of the strongest) for each tile of 32 px, so that a sharp face before a soft background counts as sharp;
    of the two directions the worse, so that a smear counts as soft. On every second line, which costs half.
    """
    if min(grey.shape) < 2 * _SOFT_TILE:
        return 1.0
    scores = []
    for lines in (grey[::2], np.ascontiguousarray(grey[:, ::2].T)):
        total, lost = _steps_by_tile(lines)
        has_edges = total > max(_EDGES_SHARE * float(total.mean()), 1e-3)
        if has_edges.any():
            scores.append(float(np.quantile(1 - lost[has_edges] / total[has_edges], _CRISP_SHARE)))
    return max(scores, default=1.0)


def _steps_by_tile(lines: Grey) -> Floats:
    """By tile of 32×32 px (16 lines of those left): the sum of the strong steps, and what of it blurring takes away."""
    values = lines.astype(np.float32)
    sums = np.cumsum(values, axis=1)
    smooth_steps = np.abs(sums[:, 9:-1] - sums[:, :-10] - sums[:, 10:] + sums[:, 1:-9]) / 9
    steps = np.abs(values[:, 6:-4] - values[:, 5:-5])[:, : smooth_steps.shape[1]]
    strong = steps > max(0.2 * float(np.quantile(steps[::3], 0.995)), 1e-3)
    steps = np.where(strong, steps, 0)
    lost = np.where(strong, np.maximum(0, steps - smooth_steps), 0)
    rows, columns = steps.shape[0] // (_SOFT_TILE // 2), steps.shape[1] // _SOFT_TILE
    both = np.stack((steps, lost))[:, : rows * _SOFT_TILE // 2, : columns * _SOFT_TILE]
    tiles: Floats = both.reshape(2, rows, _SOFT_TILE // 2, columns, _SOFT_TILE).sum(axis=(2, 4))
    return tiles


def _burst_measures(burst: Sequence[Grey]) -> tuple[float, float, float]:
    """Change, bend and jump as LookMeasures describes them; (0, 1, 1) without a burst, bend 0 where nothing changes.

    A fade or dissolve changes whole areas (`spread`: how much of the change is left when 6×6 pixels are averaged), the
    same way at every step (`straight`: cosine between the steps of those averages), and no shift of what was there
    explains it (`shifted`: share explained by one optical flow per 6×6 block, B. Lucas and T. Kanade 1981). Motion,
    however slow, fails at least one of the three. The ramps were set on the development half of the quality test set.
    """
    if len(burst) < 2:
        return 0.0, 1.0, 1.0
    frames = np.stack(burst).astype(np.float32)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2))
    across = frames[-1] - frames[0]
    change = float(np.abs(across).mean())
    largest = int(np.argmax(steps))
    others = np.delete(steps, largest)
    jump = float(steps[largest] / max(float(np.median(others)), 0.5)) if others.size else 1.0
    if change < _REPEATED_CHANGE:
        return change, 0.0, 1.0
    if len(burst) < 3:
        return change, 1.0, max(1.0, jump)
    coarse = _block_means(frames)
    spread = _size(coarse[-1] - coarse[0]) / max(_size(across), 0.3)
    likeness = _ramp(spread, 0.4, 0.65) * _ramp(_cosine_of_steps(coarse), 0.7, 0.9)
    if likeness > 0:
        likeness *= 1 - _ramp(_shifted_share(frames[0], frames[-1]), 0.5, 0.8)
    return change, 1 - likeness, max(1.0, jump)


def _ramp(value: float, start: float, end: float) -> float:
    return min(1.0, max(0.0, (value - start) / (end - start)))


def _size(values: Floats) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _block_means(frames: Floats) -> Floats:
    count, height, width = frames.shape
    rows, columns = height // _BLOCK, width // _BLOCK
    if rows < 1 or columns < 1:
        return frames
    blocks = frames[:, : rows * _BLOCK, : columns * _BLOCK].reshape(count, rows, _BLOCK, columns, _BLOCK)
    means: Floats = blocks.mean(axis=(2, 4))
    return means


def _cosine_of_steps(coarse: Floats) -> float:
    steps = np.diff(coarse, axis=0).reshape(len(coarse) - 1, -1)
    products = steps @ steps.T
    lengths = np.sqrt(np.diagonal(products)) + 0.1
    cosines = products / np.outer(lengths, lengths)
    return float(cosines[np.triu_indices(len(steps), 1)].mean())


def _shifted_share(first: Floats, last: Floats) -> float:
    middle, difference = (first + last) / 2, last - first
    across, down = np.zeros_like(middle), np.zeros_like(middle)
    across[:, 1:-1] = (middle[:, 2:] - middle[:, :-2]) / 2
    down[1:-1] = (middle[2:] - middle[:-2]) / 2
    products = np.stack((across**2, down**2, across * down, across * difference, down * difference, difference**2))
    xx, yy, xy, xd, yd, dd = _block_means(products)
    xx, yy = xx + 0.03, yy + 0.03
    explained = (xd * (yy * xd - xy * yd) + yd * (xx * yd - xy * xd)) / (xx * yy - xy**2)
    return float(explained.sum() / max(float(dd.sum()), 1e-6))


def _smoothed(grey: Grey) -> Floats:
    values = grey.astype(np.float32)
    rows = values[:-2] + 2 * values[1:-1] + values[2:]
    smooth: Floats = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16
    return smooth


def _tile_means(values: Floats) -> Floats:
    """The mean over each whole square tile, as one row."""
    tile = max(_MIN_TILE, values.shape[1] // _TILE_COLUMNS)
    height, width = min(tile, values.shape[0]), min(tile, values.shape[1])
    rows, columns = values.shape[0] // height, values.shape[1] // width
    tiles = values[: rows * height, : columns * width].reshape(rows, height, columns, width)
    means: Floats = tiles.mean(axis=(1, 3)).ravel()
    return means


def _quantiles(grey: Grey, low: float, high: float) -> tuple[float, float]:
    counts = np.bincount(grey.ravel(), minlength=256).cumsum() / grey.size
    return float(np.searchsorted(counts, low)), float(np.searchsorted(counts, high))


def _scaled(bars: Bars, across: float, down: float) -> Bars:
    return Bars(
        left=round(bars.left * across),
        top=round(bars.top * down),
        right=round(bars.right * across),
        bottom=round(bars.bottom * down),
    )


def _signature(picture: Image.Image) -> tuple[int, ...]:
    tiny = np.asarray(picture.resize((4, 4), Image.Resampling.BOX))
    return tuple(int(value) for value in tiny.ravel())


def _difference_hash(grey: Image.Image) -> int:
    """64 bits, unsigned: is each of 8×8 places brighter than its right neighbour (dHash, N. Krawetz 2013)."""
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, :-1] > small[:, 1:]).flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
