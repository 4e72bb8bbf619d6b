"""A rented machine of the rehearsal: a container's start command, really run as a process of this machine.

It has a folder of its own for a disk, an environment with nothing of ours in it, and the trainers' stand-in programs
where a real image has its own. Its command is started again whenever it returns, as on a real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from domain.registry import load_registry
from providers.sandbox.trainers.doing import FAULT as TRAINER_FAULT
from providers.sandbox.trainers.homes import HOMES, stand_in_commands

_TETHER = (
    "exec 3<&0 </dev/null; "
    '( read -r _ <&3; trap "" TERM; kill -TERM 0; sleep 8; kill -KILL 0 ) & '
    '"$@"; kill $! 2>/dev/null'
)
"""A shell's words that run a command and end it, and all of its group, when our end of stdin closes: a machine must not
outlive a server that was killed. The worker takes its trainer along at SIGTERM."""

SECONDS_BETWEEN_STARTS = 0.25
FROZEN_AFTER_SECONDS = 2.0
_SECRET = re.compile(r"\{\{ RUNPOD_SECRET_\w+ \}\}")


class Machine:
    """One container. `start()` and `end()` once each; `is_up`, `starts` and `began_at` (Unix seconds) tell of it."""

    def __init__(self, folder: Path, args: str, env: Mapping[str, str], trainer_fault: str | None) -> None:
        self.folder = folder
        self.starts = 0
        self.began_at: float | None = None
        self._argv = container_command(args)
        self._env = dict(env)
        self._trainer_fault = trainer_fault
        self._process: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()

    @property
    def is_up(self) -> bool:
        return self.began_at is not None and not self._over.is_set()

    def start(self, on_up: Callable[[], None]) -> None:
        """Begin, in the background; `on_up` is called each time the command has been started."""
        threading.Thread(target=self._run, args=(on_up,), daemon=True).start()

    def end(self) -> None:
        """Kill everything it runs, at once, and start nothing more. Its disk is wiped."""
        self._over.set()
        with self._lock:
            process = self._process
        if process is not None:
            _signal_tree(process.pid, signal.SIGKILL)
            _wait_for(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def freeze(self) -> None:
        """Let it stand still a moment after it has begun: it goes on billing and says nothing more."""

        def stand_still() -> None:
            if not self._over.wait(FROZEN_AFTER_SECONDS) and self._process is not None:
                _signal_tree(self._process.pid, signal.SIGSTOP)

        threading.Thread(target=stand_still, daemon=True).start()

    def _run(self, on_up: Callable[[], None]) -> None:
        while not self._over.is_set():
            shutil.rmtree(self.folder, ignore_errors=True)  # a container's disk does not outlive its restart
            environment = self._environment()
            with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log, self._lock:
                if self._over.is_set():
                    return
                try:
                    self._process = subprocess.Popen(
                        ["sh", "-c", _TETHER, "sh", *self._argv],
                        cwd=self.folder,
                        env=environment,
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                except OSError as error:
                    log.write(f"the container does not start: {error}\n".encode())
            self.starts += 1
            self.began_at = time.time()
            on_up()
            if self._process is not None:
                _wait_for(self._process)
            self._over.wait(SECONDS_BETWEEN_STARTS)

    def _environment(self) -> dict[str, str]:
        for name in ("onmodel", "tmp", "home"):
            (self.folder / name).mkdir(parents=True)
        commands = stand_in_commands(self.folder / "bin").parent
        given = {name: _SECRET.sub("a-secret-of-the-sandbox", value) for name, value in self._env.items()}
        return {
            "PATH": f"{commands}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "LANG": "C.UTF-8",
            "ONMODEL_PLACES": json.dumps(_places(self.folder)),
            **({TRAINER_FAULT: self._trainer_fault} if self._trainer_fault else {}),
            **given,
        }


def container_command(args: str) -> list[str]:
    """What a container runs for its `args`: a JSON `cmd`, else a shell's words (runpod_trainers.md 1.1)."""
    with contextlib.suppress(ValueError):
        given = json.loads(args)
        if isinstance(given, dict) and isinstance(given.get("cmd"), list):
            return [str(word) for word in given["cmd"]]
    try:
        return shlex.split(args) or [sys.executable, "-c", "pass"]
    except ValueError:
        return ["false"]


def _wait_for(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _places(folder: Path) -> dict[str, str]:
    """Where this machine has what an image has elsewhere: our folder, and the trainers' homes."""
    programs = [model.training.program for model in load_registry().models if model.training is not None]
    homes = {one.home: str(HOMES[one.program]) for one in programs if one is not None and one.home}
    return {"/onmodel": str(folder / "onmodel"), **homes}


def _signal_tree(root: int, number: signal.Signals) -> None:
    """Send a signal to a process and to all that came out of it, in groups of their own too."""
    parents: dict[int, int] = {}
    for pid in _process_ids():
        with contextlib.suppress(OSError, ValueError, IndexError):
            # pid (name) state parent …, and a name may hold anything but is closed by the last bracket
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    found, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    for pid in sorted(found):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    if not parents:  # no /proc here: at least its own group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(root, number)


def _process_ids() -> list[int]:
    try:
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    except OSError:
        return []
