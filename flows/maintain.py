"""Tidy up after crashes, every ten minutes: jobs nobody watches, runs that died, machines without a job, old files."""

from __future__ import annotations

import asyncio

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.running import in_thread
from tasks.maintaining import maintenance_note, tidy_task


@flow(name="maintain", flow_run_name="upkeep", log_prints=False)
async def maintain() -> int:
    """Take up what crashes left behind, and leave a report; returns its exit code.

    6 when something waits for a person, 5 when a step failed, else 0. Costs nothing, never sends a job, and is safe to
    run at any time: two never work at once. By hand: onmodel maintain, which only says what it would do.
    """
    number = await in_thread(tidy_task)
    note, exit_code = await asyncio.to_thread(maintenance_note, number)
    await create_markdown_artifact(note, key="maintenance", description="What upkeep did last")  # type: ignore[misc]
    return exit_code
