"""Whole runs of `onmodel run`, with Prefect, an embedded Postgres and the sandbox, struck by each fault of the matrix.

One character and one slot: the video is what is bought. The command is started again, as a person would, until it ends
with 0 or 6; then the same is counted as in the matrix, from the sandbox's journal and the ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from domain.jobs import JobState
from providers.postgres.embedded import ensure_server
from providers.sandbox.launcher import control, set_faults
from tests.acceptance.season_fixtures import art, prefect_url
from tests.acceptance.season_homes import ELEMENTS, Entry, Home, Outcome, end_hard, wait_for
from tests.faults.counting import Count
from tests.faults.drive import DAY, kill_database
from tests.faults.matrix import Fault, Step
from tests.faults.table import FOLDER_VARIABLE, WHOLE
from tests.ports_for_tests import PortsForTests, settings_for_tests
from tests.postgres_fixtures import open_folder

__all__ = ["art", "prefect_url"]

SLOT: Entry = {"number": 1, "prompt": "@Dario nods", "video_model": "kling_o1_reference", "seconds": 3}
STARTS = 5
FOR_EVER = 600
"""Seconds for which an answer stalls where the run is to be struck meanwhile: nobody waits for it."""

Strike = Callable[["Season"], None]


class WholeRun(NamedTuple):
    """A whole run: the sandbox's fault plan at its beginning, what is done to it meanwhile, and how it must end."""

    name: str
    fault: Fault
    plan: str
    strike: Strike | None = None
    how: str = "done"
    accepted: int = 1


class Season:
    """A season of one slot on its way through the command."""

    def __init__(self, home: Home, slug: str) -> None:
        self.home, self.slug = home, slug
        self.manifest = home.write(slug, [home.untrained("dario")], [SLOT], budget_usd=4)
        self.known = {job["request_id"] for job in home.vendor_jobs()}
        self.process: subprocess.Popen[str] | None = None
        self.told = ""
        self.clock_skew = timedelta()

    def start(self) -> subprocess.Popen[str]:
        self.process = self.home.start(self.manifest) if not self.clock_skew else self._start_skewed()
        return self.process

    def _start_skewed(self) -> subprocess.Popen[str]:
        """The same command under a clock that is off."""
        out = self.home.out(self.manifest)
        command = [sys.executable, "-m", "tests.faults.off_clock", str(self.clock_skew.total_seconds())]
        return subprocess.Popen(
            [*command, "run", str(self.manifest), "--json", "--out", str(out)],
            cwd=self.home.folder,
            env=self.home.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> Outcome:
        assert self.process is not None
        ended = self.home.finish(self.process)
        self.told = ended.told
        return ended

    def wait_for_fault(self) -> None:
        """Until the first rule of the sandbox's plan has struck."""
        wait_for(lambda: bool(control(self.home.sandbox_url, "GET", "faults")["faults"][0]["applied"]))

    def state(self) -> str:
        """Of the one job."""
        with psycopg.connect(ensure_server(self.home.home).url) as db, contextlib.suppress(psycopg.Error):
            row = db.execute(
                """SELECT state::text FROM onmodel.provider_jobs JOIN onmodel.seasons ON seasons.id = season_id
                   WHERE slug = %s""",
                (self.slug,),
            ).fetchone()
            return str(row[0]) if row else ""
        return ""

    def kill(self) -> None:
        assert self.process is not None
        end_hard(self.process)
        self.process = None
        set_faults(self.home.sandbox_url, "")


# --- what is done to a run ---


def kill_when_struck(season: Season) -> None:
    season.wait_for_fault()
    season.kill()


def kill_at_settlement(season: Season) -> None:
    """The season's budget is held by us, so that settling must wait; then the run is killed."""
    wait_for(lambda: season.state() in ("submitted", "running"))
    with psycopg.connect(ensure_server(season.home.home).url) as db:
        db.execute(
            """SELECT 1 FROM onmodel.budgets JOIN onmodel.seasons ON seasons.id = budgets.season_id
               WHERE slug = %s FOR UPDATE OF budgets""",
            (season.slug,),
        )
        me = db.execute("SELECT pg_backend_pid()").fetchone()
        assert me is not None
        with psycopg.connect(ensure_server(season.home.home).url, autocommit=True) as look:
            wait_for(
                lambda: (
                    look.execute(
                        "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))", me
                    ).fetchone()
                    != (0,)
                )
            )
        season.kill()


def stop_and_let_another_run(season: Season) -> None:
    season.wait_for_fault()
    stopped = season.process
    assert stopped is not None
    os.killpg(stopped.pid, signal.SIGSTOP)
    set_faults(season.home.sandbox_url, "")
    season.start()
    assert season.finish().exit_code == 0
    os.killpg(stopped.pid, signal.SIGCONT)
    season.process = stopped


def kill_postgres(season: Season) -> None:
    wait_for(lambda: season.state() in ("submitted", "running"))
    kill_database(season.home.home)


def kill_and_wait_an_hour(season: Season) -> None:
    """As if a job that never ends had been waited for until its limit: the time waited stands in its row."""
    wait_for(lambda: season.state() == "running")
    season.kill()
    with psycopg.connect(ensure_server(season.home.home).url) as db:
        db.execute("UPDATE onmodel.provider_jobs SET waited_seconds = 10 * 3600 WHERE state = 'running'")


def kill_and_set_the_clock(by: timedelta, season: Season) -> None:
    season.wait_for_fault()
    season.kill()
    season.clock_skew = by


STALLS = {
    Step.BEFORE_POST: f"upload:stall={FOR_EVER}#1",
    Step.AFTER_POST: f"submit:stall_after_accept={FOR_EVER}#1",
    Step.POLLING: f"status:stall={FOR_EVER}#1",
    Step.COMPLETION: f"result:stall={FOR_EVER}#1",
    Step.DOWNLOAD: f"file:stall={FOR_EVER}@*kling*#1",
}
RUNS = [
    *(WholeRun(f"SIGKILL of the run, {step}", Fault.KILL, plan, kill_when_struck) for step, plan in STALLS.items()),
    WholeRun("SIGKILL of the run, settlement", Fault.KILL, "job:slow=3", kill_at_settlement),
    WholeRun("SIGSTOP, a second run, SIGCONT", Fault.STOP, "status:stall=5#1", stop_and_let_another_run),
    WholeRun("SIGKILL of Postgres", Fault.DATABASE, "job:slow=4", kill_postgres),
    WholeRun("dropped after accept", Fault.DROP, "submit:drop_after_accept#1"),
    WholeRun("read timeout", Fault.STALL, f"submit:stall_after_accept={FOR_EVER}#1"),
    WholeRun("429 with a body", Fault.RATE_LIMIT, "submit:rate_limit_body=1#1"),
    WholeRun("500 to the POST, not taken", Fault.ERROR, "submit:refuse=500#1", how="exit 6", accepted=0),
    WholeRun("502 to the result", Fault.GATEWAY, "result:unavailable=502#1-2"),
    WholeRun("malformed JSON to the POST", Fault.MALFORMED, "submit:malformed#1"),
    WholeRun("job vanished", Fault.VANISHED, "status:vanish#1-3", how="exit 6"),
    WholeRun("result URL expired", Fault.EXPIRED, "file:expire_once@*kling*#1"),
    WholeRun("truncated file", Fault.TRUNCATED, "file:truncate@*kling*#1-2"),
    WholeRun("status never ends", Fault.ENDLESS, "job:never_ends#1", kill_and_wait_an_hour, how="exit 6"),
    WholeRun("unknown new status", Fault.UNKNOWN, "status:unknown_word=PAUSED#1-3"),
    WholeRun(
        "clock +1 day after a crash", Fault.CLOCK_AHEAD, STALLS[Step.AFTER_POST], partial(kill_and_set_the_clock, DAY)
    ),
    WholeRun(
        "clock -1 day after a crash", Fault.CLOCK_BACK, STALLS[Step.AFTER_POST], partial(kill_and_set_the_clock, -DAY)
    ),
]


@pytest.fixture(scope="module")
def home(prefect_url: str, art: Path) -> Iterator[Home]:
    """A home that the runs of one test process share, a season each."""
    folder = open_folder()
    found = Home(folder, prefect_url, art)
    ensure_server(found.home)
    found.open_sandbox()
    yield found
    found.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize("run", [pytest.param(run, id=f"{run.fault.name.lower()}-{n}") for n, run in enumerate(RUNS)])
def test_a_whole_run_ends_as_it_must(home: Home, run: WholeRun) -> None:
    season = Season(home, f"whole-{RUNS.index(run)}")
    set_faults(home.sandbox_url, run.plan)
    season.start()
    if run.strike is not None:
        run.strike(season)
    ended = season.finish() if season.process is not None else None
    for _ in range(STARTS):
        if ended is not None and ended.exit_code in (0, 6):
            break
        season.start()
        ended = season.finish()
    set_faults(home.sandbox_url, "")
    assert ended is not None
    count = counted(season, ended)
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        name = f"{WHOLE}{RUNS.index(run):02}_{run.name}".replace(" ", "_")
        (Path(folder) / f"{name}.json").write_text(count.model_dump_json())
    expected = (run.how, run.accepted, 0, 0, 0, ())
    assert expected == (count.ended, count.accepted, count.lost, count.over_cents, count.pods, count.problems), (
        f"{count}: {season.told}"
    )


def test_every_fault_strikes_a_whole_run() -> None:
    assert {run.fault for run in RUNS} == set(Fault)


def counted(season: Season, ended: Outcome) -> Count:
    """What a run came to, from the sandbox's journal, its shelf, and the tables."""
    home = season.home
    taken = [job for job in home.vendor_jobs(ELEMENTS) if job["request_id"] not in season.known]
    served = {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (home.home / "sandbox" / "files").glob("*/*.mp4")
    }
    ports = PortsForTests(settings_for_tests(home.home, ensure_server(home.home).url), {})
    try:
        season_id = ports.seasons.by_slug(season.slug).id
        (budget,) = ports.budgets.of_season(season_id)[:1]
        jobs = ports.ledger.jobs_of_season(season_id)
        files = [file for job in jobs if job.state is JobState.SUCCEEDED for file in job.files if file.role == "video"]
        lost = sum(1 for file in files if file.sha256 not in served or not ports.blobs.has(file.sha256))
        is_done = ended.exit_code == 0
        problems = []
        if is_done and any(not job.is_over for job in jobs):
            problems.append("a job is still open")
        if budget.reserved_usd and all(job.is_over for job in jobs):
            problems.append(f"{budget.reserved_usd} USD stay reserved")
        passed = max(budget.reserved_usd + budget.spent_usd - budget.limit_usd, Decimal(0)) + budget.overrun_usd
    finally:
        ports.close()
    return Count(
        ended="done" if is_done else f"exit {ended.exit_code}",
        accepted=len(taken),
        lost=lost + (is_done and not files),
        over_cents=int(100 * passed),
        problems=tuple(problems),
    )
