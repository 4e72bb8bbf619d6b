"""Blobs in a folder of this machine: one file per SHA-256, written aside and renamed into place when it is whole.

root/aa/bb/<sha256>        the bytes
root/aa/bb/<sha256>.type   their media type, for the links
root/unfinished/           what is being written; leftovers of killed writers are swept after a day
root/users/<mark>          empty; the databases that use the store
root/links.key             signs the links (mode 0600)
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from domain.errors import BadInput, NotConfigured, OnModelError, Unavailable
from providers.blobs.naming import (
    CHUNK_BYTES,
    UNKNOWN_MEDIA_TYPE,
    check_digest,
    header_media_type,
    is_digest,
    lifetime_seconds,
    missing,
)

if TYPE_CHECKING:
    from providers.blobs.link_server import LinkServer

SWEEP_AFTER_SECONDS = 24 * 3600.0
"""A file of `unfinished/` that nobody wrote to for so long belongs to a dead process."""

PUT_AGAIN_SECONDS = 12 * 3600.0
"""Bytes that are put again within half a day keep their time: `stored_at` need not be finer, and most are put often."""

_PASSING_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE})


class LocalBlobStore:
    """`BlobStore` under one folder, shared by any number of processes of this machine. Opens nothing until used."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._links: LinkServer | None = None
        self._links_process = 0
        self._links_lock = threading.Lock()

    # --- writing ---

    def put_file(self, path: Path, media_type: str) -> str:
        try:
            file = path.open("rb")
        except OSError as error:
            raise BadInput(f"{path} cannot be stored ({error.strerror}): give a file that can be read.") from error
        with file:
            # Most files are put again and again, by every run that uses them: reading is cheaper than writing.
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if self._is_put_again(sha256):
                return sha256
            file.seek(0)
            return self.put_chunks(iter(lambda: file.read(CHUNK_BYTES), b""), media_type)

    def put_bytes(self, data: bytes, media_type: str) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        return sha256 if self._is_put_again(sha256) else self.put_chunks((data,), media_type)

    def put_chunks(self, chunks: Iterable[bytes], media_type: str, expected_sha256: str | None = None) -> str:
        """Store a stream; memory is one chunk. Equal bytes keep the media type they came with first.

        `BadInput` when the bytes are not those of `expected_sha256`; nothing is stored then.
        """
        digest = hashlib.sha256()
        with self._unfinished_file() as (file, aside):
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            sha256 = digest.hexdigest()
            if expected_sha256 not in (None, sha256):
                raise BadInput(f"The bytes for {expected_sha256} have the SHA-256 {sha256}: send exactly that file.")
            if not self._is_put_again(sha256):
                file.flush()
                os.fsync(file.fileno())
                self._publish(aside, sha256, media_type)
        return sha256

    def delete(self, sha256: str) -> None:
        path = self._path(sha256)
        try:
            path.unlink(missing_ok=True)
            _type_path(path).unlink(missing_ok=True)
        except OSError as error:
            raise self._disk_error(error) from error

    def share(self, mark: str) -> None:
        try:
            self._users.mkdir(parents=True, exist_ok=True)
            (self._users / mark).touch()
        except OSError as error:
            raise self._disk_error(error) from error

    def sharers(self) -> frozenset[str]:
        try:
            return frozenset(path.name for path in self._users.iterdir())
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            raise self._disk_error(error) from error

    @property
    def _users(self) -> Path:
        return self.root / "users"

    # --- reading ---

    def open(self, sha256: str) -> BinaryIO:
        try:
            return self._path(sha256).open("rb")
        except FileNotFoundError as error:
            raise missing(sha256, self.root.as_uri()) from error
        except OSError as error:
            raise self._disk_error(error) from error

    def read(self, sha256: str) -> bytes:
        with self.open(sha256) as file:
            return file.read()

    def local_path(self, sha256: str) -> Path:
        if not self.has(sha256):
            raise missing(sha256, self.root.as_uri())
        return self._path(sha256)

    def has(self, sha256: str) -> bool:
        return self._path(sha256).is_file()

    def size_bytes(self, sha256: str) -> int:
        return self.local_path(sha256).stat().st_size

    def media_type(self, sha256: str) -> str:
        """What the bytes were stored as; the unknown type where that was lost."""
        try:
            return header_media_type(_type_path(self._path(sha256)).read_text("ascii"))
        except (OSError, ValueError):
            return UNKNOWN_MEDIA_TYPE

    def digests(self) -> Iterator[str]:
        for _, _, names in os.walk(self.root):
            yield from filter(is_digest, names)

    def digests_older_than(self, moment: datetime) -> Iterator[str]:
        for sha256 in self.digests():
            stored_at = self.stored_at(sha256)
            if stored_at is not None and stored_at < moment:
                yield sha256

    def stored_at(self, sha256: str) -> datetime | None:
        try:
            return datetime.fromtimestamp(self._path(sha256).stat().st_mtime, UTC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._disk_error(error) from error

    # --- addresses ---

    def url(self, sha256: str) -> str:
        return self._path(sha256).as_uri()

    def presign_get(self, sha256: str, valid_for: timedelta) -> str:
        """A link on 127.0.0.1 that lives as long as this process, at most."""
        return self._link_server().link("GET", check_digest(sha256), lifetime_seconds(valid_for))

    def presign_put(self, sha256: str, media_type: str, valid_for: timedelta) -> str:
        seconds = lifetime_seconds(valid_for)
        return self._link_server().link("PUT", check_digest(sha256), seconds, header_media_type(media_type))

    def close(self) -> None:
        """Stop serving links; the next one starts it again on another port."""
        with self._links_lock:
            if self._links is not None and self._links_process == os.getpid():
                self._links.close()
            self._links = None

    def _link_server(self) -> LinkServer:
        from providers.blobs.link_server import LinkServer  # not before a link is wanted: most processes want none

        with self._links_lock:
            # After a fork the child has the object but not the thread that serves.
            if self._links is None or self._links_process != os.getpid():
                self._links, self._links_process = LinkServer(self), os.getpid()
            return self._links

    # --- the folder ---

    def _path(self, sha256: str) -> Path:
        check_digest(sha256)
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def _is_put_again(self, sha256: str) -> bool:
        """Whether these bytes are here; then they count as put now, so that nobody drops them as forgotten."""
        path = self._path(sha256)
        if not path.is_file():
            return False
        try:
            if path.stat().st_mtime < time.time() - PUT_AGAIN_SECONDS:
                os.utime(path)
        except FileNotFoundError:
            return False  # dropped just now: it is written anew
        except OSError as error:
            raise self._disk_error(error) from error
        return True

    @contextmanager
    def _unfinished_file(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A new file on the same file system as the blobs, gone at the end unless it was renamed."""
        folder = self.root / "unfinished"
        aside = folder / secrets.token_hex(16)
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(exist_ok=True)
            _sweep(folder)
            with aside.open("xb") as file:
                yield file, aside
        except OSError as error:
            raise self._disk_error(error) from error
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)

    def _publish(self, aside: Path, sha256: str, media_type: str) -> None:
        path = self._path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        type_aside = aside.with_suffix(".type")
        type_aside.write_text(header_media_type(media_type), "ascii")
        type_aside.replace(_type_path(path))  # first, so that a visible blob has its type
        aside.replace(path)
        # The rename itself must survive a power cut; the folders above are older in the same journal.
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _disk_error(self, error: OSError) -> OnModelError:
        if error.errno in _PASSING_ERRORS:
            return Unavailable(f"The blob folder {self.root} failed ({error.strerror}): make room there and try again.")
        return NotConfigured(
            f"The blob folder {self.root} cannot be used ({error.strerror}): "
            "make it readable and writable, or name another in ONMODEL_STORAGE_URL."
        )


def _type_path(path: Path) -> Path:
    return path.with_suffix(".type")


def _sweep(folder: Path) -> None:
    oldest = time.time() - SWEEP_AFTER_SECONDS
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):
            if entry.stat().st_mtime < oldest:
                Path(entry.path).unlink(missing_ok=True)
