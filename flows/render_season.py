"""Render a season: train whom it has to, make their references, render every open slot, assemble, account."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, NamedTuple

from prefect import flow
from pydantic import Field

from domain.errors import (
    AsksForBudget,
    NeedsPerson,
    OutOfCredit,
    OverBudget,
    Retryable,
    SubmissionUnknown,
    worst_exit_code,
)
from flows.generate_references import generate_references
from flows.render_slot import render_slot
from flows.running import in_thread, one_client
from flows.train_character import gather_material, train_character
from flows.words import SeasonSlug, publish_season
from tasks.assembly import assemble_season_task
from tasks.cancelling import stop_paid_work
from tasks.lookups import SeasonWork, character_work_task, season_exit_codes_task, season_work_task
from tasks.season_runs import at_work_on
from tasks.training import note_short_budget_task

log = logging.getLogger("onmodel.flows")

STOPS = OverBudget.exit_code
"""Nothing more is bought for a season that is out of money: not even slots without their LoRA."""

WAITS = SubmissionUnknown.exit_code


class Stop(NamedTuple):
    """What stopped a character: its exit code, 0 for nothing; `is_alone` when only its own budget is short."""

    exit_code: int = 0
    is_alone: bool = False


SlotsAtOnce = Annotated[int, Field(ge=1, le=40)]


@flow(name="render-season", flow_run_name="season {season}", on_cancellation=[stop_paid_work], log_prints=False)
async def render_season(season: SeasonSlug, slots_at_once: SlotsAtOnce = 4) -> int:
    """Bring a season as far as it can go; returns the exit code of the run (0 when nothing is left to do).

    Safe to run again at any time: what is done stays done, and nothing is paid twice. A character that cannot be
    learned and a slot that fails are reported, and the rest goes on.

    Args:
        season: The season's slug, as in its manifest. It must have been imported: onmodel season import season.yaml
        slots_at_once: Slots rendered side by side.
    """
    with one_client():
        work = await in_thread(season_work_task, season)
        async with at_work_on(work.season_id) as run:
            cast = [await in_thread(character_work_task, season, name) for name in work.character_names]
            await asyncio.gather(*(gather_material(character) for character in cast))
            stops = await asyncio.gather(*(_prepare(season, name) for name in work.character_names))
            if not any(stop.exit_code == STOPS and not stop.is_alone for stop in stops):
                await _render_slots(season, work, stops, slots_at_once)
            await in_thread(assemble_season_task, work.season_id)
            await publish_season(season)
            run.exit_code = worst_exit_code(
                [*(stop.exit_code for stop in stops), *await in_thread(season_exit_codes_task, work.season_id)]
            )
        return run.exit_code


async def _render_slots(season: str, work: SeasonWork, stops: list[Stop], slots_at_once: int) -> None:
    """Every open slot, some at a time. A slot whose character waits for a person waits too: it never falls back."""
    waits = (stop.exit_code == WAITS or stop.is_alone for stop in stops)
    waiting = {name for name, is_waiting in zip(work.character_names, waits, strict=True) if is_waiting}
    turn = asyncio.Semaphore(slots_at_once)

    async def render(number: int) -> None:
        async with turn:
            await render_slot(season, number)

    await asyncio.gather(*(render(slot.number) for slot in work.open_slots if not waiting & set(slot.cast)))


async def _prepare(season: str, character: str) -> Stop:
    """Train a character and make its references; what stopped it, if anything. The season goes on."""
    try:
        await train_character(season, character)
        await generate_references(season, character)
    except (OverBudget, OutOfCredit, SubmissionUnknown, NeedsPerson, Retryable) as error:
        log.error("%s: %s", character, error.message)
        is_short = isinstance(error, OverBudget | AsksForBudget)
        is_alone = is_short and await in_thread(note_short_budget_task, season, character, error.message)
        return Stop(error.exit_code, is_alone)
    return Stop()
