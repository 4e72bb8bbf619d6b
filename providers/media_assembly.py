"""The season out of its clips: each brought to one size, rate and sound, then joined without a second encoding.

Intermediates carry H.264 and uncompressed sound, both cut to the same whole number of frames, so that the
sound cannot drift however many clips follow one another; only the joined sound becomes AAC, once.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg

from domain.errors import BadInput, OnModelError
from providers.media_probe import CONTAINER_FORMATS, MAX_SIDE_PIXELS, open_clip, probe_clip, scan_packets, video_stream
from providers.ports import ClipFacts, SeasonClip

_SAMPLE_RATE = 48_000
_ENCODER_THREADS = 2
"""Fixed, because x264's output depends on it: the same clips give the same season on every machine."""

_MAX_WORKERS = 4
_UNTAGGED_HD_HEIGHT = 720


def assemble(
    ffmpeg_path: str, clips: list[SeasonClip], out: Path, *, width: int, height: int, frames_per_second: int
) -> ClipFacts:
    """One MP4 (H.264, AAC, index in front) of all clips in the order given; the facts of what was written.

    Every clip is letterboxed to width × height and runs a whole number of frames at the constant rate; where a
    clip has no sound there is silence. `out` appears only when it is whole and replaces what was there; safe to
    repeat, with equal bytes from the same ffmpeg. `BadInput` names the slot whose clip cannot be used.
    """
    _check_order(clips, width, height, frames_per_second)
    facts = [_facts_of(clip) for clip in clips]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="onmodel-assembly-") as folder:
        parts = [Path(folder) / f"part-{place:04}.mov" for place in range(len(clips))]
        frame = _SeasonFrame(width, height, frames_per_second)

        def bring_in(place: int) -> None:
            _make_part(ffmpeg_path, clips[place], facts[place], parts[place], frame)

        workers = min(_MAX_WORKERS, max(2, (os.cpu_count() or 2) // 2))
        _all(bring_in, range(len(clips)), workers)
        listing = Path(folder) / "parts.ffconcat"
        listing.write_text("ffconcat version 1.0\n" + "".join(f"file '{part.name}'\n" for part in parts))
        descriptor, partial = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".partial")
        os.close(descriptor)
        try:
            _join(ffmpeg_path, listing, Path(partial), frame, sum(part.duration_seconds for part in facts))
            written = probe_clip(Path(partial))
            Path(partial).chmod(0o644)
            Path(partial).replace(out)
        finally:
            Path(partial).unlink(missing_ok=True)
    return written


class _SeasonFrame:
    """Size and rate that all clips are brought to."""

    def __init__(self, width: int, height: int, frames_per_second: int) -> None:
        self.width = width
        self.height = height
        self.frames_per_second = frames_per_second
        self.timescale = frames_per_second * 512

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """The largest even size of these proportions inside the frame."""
        scale = min(Fraction(self.width, width), Fraction(self.height, height))
        return _even(width * scale, self.width), _even(height * scale, self.height)

    def frame_count(self, facts: ClipFacts) -> int:
        """How many frames the clip takes: its length to the nearest frame, one at least."""
        return max(1, round(facts.duration_seconds * self.frames_per_second))


def _check_order(clips: list[SeasonClip], width: int, height: int, frames_per_second: int) -> None:
    if not clips:
        raise BadInput("The season has no finished clip yet, so there is nothing to assemble; render a slot first.")
    for name, side in (("width", width), ("height", height)):
        if side % 2 or not 16 <= side <= MAX_SIDE_PIXELS:
            raise BadInput(f"The season's {name} is {side} pixels; write an even number from 16 to {MAX_SIDE_PIXELS}.")
    if not 1 <= frames_per_second <= 120:
        raise BadInput(f"The season's rate is {frames_per_second} frames per second; write 1 to 120.")


def _facts_of(clip: SeasonClip) -> ClipFacts:
    try:
        return probe_clip(clip.path)
    except BadInput as error:
        raise BadInput(f"Slot {clip.slot_number}: {error.message}") from error


def _make_part(ffmpeg_path: str, clip: SeasonClip, facts: ClipFacts, part: Path, frame: _SeasonFrame) -> None:
    """One clip at the season's size, rate and length, H.264 with 16-bit sound, in a MOV."""
    with open_clip(clip.path) as container:
        stream = video_stream(container, clip.path)
        video_index = stream.index
        sound_index = scan_packets(container, stream, clip.path).sound_index
        is_untagged_hd = stream.codec_context.colorspace == 2 and stream.codec_context.height >= _UNTAGGED_HD_HEIGHT
    count = frame.frame_count(facts)
    samples = round(Fraction(count * _SAMPLE_RATE, frame.frames_per_second))
    source = ffmpeg.input(
        f"file:{clip.path.absolute()}",
        format_whitelist=CONTAINER_FORMATS,
        protocol_whitelist="file",
        max_pixels=MAX_SIDE_PIXELS * MAX_SIDE_PIXELS,
    )
    fit_width, fit_height = frame.fit(facts.width, facts.height)
    picture = (
        source[str(video_index)]
        .filter("fps", fps=frame.frames_per_second, start_time=0)
        .filter("tpad", stop=-1, stop_mode="clone")
        .filter("trim", end_frame=count)
        .filter(
            "scale",
            fit_width,
            fit_height,
            flags="bicubic",
            in_color_matrix="bt709" if is_untagged_hd else "auto",
            out_color_matrix="bt709",
            out_range="tv",
        )
        .filter("format", "yuv420p")
        .filter(
            "pad", frame.width, frame.height, _even_half(frame.width - fit_width), _even_half(frame.height - fit_height)
        )
        .filter("setsar", 1)
        .filter("setparams", range="tv", colorspace="bt709", color_primaries="bt709", color_trc="bt709")
    )
    silence = ffmpeg.input(f"anullsrc=r={_SAMPLE_RATE}:cl=stereo", f="lavfi")
    sound = (
        (silence.audio if sound_index is None else source[str(sound_index)])
        .filter("aresample", _SAMPLE_RATE, **{"async": 1, "first_pts": 0})
        .filter("aformat", sample_fmts="s16", channel_layouts="stereo")
        .filter("apad")
        .filter("atrim", end_sample=samples)
    )
    command = ffmpeg.output(
        picture,
        sound,
        f"file:{part}",
        vcodec="libx264",
        preset="veryfast",
        crf=18,
        pix_fmt="yuv420p",
        threads=_ENCODER_THREADS,
        g=frame.frames_per_second * 2,
        acodec="pcm_s16le",
        video_track_timescale=frame.timescale,
        **_REPRODUCIBLE,
    )
    _run(ffmpeg_path, command, f"Slot {clip.slot_number}: {clip.path}", facts.duration_seconds)


def _join(ffmpeg_path: str, listing: Path, out: Path, frame: _SeasonFrame, seconds: float) -> None:
    source = ffmpeg.input(f"file:{listing}", f="concat", protocol_whitelist="file")
    command = ffmpeg.output(
        source.video,
        source.audio,
        f"file:{out.absolute()}",
        f="mp4",
        vcodec="copy",
        acodec="aac",
        audio_bitrate="192k",
        video_track_timescale=frame.timescale,
        movflags="+faststart",
        **_REPRODUCIBLE,
    )
    _run(ffmpeg_path, command, f"The season {out.name}", seconds)


_REPRODUCIBLE: dict[str, Any] = {
    "map_metadata": -1,
    "map_chapters": -1,
    "fflags": "+bitexact",
    "flags:v": "+bitexact",
    "flags:a": "+bitexact",
}
"""No dates, no version numbers, no titles of the source in what is written."""


def _run(ffmpeg_path: str, command: Any, what: str, seconds: float) -> None:
    """Run a built command; `BadInput` with ffmpeg's own last line, `OnModelError` when it does not end.

    The limit is a minute and as much again as a hundred times the clip's length: far beyond an honest encode.
    """
    arguments = command.global_args("-hide_banner", "-nostdin", "-loglevel", "error", "-max_error_rate", "1").compile(
        cmd=ffmpeg_path, overwrite_output=True
    )
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60 + 100 * seconds
        )
    except subprocess.TimeoutExpired as error:
        raise OnModelError(f"{what}: ffmpeg did not finish within {error.timeout:.0f} s and was stopped.") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit {done.returncode}"]
        raise BadInput(f"{what} could not be brought into the season, ffmpeg says {said[-1]!r}; check this clip.")


def _all(work: Callable[[int], None], places: range, workers: int) -> None:
    """Do all, a few at a time; the first failure in order is raised and what had not begun is dropped."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(work, place) for place in places]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _even(length: Fraction, most: int) -> int:
    return max(2, min(most, round(length / 2) * 2))


def _even_half(room: int) -> int:
    return room // 4 * 2
