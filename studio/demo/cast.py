"""The four people of Neon Harbor, a generator of further ones, and one function that draws anybody."""

from __future__ import annotations

import random
from typing import Final

from PIL import Image

from domain.errors import BadInput
from studio.demo import poses
from studio.demo.designs import FACES, Accessory, Beard, Design, Garment, Hair, Outfit, Pose
from studio.demo.figures import draw_figure
from studio.demo.ink import Colour, Sheet, Window, hex_colour

NEUTRAL: Final[Colour] = (222, 222, 226)
"""The grey behind reference pictures."""

MEI: Final = Design(
    name="Mei Kobayashi",
    heads_tall=4.15,
    shoulder=0.47,
    waist=0.40,
    hip=0.41,
    skin=hex_colour("#f6d0b1"),
    hair=Hair.BOB,
    hair_colour=hex_colour("#23213c"),
    eye_colour=hex_colour("#7a4526"),
    eye_size=1.08,
    nose=0.2,
    has_lashes=True,
    garment=Garment.PEACOAT,
    garment_colour=hex_colour("#2f4a86"),
    trim_colour=hex_colour("#f2d9a0"),
    inner_colour=hex_colour("#f3eee2"),
    tie_colour=hex_colour("#d8d0c0"),
    legs_colour=hex_colour("#59606f"),
    shoe_colour=hex_colour("#8c3b2e"),
    boot_height=0.55,
    hem=0.22,
    flare=1.2,
    accessories=(Accessory.SCARF,),
    accessory_colour=hex_colour("#d92b34"),
)

RUI: Final = Design(
    name="Rui Salgado",
    heads_tall=4.9,
    shoulder=0.58,
    waist=0.46,
    hip=0.47,
    skin=hex_colour("#d9a27c"),
    hair=Hair.CROP,
    hair_colour=hex_colour("#8d8d95"),
    beard=Beard.FULL,
    beard_colour=hex_colour("#a6a6ae"),
    eye_colour=hex_colour("#3f5f7a"),
    eye_size=0.84,
    brow_width=0.045,
    nose=0.9,
    garment=Garment.TRENCH,
    garment_colour=hex_colour("#d9a429"),
    trim_colour=hex_colour("#7a4b22"),
    inner_colour=hex_colour("#eef0f0"),
    tie_colour=hex_colour("#7b2233"),
    legs_colour=hex_colour("#4a4450"),
    shoe_colour=hex_colour("#3b2a26"),
    boot_height=0.12,
    hem=0.52,
    flare=1.2,
    accessories=(Accessory.FEDORA,),
    accessory_colour=hex_colour("#6a4632"),
)

TOVA: Final = Design(
    name="Tova Lind",
    heads_tall=3.05,
    head_width=1.08,
    shoulder=0.38,
    waist=0.42,
    hip=0.45,
    skin=hex_colour("#fbdcc6"),
    hair=Hair.BUN,
    hair_colour=hex_colour("#e2672a"),
    eye_colour=hex_colour("#2f8f6a"),
    eye_size=1.2,
    nose=0.1,
    has_freckles=True,
    garment=Garment.RAINCOAT,
    garment_colour=hex_colour("#16a39a"),
    trim_colour=hex_colour("#f4efdc"),
    inner_colour=hex_colour("#f2b8a0"),
    tie_colour=hex_colour("#f4efdc"),
    legs_colour=hex_colour("#5b4a72"),
    shoe_colour=hex_colour("#f0a53a"),
    boot_height=0.40,
    hem=0.38,
    flare=1.28,
    accessories=(Accessory.GOGGLES,),
    accessory_colour=hex_colour("#e8b23a"),
)

DARIO: Final = Design(
    name="Dario Velez",
    heads_tall=4.45,
    head_width=0.97,
    shoulder=0.72,
    waist=0.52,
    hip=0.46,
    belly=0.16,
    skin=hex_colour("#a9694a"),
    hair=Hair.BALD,
    hair_colour=hex_colour("#2a1a18"),
    beard=Beard.MOUSTACHE,
    beard_colour=hex_colour("#2b1c1c"),
    eye_colour=hex_colour("#5a4526"),
    eye_size=0.86,
    brow_width=0.04,
    nose=0.8,
    garment=Garment.SUIT,
    garment_colour=hex_colour("#6a3aa6"),
    trim_colour=hex_colour("#e9c456"),
    inner_colour=hex_colour("#f3e6ef"),
    tie_colour=hex_colour("#d0356f"),
    legs_colour=hex_colour("#55308a"),
    shoe_colour=hex_colour("#f0ead8"),
    boot_height=0.10,
    hem=0.16,
    flare=1.08,
    accessories=(Accessory.POCKET_SQUARE,),
    accessory_colour=hex_colour("#b8e04a"),
)

CAST: Final[dict[str, Design]] = {"mei": MEI, "rui": RUI, "tova": TOVA, "dario": DARIO}
"""The series' people by the short names that scenes and files use."""

FRAMINGS: Final = ("full", "bust", "close_up")


def window_of(design: Design, framing: str, margin: float = 0.12) -> Window:
    """A square window in heads: the whole person, from the chest up, or the face; the margin is a share of the side."""
    hat = 0.35 if Accessory.FEDORA in design.accessories else 0.28 if design.hair in (Hair.BUN, Hair.MOHAWK) else 0.08
    top = -(design.heads_tall + hat)
    match framing:
        case "full":
            bottom = 0.1
        case "bust":
            bottom = -(design.heads_tall - 2.05)
        case "close_up":
            bottom = -(design.heads_tall - 1.22)
        case _:
            raise BadInput(f"Framing {framing!r} is not known: write one of {', '.join(FRAMINGS)}.")
    side = (bottom - top) * (1 + margin) + (0.0 if framing == "full" else 0.1)
    return (
        -side / 2,
        bottom - side * (1 - (0.04 if framing == "full" else 0)),
        side / 2,
        bottom + (side * 0.04 if framing == "full" else 0),
    )


def draw_character(
    character: str | Design,
    view: str = "front",
    expression: str = "calm",
    size: int = 512,
    *,
    framing: str = "full",
    pose: Pose | None = None,
    outfit: Outfit | None = None,
    background: Colour | None = NEUTRAL,
) -> Image.Image:
    """A square picture of one person, `size` pixels, RGB on `background` (RGBA and transparent when it is None).

    `character` is a design or a name of `CAST`; views are front, three_quarter and profile; expressions are the
    keys of `FACES`. Deterministic. `BadInput` names what is not known.
    """
    design = character if isinstance(character, Design) else _design_named(character)
    if view not in poses.VIEWS:
        raise BadInput(f"View {view!r} is not known: write one of {', '.join(poses.VIEWS)}.")
    if expression not in FACES:
        raise BadInput(f"Expression {expression!r} is not known: write one of {', '.join(FACES)}.")
    window = window_of(design, framing)
    sheet = Sheet(window, size / (window[2] - window[0]))
    draw_figure(sheet, design, outfit=outfit, face=FACES[expression], pose=pose or poses.stand(poses.VIEWS[view]))
    figure = sheet.finish()
    figure = figure if figure.size == (size, size) else figure.resize((size, size))
    if background is None:
        return figure
    picture = Image.new("RGB", (size, size), background)
    picture.paste(figure, (0, 0), figure)
    return picture


def _design_named(name: str) -> Design:
    for key, design in CAST.items():
        if name in (key, design.name):
            return design
    raise BadInput(f"Nobody in the demo's cast is called {name!r}: write one of {', '.join(CAST)}.")


_SKINS: Final = ("#fbdcc6", "#f6d0b1", "#e8b48c", "#d9a27c", "#b97a56", "#8d5a3b", "#6b4230")
_HAIRS: Final = ("#22203a", "#5a3520", "#c9913f", "#e2672a", "#d8d2c8", "#7d2f4f", "#2f6f8f", "#d75a9a")
_EYES: Final = ("#7a4526", "#2f8f6a", "#3f5f9a", "#5a4526", "#7a4f9a")
_CLOTHES: Final = (
    "#c8372d", "#e2761b", "#e3b81f", "#5f9e2f", "#1f8f6b", "#1d8fb0", "#2f56a8", "#5d3fa8", "#a8359a", "#d44f7f",
    "#7a4b2a", "#3c3f4a", "#e9e3d2", "#87b6c9",
)  # fmt: skip


def random_design(seed: int) -> Design:
    """Somebody new, the same for the same seed: other palette, hair, build, garment and accessory than most others."""
    rng = random.Random(seed)  # noqa: S311 - a drawing, not a secret
    garment = rng.choice(list(Garment))
    coat, legs, shoes, trim, accessory = (hex_colour(c) for c in rng.sample(_CLOTHES, 5))
    has_beard = rng.random() < 0.4
    hair = rng.choice(
        [Hair.CROP, Hair.BALD, Hair.CURLS, Hair.MOHAWK] if has_beard else [h for h in Hair if h is not Hair.BALD]
    )
    hair_colour = hex_colour(rng.choice(_HAIRS))
    heads_tall = rng.uniform(3.3, 5.4)
    build = rng.uniform(0.0, 1.0)
    worn = [Accessory.SCARF, Accessory.GLASSES, Accessory.BAG]
    if hair in (Hair.CROP, Hair.BOB, Hair.LONG, Hair.BALD):
        worn += [Accessory.FEDORA, Accessory.BEANIE, Accessory.HEADPHONES]
    if hair in (Hair.CROP, Hair.BUN, Hair.BALD):
        worn += [Accessory.GOGGLES]
    return Design(
        name=f"Passer-by {seed}",
        heads_tall=heads_tall,
        head_width=rng.uniform(0.93, 1.1),
        shoulder=0.40 + 0.24 * build + 0.02 * (heads_tall - 4),
        waist=0.36 + 0.14 * build,
        hip=0.40 + 0.08 * build,
        belly=max(0.0, rng.uniform(-0.15, 0.22)),
        skin=hex_colour(rng.choice(_SKINS)),
        hair=hair,
        hair_colour=hair_colour,
        beard=rng.choice([Beard.FULL, Beard.MOUSTACHE, Beard.GOATEE]) if has_beard else Beard.NONE,
        beard_colour=hair_colour,
        eye_colour=hex_colour(rng.choice(_EYES)),
        eye_size=rng.uniform(0.8, 1.25),
        brow_width=rng.uniform(0.022, 0.048),
        nose=rng.uniform(0.1, 1.0),
        has_lashes=not has_beard and rng.random() < 0.6,
        has_freckles=rng.random() < 0.25,
        garment=garment,
        garment_colour=coat,
        trim_colour=trim,
        inner_colour=hex_colour("#f0ece0"),
        tie_colour=accessory,
        legs_colour=legs,
        shoe_colour=shoes,
        boot_height=rng.choice([0.1, 0.35, 0.55]),
        hem={Garment.TRENCH: 0.52, Garment.RAINCOAT: 0.36, Garment.DRESS: 0.55, Garment.JUMPER: 0.05}.get(garment, 0.2),
        flare=1.5 if garment is Garment.DRESS else rng.uniform(1.0, 1.25),
        accessories=(rng.choice(worn),),
        accessory_colour=accessory,
    )
