"""A painting surface for the demo's places: flat shapes, neon, haze, mirrors and a layer of light."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from studio.demo.ink import Colour, hex_colour, mix

SIZE: Final = (1280, 720)
_OVER: Final = 2
"""Painted at twice the size and reduced, for smooth edges."""


class Canvas:
    """A painting in 1280 x 720 coordinates with a layer of light above it."""

    def __init__(self, stops: Sequence[tuple[float, str]], seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a drawing, not a secret
        self.image = gradient(SIZE, stops).resize((SIZE[0] * _OVER, SIZE[1] * _OVER))
        self._draw = ImageDraw.Draw(self.image)
        self._glow = Image.new("RGB", (SIZE[0] // 4, SIZE[1] // 4))
        self._glow_draw = ImageDraw.Draw(self._glow)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, radius: float = 0) -> None:
        at = (x0 * _OVER, y0 * _OVER, x1 * _OVER, y1 * _OVER)
        if radius:
            self._draw.rounded_rectangle(at, radius * _OVER, fill=colour)
        else:
            self._draw.rectangle(at, fill=colour)

    def shape(self, corners: Sequence[tuple[float, float]], colour: Colour) -> None:
        self._draw.polygon([(x * _OVER, y * _OVER) for x, y in corners], fill=colour)

    def disc(self, x: float, y: float, radius_x: float, colour: Colour, radius_y: float | None = None) -> None:
        ry = radius_x if radius_y is None else radius_y
        self._draw.ellipse(
            ((x - radius_x) * _OVER, (y - ry) * _OVER, (x + radius_x) * _OVER, (y + ry) * _OVER), fill=colour
        )

    def line(self, corners: Sequence[tuple[float, float]], colour: Colour, width: float = 2) -> None:
        self._draw.line(
            [(x * _OVER, y * _OVER) for x, y in corners], fill=colour, width=round(width * _OVER), joint="curve"
        )

    def shine(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self._glow_draw.ellipse(((x - radius) / 4, (y - radius) / 4, (x + radius) / 4, (y + radius) / 4), fill=colour)

    def neon(self, corners: Sequence[tuple[float, float]], colour: Colour, width: float = 5) -> None:
        """A lit tube: coloured line, white core, glow around it."""
        self.line(corners, colour, width)
        self.line(corners, mix(colour, (255, 255, 255), 0.75), width * 0.4)
        self._glow_draw.line([(x / 4, y / 4) for x, y in corners], fill=colour, width=round(width / 2) + 1)

    def blend(self, top: int, bottom: int, colour: Colour, opacity: float) -> None:
        """Haze: a flat colour laid over a band."""
        area = (0, top * _OVER, self.image.width, bottom * _OVER)
        part = self.image.crop(area)
        self.image.paste(Image.blend(part, Image.new("RGB", part.size, colour), opacity), area[:2])

    def mirror(self, horizon: int, bottom: int, opacity: float, squeeze: float = 1.0) -> None:
        """Wet ground: what stands above the horizon, upside down, blurred, laid over what is below it."""
        height = bottom - horizon
        source = self.image.crop(
            (0, max(0, round(horizon - height * squeeze)) * _OVER, self.image.width, horizon * _OVER)
        )
        small = source.resize((SIZE[0] // 2, height // 2), Image.Resampling.BILINEAR).transpose(
            Image.Transpose.FLIP_TOP_BOTTOM
        )
        small = small.filter(ImageFilter.BoxBlur((2, 8))).resize(
            (self.image.width, height * _OVER), Image.Resampling.BILINEAR
        )
        area = (0, horizon * _OVER, self.image.width, bottom * _OVER)
        self.image.paste(
            ImageChops.screen(self.image.crop(area), small.point([round(v * opacity) for v in range(256)] * 3)),
            area[:2],
        )

    def finish(self) -> Image.Image:
        picture = self.image.reduce(_OVER)
        glow = self._glow.filter(ImageFilter.GaussianBlur(9)).resize(SIZE, Image.Resampling.BILINEAR)
        return ImageChops.screen(picture, glow)


def gradient(size: tuple[int, int], stops: Sequence[tuple[float, str]]) -> Image.Image:
    """A vertical gradient through `(share of the height, colour)` stops, first 0, last 1."""
    column = Image.new("RGB", (1, 256))
    for row in range(256):
        at = row / 255
        for (low, a), (high, b) in pairwise(stops):
            if low <= at <= high:
                column.putpixel((0, row), mix(hex_colour(a), hex_colour(b), (at - low) / (high - low)))
                break
    return column.resize(size, Image.Resampling.BILINEAR)
