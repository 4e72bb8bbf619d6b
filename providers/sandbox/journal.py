"""The sandbox's jobs on disk, so that killing the server loses none of them.

`jobs/{request_id}.json` is replaced as a whole at every change, `jobs/{request_id}.log` grows by JSON lines. A job that
was running when the server died is queued again at the next start. One server writes a journal at a time.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any


class Phase(StrEnum):
    """fal's three words. There is no word for failure: a failed job is COMPLETED too (reference 1.4)."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the status and body that its result address answers with. `error` is None when it went well."""

    status: int
    body: Any
    error: str | None = None
    error_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return len(json.dumps(self.body))


@dataclass(frozen=True)
class Job:
    """One accepted request. Times are Unix seconds; `faults` are the rules drawn when it was accepted."""

    request_id: str
    endpoint: str
    input: Any
    accepted_at: float
    is_low_priority: bool = False
    start_within_seconds: float | None = None
    faults: tuple[str, ...] = ()
    phase: Phase = Phase.IN_QUEUE
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    outcome: Outcome | None = None

    @property
    def app(self) -> str:
        return "/".join(self.endpoint.split("/")[:2])


class Journal:
    """All jobs the sandbox knows, in the order of their acceptance."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in root.glob("*.json"):
            job = _from_json(json.loads(path.read_text()))
            self._jobs[job.request_id] = job
        self._jobs = dict(sorted(self._jobs.items(), key=lambda item: item[1].accepted_at))

    def accept(self, endpoint: str, body: Any, **facts: Any) -> Job:
        """A new job, on disk when this returns."""
        job = Job(request_id=str(uuid.uuid4()), endpoint=endpoint, input=body, accepted_at=time.time(), **facts)
        with self._lock:
            self._write(job)
        return job

    def start(self, request_id: str) -> Job:
        """The job begins, or begins again."""
        with self._lock:
            job = self._jobs[request_id]
            job = replace(job, phase=Phase.IN_PROGRESS, started_at=time.time(), attempts=job.attempts + 1)
            self._write(job)
            return job

    def finish(self, request_id: str, outcome: Outcome) -> Job:
        """The job is over; a job that already is keeps its first outcome."""
        with self._lock:
            job = self._jobs[request_id]
            if job.phase is not Phase.COMPLETED:
                job = replace(job, phase=Phase.COMPLETED, ended_at=time.time(), outcome=outcome)
                self._write(job)
            return job

    def requeue_interrupted(self) -> list[Job]:
        """Queue again what was running when the last server died; every job that waits now, in order."""
        with self._lock:
            for job in list(self._jobs.values()):
                if job.phase is Phase.IN_PROGRESS:
                    self._write(replace(job, phase=Phase.IN_QUEUE, started_at=None))
                    self.log(job.request_id, "The runner was lost; the request was queued again", "WARN")
            return [job for job in self._jobs.values() if job.phase is Phase.IN_QUEUE]

    def find(self, request_id: str) -> Job | None:
        with self._lock:
            return self._jobs.get(request_id)

    def all_jobs(self) -> list[Job]:
        with self._lock:
            return list(self._jobs.values())

    def accepted(self) -> dict[str, int]:
        """How many jobs each endpoint has accepted, earlier servers included."""
        return dict(Counter(job.endpoint for job in self.all_jobs()))

    def log(self, request_id: str, message: str, level: str = "INFO") -> None:
        entry = {"message": message, "timestamp": datetime.now(UTC).isoformat(), "level": level, "source": "USER"}
        with (self._root / f"{request_id}.log").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def logs(self, request_id: str) -> list[dict[str, str]]:
        """fal's log entries. A line that a dying server left unfinished is passed over."""
        try:
            lines = (self._root / f"{request_id}.log").read_text().split("\n")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def forget(self, ended_before: float) -> int:
        """Drop jobs that ended before this time (Unix seconds); how many went."""
        with self._lock:
            old = [job for job in self._jobs.values() if job.ended_at is not None and job.ended_at < ended_before]
            for job in old:
                del self._jobs[job.request_id]
                (self._root / f"{job.request_id}.json").unlink(missing_ok=True)
                (self._root / f"{job.request_id}.log").unlink(missing_ok=True)
            return len(old)

    def _write(self, job: Job) -> None:
        path = self._root / f"{job.request_id}.json"
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(job)))
        draft.rename(path)
        self._jobs[job.request_id] = job


def _from_json(raw: dict[str, Any]) -> Job:
    # A newer or older OnModel may have written it: what this one does not know is left out.
    raw = {name: value for name, value in raw.items() if name in {known.name for known in fields(Job)}}
    outcome = raw.pop("outcome")
    raw["phase"] = Phase(raw["phase"])
    raw["faults"] = tuple(raw["faults"])
    return Job(**raw, outcome=None if outcome is None else Outcome(**outcome))
