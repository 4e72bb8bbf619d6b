"""The sandbox's file host on disk: what was uploaded and what its jobs made, each under an id that never changes.

A file is there once its facts are: the bytes are moved into place first, `.facts.json` last. Several processes may
read, one writes.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from providers.sandbox.wire import FILE_HOSTS

_ID = re.compile(r"[0-9a-f]{24}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class StoredFile:
    """A file and its facts. `made_by` is the endpoint whose job made it, empty for an upload.

    `is_expired`: gone for good. `is_outdated`: gone under this address, still there under a new one.
    """

    file_id: str
    name: str
    content_type: str
    size_bytes: int
    stored_at: float
    expires_at: float | None = None
    made_by: str = ""
    is_truncated: bool = False
    is_expired: bool = False
    is_outdated: bool = False
    is_renewed: bool = False

    def url(self, host: str = "v3.fal.media") -> str:
        return f"https://{host}/files/sandbox/{self.file_id}/{self.name}"


def safe_name(name: str) -> str:
    """A file name that is one plain path segment, whatever was sent."""
    plain = _UNSAFE.sub("_", name.replace("\\", "/").rsplit("/", 1)[-1]).lstrip(".")
    stem, dot, suffix = plain.rpartition(".")
    return f"{stem[:80]}{dot}{suffix[:20]}" or "file.bin"


class Shelf:
    """The folder of files; `root` is created with mode 0700."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    @staticmethod
    def new_id() -> str:
        return secrets.token_hex(12)

    def scratch(self) -> Path:
        """A path on the same disk for bytes on their way in."""
        return self.root / f".incoming-{secrets.token_hex(8)}"

    def put(
        self,
        source: Path,
        name: str,
        content_type: str,
        *,
        file_id: str | None = None,
        lifetime_seconds: float | None = None,
        made_by: str = "",
        is_truncated: bool = False,
        is_expired: bool = False,
    ) -> StoredFile:
        """Move `source` onto the shelf."""
        now = time.time()
        stored = StoredFile(
            file_id=file_id or self.new_id(),
            name=safe_name(name),
            content_type=content_type,
            size_bytes=source.stat().st_size,
            stored_at=now,
            expires_at=None if lifetime_seconds is None else now + lifetime_seconds,
            made_by=made_by,
            is_truncated=is_truncated,
            is_expired=is_expired,
        )
        folder = self.root / stored.file_id
        folder.mkdir(exist_ok=True, mode=0o700)
        shutil.move(source, folder / stored.name)
        self._write_facts(stored)
        return stored

    def find(self, file_id: str, name: str) -> StoredFile | None:
        """The file of that id and name, unless it was never there or its time is over."""
        stored = self._read_facts(file_id)
        if stored is None or stored.name != name or stored.is_expired or stored.is_outdated:
            return None
        return None if stored.expires_at is not None and stored.expires_at <= time.time() else stored

    def outdate(self, stored: StoredFile) -> None:
        """From now on the file is not there under its address; `with_fresh_urls` finds it a new one."""
        self._write_facts(replace(stored, is_outdated=True))

    def with_fresh_urls(self, answer: Any) -> Any:
        """A result with a new address for every file of it whose old one ran out. A new one never runs out so."""
        if isinstance(answer, dict):
            return {name: self.with_fresh_urls(value) for name, value in answer.items()}
        if isinstance(answer, list):
            return [self.with_fresh_urls(value) for value in answer]
        place = _place_of(answer) if isinstance(answer, str) else None
        stored = self._read_facts(place[0]) if place is not None else None
        if stored is None or not stored.is_outdated:
            return answer
        fresh = replace(stored, file_id=self.new_id(), is_outdated=False, is_renewed=True)
        (self.root / fresh.file_id).mkdir(mode=0o700)
        shutil.copy(self.path(stored), self.path(fresh))
        self._write_facts(fresh)
        return fresh.url()

    def _write_facts(self, stored: StoredFile) -> None:
        facts = self.root / stored.file_id / ".facts.tmp"
        facts.write_text(json.dumps(asdict(stored)))
        facts.rename(facts.with_name(".facts.json"))

    def _read_facts(self, file_id: str) -> StoredFile | None:
        if not _ID.fullmatch(file_id):
            return None
        try:
            return StoredFile(**json.loads((self.root / file_id / ".facts.json").read_text()))
        except FileNotFoundError:
            return None

    def path(self, stored: StoredFile) -> Path:
        return self.root / stored.file_id / stored.name

    def find_url(self, url: str) -> StoredFile | None:
        """The file behind one of our `https://v3.fal.media/files/sandbox/{id}/{name}` addresses."""
        place = _place_of(url)
        return None if place is None else self.find(*place)

    def multipart_folder(self, file_id: str, upload_id: str) -> Path | None:
        """Where the parts of an upload gather; None for ids that are not ours."""
        if not (_ID.fullmatch(file_id) and _ID.fullmatch(upload_id)):
            return None
        return self.root / f".parts-{file_id}-{upload_id}"

    def sweep(self, keep_seconds: float) -> int:
        """Forget files older than `keep_seconds` and what was left half-done; how many went."""
        gone = 0
        for entry in list(self._entries()):
            is_unfinished = entry.name.startswith(".incoming-")
            if time.time() - entry.stat().st_mtime > (min(keep_seconds, 3600) if is_unfinished else keep_seconds):
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
                gone += 1
        return gone

    def _entries(self) -> Iterator[Path]:
        return self.root.iterdir()


def _place_of(url: str) -> tuple[str, str] | None:
    """Id and name in one of our addresses; None for any other text."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    segments = parts.path.strip("/").split("/")
    if parts.hostname not in FILE_HOSTS or len(segments) != 4 or segments[:2] != ["files", "sandbox"]:
        return None
    return segments[2], segments[3]
