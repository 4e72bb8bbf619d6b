"""What machines that hold none of our keys read from us and leave for us: how it is named, and a folder for it."""

from __future__ import annotations

import os
import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from domain.errors import BadInput, NotConfigured, ResultExpired
from domain.jobs import BlobRef
from providers.blobs.naming import CHUNK_BYTES, check_digest

BOX = re.compile(r"[a-z0-9-]{1,80}")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def check_place(box: str, name: str) -> str:
    """`box/name`; `BadInput` for what is no box's name or no plain file name."""
    if BOX.fullmatch(box) is None or NAME.fullmatch(name) is None:
        raise BadInput(f"{box[:90]!r} and {name[:110]!r} name no file of a handover: letters, digits and hyphens only.")
    return f"{box}/{name}"


def plain_name(file_name: str) -> str:
    """A file name that is one plain segment of a path and keeps its ending."""
    return _UNSAFE.sub("_", file_name.replace("\\", "/").rsplit("/", 1)[-1]).lstrip(".")[-100:] or "file"


class LocalHandover:
    """`Handover` in a folder of this disk. Links are file:// links, which machines `here` alone can follow: asked for
    others it is `NotConfigured`, with what to set."""

    def __init__(self, root: Path, *, here: bool = False) -> None:
        self._root = root
        self._here = here

    def read_link(self, path: Path, ref: BlobRef, valid_for: timedelta) -> str:  # noqa: ARG002 (a path does not end)
        """As `Handover`: the file is linked, else copied, under its name."""
        self._must_be_here()
        target = self._root / "files" / check_digest(ref.sha256) / plain_name(ref.file_name)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = target.with_name(f".{os.getpid()}-{target.name}")
            draft.unlink(missing_ok=True)
            try:
                draft.hardlink_to(path.resolve())
            except OSError:
                shutil.copyfile(path, draft)
            draft.replace(target)
        return target.as_uri()

    def write_link(self, box: str, name: str, valid_for: timedelta) -> str:  # noqa: ARG002
        """As `Handover`."""
        self._must_be_here()
        path = self._path(box, name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path.as_uri()

    def read_back_link(self, box: str, name: str, valid_for: timedelta) -> str:  # noqa: ARG002
        """As `Handover`."""
        self._must_be_here()
        return self._path(box, name).as_uri()

    def read(self, box: str, name: str, limit_bytes: int = 1_000_000) -> bytes | None:
        """As `Handover`; what is longer than the limit is cut."""
        try:
            with self._path(box, name).open("rb") as file:
                return file.read(limit_bytes)
        except FileNotFoundError:
            return None

    def fetch(self, box: str, name: str, into: BinaryIO) -> None:
        """As `Handover`."""
        try:
            with self._path(box, name).open("rb") as file:
                shutil.copyfileobj(file, into, CHUNK_BYTES)
        except FileNotFoundError:
            raise ResultExpired(f"The file {name} is not in the handover {box}.") from None

    def delete(self, box: str) -> None:
        """As `Handover`."""
        shutil.rmtree(self._path(box, "x").parent, ignore_errors=True)

    def _path(self, box: str, name: str) -> Path:
        return self._root / "boxes" / check_place(box, name)

    def _must_be_here(self) -> None:
        if not self._here:
            raise NotConfigured(
                "A rented machine cannot read what lies on this disk: set ONMODEL_STORAGE_URL=s3://bucket/prefix, so "
                "that it fetches its data and leaves its results by signed links."
            )
