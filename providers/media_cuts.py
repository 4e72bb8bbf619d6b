"""Training clips: a stretch of a clip at a trainer's own rate, length and size, for trainers that take videos only."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import av
import ffmpeg

from domain.errors import BadInput, OnModelError
from domain.looks import Bars
from domain.stretches import Stretch
from providers.media_probe import CONTAINER_FORMATS, MAX_SIDE_PIXELS

_QUALITY = 14
"""x264's constant rate factor: what is lost should be the source's fault, not ours."""

_ENCODER_THREADS = 2
"""Fixed, because x264's output depends on it: the same stretch gives the same bytes on every machine."""

_LONGEST_RUN_SECONDS = 300


def cut_training_clip(
    ffmpeg_path: str, path: Path, shown_size: tuple[int, int], stretch: Stretch, out: Path, bars: Bars | None = None
) -> None:
    """Write the stretch as an MP4: H.264 yuv420p, no sound, exactly `stretch.frames` frames of exactly its size.

    `shown_size` is the clip's width and height as shown. `bars` are cut off first; the rest is reduced to cover the
    size and cropped to it from the middle. `out` appears only when it is whole and replaces what was there; equal
    bytes from the same ffmpeg. `BadInput` when the clip cannot be read there or ends before the stretch does.
    """
    bars = bars or Bars()
    width, height = shown_size
    source = ffmpeg.input(
        f"file:{path.absolute()}",
        ss=stretch.from_seconds,
        format_whitelist=CONTAINER_FORMATS,
        protocol_whitelist="file",
        max_pixels=MAX_SIDE_PIXELS * MAX_SIDE_PIXELS,
    )
    picture = (
        source["V:0"]
        .filter("fps", fps=stretch.fps, start_time=0)
        .filter("tpad", stop=1, stop_mode="clone")  # rounding may leave the last frame just past the end
        .filter("trim", end_frame=stretch.frames)
        .filter("scale", width, height, flags="bicubic")
        .filter("crop", width - bars.left - bars.right, height - bars.top - bars.bottom, bars.left, bars.top)
        .filter("scale", stretch.width, stretch.height, force_original_aspect_ratio="increase", flags="bicubic")
        .filter("crop", stretch.width, stretch.height)
        .filter("setsar", 1)
        .filter("format", "yuv420p")
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".partial")
    os.close(descriptor)
    try:
        _run(ffmpeg_path, _encoded(picture, Path(partial), stretch), path)
        _check(Path(partial), stretch, path)
        Path(partial).chmod(0o644)
        Path(partial).replace(out)
    finally:
        Path(partial).unlink(missing_ok=True)


def _encoded(picture: Any, out: Path, stretch: Stretch) -> Any:
    return ffmpeg.output(
        picture,
        f"file:{out.absolute()}",
        f="mp4",
        an=None,
        vcodec="libx264",
        preset="medium",
        crf=_QUALITY,
        pix_fmt="yuv420p",
        threads=_ENCODER_THREADS,
        video_track_timescale=stretch.fps * 512,
        movflags="+faststart",
        map_metadata=-1,
        map_chapters=-1,
        fflags="+bitexact",
        **{"flags:v": "+bitexact"},
    )


def _run(ffmpeg_path: str, command: Any, path: Path) -> None:
    arguments = command.global_args("-hide_banner", "-nostdin", "-loglevel", "error").compile(
        cmd=ffmpeg_path, overwrite_output=True
    )
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_LONGEST_RUN_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise OnModelError(
            f"{path}: ffmpeg did not cut a training clip out of it within {_LONGEST_RUN_SECONDS} s and was stopped."
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit {done.returncode}"]
        raise BadInput(f"No training clip can be cut out of {path}, ffmpeg says {said[-1]!r}; check this clip.")


def _check(written: Path, stretch: Stretch, path: Path) -> None:
    """Count what was written: a clip with a broken tail gives fewer frames than it promised."""
    try:
        with av.open(str(written)) as container:
            stream = container.streams.video[0]
            count = sum(packet.size > 0 for packet in container.demux(stream))
            size = (stream.codec_context.width, stream.codec_context.height)
    except (OSError, ValueError, IndexError) as error:
        raise BadInput(f"{path} gives no pictures from {stretch.from_seconds:.2f} s on; check this clip.") from error
    if count != stretch.frames or size != (stretch.width, stretch.height):
        raise BadInput(
            f"{path} gives {count} of {stretch.frames} frames from {stretch.from_seconds:.2f} s on: it ends early or "
            "is damaged there; give it whole."
        )
