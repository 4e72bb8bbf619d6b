"""The files a job names: fetching them and refusing what the model could not use, as fal's runners do before working.

Reached are the sandbox's own files, data: URIs and loopback addresses; nothing else, because a rehearsal stays on this
machine.
"""

from __future__ import annotations

import base64
import binascii
import shutil
import urllib.error
import urllib.request
import warnings
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from providers.sandbox.clip_stills import CLIP_SUFFIXES
from providers.sandbox.lora_marks import bases_of
from providers.sandbox.schemas import ImageLimits, issue
from providers.sandbox.shelf import Shelf
from providers.sandbox.wire import LOOPBACK_HOSTS

Loc = list[str | int]
FETCH_SECONDS = 20
_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


class InputRefused(Exception):
    """The runner's 422: `issues` is fal's `detail` list."""

    def __init__(self, *issues: dict[str, Any]) -> None:
        super().__init__(str(issues))
        self.issues = list(issues)


class Inputs:
    """Fetches what a job's URLs name into `folder`."""

    def __init__(self, shelf: Shelf, folder: Path) -> None:
        self._shelf = shelf
        self._folder = folder
        self._fetched: dict[str, Path] = {}

    def fetch(self, url: str, loc: Loc) -> Path:
        """A readable local file; `InputRefused` with `file_download_error` when there is none."""
        if url not in self._fetched:
            self._fetched[url] = self._fetch(url, loc)
        return self._fetched[url]

    def _fetch(self, url: str, loc: Loc) -> Path:
        refused = InputRefused(issue(loc, "file_download_error", f"Failed to download the file from {url[:200]}", url))
        stored = self._shelf.find_url(url)
        if stored is not None:
            return self._shelf.path(stored)
        target = self._folder / f"input-{len(self._fetched)}"
        parts = urlsplit(url)
        if parts.scheme == "data":
            try:
                target.write_bytes(base64.b64decode(url.partition(",")[2], validate=True))
            except binascii.Error:
                raise refused from None
            return target
        if parts.scheme != "http" or parts.hostname not in LOOPBACK_HOSTS:
            raise refused
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=FETCH_SECONDS) as answer, target.open("wb") as file:
                shutil.copyfileobj(answer, file)
        except (urllib.error.URLError, OSError):
            raise refused from None
        return target

    def picture(self, url: str, loc: Loc, limits: ImageLimits) -> Path:
        """A picture within the model's limits; `InputRefused` says which it breaks."""
        path = self.fetch(url, loc)
        size_bytes = path.stat().st_size
        if size_bytes > limits.max_bytes:
            raise InputRefused(
                issue(
                    loc, "file_too_large", f"The file exceeds {limits.max_bytes} bytes", url, max_size=limits.max_bytes
                )
            )
        width, height = self._measure(path, url, loc)
        side = limits.min_side
        if min(width, height) < side:
            msg = f"Image dimensions are too small. Minimum dimensions are {side}x{side} pixels."
            raise InputRefused(issue(loc, "image_too_small", msg, url, min_width=side, min_height=side))
        if not limits.min_aspect <= width / height <= limits.max_aspect:
            msg = f"Image aspect ratio must be between {limits.min_aspect} and {limits.max_aspect}."
            raise InputRefused(issue(loc, "value_error", msg, url))
        return path

    @staticmethod
    def _measure(path: Path, url: str, loc: Loc) -> tuple[int, int]:
        from PIL import Image  # late: the runner starts faster without it, and trainers never need it

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    return image.size
        except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise InputRefused(issue(loc, "image_load_error", "Failed to load the image", url)) from None

    def training_zip(self, url: str, loc: Loc, min_files: int, takes: str) -> tuple[Path, bool]:
        """A zip with at least `min_files` pictures or clips, and whether it is of clips.

        `takes`: `images`, `videos`, or `either`: one kind or the other, as LTX-2.3's trainer says of itself.
        """
        path = self.fetch(url, loc)
        names = self._names(path, url, loc)
        pictures = sum(Path(name).suffix.lower() in _PICTURES for name in names)
        clips = sum(Path(name).suffix.lower() in CLIP_SUFFIXES for name in names)
        if takes == "either" and pictures and clips:
            msg = f"The archive must hold only videos or only images, found {clips} and {pictures}"
            raise InputRefused(issue(loc, "invalid_archive", msg, url))
        if takes == "videos" and pictures:
            msg = f"The archive must hold videos only, found {pictures} images"
            raise InputRefused(issue(loc, "invalid_archive", msg, url))
        has_clips = takes == "videos" or (takes == "either" and clips > 0)
        count, suffixes = (clips, CLIP_SUFFIXES) if has_clips else (pictures, _PICTURES)
        if count < min_files:
            msg = f"The archive must hold at least {min_files} {'videos' if has_clips else 'images'}, found {count}"
            ctx = {"count": min_files, "provided_count": count, "required_extensions": sorted(suffixes)}
            raise InputRefused(issue(loc, "archive_file_count_below_minimum", msg, url, **ctx))
        return path, has_clips

    def check_captions(self, path: Path, url: str, loc: Loc) -> None:
        """Refuse a zip where a picture has no caption, as fal's trainers without a trigger field do (reference 2.1)."""
        names = self._names(path, url, loc)
        stems = {Path(name).with_suffix("") for name in names if Path(name).suffix.lower() == ".txt"}
        bare = sorted(n for n in names if Path(n).suffix.lower() in _PICTURES and Path(n).with_suffix("") not in stems)
        if bare:
            msg = f"No caption for {bare[0]} and no default_caption"
            raise InputRefused(issue(loc, "invalid_archive", msg, url))

    @staticmethod
    def _names(path: Path, url: str, loc: Loc) -> list[str]:
        try:
            with zipfile.ZipFile(path) as archive:
                return [name for name in archive.namelist() if "__MACOSX" not in name]
        except (zipfile.BadZipFile, OSError):
            msg = "The file is not a valid archive"
            raise InputRefused(issue(loc, "invalid_archive", msg, url, supported_extensions=[".zip"])) from None

    def lora(self, url: str, loc: Loc, base: str) -> Path:
        """A safetensors file trained on `base`, or on one that loads the same files."""
        path = self.fetch(url, loc)
        found = bases_of(path)
        if not found:
            raise InputRefused(issue(loc, "file_load_error", "The file is not a LoRA that this model can load", url))
        if base not in found:
            seen = " or ".join(sorted(found))
            msg = f"The LoRA does not fit this model: its tensors are those of {seen}, the model is {base}"
            raise InputRefused(issue(loc, "lora_incompatible", msg, url))
        return path
