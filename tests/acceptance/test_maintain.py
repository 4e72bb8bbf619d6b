"""A real Prefect server and worker: cancelling a run stops what it bought, and one that was killed is started again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled, Cancelling, Running

from domain.jobs import JobState, ProviderJob, VendorState
from domain.runs import SeasonRun
from providers.sandbox.launcher import control, find_sandbox, set_faults
from providers.settings import Settings
from providers.wiring import Ports
from tasks.dead_runs import take_up_dead_runs
from tasks.jobs import plan_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.acceptance.test_serve import PATIENCE_SECONDS, folder, found, processes_of, start, wait_for
from tests.ports_for_tests import PortsForTests, new_database, settings_for_tests, store_season
from tests.postgres.door_orders import order_in

__all__ = ["folder"]

FIRST_NEVER_ENDS_SECOND_IS_SLOW = "job:never_ends#1,job:slow=8#2"


class Stage:
    """A served home: Prefect's API, our tables and the sandbox, side by side."""

    def __init__(self, home: Path, api: httpx.Client) -> None:
        self.api = api
        self.ports = Ports(Settings.from_environ({"ONMODEL_HOME": str(home)}))
        sandbox = find_sandbox(home)
        assert sandbox is not None
        self.sandbox_url = sandbox.url

    def start_run(self, deployment: str, **parameters: str) -> str:
        (found_one,) = found(self.api, "deployments", deployments={"name": {"any_": [deployment]}})
        answer = self.api.post(f"deployments/{found_one['id']}/create_flow_run", json={"parameters": parameters})
        run_id: str = answer.raise_for_status().json()["id"]
        return run_id

    def state(self, run_id: str) -> str:
        state: str = self.api.get(f"flow_runs/{run_id}").raise_for_status().json()["state"]["type"]
        return state

    def is_buying(self, run_id: str, states: list[JobState]) -> bool:
        """Whether the season's jobs stand so; the run that buys them must not have ended before."""
        assert self.state(run_id) not in ("FAILED", "CRASHED", "CANCELLED")
        return [job.state for job in self.jobs()] == states

    def season_runs(self) -> list[dict[str, Any]]:
        (deployment,) = found(self.api, "deployments", deployments={"name": {"any_": ["render-season"]}})
        return found(self.api, "flow_runs", flow_runs={"deployment_id": {"any_": [deployment["id"]]}})

    def vendor_jobs(self) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = control(self.sandbox_url, "GET", "jobs")
        return jobs

    def jobs(self) -> list[ProviderJob]:
        return self.ports.ledger.jobs_of_season(self.ports.seasons.by_slug("little").id)

    def alive(self) -> list[SeasonRun]:
        return self.ports.runs.alive(self.ports.seasons.by_slug("little").id)


@contextmanager
def served(folder: Path) -> Iterator[Stage]:
    """`onmodel serve` of a home in which the little season is known."""
    # The worker looks for runs every second instead of every ten: five of them are started here one after another.
    serve = start(folder, "serve", "--port", "4390", PREFECT_WORKER_QUERY_SECONDS="1")
    assert serve.stdout is not None
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", serve.stdout.readline())
        assert address is not None, serve.communicate()[1]
        imported = start(folder, "season", "import", "season.yaml")
        assert imported.communicate(timeout=PATIENCE_SECONDS) and imported.returncode == 0
        with httpx.Client(base_url=f"{address.group()}/api/", trust_env=False, timeout=30) as api:
            stage = Stage(folder / "home", api)
            try:
                yield stage
            finally:
                stage.ports.close()
        serve.send_signal(signal.SIGTERM)
        serve.communicate(timeout=60)
    finally:
        if serve.poll() is None:
            end_hard(serve)
        wait_for("Prefect's processes are gone", lambda: not processes_of(folder))


def end_hard(serve: subprocess.Popen[str]) -> None:
    os.killpg(serve.pid, signal.SIGKILL)
    serve.communicate()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_cancelled_run_stops_its_vendors_jobs_and_a_killed_one_is_started_again(folder: Path) -> None:
    with served(folder) as stage:
        set_faults(stage.sandbox_url, FIRST_NEVER_ENDS_SECOND_IS_SLOW)
        cancel_from_prefects_pages(stage)
        kill_and_maintain(stage)


def cancel_from_prefects_pages(stage: Stage) -> None:
    run_id = stage.start_run("render-season", season="little")
    wait_for("the vendor has the job", lambda: stage.is_buying(run_id, [JobState.RUNNING]))
    assert [run.flow_run_id for run in stage.alive()] == [run_id]
    stage.api.post(f"flow_runs/{run_id}/set_state", json={"state": {"type": "CANCELLING"}}).raise_for_status()
    wait_for("the run is cancelled", lambda: stage.state(run_id) == "CANCELLED")
    (job,) = stage.jobs()
    assert (job.state, job.billed_usd) == (JobState.CANCELLED, job.estimate_usd)
    (vendor_job,) = stage.vendor_jobs()
    assert vendor_job["outcome"]["error_type"] == "client_cancelled"
    assert (stage.alive(), stage.ports.runs.dead()) == ([], [])


def kill_and_maintain(stage: Stage) -> None:
    killed = stage.start_run("render-season", season="little")
    states = [JobState.CANCELLED, JobState.RUNNING]
    wait_for("the vendor has the second job", lambda: stage.is_buying(killed, states))
    (run,) = stage.alive()
    os.kill(run.process_id, signal.SIGKILL)
    wait_for("Prefect knows that it crashed", lambda: stage.state(killed) == "CRASHED")
    assert stage.jobs()[1].cancel_requested_at is None
    upkeep = [stage.start_run("maintain")]

    def has_run() -> bool:
        if stage.state(upkeep[-1]) == "CANCELLED":  # the schedule's own was at work just then
            upkeep.append(stage.start_run("maintain"))
        return stage.state(upkeep[-1]) == "COMPLETED"

    wait_for("upkeep has run", has_run)
    assert stage.ports.runs.dead() == []
    wait_for("it is started again", lambda: len(stage.season_runs()) == 3)
    again = next(
        one["id"] for one in stage.season_runs() if one["name"] and one["id"] != killed and one["idempotency_key"]
    )
    wait_for("the season is finished", lambda: stage.state(again) == "COMPLETED")
    assert [job.state for job in stage.jobs()] == [JobState.CANCELLED, JobState.SUCCEEDED]
    assert len(stage.vendor_jobs()) == 2
    artifacts = {row["key"]: row for row in found(stage.api, "artifacts")}
    assert "Prefect starts it again" in artifacts["maintenance"]["data"]


# --- what Prefect knows of a run decides what becomes of it ---


@pytest.fixture
def ports(server_url: str, tmp_path: Path) -> Iterator[PortsForTests]:
    with new_database(server_url) as url:
        ports = PortsForTests(settings_for_tests(tmp_path, url), {"sandbox": StandinVendor(states=STOPPED_WHEN_ASKED)})
        yield ports
        ports.close()


STOPPED_WHEN_ASKED = (VendorState.QUEUED, VendorState.CANCELLED)


@pytest.mark.usefixtures("prefect_url")
def test_a_run_that_died_is_started_again_once_and_a_cancelled_one_never(ports: PortsForTests) -> None:
    @flow(name="stands-for-render-season")
    def stand_in() -> None: ...

    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(stand_in)
        deployment = client.create_deployment(flow_id, name="stands-for-it")
        runs = [client.create_flow_run(stand_in, state=state) for state in (Running(), Cancelled(), Cancelling())]
        died, cancelled, cancelling = (str(run.id) for run in runs)
        for number, run_id in enumerate((died, cancelled, cancelling)):
            with ports.runs.running(store_season(ports, f"season-{number}"), run_id, str(deployment)):
                pass
        bought = [buy_for(ports, number, run_id) for number, run_id in enumerate((died, cancelled, cancelling))]
        would = take_up_dead_runs(ports, is_dry_run=True)
        assert len(ports.runs.dead()) == 3
        assert sum("would be started again" in line for line in would.did) == 1
        assert sum("would be cancelled" in line for line in would.did) == 2
        report = take_up_dead_runs(ports, is_dry_run=False)
        assert sum("Prefect starts it again" in line for line in report.did) == 1
        assert [ports.ledger.get(key).state for key in bought] == [
            JobState.SUBMITTED, JobState.CANCELLED, JobState.CANCELLED
        ]  # fmt: skip
        assert ports.runs.dead() == []
        # As if the process had died between starting it and noting that: it is the same run that is started.
        with ports.database.transaction() as db:
            db.execute("UPDATE season_runs SET ended_at = NULL WHERE flow_run_id = %s", (died,))
        take_up_dead_runs(ports, is_dry_run=False)
        assert take_up_dead_runs(ports, is_dry_run=False).did == ()
        mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
        (started,) = client.read_flow_runs(flow_run_filter=mine)
        assert started.parameters == {"season": "season-0"}


def buy_for(ports: PortsForTests, number: int, flow_run_id: str) -> str:
    """A job that a run inside a Prefect run has submitted."""
    key = plan_job(ports, order_in(ports, ports.seasons.by_slug(f"season-{number}").id))
    ports.ledger.note_flow_run(key, f"inside-{flow_run_id}", flow_run_id)
    submit_job(ports, key)
    return key


@pytest.mark.usefixtures("prefect_url")
def test_a_run_whose_deployment_is_gone_is_told_with_the_command_that_goes_on(ports: PortsForTests) -> None:
    with ports.runs.running(store_season(ports, "orphan"), None, "11111111-1111-4111-8111-111111111111"):
        pass
    (line,) = take_up_dead_runs(ports, is_dry_run=False).did
    assert "onmodel run, with its manifest" in line


def test_a_run_of_prefects_waits_for_its_server_where_none_is_known(ports: PortsForTests) -> None:
    with ports.runs.running(store_season(ports, "orphan"), None, "11111111-1111-4111-8111-111111111111"):
        pass
    with temporary_settings({PREFECT_API_URL: None}):
        (wait,) = take_up_dead_runs(ports, is_dry_run=False).waits
        assert "export PREFECT_API_URL" in wait
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        (problem,) = take_up_dead_runs(ports, is_dry_run=False).problems
        assert "http://127.0.0.1:9/api" in problem
    assert len(ports.runs.dead()) == 1
