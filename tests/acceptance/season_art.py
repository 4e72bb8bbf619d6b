"""What the acceptance tests' small seasons are learned from: drawn stills, and LoRAs that somebody already has."""

from __future__ import annotations

import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

from providers.sandbox.engine.training import train_lora
from studio.demo.cast import draw_character

DESCRIPTIONS = {
    "mei": "fisher, red scarf, short black hair",
    "tova": "small girl, teal raincoat, ginger bun",
    "dario": "bald gentleman in a purple suit",
    "rui": "tall inspector, mustard trench coat, grey beard",
}
SHOTS = (
    ("front", "calm", "full", 0.5, "#dedee2", "#8f8f99"),
    ("three_quarter", "smile", "bust", 0.3, "#b9cfe0", "#3b5a6e"),
    ("profile", "calm", "bust", 0.7, "#e6dcc4", "#c08f52"),
    ("front", "smile", "close_up", 0.4, "#2f4a3a", "#c9d8c4"),
    ("three_quarter", "calm", "full", 0.75, "#5a4a6a", "#d8c8d8"),
    ("front", "calm", "bust", 0.65, "#e0a888", "#402f28"),
)
PICTURE_SIDE, FIGURE_SIDE = 768, 640


def draw_art(folder: Path) -> None:
    """Six stills of each person: other views, distances, places in the picture and backgrounds."""
    folder.mkdir()
    for who in DESCRIPTIONS:
        for number, (view, face, framing, place, sky, ground) in enumerate(SHOTS):
            picture = Image.new("RGB", (PICTURE_SIDE, PICTURE_SIDE), sky)
            horizon = int(PICTURE_SIDE * (0.25 + 0.12 * number))
            ImageDraw.Draw(picture).rectangle((0, horizon, PICTURE_SIDE, PICTURE_SIDE), fill=ground)
            person = draw_character(who, view, face, FIGURE_SIDE, framing=framing, background=None)
            picture.paste(person, (int(place * (PICTURE_SIDE - FIGURE_SIDE)), PICTURE_SIDE - FIGURE_SIDE), person)
            picture.save(folder / f"{who}-{number}.png", compress_level=1)


def train_by_hand(art: Path, who: str, out: Path, *, base: str = "flux-1-dev", steps: int = 300) -> Path:
    """A LoRA file as somebody may already have it, from the sandbox's own engine and outside every season."""
    trigger = f"{who.upper()}_TRIGGER"
    archive = out.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as opened:
        for number in range(len(SHOTS)):
            opened.write(art / f"{who}-{number}.png", f"{number}.png")
            opened.writestr(f"{number}.txt", trigger)
    train_lora(archive, base=base, trigger_word=trigger, steps=steps, learning_rate=None, out=out)
    return out
