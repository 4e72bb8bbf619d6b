"""SIGKILL at the worst moments, and what the same command does afterwards: it goes on, and pays nothing twice."""

from __future__ import annotations

import os
import signal
from typing import Any

import psycopg
import pytest

from domain.jobs import JobState
from providers.postgres.embedded import ensure_server, server_status
from providers.sandbox.launcher import control
from tests.acceptance.season_homes import ELEMENTS, TRAINERS, Entry, Home, Studio, end_hard, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SLOT: Entry = {"number": 1, "prompt": "@Mei nods", "video_model": "kling_o1_reference", "seconds": 3}


def training(home: Home) -> tuple[Any, ...]:
    """State, attempt and last look of the one training in a home's ledger; empty as long as there is none."""
    with psycopg.connect(ensure_server(home.home).url) as db:
        try:
            rows = db.execute(
                "SELECT state::text, attempt, heartbeat_at FROM onmodel.provider_jobs WHERE stage = 'lora_training'"
            ).fetchall()
        except psycopg.errors.UndefinedTable:
            return ()
    assert len(rows) < 2, f"a second training was planned: {rows}"
    return rows[0] if rows else ()


def kill_sandbox_and_database(home: Home) -> None:
    sandbox = int(control(home.sandbox_url, "GET", "health")["pid"])
    database = server_status(home.home).process_id
    assert database is not None
    for pid in (sandbox, database):
        os.kill(pid, signal.SIGKILL)


def test_a_run_killed_while_training_goes_on_and_buys_no_second_training(own_home: Home) -> None:
    own_home.open_sandbox(latency="train=600")
    manifest = own_home.write("killed", [own_home.learned("mei")], [SLOT])
    process = own_home.start(manifest)
    wait_for(lambda: training(own_home)[:2] == ("running", 1))
    end_hard(process)

    # The second run waits for the same training, and dies together with the sandbox and the database.
    last_look = training(own_home)[2]
    process = own_home.start(manifest)
    wait_for(lambda: training(own_home)[2] > last_look)
    assert own_home.posts(TRAINERS) == own_home.accepted(TRAINERS) == 1
    end_hard(process)
    kill_sandbox_and_database(own_home)

    own_home.open_sandbox()
    ended = own_home.run_apart(manifest)
    assert ended.exit_code == 0, ended.told
    assert ended.lora("Mei")["status"] == "ready"
    assert ended.routes(1) == {"Mei": "elements"}
    assert (own_home.accepted(TRAINERS), own_home.posts(TRAINERS)) == (1, 0)
    assert training(own_home)[:2] == ("succeeded", 1)


@pytest.mark.parametrize(("what", "endpoint"), [("training", TRAINERS), ("video", ELEMENTS)])
def test_a_run_killed_before_the_vendors_id_was_stored_sends_nothing_again(
    studio: Studio, what: str, endpoint: str
) -> None:
    character = studio.learned("mei") if what == "training" else studio.untrained("mei")
    manifest = studio.write(f"unanswered-{what}", [character], [SLOT])
    before, known = studio.posts(), studio.accepted(endpoint)
    with studio.faults(f"submit:stall_after_accept=600@{endpoint}"):
        process = studio.start(manifest)
        wait_for(lambda: studio.accepted(endpoint) == known + 1)
        (job,) = studio.jobs(manifest)
        assert job.state is JobState.SUBMITTING
        end_hard(process)

    with studio.faults("list:hide"):
        ended = studio.run(manifest)
    assert ended.exit_code == 6, ended.told
    assert job.key[:12] in ended.told
    assert [(one.key, one.state) for one in studio.jobs(manifest)] == [(job.key, JobState.SUBMISSION_UNKNOWN)]
    assert studio.posts() == before + 1
    assert ended.slot(1)["state"] == ("planned" if what == "training" else "waiting")

    # Once the vendor's list shows it, it is adopted, and the season is finished with it.
    ended = studio.run(manifest)
    assert ended.exit_code == 0, ended.told
    assert studio.ports.ledger.get(job.key).state is JobState.SUCCEEDED
    assert studio.accepted(endpoint) == known + 1
