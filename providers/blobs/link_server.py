"""The loopback server behind a local store's links: reads by GET and HEAD with ranges, writes by PUT."""

from __future__ import annotations

import os
import re
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from domain.errors import BadInput, OnModelError
from providers.blobs.links import Link, LinkRefused, read_link, signing_key
from providers.blobs.local import LocalBlobStore
from providers.blobs.naming import CHUNK_BYTES

HOST = "127.0.0.1"

MAX_PUT_BYTES = 5 * 1024**3
"""As much as S3 takes in one PUT. https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html (2026-11)"""

IDLE_SECONDS = 60
"""A connection on which nothing moves for so long is closed."""

_LOOKS_UP_SECONDS = 0.02  # how often it sees whether it is to end, and so how long `close` may take

DRAINED_BYTES = 16 * CHUNK_BYTES
"""How much of a refused body is read away before the connection is closed."""


class LinkServer:
    """Serves a store's links on 127.0.0.1 from a daemon thread, on a port of the system's choice, until `close()`."""

    def __init__(self, store: LocalBlobStore, max_put_bytes: int = MAX_PUT_BYTES) -> None:
        self._key = signing_key(store.root)
        self._server = _Server(store, self._key, max_put_bytes)
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        threading.Thread(
            target=self._server.serve_forever, args=(_LOOKS_UP_SECONDS,), name="blob-links", daemon=True
        ).start()

    def link(self, method: str, sha256: str, valid_for_seconds: int, media_type: str = "") -> str:
        """A link to this server; it dies with the process."""
        expires_at = int(time.time()) + valid_for_seconds
        return self.url + Link(method=method, sha256=sha256, expires_at=expires_at, media_type=media_type).target(
            self._key
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, store: LocalBlobStore, key: bytes, max_put_bytes: int) -> None:
        self.store, self.key, self.max_put_bytes = store, key, max_put_bytes
        super().__init__((HOST, 0), _Answer)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own asks the resolver for our name, which can hang

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _BrokenUpload(Exception):
    """The sender went away in the middle."""


class _Answer(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    _unread = 0
    """Bytes of the request's body that nobody has read yet."""

    def do_GET(self) -> None:
        self._send_file(with_body=True)

    def do_HEAD(self) -> None:
        self._send_file(with_body=False)

    def do_PUT(self) -> None:
        length = self.headers.get("Content-Length", "")
        self._unread = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else 0
        try:
            link = read_link("PUT", self.path, self.server.key, time.time())
        except LinkRefused as refusal:
            self._refuse(403, refusal.message)
            return
        if str(self._unread) != length:
            self._refuse(411, "Send the length of the file in Content-Length.")
            return
        if self._unread > self.server.max_put_bytes:
            self._refuse(413, f"The file has {length} bytes: at most {self.server.max_put_bytes} are taken.")
            return
        try:
            self.server.store.put_chunks(self._body(), link.media_type, link.sha256)
        except BadInput as error:
            self._say(422, error.message)
        except _BrokenUpload:
            self.close_connection = True
        except OnModelError as error:
            self._refuse(503, error.message)
        else:
            self._say(200, "")

    def _send_file(self, *, with_body: bool) -> None:
        store = self.server.store
        try:
            link = read_link(self.command, self.path, self.server.key, time.time())
            file = store.open(link.sha256)
        except LinkRefused as refusal:
            self._refuse(403, refusal.message)
            return
        except BadInput as error:
            self._say(404, error.message)
            return
        except OnModelError as error:
            self._say(503, error.message)
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            etag = f'"{link.sha256}"'
            header = self.headers.get("Range", "") if self.headers.get("If-Range", etag) == etag else ""
            part = byte_range(header, size)
            if part is not None and not part:
                self._say(416, "", {"Content-Range": f"bytes */{size}"})
                return
            span = range(size) if part is None else part
            self.send_response(200 if part is None else 206)
            if part is not None:
                self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}")
            self.send_header("Content-Type", store.media_type(link.sha256))
            self.send_header("Content-Length", str(len(span)))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", etag)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if with_body and span:
                self.connection.sendfile(file, span.start, len(span))

    def _body(self) -> Iterator[bytes]:
        while self._unread:
            try:
                data = self.rfile.read(min(CHUNK_BYTES, self._unread))
            except OSError as error:
                raise _BrokenUpload from error
            if not data:
                raise _BrokenUpload
            self._unread -= len(data)
            yield data

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer without having read the body, and end the connection."""
        self.close_connection = True
        self._say(status, sentence, {"Connection": "close"})
        # Whoever is still sending would see a reset instead of the answer, so some of it is read and dropped.
        self._unread = min(self._unread, DRAINED_BYTES)
        with suppress(_BrokenUpload):
            for _ in self._body():
                pass

    def _say(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        body = sentence.encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the line would hold the signature."""


def byte_range(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for; empty when there are none such (416).

    None means the whole file: no header, several ranges, or no range at all (RFC 9110, 14.1.1 and 14.2).
    """
    match = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header.strip())
    if match is None:
        return None
    first, last = match[1], match[2]
    if first:
        stop = min(int(last) + 1, size) if last else size
        return None if last and int(last) < int(first) else range(int(first), max(stop, int(first)))
    return range(size - min(int(last), size), size) if last else None
