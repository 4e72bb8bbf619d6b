"""Train a character: frames → training set → captions → LoRA → file check → identity check.

Retries have a reason; captions are bought only where the manifest asks for it.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from prefect import flow
from pydantic import Field

from domain.characters import LoraStatus
from domain.errors import JobFailed, OnModelError, Rejected
from flows.running import buy, buy_all, in_thread
from flows.words import CharacterName, SeasonSlug, publish_character
from tasks.cancelling import stop_paid_work
from tasks.captioning import CAPTION_ATTEMPTS, caption_training_set_task, is_survivable, plan_captions_task
from tasks.curation import curate_training_set_task
from tasks.frames import harvest_clip_task
from tasks.identity import judge_views_task, plan_views_task
from tasks.lookups import CharacterWork, character_work_task, lora_status_task
from tasks.training import (
    adopt_weights_task,
    check_weights_task,
    ensure_lora_task,
    may_train_again_task,
    plan_training_task,
)

HOPELESS = (JobFailed, Rejected)
"""The attempt itself failed: another may go better."""

MaxAttempts = Annotated[int, Field(ge=1, le=5)]


@flow(
    name="train-character",
    flow_run_name="train {character} of {season}",
    on_cancellation=[stop_paid_work],
    log_prints=False,
)
async def train_character(season: SeasonSlug, character: CharacterName, max_attempts: MaxAttempts = 2) -> list[int]:
    """Learn a character from its winning clips and prove that it was learned.

    Returns the ids of its LoRAs, one per base model. Safe to run again: finished steps are not repeated and nothing is
    paid twice. Costs up to max_attempts trainings and ten views per base model, and where its captions are described,
    up to two descriptions of each picture.

    Args:
        season: The season's slug, as in its manifest. It must have been imported: onmodel season import season.yaml
        character: The character's name, as in the manifest.
        max_attempts: Trainings at most; each is a new paid job, begun only when the last is known dead.
    """
    work = await in_thread(character_work_task, season, character)
    if not work.is_lora_wanted:
        return []
    set_id = await gather_material(work)
    if set_id is not None:
        await _describe(set_id)
    lora_ids = [await in_thread(ensure_lora_task, work.character_id, base) for base in work.base_models]
    wanted = [lora_id for lora_id in lora_ids if lora_id is not None]
    await asyncio.gather(*(_learn(lora_id, max_attempts) for lora_id in wanted))
    await publish_character(season, character)
    return wanted


async def gather_material(work: CharacterWork) -> int | None:
    """Harvest and curate, free and before anything is paid; `BadInput` when there are too few images to learn from.

    The id of the training set, None where nothing is trained here.
    """
    if not (work.is_lora_wanted and work.is_trained_here):
        return None
    await asyncio.gather(*(in_thread(harvest_clip_task, clip_id) for clip_id in work.clip_ids))
    return await in_thread(curate_training_set_task, work.character_id)


async def _describe(set_id: int) -> None:
    """Have a captioner describe the pictures, where the manifest asks for it; a caption that fails stops nothing."""
    jobs = await in_thread(plan_captions_task, set_id)
    bought = await buy_all(jobs.open_job_keys, max_attempts=CAPTION_ATTEMPTS)
    ended = {}
    for key, outcome in zip(jobs.open_job_keys, bought, strict=True):
        if isinstance(outcome, OnModelError) and not is_survivable(outcome):
            raise outcome
        ended[key] = outcome.job_key if isinstance(outcome, OnModelError) else outcome
    if jobs.job_keys:
        await in_thread(caption_training_set_task, set_id, [ended.get(key, key) for key in jobs.job_keys])


async def _learn(lora_id: int, max_attempts: int) -> None:
    """Train, check and judge one LoRA until it is ready or its attempts are used up."""
    while await in_thread(lora_status_task, lora_id) not in (LoraStatus.READY, LoraStatus.FAILED):
        try:
            problem = await _train_once(lora_id, max_attempts)
        except HOPELESS as failure:
            problem = failure.message
        if problem:
            await in_thread(may_train_again_task, lora_id, max_attempts, problem)


async def _train_once(lora_id: int, max_attempts: int) -> str:
    """One attempt from wherever it stands; '' when the LoRA is ready, else what is wrong with it."""
    if await in_thread(lora_status_task, lora_id) is not LoraStatus.VALIDATING:
        key = await in_thread(plan_training_task, lora_id, max_attempts)
        key = await buy(key)
        await in_thread(adopt_weights_task, lora_id, key)
    problem = await in_thread(check_weights_task, lora_id)
    if problem:
        return problem
    keys = await in_thread(plan_views_task, lora_id)
    views = await buy_all(keys, max_attempts=2)
    failed = [view for view in views if isinstance(view, OnModelError)]
    if stopped := next((view for view in failed if not isinstance(view, HOPELESS)), None):
        raise stopped  # no money, a lost answer: another training would not help
    if failed:
        return f"{len(failed)} of {len(views)} views could not be drawn: {failed[0].message}"
    return await in_thread(judge_views_task, lora_id, [str(view) for view in views])
