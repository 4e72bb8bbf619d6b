"""Composing a picture: subjects placed, lit and grounded in a scene, as layers that can be laid flat or moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from providers.sandbox.engine import LABEL
from providers.sandbox.engine.figures import draw_passer_by
from providers.sandbox.engine.picture import Bytes, Floats, blur, resize
from providers.sandbox.engine.scenes import Mood, Scene, Words

_CLOSE = frozenset("close closeup portrait headshot face expression emotion selfie".split())  # noqa: SIM905
_MEDIUM = frozenset("bust waist medium half upper cowboy".split())  # noqa: SIM905
_FULL = frozenset("full standing stands walking walks running runs jumping dancing action".split())  # noqa: SIM905
_WIDE = frozenset("wide distance distant aerial establishing far".split())  # noqa: SIM905
_ASIDE = frozenset("profile side sideways".split())  # noqa: SIM905
_TURNED = frozenset("three quarter threequarter 34".split())  # noqa: SIM905
_LEAN = frozenset("running runs action jumping dancing chase".split())  # noqa: SIM905


@dataclass(frozen=True)
class Actor:
    """A subject to be placed: colour × matte (H×W×3, 0–1), matte (H×W), its true width / height.

    `opacity` below 1 lets the base model's passer-by show through: the LoRA does not hold the subject fully.
    """

    colour: Floats
    matte: Floats
    aspect: float
    is_cut_below: bool
    opacity: float = 1.0


@dataclass(frozen=True)
class Layer:
    """Something standing before the background: its colours, its mask, where its top left corner lies (px).

    Layers of one `owner` (a subject, its shadow, the passer-by showing through it) move together.
    """

    picture: Image.Image
    mask: Image.Image
    x: float
    y: float
    owner: int = 0
    is_shadow: bool = False


@dataclass(frozen=True)
class Stage:
    """A picture in layers. `weather` is rain, snow, fog or nothing."""

    background: Image.Image
    layers: tuple[Layer, ...]
    weather: str

    def flat(self) -> Image.Image:
        picture = self.background.copy()
        for layer in self.layers:
            picture.paste(layer.picture, (round(layer.x), round(layer.y)), layer.mask)
        if self.weather:
            draw_weather(picture, self.weather, 0.0)
        return picture


def framing(words: Words) -> str:
    """close, medium, full, wide, or nothing when the words do not say."""
    for name, set_of in (("close", _CLOSE), ("full", _FULL), ("wide", _WIDE), ("medium", _MEDIUM)):
        if words & set_of:
            return name
    return ""


def compose(words: Words, seed: int, scene: Scene, actors: Sequence[Actor]) -> Stage:
    """Place the actors side by side in the scene, as large as the words ask; none means one passer-by."""
    random = np.random.default_rng([seed, 29])
    width, height = scene.picture.size
    count = max(1, len(actors))
    layers: list[Layer] = []
    for number in range(count):
        actor = actors[number] if actors else None
        middle = width * ((number + 0.5 + 0.5 * (count == 1) * float(random.uniform(-0.12, 0.12))) / count)
        passer_by = None
        if actor is None or actor.opacity < 0.97:
            stranger = draw_passer_by(seed + 101 * number, min(900, round(height * 0.9)))
            passer_by = _actor_of(stranger)
        is_flipped = bool(random.random() < 0.5)
        for one in (passer_by, actor):
            if one is not None:
                placed = _place(one, words, scene, middle, count, is_flipped, float(random.uniform(-1, 1)))
                layers += [replace(layer, owner=number) for layer in placed]
    return Stage(scene.picture, tuple(layers), scene.weather)


def label(picture: Image.Image) -> Image.Image:
    """Write the sandbox's name small into the lower right corner; changes and returns the picture."""
    size = max(10, round(min(picture.size) * 0.018))
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(picture, "RGBA")
    wide = draw.textlength(LABEL, font=font)
    x, y = picture.width - wide - size * 0.8, picture.height - size * 1.9
    draw.text((x + 1, y + 1), LABEL, font=font, fill=(0, 0, 0, 90))
    draw.text((x, y), LABEL, font=font, fill=(255, 255, 255, 150))
    return picture


def draw_weather(picture: Image.Image, weather: str, at_seconds: float) -> None:
    """Rain, snow or fog over the whole picture, moving with time."""
    width, height = picture.size
    random = np.random.default_rng(7)
    if weather == "fog":
        ramp = np.linspace(0, 120, 32)[:, None].repeat(2, axis=1).astype(np.uint8)
        picture.paste((214, 220, 226), (0, 0), Image.fromarray(ramp).resize((width, height), Image.Resampling.BICUBIC))
        return
    draw = ImageDraw.Draw(picture, "RGBA")
    speed = 1.9 if weather == "rain" else 0.16
    for _ in range(90):
        x, y, near = random.random(3)
        fallen = (y + at_seconds * speed * (0.7 + 0.6 * near)) % 1.0 * (height * 1.1) - height * 0.05
        across = x * width * 1.1 - 0.05 * width
        if weather == "rain":
            long = height * (0.03 + 0.035 * near)
            draw.line(
                [across, fallen, across - long * 0.16, fallen + long],
                fill=(214, 226, 240, 50 + round(50 * near)),
                width=1 + (height > 900),
            )
        else:
            radius = height * (0.002 + 0.004 * near)
            across += np.sin(at_seconds + 6 * x) * width * 0.01
            draw.ellipse([across, fallen, across + 2 * radius, fallen + 2 * radius], fill=(255, 255, 255, 170))


def _actor_of(stranger: Image.Image) -> Actor:
    values = np.asarray(stranger, dtype=np.float32) / np.float32(255)
    matte = np.ascontiguousarray(values[..., 3])
    return Actor(values[..., :3] * matte[..., None], matte, stranger.width / stranger.height, is_cut_below=False)


def _place(
    actor: Actor, words: Words, scene: Scene, middle: float, count: int, is_flipped: bool, chance: float
) -> list[Layer]:
    width, height = scene.picture.size
    tall, top = _size(actor, framing(words), chance)
    aspect = actor.aspect * (0.86 if words & _ASIDE else 0.94 if words & _TURNED else 1.0)
    room = width * (1.05 if count == 1 else 1.2) / count
    shrink = min(1.0, room / (tall * height * aspect))
    if framing(words) == "close" and count == 1:
        shrink = max(shrink, 0.75)
    if not actor.is_cut_below and shrink < 1:
        top += tall * (1 - shrink)
    high = max(8, round(tall * shrink * height))
    wide = max(8, round(high * aspect))
    if actor.is_cut_below:
        top = max(1 - high / height, 0.04) if high < height * 0.98 else min(top, 0.06)
    left, upper = middle - wide / 2, top * height
    picture, mask = _render(actor, wide, high, is_flipped, scene.mood)
    if words & _LEAN and not actor.is_cut_below:
        turn = 6.0 if is_flipped else -6.0
        picture, mask = (p.rotate(turn, Image.Resampling.BICUBIC, center=(wide / 2, high)) for p in (picture, mask))
    layers = [Layer(picture, mask, left, upper)]
    if not actor.is_cut_below and upper + high < height * 1.02:
        layers.insert(0, _shadow(wide, high, left, upper, actor.opacity))
    return layers


def _size(actor: Actor, shot: str, chance: float) -> tuple[float, float]:
    """Height and top of a subject in shares of the frame's height, for the shot that is asked for."""
    if actor.is_cut_below:
        is_long = actor.aspect < 0.55  # cut at the knees rather than at the chest
        tall = {"close": 1.5 if is_long else 1.06, "medium": 1.15 if is_long else 0.9, "wide": 0.72}.get(shot, 0.9)
        return tall * (1 + 0.05 * chance), 0.06
    is_head = actor.aspect > 0.8
    if shot == "close" and not is_head:
        return 1.9 * (1 + 0.06 * chance), 0.05
    if shot == "medium" and not is_head:
        return 1.4 * (1 + 0.05 * chance), 0.07
    tall = {"wide": 0.6, "full": 0.84}.get(shot, 0.82) * (1 + 0.05 * chance)
    return tall, 0.955 - tall


def _render(actor: Actor, wide: int, high: int, is_flipped: bool, mood: Mood) -> tuple[Image.Image, Image.Image]:
    """The actor at its size, in the scene's light: colours (carried on beyond the edge) and mask."""
    step = -1 if is_flipped else 1
    matte, colour = actor.matte[:, ::step], actor.colour[:, ::step]
    # Colours are carried outwards past the edge, or enlarging would draw a dark line around the subject.
    spread = blur(matte, 3) + np.float32(1e-3)
    around = np.stack([blur(colour[..., c], 3) for c in range(3)], axis=-1) / spread[..., None]
    plain = np.where(matte[..., None] > 0.9, colour / np.maximum(matte, 0.05)[..., None], around)
    flat = Image.fromarray((np.clip(plain, 0, 1) * 255).astype(np.uint8))
    flat = flat.resize((wide, high), Image.Resampling.BICUBIC)
    enlarged = high / matte.shape[0]
    if enlarged > 1.2:
        flat = flat.filter(ImageFilter.UnsharpMask(radius=1.2 * enlarged, percent=70, threshold=2))
    if actor.opacity < 0.97:
        flat = flat.filter(ImageFilter.GaussianBlur((1 - actor.opacity) * high / 60))
    edge = resize(np.ascontiguousarray(matte), wide, high)
    edge = np.clip((edge - 0.5) * max(1.0, 1.1 * enlarged) + 0.5, 0, 1)
    lit = _light(np.asarray(flat), edge, mood)
    return lit, Image.fromarray((edge * (255 * min(1.0, actor.opacity))).astype(np.uint8))


def _light(colours: Bytes, edge: Floats, mood: Mood) -> Image.Image:
    """Tint by the time of day, darken a little towards the feet, and let the back light catch one edge."""
    fall = np.linspace(1.03, 0.93 if mood.is_dark else 0.97, colours.shape[0], dtype=np.float32)
    tint = np.asarray(mood.tint, dtype=np.float32) * np.float32(0.95 if mood.is_dark else 1.0)
    reach = max(2, colours.shape[1] // 90)
    beside = np.zeros_like(edge)
    beside[:, reach:] = edge[:, :-reach]
    rim = np.clip(edge - beside, 0, 1) * np.float32(0.4 if mood.is_dark else 0.22)
    shaded = colours * tint * fall[:, None, None]
    shaded += (np.asarray(mood.rim, dtype=np.float32) - shaded) * rim[..., None]
    return Image.fromarray(np.clip(shaded, 0, 255).astype(np.uint8))


def _shadow(wide: int, high: int, left: float, upper: float, opacity: float) -> Layer:
    flat = max(6, round(high * 0.05))
    mask = Image.new("L", (wide + 4 * flat, 4 * flat))
    ImageDraw.Draw(mask).ellipse([2.4 * flat, 1.3 * flat, wide + 1.6 * flat, 2.7 * flat], fill=round(120 * opacity))
    soft = mask.filter(ImageFilter.GaussianBlur(flat * 0.55))
    return Layer(
        Image.new("RGB", mask.size, (10, 10, 22)), soft, left - 2 * flat, upper + high - 2.4 * flat, is_shadow=True
    )
