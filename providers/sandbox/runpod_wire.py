"""RunPod's REST v2 in the sandbox: pods that really run their command here, a catalogue, and bills by the second.

Fields, words and codes: RunPod's OpenAPI document 2.0.0 (runpod/docs a900806, 2026-08-20) and runpod_trainers.md 1.2. A
key that begins with `invalid` is unknown, one that begins with `locked` has no balance; a pod's own key, which it finds
in RUNPOD_API_KEY, may act on that pod alone. No money moves.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from providers.sandbox.faults import Fault, answer_of, parse_faults
from providers.sandbox.machines import Machine
from providers.sandbox.places import RUNPOD_HOST
from providers.sandbox.runpod_pods import OWN_KEY, MachineMaker, Pods, RentedPod, moment
from providers.sandbox.runpod_prices import PRICES, gpu_type
from providers.sandbox.wire import Reply, Request

if TYPE_CHECKING:
    from providers.sandbox.parts import Stage

ENDPOINT = "pods"
"""The name that fault plans and counters know it by."""

CONTAINER_FIELDS = frozenset({"image", "args", "disk", "env", "ports", "registry"})
BODY_FIELDS = CONTAINER_FIELDS | {
    *("name", "templateId", "mounts", "cloud", "dataCenterIds", "gpu", "cpu"),
    *("globalNetworking", "startSsh", "startJupyter"),
}
GPU_FIELDS = frozenset({"id", "count", "allowedCudaVersions", "minCudaVersion"})
NO_CAPACITY = "There are no longer any instances available with the requested specifications."


class RunPodPart:
    """A sandbox part for api.runpod.io. Faults: `submit`, `status`, `list`, `cancel` (a delete), `usage`, and those of
    a job: `stay_queued` (never gets a runtime), `fail` (its host dies), `freeze`, `no_gpu`, `trainer=WHAT`."""

    hosts = frozenset({RUNPOD_HOST})

    def __init__(self, stage: Stage, machine: MachineMaker = Machine) -> None:
        self.stage = stage
        self.pods = Pods(stage.folder / "runpod", lambda: f"{stage.url()}/_as/{RUNPOD_HOST}/v2", machine)
        self._posts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def posts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._posts)

    def start(self) -> None:
        """Pods of an earlier server have exited: their machine went away."""
        self.pods.load()

    def stop(self) -> None:
        self.pods.close()

    def answer(self, request: Request) -> Reply:
        segments = request.segments
        if segments[:1] != ["v2"]:
            return problem(404, "Not Found", "resource not found")
        is_buying = (request.method, segments) == ("POST", ["v2", "pods"])
        if is_buying:
            with self._lock:
                self._posts[ENDPOINT] += 1
        if refused := self._refused_key(request, segments, is_buying=is_buying):
            return refused
        match request.method, segments[1:]:
            case "POST", ["pods"]:
                return self._create(request)
            case "GET", ["pods"]:
                return self._list()
            case "GET", ["catalog", "gpus"]:
                return self._catalogue(request)
            case "GET", ["billing", "pods"]:
                return self._billing(request)
            case _, ["pods", pod_id, *rest]:
                pod = self.pods.find(pod_id)
                if pod is None:
                    return problem(404, "Not Found", "pod not found")
                return self._one(request, pod, "/".join(rest))
            case _:
                return problem(404, "Not Found", "resource not found")

    def _refused_key(self, request: Request, segments: list[str], *, is_buying: bool) -> Reply | None:
        scheme, _, key = (request.header("Authorization") or "").partition(" ")
        if scheme != "Bearer" or not key or key.startswith("invalid"):
            return problem(401, "Unauthorized", "missing or invalid bearer token")
        if is_buying and key.startswith("locked"):
            return problem(402, "Payment Required", "insufficient balance")
        if key.startswith(OWN_KEY) and segments[1:3] != ["pods", key.removeprefix(OWN_KEY)]:
            return problem(403, "Forbidden", "this key is a pod's own")
        return None

    # --- pods ---

    def _create(self, request: Request) -> Reply:
        raw = request.body.read()
        fault = self.stage.faults.pick("submit", ENDPOINT)
        if fault is not None and fault.kind == "no_capacity":
            return problem(400, "Bad Request", NO_CAPACITY)
        if fault is not None and fault.kind not in ("drop_after_accept", "stall_after_accept", "malformed"):
            return _fault_answer(fault)
        try:
            body = json.loads(raw)
        except ValueError:
            return problem(400, "Bad Request", "the body is no JSON")
        if errors := violations(body):
            return problem(422, "Unprocessable Entity", "Request validation failed.", errors=errors)
        if body["gpu"]["id"] not in PRICES:
            return problem(400, "Bad Request", f"gpu type {body['gpu']['id']!r} does not exist")
        drawn = tuple(found.text for found in self.stage.faults.pick_all("job", ENDPOINT))
        pod = self.pods.rent(body, PRICES[body["gpu"]["id"]].usd_per_hour, drawn)
        if fault is not None:
            return _fault_answer(fault)
        return Reply.of(201, self._shown(pod))

    def _list(self) -> Reply:
        fault = self.stage.faults.pick("list", ENDPOINT)
        is_hidden = fault is not None and fault.kind == "hide"
        if fault is not None and fault.kind not in ("hide", "no_input"):
            return _fault_answer(fault)
        return Reply.of(200, {"pods": [] if is_hidden else [self._shown(pod) for pod in self.pods.there()]})

    def _one(self, request: Request, pod: RentedPod, action: str) -> Reply:
        match request.method, action:
            case "GET", "":
                fault = self.stage.faults.pick("status", ENDPOINT)
                if fault is None:
                    return Reply.of(200, self._shown(pod))
                if fault.kind == "unknown_word":
                    return Reply.of(200, self._shown(pod) | {"status": fault.argument or "HIBERNATING"})
                return _fault_answer(fault)
            case "DELETE", "":
                return self._delete(pod)
            case "POST", "action":
                return self._act(pod, json.loads(request.body.read()).get("action"))
            case _:
                return problem(405, "Method Not Allowed", "method not allowed")

    def _delete(self, pod: RentedPod) -> Reply:
        fault = self.stage.faults.pick("cancel", ENDPOINT)
        if fault is not None:
            return Reply(204) if fault.kind == "ignore" else _fault_answer(fault)
        self.pods.end(pod.pod_id)
        return Reply(204)

    def _act(self, pod: RentedPod, action: object) -> Reply:
        if action not in pod.actions:
            return problem(409, "Conflict", f"{action} is not valid for a pod that is {pod.status}")
        if action == "terminate":
            return self._delete(pod)
        changed = self.pods.exit(pod.pod_id) if action == "stop" else self.pods.boot(pod.pod_id)
        return Reply.of(200, self._shown(changed))

    def _shown(self, pod: RentedPod) -> dict[str, Any]:
        uptime = self.pods.uptime_seconds(pod)
        has_gpu = not any(one.kind == "no_gpu" for text in pod.faults for one in parse_faults(text))
        runtime = {"uptime": int(uptime), "gpus": [{"util": 0, "memoryUtil": 0}] if has_gpu else []} if uptime else None
        body = pod.body
        return {
            "id": pod.pod_id,
            "name": pod.name,
            "image": body["image"],
            "args": body.get("args", ""),
            "disk": body.get("disk", 20),
            "mounts": {},
            "ports": body.get("ports", []),
            "env": body.get("env", {}),
            "registry": None,
            "status": pod.status,
            "actions": pod.actions,
            "gpu": body["gpu"],
            "cloud": body.get("cloud", "SECURE"),
            "dataCenterId": "SANDBOX-1",
            "cudaVersion": "13.0",
            "ssh": None,
            "template": None,
            "cost": pod.usd_per_hour if pod.is_billing else 0.0,
            "locked": False,
            "runtime": runtime,
            "globalNetworking": {"enabled": False},
            "createdAt": moment(pod.created_at),
            "startedAt": moment(pod.started_at),
        }

    # --- prices and bills ---

    def _catalogue(self, request: Request) -> Reply:
        query = request.query
        wants_stock = query.get("include") == "AVAILABILITY"
        if wants_stock != ("product" in query):
            return problem(400, "Bad Request", "include=AVAILABILITY and product go together")
        fault = self.stage.faults.pick("status", "catalog")
        if fault is not None:
            return _fault_answer(fault)
        return Reply.of(200, {"gpus": [gpu_type(name, with_stock=wants_stock) for name in PRICES]})

    def _billing(self, request: Request) -> Reply:
        if fault := self.stage.faults.pick("usage", ENDPOINT):
            return _fault_answer(fault)
        try:
            since = datetime.fromisoformat(request.query["startTime"])
            until = datetime.fromisoformat(request.query["endTime"])
        except (KeyError, ValueError):
            return problem(422, "Unprocessable Entity", "startTime and endTime are needed")
        step = timedelta(days=1) if request.query.get("bucketSize", "hour") == "day" else timedelta(hours=1)
        records = [
            record
            for pod in self.pods.ever()
            for record in _records(pod, since.astimezone(UTC), until.astimezone(UTC), step)
            if request.query.get("podId") in (None, pod.pod_id)
        ]
        total = sum(record["totalAmount"] for record in records)
        totals = {"totalAmount": total, "gpuAmount": total, "cpuAmount": 0.0, "diskAmount": 0.0}
        pods = len({record["podId"] for record in records})
        metadata = {"query": {}, "recordCount": len(records), "uniquePodCount": pods, "totals": totals}
        return Reply.of(200, {"records": records, "metadata": metadata})


def problem(status: int, title: str, detail: str, **more: Any) -> Reply:
    """An error as RunPod writes it (application/problem+json)."""
    body = {"title": title, "status": status, "detail": detail, **more}
    return Reply(status, {"Content-Type": "application/problem+json"}, json.dumps(body).encode())


def violations(body: Any) -> list[str]:
    """Why the specification refuses this body of a create; empty when it does not."""
    if not isinstance(body, dict):
        return ["$: got something that is no object"]
    gpu, env, name = body.get("gpu"), body.get("env", {}), body.get("name")
    found = [f"$: additional properties {field!r} not allowed" for field in sorted(set(body) - BODY_FIELDS)]
    checks = {
        "$: missing property 'name'": isinstance(name, str) and bool(name),
        "$: missing property 'image'": isinstance(body.get("image"), str),
        "$.gpu: an object with an id is needed": isinstance(gpu, dict) and isinstance(gpu.get("id"), str),
        "$.gpu: additional properties not allowed": not isinstance(gpu, dict) or not set(gpu) - GPU_FIELDS,
        "$.env: every value is a string": isinstance(env, dict)
        and all(isinstance(value, str) for value in env.values()),
        "$.env: at most 50 variables": isinstance(env, dict) and len(env) <= 50,
        "$.disk: at least 1": isinstance(body.get("disk", 1), int) and body.get("disk", 1) >= 1,
        "$.args: a string": isinstance(body.get("args", ""), str),
        "$.cloud: SECURE or COMMUNITY": body.get("cloud", "SECURE") in ("SECURE", "COMMUNITY"),
    }
    return found + [sentence for sentence, is_fine in checks.items() if not is_fine]


def _records(pod: RentedPod, since: datetime, until: datetime, step: timedelta) -> list[dict[str, Any]]:
    """A pod's charges, one for each bucket that its life lies in."""
    day = since.replace(hour=0, minute=0, second=0, microsecond=0)
    bucket = day if step.days else since.replace(minute=0, second=0, microsecond=0)
    found = []
    while bucket < until:
        seconds = pod.billed_seconds(bucket.timestamp(), (bucket + step).timestamp())
        if seconds > 0:
            usd = pod.usd_per_hour * seconds / 3600
            parts = {"totalAmount": usd, "gpuAmount": usd, "cpuAmount": 0.0, "diskAmount": 0.0}
            span = {"startTime": moment(bucket.timestamp()), "endTime": moment((bucket + step).timestamp())}
            found.append({"podId": pod.pod_id, **span, **parts})
        bucket += step
    return found


def _fault_answer(fault: Fault) -> Reply:
    """A fault in RunPod's words; gateways' pages, silences and dropped connections are the same everywhere."""
    match fault.kind:
        case "refuse":
            status = int((fault.argument or "422").partition("/")[0])
            return problem(status, "Refused", f"refused on purpose by the sandbox: {fault.text}")
        case "lock":
            return problem(402, "Payment Required", "insufficient balance")
        case "vanish":
            return problem(404, "Not Found", "pod not found")
        case "rate_limit":
            limited = problem(429, "Too Many Requests", "rate limit exceeded")
            return Reply(429, {**limited.headers, "Retry-After": f"{fault.number(1):g}"}, limited.body)
        case "rate_limit_body":
            return problem(429, "Too Many Requests", "rate limit exceeded", retry_after=fault.number(1))
        case "malformed":
            return Reply(201, {"Content-Type": "application/json"}, b'{"id": "6f0c", "stat')
        case _:
            return answer_of(fault)
