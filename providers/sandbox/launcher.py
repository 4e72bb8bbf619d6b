"""Starts the sandbox server of a home, or finds the one that runs: detached, shared, gone when nobody asks any more."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from domain.errors import BadInput, NotConfigured
from providers.sandbox.wire import code_stamp

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30
HEALTH_SECONDS = 5
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class SandboxAddress:
    """Where a sandbox answers. The proxy and the CA are for programs left unchanged (see tls.py)."""

    url: str
    proxy_url: str | None = None
    ca_path: Path | None = None


def ensure_sandbox(
    home: Path,
    *,
    faults: str | None = None,
    latency: str | None = None,
    tls: bool = False,
    more_arguments: tuple[str, ...] = (),
) -> SandboxAddress:
    """The address of this home's sandbox, started if none answers. Safe to repeat, from many processes at once.

    A server of older code is replaced; its unfinished jobs go on in the new one.

    `faults` puts that plan in force (an equal one goes on counting; None leaves the plan alone); `latency` and
    `more_arguments` count for a fresh start only. `NotConfigured` when the server does not come up.
    """
    home = home.absolute()
    folder = home / "sandbox"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(folder / "launch.lock"):
        found = find_sandbox(home)
        if found is not None and control(found.url, "GET", "health")["code"] != code_stamp():
            stop_sandbox(home)
            found = None
        if found is None:
            found = _start(home, faults or "", latency or "", more_arguments)
        else:
            # Asked in any case: unlike the health check it also keeps an idle server from ending just now.
            plan = control(found.url, "GET", "faults")["plan"]
            if faults is not None and plan != faults:
                set_faults(found.url, faults)
        if tls and found.proxy_url is None:
            opened = control(found.url, "POST", "tls")
            found = SandboxAddress(found.url, opened["proxy_url"], Path(opened["ca_path"]))
    return found


def find_sandbox(home: Path) -> SandboxAddress | None:
    """The sandbox that serves this home now, or None. Starts nothing."""
    try:
        noted = json.loads((home.absolute() / "sandbox" / "server.json").read_text())
        health = control(noted["url"], "GET", "health", seconds=HEALTH_SECONDS)
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return None
    # The port may belong to another program by now, or to the sandbox of another home.
    if health.get("home") != str(home.absolute()):
        return None
    ca_path = noted["ca_path"]
    return SandboxAddress(noted["url"], noted["proxy_url"], Path(ca_path) if ca_path else None)


def stop_sandbox(home: Path) -> bool:
    """End this home's sandbox and wait until it is gone; False when none ran. Unfinished jobs go on at the next one."""
    folder = home.absolute() / "sandbox"
    found = find_sandbox(home)
    if found is None:
        return False
    control(found.url, "POST", "shutdown")
    with (folder / "server.lock").open("w") as file:
        deadline, pause = time.monotonic() + START_SECONDS, threading.Event()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NotConfigured(f"The sandbox of {home} does not end: see {folder}/server.log.") from None
                pause.wait(0.02)


def set_faults(url: str, plan: str) -> None:
    """Put a fault plan in force ("" clears it). `BadInput` says which rule cannot be read."""
    control(url, "POST", "faults", plan)


def control(url: str, method: str, page: str, body: str = "", seconds: float = 30) -> Any:
    """Ask one of the server's `/_sandbox/` pages, never through a proxy; its JSON answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=seconds)
    try:
        connection.request(method, f"/_sandbox/{page}", body.encode(), {"Host": "127.0.0.1"})
        answer = connection.getresponse()
        value = json.loads(answer.read())
        if answer.status == 422:
            raise BadInput(value["detail"])
        if answer.status != 200:
            raise ValueError(f"the sandbox's page {page} answered {answer.status}")
        return value
    finally:
        connection.close()


def _start(home: Path, faults: str, latency: str, more_arguments: tuple[str, ...]) -> SandboxAddress:
    command = [sys.executable, "-m", "providers.sandbox.server", "--detach", "--home", str(home)]
    command += ["--faults", faults, "--latency", latency, *more_arguments]
    # Only what a program needs to run: no key of any vendor goes to a process that outlives us.
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment["PYTHONPATH"] = str(PACKAGE_ROOT)
    try:
        started = subprocess.run(
            command,
            cwd=PACKAGE_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotConfigured(f"The sandbox did not start in {START_SECONDS} s: see {home}/sandbox/server.log.") from None
    try:
        noted = json.loads(started.stdout)
    except ValueError:
        seen = (started.stderr or _last_line(home / "sandbox" / "server.log")).strip()
        raise NotConfigured(f"The sandbox did not start ({seen}): see {home}/sandbox/server.log.") from None
    return SandboxAddress(noted["url"])


def _last_line(path: Path) -> str:
    return path.read_text().strip().rpartition("\n")[2] if path.exists() else "no log"


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Two processes that start a sandbox at once get the same one."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
