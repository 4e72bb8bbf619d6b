"""Runs the sandbox's jobs: a queue in fal's order, as many at a time as an account may, each in a runner process.

As at fal, inputs are judged when a job runs and not when it is accepted, so a wrong one ends COMPLETED with a 422.
"""

from __future__ import annotations

import base64
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domain.errors import BadInput
from providers.sandbox.faults import Fault, parse_faults, status_and_type
from providers.sandbox.journal import Job, Journal, Outcome, Phase
from providers.sandbox.runner_process import Runner, RunnerLost
from providers.sandbox.schemas import check_input, issue, load_catalogue
from providers.sandbox.shelf import Shelf

LOST_RUNNERS_ALLOWED = 2
CANCELLED = Outcome(
    status=499,
    body={"detail": "Request was cancelled", "error_type": "client_cancelled"},
    error="Request was cancelled",
    error_type="client_cancelled",
    headers={"X-Fal-Error-Type": "client_cancelled"},
)
WORK_KINDS = ("train", "still", "image_video", "elements", "text_video", "caption", "neutral_still", "neutral_video")


@dataclass(frozen=True)
class WorkOptions:
    """How jobs run: at most `concurrency` at once (and never more than cores), each at least `latency_seconds` long.

    2 is what fal allows a new account (reference 1.9). `engine` names the package that does the work; clips are made
    no higher than `max_video_height` pixels whatever their model promises, because this is a rehearsal on a CPU.
    """

    engine: str = "providers.sandbox.engine"
    concurrency: int = 2
    latency_seconds: Mapping[str, float] = field(default_factory=dict)
    max_video_height: int = 720


def parse_latency(text: str) -> dict[str, float]:
    """`"2"` (seconds for everything) or `"train=8,still=0.5"`. `BadInput` for anything else."""
    found: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        kind, equals, seconds = part.rpartition("=")
        try:
            value = float(seconds)
        except ValueError:
            value = -1.0
        if value < 0 or (equals and kind not in WORK_KINDS):
            raise BadInput(f"The latency {part!r} cannot be read: write seconds, or one of {WORK_KINDS} = seconds.")
        found.update({kind: value} if equals else dict.fromkeys(WORK_KINDS, value))
    return found


class Workshop:
    """The queue and its workers."""

    def __init__(self, journal: Journal, shelf: Shelf, scratch: Path, options: WorkOptions) -> None:
        self._journal = journal
        self._shelf = shelf
        self._scratch = scratch
        self._options = options
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._running: dict[str, Runner] = {}
        self._cancelled: set[str] = set()
        self._is_stopping = False
        cores = os.cpu_count() or 1
        self._threads: list[threading.Thread] = []
        self._runners = [
            Runner(options.engine, max(1, cores // options.concurrency)) for _ in range(min(options.concurrency, cores))
        ]

    def start(self) -> None:
        """Take up what an earlier server left, then whatever comes."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True, mode=0o700)
        for job in self._journal.requeue_interrupted():
            self.add(job)
        for runner in self._runners:
            thread = threading.Thread(target=self._work, args=(runner,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the runners now; unfinished jobs stay in the journal and run again at the next start."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for runner in self._runners:
            runner.kill_quietly()
        for thread in self._threads:
            thread.join(10)
        for runner in self._runners:
            runner.kill_quietly()

    def add(self, job: Job) -> None:
        with self._changed:
            self._waiting.append(job)
            self._waiting.sort(key=lambda waiting: waiting.is_low_priority)
            self._changed.notify_all()

    def position(self, request_id: str) -> int:
        """How many jobs stand before this one, 0 for the next."""
        with self._changed:
            return next((n for n, job in enumerate(self._waiting) if job.request_id == request_id), 0)

    def is_busy(self) -> bool:
        with self._changed:
            return bool(self._running) or any(not faults_of(job, "stay_queued") for job in self._waiting)

    def wait(self, request_id: str, give_up: Callable[[], bool]) -> Job | None:
        """The job once it is over; None when it is unknown or `give_up` says so (asked a few times a second)."""
        while not give_up():
            job = self._journal.find(request_id)
            if job is None or job.phase is Phase.COMPLETED:
                return job
            with self._changed:
                self._changed.wait(0.2)
        return None

    def cancel(self, request_id: str) -> bool:
        """Stop a job that waits or runs; False when it is already over."""
        with self._changed:
            job = self._journal.find(request_id)
            if job is None or job.phase is Phase.COMPLETED:
                return False
            self._cancelled.add(request_id)
            self._waiting = [waiting for waiting in self._waiting if waiting.request_id != request_id]
            runner = self._running.get(request_id)
            self._journal.finish(request_id, CANCELLED)
            self._changed.notify_all()
        if runner is not None:
            runner.kill_quietly()
        return True

    def _work(self, runner: Runner) -> None:
        while (job := self._next_job(runner)) is not None:
            outcome = self._run(job, runner)
            with self._changed:
                del self._running[job.request_id]
                if outcome is not None:
                    self._journal.finish(job.request_id, outcome)
                self._changed.notify_all()

    def _next_job(self, runner: Runner) -> Job | None:
        with self._changed:
            while not self._is_stopping:
                ready = next((job for job in self._waiting if not faults_of(job, "stay_queued")), None)
                if ready is None:
                    self._changed.wait()
                    continue
                self._waiting.remove(ready)
                waited = time.time() - ready.accepted_at
                if ready.start_within_seconds is not None and waited > ready.start_within_seconds:
                    self._journal.finish(ready.request_id, _started_too_late())
                    self._changed.notify_all()
                    continue
                job = self._journal.start(ready.request_id)
                # It holds no runner: two such jobs would otherwise stop the whole rehearsal.
                if not faults_of(job, "never_ends"):
                    self._running[job.request_id] = runner
                    return job
            return None

    def _run(self, job: Job, runner: Runner) -> Outcome | None:
        """The job's outcome; None when the server is stopping, so that it runs again at the next start."""
        endpoint = load_catalogue().endpoints.get(job.endpoint)
        if endpoint is None:
            path = "/" + "/".join(job.endpoint.split("/")[2:])
            return Outcome(404, {"detail": f"Path {path} not found"}, f"Path {path} not found")
        if fail := faults_of(job, "fail"):
            return _failure_on_purpose(fail[0])
        values, issues = check_input(endpoint, job.input)
        if issues:
            return Outcome(422, {"detail": issues}, issues[0]["msg"])
        began = time.monotonic()
        folder = self._scratch / f"{job.request_id}-{time.monotonic_ns()}"
        folder.mkdir()
        try:
            answer = self._carry_out(job, values, runner, folder)
            return None if answer is None else self._conclude(job, values, answer, time.monotonic() - began)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _conclude(
        self, job: Job, values: dict[str, Any], answer: dict[str, Any], took_seconds: float
    ) -> Outcome | None:
        kind = load_catalogue().endpoints[job.endpoint].work["kind"]
        slow = sum(fault.number(5) for fault in faults_of(job, "slow"))
        if not self._pause(job, self._options.latency_seconds.get(kind, 0.0) + slow - took_seconds):
            return None
        if "failed" in answer:
            failed = answer["failed"]
            body = {"detail": failed["detail"]} | (
                {"error_type": failed["error_type"]} if failed.get("error_type") else {}
            )
            return Outcome(failed["status"], body, failed["error"], failed.get("error_type"))
        return Outcome(200, self._shelve(job, values, answer))

    def _carry_out(self, job: Job, values: dict[str, Any], runner: Runner, folder: Path) -> dict[str, Any] | None:
        order = {
            "endpoint": job.endpoint,
            "input": values,
            "ignored": [fault.argument or "loras" for fault in faults_of(job, "ignore")],
            "is_flagged": bool(faults_of(job, "nsfw")),
            "max_video_height": self._options.max_video_height,
            "folder": str(folder),
            "shelf": str(self._shelf.root),
        }
        for _ in range(LOST_RUNNERS_ALLOWED):
            try:
                return runner.carry_out(order, lambda line: self._journal.log(job.request_id, line))
            except RunnerLost:
                if self._is_stopping or job.request_id in self._cancelled:
                    return None
                self._journal.log(job.request_id, "The runner was lost", "ERROR")
        return {
            "failed": {
                "status": 503,
                "detail": "Runner disconnected",
                "error": "Runner disconnected",
                "error_type": "runner_disconnected",
            }
        }

    def _pause(self, job: Job, seconds: float) -> bool:
        """Let simulated time pass; False when the job was cancelled or the server stops meanwhile."""
        until = time.monotonic() + seconds
        with self._changed:
            while not self._is_stopping and job.request_id not in self._cancelled:
                left = until - time.monotonic()
                if left <= 0:
                    return True
                self._changed.wait(left)
        return False

    def _shelve(self, job: Job, values: dict[str, Any], answer: dict[str, Any]) -> Any:
        """Put the files where clients can fetch them and write their addresses into the result."""
        if faults_of(job, "no_file"):
            files: list[Any] = []
        elif values.get("sync_mode"):
            files = [_inline(made) for made in answer["files"]]
        else:
            files = [self._shelve_one(job, made) for made in answer["files"]]

        def fill(value: Any) -> Any:
            if isinstance(value, dict):
                if set(value) == {"$file"}:
                    return files[value["$file"]] if files else None
                return {name: fill(inner) for name, inner in value.items()}
            if isinstance(value, list):
                return [filled for inner in value if (filled := fill(inner)) is not None]
            return value

        done = fill(answer["done"])
        if faults_of(job, "no_file") and "output" in done:
            done["output"] = ""  # a captioner's answer has no file, and its words are what can be missing
        return done

    def _shelve_one(self, job: Job, made: dict[str, Any]) -> dict[str, Any]:
        stored = self._shelf.put(
            Path(made["path"]),
            made["name"],
            made["content_type"],
            made_by=job.endpoint,
            is_truncated=bool(faults_of(job, "truncate")),
            is_expired=bool(faults_of(job, "expire")),
        )
        facts = {"url": stored.url(), "content_type": stored.content_type, "file_name": stored.name}
        return {**facts, "file_size": stored.size_bytes, **made["facts"]}


def faults_of(job: Job, kind: str) -> tuple[Fault, ...]:
    """The faults of this kind that were drawn for the job."""
    return tuple(fault for text in job.faults for fault in parse_faults(text) if fault.kind == kind)


def _inline(made: dict[str, Any]) -> dict[str, Any]:
    data = base64.b64encode(Path(made["path"]).read_bytes()).decode()
    return {"url": f"data:{made['content_type']};base64,{data}", "content_type": made["content_type"], **made["facts"]}


def _failure_on_purpose(fault: Fault) -> Outcome:
    status, error_type = status_and_type(fault, 500)
    if status == 422:
        msg = f"Failed on purpose by the sandbox: {fault.text}"
        return Outcome(422, {"detail": [issue(["body", "prompt"], error_type or "value_error", msg)]}, msg)
    kind = error_type or "runner_server_error"
    body = {"detail": f"Failed on purpose by the sandbox: {fault.text}", "error_type": kind}
    return Outcome(status, body, body["detail"], kind, {"X-Fal-Error-Type": kind})


def _started_too_late() -> Outcome:
    body = {"detail": "Request timed out before a runner could start it", "error_type": "request_timeout"}
    headers = {"X-Fal-Error-Type": "request_timeout", "X-Fal-Request-Timeout-Type": "user"}
    return Outcome(504, body, body["detail"], "request_timeout", headers)
