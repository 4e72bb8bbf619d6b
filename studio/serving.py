"""`onmodel serve`: a lasting Prefect server on the built-in PostgreSQL, a worker and the deployments, until Ctrl-C."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from domain.errors import NotConfigured
from providers import wiring
from studio.prefect_setup import DEFAULTS
from studio.telling import say, tell_progress
from studio.tethered import end_tethered, start_tethered

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.serve")

PROJECT = Path(__file__).resolve().parents[1]
POOL = "onmodel"
START_SECONDS = 120
PORTS_TRIED = 20


def serve_forever(port: int) -> int:
    """Start everything, print the address, and wait; Ctrl-C or SIGTERM ends all of it. Exit 0."""
    ports = wiring.open_ports()
    port = _free_port(port)
    api_url = f"http://127.0.0.1:{port}/api"
    environ = _environ(ports, api_url, port)
    children: list[subprocess.Popen[bytes]] = []
    is_over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: is_over.set())
    tell_progress()
    try:
        file = _log_file(ports)
        log.info("starting the Prefect server")
        children.append(_start(["server", "start", "--host", "127.0.0.1", "--port", str(port)], environ, file))
        _wait_until_healthy(api_url, children[0], file, is_over)
        log.info("writing the deployments")
        for words in (["deployments.setup"], ["prefect", "--no-prompt", "deploy", "--all"]):
            if not is_over.is_set():
                _finish(words, environ)
        if not is_over.is_set():
            children.append(_start(["worker", "start", "--pool", POOL, "--type", "process"], environ, file))
            _tell(f"http://127.0.0.1:{port}", file)
        while not is_over.wait(0.5):
            dead = next((child for child in children if child.poll() is not None), None)
            if dead is not None:
                raise NotConfigured(f"Prefect ended by itself (exit {dead.returncode}); its last words are in {file}.")
        say("Stopping the worker and the server.")
    finally:
        for child in reversed(children):  # the worker first, then the server
            end_tethered(child)
    return 0


def _tell(address: str, file: Path) -> None:
    say(f"Prefect is at {address} with a worker and five deployments:")
    say("train-character, generate-references, render-slot, render-season, and maintain,")
    say("which tidies up after crashes every ten minutes.")
    say(f"Start one at {address}/deployments: open it, then Run, Custom run.")
    say("A season must be known first: onmodel season import season.yaml")
    say(f"Its log is {file}. Ctrl-C stops it all; nothing is lost.")


def _environ(ports: Ports, api_url: str, port: int) -> dict[str, str]:
    """Prefect's settings for the lasting server: our PostgreSQL, and the UI at its own address."""
    environ = {
        **os.environ,
        **{name: os.environ.get(name, value) for name, value in DEFAULTS.items()},
        "PREFECT_HOME": str(ports.settings.home / "prefect"),
        # Its worker keeps a folder of one fixed name there, which on a shared /tmp belongs to whoever came first.
        "TMPDIR": str(_temporary_folder(ports)),
        "PREFECT_API_URL": api_url,
        "PREFECT_UI_URL": f"http://127.0.0.1:{port}",
        "PREFECT_SERVER_UI_API_URL": api_url,
        "ONMODEL_HOME": str(ports.settings.home),
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"])),
    }
    if ports.embedded_server is not None:
        environ["PREFECT_API_DATABASE_CONNECTION_URL"] = wiring.prefect_database_url(ports.embedded_server)
    return environ


def _temporary_folder(ports: Ports) -> Path:
    folder = ports.settings.home / "prefect" / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _start(arguments: list[str], environ: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    return start_tethered([sys.executable, "-m", "prefect", *arguments], folder=PROJECT, environ=environ, log=log)


def _finish(arguments: list[str], environ: dict[str, str]) -> None:
    """Run a module of Python to its end; `NotConfigured` with its last words when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=PROJECT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # Ctrl-C is for us: we let it finish, then end everything in order
    )
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).split())[-600:]
        raise NotConfigured(f"python -m {' '.join(arguments)} failed: {words}")


def _wait_until_healthy(api_url: str, server: subprocess.Popen[bytes], log: Path, is_over: threading.Event) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, timeout=2) as client:
        while time.monotonic() < deadline and server.poll() is None:
            try:
                if client.get(f"{api_url}/health").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            if is_over.wait(0.2):
                return
    raise NotConfigured(f"The Prefect server did not come up within {START_SECONDS} s; its last words are in {log}.")


def _free_port(wanted: int) -> int:
    for port in range(wanted, wanted + PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise NotConfigured(f"Ports {wanted} to {wanted + PORTS_TRIED - 1} are all in use: give another with --port.")


def _log_file(ports: Ports) -> Path:
    folder = ports.settings.home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "serve.log"
