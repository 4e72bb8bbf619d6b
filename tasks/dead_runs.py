"""Runs that died with their machine: started again where Prefect can, else told, with the command that goes on.

And runs that were cancelled in Prefect while nobody was there to stop what they had bought.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from domain.errors import NeedsPerson, OnModelError, Unavailable
from domain.runs import SeasonRun
from domain.upkeep import StepReport, UpkeepStep
from tasks.cancelling import cancel_jobs_of_run

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.runs")

BY_HAND = "The same command goes on where it was: onmodel run, with its manifest."
CANCELLED = frozenset({"CANCELLED", "CANCELLING"})


def take_up_dead_runs(ports: Ports, *, is_dry_run: bool) -> StepReport:
    """Start the seasons again whose runs died, once each, and follow runs that were cancelled in Prefect.

    Free and safe to repeat: a run is started at most once for each that died. A season that is finished by now, has
    another run at work or was cancelled by a person is not started; one that was run by hand is told.
    """
    did, waits, problems = [], [], []
    dead = ports.runs.dead()
    for run in reversed(dead):  # the newest of a season is the one that is started again
        try:
            did.append(_take_up(ports, run, dead, is_dry_run=is_dry_run))
        except NeedsPerson as error:
            waits.append(error.message)
        except OnModelError as error:
            problems.append(f"The run {run.id} that died could not be taken up: {error.message}")
    for flow_run_id in ports.upkeep.runs_at_work():
        try:
            did += _follow_cancelled(ports, flow_run_id, is_dry_run=is_dry_run)
        except OnModelError as error:
            problems.append(f"Prefect could not be asked about its run {flow_run_id}: {error.message}")
            break
    return StepReport(step=UpkeepStep.RUNS, did=tuple(did), waits=tuple(waits), problems=tuple(problems))


def _take_up(ports: Ports, run: SeasonRun, dead: list[SeasonRun], *, is_dry_run: bool) -> str:
    season = ports.seasons.get(run.season_id)
    who = f"The run of {season.slug} on {run.machine}, process {run.process_id},"
    how = "died"
    if season.finished_sha256 == season.manifest_sha256:
        line = f"{who} died, and the season is finished meanwhile."
    elif ports.runs.alive(season.id):
        line = f"{who} died, and another run is at work on it."
    elif any(other.id > run.id and other.season_id == run.season_id for other in dead):
        line = f"{who} died, and so did a later one."
    elif run.flow_run_id is not None and _prefects_state(run.flow_run_id) in CANCELLED:
        how, line = "interrupted", f"{who} was cancelled by a person and is not started again."
    elif run.deployment_id is None:
        line = f"{who} died. {BY_HAND}"
    elif is_dry_run:
        line = f"{who} died: it would be started again by Prefect."
    else:
        name = _start_again(run, season.slug, who)
        line = f"{who} died: Prefect starts it again as {name}." if name else f"{who} died. {BY_HAND}"
    if not is_dry_run:
        ports.runs.end(run.id, None, how)
        log.warning("%s", line)
    return line


def _follow_cancelled(ports: Ports, flow_run_id: str, *, is_dry_run: bool) -> list[str]:
    """What a run that a person cancelled has still bought; Prefect itself cancels no run inside another (3.8.8)."""
    if _prefects_state(flow_run_id) not in CANCELLED:
        return []
    jobs = ports.ledger.jobs_of_run(flow_run_id)
    if is_dry_run:
        return [f"{job.key[:12]} would be cancelled, because its run was cancelled in Prefect." for job in jobs]
    return [
        f"{key[:12]} is {state}, after its run was cancelled in Prefect."
        for key, state in cancel_jobs_of_run(ports, flow_run_id)
    ]


def _prefects_state(flow_run_id: str) -> str | None:
    """The type of a run's state; None where no server is known to us, or it does not know the run."""
    if not PREFECT_API_URL.value():
        return None
    try:
        with _client() as client:
            state = client.read_flow_run(UUID(flow_run_id)).state
    except (ObjectNotFound, ValueError):
        return None
    except Exception as error:
        raise _unanswered(error) from error
    return state.type.value if state is not None else None


def _start_again(run: SeasonRun, slug: str, who: str) -> str | None:
    """Have Prefect start the deployment: the new run's name, the same when asked again; None when it is gone."""
    assert run.deployment_id is not None
    if not PREFECT_API_URL.value():
        raise NeedsPerson(
            f"{who} died. Prefect had started it, and no Prefect is known here: export PREFECT_API_URL=… and run "
            "onmodel maintain --apply again."
        )
    try:
        with _client() as client:
            client.read_deployment(UUID(run.deployment_id))
            started = client.create_flow_run_from_deployment(
                UUID(run.deployment_id), parameters={"season": slug}, idempotency_key=f"onmodel-after-run-{run.id}"
            )
    except ObjectNotFound:
        return None
    except Exception as error:
        raise _unanswered(error) from error
    return started.name


def _client() -> SyncPrefectClient:
    return get_client(sync_client=True)


def _unanswered(error: Exception) -> Unavailable:
    first = next(iter(str(error).splitlines()), "")
    return Unavailable(
        f"Prefect at {PREFECT_API_URL.value()} did not do it ({type(error).__name__}: {first}): it is tried again."
    )
