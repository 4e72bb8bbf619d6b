"""The quality test set: small clips drawn by the project, each frame's flaw known, for `benchmarks.frame_quality`.

Two halves that share nothing but the rules of drawing: `DEVELOPMENT` (three painted places, the cast, textures of one
range of seeds) was looked at while the thresholds were chosen, `HELD_OUT` (three other places, other people, other
seeds and strengths) was not. Every case has its other side: a flaw, and the innocent thing that resembles it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.quality_stage import (
    HEIGHT,
    KEYFRAME_EVERY,
    RATE,
    SECONDS,
    WIDTH,
    Film,
    Flaw,
    Half,
    Picture,
    Stage,
    pixels,
    softened,
)
from domain.looks import Bars


def film_of(half: Half, case: int, variant: int) -> Film:
    """The film of a case (its place in `CASES`): each variant has another place, person and strength."""
    first = 0 if half is Half.DEVELOPMENT else 100
    return CASES[case](half, first + 2 * case + 3 * variant)


_FRAMES: Final = round(SECONDS * RATE)
Painter = Callable[[float], NDArray[np.float32]]


def _film(case: str, half: Half, seed: int, paint: Painter, flaws: list[Flaw] | None = None, **more: object) -> Film:
    def picture(index: int) -> Picture:
        return pixels(paint(index / RATE))

    return Film(case, half, seed, picture, tuple(flaws or [Flaw.NONE] * _FRAMES), **more)  # type: ignore[arg-type]


def _within(start: float, end: float, flaw: Flaw, *, border: float = 0.12) -> list[Flaw]:
    """`flaw` from start to end, nothing elsewhere, and nothing scored near the borders."""
    flaws = []
    for index in range(_FRAMES):
        at = index / RATE
        near = min(abs(at - start), abs(at - end)) < border
        flaws.append(Flaw.UNSCORED if near else flaw if start <= at < end else Flaw.NONE)
    return flaws


def _strength(half: Half, seed: int, low: float, high: float) -> float:
    return float(np.random.default_rng((7, half is Half.HELD_OUT, seed)).uniform(low, high))


def _plain(half: Half, seed: int) -> Film:
    return _film("ordinary motion", half, seed, Stage(half, seed).frame)


def _action(half: Half, seed: int) -> Film:
    return _film("fast motion", half, seed, Stage(half, seed, pace=2.6).frame)


def _coarse(half: Half, seed: int) -> Film:
    return _film("coarse compression", half, seed, Stage(half, seed).frame, crf=36)


def _defocused(case: str, low: float, high: float) -> Callable[[Half, int], Film]:
    def make(half: Half, seed: int) -> Film:
        stage, sigma = Stage(half, seed), _strength(half, seed, low, high)

        def paint(at: float) -> NDArray[np.float32]:
            return softened(stage.frame(at), sigma) if 1.5 <= at < 3.5 else stage.frame(at)

        return _film(case, half, seed, paint, _within(1.5, 3.5, Flaw.BLURRED))

    return make


def _smeared(case: str, low: float, high: float) -> Callable[[Half, int], Film]:
    def make(half: Half, seed: int) -> Film:
        stage, reach = Stage(half, seed), _strength(half, seed, low, high)
        down = reach if seed % 3 == 0 else 0.0

        def paint(at: float) -> NDArray[np.float32]:
            return stage.swept(at, 0.0 if down else reach, down) if 2 <= at < 4 else stage.frame(at)

        return _film(case, half, seed, paint, _within(2, 4, Flaw.BLURRED))

    return make


def _shaken(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)
    rng = np.random.default_rng(seed)
    offsets = rng.integers(-3, 4, (_FRAMES, 2))

    def paint(at: float) -> NDArray[np.float32]:
        dx, dy = offsets[min(round(at * RATE), _FRAMES - 1)]
        return np.roll(stage.swept(at, 2.0, parts=3), (int(dy), int(dx)), (0, 1))

    return _film("slight shake", half, seed, paint)


def _shallow(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)
    stage.place = stage.place.filter(ImageFilter.GaussianBlur(_strength(half, seed, 7, 14)))
    return _film("sharp person before soft background", half, seed, stage.frame)


def _plain_wall(half: Half, seed: int) -> Film:
    """A shot full of detail, then the same person before a plain wall: much less of everything, and just as sharp."""
    busy, calm = Stage(half, seed, drawn=False), Stage(half, seed + 1)
    calm.place = Image.new("RGB", (1280, 720), (150, 140 + seed % 30, 128))

    def paint(at: float) -> NDArray[np.float32]:
        return busy.frame(at) if at < 3 else calm.frame(at)

    return _film("plain wall after busy street", half, seed, paint, _within(3, 3, Flaw.NONE, border=0.28), shots=2)


def _all_soft(half: Half, seed: int) -> Film:
    stage, sigma = Stage(half, seed), _strength(half, seed, 5, 8)
    return _film(
        "out of focus throughout", half, seed, lambda at: softened(stage.frame(at), sigma), [Flaw.BLURRED] * _FRAMES
    )


def _a_little_soft(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)
    return _film("a little soft throughout", half, seed, lambda at: softened(stage.frame(at), 0.9))


def _dark(half: Half, seed: int) -> Film:
    stage, light = Stage(half, seed), _strength(half, seed, 0.05, 0.10)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * (light if 2 <= at < 4 else 1)

    return _film("light goes out", half, seed, paint, _within(2, 4, Flaw.DARK, border=0.22), shots=None)


def _dusk(half: Half, seed: int) -> Film:
    stage, light = Stage(half, seed), _strength(half, seed, 0.4, 0.5)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * (light if 2 <= at < 4 else 1)

    return _film("shade", half, seed, paint, _within(2, 4, Flaw.NONE, border=0.22), shots=None)


def _night(half: Half, seed: int) -> Film:
    stage, light = Stage(half, seed), _strength(half, seed, 0.28, 0.4)
    rng = np.random.default_rng(seed)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * light + rng.normal(0, 2, (HEIGHT, WIDTH, 1)).astype(np.float32)

    return _film("night throughout", half, seed, paint)


def _pitch_dark(half: Half, seed: int) -> Film:
    stage, light = Stage(half, seed), _strength(half, seed, 0.03, 0.06)
    return _film("pitch dark throughout", half, seed, lambda at: stage.frame(at) * light, [Flaw.DARK] * _FRAMES)


def _overexposed(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * 2.5 + 160 if 2 <= at < 4 else stage.frame(at)

    return _film("overexposed", half, seed, paint, _within(2, 4, Flaw.BRIGHT, border=0.22), shots=None)


def _snow(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)
    ground = Image.effect_noise((1280, 720), 12).convert("RGB")
    stage.place = Image.blend(Image.new("RGB", (1280, 720), (250, 251, 255)), ground, 0.12)
    return _film("person in snow", half, seed, stage.frame)


def _fog(half: Half, seed: int) -> Film:
    stage, depth = Stage(half, seed), _strength(half, seed, 0.03, 0.06)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * depth + 150 if 2 <= at < 4 else stage.frame(at)

    return _film("fog", half, seed, paint, _within(2, 4, Flaw.FLAT, border=0.22), shots=None)


def _mist(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * 0.4 + 100 if 2 <= at < 4 else stage.frame(at)

    return _film("mist", half, seed, paint, _within(2, 4, Flaw.NONE, border=0.22), shots=None)


def _grained(case: str, deviation: float, blur: float, flaw: Flaw) -> Callable[[Half, int], Film]:
    def make(half: Half, seed: int) -> Film:
        stage, rng = Stage(half, seed), np.random.default_rng(seed)

        def paint(at: float) -> NDArray[np.float32]:
            frame = stage.frame(at)
            if 2 <= at < 4:
                frame = softened(frame, blur) if blur else frame
                frame = frame + rng.normal(0, deviation, (HEIGHT, WIDTH, 1)).astype(np.float32)
            return frame

        return _film(case, half, seed, paint, _within(2, 4, flaw, border=0.22))

    return make


def _cut(case: str, *, is_blended: bool) -> Callable[[Half, int], Film]:
    """Two cuts, each exactly at a keyframe; a blended one shows both shots in that one frame."""
    at_frames = (4 * KEYFRAME_EVERY, 8 * KEYFRAME_EVERY)

    def make(half: Half, seed: int) -> Film:
        stages = [Stage(half, seed + k) for k in (0, 3, 5)]

        def paint(at: float) -> NDArray[np.float32]:
            index = round(at * RATE)
            shot = sum(index >= cut for cut in at_frames)
            frame = stages[shot].frame(at)
            if is_blended and index in at_frames:
                frame = (frame + stages[shot - 1].frame(at)) * np.float32(0.5)
            return frame

        flaws = [Flaw.NONE] * _FRAMES
        for cut in at_frames:
            for index in range(cut - 6, cut):
                flaws[index] = Flaw.UNSCORED
            flaws[cut] = Flaw.CUT if is_blended else Flaw.NONE
        return _film(case, half, seed, paint, flaws, shots=3)

    return make


def _fade(case: str, level: float, *, is_in: bool) -> Callable[[Half, int], Film]:
    def make(half: Half, seed: int) -> Film:
        stage, length = Stage(half, seed), _strength(half, seed, 0.8, 1.6)
        start = 0.4 if is_in else SECONDS - 0.4 - length

        def share(at: float) -> float:
            gone = float(np.clip((at - start) / length, 0, 1))
            return gone if is_in else 1 - gone

        def paint(at: float) -> NDArray[np.float32]:
            return stage.frame(at) * share(at) + level * (1 - share(at))

        def flaw(at: float) -> Flaw:
            seen = share(at)
            return Flaw.NONE if seen >= 1 else Flaw.BLANK if seen <= 0 else Flaw.FADE if seen < 0.85 else Flaw.UNSCORED

        flaws = [flaw(index / RATE) for index in range(_FRAMES)]
        if not is_in:  # the burst of a frame just before a fade reaches into it
            first = next(index for index, what in enumerate(flaws) if what is not Flaw.NONE)
            flaws[max(0, first - 5) : first] = [Flaw.UNSCORED] * min(5, first)
        return _film(case, half, seed, paint, flaws, shots=None)

    return make


def _dissolved(case: str, low: float, high: float, *, sway: float) -> Callable[[Half, int], Film]:
    def make(half: Half, seed: int) -> Film:
        one, other = Stage(half, seed, sway=sway), Stage(half, seed + 3, sway=sway)
        length = _strength(half, seed, low, high)
        start = 3 - length / 2

        def share(at: float) -> float:
            return float(np.clip((at - start) / length, 0, 1))

        def paint(at: float) -> NDArray[np.float32]:
            return one.frame(at) * (1 - share(at)) + other.frame(at) * share(at)

        def flaw(at: float) -> Flaw:
            if at < start - 0.2 or at >= start + length:
                return Flaw.NONE
            return Flaw.FADE if 0.1 < share(at) < 0.9 else Flaw.UNSCORED

        flaws = [flaw(index / RATE) for index in range(_FRAMES)]
        return _film(case, half, seed, paint, flaws, shots=2)

    return make


def _slow_move(half: Half, seed: int) -> Film:
    return _film("slow camera", half, seed, Stage(half, seed, sway=0.12).frame)


def _freeze(half: Half, seed: int) -> Film:
    stage, start = Stage(half, seed), _strength(half, seed, 1.5, 2.5)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(min(at, start) if at < start + 2 else at - 2)

    return _film("freeze", half, seed, paint, _within(start, start + 2, Flaw.FROZEN, border=0.22))


def _calm_talk(half: Half, seed: int) -> Film:
    """Nothing moves but the person, a little, before a fixed camera."""
    stage = Stage(half, seed, sway=0.0)
    backdrop = stage.frame(0)
    stage_moving = Stage(half, seed, sway=0.15)

    def paint(at: float) -> NDArray[np.float32]:
        picture = Image.fromarray(pixels(backdrop))
        person = stage_moving._person
        picture.paste(person, (round(170 + 8 * np.sin(2.1 * at)), round(52 + 4 * np.sin(3.7 * at))), person)
        return np.asarray(picture, np.float32)

    return _film("calm talk", half, seed, paint)


def _slides(half: Half, seed: int) -> Film:
    stages = [Stage(half, seed + k) for k in (0, 1, 2)]
    stills = [stage.frame(1.0) for stage in stages]
    unscored = [Flaw.UNSCORED] * _FRAMES
    return _film("slides", half, seed, lambda at: stills[min(2, int(at // 2))], unscored, is_still=True, shots=3)


def _boxed(case: str, top: int, side: int, *, is_night: bool = False, subtitle: bool = False) -> Callable[..., Film]:
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

        return _film(case, half, seed, paint, bars=Bars(left=width, top=height, right=width, bottom=height))

    return make


def _night_sky(half: Half, seed: int) -> Film:
    """A black sky over roofs of uneven height: no bar."""
    stage = Stage(half, seed)
    rng = np.random.default_rng(seed)
    roofs = np.repeat(rng.integers(60, 150, 16), WIDTH // 16)
    mask = np.arange(HEIGHT)[:, None] < roofs[None, :]

    def paint(at: float) -> NDArray[np.float32]:
        frame = stage.frame(at).copy()
        frame[np.roll(mask, round(6 * at), axis=1)] = 4
        return frame

    return _film("night sky", half, seed, paint)


def _dark_top(half: Half, seed: int) -> Film:
    """A room that gets dark towards the ceiling, without an edge: no bar."""
    stage = Stage(half, seed)
    ramp = (np.arange(HEIGHT, dtype=np.float32) - 30) / 160
    light: NDArray[np.float32] = np.clip(ramp, 0.02, 1).astype(np.float32)[:, None, None]
    return _film("dark ceiling", half, seed, lambda at: stage.frame(at) * light)


def _subtitled(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)

    def paint(at: float) -> NDArray[np.float32]:
        picture = Image.fromarray(pixels(stage.frame(at)))
        _write(picture, _line(seed, at), bottom=HEIGHT - 22)
        return np.asarray(picture, np.float32)

    return _film("subtitles", half, seed, paint, has_text=True)


def _logo(half: Half, seed: int) -> Film:
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

    return _film("corner logo", half, seed, paint, has_text=True)


def _busy_bottom(half: Half, seed: int) -> Film:
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

    return _film("fence and windows", half, seed, paint)


CASES: Final[tuple[Callable[[Half, int], Film], ...]] = (
    _plain,
    _action,
    _defocused("defocus", 3.0, 6.0),
    _smeared("motion blur", 18, 40),
    _shaken,
    _shallow,
    _plain_wall,
    _all_soft,
    _a_little_soft,
    _dark,
    _dusk,
    _night,
    _pitch_dark,
    _overexposed,
    _snow,
    _fog,
    _mist,
    _grained("heavy noise", 60, 0, Flaw.NOISY),
    _grained("film grain", 10, 0, Flaw.NONE),
    _grained("grain over defocus", 14, 4.5, Flaw.BLURRED),
    _cut("hard cuts", is_blended=False),
    _cut("one-frame blended cuts", is_blended=True),
    _fade("fade from black", 0, is_in=True),
    _fade("fade to black", 0, is_in=False),
    _fade("fade from white", 255, is_in=True),
    _fade("fade to white", 255, is_in=False),
    _dissolved("dissolve", 0.7, 2.0, sway=1.0),
    _slow_move,
    _freeze,
    _calm_talk,
    _slides,
    _boxed("letterbox", 44, 0),
    _boxed("letterbox at night", 44, 0, is_night=True),
    _boxed("pillarbox", 0, 80),
    _boxed("letterbox with subtitles in it", 44, 0, subtitle=True),
    _night_sky,
    _dark_top,
    _subtitled,
    _logo,
    _busy_bottom,
    _coarse,
    _defocused("mild defocus", 1.8, 2.6),
    _smeared("short smear", 9, 14),
    _dissolved("slow dissolve of calm shots", 2.5, 3.5, sway=0.15),
)


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
