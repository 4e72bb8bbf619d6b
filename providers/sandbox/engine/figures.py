"""The base model's own person: who is drawn when no LoRA says who it should be.

A different passer-by for every prompt and seed, drawn flat, head to foot, facing us.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from providers.sandbox.engine.scenes import Rgb, mix

_SKINS: tuple[Rgb, ...] = ((245, 212, 186), (224, 178, 142), (186, 134, 98), (128, 88, 64), (250, 222, 204))
_HAIRS: tuple[Rgb, ...] = ((52, 36, 30), (112, 72, 42), (206, 166, 92), (160, 160, 166), (148, 62, 34), (30, 30, 36))
_CLOTHES: tuple[Rgb, ...] = (
    (96, 122, 92), (152, 92, 76), (208, 196, 176), (72, 88, 132),
    (134, 134, 142), (176, 124, 140), (86, 74, 66), (120, 158, 176),
)  # fmt: skip
_FINE = 2  # drawn this many times larger, then brought down


def draw_passer_by(seed: int, height: int) -> Image.Image:
    """RGBA picture of a standing person, `height` px tall and about 0.42 as wide. Equal seeds give equal persons."""
    random = np.random.default_rng([seed, 5])

    def pick(colours: tuple[Rgb, ...]) -> Rgb:
        return colours[int(random.integers(len(colours)))]

    skin, hair, top, legs = pick(_SKINS), pick(_HAIRS), pick(_CLOTHES), mix(pick(_CLOTHES), (30, 30, 44), 0.55)
    girth, stance = float(random.uniform(0.85, 1.15)), float(random.uniform(0.1, 0.35))
    has_long_hair, has_skirt, turn = random.random() < 0.5, random.random() < 0.3, float(random.uniform(-0.15, 0.15))
    u = height * _FINE / 8
    picture = Image.new("RGBA", (round(u * 3.4), height * _FINE), (*top, 0))
    d = ImageDraw.Draw(picture)
    x = picture.width / 2
    shade = mix(top, (20, 16, 40), 0.16)
    if has_long_hair:
        d.rounded_rectangle([x - 0.62 * u, 0.25 * u, x + 0.62 * u, 2.1 * u], 0.5 * u, fill=hair)
    for side in (-1, 1):
        hip, foot = x + side * 0.32 * u * girth, x + side * (0.32 + stance) * u * girth
        tone = legs if side < 0 else mix(legs, (0, 0, 0), 0.15)
        d.line([hip, 4.2 * u, foot, 7.6 * u], fill=tone, width=round(0.52 * u * girth))
        d.rounded_rectangle([foot - 0.34 * u, 7.55 * u, foot + 0.4 * u, 7.95 * u], 0.18 * u, fill=(46, 40, 42))
        hand = x + side * 1.15 * u * girth
        d.line([x + side * 0.68 * u * girth, 2.05 * u, hand, 3.9 * u], fill=shade, width=round(0.4 * u), joint="curve")
        d.ellipse([hand - 0.2 * u, 3.8 * u, hand + 0.2 * u, 4.25 * u], fill=skin)
    hem = 5.3 if has_skirt else 4.35
    wide = 0.85 if has_skirt else 0.66
    shoulder, waist = 0.82 * u * girth, wide * u * girth
    d.polygon(
        [(x - shoulder, 1.85 * u), (x + shoulder, 1.85 * u), (x + waist, hem * u), (x - waist, hem * u)], fill=top
    )
    d.polygon(
        [(x + 0.25 * u, 1.85 * u), (x + shoulder, 1.85 * u), (x + waist, hem * u), (x + 0.3 * u, hem * u)], fill=shade
    )
    d.rounded_rectangle([x - shoulder, 1.68 * u, x + shoulder, 2.3 * u], 0.28 * u, fill=top)
    d.rectangle([x - 0.2 * u, 1.4 * u, x + 0.2 * u, 1.78 * u], fill=mix(skin, (90, 40, 30), 0.18))
    d.ellipse([x - 0.5 * u, 0.3 * u, x + 0.5 * u, 1.55 * u], fill=skin)
    d.pieslice([x - 0.56 * u, 0.12 * u, x + 0.56 * u, 1.3 * u], 182, 358, fill=hair)
    for side in (-1, 1):
        eye = x + (side * 0.2 + turn) * u
        d.ellipse([eye - 0.06 * u, 0.86 * u, eye + 0.06 * u, 1.0 * u], fill=(44, 34, 34))
        d.line(
            [eye - 0.11 * u, 0.76 * u, eye + 0.11 * u, 0.76 * u], fill=mix(hair, (0, 0, 0), 0.3), width=round(0.05 * u)
        )
    d.arc(
        [x + (turn - 0.16) * u, 1.08 * u, x + (turn + 0.16) * u, 1.3 * u],
        25,
        155,
        fill=(150, 70, 66),
        width=round(0.05 * u),
    )
    return picture.resize((picture.width // _FINE, height), Image.Resampling.LANCZOS)
