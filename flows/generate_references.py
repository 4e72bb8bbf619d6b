"""Generate a character's reference set with its ready LoRA, and pin it (or wait for a person's nod)."""

from __future__ import annotations

from prefect import flow

from domain.characters import LoraStatus
from domain.errors import OnModelError
from flows.running import buy_all, in_thread
from flows.words import CharacterName, SeasonSlug
from tasks.cancelling import stop_paid_work
from tasks.lookups import character_work_task, lora_status_task, stills_base_task
from tasks.references import (
    ask_for_review_task,
    keep_references_task,
    pin_character_task,
    plan_references_task,
)


@flow(
    name="generate-references",
    flow_run_name="references of {character} in {season}",
    on_cancellation=[stop_paid_work],
    log_prints=False,
)
async def generate_references(season: SeasonSlug, character: CharacterName) -> bool:
    """Draw the five reference pictures and pin the best; True when the character is pinned.

    False when there is no ready LoRA that a still model can draw with, when too few views came out, or when the
    season's review is on and a person has to look first. Safe to run again. Costs up to six stills.

    Args:
        season: The season's slug, as in its manifest. It must have been imported: onmodel season import season.yaml
        character: The character's name, as in the manifest.
    """
    work = await in_thread(character_work_task, season, character)
    if work.is_pinned:
        return True
    lora_id = await in_thread(stills_base_task, work.character_id)
    if lora_id is None or await in_thread(lora_status_task, lora_id) is not LoraStatus.READY:
        return False
    planned = await in_thread(plan_references_task, lora_id)
    bought = await buy_all(planned, max_attempts=2)
    keys = [view.job_key if isinstance(view, OnModelError) else view for view in bought]
    views = await in_thread(keep_references_task, lora_id, keys)
    if work.needs_review:
        await in_thread(ask_for_review_task, lora_id)
        return False
    if views < 2:
        return False
    await in_thread(pin_character_task, lora_id)
    return True
