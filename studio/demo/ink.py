"""A sheet of drawing paper: filled shapes with outline and cel shade, in model units, anti-aliased."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

Points = NDArray[np.float64]
"""N x 2 points, x right and y down."""

Colour = tuple[int, int, int]

Window = tuple[float, float, float, float]
"""Left, top, right, bottom in model units."""

_NIGHT: Final[Colour] = (24, 20, 52)


def hex_colour(text: str) -> Colour:
    """`#rrggbb` as three bytes."""
    return (int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16))


def mix(a: Colour, b: Colour, share_of_b: float) -> Colour:
    """A colour between two; 0 gives `a`, 1 gives `b`."""
    r, g, bl = (round(x + (y - x) * share_of_b) for x, y in zip(a, b, strict=True))
    return (r, g, bl)


def shadow_of(colour: Colour) -> Colour:
    """The cel shadow: darker and a little towards night blue, so that shadows are never plain grey."""
    return mix(colour, _NIGHT, 0.30)


def line_of(colour: Colour) -> Colour:
    """The outline of a fill: its own hue, nearly black. Coloured lines look softer than black ones."""
    return mix(colour, _NIGHT, 0.74)


def light_of(colour: Colour) -> Colour:
    """A gleam on a fill."""
    return mix(colour, (255, 250, 235), 0.30)


def points(*pairs: tuple[float, float]) -> Points:
    """Corner points as an array."""
    return np.array(pairs, dtype=np.float64)


def moved(p: Points, dx: float, dy: float) -> Points:
    """The same points, shifted."""
    shifted: Points = p + np.array([dx, dy])
    return shifted


_STEPS: Final = 8
_T = np.arange(_STEPS) / _STEPS
_SPLINE = (
    np.stack([np.ones_like(_T), _T, _T**2, _T**3], axis=1)
    @ np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]], dtype=np.float64)
    / 2
)
"""Catmull-Rom basis, one row per step: a curve through its control points."""


def smooth(control: Points, *, closed: bool = True) -> Points:
    """A curve through the control points, eight steps between each two."""
    if closed:
        padded = np.concatenate([control[-1:], control, control[:2]])
    else:
        padded = np.concatenate([control[:1], control, control[-1:]])
    windows = np.stack([padded[i : len(padded) - 3 + i] for i in range(4)], axis=1)
    curve: Points = np.einsum("sk,nkd->nsd", _SPLINE, windows).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, control[-1:]])


def ellipse(x: float, y: float, radius_x: float, radius_y: float, turn_degrees: float = 0.0) -> Points:
    """A closed ellipse of 28 points."""
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    across, along = radius_x * np.cos(t), radius_y * np.sin(t)
    c, s = np.cos(np.radians(turn_degrees)), np.sin(np.radians(turn_degrees))
    return np.stack([x + across * c - along * s, y + across * s + along * c], axis=1)


def _normals(line: Points, *, closed: bool) -> Points:
    along = np.roll(line, -1, axis=0) - np.roll(line, 1, axis=0) if closed else np.gradient(line, axis=0)
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)
    return np.stack([along[:, 1] / length, -along[:, 0] / length], axis=1)


def tube(line: Points, radii: Points | list[float], *, has_round_start: bool = False) -> Points:
    """A limb: the outline of a line with radii spread evenly along it, round at its end (and its start)."""
    width = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(radii)), np.asarray(radii))[:, None]
    normal = _normals(line, closed=False)
    ahead = np.array([-normal[-1, 1], normal[-1, 0]])
    s = np.linspace(0, np.pi, 7)[1:-1, None]
    tip = line[-1] + width[-1] * (normal[-1] * np.cos(s) + ahead * np.sin(s))
    outline = [line + width * normal, tip, (line - width * normal)[::-1]]
    if has_round_start:
        back = np.array([normal[0, 1], -normal[0, 0]])
        outline.append(line[0] + width[0] * (-normal[0] * np.cos(s) + back * np.sin(s)))
    return np.concatenate(outline)


class Sheet:
    """Paper for one drawing: model units in, a transparent picture out."""

    def __init__(
        self, window: Window, pixels_per_unit: float, *, oversampling: int = 3, light_from: float = -1.0
    ) -> None:
        """`light_from` is -1 for light from the left, 1 from the right."""
        self._origin = np.array([window[0], window[1]])
        self._scale = pixels_per_unit * oversampling
        self._oversampling = oversampling
        self._light_from = light_from
        width = max(1, round((window[2] - window[0]) * pixels_per_unit))
        height = max(1, round((window[3] - window[1]) * pixels_per_unit))
        self._image = Image.new("RGBa", (width * oversampling, height * oversampling))
        self._draw = ImageDraw.Draw(self._image)

    def part(
        self,
        outline: Points,
        fill: Colour,
        *,
        shade: float = 0.07,
        line: float = 0.016,
        shade_colour: Colour | None = None,
        gleam: float = 0.0,
    ) -> None:
        """One solid piece: outline (heavier away from the light), fill, a shadow band `shade` wide, a gleam band."""
        p = self._pixels(outline)
        if not self._is_visible(p):
            return
        if line > 0:
            self._fill(self._grown(p, line * self._scale), line_of(fill))
        self._fill(p, fill)
        if shade > 0:
            self._band(p, shade_colour or shadow_of(fill), self._light_from * shade, -0.55 * shade)
        if gleam > 0:
            self._band(p, light_of(fill), -self._light_from * gleam, 0.5 * gleam)

    def flat(self, outline: Points, fill: Colour) -> None:
        """A plain patch without line or shade."""
        self._fill(self._pixels(outline), fill)

    def stroke(self, line: Points, width: float, colour: Colour, *, taper: float = 0.35) -> None:
        """A pen line, thinner at both ends; `taper` is the end's share of `width` (full width in units)."""
        half = width / 2
        self.flat(tube(line, [half * taper, half, half, half * taper]), colour)

    def veil(self, outline: Points, colour: Colour, opacity: float) -> None:
        """A translucent patch over what is there (opacity 0-1): blush, glass, a soft shadow."""
        p = self._pixels(outline)
        box = self._box(p)
        if box is not None:
            mask = self._mask(p, box, round(255 * opacity))
            self._image.paste(colour, box, mask)

    def inside(self, frame: Points, patches: list[tuple[Points, Colour]]) -> None:
        """Patches cut to the inside of a frame: an iris in an eye, a pattern on a cloth."""
        p = self._pixels(frame)
        box = self._box(p)
        if box is None:
            return
        mask = self._mask(p, box, 255)
        for outline, colour in patches:
            cut = ImageChops.darker(mask, self._mask(self._pixels(outline), box, 255))
            self._image.paste(colour, box, cut)

    def finish(self) -> Image.Image:
        """The drawing at its real size, RGBA, edges smoothed."""
        return self._image.reduce(self._oversampling).convert("RGBA")

    def finish_trimmed(self) -> tuple[Image.Image, tuple[int, int]]:
        """The drawing without its empty margins, and where its left upper corner lies on the sheet (pixels)."""
        step = self._oversampling
        left, top, right, bottom = self._image.getbbox() or (0, 0, step, step)
        left, top = left - left % step, top - top % step
        piece = self._image.crop((left, top, right + -right % step, bottom + -bottom % step))
        return piece.reduce(step).convert("RGBA"), (left // step, top // step)

    def _pixels(self, outline: Points) -> Points:
        pixels: Points = (outline - self._origin) * self._scale
        return pixels

    def _is_visible(self, p: Points) -> bool:
        return self._box(p) is not None

    def _box(self, p: Points) -> tuple[int, int, int, int] | None:
        low, high = p.min(axis=0), p.max(axis=0)
        left, top = max(0, int(low[0]) - 1), max(0, int(low[1]) - 1)
        right, bottom = min(self._image.width, int(high[0]) + 2), min(self._image.height, int(high[1]) + 2)
        return (left, top, right, bottom) if left < right and top < bottom else None

    def _fill(self, p: Points, colour: Colour) -> None:
        self._draw.polygon(p.ravel().tolist(), fill=colour)

    def _mask(self, p: Points, box: tuple[int, int, int, int], value: int) -> Image.Image:
        mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
        ImageDraw.Draw(mask).polygon((p - (box[0], box[1])).ravel().tolist(), fill=value)
        return mask

    def _band(self, p: Points, colour: Colour, dx: float, dy: float) -> None:
        box = self._box(p)
        if box is None:
            return
        mask = self._mask(p, box, 255)
        shifted = Image.new("L", mask.size)
        shifted.paste(mask, (round(dx * self._scale), round(dy * self._scale)))
        self._image.paste(colour, box, ImageChops.subtract(mask, shifted))

    def _grown(self, p: Points, width: float) -> Points:
        normal = _normals(p, closed=True)
        x, y = p[:, 0], p[:, 1]
        if float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) < 0:
            normal = -normal
        weight = 1.0 + 0.45 * (normal[:, 1] - self._light_from * normal[:, 0]) / np.sqrt(2)
        grown: Points = p + normal * (width * weight)[:, None]
        return grown
