"""Films a storyboard: people on painted places through a moving camera, piped to ffmpeg as raw frames."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from math import ceil, floor, pi, sin
from pathlib import Path
from typing import Final

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from domain.errors import NotConfigured, Unavailable
from domain.records import Record
from studio.demo import poses
from studio.demo.canvas import SIZE
from studio.demo.cast import CAST
from studio.demo.designs import FACES, Accessory, Hair, Outfit, Pose, blinking
from studio.demo.figures import draw_figure
from studio.demo.ink import Sheet, Window
from studio.demo.scenes import Scene, paint_scene

DRAWINGS_PER_SECOND: Final = 12
"""People move on twos, as in drawn film: half the drawings, and more charm."""


class Action(StrEnum):
    """What a person does during a take."""

    STAND = "stand"
    LOOK = "look"
    TALK = "talk"
    ON_HIP = "on_hip"
    POCKETS = "pockets"
    WAVE = "wave"
    POINT = "point"
    CHEER = "cheer"
    THINK = "think"
    WALK = "walk"
    RUN = "run"


_CYCLE: Final = {Action.WALK: 12, Action.RUN: 8, Action.WAVE: 8, Action.CHEER: 8, Action.POINT: 12, Action.TALK: 12}
"""Drawings per cycle of a movement; the others breathe over 24."""

_SIZES: Final = {"full": (128.0, None), "medium": (186.0, 84.0), "bust": (272.0, 92.0), "close": (410.0, 84.0)}
"""Framing: pixels per head in the 1280 x 720 place, and the crown's height there (None: stands on the floor at 694)."""
_FLOOR: Final = 694.0


class Take(Record):
    """One person in a shot. `x` is where they are at the start and the end, 0-1280; `yaw` in degrees."""

    who: str
    action: Action
    faces: tuple[str, ...] = ("calm",)
    framing: str = "full"
    x: tuple[float, float] = (640.0, 640.0)
    yaw: float = 0.0
    is_mirrored: bool = False
    scale: float = 1.0
    outfit: Outfit = Outfit()


class Shot(Record):
    """One camera setting. The camera is (x, y, zoom) of the middle of the picture, from start to end.

    `brightness` goes from start to end (1 unchanged); `whip` is a span of seconds blurred sideways;
    `depth` blurs the place behind the people, in pixels of it.
    """

    place: str
    seconds: float
    takes: tuple[Take, ...]
    camera: tuple[tuple[float, float, float], tuple[float, float, float]] = ((640, 360, 1.0), (640, 360, 1.0))
    shake: float = 0.0
    brightness: tuple[float, float] = (1.0, 1.0)
    whip: tuple[float, float] | None = None
    depth: float = 0.0


class Reel(Record):
    """A clip to be made; the file's ending decides the container (mp4: H.264, webm: VP8). `sound` is a lavfi source."""

    file_name: str
    shots: tuple[Shot, ...]
    width: int = 960
    height: int = 540
    frames_per_second: int = 24
    sound: str | None = None

    @property
    def seconds(self) -> float:
        return sum(shot.seconds for shot in self.shots)

    @property
    def is_rainy(self) -> bool:
        """Rain and wet ground take longest to draw."""
        return any(shot.place == "rain_street" for shot in self.shots)


def film_reel(reel: Reel, folder: Path, ffmpeg: str) -> Path:
    """Draw and encode one clip; it appears whole or not at all, so it may be repeated.

    `NotConfigured` when ffmpeg cannot be started, `Unavailable` when it ends with an error.
    """
    target = folder / reel.file_name
    part = target.with_name(f"part-{target.name}")
    command = [ffmpeg, "-hide_banner", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{reel.width}x{reel.height}", "-r", str(reel.frames_per_second), "-i", "-"]
    if reel.sound is not None:
        fade = f"afade=t=in:d=0.3,afade=t=out:st={reel.seconds - 0.5:.2f}:d=0.5"
        command += ["-f", "lavfi", "-t", f"{reel.seconds:.3f}", "-i", f"{reel.sound},{fade}"]
    if target.suffix == ".webm":
        # Below zero the speed is fixed; above, libvpx drops quality as the machine gets busy.
        command += ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "-8", "-crf", "8", "-b:v", "4M"]
    else:
        command += [
            "-c:v",
            "libx264",
            "-preset",
            "superfast",
            "-crf",
            "18",
            "-movflags",
            "+faststart",
            "-c:a",
            "aac",
            "-b:a",
            "96k",
        ]
    command += ["-pix_fmt", "yuv420p", "-threads", "1", "-map_metadata", "-1"]
    command += ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", str(part)]
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=complaints)
        except OSError as error:
            raise NotConfigured(
                f"ffmpeg could not be started as {ffmpeg!r} ({error.strerror}): install it or give its path."
            ) from error
        try:
            _feed(process, reel)
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.kill()
            process.wait()
            if process.returncode:
                part.unlink(missing_ok=True)
        if process.returncode:
            complaints.seek(0)
            first_line = complaints.read(2000).decode(errors="replace").strip().partition("\n")[0]
            raise Unavailable(
                f"ffmpeg ended with code {process.returncode} while encoding {reel.file_name} ({first_line}): "
                "run it again, and if it stays so, give the path of another ffmpeg."
            )
    part.replace(target)
    return target


def _feed(process: subprocess.Popen[bytes], reel: Reel) -> None:
    """All frames into ffmpeg; when it stops reading, its exit code tells why."""
    assert process.stdin is not None
    try:
        for frame in draw_frames(reel):
            process.stdin.write(frame.tobytes())
    except BrokenPipeError:
        pass
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()


def draw_frames(reel: Reel, every: int = 1) -> Iterator[Image.Image]:
    """The clip's pictures in order (or each `every`-th of a shot), RGB at the reel's size."""
    for shot in reel.shots:
        stage = _Stage(shot, reel)
        for index in range(0, round(shot.seconds * reel.frames_per_second), every):
            yield stage.frame(index / reel.frames_per_second)


def _ease(a: float, b: float, share: float) -> float:
    return a + (b - a) * (share * share * (3 - 2 * share))


class _Stage:
    """One shot, set up: the place as a plate at the largest zoom, people as sprites on it, cached by drawing."""

    def __init__(self, shot: Shot, reel: Reel) -> None:
        self._shot, self._reel = shot, reel
        self._zoom = reel.height / SIZE[1] * max(shot.camera[0][2], shot.camera[1][2])
        self._scene: Scene = paint_scene(shot.place)
        plate = self._scene.picture
        if shot.depth:
            plate = plate.filter(ImageFilter.GaussianBlur(shot.depth))
        self._plate = plate.resize((ceil(SIZE[0] * self._zoom), ceil(SIZE[1] * self._zoom)), Image.Resampling.BILINEAR)
        self._actors = [_Actor(take, shot, self._scene, self._zoom) for take in shot.takes]
        self._rain = _rain_layers(reel.width, reel.height) if self._scene.is_raining else []

    def frame(self, at_seconds: float) -> Image.Image:
        shot, reel = self._shot, self._reel
        share = at_seconds / shot.seconds
        (x0, y0, z0), (x1, y1, z1) = shot.camera
        zoom = _ease(z0, z1, share)
        half_height = SIZE[1] / 2 / zoom
        half_width = half_height * reel.width / reel.height
        x = _ease(x0, x1, share) + shot.shake * (sin(at_seconds * 7.1) + 0.6 * sin(at_seconds * 12.7 + 1))
        y = _ease(y0, y1, share) + shot.shake * (sin(at_seconds * 8.3 + 2) + 0.5 * sin(at_seconds * 14.9))
        x = min(max(x, half_width), SIZE[0] - half_width)
        y = min(max(y, half_height), SIZE[1] - half_height)
        picture = self._view((x - half_width) * self._zoom, (y - half_height) * self._zoom, z0 == z1, zoom, at_seconds)
        if self._rain:
            layer = self._rain[int(at_seconds * reel.frames_per_second) % len(self._rain)]
            picture = ImageChops.add(picture, layer)
        brightness = _ease(*shot.brightness, share)
        if abs(brightness - 1) > 0.01:
            picture = picture.point([min(255, round(v * brightness)) for v in range(256)] * 3)
        if shot.whip is not None and shot.whip[0] <= at_seconds < shot.whip[1]:
            picture = picture.filter(ImageFilter.BoxBlur((14, 1)))
        return picture

    def _view(self, left: float, top: float, is_steady: bool, zoom: float, at_seconds: float) -> Image.Image:
        """What the camera sees: the plate from (left, top) on with the people on it, at the reel's size."""
        reel = self._reel
        shrink = self._zoom / (reel.height / SIZE[1] * zoom)
        width, height = reel.width * shrink, reel.height * shrink
        if is_steady:  # the plate is at the picture's scale already: whole pixels, no resampling
            left, top = (
                min(round(left), self._plate.width - reel.width),
                min(round(top), self._plate.height - reel.height),
            )
            width, height = reel.width, reel.height
        box = (floor(left), floor(top), ceil(left + width), ceil(top + height))
        box = (max(0, box[0]), max(0, box[1]), min(self._plate.width, box[2]), min(self._plate.height, box[3]))
        picture = self._plate.crop(box)
        for actor in self._actors:
            actor.paste(picture, (box[0], box[1]), at_seconds)
        if picture.size == (reel.width, reel.height):
            return picture
        inner = (max(0.0, left - box[0]), max(0.0, top - box[1]), left + width - box[0], top + height - box[1])
        inner = (inner[0], inner[1], min(inner[2], picture.width), min(inner[3], picture.height))
        return picture.resize((reel.width, reel.height), Image.Resampling.BILINEAR, box=inner)


class _Actor:
    def __init__(self, take: Take, shot: Shot, scene: Scene, zoom: float) -> None:
        self._take, self._seconds, self._scene = take, shot.seconds, scene
        self._design = CAST[take.who]
        base, crown = _SIZES[take.framing]
        head = base * take.scale
        hat = 0.32 if Accessory.FEDORA in self._design.accessories else 0.25 if self._design.hair is Hair.BUN else 0.05
        ground = _FLOOR if crown is None else crown + (self._design.heads_tall + hat) * head
        lowest = max(y + SIZE[1] / 2 / z for _, y, z in shot.camera)
        below = min(0.2, (min(lowest, SIZE[1]) - ground) / head + 0.35)
        self._window: Window = (-2.5, -(self._design.heads_tall + hat + 0.75), 2.5, below)
        self._pixels = head * zoom
        self._zoom, self._ground = zoom, ground * zoom
        self._shows_floor = below > 0.1
        self._sprites: dict[tuple[int, int, bool], tuple[Image.Image, tuple[int, int]]] = {}
        self._shadow = self._draw_shadow() if self._shows_floor else None

    def paste(self, picture: Image.Image, corner: tuple[int, int], at_seconds: float) -> None:
        take = self._take
        share = at_seconds / self._seconds
        x = (take.x[0] + (take.x[1] - take.x[0]) * share) * self._zoom - corner[0]
        y = self._ground - corner[1]
        sprite, (dx, dy) = self._sprite(at_seconds)
        if self._shadow is not None:
            picture.paste(
                (10, 6, 26), (round(x - self._shadow.width / 2), round(y - self._shadow.height / 2)), self._shadow
            )
            if self._scene.reflection:
                self._paste_reflection(picture, sprite, round(x + dx), round(y))
        picture.paste(sprite, (round(x + dx), round(y + dy)), sprite)

    def _paste_reflection(self, picture: Image.Image, sprite: Image.Image, x: int, ground: int) -> None:
        height = min(sprite.height, max(1, picture.height - ground))
        mirrored = sprite.crop((0, sprite.height - height, sprite.width, sprite.height)).transpose(
            Image.Transpose.FLIP_TOP_BOTTOM
        )
        opacity = self._scene.reflection
        picture.paste(mirrored, (x, ground), mirrored.getchannel("A").point([round(v * opacity) for v in range(256)]))

    def _sprite(self, at_seconds: float) -> tuple[Image.Image, tuple[int, int]]:
        take = self._take
        drawing = int(at_seconds * DRAWINGS_PER_SECOND)
        cycle = _CYCLE.get(take.action, 24)
        step = drawing % cycle
        if cycle == 24:
            step -= step % 4
        if take.action is Action.LOOK:
            step = min(8, max(0, drawing - 5))
        face = min(len(take.faces) - 1, int(at_seconds / self._seconds * len(take.faces)))
        is_blinking = drawing % 23 in (14, 15)
        key = (step, face, is_blinking)
        if key not in self._sprites:
            self._sprites[key] = self._draw(step, cycle, take.faces[face], is_blinking)
        return self._sprites[key]

    def _draw(self, step: int, cycle: int, face_name: str, is_blinking: bool) -> tuple[Image.Image, tuple[int, int]]:
        take, face = self._take, FACES[face_name]
        if take.action is Action.TALK and step % 4 in (1, 2):
            face = face.model_copy(
                update={"mouth_open": max(face.mouth_open, 0.25 + 0.2 * (step % 3)), "mouth_width": 0.8}
            )
        if is_blinking:
            face = blinking(face)
        light_from = self._scene.rim_from * (-1 if take.is_mirrored else 1)
        oversampling = 3 if self._pixels < 110 else 2
        sheet = Sheet(self._window, self._pixels, oversampling=oversampling, light_from=light_from)
        draw_figure(sheet, self._design, outfit=take.outfit, face=face, pose=_pose(take, step, cycle))
        sprite, (left, top) = sheet.finish_trimmed()
        x = round(self._window[0] * self._pixels) + left
        if take.is_mirrored:
            sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            x = -x - sprite.width
        return _lit(sprite, self._scene, max(2, round(self._pixels * 0.022))), (
            x,
            round(self._window[1] * self._pixels) + top,
        )

    def _draw_shadow(self) -> Image.Image:
        width, height = round(self._pixels * 1.5), max(4, round(self._pixels * 0.22))
        shadow = Image.new("L", (width * 2, height * 3))
        ImageDraw.Draw(shadow).ellipse((width * 0.5, height, width * 1.5, height * 2), fill=120)
        return shadow.filter(ImageFilter.GaussianBlur(height * 0.3))


def _pose(take: Take, step: int, cycle: int) -> Pose:
    phase = step / cycle
    match take.action:
        case Action.LOOK:
            turn = step / 8
            target = 15.0 if take.yaw > 60 else min(85.0, take.yaw + 42)
            return poses.stand(take.yaw, 0.0).model_copy(
                update={"head_yaw": take.yaw + (target - take.yaw) * turn, "head_tilt": 4 * turn}
            )
        case Action.TALK:
            gesture = sin(2 * pi * phase)
            return poses.stand(take.yaw, phase).model_copy(
                update={"far_arm": (34.0 + 6 * gesture, 96.0 + 16 * gesture), "head_tilt": 3 * gesture}
            )
        case Action.STAND:
            return poses.stand(take.yaw, phase)
        case _:
            return {
                Action.ON_HIP: poses.on_hip,
                Action.POCKETS: poses.pockets,
                Action.WAVE: poses.wave,
                Action.POINT: poses.point,
                Action.CHEER: poses.cheer,
                Action.THINK: poses.think,
                Action.WALK: poses.walk,
                Action.RUN: poses.run,
            }[take.action](take.yaw, phase)


def _lit(sprite: Image.Image, scene: Scene, rim_pixels: int) -> Image.Image:
    """The place's light on a person: its colour over everything, its rim along one edge."""
    table = [round(v * scene.light[channel] / 255) for channel in range(3) for v in range(256)] + list(range(256))
    lit = sprite.point(table)
    alpha = lit.getchannel("A")
    moved = Image.new("L", alpha.size)
    moved.paste(alpha, (round(-scene.rim_from * rim_pixels), rim_pixels // 2))
    rim = ImageChops.subtract(alpha, moved).point([round(v * 0.55) for v in range(256)])
    coloured = lit.convert("RGB")
    coloured.paste(scene.rim, (0, 0), rim)
    coloured.putalpha(alpha)
    return coloured


def _rain_layers(width: int, height: int) -> list[Image.Image]:
    """Six pictures of falling rain, to be added in turn."""
    layers = []
    for k in range(6):
        layer = Image.new("RGB", (width, height))
        draw = ImageDraw.Draw(layer)
        for drop in range(150):
            x = (drop * 197 + k * 61 * (drop % 3 + 1)) % (width + 60) - 30
            y = (drop * 331 + k * 83 * (drop % 4 + 2)) % (height + 60) - 60
            length = 14 + drop % 19
            draw.line((x, y, x - length * 0.25, y + length), fill=(34, 42, 56) if drop % 3 else (58, 68, 84))
        layers.append(layer)
    return layers
