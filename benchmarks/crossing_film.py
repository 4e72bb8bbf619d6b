"""Planted clips of two drawn people who cross each other's way, with the truth of every picture.

A clip is one shot on a painted place with a steady camera; people walk, stand or talk in it, the later take nearer to
us. `pictures_of` gives its pictures with the box and the visible share of everybody; deterministic, Pillow only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domain.pictures import Box
from providers.ports import RgbImage
from studio.demo import poses
from studio.demo.canvas import SIZE
from studio.demo.designs import FACES, Accessory, Design, Hair, Outfit, Pose
from studio.demo.figures import draw_figure
from studio.demo.ink import Sheet, Window
from studio.demo.scenes import Scene, paint_scene

DRAWINGS_PER_SECOND = 12
WALK_CYCLE = 12
FLOOR = 690.0
HEAD_PIXELS = {"full": 122.0, "medium": 190.0, "bust": 270.0, "close": 400.0}
"""Of a 1280 × 720 picture; nearer framings cut the body off at the picture's lower edge."""

CROWN = {"medium": 84.0, "bust": 92.0, "close": 80.0}
PLAIN = Outfit()
PLACES = ("pier", "market", "tram", "lighthouse", "rain_street", "rooftop")


@dataclass(frozen=True)
class Take:
    """Somebody in a clip: from where to where (x of 0…1280), how turned (degrees), walking or not."""

    who: Design
    x: tuple[float, float]
    framing: str = "full"
    yaw: float = 85.0
    is_walking: bool = True
    face: str = "calm"
    outfit: Outfit = PLAIN
    scale: float = 1.0


@dataclass(frozen=True)
class PlantedClip:
    """A shot of some seconds; the last take is the nearest."""

    name: str
    place: str
    seconds: float
    takes: tuple[Take, ...]
    place_seed: int = 7


@dataclass(frozen=True)
class Seen:
    """The truth of one person in one picture: the visible pixels at a quarter of the size, and the box around them.

    `share` of the figure inside the picture is not hidden by others.
    """

    name: str
    box: Box
    visible: NDArray[np.bool_]
    share: float
    head_pixels: float
    head_yaw: float
    framing: str


@dataclass(frozen=True)
class Planted:
    """A picture of a clip and who is in it."""

    clip: str
    at_seconds: float
    image: RgbImage
    seen: tuple[Seen, ...]


@cache
def place_of(place: str, seed: int) -> Scene:
    return paint_scene(place, seed)


def pictures_of(clip: PlantedClip, every_seconds: float = 0.5, *, frames_per_second: float = 0) -> Iterator[Planted]:
    """The clip's pictures, one each `every_seconds` from half of that on; all frames with `frames_per_second`."""
    scene = place_of(clip.place, clip.place_seed)
    actors = [_Actor(take, scene, clip.seconds) for take in clip.takes]
    step = 1 / frames_per_second if frames_per_second else every_seconds
    at_seconds = 0.0 if frames_per_second else every_seconds / 2
    while at_seconds < clip.seconds - 1e-6:
        yield _picture(clip, scene, actors, at_seconds)
        at_seconds += step


def encode(clip: PlantedClip, path: Path, frames_per_second: int = 24) -> Path:
    """Write the clip as H.264, every frame of it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=frames_per_second)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"}
        for planted in pictures_of(clip, frames_per_second=frames_per_second):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planted.image, format="rgb24")))
        container.mux(stream.encode())
    return path


def _picture(clip: PlantedClip, scene: Scene, actors: list[_Actor], at_seconds: float) -> Planted:
    picture = scene.picture.copy()
    covers: list[NDArray[np.bool_]] = []
    for actor in actors:
        sprite, at = actor.sprite(at_seconds)
        picture.paste(sprite, at, sprite)
        cover = Image.new("L", SIZE)
        cover.paste(sprite.getchannel("A"), at)
        covers.append(np.asarray(cover) > 128)
    seen = []
    for index, (actor, cover) in enumerate(zip(actors, covers, strict=True)):
        if cover.sum() < 400:
            continue
        hidden = np.zeros_like(cover)
        for nearer in covers[index + 1 :]:
            hidden |= nearer
        visible = cover & ~hidden
        if not visible.any():
            continue
        rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
        box = Box(left=int(columns[0]), top=int(rows[0]), right=int(columns[-1]) + 1, bottom=int(rows[-1]) + 1)
        take = actor.take
        share = float(visible.sum() / cover.sum())
        seen.append(Seen(take.who.name, box, visible[::4, ::4], share, actor.pixels, abs(take.yaw), take.framing))
    return Planted(clip.name, at_seconds, np.asarray(picture.convert("RGB")), tuple(seen))


class _Actor:
    def __init__(self, take: Take, scene: Scene, seconds: float) -> None:
        self.take, self._scene, self._seconds = take, scene, seconds
        design = take.who
        hat = 0.34 if Accessory.FEDORA in design.accessories else 0.28 if design.hair is not Hair.CROP else 0.1
        self.pixels = HEAD_PIXELS[take.framing] * take.scale
        crown = CROWN.get(take.framing)
        self._ground = FLOOR if crown is None else crown + (design.heads_tall + hat) * self.pixels
        below = min(0.2, (SIZE[1] - self._ground) / self.pixels + 0.35)
        self._window: Window = (-2.5, -(design.heads_tall + hat + 0.7), 2.5, below)
        self._sprites: dict[int, tuple[Image.Image, int, int]] = {}

    def sprite(self, at_seconds: float) -> tuple[Image.Image, tuple[int, int]]:
        step = int(at_seconds * DRAWINGS_PER_SECOND) % (WALK_CYCLE if self.take.is_walking else 24)
        step -= 0 if self.take.is_walking else step % 6
        if step not in self._sprites:
            self._sprites[step] = self._draw(step)
        sprite, dx, dy = self._sprites[step]
        share = at_seconds / self._seconds
        x = self.take.x[0] + (self.take.x[1] - self.take.x[0]) * share
        return sprite, (round(x + dx), round(self._ground + dy))

    def _draw(self, step: int) -> tuple[Image.Image, int, int]:
        take = self.take
        pose: Pose = (
            poses.walk(abs(take.yaw), step / WALK_CYCLE) if take.is_walking else poses.stand(abs(take.yaw), step / 24)
        )
        is_mirrored = take.yaw < 0
        light_from = self._scene.rim_from * (-1 if is_mirrored else 1)
        sheet = Sheet(self._window, self.pixels, oversampling=2, light_from=light_from)
        draw_figure(sheet, take.who, outfit=take.outfit, face=FACES[take.face], pose=pose)
        sprite, (left, top) = sheet.finish_trimmed()
        x = round(self._window[0] * self.pixels) + left
        if is_mirrored:
            sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            x = -x - sprite.width
        tinted = [round(v * self._scene.light[channel] / 255) for channel in range(3) for v in range(256)]
        return sprite.point(tinted + list(range(256))), x, round(self._window[1] * self.pixels) + top


def season_of(right: Design, wrong: Design, seed: int) -> tuple[PlantedClip, ...]:
    """Seven clips: the right one alone in three, the wrong one alone in one, in three both, who cross."""
    rng = random.Random(f"crossing {seed}")  # noqa: S311 - a drawing, not a secret
    places = rng.sample(PLACES, len(PLACES))
    face = lambda: rng.choice(list(FACES))  # noqa: E731
    low, high = rng.uniform(180, 330), rng.uniform(950, 1100)
    return (
        PlantedClip(
            "right-1", places[0], 4, (Take(right, (low, high), face=face(), scale=rng.uniform(0.9, 1.05)),), seed
        ),
        PlantedClip(
            "right-2", places[1], 3, (Take(right, (700, 560), "bust", rng.uniform(0, 45), False, face()),), seed
        ),
        PlantedClip(
            "right-3", places[2], 3, (Take(right, (480, 760), "medium", rng.uniform(20, 85), True, face()),), seed
        ),
        PlantedClip(
            "wrong-1", places[3], 3, (Take(wrong, (high, low), "full", -rng.uniform(40, 85), True, face()),), seed
        ),
        PlantedClip(
            "both-1", places[4], 6,
            (Take(wrong, (1130, 140), "full", -85, True, face()), Take(right, (150, 1120), "full", 85, True, face())),
            seed,
        ),
        PlantedClip(
            "both-2", places[5], 5,
            (Take(right, (350, 330), "full", rng.uniform(0, 40), False, face()), Take(wrong, (1150, 500), "full", -60)),
            seed,
        ),
        PlantedClip(
            "both-3", places[0], 5,
            (Take(right, (1080, 250), "medium", -70, True, face()), Take(wrong, (180, 1080), "medium", 40)),
            seed,
        ),
    )  # fmt: skip
