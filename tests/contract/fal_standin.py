"""A hand-written stand-in for fal on loopback: plays planned answers under fal's names, records what it saw."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from pydantic import SecretStr

from domain.jobs import BlobRef, VendorJobIds, VendorRequest, blob_argument
from domain.registry import load_registry
from domain.submissions import Submission
from providers.fal.vendor import FalVendor
from providers.web import open_http

KEY = "not-a-real-key-0123456789"
ZIP = BlobRef(sha256="a" * 64, media_type="application/zip", file_name="set.zip")
TRAIN = VendorRequest(
    vendor="fal",
    endpoint="fal-ai/flux-lora-fast-training",
    arguments={"images_data_url": blob_argument(ZIP), "steps": 9},
)
STILL = VendorRequest(vendor="fal", endpoint="fal-ai/flux-lora", arguments={"prompt": "a harbour"})
VIDEO = VendorRequest(
    vendor="fal", endpoint="fal-ai/kling-video/o1/reference-to-video", arguments={"prompt": "a harbour"}
)
IDS = VendorJobIds(request_id="job-1")
FLUX_JOB = "queue.fal.run/fal-ai/flux-lora/requests/job-1"
ACCEPTED = {
    "status": "IN_QUEUE",
    "request_id": "job-1",
    "queue_position": 0,
    "status_url": f"https://{FLUX_JOB}/status",
    "response_url": f"https://{FLUX_JOB}",
    "cancel_url": f"https://{FLUX_JOB}/cancel",
}


def sent(url_of: dict[str, str] | None = None, at: datetime | None = None) -> Submission:
    """The POST that a test makes or looks for: its first, made now unless said otherwise."""
    sent_at = at or datetime.now(UTC)
    return Submission(installation="0a1b2c3d", job_key="5" * 40, number=1, sent_at=sent_at, url_of=url_of or {})


LOCKED = {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."}


@dataclass
class Answer:
    """What the stand-in does with one request. `promised` is a Content-Length that the body does not keep."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None
    behaviour: str = "answer"  # or: hang, drop


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    address: str
    query: str
    headers: dict[str, str]
    body: bytes


class StandIn(ThreadingHTTPServer):
    """Plays planned answers by "METHOD host/path": the next of the list, and the last one for ever."""

    daemon_threads = True
    request_queue_size = 64  # eight clients at once overflow the five of the standard library

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.plan: dict[str, list[Answer]] = {}
        self.seen: list[Seen] = []
        self.released = threading.Event()

    def on(self, what: str, *answers: Answer) -> None:
        self.plan[what] = list(answers)

    def next_answer(self, what: str) -> Answer:
        answers = self.plan.get(what) or [Answer(418, {"detail": f"nothing planned for {what}"})]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the play."""


class _Talk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body go out by themselves: the second would wait for the first's receipt
    server: StandIn

    def _play(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path, _, query = self.path.partition("?")
        address = f"{self.headers['host']}{path}"
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(Seen(self.command, address, query, headers, body[:4096]))
        answer = self.server.next_answer(f"{self.command} {address}")
        if answer.behaviour == "hang":
            self.server.released.wait(20)
        if answer.behaviour != "answer":
            self.close_connection = True
            return
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if answer.promised is None else answer.promised))
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = answer.promised is not None

    do_GET = do_POST = do_PUT = _play

    def log_message(self, *args: Any) -> None:
        """Quiet."""


class ToStandIn(httpx.BaseTransport):
    """Takes every host to the stand-in, keeping the Host header, over a real socket."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._inner = httpx.HTTPTransport(verify=False)  # plain http: no certificates to load

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


class Failing(httpx.BaseTransport):
    """Raises one error, for the moments a loopback server cannot play."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise self._error


@contextlib.contextmanager
def fal_stand_in() -> Iterator[StandIn]:
    """A running stand-in; every connection it holds is let go at the end."""
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def vendor_at(server: StandIn, key: str = KEY) -> Iterator[FalVendor]:
    """The real adapter over real sockets, with a short patience."""
    with open_http(ToStandIn(server.server_address[1]), timeout=httpx.Timeout(0.5)) as http:
        yield FalVendor(http, SecretStr(key), load_registry())
