"""`MediaTools` on this machine: PyAV in a child process to look into clips, Pillow for pictures, ffmpeg to assemble."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import imageio_ffmpeg

from domain.errors import NotConfigured
from domain.looks import Harvest
from domain.records import Record
from providers import media_assembly, media_measures, media_pictures
from providers.media_children import MediaChildren, nonsense, shared_children
from providers.ports import ClipFacts, ImageFacts, RgbImage, SampledFrame, SeasonClip

_OLDEST_FFMPEG = (4, 4)
"""Debian 11 has 4.3, Ubuntu 22.04 has 4.4: the oldest whose filters do all that is asked of them here."""


R = TypeVar("R", bound=Record)


class FfmpegMediaTools:
    """See the port `MediaTools`. Safe to share between threads.

    Whatever opens a clip that is not our own happens in `children` (those of this process, unless others are given).
    """

    def __init__(self, ffmpeg: str, children: MediaChildren | None = None) -> None:
        self._ffmpeg = ffmpeg
        self._children = children or shared_children()

    def close(self) -> None:
        """End the decoding processes that wait for work. The tools stay usable; safe to repeat."""
        self._children.close()

    def probe_clip(self, path: Path) -> ClipFacts:
        return self._record("facts", ClipFacts, "probe_clip", path)

    def harvest(self, path: Path, folder: Path, wanted: int) -> Harvest:
        """See the port. `folder` must exist; what a clip that failed left there is for the caller to throw away."""
        harvest = self._record("harvest", Harvest, "harvest", path, folder=os.fspath(folder.absolute()), wanted=wanted)
        for name in {name for look in harvest.looks for name in (look.picture, look.thumbnail) if name is not None}:
            file = folder / name
            if file.name != name or file.is_symlink() or not file.is_file():
                raise nonsense(path)
        return harvest

    def frames_at(self, path: Path, times: Sequence[float]) -> list[RgbImage]:
        """The pictures on screen at these seconds, in the order asked; a time past the end gives the last."""
        parts = self._children.ask("frames_at", path, times=[float(time) for time in times])
        images = [part.image for part in islice(parts, len(times) + 1) if part.image is not None]
        if len(images) != len(times):
            raise nonsense(path)
        return images

    def last_frame(self, path: Path) -> RgbImage:
        """The last picture that decodes."""
        return self.frames_at(path, [math.inf])[0]

    def probe_image(self, path: Path) -> ImageFacts:
        return media_pictures.probe_image(path)

    def load_image(self, path: Path) -> RgbImage:
        return media_pictures.load_image(path)

    def measure_image(self, image: RgbImage) -> SampledFrame:
        """A still with the same measures as a frame, at second 0."""
        return media_measures.measured(image)

    def encode_png(self, image: RgbImage, path: Path) -> None:
        media_pictures.encode_png(image, path)

    def encode_jpeg(self, image: RgbImage, path: Path, quality: int = 92) -> None:
        media_pictures.encode_jpeg(image, path, quality)

    def png_bytes(self, image: RgbImage) -> bytes:
        return media_pictures.png_bytes(image)

    def jpeg_bytes(self, image: RgbImage, quality: int = 92) -> bytes:
        return media_pictures.jpeg_bytes(image, quality)

    def image_size(self, path: Path) -> tuple[int, int]:
        """Width and height of a picture file as shown. Errors as `probe_image`."""
        facts = media_pictures.probe_image(path)
        return facts.width, facts.height

    def assemble(
        self, clips: list[SeasonClip], out: Path, *, width: int, height: int, frames_per_second: int
    ) -> ClipFacts:
        return media_assembly.assemble(
            self._ffmpeg, clips, out, width=width, height=height, frames_per_second=frames_per_second
        )

    def _record(self, key: str, kind: type[R], call: str, path: Path, **words: Any) -> R:
        """The one record that a call answers with."""
        parts = list(self._children.ask(call, path, **words))
        try:
            (part,) = parts
            return kind.model_validate(part.words[key])
        except (ValueError, KeyError):
            raise nonsense(path) from None


def find_ffmpeg(search_path: str | None = None) -> str:
    """The ffmpeg program to use: the machine's own where it is 4.4 or newer and can write H.264 and AAC,
    else the one that comes with the Python package imageio-ffmpeg.

    `search_path` stands in for PATH. Takes about 0.1 s. `NotConfigured` when there is none at all.
    """
    own = shutil.which("ffmpeg", path=search_path)
    if own is not None and _is_good_enough(own):
        return own
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise NotConfigured(
            "There is no usable ffmpeg: install it (Debian: apt install ffmpeg) or reinstall the Python package "
            "imageio-ffmpeg, which brings one."
        ) from error


def _is_good_enough(program: str) -> bool:
    banner = _output_of(program, "-version")
    numbered = re.match(r"ffmpeg version n?(\d+)\.(\d+)", banner)
    is_nightly = re.match(r"ffmpeg version (N-|git-|20\d\d-)", banner) is not None
    is_new = is_nightly or (numbered is not None and (int(numbered[1]), int(numbered[2])) >= _OLDEST_FFMPEG)
    encoders = _output_of(program, "-hide_banner", "-encoders") if is_new else ""
    return re.search(r"\blibx264\b", encoders) is not None and re.search(r"\baac\b", encoders) is not None


def _output_of(program: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
