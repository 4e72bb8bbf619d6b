"""What the worker is told: a job as a record, and how it and the program get onto a machine of which we hold nothing.

The worker itself (worker.py) knows no record of ours: it reads this one's JSON.
"""

from __future__ import annotations

import ast
import base64
import gzip
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from domain.records import Record

PARTS = ("logs", "worker_files", "worker_web", "worker_machine")
"""The files whose text goes before the worker's, each after those it imports."""

LONGEST_VARIABLE = 100_000
"""Linux takes no argument and no variable over 128 KiB (MAX_ARG_STRLEN, execve(2)); with room for what is around it."""


class JobData(Record):
    """The training set: a zip at a link, a file:// link or a path, and where it is unpacked."""

    url: str
    sha256: str
    folder: str


class JobFile(Record):
    """A text that is written before anything runs."""

    path: str
    text: str


class JobCommand(Record):
    """A program to run to its end, in `folder`; `is_training` marks the one whose bar and whose trouble count."""

    name: str
    argv: tuple[str, ...]
    folder: str | None = None
    is_training: bool = False
    timeout_seconds: int | None = None
    env: dict[str, str] = Field(default_factory=dict)


class JobResult(Record):
    """A file the trainer leaves, by its role and a glob of which the newest counts, and where it is to be put."""

    role: str
    glob: str
    is_required: bool = True
    url: str


class WorkerJob(Record):
    """Everything the worker needs. Links and paths alike; `deadline` is seconds since 1970 (UTC), None for no end.

    `status_url` and `log_url` are written to, `status_read_url` is where an earlier start's status is read back; it is
    told as `WorkerStatus`, every `heartbeat_seconds`.
    """

    job: str
    dataset: JobData
    work_folder: str
    files: tuple[JobFile, ...] = ()
    commands: tuple[JobCommand, ...]
    results: tuple[JobResult, ...]
    status_url: str
    status_read_url: str | None = None
    log_url: str
    deadline: int | None = None
    heartbeat_seconds: float = 30.0
    total_steps: int | None = None


class StatusFile(Record):
    """A file that was put where the job said, by its role there."""

    role: str
    name: Annotated[str, Field(max_length=300)]
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class WorkerStatus(Record, extra="ignore"):
    """What the worker tells of a job; a machine's word, and nothing more. Times are seconds since 1970.

    `state`: running, done, failed or cancelled; the last three are final. `starts` counts how often the machine began.
    """

    job: str
    state: str
    phase: Annotated[str, Field(max_length=200)] = ""
    at: float
    began_at: float = 0.0
    starts: int = 1
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    seconds_left: float | None = None
    gpu_percent: float | None = None
    gpu_memory_mb: float | None = None
    reason: str | None = None
    finished_at: float | None = None
    files: tuple[StatusFile, ...] = ()

    @property
    def is_final(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


def read_status(data: bytes | None) -> WorkerStatus | None:
    """The status in these bytes; None where there are none, or nothing that can be read."""
    if data is None:
        return None
    try:
        return WorkerStatus.model_validate_json(data)
    except ValueError:
        return None


@cache
def worker_source() -> str:
    """The worker and its parts as one Python file that imports the standard library alone."""
    folder = Path(__file__).parent
    texts = [(folder / f"{name}.py").read_text("utf-8") for name in (*PARTS, "worker")]
    return "from __future__ import annotations\n\n" + "\n\n".join(_body_of(text) for text in texts)


@cache
def pod_command() -> str:
    """A container's start command that unpacks the worker and becomes it; the job comes by `packed`.

    It holds no quote but the two outer ones, no backslash and no line break, so that a shell and shlex read it alike:
    which of the two reads a pod's `args` is not documented (runpod_trainers.md 7).
    """
    source = base64.b64encode(gzip.compress(worker_source().encode(), mtime=0)).decode()
    place = "${TMPDIR:-/tmp}/onmodel_worker.py"
    return f"bash -c 'echo {source} | base64 -d | gzip -d > {place} && exec python3 {place}'"


def packed(job: WorkerJob) -> str:
    """The job as the variable ONMODEL_JOB carries it; `ValueError` when it is too long for one."""
    text = base64.b64encode(gzip.compress(job.model_dump_json().encode(), mtime=0)).decode()
    if len(text) > LONGEST_VARIABLE:
        raise ValueError(f"the job takes {len(text)} characters, and a variable at most {LONGEST_VARIABLE}")
    return text


def _body_of(text: str) -> str:
    """A file's text without what only a file of its own needs: its docstring, and imports of the other parts."""
    lines = text.splitlines()
    for node in ast.parse(text).body:
        is_docstring = node.lineno == 1 and isinstance(node, ast.Expr)
        is_ours = isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("providers", "__future__")
        if is_docstring or is_ours:
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return "\n".join(lines).strip() + "\n"
