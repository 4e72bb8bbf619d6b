"""The sandbox's HTTP listener on loopback: reads requests off sockets, writes replies, breaks off where told to."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from providers.sandbox.wire import CHUNK_BYTES, Body, BodyTooLarge, FilePart, Reply, Request, refusal

Answer = Callable[[Request], Reply]
IDLE_CONNECTION_SECONDS = 75
HEALTH_PATH = "/_sandbox/health"


class Listener(ThreadingHTTPServer):
    """Serves `answer` on 127.0.0.1; the port is chosen by the system. `stop()` closes every connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.answer = answer
        self.last_request_at = time.monotonic()
        self.is_stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.is_stopping.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def hold(self, connection: socket.socket) -> None:
        """Count this connection among those that `stop()` closes."""
        with self._lock:
            self._open.add(connection)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.hold(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.release(request)
        super().shutdown_request(request)

    def release(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        """A client that hung up is no error; anything else goes to the log."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            traceback.print_exc(file=sys.stderr)


class Connection(BaseHTTPRequestHandler):
    """One client connection, kept alive over many requests."""

    protocol_version = "HTTP/1.1"
    server_version = "onmodel-sandbox"
    sys_version = ""
    timeout = IDLE_CONNECTION_SECONDS
    disable_nagle_algorithm = True

    @property
    def listener(self) -> Listener:
        return cast(Listener, self.server)

    def _serve_one(self) -> None:
        self._note_request()
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        is_chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        body = Body(cast(Any, self.rfile), None if is_chunked else int(headers.get("content-length") or 0))
        host = (parts.hostname or urlsplit("//" + headers.get("host", "")).hostname or "").lower()
        request = Request(self.command, host, unquote(parts.path), Request.query_of(parts.query), headers, body)
        try:
            reply = self.listener.answer(request)
            body.drain()
        except BodyTooLarge:
            self.close_connection = True
            reply = refusal(413, "Request entity too large")
        except ConnectionError:
            self.close_connection = True
            return
        except Exception:  # noqa: BLE001 - a bug of ours answers as a broken server would, and stands in the log
            traceback.print_exc(file=sys.stderr)
            self.close_connection = True
            reply = refusal(500, "Internal Server Error", "internal_error")
        self._send(reply)
        self._note_request()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve_one  # noqa: N815 - names that http.server looks up

    def _note_request(self) -> None:
        """Whoever only looks whether we are there does not keep us."""
        if self.path != HEALTH_PATH:
            self.listener.last_request_at = time.monotonic()

    def _send(self, reply: Reply) -> None:
        if reply.stall_seconds is not None:
            self._keep_silent(reply.stall_seconds)
        if reply.is_dropped:
            self.close_connection = True
            return
        if reply.takes_over is not None:
            self._hand_over(reply, reply.takes_over)
            return
        part = reply.body if isinstance(reply.body, FilePart) else None
        length = part.length if part else len(cast(bytes, reply.body))
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.send_header("X-OnModel-Sandbox", "1")
        if isinstance(reply.body, bytes) and self.command != "HEAD":
            # One write, so that a poll costs one packet.
            cast(Any, self)._headers_buffer.append(b"\r\n" + reply.body)
            self.flush_headers()
            return
        self.end_headers()
        if part is not None and self.command != "HEAD":
            self._send_file(part)

    def _send_file(self, part: FilePart) -> None:
        end = part.start + part.length
        stop = end if part.cut_at is None else min(end, max(part.cut_at, part.start))
        with part.path.open("rb") as file:
            file.seek(part.start)
            left = stop - part.start
            while left > 0 and (data := file.read(min(CHUNK_BYTES, left))):
                self.wfile.write(data)
                left -= len(data)
        if stop < end:
            self.close_connection = True

    def _hand_over(self, reply: Reply, takes_over: Callable[[socket.socket], None]) -> None:
        """Send the head, and let another protocol have the connection until it is done with it."""
        self.close_connection = True
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        takes_over(self.connection)

    def _keep_silent(self, seconds: float) -> None:
        """Wait, answering nothing, until the time is over, the client has gone or the server stops."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.listener.is_stopping.is_set():
            # A client that waits for an answer sends nothing: when its socket turns readable, it has hung up.
            readable, _, _ = select.select([self.connection], [], [], 0.1)
            if readable:
                return

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Polls would drown everything else in the log: only what buys or changes something is written down."""
        if self.command in ("POST", "PUT", "DELETE"):
            sys.stderr.write(f"{self.log_date_time_string()} {self.headers.get('Host')} {format % args}\n")
