"""ComfyUI's web socket: how far a job is, and when it is worth asking for its result at once.

It never decides anything (replicate_comfyui.md 3.4): history and queue do. Whatever goes wrong with a socket, the job
is polled as if there were none.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from domain.records import Record
from providers.comfyui.client import ComfyUiClient

OPEN_SECONDS = 5.0
FIRST_WORD_SECONDS = 2.0
SILENT_SECONDS = 3600.0
"""A job may compute for long without an event; a socket that is silent for an hour is given up."""

LARGEST_MESSAGE_BYTES = 64 * 2**20
"""Previews come as binary messages and are thrown away; one too large for the limit would end the socket (3.4)."""

KEPT_LISTENERS = 256
SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
"""The nodes that take nearly all of a job's time, and tell their steps."""

LATEST_NODE_SHARE = 0.99
"""What is shown at most before the end: the last node's own figures reach 1 before the files are written."""


class Socket(Protocol):
    """An open web socket."""

    def recv(self, timeout: float | None = None) -> str | bytes: ...

    def close(self) -> None: ...


OpenSocket = Callable[[str, Mapping[str, str]], Socket]
"""Opens `ws://…` or `wss://…` with these headers; raises whatever it likes when it cannot."""


class Heard(Record):
    """What a socket told of one job: `progress` 0 to 1, or None; `is_over` when its end was announced."""

    progress: float | None = None
    is_over: bool = False
    is_live: bool = False


def open_web_socket(url: str, headers: Mapping[str, str]) -> Socket:
    """A socket straight to the server, past any proxy, as ComfyUI stands in one's own network."""
    from websockets.sync.client import connect

    return connect(
        url,
        additional_headers=dict(headers),
        open_timeout=OPEN_SECONDS,
        close_timeout=1,
        max_size=LARGEST_MESSAGE_BYTES,
        proxy=None,
    )


class Listeners:
    """One listener per job that was sent from this process; jobs of others have none. Safe from many threads."""

    def __init__(self, client: ComfyUiClient, open_socket: OpenSocket | None) -> None:
        self._client = client
        self._open_socket = open_socket
        self._lock = threading.Lock()
        self._listeners: OrderedDict[str, _Listener] = OrderedDict()

    def begin(self, prompt_id: str, graph: Mapping[str, Any]) -> None:
        """Listen for this job, under its own client id, before it is sent. Never raises."""
        if self._open_socket is None:
            return
        try:
            # The address is ours and the headers hold the proxy's password: no text of a failure is kept.
            listening = self._open_socket(self._client.socket_address(prompt_id), self._client.socket_headers())
        except Exception:  # noqa: BLE001 (no socket, no matter: the job is polled)
            return
        try:
            listening.recv(FIRST_WORD_SECONDS)  # its status: from then on the server knows this socket
        except Exception:  # noqa: BLE001 (as above)
            with contextlib.suppress(Exception):
                listening.close()
            return
        samplers = frozenset(node_id for node_id, node in graph.items() if node.get("class_type") in SAMPLERS)
        listener = _Listener(prompt_id, listening, samplers)
        with self._lock:
            self._listeners[prompt_id] = listener
            stale = list(self._listeners)[: max(0, len(self._listeners) - KEPT_LISTENERS)]
            dropped = [self._listeners.pop(name) for name in stale]
        listener.start()
        for one in dropped:
            one.stop()

    def heard(self, prompt_id: str, *, wait_seconds: float = 0.0) -> Heard:
        """What is known of a job, after waiting for its end as long as that while its socket lives."""
        with self._lock:
            listener = self._listeners.get(prompt_id)
        return Heard() if listener is None else listener.heard(wait_seconds)

    def end(self, prompt_id: str) -> None:
        """Stop listening for a job; no error when nobody did."""
        with self._lock:
            listener = self._listeners.pop(prompt_id, None)
        if listener is not None:
            listener.stop()


class _Listener:
    """Reads one socket in a thread of its own until the job is over or the socket breaks."""

    def __init__(self, prompt_id: str, listening: Socket, samplers: frozenset[str]) -> None:
        self._prompt_id = prompt_id
        self._samplers = samplers
        self._socket = listening
        self._changed = threading.Condition()
        self._heard = Heard(is_live=True)
        self._nodes: dict[str, float] = {}
        self._thread = threading.Thread(target=self._listen, name=f"comfyui-{prompt_id[:8]}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with contextlib.suppress(Exception):
            self._socket.close()

    def heard(self, wait_seconds: float) -> Heard:
        with self._changed:
            if wait_seconds:
                self._changed.wait_for(lambda: self._heard.is_over or not self._heard.is_live, wait_seconds)
            return self._heard

    def _listen(self) -> None:
        try:
            while not self._heard.is_over:
                self._note(self._socket.recv(SILENT_SECONDS))
        except Exception:  # noqa: BLE001, S110 (closed, broken or nonsense: from here on the job is polled)
            pass
        finally:
            with self._changed:
                self._heard = self._heard.model_copy(update={"is_live": False})
                self._changed.notify_all()
            self.stop()

    def _note(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            return  # a preview
        said = json.loads(message)
        kind, data = said.get("type"), said.get("data")
        if not isinstance(data, dict) or data.get("prompt_id") != self._prompt_id:
            return
        with self._changed:
            if kind == "executing" and data.get("node") is None:
                self._heard = self._heard.model_copy(update={"is_over": True})
            elif kind == "progress":
                self._note_progress(data)
            self._changed.notify_all()

    def _note_progress(self, data: dict[str, Any]) -> None:
        """The share of the samplers' work that is done: where two follow each other, each is half of it."""
        value, most, node = data.get("value"), data.get("max"), str(data.get("node"))
        if not isinstance(value, int | float) or not isinstance(most, int | float) or most <= 0:
            return
        if self._samplers and node not in self._samplers:
            return
        self._nodes[node] = min(max(value / most, 0.0), 1.0)
        share = min(sum(self._nodes.values()) / max(len(self._samplers), len(self._nodes)), LATEST_NODE_SHARE)
        if share > (self._heard.progress or 0.0):
            self._heard = self._heard.model_copy(update={"progress": share})
