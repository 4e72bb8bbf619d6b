"""A prompt that the stand-in of ComfyUI has taken, and what it tells of it over web sockets.

Order of the events: replicate_comfyui.md 3.4 (0.3.64, run): the end of all, `executing` without a node, comes once the
history has the prompt.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from providers.sandbox.comfy_nodes import reached
from providers.sandbox.web_sockets import ServerSocket, upgraded
from providers.sandbox.wire import Reply, Request


@dataclass
class Prompt:
    """One prompt that was taken. `request_id` is the workshop's job, None for what came out of the cache whole.

    `outputs` are there when it is over: node id → what the node shows. `is_cut`: its files break off while they are
    fetched, by a fault.
    """

    prompt_id: str
    number: int
    graph: dict[str, Any]
    client_id: str
    targets: list[str]
    kind: str
    request_id: str | None
    cached: list[str] = field(default_factory=list)
    outputs: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    is_interrupted: bool = False
    is_cut: bool = False

    def item(self) -> list[Any]:
        return [self.number, self.prompt_id, self.graph, {"client_id": self.client_id}, self.targets]


class Telling:
    """The open sockets, one for each client id: a second with the same id takes the first one's place."""

    def __init__(self, remaining: Callable[[], int]) -> None:
        self._lock = threading.Lock()
        self._sockets: dict[str, ServerSocket] = {}
        self._remaining = remaining

    def open(self, request: Request) -> Reply:
        """GET /ws."""
        client_id = request.query.get("clientId") or uuid.uuid4().hex

        def opened(listening: ServerSocket) -> None:
            with self._lock:
                self._sockets[client_id] = listening
            status = {"exec_info": {"queue_remaining": self._remaining()}}
            listening.send({"type": "status", "data": {"status": status, "sid": client_id}})

        def closed(listening: ServerSocket) -> None:
            with self._lock:
                if self._sockets.get(client_id) is listening:
                    del self._sockets[client_id]

        return upgraded(request, opened, closed)

    def close(self) -> None:
        """End every socket."""
        with self._lock:
            sockets = list(self._sockets.values())
        for listening in sockets:
            listening.close()

    def send(self, prompt: Prompt, kind: str, **data: Any) -> None:
        with self._lock:
            listening = self._sockets.get(prompt.client_id)
        if listening is not None:
            listening.send({"type": kind, "data": data | {"prompt_id": prompt.prompt_id}})

    def start(self, prompt: Prompt) -> None:
        self.send(prompt, "execution_start")
        self.send(prompt, "execution_cached", nodes=prompt.cached)

    def work(self, prompt: Prompt, step: int | None) -> None:
        """Every node up to the sampler and its first step; or, at the end, its last step and the nodes behind it."""
        for node_id in reached(prompt.graph, prompt.targets[0]):
            inputs = prompt.graph[node_id]["inputs"]
            is_sampler = "latent_image" in inputs
            if step is not None or is_sampler:
                self.send(prompt, "executing", node=node_id, display_node=node_id)
            if is_sampler:
                most = int(inputs.get("steps", 20))
                self.send(prompt, "progress", value=step or most, max=most, node=node_id)
                if step is not None:
                    return

    def end(self, prompt: Prompt) -> None:
        if prompt.error is not None:
            self.send(prompt, "execution_interrupted" if prompt.is_interrupted else "execution_error", **prompt.error)
        else:
            for node_id, shown in (prompt.outputs or {}).items():
                self.send(prompt, "executed", node=node_id, display_node=node_id, output=shown)
            self.send(prompt, "execution_success")
        self.send(prompt, "executing", node=None)
