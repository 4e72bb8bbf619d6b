"""What a Prefect server needs beside its deployments: the work pool, the watch over dead machines, clean schedules.

Safe to run again and again: `PREFECT_API_URL=… python -m deployments.setup`. `onmodel serve` does it before it deploys.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect.automations import Automation
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists

PROJECT_FILE = Path(__file__).resolve().parents[1] / "prefect.yaml"
POOL = "onmodel"
HEARTBEATS_MISSED_SECONDS = 540
"""Three times Prefect's heartbeat of 180 s; less marks healthy runs as dead (prefect.md section 5)."""

ZOMBIES = "onmodel: runs whose machine died"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


async def set_up() -> None:
    """Make the server ready; what is there already is brought up to date."""
    async with get_client() as client:
        await _make_work_pool(client)
        await _watch_for_zombies(client)
        await _clear_old_schedules(client)


async def _make_work_pool(client: PrefectClient) -> None:
    try:
        await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    except ObjectAlreadyExists:
        return


async def _watch_for_zombies(client: PrefectClient) -> None:
    """A run that stops beating without an end is marked crashed; without this it stays Running for ever."""
    for known in await client.read_automations_by_name(ZOMBIES):
        await client.delete_automation(known.id)
    heartbeat = "prefect.flow-run.heartbeat"
    await Automation(
        name=ZOMBIES,
        description="Marks a run as crashed when its machine is gone; started again, it goes on where it was.",
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *(f"prefect.flow-run.{end}" for end in _ENDS)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=HEARTBEATS_MISSED_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                message="Its heartbeat stopped: the machine it ran on is gone. Run it again.",
                force=False,
            )
        ],
    ).acreate()


async def _clear_old_schedules(client: PrefectClient) -> None:
    """Take away schedules that left the file: Prefect itself keeps them running (prefect.md section 3)."""
    for name, slugs in wanted_schedules().items():
        for deployment in await client.read_deployments():
            if deployment.name != name:
                continue
            for schedule in deployment.schedules:
                if schedule.slug not in slugs:
                    await client.delete_deployment_schedule(deployment.id, schedule.id)


def wanted_schedules() -> dict[str, set[str]]:
    """The slugs of each deployment's schedules, as prefect.yaml has them."""
    deployments: list[dict[str, Any]] = yaml.safe_load(PROJECT_FILE.read_text("utf-8"))["deployments"]
    return {
        entry["name"]: {schedule["slug"] for schedule in entry.get("schedules") or [] if "slug" in schedule}
        for entry in deployments
    }


if __name__ == "__main__":
    asyncio.run(set_up())
