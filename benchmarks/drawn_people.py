"""Drawn people for measuring the identity scorer: any number of designs, each in any number of unlike shots.

A design is fixed by its seed (skin, hair, outfit, accessory, build). A shot varies everything else: framing, view,
pose, size, place, light, tint, background, a little of the outfit, a bystander at the side, blur and JPEG.
Deterministic; Pillow and numpy only.
"""

from __future__ import annotations

import colorsys
import io
import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Rgb = tuple[int, int, int]

SKINS: tuple[Rgb, ...] = (
    (246, 214, 190),
    (232, 184, 150),
    (205, 150, 112),
    (160, 108, 76),
    (112, 72, 52),
    (240, 200, 170),
)
HAIRS: tuple[Rgb, ...] = (
    (28, 24, 30), (70, 44, 30), (120, 74, 38), (196, 150, 80), (178, 74, 30), (150, 150, 155), (235, 225, 205),
    (60, 80, 160), (190, 70, 130),
)  # fmt: skip
CUTS = ("short", "long", "bun", "bald", "spiky", "bob", "ponytail", "curly")
OUTFITS = ("coat", "dress", "suit", "jumper", "hoodie", "overall")
EXTRAS = ("scarf", "glasses", "goggles", "beard", "hat", "moustache", "bag", "none")
FRAMINGS = ("full", "knee", "bust", "close")
VIEWS = ("front", "left", "right", "profile_left", "profile_right")
SCENES = ("plain", "gradient", "city", "forest", "room", "pier")


@dataclass(frozen=True)
class Design:
    """What stays the same about a person."""

    skin: Rgb
    hair: Rgb
    cut: str
    outfit: str
    top: Rgb
    bottom: Rgb
    accent: Rgb
    shoes: Rgb
    extra: str
    girth: float
    head: float


@dataclass(frozen=True)
class Shot:
    """What a picture of somebody does to her looks; `height` is the figure's share of the frame when it is `full`."""

    size: tuple[int, int]
    framing: str
    view: str
    scene: str
    scene_seed: int
    place: float
    height: float
    arms: tuple[float, float]
    stride: float
    gain: float
    tint: tuple[float, float, float]
    shade: float
    is_open: bool
    blur: float
    quality: int


def design(seed: int) -> Design:
    """The same person for the same seed."""
    draw = random.Random(f"design {seed}")  # noqa: S311 - pictures, not secrets

    def cloth() -> Rgb:
        if draw.random() < 0.3:
            grey = draw.choice((35, 70, 120, 200, 235))
            return grey, grey, min(255, grey + draw.randrange(12))
        return _hsv(draw.random(), draw.uniform(0.45, 0.95), draw.uniform(0.35, 0.95))

    return Design(
        skin=draw.choice(SKINS),
        hair=draw.choice(HAIRS),
        cut=draw.choice(CUTS),
        outfit=draw.choice(OUTFITS),
        top=cloth(),
        bottom=cloth(),
        accent=cloth(),
        shoes=cloth(),
        extra=draw.choice(EXTRAS),
        girth=draw.uniform(0.8, 1.3),
        head=draw.choice((0.85, 1.0, 1.0, 1.25)),
    )


def random_shot(seed: int, *, framing: str | None = None, size: tuple[int, int] | None = None) -> Shot:
    """An everyday shot: usable by a curator, but unlike the next one."""
    draw = random.Random(f"shot {seed}")  # noqa: S311 - pictures, not secrets
    warmth = draw.uniform(-0.12, 0.12)
    return Shot(
        size=size or draw.choice(((960, 540), (768, 768), (854, 480))),
        framing=framing or draw.choice(FRAMINGS),
        view=draw.choice(VIEWS),
        scene=draw.choice(SCENES),
        scene_seed=draw.randrange(10**6),
        place=draw.gauss(0.5, 0.08),
        height=draw.uniform(0.55, 0.92),
        arms=(draw.uniform(-0.2, 1.2), draw.uniform(-0.2, 2.4) if draw.random() < 0.3 else draw.uniform(-0.2, 0.7)),
        stride=draw.uniform(0.0, 0.5),
        gain=draw.uniform(0.6, 1.2),
        tint=(1 + warmth, 1.0, 1 - warmth),
        shade=draw.uniform(0.9, 1.1),
        is_open=draw.random() < 0.3,
        blur=draw.choice((0.0, 0.0, 0.6, 1.2)),
        quality=draw.choice((70, 85, 95)),
    )


def picture(who: Design, shot: Shot, bystander: Design | None = None) -> NDArray[np.uint8]:
    """Height × width × 3, 8-bit sRGB."""
    width, height = shot.size
    canvas = _background(shot, width, height)
    draw = ImageDraw.Draw(canvas)
    if bystander is not None:
        side = 0.12 if shot.place >= 0.5 else 0.88
        _figure(draw, bystander, shot, side * width, height * 0.97, height * 0.62)
    figure_height = {"full": shot.height, "knee": 1.3, "bust": 2.1, "close": 3.4}[shot.framing] * height
    feet = height * (0.5 + shot.height / 2 + 0.02) if shot.framing == "full" else height * 0.1 + figure_height
    _figure(draw, who, shot, shot.place * width, feet, figure_height)
    if shot.blur:
        canvas = canvas.filter(ImageFilter.GaussianBlur(shot.blur * height / 540))
    lit = np.asarray(canvas, np.float32) * (shot.gain * np.array(shot.tint, np.float32))
    stored = io.BytesIO()
    Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)).save(stored, "JPEG", quality=shot.quality)
    return np.asarray(Image.open(stored).convert("RGB"))


def _figure(draw: ImageDraw.ImageDraw, who: Design, shot: Shot, x: float, feet: float, height: float) -> None:
    """One person standing on `feet`; every length is a share of `height`."""
    head = 0.075 * who.head
    neck = feet - height * (1 - 2.1 * head)
    hip = feet - height * 0.46
    knee = feet - height * 0.24
    broad = 0.105 * who.girth * height
    unit = height
    turn = {"front": 0.0, "left": -0.35, "right": 0.35, "profile_left": -0.8, "profile_right": 0.8}[shot.view]
    broad *= 1 - 0.3 * abs(turn)
    top, bottom = _shade(who.top, shot.shade), _shade(who.bottom, shot.shade)
    if who.outfit == "overall":
        bottom = top
    step = shot.stride * 0.12 * unit
    for side in (-1, 1):
        hip_x, foot_x = x + side * broad * 0.45, x + side * (broad * 0.5 + step)
        limb = 0.055 * unit * who.girth
        leg = who.skin if who.outfit == "dress" else bottom
        _limb(draw, leg, (hip_x, hip), ((hip_x + foot_x) / 2, knee), limb)
        _limb(draw, leg, ((hip_x + foot_x) / 2, knee), (foot_x, feet - 0.03 * unit), limb * 0.85)
        draw.ellipse(_box(foot_x + turn * 0.03 * unit, feet - 0.015 * unit, 0.045 * unit, 0.02 * unit), fill=who.shoes)
    if who.cut in ("long", "ponytail"):
        _back_hair(draw, who, x - turn * head * unit * 0.5, neck, head * unit)
    hem = {"coat": knee, "dress": knee + 0.02 * unit, "hoodie": hip + 0.03 * unit}.get(who.outfit, hip + 0.01 * unit)
    flare = {"coat": 1.25, "dress": 1.6}.get(who.outfit, 0.95)
    shoulders = neck + 0.04 * unit
    torso = [(x - broad, shoulders), (x + broad, shoulders), (x + broad * flare, hem), (x - broad * flare, hem)]
    draw.rounded_rectangle((x - broad, neck + 0.015 * unit, x + broad, shoulders + 0.06 * unit), 0.03 * unit, fill=top)
    draw.polygon(torso, fill=top)
    if who.outfit in ("coat", "suit", "overall"):
        gap = broad * (0.5 if shot.is_open else 0.2)
        inner = who.accent
        draw.polygon(
            [(x - gap, neck), (x + gap, neck), (x + gap * 0.4 + turn * broad * 0.3, hem if shot.is_open else hip)],
            fill=inner,
        )
    if who.outfit in ("jumper", "dress"):
        draw.rectangle((x - broad * 1.02, hip - 0.03 * unit, x + broad * 1.02, hip - 0.005 * unit), fill=who.accent)
    if who.outfit == "hoodie":
        draw.ellipse(_box(x, neck + 0.03 * unit, broad * 0.8, 0.035 * unit), fill=_shade(top, 0.8))
    for side, lift in zip((-1, 1), shot.arms, strict=True):
        shoulder = (x + side * broad * 0.95, shoulders + 0.02 * unit)
        reach = 0.17 * unit
        elbow = (shoulder[0] + side * math.sin(lift) * reach, shoulder[1] + math.cos(lift) * reach)
        hand = (elbow[0] + side * math.sin(lift * 1.4) * reach, elbow[1] + math.cos(lift * 1.4) * reach)
        _limb(draw, _shade(top, 0.88), shoulder, elbow, 0.05 * unit * who.girth)
        _limb(draw, _shade(top, 0.88), elbow, hand, 0.042 * unit * who.girth)
        draw.ellipse(_box(*hand, 0.022 * unit, 0.022 * unit), fill=who.skin)
    _limb(draw, _shade(who.skin, 0.9), (x, neck - 0.03 * unit), (x, neck + 0.03 * unit), 0.05 * unit)
    if who.extra == "scarf":
        draw.rounded_rectangle(_box(x, neck + 0.015 * unit, broad * 0.75, 0.025 * unit), 0.02 * unit, fill=who.accent)
        draw.polygon(
            [
                (x + broad * 0.3, neck),
                (x + broad * 0.7, neck),
                (x + broad * 0.7, neck + 0.16 * unit),
                (x + broad * 0.35, neck + 0.16 * unit),
            ],
            fill=who.accent,
        )
    if who.extra == "bag":
        draw.line((x - broad, shoulders, x + broad, hip), fill=who.accent, width=max(2, int(0.018 * unit)))
        draw.rounded_rectangle(
            _box(x + broad * 1.1, hip + 0.03 * unit, 0.06 * unit, 0.05 * unit), 0.015 * unit, fill=who.accent
        )
    _head(draw, who, x + turn * 0.02 * unit, neck - head * unit * 0.95, head * unit, turn)


def _head(draw: ImageDraw.ImageDraw, who: Design, x: float, y: float, radius: float, turn: float) -> None:
    hair = who.hair
    is_profile = abs(turn) > 0.5
    if who.cut == "curly":
        for angle in range(150, 400, 25):
            spot = (x + math.cos(math.radians(angle)) * radius, y + math.sin(math.radians(angle)) * radius)
            draw.ellipse(_box(*spot, radius * 0.45, radius * 0.45), fill=hair)
    if who.cut == "bob":
        draw.rounded_rectangle(
            (x - radius * 1.12, y - radius, x + radius * 1.12, y + radius * 0.85), radius * 0.6, fill=hair
        )
    if who.cut == "bun":
        draw.ellipse(_box(x - turn * radius * 0.6, y - radius * 1.25, radius * 0.5, radius * 0.5), fill=hair)
    draw.ellipse(_box(x, y, radius * 0.92, radius * 1.08), fill=who.skin)
    if is_profile:
        nose = math.copysign(radius, turn)
        draw.polygon(
            [
                (x + nose * 0.8, y - radius * 0.1),
                (x + nose * 1.15, y + radius * 0.25),
                (x + nose * 0.8, y + radius * 0.3),
            ],
            fill=who.skin,
        )
        draw.pieslice(
            _box(x - nose * 0.2, y - radius * 0.1, radius, radius * 1.05),
            90 if nose > 0 else -90,
            290 if nose > 0 else 90,
            fill=hair if who.cut != "bald" else who.skin,
        )
    if who.cut != "bald":
        draw.pieslice(_box(x, y - radius * 0.12, radius * 1.02, radius * 1.08), 185, 355, fill=hair)
        draw.rectangle((x - radius * 0.9, y - radius * 0.25, x + radius * 0.9, y - radius * 0.1), fill=who.skin)
    if who.cut == "spiky":
        for k in range(-3, 4):
            root = x + k * radius * 0.3
            draw.polygon(
                [
                    (root - radius * 0.2, y - radius * 0.8),
                    (root + radius * 0.2, y - radius * 0.8),
                    (root + k * radius * 0.08, y - radius * 1.55),
                ],
                fill=hair,
            )
    eyes = (1,) if turn > 0.5 else (-1,) if turn < -0.5 else (-1, 1)
    for side in eyes:
        eye = (x + side * radius * 0.35 + turn * radius * 0.5, y + radius * 0.05)
        if who.extra in ("glasses", "goggles"):
            rim = who.accent if who.extra == "goggles" else (30, 30, 35)
            draw.ellipse(_box(*eye, radius * 0.34, radius * 0.3), fill=rim)
            draw.ellipse(_box(*eye, radius * 0.24, radius * 0.2), fill=(225, 235, 245))
        else:
            draw.ellipse(_box(*eye, radius * 0.15, radius * 0.12), fill=(250, 250, 250))
        draw.ellipse(_box(*eye, radius * 0.09, radius * 0.1), fill=(30, 25, 30))
    mouth = (x + turn * radius * 0.5, y + radius * 0.58)
    if who.extra == "beard":
        draw.pieslice(_box(x, y + radius * 0.3, radius * 0.85, radius * 0.95), 0, 180, fill=hair)
    if who.extra == "moustache":
        draw.ellipse(_box(mouth[0], mouth[1] - radius * 0.15, radius * 0.4, radius * 0.12), fill=hair)
    draw.ellipse(_box(*mouth, radius * 0.2, radius * 0.06), fill=(150, 60, 60))
    if who.extra == "hat":
        draw.rectangle((x - radius * 0.85, y - radius * 1.6, x + radius * 0.85, y - radius * 0.6), fill=who.accent)
        draw.ellipse(_box(x, y - radius * 0.6, radius * 1.5, radius * 0.2), fill=who.accent)


def _back_hair(draw: ImageDraw.ImageDraw, who: Design, x: float, neck: float, radius: float) -> None:
    if who.cut == "long":
        draw.rounded_rectangle(
            (x - radius * 1.15, neck - radius * 1.8, x + radius * 1.15, neck + radius * 1.6),
            radius * 0.6,
            fill=who.hair,
        )
    else:
        draw.ellipse(_box(x + radius * 0.9, neck, radius * 0.4, radius * 1.3), fill=who.hair)


def _background(shot: Shot, width: int, height: int) -> Image.Image:
    draw_random = random.Random(shot.scene_seed)  # noqa: S311 - pictures, not secrets
    base = _hsv(draw_random.random(), draw_random.uniform(0.05, 0.6), draw_random.uniform(0.15, 0.95))
    other = _hsv(draw_random.random(), draw_random.uniform(0.05, 0.6), draw_random.uniform(0.15, 0.95))
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    blend = np.asarray(base, np.float32) * (1 - rows) + np.asarray(other, np.float32) * rows
    flat = np.broadcast_to(np.asarray(base, np.float32), (height, width, 3))
    pixels = flat if shot.scene == "plain" else np.broadcast_to(blend, (height, width, 3))
    canvas = Image.fromarray(pixels.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    ground = height * draw_random.uniform(0.6, 0.85)
    if shot.scene in ("city", "forest", "pier", "room"):
        draw.rectangle((0, ground, width, height), fill=_shade(other, 0.7))
    for _ in range({"city": 10, "forest": 14, "pier": 8, "room": 5}.get(shot.scene, 0)):
        left, wide = draw_random.uniform(-0.05, 1) * width, draw_random.uniform(0.04, 0.14) * width
        high = draw_random.uniform(0.05, 0.5) * height
        colour = _hsv(draw_random.random(), draw_random.uniform(0.1, 0.6), draw_random.uniform(0.15, 0.8))
        match shot.scene:
            case "city":
                draw.rectangle((left, high, left + wide, ground), fill=colour)
                for floor in range(int(high) + 8, int(ground) - 8, 22):
                    draw.rectangle((left + wide * 0.3, floor, left + wide * 0.6, floor + 9), fill=(250, 220, 130))
            case "forest":
                draw.rectangle((left + wide * 0.4, high, left + wide * 0.6, ground), fill=(80, 60, 40))
                draw.ellipse(
                    (left, high * 0.4, left + wide, high + height * 0.3),
                    fill=_shade((60, 120, 60), draw_random.uniform(0.5, 1.3)),
                )
            case "pier":
                draw.line((left, ground, left, ground - high), fill=(60, 50, 45), width=6)
                draw.ellipse(_box(left, ground - high, 9, 9), fill=(255, 210, 120))
            case _:
                draw.rectangle((left, high, left + wide * 1.4, high + height * 0.25), fill=colour)
    return canvas


def _limb(
    draw: ImageDraw.ImageDraw, colour: Rgb, start: tuple[float, float], end: tuple[float, float], thick: float
) -> None:
    draw.line((start, end), fill=colour, width=max(2, int(thick)))
    for point in (start, end):
        draw.ellipse(_box(*point, thick / 2, thick / 2), fill=colour)


def _box(x: float, y: float, half_width: float, half_height: float) -> tuple[float, float, float, float]:
    return x - half_width, y - half_height, x + half_width, y + half_height


def _shade(colour: Rgb, factor: float) -> Rgb:
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def _hsv(hue: float, saturation: float, value: float) -> Rgb:
    red, green, blue = (int(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue
