"""Backgrounds: what the sandbox paints behind its subjects, from the prompt's words and a seed.

Painted small and brought up softly, so that the place reads as out of focus and the subject stands out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Rgb = tuple[int, int, int]
Words = frozenset[str]
Pixels = NDArray[np.float32]

_PAINTED_SIDE = 512  # px, the longer side


@dataclass(frozen=True)
class Mood:
    """The light of a time of day: the sky from top to horizon, what it does to a subject, what glows in it."""

    sky: tuple[Rgb, Rgb]
    ground: Rgb
    tint: tuple[float, float, float]
    rim: Rgb
    glow: Rgb
    is_dark: bool


@dataclass(frozen=True)
class Scene:
    """A painted place: the picture at full size, the light in it, and where the ground meets the back (0–1)."""

    picture: Image.Image
    mood: Mood
    horizon: float
    weather: str


_NIGHT = Mood(((13, 17, 43), (62, 56, 110)), (26, 28, 52), (0.90, 0.93, 1.06), (120, 170, 255), (255, 190, 110), True)
_DAY = Mood(
    ((104, 170, 222), (226, 239, 242)), (150, 158, 150), (1.0, 1.0, 1.0), (255, 250, 230), (255, 255, 240), False
)
_DUSK = Mood(
    ((66, 58, 112), (246, 164, 104)), (74, 62, 84), (1.04, 0.97, 0.92), (255, 180, 110), (255, 214, 150), False
)
_DAWN = Mood(
    ((126, 152, 204), (252, 212, 172)), (132, 126, 132), (1.03, 1.0, 0.96), (255, 220, 180), (255, 232, 190), False
)
_GREY = Mood(
    ((92, 108, 124), (182, 192, 198)), (96, 104, 110), (0.96, 0.98, 1.0), (210, 225, 235), (250, 236, 200), False
)

_MOODS: tuple[tuple[str, Mood], ...] = (
    ("night midnight moonlight neon noir dark", _NIGHT),
    ("dusk sunset evening golden twilight candlelight", _DUSK),
    ("dawn sunrise morning", _DAWN),
    ("rain rainy storm fog foggy mist overcast cloudy grey snow", _GREY),
    ("day daylight noon sunny bright", _DAY),
)
_NEON: tuple[Rgb, ...] = ((255, 72, 140), (60, 220, 230), (255, 176, 60), (150, 110, 255))


def paint_scene(words: Words, seed: int, width: int, height: int, cast: Pixels | None = None) -> Scene:
    """Paint the place that the words name, or a plain backdrop when they name none. Deterministic.

    A backdrop keeps away from the colours of `cast` (N×3, 0–255), so that whoever stands before it stands out.
    """
    random = np.random.default_rng([seed, 17])
    painter, horizon = _painter(words)
    mood = _mood(words, painter, random)
    scale = _PAINTED_SIDE / max(width, height)
    canvas = _Canvas(max(16, round(width * scale)), max(16, round(height * scale)), mood, horizon, words, random)
    canvas.cast = cast
    painter(canvas)
    small = canvas.finished()
    weather = next((w for w in ("rain", "snow", "fog") if words & _WEATHER[w]), "")
    picture = _vignette(small.resize((width, height), Image.Resampling.BICUBIC), 0.22)
    return Scene(picture, mood, horizon, weather)


_WEATHER = {
    "rain": frozenset({"rain", "rainy", "raining", "storm", "downpour"}),
    "snow": frozenset({"snow", "snowy", "snowing", "winter"}),
    "fog": frozenset({"fog", "foggy", "mist", "misty"}),
}


class _Canvas:
    """A small picture being painted; `glow` collects light that is added, blurred, at the end."""

    def __init__(
        self, width: int, height: int, mood: Mood, horizon: float, words: Words, random: np.random.Generator
    ) -> None:
        self.width, self.height, self.mood, self.words, self.random = width, height, mood, words, random
        self.cast: Pixels | None = None
        self.horizon = round(height * horizon)
        self.picture = gradient(
            width, height, [(0.0, mood.sky[0]), (max(0.05, horizon), mood.sky[1]), (1.0, mood.sky[1])]
        )
        self.light = Image.new("RGB", (width, height))
        self.draw, self.glow = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.light)

    def uniform(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def pick(self, colours: tuple[Rgb, ...]) -> Rgb:
        return colours[int(self.random.integers(len(colours)))]

    def disc(self, x: float, y: float, radius: float, colour: Rgb, is_light: bool = False) -> None:
        (self.glow if is_light else self.draw).ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)

    def fill_ground(self, near: Rgb, far: Rgb) -> None:
        rows = self.height - self.horizon
        if rows > 0:
            self.picture.paste(gradient(self.width, rows, [(0.0, far), (1.0, near)]), (0, self.horizon))

    def reflect(self, strength: float) -> None:
        """Lay the upper part, mirrored and smeared, over the ground: water or a wet street."""
        rows = min(self.height - self.horizon, self.horizon)
        above = Image.blend(self.picture, ImageChops.add(self.picture, self.light), 0.8)
        mirrored = above.crop((0, self.horizon - rows, self.width, self.horizon)).transpose(
            Image.Transpose.FLIP_TOP_BOTTOM
        )
        smeared = mirrored.resize((self.width, max(1, rows // 10))).resize((self.width, rows), Image.Resampling.BICUBIC)
        box = (0, self.horizon, self.width, self.horizon + rows)
        self.picture.paste(Image.blend(self.picture.crop(box), smeared, strength), box)

    def finished(self) -> Image.Image:
        soft = self.picture.filter(ImageFilter.GaussianBlur(self.width / 420))
        near = self.light.filter(ImageFilter.GaussianBlur(self.width / 200))
        far = self.light.filter(ImageFilter.GaussianBlur(self.width / 28))
        return ImageChops.screen(ImageChops.screen(soft, near), far)


def gradient(width: int, height: int, stops: list[tuple[float, Rgb]]) -> Image.Image:
    """A vertical gradient through the stops (place 0–1, colour)."""
    places = np.linspace(0, 1, height)
    channels = [np.interp(places, [s for s, _ in stops], [c[k] for _, c in stops]) for k in range(3)]
    column = np.stack(channels, axis=-1)[:, None].repeat(width, axis=1)
    return Image.fromarray(column.round().astype(np.uint8))


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """`a` with `share` of `b` in it."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def _sun_or_moon(c: _Canvas) -> None:
    x, y = c.width * c.uniform(0.12, 0.88), c.horizon * c.uniform(0.18, 0.5)
    radius = c.height * (0.035 if c.mood.is_dark else 0.05)
    c.disc(x, y, radius, (238, 236, 220) if c.mood.is_dark else c.mood.glow)
    c.disc(x, y, radius, mix((0, 0, 0), c.mood.glow, 0.55), is_light=True)
    if c.mood.is_dark:
        for _ in range(40):
            c.disc(c.uniform(0, c.width), c.uniform(0, c.horizon * 0.8), c.uniform(0.4, 0.9), (190, 196, 230))
    else:
        for _ in range(5):
            _cloud(c, c.uniform(0, c.width), c.uniform(0.06, 0.6) * c.horizon)


def _cloud(c: _Canvas, x: float, y: float) -> None:
    colour = mix(mix(c.mood.sky[0], c.mood.sky[1], y / max(1, c.horizon)), (255, 250, 245), 0.45)
    wide = c.width * c.uniform(0.06, 0.16)
    for k in range(5):
        part = wide * c.uniform(0.25, 0.5)
        left = x + (k - 2.5) * wide * 0.4
        c.draw.ellipse([left, y - part * 0.35, left + part * 2, y + part * 0.25], fill=colour)


def _skyline(c: _Canvas, tallest: float, depth: float, has_windows: bool) -> None:
    """A row of houses on the horizon; `depth` 0 near … 1 lost in the haze."""
    body = mix(mix(c.mood.ground, (20, 22, 40), 0.25), c.mood.sky[1], depth * 0.75)
    x = -c.width * 0.05
    while x < c.width:
        wide, tall = c.width * c.uniform(0.05, 0.12), c.horizon * c.uniform(0.35, 1.0) * tallest
        tone = mix(body, (255, 255, 255), c.uniform(0, 0.07))
        c.draw.rectangle([x, c.horizon - tall, x + wide, c.horizon], fill=tone)
        if c.uniform(0, 1) < 0.3:
            c.draw.rectangle([x + wide * 0.4, c.horizon - tall * 1.12, x + wide * 0.5, c.horizon - tall], fill=tone)
        if has_windows:
            _windows(c, x, c.horizon - tall, wide, tone)
        x += wide * c.uniform(0.85, 1.2)


def _windows(c: _Canvas, x: float, top: float, wide: float, tone: Rgb) -> None:
    step = max(4.0, c.width * 0.017)
    for row in np.arange(top + step * 0.6, c.horizon - step, step):
        for column in np.arange(x + step * 0.4, x + wide - step * 0.6, step):
            if c.uniform(0, 1) < (0.32 if c.mood.is_dark else 0.7):
                lit = c.mood.glow if c.mood.is_dark else mix(tone, (30, 50, 80), 0.22)
                box = [column, row, column + step * 0.4, row + step * 0.55]
                c.draw.rectangle(box, fill=mix(tone, lit, c.uniform(0.5, 0.95)))
                if c.mood.is_dark:
                    c.glow.rectangle(box, fill=mix((0, 0, 0), lit, 0.35))


def _neon_signs(c: _Canvas, count: int) -> None:
    for _ in range(count):
        colour = c.pick(_NEON)
        x, y = c.uniform(0.02, 0.95) * c.width, c.horizon * c.uniform(0.45, 0.9)
        wide, tall = c.width * 0.012, c.horizon * c.uniform(0.08, 0.2)
        if c.uniform(0, 1) < 0.4:
            wide, tall = tall, wide
        for target in (c.draw, c.glow):
            target.rounded_rectangle([x, y, x + wide, y + tall], 2, fill=colour)


def _lamps(c: _Canvas, count: int) -> None:
    for k in range(count):
        x = c.width * ((k + 0.5) / count + c.uniform(-0.04, 0.04))
        top = c.horizon - c.height * 0.2
        c.draw.line([x, top, x, c.horizon + c.height * 0.05], fill=mix(c.mood.ground, (0, 0, 0), 0.4), width=2)
        c.disc(x, top, c.width * 0.008, c.mood.glow)
        if c.mood.is_dark:
            c.disc(x, top, c.width * 0.014, c.mood.glow, is_light=True)


def _pier(c: _Canvas) -> None:
    _sun_or_moon(c)
    _skyline(c, 0.38, 0.7, has_windows=c.mood.is_dark)
    if c.mood.is_dark:
        _neon_signs(c, 4)
    sea = mix(mix(c.mood.sky[0], (20, 70, 90), 0.45), c.mood.sky[1], 0.15)
    c.fill_ground(mix(sea, (0, 0, 0), 0.25), mix(sea, c.mood.sky[1], 0.4))
    c.reflect(0.5)
    for _ in range(40):
        y = c.horizon + (c.height - c.horizon) * c.uniform(0, 0.55) ** 1.3
        x, long = c.uniform(0, c.width), c.width * c.uniform(0.01, 0.06)
        c.draw.line([x, y, x + long, y], fill=mix(sea, c.mood.sky[1], c.uniform(0.3, 0.7)), width=1)
    wood = mix(mix((128, 98, 74), c.mood.ground, 0.55), c.mood.sky[0], 0.25)
    back, front, middle = c.horizon + (c.height - c.horizon) * 0.34, float(c.height), c.width / 2
    c.draw.polygon([(0, back + 6), (c.width, back + 6), (c.width, front), (0, front)], fill=wood)
    for k in range(-14, 15):
        c.draw.line(
            [middle + k * c.width * 0.06, back + 6, middle + k * c.width * 0.2, front], fill=mix(wood, (0, 0, 0), 0.22)
        )
    c.draw.rectangle([0, back, c.width, back + 6], fill=mix(wood, (255, 255, 255), 0.12))
    for k in range(7):
        x = c.width * (k + 0.5) / 7
        c.draw.rectangle([x - 3, back - c.height * 0.09, x + 3, back + 4], fill=mix(wood, (0, 0, 0), 0.35))
    _lamps(c, 3)


def _street(c: _Canvas) -> None:
    _sun_or_moon(c)
    _skyline(c, 0.95, 0.75, has_windows=False)
    _skyline(c, 0.75, 0.35, has_windows=True)
    if c.mood.is_dark or "neon" in c.words:
        _neon_signs(c, 9)
    c.fill_ground(mix(c.mood.ground, (0, 0, 0), 0.2), mix(c.mood.ground, c.mood.sky[1], 0.25))
    if c.mood.is_dark or c.words & (_WEATHER["rain"] | {"wet"}):
        c.reflect(0.45)
    middle = c.width / 2
    for side in (-1, 1):
        line = mix(c.mood.ground, (255, 255, 255), 0.16)
        c.draw.line(
            [middle + side * c.width * 0.22, c.horizon, middle + side * c.width * 0.8, c.height], fill=line, width=3
        )
    _lamps(c, 4)


def _forest(c: _Canvas) -> None:
    _sun_or_moon(c)
    green = mix((58, 104, 66), c.mood.sky[0], 0.35 if c.mood.is_dark else 0.1)
    for depth in (0.75, 0.45, 0.12):
        tone = mix(mix(green, (0, 0, 0), 0.3 * (1 - depth)), c.mood.sky[1], depth * 0.75)
        for _ in range(16):
            x, tall = c.uniform(-0.05, 1.05) * c.width, c.horizon * c.uniform(0.5, 0.95) * (1.15 - 0.35 * depth)
            wide = tall * c.uniform(0.16, 0.24)
            c.draw.rectangle([x - 2, c.horizon - tall * 0.4, x + 2, c.horizon + 4], fill=mix(tone, (50, 30, 20), 0.4))
            for k in range(3):
                y = c.horizon - tall * (0.2 + 0.25 * k)
                reach = wide * (1 - 0.22 * k)
                c.draw.polygon([(x - reach, y), (x + reach, y), (x, y - tall * 0.36)], fill=tone)
    c.fill_ground(mix(green, (10, 20, 10), 0.35), mix(green, c.mood.sky[1], 0.3))


def _hills(c: _Canvas) -> None:
    _sun_or_moon(c)
    for depth in (0.85, 0.6, 0.3):
        tone = mix(mix((92, 116, 96), c.mood.ground, 0.4), c.mood.sky[1], depth * 0.85)
        phase, x = c.uniform(0, 6), np.arange(0, c.width + 1, 3)
        ridge = np.sin(x / c.width * 7 + phase) + 0.5 * np.sin(x / c.width * 17 + 2 * phase)
        y = c.horizon - c.horizon * (0.12 + 0.3 * depth) * (0.7 + 0.25 * ridge)
        c.draw.polygon([(0, c.height), *zip(x.tolist(), y.tolist(), strict=True), (c.width, c.height)], fill=tone)
    c.fill_ground(mix((104, 120, 84), c.mood.ground, 0.5), mix((130, 146, 104), c.mood.sky[1], 0.4))


def _room(c: _Canvas) -> None:
    wall = mix(
        c.pick(((176, 128, 92), (122, 138, 132), (150, 110, 110), (168, 146, 104))), (30, 26, 44), 0.45 * c.mood.is_dark
    )
    c.picture.paste(gradient(c.width, c.height, [(0, mix(wall, (0, 0, 0), 0.15)), (1, wall)]))
    count = 3
    for k in range(count):
        left, wide = c.width * (k + 0.18) / count, c.width * 0.64 / count
        top, tall = c.horizon * 0.16, c.horizon * 0.52
        frame = mix(wall, (40, 26, 20), 0.5)
        c.draw.rectangle([left - 4, top - 4, left + wide + 4, top + tall + 4], fill=frame)
        c.picture.paste(
            gradient(round(wide), round(tall), [(0, c.mood.sky[0]), (1, c.mood.sky[1])]), (round(left), round(top))
        )
        c.draw.line([left + wide / 2, top, left + wide / 2, top + tall], fill=frame, width=3)
    c.draw.rectangle([0, c.horizon * 0.82, c.width, c.horizon], fill=mix(wall, (60, 36, 24), 0.4))
    floor = mix(wall, (70, 44, 30), 0.6)
    c.fill_ground(mix(floor, (0, 0, 0), 0.2), floor)
    for k in range(3):
        x = c.width * (k + 0.5) / 3 + c.uniform(-10, 10)
        c.draw.line([x, 0, x, c.horizon * 0.1], fill=(40, 34, 34), width=2)
        c.disc(x, c.horizon * 0.1, c.width * 0.018, (255, 214, 150))
        c.disc(x, c.horizon * 0.1, c.width * 0.03, (150, 112, 66), is_light=True)


def _backdrop(c: _Canvas) -> None:
    tone = c.pick(_furthest_tones(c.cast))
    if "white" in c.words and "background" in c.words:
        tone = (214, 214, 212)
    if c.mood.is_dark or c.words & {"dramatic", "moody"}:
        tone = mix(tone, (16, 18, 30), 0.6)
    c.picture.paste(
        gradient(
            c.width, c.height, [(0, mix(tone, (0, 0, 0), 0.16)), (0.6, mix(tone, (255, 255, 255), 0.2)), (1, tone)]
        )
    )
    for _ in range(7):
        radius = c.width * c.uniform(0.04, 0.1)
        c.disc(
            c.uniform(0, c.width),
            c.uniform(0, c.height * 0.7),
            radius,
            mix((0, 0, 0), c.mood.glow, 0.045),
            is_light=True,
        )


_TONES: tuple[Rgb, ...] = (
    (92, 118, 138), (138, 122, 110), (104, 126, 112), (126, 112, 140), (120, 132, 144),
    (176, 148, 128), (132, 160, 164), (168, 152, 176), (156, 168, 138), (76, 96, 112),
)  # fmt: skip


def _furthest_tones(cast: Pixels | None) -> tuple[Rgb, ...]:
    """The two backdrop tones that the least of the cast's colours come near to; all where there is no cast."""
    if cast is None or not len(cast):
        return _TONES[:5]
    apart = [float(np.percentile(np.abs(cast - np.asarray(tone, np.float32)).sum(axis=1), 6)) for tone in _TONES]
    return tuple(_TONES[k] for k in np.argsort(apart)[-2:])


_PLACES: tuple[tuple[str, Callable[[_Canvas], None], float], ...] = (
    (
        "room interior indoors indoor office tram cafe bar kitchen cabin train bedroom house inside restaurant",
        _room,
        0.74,
    ),
    ("pier harbor harbour sea beach dock boat ocean quay lighthouse port bridge river lake ship", _pier, 0.5),
    ("forest wood woods park garden trees jungle", _forest, 0.66),
    ("mountain mountains field hill hills desert meadow countryside cliff road", _hills, 0.68),
    ("city street neon alley rooftop market town square downtown buildings sidewalk corner crosswalk", _street, 0.64),
)


def _painter(words: Words) -> tuple[Callable[[_Canvas], None], float]:
    for names, painter, horizon in _PLACES:
        if words & set(names.split()):
            return painter, horizon
    return _backdrop, 0.8


def _mood(words: Words, painter: Callable[[_Canvas], None], random: np.random.Generator) -> Mood:
    for names, mood in _MOODS:
        if words & set(names.split()):
            return mood
    if painter is _backdrop or painter is _room:
        return _DAY
    return (_DAY, _DUSK, _DAWN)[int(random.integers(3))]


def _vignette(picture: Image.Image, strength: float) -> Image.Image:
    side = 64
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    dark = np.clip((x * x + y * y) / 2, 0, 1) * 255 * strength
    mask = Image.fromarray(dark.astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    picture.paste((8, 8, 16), (0, 0, *picture.size), mask)
    return picture
