"""Runs of seasons on real tables: known while they are at work, dead when their process is, never two of a kind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from providers.postgres.ledger import lock_number
from tasks.season_runs import known_at_work, when_interrupted
from tests.command_runs import ROOT
from tests.ports_for_tests import PortsForTests, store_season
from tests.postgres.door_orders import slugs


@pytest.fixture
def season_id(shared: PortsForTests) -> int:
    return store_season(shared, next(slugs))


@pytest.fixture(autouse=True)
def no_open_runs(shared: PortsForTests) -> Iterator[None]:
    yield
    with shared.database.transaction() as db:
        db.execute("DELETE FROM season_runs")


def how_it_ended(ports: PortsForTests, season_id: int) -> tuple[str, int | None]:
    with ports.database.transaction() as db:
        row = db.execute(
            "SELECT how_it_ended, exit_code FROM season_runs WHERE season_id = %s", (season_id,)
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def test_a_run_is_alive_while_it_is_at_work_and_done_with_its_exit_code(shared: PortsForTests, season_id: int) -> None:
    async def work() -> None:
        async with known_at_work(shared, season_id, "flow-run", "deployment") as run:
            (alive,) = shared.runs.alive(season_id)
            assert (alive.id, alive.flow_run_id, alive.deployment_id) == (run.run_id, "flow-run", "deployment")
            assert alive.process_id == os.getpid()
            assert shared.runs.dead() == []
            run.exit_code = 6

    asyncio.run(work())
    assert how_it_ended(shared, season_id) == ("done", 6)
    assert (shared.runs.alive(season_id), shared.runs.dead()) == ([], [])


def test_a_run_that_an_error_left_has_failed_and_is_not_started_again(shared: PortsForTests, season_id: int) -> None:
    async def work() -> None:
        async with known_at_work(shared, season_id, None, "deployment"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(work())
    assert how_it_ended(shared, season_id) == ("failed", None)
    assert shared.runs.dead() == []


@pytest.mark.parametrize(("deployment_id", "how", "is_dead"), [(None, "interrupted", False), ("deployment", "", True)])
def test_ctrl_c_ends_a_run_by_hand_and_a_shut_down_leaves_prefects_to_be_started_again(
    shared: PortsForTests, season_id: int, deployment_id: str | None, how: str, is_dead: bool
) -> None:
    async def work() -> None:
        async with known_at_work(shared, season_id, None, deployment_id):
            await asyncio.Event().wait()

    async def interrupted() -> None:
        run = asyncio.ensure_future(work())
        while not await asyncio.to_thread(shared.runs.alive, season_id):
            await asyncio.sleep(0.01)
        run.cancel()
        await run

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted())
    assert how_it_ended(shared, season_id) == (how, None)
    assert [run.season_id for run in shared.runs.dead()] == ([season_id] if is_dead else [])


def test_an_interrupted_run_by_hand_is_noted_before_its_threads_are_done(shared: PortsForTests, season_id: int) -> None:
    async def work() -> None:
        async with known_at_work(shared, season_id, None, None):
            when_interrupted()
            assert how_it_ended(shared, season_id) == ("interrupted", None)

    asyncio.run(work())
    assert how_it_ended(shared, season_id) == ("interrupted", None)


AT_WORK = """
import asyncio, sys
from pathlib import Path
from tasks.season_runs import known_at_work
from tests.ports_for_tests import PortsForTests, settings_for_tests
async def work():
    ports = PortsForTests(settings_for_tests(Path(sys.argv[1]), sys.argv[2]), {})
    async with known_at_work(ports, int(sys.argv[3]), "flow-run", "deployment"):
        print("at work", flush=True)
        await asyncio.Event().wait()
asyncio.run(work())
"""


def test_a_run_whose_process_is_killed_is_dead(shared: PortsForTests, season_id: int) -> None:
    assert shared.settings.database_url is not None
    url = shared.settings.database_url.get_secret_value()
    words = [sys.executable, "-c", AT_WORK, str(shared.settings.home), url, str(season_id)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        assert shared.runs.dead() == []
        (alive,) = shared.runs.alive(season_id)
        assert alive.process_id == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    wait_until_dead(shared, season_id)
    shared.runs.end(alive.id, None, "died")
    assert shared.runs.dead() == []


def wait_until_dead(ports: PortsForTests, season_id: int) -> None:
    """The server notices within moments that a client is gone."""
    for _ in range(400):
        if [run.season_id for run in ports.runs.dead()] == [season_id]:
            return
        ports.clock.sleep(0.0)
    raise AssertionError("the run is not known as dead")


def test_a_run_whose_connection_is_cut_takes_its_lock_again(
    shared: PortsForTests, season_id: int, server_url: str
) -> None:
    async def work() -> None:
        async with known_at_work(shared, season_id, None, "deployment", look_seconds=0.02) as run:
            assert await asyncio.to_thread(cut_connection, server_url, run.run_id)
            for _ in range(500):
                if await asyncio.to_thread(shared.runs.alive, season_id):
                    break
                await asyncio.sleep(0.01)
            else:
                raise AssertionError("the lock was not taken again")

    asyncio.run(work())
    assert how_it_ended(shared, season_id) == ("done", 0)


def cut_connection(server_url: str, run_id: int) -> bool:
    """End the server's process that holds the lock of a run, as a restart of the database would."""
    number = lock_number(f"season-run:{run_id}")
    with psycopg.connect(server_url, autocommit=True) as db:
        row = db.execute(
            """SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted
               AND classid = %s::bigint::bit(64)::bit(32)::bigint::oid
               AND objid = (%s::bigint::bit(64) << 32)::bit(32)::bigint::oid""",
            (number, number),
        ).fetchone()
    return row is not None and row[0] == 1


def test_only_one_process_at_a_time_has_a_name(shared: PortsForTests) -> None:
    beside = shared.beside()
    with shared.runs.only_one("test") as is_ours, beside.runs.only_one("test") as is_theirs:
        assert (is_ours, is_theirs) == (True, False)
        with beside.runs.only_one("another") as is_another:
            assert is_another
    with beside.runs.only_one("test") as is_theirs:
        assert is_theirs
    beside.close()


def test_the_runs_of_a_prefect_run_are_ended_by_its_id_and_the_first_word_stands(
    shared: PortsForTests, season_id: int
) -> None:
    with shared.runs.running(season_id, "a-prefect-run", "deployment"):
        shared.upkeep.end_runs_of("another", "interrupted")
        assert len(shared.runs.alive(season_id)) == 1
        shared.upkeep.end_runs_of("a-prefect-run", "interrupted")
        assert shared.runs.alive(season_id) == []
        shared.upkeep.end_runs_of("a-prefect-run", "died")
    assert how_it_ended(shared, season_id)[0] == "interrupted"
