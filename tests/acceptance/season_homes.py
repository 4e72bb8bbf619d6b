"""Homes for the acceptance tests: an ONMODEL_HOME with real parts, drawn stills, and the ways to run `onmodel` there.

A `Home` runs the command in processes of its own, as a person does, and may be killed. The `Studio` also runs it in
the tests' own process, with a clock that nobody waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from domain.jobs import ProviderJob, Stage
from domain.renders import Render
from providers.postgres.embedded import server_status
from providers.postgres.processes import is_alive, wait_until
from providers.sandbox.launcher import control, ensure_sandbox, find_sandbox, set_faults, stop_sandbox
from providers.wiring import Ports, SystemClock, open_ports
from tests.acceptance.season_art import DESCRIPTIONS, SHOTS

ROOT = Path(__file__).resolve().parents[2]

TRAINERS = "fal-ai/*train*"
STILLS = "fal-ai/flux-lora"
ELEMENTS = "fal-ai/kling-video/o1/reference-to-video"
FROM_IMAGE = "fal-ai/kling-video/v2.5-turbo/pro/image-to-video"
WAN_LORA = "fal-ai/wan/v2.2-a14b/text-to-video/lora"
WAN_STILLS = "fal-ai/wan/v2.2-a14b/text-to-image/lora"

SMALL_VIDEOS = ("--max-video-height", "240")
PATIENCE_SECONDS = 120.0
LONGEST_REAL_WAIT = 0.05

Entry = dict[str, Any]


class Outcome(NamedTuple):
    """How a command ended: its exit code, its JSON document (empty when it wrote none) and what it told on stderr."""

    exit_code: int
    document: dict[str, Any]
    told: str

    def slot(self, number: int) -> dict[str, Any]:
        return next(slot for slot in self.document["slots"] if slot["number"] == number)

    def routes(self, number: int) -> dict[str, str]:
        """Character → route of a slot."""
        return {route["character"]: route["route"] for route in self.slot(number)["routes"]}

    def lora(self, name: str) -> dict[str, Any]:
        """The first LoRA of a character."""
        character = next(one for one in self.document["characters"] if one["name"] == name)
        lora: dict[str, Any] = character["loras"][0]
        return lora


class Harbor(NamedTuple):
    """The season `harbor` after its two runs; its outcome stands for itself, its tables and its folder may go on."""

    manifest: Path
    cast: list[Entry]
    slots: list[Entry]
    first: Outcome
    again: Outcome
    posts_after_first: int
    posts_after_again: int
    database_url: str
    """A copy of the tables as they were then."""


class ImpatientClock(SystemClock):
    """Time that is not waited for: a long sleep passes at once and moves the clock on. `slept` keeps what was asked."""

    def __init__(self) -> None:
        self._ahead = timedelta()
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def now(self) -> datetime:
        return super().now() + self._ahead

    def sleep(self, seconds: float) -> None:
        waited = min(seconds, LONGEST_REAL_WAIT)
        with self._lock:
            self.slept.append(seconds)
            self._ahead += timedelta(seconds=seconds - waited)
        threading.Event().wait(waited)

    def backoffs(self) -> list[float]:
        """The waits before retries (2, 4, 8 s): every other sleep is shorter."""
        return [seconds for seconds in self.slept if seconds >= 2]


class Home:
    """An ONMODEL_HOME with art beside it; everything runs in processes of its own, as for a person."""

    def __init__(self, folder: Path, api_url: str, art: Path) -> None:
        self.folder, self.api_url, self.art = folder, api_url, art
        self.home = folder / "home"
        self.home.mkdir(mode=0o711, exist_ok=True)

    # --- manifests ---

    def write(self, slug: str, characters: list[Entry], slots: list[Entry], **fields: Any) -> Path:
        """A season's manifest (JSON is YAML)."""
        path = self.folder / f"{slug}.yaml"
        season = {"season": slug, "owner": "tests", "budget_usd": 60, **fields}
        path.write_text(json.dumps({**season, "characters": characters, "slots": slots}, indent=1))
        return path

    def learned(self, who: str, base: str = "flux-1-dev", steps: int = 300, **fields: Any) -> Entry:
        """A character to be trained."""
        images = [str(self.art / f"{who}-{number}.png") for number in range(len(SHOTS))]
        return {
            "name": who.title(),
            "description": DESCRIPTIONS[who],
            "trigger_word": f"{who.upper()}_TRIGGER",
            "kind": "illustrated",
            "base_models": [base],
            "images": images,
            "references": images[:1],
            "min_images": 4,
            "training": {"steps": steps},
        } | fields

    def untrained(self, who: str) -> Entry:
        """A character without a LoRA, shown by two original references."""
        entry = {key: value for key, value in self.learned(who).items() if key in ("name", "description", "kind")}
        return entry | {"lora": "none", "references": [str(self.art / f"{who}-{number}.png") for number in (0, 3)]}

    # --- running ---

    def environment(self, **more: str) -> dict[str, str]:
        """For a run at the session's Prefect server: starting its own is tried in test_command_line.py."""
        mine = {"ONMODEL_HOME": str(self.home), "PYTHONPATH": str(ROOT), "PREFECT_API_URL": self.api_url}
        return {**os.environ, **mine, **more}

    def start(self, manifest: Path, **environment: str) -> subprocess.Popen[str]:
        """`onmodel run MANIFEST --json` in a process and a session of its own, so that it can be killed."""
        return subprocess.Popen(
            [sys.executable, "-m", "studio.cli", "run", str(manifest), "--json", "--out", str(self.out(manifest))],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> Outcome:
        out, told = process.communicate(timeout=PATIENCE_SECONDS)
        return Outcome(process.returncode, json.loads(out) if out.strip() else {}, told)

    def run_apart(self, manifest: Path, **environment: str) -> Outcome:
        return self.finish(self.start(manifest, **environment))

    def out(self, manifest: Path) -> Path:
        return self.folder / "out" / manifest.stem

    # --- the sandbox ---

    @property
    def sandbox_url(self) -> str:
        found = find_sandbox(self.home)
        assert found is not None, "no sandbox runs"
        return found.url

    def open_sandbox(self, *, latency: str = "", faults: str = "") -> None:
        ensure_sandbox(self.home, latency=latency, faults=faults, more_arguments=SMALL_VIDEOS)

    def posts(self, endpoints: str = "*") -> int:
        """How many submits have reached the sandbox since it started, accepted or not."""
        found = control(self.sandbox_url, "GET", "counters")["posts"]
        return sum(count for endpoint, count in found.items() if fnmatchcase(endpoint, endpoints))

    def accepted(self, endpoints: str = "*") -> int:
        """How many jobs the sandbox has ever accepted, whichever of its processes did."""
        found = control(self.sandbox_url, "GET", "counters")["accepted"]
        return sum(count for endpoint, count in found.items() if fnmatchcase(endpoint, endpoints))

    def vendor_jobs(self, endpoints: str = "*") -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = control(self.sandbox_url, "GET", "jobs")
        return [job for job in jobs if fnmatchcase(job["endpoint"], endpoints)]

    @contextlib.contextmanager
    def faults(self, plan: str) -> Iterator[None]:
        set_faults(self.sandbox_url, plan)
        try:
            yield
        finally:
            set_faults(self.sandbox_url, "")

    # --- the end ---

    def close(self) -> None:
        """Stop the sandbox, and the database without the tidying: its data are thrown away next."""
        stop_sandbox(self.home)
        pid = server_status(self.home).process_id
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)
            assert wait_until(lambda: not is_alive(pid), 20)


class Studio(Home):
    """The session's home, where `onmodel` also runs inside this process, with a clock that nobody waits for."""

    @property
    def ports(self) -> Ports:
        return open_ports()

    @property
    def clock(self) -> ImpatientClock:
        clock = open_ports().clock
        assert isinstance(clock, ImpatientClock)
        return clock

    def run(self, manifest: Path) -> Outcome:
        """`onmodel run MANIFEST --json` in this process."""
        from studio.cli import run_command

        out, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
            code = run_command(["run", str(manifest), "--json", "--out", str(self.out(manifest))])
        text = out.getvalue()
        return Outcome(code, json.loads(text) if text.strip() else {}, told.getvalue())

    def store(self, manifest: Path) -> int:
        """Import a season without running it; its id."""
        from tasks.importing import import_season

        return import_season(self.ports, manifest)

    def render(self, manifest: Path, number: int) -> Render:
        """Import a season and render one slot of it by its own flow."""
        from flows.render_slot import render_slot

        slug = self.ports.seasons.get(self.store(manifest)).slug
        return self.ports.renders.get(asyncio.run(render_slot(slug, number)))

    def jobs(self, manifest: Path, stage: Stage | None = None) -> list[ProviderJob]:
        """The ledger's rows of a season, oldest first."""
        with self.ports.database.connection() as db:
            rows = db.execute(
                """SELECT key FROM provider_jobs JOIN seasons ON seasons.id = season_id
                   WHERE slug = %s ORDER BY provider_jobs.created_at, attempt""",
                (manifest.stem,),
            ).fetchall()
        found = [self.ports.ledger.get(str(key)) for (key,) in rows]
        return [job for job in found if stage in (None, job.stage)]


# --- waiting ---


def wait_for(is_so: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Look until it is so, forty times a second."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        pause.wait(0.025)


def end_hard(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a command and all it has started in its session."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
