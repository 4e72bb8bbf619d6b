"""A hand-written stand-in for RunPod's REST v2 on loopback: makes, lists, deletes and bills pods, and fails on plan.

    with runpod_stand_in() as runpod:
        runpod.on("create", Fault.ERROR_AFTER)           # the pod runs, the answer is a 500
        vendor = RunPodVendor(http, SecretStr(KEY), …, base_url=runpod.url)

`created` are the names it accepted (what a vendor would charge for), `pods` what is alive. It is asked by address, so
other processes can use it. Fields and answers: RunPod's OpenAPI document 2.0.0 (runpod/docs a900806, 2026-08-20).
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "rpa_not-a-real-key-0123456789"
CONTAINER_FIELDS = frozenset({"image", "args", "disk", "env", "ports", "registry"})
BODY_FIELDS = CONTAINER_FIELDS | {
    *("name", "templateId", "mounts", "cloud", "dataCenterIds", "gpu", "cpu"),
    *("globalNetworking", "startSsh", "startJupyter"),
}
GPU_FIELDS = frozenset({"id", "count", "allowedCudaVersions", "minCudaVersion"})
LIFE = ("PROVISIONING", "STARTING", "RUNNING")
GPUS = (
    {"id": "NVIDIA GeForce RTX 4090", "price": {"secure": 0.69, "community": 0.34}, "availability": "HIGH"},
    {"id": "NVIDIA L40S", "price": {"secure": 0.86, "community": 0.79}, "availability": "MEDIUM"},
    {"id": "NVIDIA RTX 6000 Ada Generation", "price": {"secure": 1.3, "community": 1.2}, "availability": "HIGH"},
    {"id": "NVIDIA A40", "price": {"secure": 0.4, "community": 0.35}, "availability": "NONE"},
)
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


class Fault(StrEnum):
    """What one request meets. AFTER means that the work was done first: on a create, the pod is there."""

    RATE_LIMITED = "rate_limited"  # 429 with Retry-After: 7
    RATE_LIMITED_IN_BODY = "rate_limited_in_body"  # 429 with the wait in the body alone
    ERROR_BEFORE = "error_before"  # 500 as a problem document
    ERROR_AFTER = "error_after"
    BAD_GATEWAY = "bad_gateway"  # 502, a proxy's page
    BAD_GATEWAY_AFTER = "bad_gateway_after"
    DROP_BEFORE = "drop_before"  # the connection closes without an answer
    DROP_AFTER = "drop_after"
    STALL_BEFORE = "stall_before"  # no answer until the stand-in is released
    STALL_AFTER = "stall_after"
    MALFORMED = "malformed"  # done, and half a JSON document comes back
    UNREADABLE = "unreadable"  # done, and the JSON is none of the specification's
    NOT_FOUND = "not_found"  # 404


@dataclass
class Answer:
    """An answer as a test wants it, without any work done."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class RunningPod:
    """A pod that bills. Each look at it moves `status` on along `life`; the last word stays."""

    pod_id: str
    name: str
    body: dict[str, Any]
    created_at: datetime
    life: list[str]
    cost: float = 0.69
    hidden_listings: int = 0
    """In how many listings it does not show yet."""
    has_runtime: bool = True
    uptime: float = 60
    gpus: int = 1

    @property
    def status(self) -> str:
        return self.life[0]

    def shown(self) -> dict[str, Any]:
        is_running = self.status == "RUNNING"
        began = self.created_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "id": self.pod_id,
            "name": self.name,
            "image": self.body.get("image"),
            "env": self.body.get("env", {}),
            "status": self.status,
            "cost": 0.0 if self.status in ("EXITED", "TERMINATED") else self.cost,
            "runtime": {"uptime": int(self.uptime), "gpus": [{"util": 94, "memoryUtil": 78}] * self.gpus}
            if is_running and self.has_runtime
            else None,
            "locked": False,
            "createdAt": began,
            "startedAt": began if is_running else None,
        }


class RunPodStandIn(ThreadingHTTPServer):
    """The server; `on_request(route, phase)` is called "before" the work, when it is "accepted", and once "answered".

    Routes: create, list, get, delete, action, catalogue, billing.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.pods: dict[str, RunningPod] = {}
        self.billing: Any = {"records": [], "metadata": {"recordCount": 0}}
        self.gpus: list[dict[str, Any]] = [gpu_type(**gpu) for gpu in GPUS]
        self.seen: list[tuple[str, str, dict[str, Any]]] = []
        """(route, method and path, the body or the query) of each request."""
        self.hide_new_pods_for = 0
        self.life: tuple[str, ...] = LIFE
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.on_request: Callable[[str, str], None] = lambda route, phase: None
        self.released = threading.Event()
        self.lock = threading.RLock()
        self._plan: dict[str, list[Fault | Answer | None]] = {}
        self._always: dict[str, Fault | Answer] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v2"

    def on(self, route: str, *faults: Fault | Answer | None) -> None:
        """What the next requests of a route meet, in order; None lets one through, and after the last all go well."""
        self._plan[route] = list(faults)

    def always(self, route: str, fault: Fault | Answer) -> None:
        """What every request of a route meets once its plan is used up."""
        self._always[route] = fault

    def routes(self) -> list[str]:
        return [route for route, _, _ in self.seen]

    def next_fault(self, route: str) -> Fault | Answer | None:
        with self.lock:
            plan = self._plan.get(route)
            return plan.pop(0) if plan else self._always.get(route)

    def add_pod(self, name: str, *, created_at: datetime | None = None, **body: Any) -> RunningPod:
        """A pod that is there, however it came to be; not counted as created."""
        with self.lock:
            pod_id = secrets.token_hex(7)
            self.pods[pod_id] = RunningPod(
                pod_id=pod_id,
                name=name,
                body=body,
                created_at=created_at or self.now(),
                life=list(self.life),
                hidden_listings=self.hide_new_pods_for,
            )
            return self.pods[pod_id]

    def work(self, route: str, pod_id: str, given: dict[str, Any]) -> Answer:
        """Do what was asked, as the specification has it."""
        with self.lock:
            match route:
                case "create":
                    errors = violations(given)
                    if errors:
                        return problem(422, "Unprocessable Entity", "Request validation failed.", errors=errors)
                    pod = self.add_pod(given["name"], **{key: given[key] for key in given if key != "name"})
                    self.created.append(pod.name)
                    return Answer(201, pod.shown())
                case "list":
                    shown = [pod.shown() for pod in self.pods.values() if pod.hidden_listings <= 0]
                    for pod in self.pods.values():
                        pod.hidden_listings -= 1
                    return Answer(200, {"pods": shown})
                case "billing":
                    return Answer(200, self.billing)
                case "catalogue":
                    return Answer(200, {"gpus": self.gpus})
                case _ if pod_id not in self.pods:
                    return problem(404, "Not Found", "pod not found")
                case "delete":
                    self.deleted.append(self.pods.pop(pod_id).pod_id)
                    return Answer(204)
                case "action":
                    if given.get("action") != "stop":
                        return problem(409, "Conflict", "not valid for this pod")
                    self.pods[pod_id].life = ["EXITED"]
                    return Answer(200, self.pods[pod_id].shown())
                case _:
                    pod = self.pods[pod_id]
                    answer = Answer(200, pod.shown())
                    pod.life = pod.life[1:] or pod.life
                    return answer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the play."""


def problem(status: int, title: str, detail: str, **more: Any) -> Answer:
    """An error as RunPod writes it."""
    return Answer(status, {"title": title, "status": status, "detail": detail, **more})


def gpu_type(**facts: Any) -> dict[str, Any]:
    """An entry of the catalogue with all that the specification demands."""
    name = facts["id"].removeprefix("NVIDIA ")
    return {
        "name": name,
        "pool": None,
        "manufacturer": "NVIDIA",
        "memory": 48,
        "secure": True,
        "community": True,
        "maxCount": {"secure": 8, "community": 4},
        "cudaVersions": [{"version": "13.0", "available": True}],
        **facts,
    }


def violations(body: Any) -> list[str]:
    """Why the specification refuses this body of a create; empty when it does not."""
    if not isinstance(body, dict):
        return ["$: got something that is no object"]
    gpu = body.get("gpu", {"id": ""})
    env = body.get("env", {})
    checks = {
        "$: missing property 'name'": isinstance(body.get("name"), str) and body["name"],
        "$: missing property 'image'": "image" in body or "templateId" in body,
        "$: exactly one of 'gpu' and 'cpu' is needed": ("gpu" in body) != ("cpu" in body),
        "$.gpu: id is needed, and nothing unknown beside it": isinstance(gpu, dict)
        and "id" in gpu
        and not set(gpu) - GPU_FIELDS,
        "$.env: every value is a string": isinstance(env, dict)
        and all(isinstance(value, str) for value in env.values()),
        "$.disk: at least 1": isinstance(body.get("disk", 1), int) and body.get("disk", 1) >= 1,
    }
    unknown = [f"$: additional properties {name!r} not allowed" for name in sorted(set(body) - BODY_FIELDS)]
    return unknown + [sentence for sentence, is_fine in checks.items() if not is_fine]


class _Talk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together, else the second waits for the first one's acknowledgement
    server: RunPodStandIn

    def _play(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        address = urlsplit(self.path)
        given = json.loads(content) if content else {name: value[0] for name, value in parse_qs(address.query).items()}
        route, pod_id = _route(self.command, address.path)
        with self.server.lock:
            self.server.seen.append((route, f"{self.command} {address.path}", given))
        self.server.on_request(route, "before")
        if self.headers.get("authorization") != f"Bearer {KEY}":
            self._send(problem(401, "Unauthorized", "missing bearer token"))
        elif not route:
            self._send(problem(404, "Not Found", "resource not found"))
        else:
            self._answer(route, pod_id, given)
        self.server.on_request(route, "answered")

    def _answer(self, route: str, pod_id: str, given: dict[str, Any]) -> None:
        fault = self.server.next_fault(route)
        match fault:
            case Answer():
                return self._send(fault)
            case Fault.RATE_LIMITED:
                limited = problem(429, "Too Many Requests", "rate limit exceeded for the minute window")
                return self._send(Answer(429, limited.body, {"Retry-After": "7"}))
            case Fault.RATE_LIMITED_IN_BODY:
                return self._send(problem(429, "Too Many Requests", "rate limit exceeded", retry_after=7))
            case Fault.ERROR_BEFORE:
                return self._send(problem(500, "Internal Server Error", "something broke"))
            case Fault.BAD_GATEWAY:
                return self._send(Answer(502, PAGE))
            case Fault.NOT_FOUND:
                return self._send(problem(404, "Not Found", "pod not found"))
            case Fault.DROP_BEFORE | Fault.STALL_BEFORE:
                return self._leave(fault)
        answer = self.server.work(route, pod_id, given)
        if answer.status < 400:
            self.server.on_request(route, "accepted")
        match fault:
            case Fault.ERROR_AFTER:
                answer = problem(500, "Internal Server Error", "something broke")
            case Fault.BAD_GATEWAY_AFTER:
                answer = Answer(502, PAGE)
            case Fault.MALFORMED:
                answer = Answer(answer.status, json.dumps(answer.body)[:-2].encode())
            case Fault.UNREADABLE:
                answer = Answer(answer.status, {"pods": [{"desiredStatus": "RUNNING"}], "records": [{"podId": 7}]})
            case Fault.DROP_AFTER | Fault.STALL_AFTER:
                return self._leave(fault)
        return self._send(answer)

    def _leave(self, fault: Fault) -> None:
        if fault in (Fault.STALL_BEFORE, Fault.STALL_AFTER):
            self.server.released.wait(60)
        self.close_connection = True

    def _send(self, answer: Answer) -> None:
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        data = b"" if answer.status == 204 else data
        is_page = isinstance(answer.body, bytes) and data.startswith(b"<")
        kind = "application/problem+json" if answer.status >= 400 else "application/json"
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/html" if is_page else kind)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    do_GET = do_POST = do_DELETE = _play

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(self.server.now().astimezone(UTC), usegmt=True)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


def _route(method: str, path: str) -> tuple[str, str]:
    """(route, pod id); both empty for what RunPod does not have."""
    if path == "/v2/pods":
        return {"GET": "list", "POST": "create"}.get(method, ""), ""
    if path == "/v2/catalog/gpus" and method == "GET":
        return "catalogue", ""
    action = re.fullmatch(r"/v2/pods/([^/]+)/action", path)
    if action and method == "POST":
        return "action", action[1]
    if path == "/v2/billing/pods" and method == "GET":
        return "billing", ""
    found = re.fullmatch(r"/v2/pods/([^/]+)", path)
    route = {"GET": "get", "DELETE": "delete"}.get(method, "")
    return (route, found[1]) if found and route else ("", "")


@contextlib.contextmanager
def runpod_stand_in() -> Iterator[RunPodStandIn]:
    """A running stand-in; every connection it holds is let go at the end."""
    server = RunPodStandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
