"""RunPod serverless in the sandbox: the queue of one endpoint at api.runpod.ai, behind it our worker's work.

Words and codes: runpod_trainers.md 1.4. A key that begins with `invalid` is unknown, one that begins with `locked` has
no balance. What RunPod itself does not judge is not judged here: a wrong input is accepted, and its job fails.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
import uuid
from collections import Counter
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from providers.sandbox.faults import Fault, answer_of
from providers.sandbox.journal import Phase
from providers.sandbox.places import SERVERLESS_HOST
from providers.sandbox.serverless_worker import (
    WorkerRefused,
    at_this_server,
    check_input,
    neutral_still,
    put,
    put_status,
)
from providers.sandbox.wire import Reply, Request

if TYPE_CHECKING:
    from providers.sandbox.journal import Job
    from providers.sandbox.parts import Stage

ENDPOINT = "serverless"
"""The name that fault plans and counters know all endpoints by."""

BODY_FIELDS = frozenset({"input", "webhook", "policy", "s3Config"})
POLICY_MS = {"executionTimeout": (5_000, 604_800_000, 600_000), "ttl": (10_000, 604_800_000, 86_400_000)}
"""Least, most, and what counts when nothing is said, in milliseconds."""

KEPT_SECONDS = {"run": 1800.0, "runsync": 60.0}
SYNC_SECONDS = 90.0
_JOB_ID = re.compile(r"[0-9a-f-]{36}-[a-z][0-9]")


@dataclass(frozen=True)
class ServerlessJob:
    """One job of an endpoint. Times are Unix seconds; `work_id` is the workshop's job, once a worker has taken it."""

    job_id: str
    endpoint_id: str
    input: Any
    accepted_at: float
    policy: dict[str, float]
    verb: str = "run"
    faults: tuple[str, ...] = ()
    work_id: str | None = None
    state: str = "IN_QUEUE"
    output: Any = None
    error: str | None = None
    ended_at: float | None = None

    @property
    def is_over(self) -> bool:
        return self.ended_at is not None


@dataclass
class _Shelves:
    """The jobs in memory and on disk, each as one file that is replaced as a whole."""

    folder: Path
    jobs: dict[str, ServerlessJob] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def load(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = {one.name for one in fields(ServerlessJob)}
        for path in self.folder.glob("*.json"):
            raw = {name: value for name, value in json.loads(path.read_text()).items() if name in known}
            job = ServerlessJob(**{**raw, "faults": tuple(raw["faults"])})
            self.jobs[job.job_id] = job
            if job.ended_at is not None and time.time() - job.ended_at > KEPT_SECONDS[job.verb]:
                self.forget(job.job_id)

    def write(self, job: ServerlessJob) -> ServerlessJob:
        with self.lock:
            draft = self.folder / f"{job.job_id}.tmp"
            draft.write_text(json.dumps(asdict(job)))
            draft.rename(self.folder / f"{job.job_id}.json")
            self.jobs[job.job_id] = job
            return job

    def change(self, job_id: str, **facts: Any) -> ServerlessJob | None:
        """The job with these facts; None when it is gone, and as it was when it is over."""
        with self.lock:
            job = self.jobs.get(job_id)
            if job is None or job.is_over:
                return job
            return self.write(replace(job, **facts))

    def forget(self, job_id: str) -> None:
        with self.lock:
            self.jobs.pop(job_id, None)
            (self.folder / f"{job_id}.json").unlink(missing_ok=True)


class ServerlessPart:
    """A sandbox part; every endpoint id is served, and each has the same worker."""

    hosts = frozenset({SERVERLESS_HOST})

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._shelves = _Shelves(stage.folder / "runpod-serverless")
        self._posts: Counter[str] = Counter()
        self._is_ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def posts(self) -> dict[str, int]:
        with self._shelves.lock:
            return dict(self._posts)

    def start(self) -> None:
        self._shelves.load()
        for job in list(self._shelves.jobs.values()):
            if not job.is_over:
                self._begin(job)

    def stop(self) -> None:
        self._is_ended.set()
        for thread in self._threads:
            thread.join(10)

    def answer(self, request: Request) -> Reply:
        segments = request.segments
        if len(segments) not in (3, 4) or segments[0] != "v2":
            return _say(404, "404 page not found")
        if refused := _refuse_key(request, is_buying=segments[2] in ("run", "runsync")):
            return refused
        endpoint_id, verb, job_id = segments[1], segments[2], segments[3] if len(segments) == 4 else ""
        match request.method, verb, bool(job_id):
            case "POST", "run" | "runsync", False:
                return self._submit(request, endpoint_id, verb)
            case "GET", "status", True:
                return self._status(endpoint_id, job_id)
            case "POST", "cancel", True:
                return self._cancel(endpoint_id, job_id)
            case "GET", "health", False:
                return self._health(endpoint_id)
            case "POST", "purge-queue", False:
                return self._purge(endpoint_id)
            case _:
                return _say(404, "404 page not found")

    # --- what is asked ---

    def _submit(self, request: Request, endpoint_id: str, verb: str) -> Reply:
        with self._shelves.lock:
            self._posts[ENDPOINT] += 1
        raw = request.body.read(10_000_000 if verb == "run" else 20_000_000)
        fault = self._stage.faults.pick("submit", ENDPOINT)
        is_taken_anyway = fault is not None and fault.kind in ("drop_after_accept", "stall_after_accept", "malformed")
        if fault is not None and not is_taken_anyway:
            return _fault_answer(fault)
        try:
            body = json.loads(raw)
        except ValueError:
            return _say(400, "bad request: the body is not valid JSON")
        if problem := _problem_of(body):
            return _say(400, f"bad request: {problem}")
        policy = body.get("policy") or {}
        job = self._shelves.write(
            ServerlessJob(
                job_id=f"{uuid.uuid4()}-u1",
                endpoint_id=endpoint_id,
                input=body["input"],
                accepted_at=time.time(),
                policy={name: policy.get(name, default) / 1000 for name, (_, _, default) in POLICY_MS.items()},
                verb=verb,
                faults=tuple(drawn.text for drawn in self._stage.faults.pick_all("job", ENDPOINT)),
            )
        )
        self._begin(job)
        if fault is not None:
            # The worker has it before the answer is lost, so that a rehearsal does not hang on who is quicker.
            until = time.monotonic() + 2.0
            while self._is_waiting(job.job_id) and time.monotonic() < until:
                self._is_ended.wait(0.01)
            return _fault_answer(fault)
        if verb == "run":
            return Reply.of(200, {"id": job.job_id, "status": "IN_QUEUE"})
        until = time.monotonic() + SYNC_SECONDS
        while not self._is_ended.wait(0.02) and time.monotonic() < until:
            found = self._find(endpoint_id, job.job_id)
            if found is None or found.is_over:
                break
        return self._told(self._find(endpoint_id, job.job_id))

    def _status(self, endpoint_id: str, job_id: str) -> Reply:
        fault = self._stage.faults.pick("status", ENDPOINT)
        if fault is not None and fault.kind != "unknown_word":
            return _fault_answer(fault)
        job = self._find(endpoint_id, job_id)
        return self._told(job, word=None if fault is None else fault.argument or "PAUSED")

    def _cancel(self, endpoint_id: str, job_id: str) -> Reply:
        fault = self._stage.faults.pick("cancel", ENDPOINT)
        if fault is not None and fault.kind != "ignore":
            return _fault_answer(fault)
        job = self._find(endpoint_id, job_id)
        if job is None:
            return _say(404, "job not found")
        if fault is None:
            self._end(job, state="CANCELLED")
        return Reply.of(200, {"id": job.job_id, "status": "CANCELLED"})

    def _health(self, endpoint_id: str) -> Reply:
        words = Counter(self._word(job) for job in self._of(endpoint_id))
        jobs = {
            "completed": words["COMPLETED"],
            "failed": words["FAILED"] + words["TIMED_OUT"],
            "inProgress": words["IN_PROGRESS"],
            "inQueue": words["IN_QUEUE"],
            "retried": 0,
        }
        workers = {"idle": 1, "initializing": 0, "ready": 1, "running": words["IN_PROGRESS"], "throttled": 0}
        return Reply.of(200, {"jobs": jobs, "workers": {**workers, "unhealthy": 0}})

    def _purge(self, endpoint_id: str) -> Reply:
        waiting = [job for job in self._of(endpoint_id) if self._word(job) == "IN_QUEUE"]
        for job in waiting:
            self._end(job, state="CANCELLED")
        return Reply.of(200, {"removed": len(waiting), "status": "completed"})

    # --- what is known of a job ---

    def _of(self, endpoint_id: str) -> list[ServerlessJob]:
        with self._shelves.lock:
            return [job for job in self._shelves.jobs.values() if job.endpoint_id == endpoint_id]

    def _find(self, endpoint_id: str, job_id: str) -> ServerlessJob | None:
        """The job as it is now: deleted when its time to live is over, timed out when it works too long."""
        job = self._shelves.jobs.get(job_id) if _JOB_ID.fullmatch(job_id) else None
        if job is None or job.endpoint_id != endpoint_id:
            return None
        now = time.time()
        if job.ended_at is not None:
            is_kept = now - job.ended_at <= KEPT_SECONDS[job.verb]
            return job if is_kept else None
        if now - job.accepted_at > job.policy["ttl"]:
            self._end(job, state="EXPIRED")
            self._shelves.forget(job.job_id)
            return None
        work = self._work_of(job)
        if work is not None and work.started_at is not None and now - work.started_at > job.policy["executionTimeout"]:
            self._end(job, state="TIMED_OUT", error="job timed out after executionTimeout")
            return self._shelves.jobs.get(job_id)
        return job

    def _word(self, job: ServerlessJob) -> str:
        work = None if job.is_over else self._work_of(job)
        return job.state if work is None or work.phase is Phase.IN_QUEUE else "IN_PROGRESS"

    def _told(self, job: ServerlessJob | None, word: str | None = None) -> Reply:
        if job is None:
            return _say(404, "job not found")
        work = self._work_of(job)
        began = job.accepted_at if work is None or work.started_at is None else work.started_at
        answer: dict[str, Any] = {
            "id": job.job_id,
            "status": word or self._word(job),
            "delayTime": int(1000 * (began - job.accepted_at)),
        }
        if job.ended_at is not None:
            answer["executionTime"] = int(1000 * max(0.0, job.ended_at - began))
            if job.output is not None:
                answer["output"] = job.output
            if job.error is not None:
                answer["error"] = job.error
        return Reply.of(200, answer)

    def _work_of(self, job: ServerlessJob) -> Job | None:
        return self._stage.journal.find(job.work_id) if job.work_id is not None else None

    def _end(self, job: ServerlessJob, *, state: str, output: Any = None, error: str | None = None) -> None:
        self._shelves.change(job.job_id, state=state, output=output, error=error, ended_at=time.time())
        if state not in ("COMPLETED", "FAILED") and job.work_id is not None:
            self._stage.workshop.cancel(job.work_id)

    # --- the worker ---

    def _begin(self, job: ServerlessJob) -> None:
        thread = threading.Thread(target=self._carry_out, args=(job.job_id,), daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def _carry_out(self, job_id: str) -> None:
        """One job as our worker does it; the word on it stays queued until the workshop has begun."""
        job = self._shelves.jobs[job_id]
        try:
            values = at_this_server(check_input(job.input), self._stage.url())
        except WorkerRefused as refused:
            self._end(job, state="FAILED", error=_error_text(refused))
            return
        try:
            output = self._draw(job, values)
        except WorkerRefused as refused:
            told = {"code": refused.code, "message": refused.message}
            put_status(values["status_url"], {"job_id": job_id, "state": "failed", "error": told})
            self._end(job, state="FAILED", error=_error_text(refused))
            return
        if output is None:
            return  # stopped, or the server is ending and takes it up again
        put_status(values["status_url"], {"job_id": job_id, "state": "completed", "output": output})
        self._end(job, state="COMPLETED", output=output)

    def _draw(self, job: ServerlessJob, values: dict[str, Any]) -> dict[str, Any] | None:
        put_status(values["status_url"], {"job_id": job.job_id, "state": "running"})
        if job.work_id is None:
            work = self._stage.journal.accept(
                "neutral/still", neutral_still(values, self._stage.shelf), faults=job.faults
            )
            changed = self._shelves.change(job.job_id, work_id=work.request_id)
            if changed is None or changed.is_over:
                return None
            job = changed
            self._stage.workshop.add(work)
        assert job.work_id is not None
        done = self._stage.workshop.wait(job.work_id, lambda: self._is_ended.is_set() or self._is_stopped(job.job_id))
        if done is None or done.outcome is None or self._is_stopped(job.job_id):
            return None
        if done.outcome.error is not None:
            raise WorkerRefused("worker_failed", done.outcome.error)
        output = {"box": values["box"], "width": values["width"], "height": values["height"], "seed": values["seed"]}
        images = done.outcome.body["images"]
        if not images:
            return output
        stored = self._stage.shelf.find_url(images[0]["url"])
        picture = self._stage.shelf.path(stored).read_bytes() if stored is not None else None
        if picture is not None and stored is not None:
            put(values["put_url"], picture[: len(picture) // 2] if stored.is_truncated else picture, "image/png")
        known = picture or b"what was put is gone"
        return {**output, "sha256": hashlib.sha256(known).hexdigest(), "size_bytes": len(known)}

    def _is_waiting(self, job_id: str) -> bool:
        """Whether no worker has begun it yet."""
        job = self._shelves.jobs.get(job_id)
        return job is not None and job.work_id is None and not job.is_over and not self._is_ended.is_set()

    def _is_stopped(self, job_id: str) -> bool:
        job = self._shelves.jobs.get(job_id)
        found = None if job is None else self._find(job.endpoint_id, job_id)
        return found is None or found.is_over


def _problem_of(body: Any) -> str | None:
    if not isinstance(body, dict) or "input" not in body:
        return "input is missing"
    if unknown := sorted(set(body) - BODY_FIELDS):
        return f"unknown field {unknown[0]!r}"
    policy = body.get("policy") or {}
    if not isinstance(policy, dict) or set(policy) - {*POLICY_MS, "lowPriority"}:
        return "policy has unknown fields"
    for name, (least, most, default) in POLICY_MS.items():
        value = policy.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            return f"policy.{name} must be between {least} and {most} ms"
    return None


def _refuse_key(request: Request, *, is_buying: bool) -> Reply | None:
    word, _, key = (request.header("Authorization") or "").partition(" ")
    if word.lower() != "bearer" or not key or key.startswith("invalid"):
        return _say(401, "unauthorized")
    if is_buying and key.startswith("locked"):
        return _say(402, "insufficient balance")
    return None


def _fault_answer(fault: Fault) -> Reply:
    """A fault in RunPod's words; gateways' pages, silences and dropped connections are the same everywhere."""
    match fault.kind:
        case "refuse":
            status = int((fault.argument or "400").partition("/")[0])
            return _say(status, f"refused on purpose by the sandbox: {fault.text}")
        case "lock":
            return _say(402, "insufficient balance")
        case "vanish":
            return _say(404, "job not found")
        case "malformed":
            return Reply(200, {"Content-Type": "application/json"}, b'{"id": "6f0c", "stat')
        case "rate_limit":
            return Reply.of(429, {"error": "too many requests"}, {"Retry-After": f"{fault.number(1):g}"})
        case "rate_limit_body":
            return Reply.of(429, {"error": "too many requests", "retry_after": fault.number(1)})
        case _:
            return answer_of(fault)


def _say(status: int, error: str) -> Reply:
    return Reply.of(status, {"error": error})


def _error_text(refused: WorkerRefused) -> str:
    """As RunPod hands on what a handler returned under `error`."""
    return json.dumps({"code": refused.code, "message": refused.message})
