"""`onmodel doctor`: one sentence for each thing a run needs, and what to do where it is missing."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from domain.circuits import Circuit, CircuitCause, CircuitState
from domain.errors import NotConfigured, OnModelError, Unavailable
from domain.records import Record
from providers.wiring import open_ports
from studio.telling import print_json, say

if TYPE_CHECKING:
    from providers.wiring import Ports

LEAST_FREE_BYTES = 2 << 30
WHAT_WIDTH = 9


class Finding(Record):
    """One thing looked at. `is_needed` is False for what only some seasons need."""

    what: str
    is_well: bool
    is_needed: bool = True
    detail: str


def examine(*, as_json: bool) -> int:
    """Look at everything. Exit 0 when all that is needed is there, else 3."""
    ports = open_ports()
    findings = [_look(what, is_needed, check, ports) for what, is_needed, check in CHECKS]
    is_well = all(finding.is_well for finding in findings if finding.is_needed)
    if as_json:
        print_json({"is_well": is_well, "findings": [finding.model_dump() for finding in findings]})
    else:
        for finding in findings:
            say(f"{_mark(finding)}  {finding.what:<{WHAT_WIDTH}}  {finding.detail}", hang=WHAT_WIDTH + 5)
        say()
        say("All that a season needs is here." if is_well else "Mend what is marked ✗, then run onmodel doctor again.")
    return 0 if is_well else NotConfigured.exit_code


def _mark(finding: Finding) -> str:
    if finding.is_well:
        return "✓"
    return "✗" if finding.is_needed else "–"


def _look(what: str, is_needed: bool, check: Callable[[Ports], str], ports: Ports) -> Finding:
    try:
        return Finding(what=what, is_well=True, is_needed=is_needed, detail=check(ports))
    except OnModelError as error:
        return Finding(what=what, is_well=False, is_needed=is_needed, detail=error.message)


def _python(_ports: Ports) -> str:
    return f"Python {platform.python_version()} at {sys.executable}"


def _home(ports: Ports) -> str:
    home = ports.settings.home
    home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home).free
    if free < LEAST_FREE_BYTES:
        raise NotConfigured(f"{home} has {free >> 20} MB free; make room for at least 2 GB, or move ONMODEL_HOME.")
    return f"{home}, {free >> 30} GB free"


def _ffmpeg(ports: Ports) -> str:
    return ports.ffmpeg


def _database(ports: Ports) -> str:
    with ports.database.transaction() as db:
        row = db.execute("SHOW server_version").fetchone()
    seen = f"PostgreSQL {row[0] if row else '?'}"
    server = ports.embedded_server
    if server is None:
        return f"{seen} at ONMODEL_DATABASE_URL"
    note = f". {server.where_note}" if server.where_note else ""
    return f"{seen}, built in, data in {server.data_dir}, run by {server.runs_as_user}{note}"


def _storage(ports: Ports) -> str:
    digest = ports.blobs.put_bytes(b"onmodel doctor", "text/plain")
    ports.blobs.read(digest)
    ports.blobs.delete(digest)
    return ports.settings.storage_url


def _prefect(ports: Ports) -> str:
    found = f"Prefect {version('prefect')}, fastapi {version('fastapi')}, SQLAlchemy {version('sqlalchemy')}"
    where = ports.settings.prefect_api_url or "its own temporary server for each run"
    return f"{found}; {where}"


def _sandbox(ports: Ports) -> str:
    _pinged(ports, "sandbox")
    return f"answers at {ports.sandbox().url}"


def _vendor(name: str, export: str) -> Callable[[Ports], str]:
    """The check of a vendor that only some seasons need; `export` is what sets it up."""

    def check(ports: Ports) -> str:
        if name not in ports.vendors_set_up():
            raise NotConfigured(f"not set up; only a season with vendor: {name} needs it: export {export}")
        return _pinged(ports, name)

    return check


def _pinged(ports: Ports, vendor: str) -> str:
    ping = ports.job_vendor(vendor).ping()
    if not ping.is_ready:
        raise NotConfigured(ping.detail)
    return ping.detail


def _circuits(ports: Ports) -> str:
    held = [circuit for circuit in ports.circuits.all() if circuit.state is not CircuitState.CLOSED]
    if held:
        raise Unavailable("; ".join(_held(circuit, ports.clock.now()) for circuit in held))
    return "jobs are sent to every vendor; none is held back"


def _held(circuit: Circuit, now: datetime) -> str:
    seconds = max((circuit.probe_after - now).total_seconds(), 0.0) if circuit.probe_after else 0.0
    why = "its account was refused" if circuit.cause is CircuitCause.ACCOUNT else "it is down"
    return f"nothing is sent to {circuit.vendor}, because {why} ({circuit.reason}); tried again in {seconds:.0f} s"


CHECKS: tuple[tuple[str, bool, Callable[[Ports], str]], ...] = (
    ("Python", True, _python),
    ("home", True, _home),
    ("ffmpeg", True, _ffmpeg),
    ("database", True, _database),
    ("storage", True, _storage),
    ("Prefect", True, _prefect),
    ("sandbox", True, _sandbox),
    ("fal", False, _vendor("fal", "FAL_KEY=… (fal dashboard)")),
    ("replicate", False, _vendor("replicate", "REPLICATE_API_TOKEN=… (account page)")),
    ("runpod", False, _vendor("runpod", "RUNPOD_API_KEY=…")),
    ("comfyui", False, _vendor("comfyui", "ONMODEL_COMFYUI_URL=…")),
    ("local", False, _vendor("local", "ONMODEL_AI_TOOLKIT_HOME=… (docs/own-gpu.md)")),
    ("vendors", False, _circuits),
)
