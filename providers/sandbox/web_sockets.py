"""The server's end of a web socket, as far as a stand-in needs it: handshake, texts out, pings, the end.

RFC 6455. Frames from clients are masked, ours are not; nothing a client says is listened to.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from providers.sandbox.wire import Reply, Request, refusal

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_LARGEST_FRAME_BYTES = 1 << 20


class ServerSocket:
    """One open socket. `send` may be called from any thread; it is silent once the client has gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.is_open = True

    def send(self, message: dict[str, Any]) -> None:
        self._write(_TEXT, json.dumps(message).encode())

    def close(self) -> None:
        """End the connection under whoever reads it."""
        self.is_open = False
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Answer pings until the client closes or goes away."""
        self._connection.settimeout(None)
        with contextlib.suppress(OSError, ValueError):
            while self.is_open:
                opcode, data = self._read()
                if opcode == _PING:
                    self._write(_PONG, data)
                elif opcode == _CLOSE:
                    self._write(_CLOSE, data[:2])
                    break
        self.is_open = False

    def _write(self, opcode: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
        with self._lock:
            if not self.is_open:
                return
            try:
                self._connection.sendall(head + data)
            except OSError:
                self.is_open = False

    def _read(self) -> tuple[int, bytes]:
        first, second = self._exactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        if size > _LARGEST_FRAME_BYTES or not second & 0x80:
            raise ValueError("no frame of a client")
        mask, data = self._exactly(4), self._exactly(size)
        return first & 0x0F, bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._connection.recv(size - len(data))
            if not more:
                raise ConnectionError("the client has gone")
            data += more
        return data


def upgraded(request: Request, opened: Callable[[ServerSocket], None], closed: Callable[[ServerSocket], None]) -> Reply:
    """The answer to a handshake: 101 and the socket, told to `opened` and, when it is over, to `closed`."""
    key = request.header("Sec-WebSocket-Key")
    if (request.header("Upgrade") or "").lower() != "websocket" or key is None:
        return refusal(400, "No WebSocket UPGRADE hdr")

    def take_over(connection: socket.socket) -> None:
        listening = ServerSocket(connection)
        opened(listening)
        try:
            listening.serve()
        finally:
            closed(listening)

    accept = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()  # noqa: S324 (the protocol's own)
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
    return Reply(101, headers, takes_over=take_over)
