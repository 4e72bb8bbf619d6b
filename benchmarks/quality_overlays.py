"""Films of the quality test set with bars, dark edges, subtitles, logos, and what only looks like them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.quality_stage import (
    HEIGHT,
    WIDTH,
    Film,
    Half,
    Stage,
    film,
    pixels,
)
from domain.looks import Bars


def boxed(case: str, top: int, side: int, *, is_night: bool = False, subtitle: bool = False) -> Callable[..., Film]:
    def make(half: Half, seed: int) -> Film:
        stage = Stage(half, seed)
        height = top + (6 if half is Half.HELD_OUT and top else 0)
        width = side + (10 if half is Half.HELD_OUT and side else 0)

        def paint(at: float) -> NDArray[np.float32]:
            inner = Image.fromarray(pixels(stage.frame(at) * (0.33 if is_night else 1)))
            inner = inner.resize((WIDTH - 2 * width, HEIGHT - 2 * height), Image.Resampling.BILINEAR)
            picture = Image.new("RGB", (WIDTH, HEIGHT))
            picture.paste(inner, (width, height))
            if subtitle:
                _write(picture, _line(seed, at), bottom=HEIGHT - 10)
            return np.asarray(picture, np.float32)

        return film(case, half, seed, paint, bars=Bars(left=width, top=height, right=width, bottom=height))

    return make


def night_sky(half: Half, seed: int) -> Film:
    """A black sky over roofs of uneven height: no bar."""
    stage = Stage(half, seed)
    rng = np.random.default_rng(seed)
    roofs = np.repeat(rng.integers(60, 150, 16), WIDTH // 16)
    mask = np.arange(HEIGHT)[:, None] < roofs[None, :]

    def paint(at: float) -> NDArray[np.float32]:
        frame = stage.frame(at).copy()
        frame[np.roll(mask, round(6 * at), axis=1)] = 4
        return frame

    return film("night sky", half, seed, paint)


def dark_top(half: Half, seed: int) -> Film:
    """A room that gets dark towards the ceiling, without an edge: no bar."""
    stage = Stage(half, seed)
    ramp = (np.arange(HEIGHT, dtype=np.float32) - 30) / 160
    light: NDArray[np.float32] = np.clip(ramp, 0.02, 1).astype(np.float32)[:, None, None]
    return film("dark ceiling", half, seed, lambda at: stage.frame(at) * light)


def subtitled(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)

    def paint(at: float) -> NDArray[np.float32]:
        picture = Image.fromarray(pixels(stage.frame(at)))
        _write(picture, _line(seed, at), bottom=HEIGHT - 22)
        return np.asarray(picture, np.float32)

    return film("subtitles", half, seed, paint, has_text=True)


def logo(half: Half, seed: int) -> Film:
    stage, is_left = Stage(half, seed), seed % 3 == 0

    def paint(at: float) -> NDArray[np.float32]:
        picture = Image.fromarray(pixels(stage.frame(at)))
        layer = picture.copy()
        pen = ImageDraw.Draw(layer)
        word, font = ("NEON TV", "HARBOR 6")[seed % 2], ImageFont.load_default(size=22)
        length = pen.textlength(word, font=font)
        x = 18 if is_left else WIDTH - 18 - length
        pen.text((x, 14), word, font=font, fill=(255, 255, 255), stroke_width=1, stroke_fill=(60, 60, 60))
        return np.asarray(Image.blend(picture, layer, 0.85), np.float32)

    return film("corner logo", half, seed, paint, has_text=True)


def busy_bottom(half: Half, seed: int) -> Film:
    """A fence, bright tiles and lit windows along the lower edge and in a corner: no text."""
    stage = Stage(half, seed)
    rng = np.random.default_rng(seed)
    pitch, bar = int(rng.integers(14, 26)), int(rng.integers(4, 9))
    lit = rng.random((6, 10)) < 0.5

    def paint(at: float) -> NDArray[np.float32]:
        picture = Image.fromarray(pixels(stage.frame(at)))
        pen = ImageDraw.Draw(picture)
        shift = round(14 * at)
        for x in range(-pitch - shift % pitch, WIDTH, pitch):
            pen.rectangle((x, 300, x + bar, HEIGHT), fill=(228, 222, 210), outline=(90, 80, 70))
        pen.rectangle((0, 312, WIDTH, 318), fill=(228, 222, 210))
        for row, column in zip(*np.nonzero(lit), strict=True):
            x, y = 470 + 16 * int(column) - shift, 10 + 16 * int(row)
            pen.rectangle((x, y, x + 8, y + 9), fill=(255, 236, 170))
        return np.asarray(picture, np.float32)

    return film("fence and windows", half, seed, paint)


_LINES: Final = (
    "I never said it would be easy.",
    "Meet me at the pier before dawn!",
    "You kept the letter, didn't you?",
    "Nobody leaves Neon Harbor twice.",
)


def _line(seed: int, at: float) -> str:
    return _LINES[(seed + int(at // 1.6)) % len(_LINES)]


def _write(picture: Image.Image, words: str, bottom: int) -> None:
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=24)
    x = (WIDTH - pen.textlength(words, font=font)) / 2
    pen.text((x, bottom - 28), words, font=font, fill=(250, 250, 246), stroke_width=2, stroke_fill=(0, 0, 0))
