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
from PIL import Image, ImageFilter

from benchmarks.quality_overlays import boxed, busy_bottom, dark_top, logo, night_sky, subtitled
from benchmarks.quality_stage import (
    FRAMES,
    HEIGHT,
    KEYFRAME_EVERY,
    RATE,
    SECONDS,
    WIDTH,
    Film,
    Flaw,
    Half,
    Stage,
    film,
    pixels,
    softened,
    strength,
    within,
)


def film_of(half: Half, case: int, variant: int) -> Film:
    """The film of a case (its place in `CASES`): each variant has another place, person and strength."""
    first = 0 if half is Half.DEVELOPMENT else 100
    return CASES[case](half, first + 2 * case + 3 * variant)


def _plain(half: Half, seed: int) -> Film:
    return film("ordinary motion", half, seed, Stage(half, seed).frame)


def _action(half: Half, seed: int) -> Film:
    return film("fast motion", half, seed, Stage(half, seed, pace=2.6).frame)


def _coarse(half: Half, seed: int) -> Film:
    return film("coarse compression", half, seed, Stage(half, seed).frame, crf=36)


def _defocused(case: str, low: float, high: float) -> Callable[[Half, int], Film]:
    def make(half: Half, seed: int) -> Film:
        stage, sigma = Stage(half, seed), strength(half, seed, low, high)

        def paint(at: float) -> NDArray[np.float32]:
            return softened(stage.frame(at), sigma) if 1.5 <= at < 3.5 else stage.frame(at)

        return film(case, half, seed, paint, within(1.5, 3.5, Flaw.BLURRED))

    return make


def _smeared(case: str, low: float, high: float) -> Callable[[Half, int], Film]:
    def make(half: Half, seed: int) -> Film:
        stage, reach = Stage(half, seed), strength(half, seed, low, high)
        down = reach if seed % 3 == 0 else 0.0

        def paint(at: float) -> NDArray[np.float32]:
            return stage.swept(at, 0.0 if down else reach, down) if 2 <= at < 4 else stage.frame(at)

        return film(case, half, seed, paint, within(2, 4, Flaw.BLURRED))

    return make


def _shaken(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)
    rng = np.random.default_rng(seed)
    offsets = rng.integers(-3, 4, (FRAMES, 2))

    def paint(at: float) -> NDArray[np.float32]:
        dx, dy = offsets[min(round(at * RATE), FRAMES - 1)]
        return np.roll(stage.swept(at, 2.0, parts=3), (int(dy), int(dx)), (0, 1))

    return film("slight shake", half, seed, paint)


def _shallow(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)
    stage.place = stage.place.filter(ImageFilter.GaussianBlur(strength(half, seed, 7, 14)))
    return film("sharp person before soft background", half, seed, stage.frame)


def _plain_wall(half: Half, seed: int) -> Film:
    """A shot full of detail, then the same person before a plain wall: much less of everything, and just as sharp."""
    busy, calm = Stage(half, seed, drawn=False), Stage(half, seed + 1)
    calm.place = Image.new("RGB", (1280, 720), (150, 140 + seed % 30, 128))

    def paint(at: float) -> NDArray[np.float32]:
        return busy.frame(at) if at < 3 else calm.frame(at)

    return film("plain wall after busy street", half, seed, paint, within(3, 3, Flaw.NONE, border=0.28), shots=2)


def _all_soft(half: Half, seed: int) -> Film:
    stage, sigma = Stage(half, seed), strength(half, seed, 5, 8)
    return film(
        "out of focus throughout", half, seed, lambda at: softened(stage.frame(at), sigma), [Flaw.BLURRED] * FRAMES
    )


def _a_little_soft(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)
    return film("a little soft throughout", half, seed, lambda at: softened(stage.frame(at), 0.9))


def _dark(half: Half, seed: int) -> Film:
    stage, light = Stage(half, seed), strength(half, seed, 0.05, 0.10)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * (light if 2 <= at < 4 else 1)

    return film("light goes out", half, seed, paint, within(2, 4, Flaw.DARK, border=0.22), shots=None)


def _dusk(half: Half, seed: int) -> Film:
    stage, light = Stage(half, seed), strength(half, seed, 0.4, 0.5)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * (light if 2 <= at < 4 else 1)

    return film("shade", half, seed, paint, within(2, 4, Flaw.NONE, border=0.22), shots=None)


def _night(half: Half, seed: int) -> Film:
    stage, light = Stage(half, seed), strength(half, seed, 0.28, 0.4)
    rng = np.random.default_rng(seed)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * light + rng.normal(0, 2, (HEIGHT, WIDTH, 1)).astype(np.float32)

    return film("night throughout", half, seed, paint)


def _pitch_dark(half: Half, seed: int) -> Film:
    stage, light = Stage(half, seed), strength(half, seed, 0.03, 0.06)
    return film("pitch dark throughout", half, seed, lambda at: stage.frame(at) * light, [Flaw.DARK] * FRAMES)


def _overexposed(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * 2.5 + 160 if 2 <= at < 4 else stage.frame(at)

    return film("overexposed", half, seed, paint, within(2, 4, Flaw.BRIGHT, border=0.22), shots=None)


def _snow(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)
    ground = Image.effect_noise((1280, 720), 12).convert("RGB")
    stage.place = Image.blend(Image.new("RGB", (1280, 720), (250, 251, 255)), ground, 0.12)
    return film("person in snow", half, seed, stage.frame)


def _fog(half: Half, seed: int) -> Film:
    stage, depth = Stage(half, seed), strength(half, seed, 0.03, 0.06)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * depth + 150 if 2 <= at < 4 else stage.frame(at)

    return film("fog", half, seed, paint, within(2, 4, Flaw.FLAT, border=0.22), shots=None)


def _mist(half: Half, seed: int) -> Film:
    stage = Stage(half, seed)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(at) * 0.4 + 100 if 2 <= at < 4 else stage.frame(at)

    return film("mist", half, seed, paint, within(2, 4, Flaw.NONE, border=0.22), shots=None)


def _grained(case: str, deviation: float, blur: float, flaw: Flaw) -> Callable[[Half, int], Film]:
    def make(half: Half, seed: int) -> Film:
        stage, rng = Stage(half, seed), np.random.default_rng(seed)

        def paint(at: float) -> NDArray[np.float32]:
            frame = stage.frame(at)
            if 2 <= at < 4:
                frame = softened(frame, blur) if blur else frame
                frame = frame + rng.normal(0, deviation, (HEIGHT, WIDTH, 1)).astype(np.float32)
            return frame

        return film(case, half, seed, paint, within(2, 4, flaw, border=0.22))

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

        flaws = [Flaw.NONE] * FRAMES
        for cut in at_frames:
            for index in range(cut - 6, cut):
                flaws[index] = Flaw.UNSCORED
            flaws[cut] = Flaw.CUT if is_blended else Flaw.NONE
        return film(case, half, seed, paint, flaws, shots=3)

    return make


def _fade(case: str, level: float, *, is_in: bool) -> Callable[[Half, int], Film]:
    def make(half: Half, seed: int) -> Film:
        stage, length = Stage(half, seed), strength(half, seed, 0.8, 1.6)
        start = 0.4 if is_in else SECONDS - 0.4 - length

        def share(at: float) -> float:
            gone = float(np.clip((at - start) / length, 0, 1))
            return gone if is_in else 1 - gone

        def paint(at: float) -> NDArray[np.float32]:
            return stage.frame(at) * share(at) + level * (1 - share(at))

        def flaw(at: float) -> Flaw:
            seen = share(at)
            return Flaw.NONE if seen >= 1 else Flaw.BLANK if seen <= 0 else Flaw.FADE if seen < 0.85 else Flaw.UNSCORED

        flaws = [flaw(index / RATE) for index in range(FRAMES)]
        if not is_in:  # the burst of a frame just before a fade reaches into it
            first = next(index for index, what in enumerate(flaws) if what is not Flaw.NONE)
            flaws[max(0, first - 5) : first] = [Flaw.UNSCORED] * min(5, first)
        return film(case, half, seed, paint, flaws, shots=None)

    return make


def _dissolved(case: str, low: float, high: float, *, sway: float) -> Callable[[Half, int], Film]:
    def make(half: Half, seed: int) -> Film:
        one, other = Stage(half, seed, sway=sway), Stage(half, seed + 3, sway=sway)
        length = strength(half, seed, low, high)
        start = 3 - length / 2

        def share(at: float) -> float:
            return float(np.clip((at - start) / length, 0, 1))

        def paint(at: float) -> NDArray[np.float32]:
            return one.frame(at) * (1 - share(at)) + other.frame(at) * share(at)

        def flaw(at: float) -> Flaw:
            if at < start - 0.2 or at >= start + length:
                return Flaw.NONE
            return Flaw.FADE if 0.1 < share(at) < 0.9 else Flaw.UNSCORED

        flaws = [flaw(index / RATE) for index in range(FRAMES)]
        return film(case, half, seed, paint, flaws, shots=2)

    return make


def _slow_move(half: Half, seed: int) -> Film:
    return film("slow camera", half, seed, Stage(half, seed, sway=0.12).frame)


def _freeze(half: Half, seed: int) -> Film:
    stage, start = Stage(half, seed), strength(half, seed, 1.5, 2.5)

    def paint(at: float) -> NDArray[np.float32]:
        return stage.frame(min(at, start) if at < start + 2 else at - 2)

    return film("freeze", half, seed, paint, within(start, start + 2, Flaw.FROZEN, border=0.22))


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

    return film("calm talk", half, seed, paint)


def _slides(half: Half, seed: int) -> Film:
    stages = [Stage(half, seed + k) for k in (0, 1, 2)]
    stills = [stage.frame(1.0) for stage in stages]
    unscored = [Flaw.UNSCORED] * FRAMES
    return film("slides", half, seed, lambda at: stills[min(2, int(at // 2))], unscored, is_still=True, shots=3)


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
    boxed("letterbox", 44, 0),
    boxed("letterbox at night", 44, 0, is_night=True),
    boxed("pillarbox", 0, 80),
    boxed("letterbox with subtitles in it", 44, 0, subtitle=True),
    night_sky,
    dark_top,
    subtitled,
    logo,
    busy_bottom,
    _coarse,
    _defocused("mild defocus", 1.8, 2.6),
    _smeared("short smear", 9, 14),
    _dissolved("slow dissolve of calm shots", 2.5, 3.5, sway=0.15),
)
