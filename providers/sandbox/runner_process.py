"""The server's end of a runner process: starting it, sending it orders, hearing its lines, killing it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class RunnerLost(Exception):
    """The runner process ended in the middle of a job."""


class Runner:
    """One runner process, started when first needed and again when it was lost."""

    def __init__(self, engine: str, threads: int) -> None:
        self._engine = engine
        self._threads = str(threads)
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def carry_out(self, order: dict[str, Any], log: Callable[[str], None]) -> dict[str, Any]:
        """Send an order and wait for its end. `RunnerLost` when the process dies or is killed."""
        with self._lock:
            process = self._process  # taken once: `kill_quietly` may forget it at any moment
            if process is None or process.poll() is not None:
                process = self._process = self._start()
        if process.stdin is None or process.stdout is None:
            raise RunnerLost
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                answer: dict[str, Any] = json.loads(line)
                if "log" not in answer:
                    return answer
                log(answer["log"])
        except (BrokenPipeError, ValueError):
            raise RunnerLost from None
        raise RunnerLost

    def _start(self) -> subprocess.Popen[str]:
        self.kill_quietly()
        numbers = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), self._threads)
        return subprocess.Popen(
            [sys.executable, "-m", "providers.sandbox.runner", self._engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PACKAGE_ROOT,
            env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), **numbers},
            start_new_session=True,  # a Ctrl-C is for the server; the runner follows when its stdin closes
        )

    def kill_quietly(self) -> None:
        """End the process, and ffmpeg under it, wherever it is in its work."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
