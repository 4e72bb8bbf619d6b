"""Training: a LoRA row for a character and base, the paid job that fills it, and its weights in our store."""

from __future__ import annotations

import hashlib
import logging
import math
from decimal import Decimal
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.budgets import BudgetScope
from domain.characters import LoraStatus
from domain.costs import free_step
from domain.errors import BadTrainingSet, NeedsPerson, OverBudget
from domain.jobs import BlobRef, JobOrder, JobState, Operation, ProviderJob, Stage
from domain.loras import Lora
from domain.model_rules import Model
from domain.money import ceiling_of_training, price_of_training
from domain.offers import trainer, trainer_at
from domain.seasons import Character, TrainingOptions
from domain.vendors import is_stand_in, vendor_for
from providers.vendor_ports import TrainingOrder
from providers.wiring import open_ports
from tasks.datasets import build_dataset
from tasks.fallback_orders import order_with_fallbacks
from tasks.jobs import plan_job
from tasks.season_facts import short_of_budget, tightest_budget

if TYPE_CHECKING:
    from providers.ports import LoraFileReport, LoraPairReport
    from providers.wiring import Ports

log = logging.getLogger("onmodel.training")

ESCALATION = 1.5
"""After a LoRA that trained but was not good enough, the next attempt gets half as many steps more."""


def ensure_lora(ports: Ports, character_id: int, base_model: str) -> int | None:
    """The LoRA row that this character needs on this base: the current one, or a new version; None when none is wanted.

    Safe to repeat. A ready LoRA stays; one that failed stays failed until its material or options change. Free.
    """
    character = ports.cast.get(character_id)
    if not character.is_lora_wanted:
        return None
    current = next((lora for lora in ports.loras.current(character_id) if lora.base_model == base_model), None)
    if character.lora.startswith("sha256:"):
        digest = character.lora.removeprefix("sha256:")
        if current is not None and current.sha256 == digest:
            _log_given(ports, character, current.id)
            return current.id
        given = ports.loras.create(
            character,
            base_model,
            trainer="given",
            training_set_id=_training_set_id(ports, character_id),
            images_count=0,
            created_by="manifest",
            sha256=digest,
            lora_url=ports.blobs.url(digest),
        )
        ports.loras.set_status(given.id, LoraStatus.VALIDATING, "given in the manifest; being checked")
        _log_given(ports, character, given.id)
        return given.id
    set_id = _training_set_id(ports, character_id)
    if set_id is None:
        raise BadTrainingSet(f"{character.name} has no training set yet: curate one first.")
    if current is not None and not is_outdated(current, character, set_id):
        return current.id
    season = ports.seasons.get(character.season_id)
    wanted = trainer(ports.registry, season, base_model, character.training)
    return ports.loras.create(
        character,
        base_model,
        trainer=wanted.key,
        training_set_id=set_id,
        images_count=len(ports.cast.training_set(set_id).trained),
        created_by="onmodel",
    ).id


def _log_given(ports: Ports, character: Character, lora_id: int) -> None:
    step = free_step(
        character.season_id,
        Stage.LORA_TRAINING,
        "given",
        "given in the manifest, not trained here",
        f"given_lora:{lora_id}",
        character_id=character.id,
    )
    ports.ledger.log_cost(step)


def _training_set_id(ports: Ports, character_id: int) -> int | None:
    latest = ports.cast.latest_training_set(character_id)
    return latest.id if latest else None


def is_outdated(lora: Lora, character: Character, set_id: int | None) -> bool:
    """A failed LoRA is tried anew only with other material or options; one that is ready, or on its way, is kept."""
    has_changed = lora.training_set_id != set_id or lora.training_options != character.training
    return lora.status is LoraStatus.FAILED and has_changed


def plan_training(ports: Ports, lora_id: int, *, max_attempts: int) -> str:
    """The key of the job that trains this LoRA now: the open or successful one, or the next attempt.

    An attempt rises only after the last is known dead. After one that trained but was judged not good enough, the next
    trains longer. What a person cancelled is bought anew. `BadTrainingSet` etc. when the attempts are used up;
    `OverBudget` or `AsksForBudget`, with the reason kept at the LoRA. Reserves money, spends none.
    """
    lora = ports.loras.get(lora_id)
    jobs = _attempts(ports, lora)
    if jobs and jobs[-1].state not in (JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED):
        is_rejected = jobs[-1].state is JobState.SUCCEEDED and lora.status is LoraStatus.PENDING
        if not is_rejected:
            return jobs[-1].key
    rejected = sum(job.state is JobState.SUCCEEDED for job in jobs)
    order = _order(ports, lora, escalations=rejected)
    try:
        key = plan_job(ports, order, max_attempts=max_attempts - rejected)
    except (OverBudget, NeedsPerson) as refusal:
        ports.loras.set_status(lora_id, LoraStatus.PENDING, refusal.message)
        raise
    ports.loras.add_job(lora_id, key, _steps(ports, lora, rejected))
    ports.loras.set_status(lora_id, LoraStatus.TRAINING)
    return key


def may_train_again(ports: Ports, lora_id: int, *, max_attempts: int, reason: str) -> bool:
    """After an attempt that is known dead or was judged unfit: is there another? Otherwise the LoRA has failed.

    `NeedsPerson` after one that was cancelled: what somebody stopped is not bought again in the same run.
    """
    lora = ports.loras.get(lora_id)
    jobs = _attempts(ports, lora)
    if jobs and jobs[-1].state is JobState.CANCELLED:
        message = f"{lora.character_name}: training was cancelled ({reason}): run again to have it trained after all."
        ports.loras.set_status(lora_id, LoraStatus.PENDING, message)
        raise NeedsPerson(message)
    attempts = sum(job.state is not JobState.CANCELLED for job in jobs)
    if lora.trainer != "given" and attempts < max_attempts and not _is_hopeless(ports, lora):
        ports.loras.set_status(lora_id, LoraStatus.PENDING, f"attempt {attempts}: {reason}")
        return True
    ports.loras.set_status(lora_id, LoraStatus.FAILED, reason)
    log.warning("%s: the LoRA for %s failed: %s", lora.character_name, lora.base_model, reason)
    return False


def _attempts(ports: Ports, lora: Lora) -> list[ProviderJob]:
    """The jobs that were to train this LoRA, oldest first; for one that moved to another vendor, the one there."""
    jobs: dict[str, ProviderJob] = {}
    for key in lora.job_keys:
        job = ports.ledger.get(key)
        while job.moved_to is not None:
            job = ports.ledger.get(job.moved_to)
        jobs[job.key] = job
    return list(jobs.values())


def _is_hopeless(ports: Ports, lora: Lora) -> bool:
    """Whether another attempt would be the same again: there was nothing to send (too few clips for its trainer), the
    request was refused, or its steps cannot be raised."""
    jobs = _attempts(ports, lora)
    if not jobs or jobs[-1].was_refused:
        return True
    rejected = sum(job.state is JobState.SUCCEEDED for job in jobs)
    return jobs[-1].state is JobState.SUCCEEDED and _steps(ports, lora, rejected) <= lora.training_steps


def adopt_weights(ports: Ports, lora_id: int, key: str) -> None:
    """Take the trained file of a finished job as the LoRA's weights. Safe to repeat. Free."""
    job = ports.ledger.get(key)
    file = job.file("lora")
    assert file is not None, f"training job {key} kept no LoRA file"
    lora = ports.loras.get(lora_id)
    ports.loras.add_job(lora_id, key, lora.training_steps)  # at another vendor than planned, it is not noted yet
    lora = ports.loras.get(lora_id)
    config = job.file("config")
    billed = [ports.ledger.get(one).billed_usd or Decimal(0) for one in lora.job_keys]
    high_noise = job.file("lora_high_noise")
    ports.loras.keep_weights(
        lora_id,
        trainer=job.model_key,
        sha256=file.sha256,
        lora_url=ports.blobs.url(file.sha256),
        high_noise_sha256=high_noise.sha256 if high_noise else None,
        high_noise_url=ports.blobs.url(high_noise.sha256) if high_noise else None,
        config_url=ports.blobs.url(config.sha256) if config else None,
        request_id=job.ids.request_id if job.ids else None,
        cost_usd=sum(billed, Decimal(0)),
    )
    ports.loras.set_status(lora_id, LoraStatus.VALIDATING)


def check_weights(ports: Ports, lora_id: int) -> str:
    """Check the file of a LoRA; '' when it is sound, else why it is not. Safe to repeat. Free."""
    lora = ports.loras.get(lora_id)
    assert lora.sha256 is not None
    steps = lora.training_steps if lora.trainer != "given" else None
    low = ports.blobs.local_path(lora.sha256)
    report: LoraFileReport | LoraPairReport
    if lora.high_noise_sha256 is None:
        report = ports.check_lora_file(low, expected_base=lora.base_model, expected_steps=steps)
    else:
        high = ports.blobs.local_path(lora.high_noise_sha256)
        report = ports.check_lora_pair(low, high, expected_base=lora.base_model, expected_steps=steps)
    ports.loras.keep_file_report(lora_id, report)
    ports.ledger.log_cost(
        free_step(
            lora.season_id,
            Stage.LORA_CHECK,
            "onmodel",
            "done on this machine",
            f"lora_check:{lora_id}:{lora.sha256}",
            character_id=lora.character_id,
        )
    )
    if report.verdict in ("healthy", "suspect"):
        return ""
    return f"the LoRA file is {report.verdict.replace('_', ' ')}: {'; '.join(report.reasons)}"


def note_short_budget(ports: Ports, slug: str, name: str, message: str) -> bool:
    """Leave word that a character waits for money; whether its own budget is what is short, and no other. Free."""
    season = ports.seasons.by_slug(slug)
    character = ports.cast.named(season.id, name)
    digest = hashlib.sha256(message.encode()).hexdigest()[:12]
    ports.renders.notify(season.id, "short", message, f"{short_of_budget(character.id)}{digest}")
    return tightest_budget(ports, season.id, [character.name]).scope is BudgetScope.CHARACTER


def _steps(ports: Ports, lora: Lora, escalations: int) -> int:
    return steps_of(ports.registry.model(lora.trainer), lora.training_options, escalations)


def steps_of(model: Model, options: TrainingOptions, escalations: int) -> int:
    """The steps of a training after so many that were not good enough: the manifest's, else the trainer's own. Pure."""
    assert model.training is not None
    rule = model.training.steps
    steps = options.steps or int(rule.default or 1000)
    return int(min(math.ceil(steps * ESCALATION**escalations), rule.maximum or float("inf")))


def _order(ports: Ports, lora: Lora, *, escalations: int) -> JobOrder:
    character = ports.cast.get(lora.character_id)
    season = ports.seasons.get(lora.season_id)
    set_id = lora.training_set_id
    assert set_id is not None
    image_count = len(ports.cast.training_set(set_id).trained)

    def order_at(vendor: str) -> JobOrder:
        is_first = vendor == vendor_for(season, "train")
        chosen = (
            ports.registry.model(lora.trainer)
            if is_first
            else trainer_at(ports.registry, vendor, lora.base_model, lora.training_options)
        )
        writer = ports.trainer(vendor)
        dataset = ports.datasets.get(build_dataset(ports, set_id, chosen.key))
        steps = steps_of(chosen, lora.training_options, escalations)
        order = TrainingOrder(
            trainer_key=chosen.key,
            zip=BlobRef(sha256=dataset.zip_sha256, media_type="application/zip", file_name=f"{lora.trigger_word}.zip"),
            trigger_word=lora.trigger_word,
            steps=steps,
            learning_rate=lora.training_options.learning_rate,
            rank=lora.training_options.rank,
            image_count=image_count,
        )
        estimate = price_of_training(chosen.key, steps)
        return JobOrder(
            season_id=season.id,
            character_id=character.id,
            stage=Stage.LORA_TRAINING,
            operation=Operation.TRAIN_LORA,
            api_name=chosen.key,
            model_key=chosen.key,
            request=writer.training_request(order),
            estimate_usd=estimate,
            ceiling_usd=ceiling_of_training(chosen, estimate),
            is_simulated=is_stand_in(vendor),
        )

    return order_with_fallbacks(season, "train", order_at)


@task(name="note-short-budget", cache_policy=NO_CACHE)
def note_short_budget_task(season: str, character: str, message: str) -> bool:
    """Leave word that a character waits for money; whether only its own budget is short."""
    return note_short_budget(open_ports(), season, character, message)


@task(name="ensure-lora", cache_policy=NO_CACHE)
def ensure_lora_task(character_id: int, base_model: str) -> int | None:
    """The LoRA row this character needs on this base."""
    return ensure_lora(open_ports(), character_id, base_model)


@task(name="plan-training", cache_policy=NO_CACHE)
def plan_training_task(lora_id: int, max_attempts: int) -> str:
    """The job that trains this LoRA now."""
    return plan_training(open_ports(), lora_id, max_attempts=max_attempts)


@task(name="may-train-again", cache_policy=NO_CACHE)
def may_train_again_task(lora_id: int, max_attempts: int, reason: str) -> bool:
    """Is there another attempt after this one?"""
    return may_train_again(open_ports(), lora_id, max_attempts=max_attempts, reason=reason)


@task(name="adopt-weights", cache_policy=NO_CACHE)
def adopt_weights_task(lora_id: int, key: str) -> None:
    """Take a finished job's file as the LoRA's weights."""
    adopt_weights(open_ports(), lora_id, key)


@task(name="check-weights", cache_policy=NO_CACHE)
def check_weights_task(lora_id: int) -> str:
    """Check the LoRA's file: '' or what is wrong with it."""
    return check_weights(open_ports(), lora_id)
