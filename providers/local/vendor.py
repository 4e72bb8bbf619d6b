"""One's own GPU as a vendor: a job is a folder and the processes it names, with no money and the same ledger."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from domain.errors import BadInput, JobFailed, NotConfigured, Rejected, ResultExpired, Unavailable
from domain.jobs import (
    BlobRef,
    JobOutput,
    JobStatus,
    OutputFile,
    TrainingProgress,
    VendorJobIds,
    VendorRequest,
    VendorState,
)
from domain.model_rules import TrainerKind
from domain.registry import Registry
from domain.submissions import AbsenceRule, Finding, LookUp, Submission
from providers.local import supervisor
from providers.local.orders import LOG, Workplace, fill_folder, gpu_request, read_order, trainers_environment
from providers.settings import TRAINER_HOME_VARIABLES
from providers.trainers.worker_job import WorkerJob, WorkerStatus, read_status
from providers.vendor_ports import Ping, TrainingOrder

MARK = re.compile(r"[0-9a-f-]{10,60}")
"""`Submission.mark`, which names a job's folder: nothing else may stand in a path."""

NOTHING = Decimal(0)
CANCEL_SECONDS = 15.0
"""How long a worker has to end its trainer and keep the log; then whatever is left is killed. Ours."""

START_SECONDS = 30.0
STATE_OF = {"done": VendorState.DONE, "failed": VendorState.FAILED, "cancelled": VendorState.CANCELLED}


class LocalVendor:
    """`LoraTrainer` and `JobVendor` over this machine's own GPU, one training at a time; others wait.

    `folder` is the place of all jobs, `trainer_homes` where the programs are installed, `python` runs them (their own
    virtual environment's, usually). A job goes on when this process ends, and any other process of this machine takes
    it up by its folder. `gpu_lock` is held by who trains: name one file for all OnModels that share a GPU. `environ` is
    what the programs get, by default this process's without keys of ours. Safe to share between threads.
    """

    charges_failures = False

    absence = AbsenceRule(
        can_prove=True,
        reason=(
            "A job of this machine is a folder that appears whole and under the submission's own name: a name that is "
            "not there after the submit is over was never taken."
        ),
        looks=2,
        after_seconds=START_SECONDS + 5,
        seconds_apart=1.0,
    )

    def __init__(
        self,
        folder: Path,
        registry: Registry,
        *,
        trainer_homes: Mapping[TrainerKind, Path],
        python: Path | None = None,
        name: str = "local",
        gpu_lock: Path | None = None,
        environ: Mapping[str, str] | None = None,
        heartbeat_seconds: float = 5.0,
    ) -> None:
        self.vendor = name
        self._registry = registry
        self._place = Workplace(
            folder=folder.absolute(), homes=dict(trainer_homes), python=python, heartbeat_seconds=heartbeat_seconds
        )
        self._gpu_lock = gpu_lock or self._place.folder / "gpu.lock"
        self._environ = dict(environ) if environ is not None else trainers_environment(os.environ)
        if python is not None:  # its neighbours are what a trainer calls by name, accelerate for one
            self._environ["PATH"] = os.pathsep.join((str(python.parent), self._environ.get("PATH", os.defpath)))

    def __repr__(self) -> str:
        return f"LocalVendor({str(self._place.folder)!r}, name={self.vendor!r})"

    def training_request(self, order: TrainingOrder) -> VendorRequest:
        """As `LoraTrainer`, for trainers that are a program; `NotConfigured` names the variable of one not set up."""
        return gpu_request(self._registry, order, self.vendor, self._place)

    # --- the queue ---

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """Put the job's folder in its place, in one step, and start its supervisor; as `JobQueue`, and free.

        Repeating it for the same submission finds the folder there. A supervisor that could not be started now is
        started by the next look.
        """
        order = read_order(request)
        try:
            dataset = Path(submission.url_of[order.dataset.sha256])
        except KeyError:
            raise Rejected(f"The file {order.dataset.file_name} has no path: it cannot be trained on.") from None
        folder = self._folder(submission.mark)
        draft = self._place.jobs / f".draft-{secrets.token_hex(6)}"
        try:
            draft.mkdir(parents=True, mode=0o700)
            fill_folder(draft, folder, self._registry, order, dataset, self._place)
            with contextlib.suppress(FileExistsError):
                if not folder.exists():
                    draft.rename(folder)
        except OSError as error:
            raise NotConfigured(
                f"The training cannot be put into {self._place.jobs} ({error.strerror}): make the folder writable, "
                "with room for a base model and a LoRA."
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        with contextlib.suppress(Unavailable):
            self._start(folder)
        return VendorJobIds(request_id=submission.mark)

    def look_up(
        self,
        request: VendorRequest,  # noqa: ARG002 (the mark tells everything)
        submission: Submission,
        known_ids: frozenset[str],  # noqa: ARG002 (no other job has this mark)
    ) -> LookUp:
        """Whether the job's folder is there; as `JobQueue`."""
        mark = submission.mark
        if self._folder(mark).exists():
            ids = VendorJobIds(request_id=mark)
            return LookUp(finding=Finding.FOUND, detail=f"This machine has the job {mark}.", ids=ids)
        return LookUp(finding=Finding.ABSENT, detail=f"There is no job {mark} in {self._place.jobs}.")

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:  # noqa: ARG002 (the id is enough)
        """As `JobQueue`. A job whose supervisor died is killed whole and has failed; one never begun is begun now."""
        folder = self._folder(ids.request_id)
        if not folder.exists():
            return JobStatus(state=VendorState.GONE, message="its folder is gone")
        # In this order: what was begun and does not live has said its last word, or died without one.
        was_begun = (folder / supervisor.PROCESS).exists()
        is_alive = supervisor.is_running(folder)
        if not is_alive and self._end_of(folder)[0] is None:
            if not was_begun:
                self._start(folder)
                return JobStatus(state=VendorState.QUEUED, message="it is begun")
            supervisor.conclude(folder, "Its processes ended without a word: killed, or the machine was started anew.")
        state, reason = self._end_of(folder)
        if state is not None:
            return JobStatus(state=state, progress=1.0 if state is VendorState.DONE else None, message=reason)
        told = read_status(_bytes_of(folder / supervisor.STATUS))
        if told is None:
            return JobStatus(state=VendorState.QUEUED, queue_position=self._before(folder), message="waits for the GPU")
        return _running(told)

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:  # noqa: ARG002 (the id is enough)
        """The files that the trainer left, on this disk, by `file:` addresses with their SHA-256; as `JobQueue`."""
        folder, job = self._folder(ids.request_id), f"The training {ids.request_id}"
        if not folder.exists():
            raise ResultExpired(f"{job} has no folder in {self._place.jobs} any more: it was deleted by hand.")
        state, reason = self._end_of(folder)
        if state is None:
            raise Unavailable(f"{job} is not over yet; it can be asked again.")
        if state is not VendorState.DONE:
            raise JobFailed(f"{job} ended without a LoRA: {reason}", billed_usd=NOTHING)
        told = read_status(_bytes_of(folder / supervisor.STATUS))
        if told is None or not any(file.role == "lora" for file in told.files):
            raise JobFailed(f"{job} is called done, but its status names no LoRA.", billed_usd=NOTHING)
        place_of = self._places(folder)
        files = tuple(
            OutputFile(
                role=file.role,
                url=f"{place_of[file.role].as_uri()}#{file.sha256}",
                file_name=place_of[file.role].name,
                size_bytes=file.size_bytes,
            )
            for file in told.files
            if file.role in place_of
        )
        return JobOutput(files=files, billed_usd=NOTHING)

    def cancel(self, request: VendorRequest, ids: VendorJobIds) -> None:  # noqa: ARG002 (the id is enough)
        """End everything that belongs to the job and return when it is over, within 15 s; as `JobQueue`."""
        folder = self._folder(ids.request_id)
        if not folder.exists() or self._end_of(folder)[0] is not None:
            return
        (folder / supervisor.CANCELLED).touch()
        until = time.monotonic() + CANCEL_SECONDS
        ask_at = 0.0
        while supervisor.is_running(folder) and (now := time.monotonic()) < until:
            # Asked again each second: a signal that another thread of the worker gets does not wake its main one.
            if now >= ask_at and self._ask_to_end(folder):
                ask_at = now + 1.0
            time.sleep(0.05)
        supervisor.kill_job(folder.name)
        supervisor.write_end(folder, "cancelled", "It was stopped.")

    def ping(self) -> Ping:
        """Whether a trainer is set up here; free."""
        ready, missing = [], []
        for program in TRAINER_HOME_VARIABLES:
            try:
                self._place.home_of(program)
                ready.append(str(program))
            except NotConfigured as error:
                missing.append(error.message)
        if ready:
            return Ping(is_ready=True, detail=f"{self.vendor}: {', '.join(ready)} can train on this machine")
        return Ping(is_ready=False, detail=missing[0])

    # --- files ---

    def upload(self, path: Path, ref: BlobRef) -> str:  # noqa: ARG002 (the path is enough)
        """The file's own path: it is on this machine already."""
        return str(path.absolute())

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """Copy a result into a stream, held to the SHA-256 that the worker wrote down; as `FileHost`."""
        parts = urlsplit(file.url)
        path = Path(unquote(parts.path))
        if parts.scheme != "file" or not path.resolve().is_relative_to(self._place.jobs.resolve()):
            raise JobFailed(f"The address of the {file.role} is in no job of this machine: it is not read.")
        start, digest = into.tell(), hashlib.sha256()
        try:
            with path.open("rb") as source:
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    into.write(chunk)
        except FileNotFoundError:
            raise ResultExpired(f"The {file.role} is gone from {path}: it was deleted by hand.") from None
        except OSError as error:
            raise Unavailable(f"The {file.role} cannot be read from {path} ({error.strerror}); try again.") from error
        if digest.hexdigest() != parts.fragment:
            into.seek(start)
            into.truncate()
            raise JobFailed(f"The {file.role} at {path} is not the file that was trained: somebody changed it.")

    # --- a job's folder ---

    def _folder(self, mark: str) -> Path:
        if MARK.fullmatch(mark) is None:
            raise BadInput(f"{mark[:80]!r} is no id of a job on this machine: they are digits, a to f and hyphens.")
        return self._place.jobs / mark

    def _start(self, folder: Path) -> None:
        """Start a supervisor, which leaves us at once; a second one for the same folder ends by itself."""
        command = [sys.executable, supervisor.__file__, "--detach", str(folder), str(self._gpu_lock)]
        try:
            subprocess.run(
                command,
                env={**self._environ, supervisor.MARK_VARIABLE: folder.name},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=START_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"The training {folder.name} could not be begun ({type(error).__name__}).") from error

    def _end_of(self, folder: Path) -> tuple[VendorState | None, str | None]:
        """How the job ended and why, if it has."""
        told = supervisor.read_json(folder / supervisor.END)
        reason = told.get("reason")
        return STATE_OF.get(str(told.get("state"))), str(reason)[:500] if reason else None

    def _ask_to_end(self, folder: Path) -> bool:
        """SIGTERM to the supervisor, whose id is its own as long as its lock is held."""
        pid = supervisor.read_json(folder / supervisor.PROCESS).get("pid")
        if not isinstance(pid, int) or not supervisor.is_running(folder):
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
        return True

    def _before(self, folder: Path) -> int:
        """How many other jobs wait or train that are older."""
        began = (folder / supervisor.JOB).stat().st_mtime_ns
        older = 0
        for other in self._place.jobs.iterdir():
            with contextlib.suppress(OSError):
                is_open = MARK.fullmatch(other.name) and not (other / supervisor.END).exists()
                older += bool(is_open and (other / supervisor.JOB).stat().st_mtime_ns < began)
        return older

    @staticmethod
    def _places(folder: Path) -> dict[str, Path]:
        """Where each role's file lies: in our own order, never in what a worker says."""
        job = WorkerJob.model_validate_json((folder / supervisor.JOB).read_text("utf-8"))
        return {**{result.role: Path(result.url) for result in job.results}, "log": folder / LOG}


def _running(told: WorkerStatus) -> JobStatus:
    step, total = told.step, told.total_steps
    training = None
    if step is not None and total:
        training = TrainingProgress(step=step, total_steps=total, loss=told.loss, seconds_left=told.seconds_left)
    share = min(step / total, 1.0) if step is not None and total else None
    return JobStatus(state=VendorState.RUNNING, progress=share, message=told.phase or None, training=training)


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
