"""What goes over the sandbox's wire: a request as read, a reply as meant, and the host names it plays."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs

QUEUE_HOSTS = frozenset({"queue.fal.run", "queue.falrun.com"})
"""The second name is the backup domain that fal-client 1.0.3 turns to when the first cannot be reached."""
RUN_HOSTS = frozenset({"fal.run", "falrun.com"})
REST_HOST = "rest.fal.ai"
FILE_HOSTS = frozenset({"v3.fal.media", "v3b.fal.media"})
API_HOST = "api.fal.ai"
SITE_HOST = "fal.ai"
FAL_HOSTS = QUEUE_HOSTS | RUN_HOSTS | FILE_HOSTS | {REST_HOST, API_HOST, SITE_HOST}
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost"})

CHUNK_BYTES = 256 * 1024


def code_stamp() -> str:
    """Changes whenever the sandbox's own files do, so that a server of older code is not taken for today's."""
    files = [path for path in Path(__file__).parent.rglob("*") if path.suffix in (".py", ".toml")]
    return f"{len(files)}-{max(path.stat().st_mtime_ns for path in files)}"


class BodyTooLarge(Exception):
    """The request's body is longer than this address takes."""


class Body:
    """A request's body, still on the socket: read it whole or save it to a file, once."""

    def __init__(self, stream: BinaryIO, length: int | None) -> None:
        self._stream = stream
        self._left = length
        self._is_done = length == 0

    def _next(self) -> bytes:
        if self._is_done:
            return b""
        if self._left is None:
            return self._next_chunk()
        data = self._stream.read(min(CHUNK_BYTES, self._left))
        self._left -= len(data)
        if not data and self._left:
            raise ConnectionError("the client went away in the middle of its body")
        self._is_done = self._left == 0
        return data

    def _next_chunk(self) -> bytes:
        size = int(self._stream.readline(64).split(b";")[0].strip() or b"0", 16)
        if size > 64 * 1024 * 1024:
            raise BodyTooLarge
        data = self._stream.read(size)
        self._stream.readline(8)
        self._is_done = size == 0
        return data

    def read(self, limit: int = 64 * 1024 * 1024) -> bytes:
        """All of it; `BodyTooLarge` over `limit` bytes."""
        parts: list[bytes] = []
        total = 0
        while data := self._next():
            total += len(data)
            if total > limit:
                raise BodyTooLarge
            parts.append(data)
        return b"".join(parts)

    def save(self, path: Path, limit: int = 8 * 1024**3) -> int:
        """Write it to `path`; the number of bytes. `BodyTooLarge` over `limit`."""
        total = 0
        with path.open("wb") as file:
            while data := self._next():
                total += len(data)
                if total > limit:
                    raise BodyTooLarge
                file.write(data)
        return total

    def drain(self) -> None:
        """Read the rest away, so that the connection can carry the next request."""
        while self._next():
            pass


@dataclass(frozen=True)
class Request:
    """One HTTP request. `host` is lower case and without a port; `path` starts with a slash."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body

    @staticmethod
    def query_of(text: str) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}

    def header(self, name: str) -> str | None:
        return self.headers.get(name.lower())

    @property
    def segments(self) -> list[str]:
        return [part for part in self.path.split("/") if part]


@dataclass(frozen=True)
class FilePart:
    """A stretch of a file to send; `cut_at` bytes into the file the connection breaks, as a broken CDN would."""

    path: Path
    start: int
    length: int
    cut_at: int | None = None


@dataclass(frozen=True)
class Reply:
    """One answer. `is_dropped` closes the connection without a word; `stall_seconds` keeps silent first.

    `takes_over` gets the connection once the head is sent (101), and has it until it returns.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FilePart = b""
    is_dropped: bool = False
    stall_seconds: float | None = None
    takes_over: Callable[[socket.socket], None] | None = None

    @classmethod
    def of(cls, status: int, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
        return cls(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())


def refusal(status: int, detail: str, error_type: str | None = None) -> Reply:
    """fal's flat error shape (reference 1.5): `detail` and, for faults of the platform, `error_type` twice."""
    if error_type is None:
        return Reply.of(status, {"detail": detail})
    return Reply.of(status, {"detail": detail, "error_type": error_type}, {"X-Fal-Error-Type": error_type})
