"""The stage of the quality test set: people and places under a moving camera, and the films made of them.

A film knows what is true of each of its frames, and is drawn frame by frame while it is encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from domain.looks import Bars
from studio.demo.cast import CAST, draw_character, random_design
from studio.demo.scenes import paint_scene

WIDTH, HEIGHT, RATE = 640, 360, 25
KEYFRAME_EVERY: Final = 13
"""Frames: 0.52 s, so that most keyframes become looks, whatever else decides about decoding."""

SECONDS: Final = 6.0

Picture = NDArray[np.uint8]


class Flaw(StrEnum):
    """What is wrong with a frame; `UNSCORED` ones lie so near a border that either answer is right."""

    NONE = "none"
    BLURRED = "blurred"
    DARK = "too dark"
    BRIGHT = "too bright"
    FLAT = "flat"
    BLANK = "black or blank"
    NOISY = "noisy"
    FADE = "fade or dissolve"
    CUT = "on a cut"
    FROZEN = "frozen"
    UNSCORED = "unscored"


class Half(StrEnum):
    """Which half of the test set."""

    DEVELOPMENT = "development"
    HELD_OUT = "held-out"


@dataclass(frozen=True)
class Film:
    """One clip to be: its pictures by frame number, and what is true of each."""

    case: str
    half: Half
    seed: int
    picture: Callable[[int], Picture]
    flaws: tuple[Flaw, ...]
    bars: Bars = field(default_factory=Bars)
    has_text: bool = False
    """Burnt-in text that no bar holds: the kept frames must be marked, and those of other films not."""

    shots: int | None = 1
    """None where a step of light may as well count as a new shot."""

    crf: int = 20
    """x264's rate factor: 20 is good, 36 coarse."""

    is_still: bool = False
    """Its shots are slides, each of which keeps one frame."""

    @property
    def name(self) -> str:
        return f"{self.half}-{self.case.replace(' ', '_')}-{self.seed}"


class Stage:
    """A place with a person in it, filmed by a moving camera: `frame(seconds)` is 640×360 RGB as floats."""

    def __init__(
        self, half: Half, seed: int, *, sway: float = 1.0, pace: float = 1.0, drawn: bool | None = None
    ) -> None:
        rng = np.random.default_rng((0 if half is Half.DEVELOPMENT else 1, seed))
        self._rng = rng
        is_drawn = seed % 2 == 0 if drawn is None else drawn
        places = ("market", "tram", "pier") if half is Half.DEVELOPMENT else ("lighthouse", "rain_street", "rooftop")
        self.place = _scene(places[seed // 2 % 3]) if is_drawn else _texture(int(rng.integers(1 << 30)))
        self._person = _person(half, seed)
        self._phase = rng.uniform(0, 6.28, 4)
        self._speed = rng.uniform(0.2, 0.5, 4)
        self._sway = sway
        self._pace = pace

    def frame(self, seconds: float) -> NDArray[np.float32]:
        pace = self._pace
        wave = np.sin(self._phase + self._speed * pace * seconds * 2) * self._sway
        half_width = 470 + 40 * wave[0]
        x, y = 640 + 110 * wave[1], 360 + 60 * wave[2]
        box = (x - half_width, y - half_width * 9 / 16, x + half_width, y + half_width * 9 / 16)
        box = (max(0.0, box[0]), max(0.0, box[1]), min(1280.0, box[2]), min(720.0, box[3]))
        picture = self.place.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=box)
        sway = np.sin(self._phase + 1.1 * pace * seconds) * self._sway
        place = (round(WIDTH / 2 - 150 + 70 * sway[3] - 40 * wave[1]), round(50 + 12 * sway[2]))
        picture.paste(self._person, place, self._person)
        return np.asarray(picture, np.float32)

    def swept(self, seconds: float, across: float, down: float = 0.0, parts: int = 12) -> NDArray[np.float32]:
        """The frame smeared over so many pixels, as by a moving camera."""
        steps = [
            np.roll(self.frame(seconds), (round(down * k / parts), round(across * k / parts)), (0, 1))
            for k in range(parts)
        ]
        smeared: NDArray[np.float32] = np.mean(steps, axis=0, dtype=np.float32)
        return smeared


def encode(film: Film, folder: Path) -> Path:
    """Write the film as H.264 in MP4 (x264 veryfast, a keyframe each 13 frames); about 2 s of one core."""
    path = folder / f"{film.name}.mp4"
    options = {"preset": "veryfast", "crf": str(film.crf), "sc_threshold": "0", "bf": "2"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = KEYFRAME_EVERY
        for index in range(len(film.flaws)):
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(film.picture(index)), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


FRAMES: Final = round(SECONDS * RATE)
Painter = Callable[[float], NDArray[np.float32]]


def film(case: str, half: Half, seed: int, paint: Painter, flaws: list[Flaw] | None = None, **more: object) -> Film:
    """A film of six seconds from what is to be seen at each of them; sound throughout unless `flaws` say otherwise."""

    def picture(index: int) -> Picture:
        return pixels(paint(index / RATE))

    return Film(case, half, seed, picture, tuple(flaws or [Flaw.NONE] * FRAMES), **more)  # type: ignore[arg-type]


def within(start: float, end: float, flaw: Flaw, *, border: float = 0.12) -> list[Flaw]:
    """`flaw` from start to end, nothing elsewhere, and nothing scored near the borders."""
    flaws = []
    for index in range(FRAMES):
        at = index / RATE
        near = min(abs(at - start), abs(at - end)) < border
        flaws.append(Flaw.UNSCORED if near else flaw if start <= at < end else Flaw.NONE)
    return flaws


def strength(half: Half, seed: int, low: float, high: float) -> float:
    """A number between the two, another one for each half and seed."""
    return float(np.random.default_rng((7, half is Half.HELD_OUT, seed)).uniform(low, high))


def pixels(frame: NDArray[np.float32]) -> Picture:
    """The frame as 8-bit values, rounded and kept within bounds."""
    rounded: Picture = np.clip(frame + 0.5, 0, 255).astype(np.uint8)
    return rounded


def softened(frame: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    blurred = Image.fromarray(pixels(frame)).filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(blurred, np.float32)


@lru_cache(maxsize=8)
def _scene(place: str) -> Image.Image:
    return paint_scene(place).picture.convert("RGB").resize((1280, 720))


def _texture(seed: int) -> Image.Image:
    """Something like a photo: coloured clouds at every scale, and a few hundred flat shapes with edges before them."""
    rng = np.random.default_rng(seed)
    total = np.zeros((720, 1280, 3), np.float32)
    for step, weight in ((2, 90.0), (6, 50.0), (20, 26.0), (80, 14.0), (320, 9.0)):
        cells = rng.uniform(-1, 1, (step * 9 // 16 + 2, step + 2, 3)).astype(np.float32)
        layers = [
            np.asarray(Image.fromarray(cells[:, :, c]).resize((1280, 720), Image.Resampling.BICUBIC)) for c in range(3)
        ]
        total += weight * np.stack(layers, axis=2)
    picture = Image.fromarray(pixels(total + 125))
    pen = ImageDraw.Draw(picture)
    for _ in range(260):
        x, y, size = rng.uniform(0, 1280), rng.uniform(0, 720), rng.uniform(6, 60)
        angles = np.sort(rng.uniform(0, 6.28, int(rng.integers(3, 8))))
        shape = [(x + size * np.cos(a), y + size * np.sin(a)) for a in angles]
        pen.polygon(shape, fill=tuple(int(v) for v in rng.integers(10, 245, 3)))
    return picture


@lru_cache(maxsize=16)
def _person(half: Half, seed: int) -> Image.Image:
    who = list(CAST.values())[seed % 4] if half is Half.DEVELOPMENT else random_design(40_000 + seed)
    view = ("front", "three_quarter", "profile")[seed % 3]
    return draw_character(who, view, size=330, framing=("bust", "full")[seed // 2 % 2], background=None)
