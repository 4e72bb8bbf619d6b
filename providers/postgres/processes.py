"""What the process table (Linux, /proc) truly says about a server: who works in its data, and who is only a zombie."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from providers.postgres.accounts import Account

# Asked as the server's own user: root in a container may not look into another user's processes (no CAP_SYS_PTRACE).
_LIST = 'for one in /proc/[0-9]*; do if [ "$one/cwd" -ef "$1" ]; then echo "${one#/proc/}"; fi; done'


def postmaster_of(account: Account, data_dir: Path) -> int | None:
    """The process in postmaster.pid, if it is really a living server of these data and not a zombie or a stranger."""
    try:
        pid = int((data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    return pid if pid in processes_in(account, data_dir) else None


def processes_in(account: Account, data_dir: Path) -> set[int]:
    """The processes of `account` whose working directory this is: the server and its children. Zombies work nowhere."""
    return {int(pid) for pid in account.run(["sh", "-c", _LIST, "sh", str(data_dir)]).stdout.split()}


def is_alive(pid: int) -> bool:
    """Whether there is such a process and it is no zombie."""
    try:
        # The state follows the name, which is in brackets and may itself hold brackets (proc(5)).
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(is_over: Callable[[], bool], seconds: float) -> bool:
    """Look again and again, first after 10 ms, then up to 100 ms apart; whether it came about in time."""
    deadline = time.monotonic() + seconds
    pause_seconds = 0.01
    while not is_over():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_seconds)
        pause_seconds = min(0.1, pause_seconds * 1.5)
    return True
