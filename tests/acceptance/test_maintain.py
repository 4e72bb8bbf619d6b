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

from domain.jobs import JobState, ProviderJob
from domain.runs import SeasonRun
from providers.sandbox.launcher import control, find_sandbox, set_faults
from providers.settings import Settings
from providers.wiring import Ports
from tests.acceptance.test_serve import PATIENCE_SECONDS, folder, found, processes_of, start, wait_for

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
    serve = start(folder, "serve", "--port", "4390")
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
    wait_for("the vendor has the job", lambda: [job.state for job in stage.jobs()] == [JobState.RUNNING])
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
    wait_for("the vendor has the second job", lambda: [job.state for job in stage.jobs()][1:] == [JobState.RUNNING])
    (run,) = stage.alive()
    os.kill(run.process_id, signal.SIGKILL)
    wait_for("Prefect knows that it crashed", lambda: stage.state(killed) == "CRASHED")
    assert stage.jobs()[1].cancel_requested_at is None
    upkeep = stage.start_run("maintain")
    wait_for("upkeep has run", lambda: stage.state(upkeep) == "COMPLETED")
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
