"""How the worker reads and writes addresses: http(s) links, file:// links and plain paths alike.

Standard library alone: this text travels with worker.py.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import ssl
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

HTTP_SECONDS = 60.0
PATIENCE = (1.0, 4.0, 15.0, 30.0, 60.0, 120.0)
"""Seconds between the tries to upload a result: a training is worth more than a few minutes."""
BROKEN = (OSError, http.client.HTTPException)


class Web:
    """Reads and writes addresses, and keeps its clock by the stores' own `Date`."""

    def __init__(self) -> None:
        self._far: urllib.request.OpenerDirector | None = None
        self._near = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._ahead_seconds = 0.0

    def now(self) -> float:
        """Seconds since 1970, by the store's clock once it answered: a machine's own may be wrong."""
        return time.time() + self._ahead_seconds

    def open(self, request: urllib.request.Request, seconds: float = HTTP_SECONDS) -> Any:
        host = urlsplit(request.full_url).hostname or ""
        opener = self._near if host in ("127.0.0.1", "localhost", "::1") else self._reach_out()
        answer = opener.open(request, timeout=seconds)
        with contextlib.suppress(TypeError, ValueError):
            self._ahead_seconds = parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()
        return answer

    def _reach_out(self) -> urllib.request.OpenerDirector:
        if self._far is None:
            context = ssl.create_default_context()
            with contextlib.suppress(ImportError, OSError):  # a bare image may have no certificates of its own
                import certifi

                context.load_verify_locations(certifi.where())
            self._far = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
        return self._far

    def read(self, address: str, limit: int = 1_000_000) -> bytes | None:
        """A small file; None when it is not there. Whatever else goes wrong is tried three times, then raised."""
        path = _path_of(address)
        if path is not None:
            return path.read_bytes()[:limit] if path.is_file() else None
        for pause in (1.0, 3.0, None):
            try:
                with self.open(urllib.request.Request(address)) as answer:  # noqa: S310 (a link we were given)
                    data: bytes = answer.read(limit)
                    return data
            except urllib.error.HTTPError as error:
                # A store that does not let strangers list says 403 for what is not there.
                error.close()
                if error.code in (403, 404, 410):
                    return None
                _wait_or_raise(error, pause)
            except BROKEN as error:
                _wait_or_raise(error, pause)
        return None

    def fetch(self, address: str, target: Path, limit: int) -> None:
        """A large file, taken up where it broke off; `OSError` when it cannot be had or is too large."""
        path = _path_of(address)
        if path is not None:
            shutil.copyfile(path, target)
            return
        target.write_bytes(b"")
        for pause in (2.0, 5.0, 15.0, 30.0, None):
            got = target.stat().st_size
            headers = {"Range": f"bytes={got}-"} if got else {}
            try:
                with self.open(urllib.request.Request(address, headers=headers)) as answer:  # noqa: S310
                    is_rest = answer.status == 206
                    whole = int(answer.headers.get("Content-Length") or 0) + (got if is_rest else 0)
                    with target.open("ab" if is_rest else "wb") as file:
                        while file.tell() <= limit and (block := answer.read(1024 * 1024)):
                            file.write(block)
                if target.stat().st_size >= whole or target.stat().st_size > limit:
                    break
            except BROKEN as error:
                _wait_or_raise(error, pause)
        if target.stat().st_size > limit:
            raise OSError(f"it has more than {limit} bytes")

    def put(self, address: str, source: bytes | Path, patience: tuple[float, ...] = PATIENCE) -> None:
        """Write bytes or a whole file; tried again after each pause, then raised."""
        path = _path_of(address)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.new")
            draft.write_bytes(source) if isinstance(source, bytes) else shutil.copyfile(source, draft)
            draft.replace(path)
            return
        for pause in (*patience, None):
            try:
                self._put(address, source)
                return
            except BROKEN as error:
                _wait_or_raise(error, pause)

    def _put(self, address: str, source: bytes | Path) -> None:
        with contextlib.ExitStack() as stack:
            body: bytes | IO[bytes] = source if isinstance(source, bytes) else stack.enter_context(source.open("rb"))
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            request = urllib.request.Request(address, data=body, headers=headers, method="PUT")  # noqa: S310
            stack.enter_context(self.open(request)).read()


def _path_of(address: str) -> Path | None:
    if address.startswith("/"):
        return Path(address)
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _wait_or_raise(error: Exception, pause: float | None) -> None:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
    if pause is None:
        raise error
    time.sleep(pause)
