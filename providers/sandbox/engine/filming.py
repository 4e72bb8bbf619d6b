"""Filming: a still in layers, moved by a camera and by its own steps, written as a playable MP4.

Frames are drawn with Pillow and piped to ffmpeg (H.264, yuv420p, index first). Nothing is invented between
frames: the people slide, bob and lean, the camera travels, rain falls.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from domain.errors import JobFailed, Rejected
from providers.sandbox.engine.drawing import actors_of, cut_actor, mix_seed, open_picture, stage_for
from providers.sandbox.engine.picture import Bytes, Floats, blur, resize
from providers.sandbox.engine.scenes import Scene, Words, paint_scene
from providers.sandbox.engine.stage import Layer, Stage, compose, draw_weather, label
from providers.sandbox.engine.subjects import find_subjects
from providers.sandbox.engine.words import split_words

_STEPPING = frozenset("walk walks walking stroll strolls run runs running chase chases dance dances dancing".split())  # noqa: SIM905
_RUNNING = frozenset("run runs running chase chases sprint sprints".split())  # noqa: SIM905
_COMMENT = "Made by the OnModel sandbox: a rehearsal, not a vendor's render"


@dataclass(frozen=True)
class _Take:
    """How long, how large and how fast; frames are `frame_count` of `width`×`height` px."""

    frame_count: int
    width: int
    height: int
    frames_per_second: int
    seed: int
    words: Words


def film_image(
    *, image: Path, prompt: str, loras: Sequence[tuple[Path, float]] = (), base: str = "wan-22-i2v-a14b",
    seconds: float, width: int, height: int, frames_per_second: int, seed: int, ffmpeg: str, out: Path,
) -> None:  # fmt: skip
    """Bring the still to life: its subject moves before a filled-in background. The first frame is the still, cropped
    to `width`×`height`. Equal arguments give equal pictures; repeating overwrites.

    Who the prompt calls from `loras` (files of `base`) takes the place of the still's subject. `Rejected` when the
    picture or a LoRA cannot be used, `JobFailed` when ffmpeg fails.
    """
    still = _fitted(open_picture(image), width, height)
    take = _take(prompt, seconds, None, width, height, frames_per_second, seed)
    actors = actors_of(prompt, take.seed, loras, base=base)
    parted = _in_layers(still, take.words)
    if not actors:
        _film(parted, take, ffmpeg, out, is_still=True)
        return
    scene = paint_scene(take.words, take.seed, width, height)
    set_in = Scene(parted.background, scene.mood, scene.horizon, scene.weather)
    _film(compose(take.words, take.seed, set_in, actors), take, ffmpeg, out)


def film_elements(
    *, elements: Sequence[Sequence[Path]], images: Sequence[Path], prompt: str, seconds: float, width: int, height: int,
    frames_per_second: int, seed: int, ffmpeg: str, out: Path,
) -> None:  # fmt: skip
    """Set each element's subject, cut from its frontal (first) picture, into a scene, and film it. The element's other
    pictures help to tell subject from background.

    The scene is the first of `images` where there is one, else it is painted from the prompt. Errors and repeating
    as `film_image`.
    """
    take = _take(prompt, seconds, None, width, height, frames_per_second, seed)
    scene = paint_scene(take.words, take.seed, width, height)
    if images:
        given = Image.fromarray(_fitted(open_picture(images[0]), width, height))
        scene = Scene(given, scene.mood, scene.horizon, scene.weather)
    actors = []
    for pictures in elements:
        if not pictures:
            raise Rejected("An element came without a picture: give each element its frontal picture.")
        actors.append(cut_actor(pictures))
    _film(compose(take.words, take.seed, scene, actors), take, ffmpeg, out)


def film_text(
    *, prompt: str, loras: Sequence[tuple[Path, float]], base: str = "wan-22-t2v-a14b", seconds: float | None = None,
    frames: int | None = None, width: int, height: int, frames_per_second: int, seed: int, ffmpeg: str, out: Path,
) -> None:  # fmt: skip
    """Draw the prompt with LoRAs of `base` and film it, for `frames` frames or else `seconds`.

    Errors as `film_image`, and `Rejected` when a LoRA cannot be used, with the reason. Repeating overwrites.
    """
    take = _take(prompt, seconds, frames, width, height, frames_per_second, seed)
    _film(stage_for(prompt, seed, width, height, loras, base=base), take, ffmpeg, out)


def _take(
    prompt: str, seconds: float | None, frames: int | None, width: int, height: int, frames_per_second: int, seed: int
) -> _Take:
    count = frames if frames is not None else round((seconds or 0) * frames_per_second)
    if count < 1 or width < 16 or height < 16 or frames_per_second < 1:
        raise Rejected(
            f"A clip of {count} frames, {width}×{height} px at {frames_per_second} frames per second cannot be filmed: "
            "ask for at least one frame of 16×16."
        )
    words = frozenset(split_words(prompt))
    # yuv420p wants even sides; the odd pixel is dropped as the vendors' own encoders do.
    return _Take(count, width // 2 * 2, height // 2 * 2, frames_per_second, mix_seed(prompt, seed), words)


def _film(stage: Stage, take: _Take, ffmpeg: str, out: Path, *, is_still: bool = False) -> None:
    command = [
        ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "error", "-y",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{take.width}x{take.height}", "-r", str(take.frames_per_second),
        "-i", "pipe:0", "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "19", "-pix_fmt", "yuv420p",
        "-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709", "-color_primaries", "bt709",
        "-color_trc", "bt709", "-metadata", f"comment={_COMMENT}", "-movflags", "+faststart", "-f", "mp4", str(out),
    ]  # fmt: skip
    # ffmpeg says little at this level, so its errors fit into the pipe while we write.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        assert encoder.stderr is not None
        try:
            for frame in _frames(stage, take, is_still):
                encoder.stdin.write(frame.tobytes())
            encoder.stdin.close()
        except BrokenPipeError:
            pass  # it ended early; its own words below say why
        said = encoder.stderr.read().decode(errors="replace").strip()
        if encoder.wait() != 0:
            raise JobFailed(
                f"The sandbox could not film {out.name}: ffmpeg ended with {encoder.returncode} ({said[-300:]})."
            )


def _frames(stage: Stage, take: _Take, is_still: bool) -> Iterator[Image.Image]:
    random = np.random.default_rng([take.seed, 41])
    # A subject parted from a still by guess moves less than one that was placed as a layer: seams would show.
    liveliness = 0.35 if is_still else 1.0
    is_inward = is_still or bool(random.random() < 0.7)
    aim_x, aim_y = float(random.uniform(-0.5, 0.5)), float(random.uniform(-0.35, 0.1))
    layers = [_trimmed(layer) for layer in stage.layers]
    phases: list[float] = random.uniform(0, 2 * math.pi, 1 + max((layer.owner for layer in layers), default=0)).tolist()
    for number in range(take.frame_count):
        share = number / max(1, take.frame_count - 1)
        eased = share * share * (3 - 2 * share)
        seconds = number / take.frames_per_second
        camera = _Camera(1 + 0.09 * (eased if is_inward else 1 - eased), aim_x * eased, aim_y * eased)
        # The background is far away, and so grows less than those who stand before it.
        frame = stage.background.resize(
            (take.width, take.height), Image.Resampling.BILINEAR, box=camera.window(take, 1 + (camera.zoom - 1) * 0.7)
        )
        left, top, *_ = camera.window(take, camera.zoom)
        for layer in layers:
            right, up, breath = _movement(layer, take, seconds, share, phases[layer.owner], liveliness)
            at_x, at_y = layer.x + right - left, layer.y - up - top
            _lay(frame, layer, at_x * camera.zoom, at_y * camera.zoom, camera.zoom, breath)
        if stage.weather:
            draw_weather(frame, stage.weather, seconds)
        # A still that we drew carries its label already, and another's is not ours to write into.
        yield frame if is_still else label(frame)


@dataclass(frozen=True)
class _Camera:
    """Where the camera looks: enlarged `zoom` times, aimed -1 … 1 of the way to the edges that this leaves."""

    zoom: float
    aim_x: float
    aim_y: float

    def window(self, take: _Take, zoom: float) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of what is seen, px."""
        left = (take.width - take.width / zoom) / 2 * (1 + self.aim_x)
        top = (take.height - take.height / zoom) / 2 * (1 + self.aim_y)
        return left, top, left + take.width / zoom, top + take.height / zoom


def _movement(
    layer: Layer, take: _Take, seconds: float, share: float, phase: float, liveliness: float
) -> tuple[float, float, float]:
    """How far a layer has gone to the right and up (px), and how much taller it breathes; none at the first frame."""
    is_stepping, is_running = bool(take.words & _STEPPING), bool(take.words & _RUNNING)
    beat = (4.5 if is_running else 2.75 if is_stepping else 0.75) * seconds + phase
    reach = layer.picture.height * liveliness
    right = 0.006 * reach * (math.sin(beat) - math.sin(phase))
    up = 0.0
    if is_stepping:
        direction = 1 if math.cos(phase) > 0 else -1
        right += direction * share * liveliness * take.width * (0.06 if is_running else 0.035)
        up = 0.016 * reach * (abs(math.sin(beat)) - abs(math.sin(phase)))
    if layer.is_shadow:
        return right, 0.0, 1.0
    if layer.y + layer.picture.height >= take.height:
        up = min(0.0, up)  # cropped by the frame's edge: lifting it would show the cut
    return right, up, 1 + 0.006 * liveliness * (math.sin(2.2 * seconds + phase) - math.sin(phase))


def _trimmed(layer: Layer) -> Layer:
    """The layer without its empty margins, but with two clear pixels around, so that it can lie between pixels."""
    box = layer.mask.getbbox() or (0, 0, 1, 1)
    size = (box[2] - box[0] + 4, box[3] - box[1] + 4)
    mask = Image.new("L", size)
    mask.paste(layer.mask.crop(box), (2, 2))
    picture = layer.picture.crop((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2))
    return Layer(picture, mask, layer.x + box[0] - 2, layer.y + box[1] - 2, layer.owner, layer.is_shadow)


def _lay(frame: Image.Image, layer: Layer, x: float, y: float, zoom: float, breath: float) -> None:
    """Paste a layer at a place between pixels: enlarged by `zoom`, `breath` taller with its foot kept."""
    wide, high = layer.picture.width * zoom, layer.picture.height * zoom * breath
    y -= layer.picture.height * zoom * (breath - 1)
    left, top = max(0, math.ceil(x)), max(0, math.ceil(y))
    right, bottom = min(frame.width, math.floor(x + wide)), min(frame.height, math.floor(y + high))
    if right <= left or bottom <= top:
        return
    across, down = layer.picture.width / wide, layer.picture.height / high
    box = ((left - x) * across, (top - y) * down, (right - x) * across, (bottom - y) * down)
    size = (right - left, bottom - top)
    picture = layer.picture.resize(size, Image.Resampling.BILINEAR, box=box)
    frame.paste(picture, (left, top), layer.mask.resize(size, Image.Resampling.BILINEAR, box=box))


def _in_layers(still: Bytes, words: Words) -> Stage:
    """Part a still into its subject and a background filled in behind it; one layer where no subject stands out."""
    height, width = still.shape[:2]
    weather = "rain" if words & {"rain", "rainy", "raining"} else "snow" if words & {"snow", "snowing"} else ""
    finding = find_subjects([still])[0]
    if finding is None:
        return Stage(Image.fromarray(still), (), weather)
    mask = np.clip((resize(finding.likelihood, width, height) - 0.25) / 0.3, 0, 1)
    soft = blur(mask, max(2, width // 300))
    background = _filled_in(still, finding.likelihood)
    feet = np.linspace(1, 0, 12, dtype=np.float32)
    edge_y, edge_x = np.ones(height, np.float32), np.ones(width, np.float32)
    edge_x[:12], edge_x[-12:] = feet[::-1], feet
    edge_y[:12] = feet[::-1]
    soft = soft * edge_y[:, None] * edge_x[None]
    layer = Layer(Image.fromarray(still), Image.fromarray((np.clip(soft, 0, 1) * 255).astype(np.uint8)), 0.0, 0.0)
    return Stage(Image.fromarray(background), (layer,), weather)


def _filled_in(still: Bytes, likelihood: Floats) -> Bytes:
    """The still with its subject painted over by what lies around it, near first, then farther."""
    rows, columns = likelihood.shape
    small = np.asarray(Image.fromarray(still).resize((columns, rows)), dtype=np.float32)
    known = (blur((likelihood > 0.3).astype(np.float32), 2) < 0.02).astype(np.float32)
    filled, weight = np.zeros_like(small), np.zeros_like(known)
    for radius in (3, 8, 20, 60):
        share = blur(known, radius)
        around = np.stack([blur(small[..., c] * known, radius) for c in range(3)], axis=-1)
        take = np.clip(share * 12, 0, 1) * (1 - weight)
        filled += take[..., None] * around / np.maximum(share, 1e-4)[..., None]
        weight += take
    filled /= np.maximum(weight, 1e-3)[..., None]
    height, width = still.shape[:2]
    cover = resize(1 - known, width, height)[..., None].clip(0, 1)
    mixed = still * (1 - cover) + resize(filled, width, height) * cover
    covered: Bytes = np.clip(mixed, 0, 255).astype(np.uint8)
    return covered


def _fitted(image: Bytes, width: int, height: int) -> Bytes:
    size = (width // 2 * 2, height // 2 * 2)
    return np.asarray(ImageOps.fit(Image.fromarray(image), size, Image.Resampling.BICUBIC))
