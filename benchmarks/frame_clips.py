"""Clips for `benchmarks/frames.py`, drawn by the project itself, of which the truth is known for every moment.

1080p at 30 frames a second: 12 scenes of 5 s, each a photo-like picture of its own (clouds of detail at every size,
some hundred shapes, fine strokes) before which a camera pans and shakes. Sensor grain lies over everything. Ten of
the scenes hold a span of motion blur, in three of them right after the cut, where the keyframe is; in four the
camera stands still from the middle on, so that two frames of there show the same.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from domain.records import Record

WIDTH, HEIGHT, RATE = 1920, 1080, 30
SCENES, SCENE_SECONDS = 12, 5.0
SECONDS = SCENES * SCENE_SECONDS

PAN_PIXELS = 620
"""How far the camera goes in one scene: two seconds of it show a picture that a person would call another."""

SAME_VIEW_PIXELS = 60
"""Two moments of one scene whose cameras stand closer than this show the same: about 3 % of the picture's width."""

_MARGIN = 40
_BLUR_PIXELS = 36
_BLUR_STEPS = 9
_STILL_FROM = {2: 2.4, 5: 2.0, 8: 2.6, 10: 1.6}
_BLURRED = {
    0: (1.7, 2.5), 1: (0.0, 0.7), 2: (3.6, 4.4), 3: (2.9, 3.6), 4: (0.0, 0.6), 6: (1.8, 2.4),
    7: (3.8, 4.6), 8: (0.0, 0.8), 9: (1.9, 2.8), 11: (3.9, 4.9),
}  # fmt: skip
"""Scene → from and to, in seconds of the scene."""

Pixels = NDArray[np.uint8]


class Moment(Record):
    """What is true of a moment: which scene, where the camera stands (pixels), whether the picture is blurred."""

    scene: int
    x: float
    y: float
    is_blurred: bool


class Kind(Record):
    """How a clip is encoded. `options` are ffmpeg's, `gop` the most frames between keyframes."""

    name: str
    codec: str
    gop: int
    options: tuple[str, ...]
    suffix: str = ".mp4"


def kinds(*, is_quick: bool) -> list[Kind]:
    """Every codec at every GOP; quick is H.264 at 60 alone. In the GOPs of 250 no cut brings a keyframe of its own."""
    if is_quick:
        return [_kind("h264", 60)]
    return [_kind(codec, gop) for codec in ("h264", "hevc", "vp9", "av1") for gop in (60, 30, 250)]


def truth_at(seconds: float) -> Moment:
    """The truth of the frame shown at a moment; the ten-minute clip repeats its minute."""
    frame = round(seconds * RATE) % round(SECONDS * RATE)
    scene, index = divmod(frame, round(SCENE_SECONDS * RATE))
    at = index / RATE
    x, y = _camera(scene, at)
    start, end = _BLURRED.get(scene, (0.0, 0.0))
    return Moment(scene=scene, x=x, y=y, is_blurred=start <= at < end)


def shows_the_same(one: Moment, other: Moment) -> bool:
    """Whether two moments are a duplicate pair."""
    return one.scene == other.scene and math.hypot(one.x - other.x, one.y - other.y) < SAME_VIEW_PIXELS


def make_clip(kind: Kind, folder: Path) -> Path:
    """The minute in one codec; made once, found again afterwards. Takes about a minute on two cores."""
    path = folder / f"{kind.name}{kind.suffix}"
    if not path.exists():
        _run("-i", str(_master(folder)), "-an", "-c:v", kind.codec, "-g", str(kind.gop), *kind.options, into=path)
    return path


def make_long_clip(clip: Path, times: int = 10) -> Path:
    """The same minute `times` times over, its packets copied."""
    path = clip.with_name(f"{clip.stem}_x{times}{clip.suffix}")
    if not path.exists():
        _run("-stream_loop", str(times - 1), "-i", str(clip), "-c", "copy", into=path)
    return path


def _kind(codec: str, gop: int) -> Kind:
    has_scene_cuts = gop < 250
    name = f"{codec}_gop{gop}"
    no_cuts = () if has_scene_cuts else ("-sc_threshold", "0")
    match codec:
        case "h264":
            more = ("-preset", "veryfast", "-b:v", "15M", "-maxrate", "20M", "-bufsize", "30M", *no_cuts)
            return Kind(name=name, codec="libx264", gop=gop, options=(*more, "-pix_fmt", "yuv420p"))
        case "hevc":
            cuts = "" if has_scene_cuts else ":scenecut=0"
            more = ("-preset", "ultrafast", "-b:v", "10M", "-x265-params", f"log-level=error{cuts}", "-tag:v", "hvc1")
            return Kind(name=name, codec="libx265", gop=gop, options=more)
        case "vp9":
            more = ("-deadline", "realtime", "-cpu-used", "7", "-row-mt", "1", "-tile-columns", "2", "-b:v", "10M")
            return Kind(name=name, codec="libvpx-vp9", gop=gop, options=more, suffix=".webm")
        case _:
            more = ("-preset", "11", "-b:v", "8M", "-svtav1-params", f"scd={int(has_scene_cuts)}")
            return Kind(name=name, codec="libsvtav1", gop=gop, options=more)


def _master(folder: Path) -> Path:
    """The drawn frames, hardly compressed, from which every codec is encoded."""
    path = folder / "master.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.mp4")
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE), "-i", "-")
    colours = ("-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709", "-color_primaries", "bt709")
    encode = ("-color_trc", "bt709", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "6", "-pix_fmt", "yuv420p")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *raw, *colours, *encode, str(partial)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for frame in drawn_frames():
            process.stdin.write(frame.tobytes())
        process.stdin.close()
        if process.wait() != 0:
            raise SystemExit(f"ffmpeg could not write {partial} (exit {process.returncode})")
    partial.replace(path)
    return path


def drawn_frames() -> Iterator[Pixels]:
    """Every frame of the minute in order, height × width × 3."""
    grain = _grain()
    for scene in range(SCENES):
        art = _scene_art(scene)
        for index in range(round(SCENE_SECONDS * RATE)):
            at = index / RATE
            picture = _seen(art, scene, at)
            layer = grain[(7 * index + scene) % len(grain)]
            yield np.clip(picture.astype(np.int16) + layer[:, :, None], 0, 255).astype(np.uint8)


def _seen(art: Pixels, scene: int, at: float) -> Pixels:
    """The part of the scene before the camera; in a blurred span the mean of what it swept over."""
    x, y = (round(value) + _MARGIN for value in _camera(scene, at))
    start, end = _BLURRED.get(scene, (0.0, 0.0))
    if not start <= at < end:
        return art[y : y + HEIGHT, x : x + WIDTH]
    total = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
    for step in range(_BLUR_STEPS):
        shift = round((step / (_BLUR_STEPS - 1) - 0.5) * _BLUR_PIXELS)
        total += art[y + shift // 3 : y + shift // 3 + HEIGHT, x + shift : x + shift + WIDTH]
    return (total // _BLUR_STEPS).astype(np.uint8)


def _camera(scene: int, at: float) -> tuple[float, float]:
    """Where the camera stands: a pan, to the right or to the left, and the shake of a hand."""
    moved = min(at, _STILL_FROM.get(scene, SCENE_SECONDS)) / SCENE_SECONDS
    pan = moved if scene % 2 == 0 else 1 - moved
    shake_x = 4 * math.sin(9.1 * at + scene) + 2 * math.sin(23.0 * at)
    shake_y = 3 * math.sin(7.7 * at + 2 * scene) + 2 * math.sin(19.0 * at)
    return PAN_PIXELS * pan + 8 + shake_x, 60 + 40 * math.sin(scene) * moved + shake_y


def _grain() -> NDArray[np.int16]:
    """Sixteen pictures of sensor noise, standard deviation 3 grey levels."""
    random = np.random.default_rng(3)
    return (random.standard_normal((16, HEIGHT, WIDTH), dtype=np.float32) * 3).astype(np.int16)


def _scene_art(scene: int) -> Pixels:
    """A picture larger than the frame, with detail at every size, as photographs have it."""
    random = np.random.default_rng(1000 + scene)
    width, height = WIDTH + PAN_PIXELS + 2 * _MARGIN + 16, HEIGHT + 130 + 2 * _MARGIN
    clouds = np.zeros((height, width, 3), np.float32)
    for size, weight in ((5, 50.0), (11, 34.0), (40, 20.0), (150, 13.0), (500, 9.0)):
        small = random.random((max(2, size * height // width), size, 3), dtype=np.float32) - 0.5
        layers = [Image.fromarray(small[:, :, c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        clouds += weight * 2 * np.stack([np.asarray(layer) for layer in layers], axis=2)
    base = np.clip(clouds + random.integers(90, 150, 3), 0, 255).astype(np.uint8)
    picture = Image.fromarray(base)
    draw = ImageDraw.Draw(picture)
    for _ in range(260):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        across = int(random.integers(12, 260))
        colour = tuple(int(value) for value in random.integers(10, 246, 3))
        box = (x, y, x + across, y + int(across * random.uniform(0.4, 1.6)))
        match int(random.integers(0, 3)):
            case 0:
                draw.ellipse(box, fill=colour)
            case 1:
                draw.rectangle(box, fill=colour)
            case _:
                corners = [(x + int(random.integers(-across, across)), y + int(random.integers(-across, across)))
                           for _ in range(4)]  # fmt: skip
                draw.polygon(corners, fill=colour)
    for _ in range(2600):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        angle, length = random.uniform(0, math.pi), int(random.integers(10, 70))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        draw.line((x, y, x + length * math.cos(angle), y + length * math.sin(angle)), fill=colour, width=2)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(0.6)), dtype=np.uint8)


def _run(*arguments: str, into: Path) -> None:
    into.parent.mkdir(parents=True, exist_ok=True)
    partial = into.with_name(f"{into.stem}.partial{into.suffix}")
    threads = str(os.cpu_count() or 2)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments, "-threads", threads, str(partial)]
    subprocess.run(command, check=True)
    partial.replace(into)
