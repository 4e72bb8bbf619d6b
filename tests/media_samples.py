"""Tiny clips and pictures for tests, drawn and encoded on the spot: a moving pattern with a red corner.

The top left quarter is red, so that a test sees which way up a frame is; everything else moves.
"""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from providers.ports import RgbImage

RED = (230, 20, 20)
SOUND_CODECS = {".webm": "libopus", ".avi": "libmp3lame"}


def drawn_frame(index: int, width: int = 160, height: int = 120) -> RgbImage:
    """One picture of the pattern: red top left, bars that move with the index, a grey level that rises with it."""
    rows, columns = np.mgrid[0:height, 0:width]
    bars = ((columns + rows // 2 + 5 * index) // 12 % 2) * 110
    image = np.stack([bars + 20, bars + 40 + rows % 40, 60 + bars + index % 40], axis=2).astype(np.uint8)
    image[: height // 2, : width // 2] = RED
    return image


def is_red(pixel: NDArray[np.uint8]) -> bool:
    return bool(np.abs(pixel.astype(int) - RED).max() < 30)


def red_corner(image: RgbImage) -> str:
    """Which quarter of the picture is red."""
    height, width, _ = image.shape
    places = {
        "top left": (0.25, 0.25),
        "top right": (0.25, 0.75),
        "bottom left": (0.75, 0.25),
        "bottom right": (0.75, 0.75),
    }
    found = [name for name, (y, x) in places.items() if is_red(image[int(y * height), int(x * width)])]
    return " and ".join(found)


def shade(index: int) -> int:
    """The grey level of frame `index` in a clip made with `is_shaded`; 8 apart, so that decoding tells them apart."""
    return 16 + 8 * index


def give_back_priority() -> None:
    """Put every thread of this process back among the ordinary ones.

    As root, SVT-AV1 (4.1.0) makes the thread that opens it a real-time one, which all later children inherit: a test
    worker that has encoded AV1 once would then starve every other process of the machine.
    """
    if not hasattr(os, "sched_setscheduler"):
        return
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


def make_clip(
    path: Path,
    *,
    seconds: float = 1.0,
    rate: str = "25",
    size: tuple[int, int] = (160, 120),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    has_sound: bool = False,
    tone_hertz: float = 440.0,
    rotation: int | None = None,
    pixel_aspect: Fraction | None = None,
    keyframe_every: int = 12,
    is_shaded: bool = False,
    has_noise: bool = False,
    is_index_first: bool = False,
) -> Path:
    """Encode a clip; container by the file's suffix. Deterministic."""
    fps = Fraction(rate)
    width, height = size
    options = {"movflags": "+faststart"} if is_index_first else {}
    with av.open(str(path), "w", options=options) as container:
        speed: dict[str, str] = {
            "libx264": {"preset": "ultrafast", "bf": "2"},
            "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
            "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
        }.get(codec, {})
        picture: VideoStream = container.add_stream(codec, rate=fps, options=speed)  # type: ignore[assignment]
        picture.width, picture.height, picture.pix_fmt = width, height, pixel_format
        picture.codec_context.gop_size = keyframe_every
        if pixel_aspect is not None:
            picture.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None:
            picture.set_display_rotation(rotation)
        sound = _sound_stream(container, path) if has_sound else None
        noise = np.random.default_rng(7)
        for index in range(max(1, round(seconds * fps))):
            image = drawn_frame(index, width, height)
            if is_shaded:
                image = np.full((height, width, 3), shade(index), np.uint8)
            if has_noise:
                image = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
            frame = VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index
            frame.time_base = 1 / fps
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if sound is not None:
            _write_tone(container, sound, seconds, tone_hertz)
    give_back_priority()
    return path


def make_sound(path: Path, seconds: float = 1.0) -> Path:
    """A file with a tone and no picture."""
    with av.open(str(path), "w") as container:
        _write_tone(container, _sound_stream(container, path), seconds, 440.0)
    return path


def loudness(path: Path, start_seconds: float, end_seconds: float) -> float:
    """Root mean square of the sound in a stretch of a clip, 0 (silence) to 1."""
    parts: list[Any] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            at = frame.time or 0.0
            samples = frame.to_ndarray().astype(np.float64)
            moments = at + np.arange(samples.shape[-1]) / frame.sample_rate
            parts.append(samples[:, (moments >= start_seconds) & (moments < end_seconds)].ravel())
    return float(np.sqrt(np.mean(np.concatenate(parts) ** 2)))


def _sound_stream(container: Any, path: Path) -> AudioStream:
    stream: AudioStream = container.add_stream(SOUND_CODECS.get(path.suffix, "aac"), rate=48_000)
    stream.codec_context.layout = "stereo"
    return stream


def _write_tone(container: Any, stream: AudioStream, seconds: float, hertz: float) -> None:
    total = round(seconds * 48_000)
    wave = (0.5 * np.sin(2 * np.pi * hertz * np.arange(total) / 48_000)).astype(np.float32)
    for start in range(0, total, 960):
        piece = wave[start : start + 960]
        frame = AudioFrame.from_ndarray(np.stack([piece, piece]), format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        frame.pts = start
        frame.time_base = Fraction(1, 48_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
