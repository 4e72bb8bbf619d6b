"""The sandbox server: fal's wire protocol on loopback, one process per home. `python -m providers.sandbox.server`.

Requests are told apart by their Host: fal's names get fal's answers, 127.0.0.1 gets the control pages under
`/_sandbox/`: health, counters, jobs, faults (GET, POST text, DELETE), tls (POST), shutdown (POST). It listens on
loopback only, needs no network, holds a lock on its home while it lives, and ends by itself when nobody asks.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from domain.errors import BadInput, NotConfigured, OnModelError
from providers.sandbox.fal_storage import FalStorage
from providers.sandbox.fal_wire import FalQueue
from providers.sandbox.faults import FaultPlan
from providers.sandbox.journal import Journal
from providers.sandbox.listener import Listener
from providers.sandbox.parts import Stage, open_parts
from providers.sandbox.shelf import Shelf
from providers.sandbox.wire import (
    API_HOST,
    FILE_HOSTS,
    LOOPBACK_HOSTS,
    QUEUE_HOSTS,
    REST_HOST,
    RUN_HOSTS,
    SITE_HOST,
    Reply,
    Request,
    code_stamp,
    refusal,
)
from providers.sandbox.work import WorkOptions, Workshop, parse_latency

if TYPE_CHECKING:
    from providers.sandbox.tls import FalProxy

WAIT_FOR_LOCK_SECONDS = 10.0
JOB_SECONDS = 31 * 86400.0
"""Jobs are remembered as long as a month's account of what was charged asks for them."""

SWEEP_SECONDS = 3600.0
AS_HOST = "_as"


@dataclass(frozen=True)
class SandboxOptions:
    """How a sandbox is run. `home` is ONMODEL_HOME; everything of ours lies in `home/sandbox`."""

    home: Path
    faults: str = ""
    fault_seed: int = 0
    idle_seconds: float = 15 * 60
    keep_result_seconds: float = 3600
    keep_file_seconds: float = 7 * 86400
    work: WorkOptions = field(default_factory=WorkOptions)

    @property
    def folder(self) -> Path:
        return self.home / "sandbox"


class SandboxServer:
    """The whole sandbox in one object. `start()` and `stop()` once each; `wait()` until it is told to end or idle."""

    def __init__(self, options: SandboxOptions) -> None:
        self._options = options
        self.faults = FaultPlan(options.faults, seed=options.fault_seed)
        folder = options.folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _lock_home(folder)
        self._journal = Journal(folder / "jobs")
        self._shelf = Shelf(folder / "files")
        self._workshop = Workshop(self._journal, self._shelf, folder / "work", options.work)
        self._ended = threading.Event()
        self._code_stamp = code_stamp()
        self._queue = FalQueue(
            self._journal,
            self._workshop,
            self._shelf,
            self.faults,
            keep_result_seconds=options.keep_result_seconds,
            is_stopping=self._ended.is_set,
        )
        self._storage = FalStorage(self._shelf, self.faults, folder / "secret")
        self._listener = Listener(self.answer)
        self._parts = open_parts(
            Stage(
                journal=self._journal,
                workshop=self._workshop,
                shelf=self._shelf,
                faults=self.faults,
                folder=folder,
                is_stopping=self._ended.is_set,
                url=lambda: self.url,
            )
        )
        self._proxy: FalProxy | None = None
        self._tls_lock = threading.Lock()

    @property
    def url(self) -> str:
        return self._listener.url

    def start(self) -> str:
        """Take up unfinished jobs and listen; the address, `http://127.0.0.1:PORT`."""
        self._sweep()
        self._workshop.start()
        self._listener.start()
        for part in self._parts:
            part.start()
        self._write_address()
        return self.url

    def open_tls(self) -> tuple[str, Path]:
        """The CONNECT proxy's address and the CA file that its clients must trust; opened at the first call."""
        from providers.sandbox.tls import FalProxy, ensure_certificate

        with self._tls_lock:
            certificate = ensure_certificate(self._options.folder / "tls")
            if self._proxy is None:
                self._proxy = FalProxy(self._listener, certificate)
                self._proxy.start()
                self._write_address()
            return self._proxy.url, certificate.ca_file

    def wait(self) -> None:
        """Return when asked to shut down, or after `idle_seconds` without a request and without work."""
        swept_at = time.monotonic()
        while not self._ended.wait(min(5.0, self._options.idle_seconds)):
            if time.monotonic() - swept_at > SWEEP_SECONDS:
                self._sweep()
                swept_at = time.monotonic()
            idle = time.monotonic() - self._listener.last_request_at
            if idle > self._options.idle_seconds and not self._workshop.is_busy():
                return

    def end(self) -> None:
        self._ended.set()

    def stop(self) -> None:
        self._ended.set()
        if self._proxy is not None:
            self._proxy.stop()
        for part in self._parts:
            part.stop()
        self._workshop.stop()
        self._listener.stop()
        self._lock.close()

    def answer(self, request: Request) -> Reply:
        host = request.host
        if host in QUEUE_HOSTS:
            return self._queue.answer_queue(request)
        if host in FILE_HOSTS:
            return self._storage.answer_files(request)
        if host in RUN_HOSTS:
            return self._queue.answer_run(request)
        if host == REST_HOST:
            return self._storage.answer_rest(request)
        if host == API_HOST:
            return self._queue.answer_api(request)
        if host == SITE_HOST:
            return self._queue.answer_site(request)
        part = next((part for part in self._parts if host in part.hosts), None)
        if part is not None:
            return part.answer(request)
        if host in LOOPBACK_HOSTS and request.segments[:1] == [AS_HOST] and not _is_browser(request):
            # For programs that cannot set a Host of their own: /_as/HOST/path.
            _, _, name, path = (request.path + "/").split("/", 3)
            played = replace(request, host=name, path=f"/{path.removesuffix('/')}")
            return refusal(421, "No such host") if name in LOOPBACK_HOSTS else self.answer(played)
        if host in LOOPBACK_HOSTS:
            return self._control(request)
        return refusal(421, f"The sandbox plays vendors' hosts, and {host!r} is none of them.")

    def _control(self, request: Request) -> Reply:
        if _is_browser(request):
            return refusal(403, "The sandbox's control pages are not for browsers.")
        match request.method, request.path:
            case "GET", "/_sandbox/health":
                return Reply.of(200, {"pid": os.getpid(), "home": str(self._options.home), "code": self._code_stamp})
            case "GET", "/_sandbox/counters":
                return Reply.of(200, {"accepted": self._journal.accepted(), "posts": self._posts()})
            case "GET", "/_sandbox/jobs":
                return Reply.of(200, [asdict(job) for job in self._journal.all_jobs()])
            case "GET", "/_sandbox/faults":
                return Reply.of(200, self.faults.report())
            case "POST", "/_sandbox/faults":
                return self._set_faults(request.body.read().decode())
            case "DELETE", "/_sandbox/faults":
                return self._set_faults("")
            case "POST", "/_sandbox/tls":
                proxy_url, ca_file = self.open_tls()
                return Reply.of(200, {"proxy_url": proxy_url, "ca_path": str(ca_file)})
            case "POST", "/_sandbox/shutdown":
                self._ended.set()
                return Reply.of(200, {"is_ending": True})
            case _:
                return refusal(404, "Not a page of the sandbox; fal's addresses are told apart by the Host header.")

    def _posts(self) -> dict[str, int]:
        """Paid submits by endpoint; those of other vendors than fal under their own names."""
        found = self._queue.posts()
        for part in self._parts:
            found |= part.posts()
        return found

    def _set_faults(self, text: str) -> Reply:
        try:
            self.faults.set(text)
        except BadInput as error:
            return refusal(422, error.message)
        return Reply.of(200, self.faults.report())

    def _sweep(self) -> None:
        self._journal.forget(time.time() - JOB_SECONDS)
        self._shelf.sweep(self._options.keep_file_seconds)

    def _write_address(self) -> None:
        """`server.json`: where others find us. It is replaced as a whole, and believed only with a health check."""
        address = {"pid": os.getpid(), "url": self.url, "proxy_url": None, "ca_path": None}
        if self._proxy is not None:
            address |= {"proxy_url": self._proxy.url, "ca_path": str(self._proxy.ca_file)}
        draft = self._options.folder / "server.json.tmp"
        draft.write_text(json.dumps(address))
        draft.rename(self._options.folder / "server.json")


def _is_browser(request: Request) -> bool:
    return bool(request.header("Origin") or request.header("Sec-Fetch-Site"))


def _lock_home(folder: Path) -> TextIO:
    """Hold the home for this process. A server that is just ending is waited for; `NotConfigured` when one stays."""
    file = (folder / "server.lock").open("w")
    deadline = time.monotonic() + WAIT_FOR_LOCK_SECONDS
    pause = threading.Event()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise NotConfigured(f"Another sandbox serves {folder}: use it, or end it first.") from None
            pause.wait(0.05)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m providers.sandbox.server", description="fal's protocol on loopback"
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--faults", default="")
    parser.add_argument("--fault-seed", type=int, default=0)
    parser.add_argument("--latency", default="", help="seconds, or train=8,still=0.5,image_video=3")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--engine", default="providers.sandbox.engine")
    parser.add_argument("--max-video-height", type=int, default=720)
    parser.add_argument("--idle-seconds", type=float, default=15 * 60)
    parser.add_argument("--keep-result-seconds", type=float, default=3600)
    parser.add_argument("--keep-file-seconds", type=float, default=7 * 86400)
    parser.add_argument("--tls", action="store_true", help="open the CONNECT proxy for programs left unchanged")
    parser.add_argument("--detach", action="store_true", help="go on in the background once it answers")
    given = parser.parse_args(arguments)
    if given.detach and (code := _detach(given.home)) is not None:
        return code
    try:
        server = SandboxServer(
            SandboxOptions(
                home=given.home.absolute(),
                faults=given.faults,
                fault_seed=given.fault_seed,
                idle_seconds=given.idle_seconds,
                keep_result_seconds=given.keep_result_seconds,
                keep_file_seconds=given.keep_file_seconds,
                work=WorkOptions(
                    engine=given.engine,
                    concurrency=given.concurrency,
                    latency_seconds=parse_latency(given.latency),
                    max_video_height=given.max_video_height,
                ),
            )
        )
    except OnModelError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.end())
    server.start()
    if given.tls:
        server.open_tls()
    sys.stdout.write((server._options.folder / "server.json").read_text() + "\n")
    sys.stdout.flush()
    if given.detach:
        os.dup2(2, 1)  # whoever waits for the address reads until here
    server.wait()
    server.stop()
    return 0


def _detach(home: Path) -> int | None:
    """Fork: the parent gets 0 to leave with at once, the child None to go on with, in a session of its own.

    The child keeps stdout until it has written its address there; from then on the caller is free of it.
    """
    folder = home.absolute() / "sandbox"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.fork() > 0:
        return 0
    os.setsid()
    log = os.open(folder / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | _cut(folder / "server.log"), 0o600)
    os.dup2(log, 2)
    os.close(log)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return None


def _cut(log: Path) -> int:
    """Begin the log anew when it has grown over 5 MB."""
    return os.O_TRUNC if log.exists() and log.stat().st_size > 5_000_000 else 0


if __name__ == "__main__":
    sys.exit(main())
