"""Render one slot: choose each character's route, draw its stills, film it, and fall back where a way fails."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from domain.applications import RETRIES, STILL_BACKOFF_SECONDS, Route
from domain.errors import (
    BadInput,
    JobFailed,
    NeedsPerson,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    OverBudget,
    Rejected,
    SubmissionUnknown,
)
from flows.running import buy, buy_all, in_thread
from flows.words import SeasonSlug, SlotNumber
from tasks.application import fall_back_task, start_render_task
from tasks.cancelling import stop_paid_work
from tasks.identity import score_render_task
from tasks.lookups import is_rendered_task, render_routes_task, season_id_task, use_lora_task
from tasks.rendering import (
    end_render_task,
    finish_render_task,
    keep_render_task,
    leading_route,
    plan_slot_video_task,
)
from tasks.slot_stills import plan_slot_stills_task

LoraId = Annotated[int | None, Field(ge=1)]

HOPELESS = (JobFailed, Rejected, BadInput)
"""The way itself failed: the next route of the table is taken."""


@flow(name="render-slot", flow_run_name="slot {slot} of {season}", on_cancellation=[stop_paid_work], log_prints=False)
async def render_slot(season: SeasonSlug, slot: SlotNumber, lora_id: LoraId = None) -> int:
    """Render a slot on-model; returns the render's id. The run itself does not fail for a slot that did.

    Safe to run again: a finished slot is left alone, an interrupted one goes on where it was. Costs the slot's video
    and at most one still per base model and attempt.

    Args:
        season: The season's slug, as in its manifest. It must have been imported: onmodel season import season.yaml
        slot: The number of the slot to render, 1 to 75.
        lora_id: Use this existing LoRA for its character instead of the newest one; ids: onmodel status.
    """
    season_id = await in_thread(season_id_task, season)
    if lora_id is not None:
        await in_thread(use_lora_task, season_id, slot, lora_id)
    render_id = await in_thread(start_render_task, season_id, slot)
    if await in_thread(is_rendered_task, render_id):
        return render_id
    try:
        await _film(render_id)
    except OnModelError as error:
        is_waiting = isinstance(error, SubmissionUnknown | NeedsPerson | OverBudget | OutOfCredit)
        await in_thread(end_render_task, render_id, is_waiting, error.message, error.exit_code or 5)
        if isinstance(error, NotConfigured):
            raise
        return render_id
    await in_thread(score_render_task, render_id)
    await in_thread(finish_render_task, render_id)
    return render_id


async def _film(render_id: int) -> None:
    """Down the table until the slot has its clip; raises what stopped it when no way is left.

    When the film itself fails, the characters on its highest route step down; the others keep theirs.
    """
    while True:
        await _draw_stills(render_id)
        routes = await in_thread(render_routes_task, render_id)
        leading = leading_route(routes)
        attempts = 1 + RETRIES[leading]
        try:
            key = await in_thread(plan_slot_video_task, render_id, attempts)
            key = await buy(key, max_attempts=attempts, backoff_seconds=STILL_BACKOFF_SECONDS)
        except HOPELESS as failure:
            if not await in_thread(fall_back_task, render_id, failure.message, [leading], None):
                raise
        else:
            await in_thread(keep_render_task, render_id, key)
            return


async def _draw_stills(render_id: int) -> None:
    """The stills; the characters of one that cannot be drawn fall back, the others keep theirs. One that falls from its
    LoRA to its face gets that still too."""
    attempts = 1 + RETRIES[Route.PREPROCESSED]
    keys = await in_thread(plan_slot_stills_task, render_id, attempts)
    has_fallen = False
    for bought in await buy_all(keys, max_attempts=attempts, backoff_seconds=STILL_BACKOFF_SECONDS):
        if isinstance(bought, HOPELESS):
            stills = [Route.PREPROCESSED, Route.FACE_STILL]
            has_fallen |= await in_thread(fall_back_task, render_id, bought.message, stills, bought.job_key)
        elif isinstance(bought, OnModelError):
            raise bought
    if has_fallen:
        await _draw_stills(render_id)
