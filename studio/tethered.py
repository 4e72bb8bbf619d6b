"""A program on a tether: it and what it starts end when the process that holds the tether does, even by SIGKILL.

The holder keeps the writing end of a pipe that is never written to. `python -m studio.tethered PROGRAM …` runs the
program and reads the other end: when the pipe closes, the program is asked to end, and killed when it does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

GRACE_SECONDS = 20.0


def start_tethered(command: list[str], *, folder: Path, environ: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program whose words go to `log`; `end_tethered` ends it, and so does the end of this process."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "studio.tethered", *command],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def end_tethered(process: subprocess.Popen[bytes]) -> None:
    """Let go of the tether and wait until the program and all of its group are gone. Safe to repeat."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(GRACE_SECONDS + 5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    """The tether's own process: leaves with the program's exit code."""
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_holder, args=(program,), daemon=True).start()
    sys.exit(program.wait())


def _end_with_holder(program: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1024):
        pass
    program.terminate()
    try:
        program.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
