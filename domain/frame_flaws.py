"""What can be wrong with a look at a clip, each with the number seen and the limit. Measured in docs/curation.md.

Absolute limits only for what is hopeless; everything else is measured against the clip's own frames, because a night
scene is dark, a painted wall has little detail and old film has grain throughout.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median

from domain.looks import LookMeasures
from domain.records import Record

EVEN_CONTRAST = 0.012
"""Under it a picture is one colour: black, white or a plain card."""

DARK_LUMA, DARK_CONTRAST = 0.05, 0.08
"""Hopelessly dark: both below. The identity scorer gives up near there (`vision.DARK_LUMA`, brightest 5 %)."""

DIM_LUMA, DIM_SHARE = 0.12, 0.35
"""Dark in a brighter clip: below the first, and below this share of the clip's own median of light and of contrast."""

WHITE_LUMA, PALE_LUMA, PALE_CONTRAST = 0.95, 0.88, 0.15
FLAT_CONTRAST = 0.08

FADE_CHANGE, FADE_BEND = 2.5, 0.7
"""Grey levels within 0.2 s, and how straight that change is; a fade over 3 s changes middle grey by about 8."""

CUT_JUMP, CUT_CHANGE = 4.0, 8.0

NOISE_LIMIT = 12.0
"""Grey levels at 480 px; ordinary grain is under 5 there."""

GRAINY = 3.0

SOFT_LIMIT = 0.50
"""Softer than this is blurred whatever the clip: out of focus throughout measured 0.57 and more."""

SOFT_FROM, SOFTER_THAN_CLIP = 0.33, 0.12
"""Softer than the first, and softer by the second than the clip's crisp frames. On the development half sound frames
measured up to 0.29, blurred ones from 0.39."""

WEAK_SHARE, WEAKER_EDGES = 0.30, 0.15
"""Less than this share of the detail of the clip's sharp frames is blur where the edges are softer too, by so much, or
where grain makes them look crisp. Little detail alone is none: a plain wall, a face before a soft background (0.11
softer than the wide shots of the same clip in the demo season) are sharp."""

STILL_CHANGE, MOVING_CHANGE = 0.05, 0.4
"""Grey levels within 0.2 s: a repeated frame changes by compression alone (0.00–0.02 measured), somebody who
only talks by 0.3 and more, but for the moments of a held pose."""

SAME_BITS = 2
"""Of dHash's 64: what compression alone changes in a repeated frame."""

SHOT_STEP = 22.0
"""Mean step of the 4×4 colours between two looks that begins a new shot."""


class Flaw(Record):
    """What is wrong with a look; `is_transition`: it shows two shots, or one that comes or goes.

    `may_pass`: a moment later the shot may well be without it, so that looking further is worth the decoding.
    """

    reason: str
    is_transition: bool = False
    may_pass: bool = False


class ClipLevels(Record):
    """What this clip's frames have, to judge one of them by."""

    sharpness: float
    """Upper quartile over the frames that are lit: what its sharp frames have."""
    softness: float
    """Lower quartile of the same."""
    brightness: float
    contrast: float
    """Medians over the frames that are not one even colour."""


def clip_levels(looks: Sequence[LookMeasures]) -> ClipLevels:
    """The levels of a clip; of all looks where none is lit."""
    shown = [look for look in looks if look.contrast > EVEN_CONTRAST] or list(looks)
    lit = [look for look in shown if look.contrast >= FLAT_CONTRAST and look.noise < NOISE_LIMIT] or shown
    return ClipLevels(
        sharpness=_quantile([look.sharpness for look in lit], 0.75),
        softness=_quantile([look.softness for look in lit], 0.25),
        brightness=median([look.brightness for look in shown]),
        contrast=median([look.contrast for look in shown]),
    )


def find_flaws(looks: Sequence[LookMeasures]) -> list[Flaw | None]:
    """For each look (in order of time) the first thing that is wrong with it, or None when it is usable."""
    if not looks:
        return []
    levels = clip_levels(looks)
    flaws = [_flaw_of(look, levels) for look in looks]
    for i in _frozen(looks, flaws, find_shots(looks, flaws)):
        flaws[i] = Flaw(reason="frozen (the picture stands still here, the shot around it moves)")
    return flaws


def find_shots(looks: Sequence[LookMeasures], flaws: Sequence[Flaw | None]) -> list[int]:
    """The number of the shot each look belongs to, from 0 up.

    A new one begins where the colours, in 4×4 parts, step by more than a moving camera's. Looks within a fade or on a
    cut begin none; they are given to the shot before.
    """
    shots: list[int] = []
    shot, last = 0, None
    for look, flaw in zip(looks, flaws, strict=True):
        if flaw is None or not flaw.is_transition:
            if last is not None and _colour_step(last, look) > SHOT_STEP:
                shot += 1
            last = look
        shots.append(shot)
    return shots


def has_burst(look: LookMeasures) -> bool:
    """Whether frames after this one were looked at too, so that its change means something."""
    return look.change > 0 or look.bend < 1


def _flaw_of(look: LookMeasures, levels: ClipLevels) -> Flaw | None:
    light = _flaw_of_light(look, levels)
    if light is not None and look.contrast <= EVEN_CONTRAST:
        return light
    if look.change >= FADE_CHANGE and look.bend < FADE_BEND:
        return Flaw(
            reason=f"in a fade or dissolve (the whole picture changes by {look.change:.0f} of 255 within 0.2 s)",
            is_transition=True,
            may_pass=True,
        )
    if look.jump >= CUT_JUMP and look.change >= CUT_CHANGE:
        return Flaw(
            reason=f"on a cut (the picture jumps {look.jump:.0f} times its usual step)",
            is_transition=True,
            may_pass=True,
        )
    if light is not None:
        return light
    if look.noise > NOISE_LIMIT:
        return Flaw(reason=f"noisy (noise of {look.noise:.0f} grey levels, at most {NOISE_LIMIT:.0f})")
    return _blur_of(look, levels)


def _flaw_of_light(look: LookMeasures, levels: ClipLevels) -> Flaw | None:
    light, contrast = look.brightness, look.contrast
    if contrast <= EVEN_CONTRAST:
        word = "black" if light < DARK_LUMA else "white" if light > WHITE_LUMA else "blank, one even colour"
        return Flaw(reason=f"{word} (nothing to see)")
    if light < DARK_LUMA and contrast < DARK_CONTRAST:
        return Flaw(reason=f"too dark (brightness {light:.2f}, at least {DARK_LUMA})")
    if light < min(DIM_LUMA, DIM_SHARE * levels.brightness) and contrast < DIM_SHARE * levels.contrast:
        return Flaw(reason=f"too dark (brightness {light:.2f}, this clip's frames have about {levels.brightness:.2f})")
    if light > WHITE_LUMA or (light > PALE_LUMA and contrast < PALE_CONTRAST):
        return Flaw(reason=f"too bright (brightness {light:.2f} with contrast {contrast:.2f})")
    if contrast < FLAT_CONTRAST:
        return Flaw(reason=f"flat (contrast {contrast:.2f}, at least {FLAT_CONTRAST})")
    return None


def _blur_of(look: LookMeasures, levels: ClipLevels) -> Flaw | None:
    limit = min(SOFT_LIMIT, max(SOFT_FROM, levels.softness + SOFTER_THAN_CLIP))
    if look.softness > limit:
        return Flaw(reason=f"blurred (edges {look.softness:.2f} soft, at most {limit:.2f} in this clip)", may_pass=True)
    is_weak = look.sharpness < WEAK_SHARE * levels.sharpness
    if is_weak and (look.noise > GRAINY or look.softness > levels.softness + WEAKER_EDGES):
        return Flaw(
            reason=f"blurred (sharpness {look.sharpness:.0f}, this clip's sharp frames have "
            f"about {levels.sharpness:.0f})",
            may_pass=True,
        )
    return None


def _frozen(looks: Sequence[LookMeasures], flaws: Sequence[Flaw | None], shots: Sequence[int]) -> list[int]:
    """Which looks show a picture that stands still inside a moving shot.

    Only where two looks in a row show it: somebody drawn holds a pose for a moment. A shot that is still as a whole,
    like a slide, is none.
    """
    found: list[int] = []
    for shot in set(shots):
        members = [i for i, s in enumerate(shots) if s == shot and flaws[i] is None and has_burst(looks[i])]
        still = {i for i in members if looks[i].change < STILL_CHANGE}
        moving = [i for i in members if looks[i].change >= MOVING_CHANGE]
        held = {i for pair in itertools.pairwise(members) if set(pair) <= still for i in pair}
        held = {i for i in held if any(_is_same(looks[i], looks[k]) for k in held - {i})}
        if held and 3 * len(moving) >= len(held):
            found.extend(sorted(held))
    return found


def _is_same(one: LookMeasures, other: LookMeasures) -> bool:
    return (one.hash64 ^ other.hash64).bit_count() <= SAME_BITS


def _colour_step(one: LookMeasures, other: LookMeasures) -> float:
    pairs = list(zip(one.signature, other.signature, strict=True))
    return sum(abs(a - b) for a, b in pairs) / max(1, len(pairs))


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
