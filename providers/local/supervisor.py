"""The process beside a training on this machine: waits for the GPU, runs the worker, writes down how it ended.

Standard library alone, run by its path: `python supervisor.py --detach FOLDER GPU_LOCK`. It leaves whoever started it
(a session of its own, no parent), so that a training goes on when OnModel ends, and any process finds it by its folder:

    run.lock      held as long as a supervisor or its worker lives; who can take it knows that they are dead
    process.json  the supervisor's id
    cancelled     somebody asked for the end
    end.json      the last word: {"state": "done" | "failed" | "cancelled", "reason": …}; never changed
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import IO

MARK_VARIABLE = "ONMODEL_LOCAL_JOB"
"""In the environment of everything that belongs to a job, the trainer's own children included."""

DEADLINE_VARIABLE = "ONMODEL_DEADLINE"
WORKER, JOB, STATUS, END = "worker.py", "job.json", "status.json", "end.json"
LOCK, PROCESS, CANCELLED, WORDS = "run.lock", "process.json", "cancelled", "worker.out"

LOOK_SECONDS = 0.2
TAKEOVER_SECONDS = 2.0
"""Somebody who looks whether we live holds the lock for a moment; so it is tried so long before another has it."""


def is_running(folder: Path) -> bool:
    """Whether a supervisor, or the worker under it, lives for the job of this folder."""
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def kill_job(mark: str) -> int:
    """SIGKILL to every other process of a job; how many there were. Linux alone knows them by their environment."""
    wanted, killed = f"{MARK_VARIABLE}={mark}".encode(), 0
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def write_end(folder: Path, state: str, reason: str | None) -> None:
    """The job's last word; a first one stays."""
    draft = folder / f".end-{os.getpid()}"
    draft.write_text(json.dumps({"state": state, "reason": reason, "ended_at": time.time()}), "utf-8")
    with contextlib.suppress(FileExistsError):
        (folder / END).hardlink_to(draft)
    draft.unlink()


def conclude(folder: Path, otherwise: str | None) -> None:
    """Write a job's last word when nothing of it runs any more: the worker's own, else that it was stopped, else the
    sentence `otherwise`. Whatever processes are left of it are killed."""
    kill_job(folder.name)
    told = read_json(folder / STATUS)
    state, reason = told.get("state"), told.get("reason")
    # The set is in the store and the LoRA among the results; what a failure left is kept for whoever looks into it.
    shutil.rmtree(folder / "dataset", ignore_errors=True)
    (folder / "dataset.zip").unlink(missing_ok=True)
    if state == "done":
        shutil.rmtree(folder / "work", ignore_errors=True)
        write_end(folder, "done", None)
    elif (folder / CANCELLED).exists() or state == "cancelled":
        write_end(folder, "cancelled", "It was stopped.")
    elif state == "failed" and reason:
        write_end(folder, "failed", str(reason))
    else:
        write_end(folder, "failed", otherwise or "It ended before it was begun.")


def read_json(path: Path) -> dict[str, object]:
    """A small file's object; empty for what is not there or is none."""
    try:
        told = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


class Supervisor:
    """One job from its wait for the GPU to its end."""

    def __init__(self, folder: Path, gpu_lock: Path) -> None:
        self.folder = folder
        self.gpu_lock = gpu_lock
        self.is_stopped = False
        self.child: subprocess.Popen[bytes] | None = None

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        self.is_stopped = True
        (self.folder / CANCELLED).touch()
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGTERM)

    @property
    def is_over(self) -> bool:
        return self.is_stopped or (self.folder / CANCELLED).exists()

    def run(self) -> None:
        with (self.folder / LOCK).open("ab") as lock:
            if not _taken(lock, TAKEOVER_SECONDS) or (self.folder / END).exists():
                return
            draft = self.folder / f".process-{os.getpid()}"
            draft.write_text(json.dumps({"pid": os.getpid()}), "utf-8")
            draft.rename(self.folder / PROCESS)
            with self.gpu_lock.open("ab") as gpu:
                while not self.is_over and not _taken(gpu, 0):
                    time.sleep(LOOK_SECONDS)
                if not self.is_over:
                    self._clear_the_gpu()
                    self._work(lock, gpu)
            conclude(self.folder, None if self.child is None else f"The worker ended with {self.child.returncode}.")

    def _clear_the_gpu(self) -> None:
        """What a killed supervisor left running would share the GPU with us."""
        for other in self.folder.parent.iterdir():
            if (
                other != self.folder
                and (other / PROCESS).exists()
                and not (other / END).exists()
                and not is_running(other)
            ):
                kill_job(other.name)

    def _work(self, lock: IO[bytes], gpu: IO[bytes]) -> None:
        seconds = read_json(self.folder / "limits.json").get("hard_stop_seconds")
        limit = int(time.time() + (seconds if isinstance(seconds, int | float) else 6 * 3600))
        with (self.folder / WORDS).open("ab") as words:
            self.child = subprocess.Popen(
                [sys.executable, str(self.folder / WORKER), "--no-pod", str(self.folder / JOB)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                env={**os.environ, DEADLINE_VARIABLE: str(limit)},
                pass_fds=(lock.fileno(), gpu.fileno()),  # both stay held as long as the worker lives
            )
            if self.is_over:
                self.child.send_signal(signal.SIGTERM)
            self.child.wait()


def _taken(lock: IO[bytes], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
        time.sleep(0.02)


def main(arguments: list[str]) -> int:
    """0 once the supervisor is on its own, or its work is over without `--detach`."""
    folder, gpu_lock = (Path(argument) for argument in arguments if not argument.startswith("--"))
    if "--detach" in arguments:
        if os.fork():
            return 0
        os.setsid()
        with open(os.devnull, "r+b") as nothing:  # noqa: PTH123 (no path of ours)
            for number in (0, 1, 2):
                os.dup2(nothing.fileno(), number)
    supervisor = Supervisor(folder, gpu_lock)
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
