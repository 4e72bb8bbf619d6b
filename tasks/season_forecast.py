"""Forecasting a stored season: what it still has to buy, beside what it has bought."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from domain.budgets import BudgetScope
from domain.characters import LoraStatus
from domain.costs import CostEntry
from domain.forecasts import Forecast, Purchase
from domain.jobs import JobState, Stage
from domain.loras import IDENTITY_VIEWS
from domain.offers import still_model
from domain.pictures import CaptionMode
from domain.registry import Registry
from domain.renders import Render, RenderState, Slot
from domain.seasons import Character, Season, SlotEntry
from domain.training_sets import TRAINED_AIM
from tasks.forecasting import expectations_for, file_trouble
from tasks.purchases import (
    VIEWS_PER_LORA,
    Learner,
    Member,
    filming_purchases,
    learning_purchases,
    new_learner,
    slot_purchases,
)
from tasks.references import reference_candidates
from tasks.season_facts import is_pinned_to_current
from tasks.training import is_outdated, steps_of

if TYPE_CHECKING:
    from domain.loras import Lora
    from providers.wiring import Ports


def forecast_season(ports: Ports, season_id: int) -> Forecast:
    """What a stored season still has to buy, beside what it has bought. Free, changes nothing."""
    season = ports.seasons.get(season_id)
    entries = ports.ledger.costs(season_id)
    notes: list[str] = []
    cast = [_stored_member(ports, season, character, entries, notes) for character in ports.cast.of_season(season_id)]
    purchases = [purchase for member in cast for purchase in learning_purchases(ports.registry, season, member)]
    for slot in ports.seasons.slots(season_id):
        render = ports.renders.of_slot(slot.id, slot.entry_sha256)
        if slot.winning_clip_id is None and (render is None or render.state is not RenderState.DONE):
            purchases += _stored_slot(ports.registry, season, slot, render, cast, entries, notes)
    limit, _, spent = ports.ledger.budget(season_id)  # what is reserved is for jobs that are still to come
    return Forecast(
        season=season.slug,
        is_simulated=season.is_simulated,
        budget_usd=limit,
        free_usd=max(limit - spent, Decimal(0)),
        bought_forecast_usd=sum((entry.forecast_usd for entry in entries), Decimal(0)),
        bought_usd=sum((entry.amount_usd for entry in entries), Decimal(0)),
        purchases=tuple(purchases),
        expectations=expectations_for(ports, season),
        notes=tuple(dict.fromkeys([*notes, *_narrow_budgets(ports, season_id, purchases)])),
    )


def _narrow_budgets(ports: Ports, season_id: int, purchases: list[Purchase]) -> list[str]:
    """The budgets beside the season's own that do not hold what is to come."""
    sentences = []
    for budget in ports.budgets.of_season(season_id):
        if budget.scope is BudgetScope.SEASON:
            continue
        is_one = budget.scope is BudgetScope.CHARACTER
        needed = sum((one.cost_usd for one in purchases if not is_one or one.character == budget.whom), Decimal(0))
        # An owner's other seasons reserve too; a character's own jobs are those that are to come.
        free_usd = max(budget.limit_usd - budget.spent_usd, Decimal(0)) if is_one else budget.free_usd
        if needed > free_usd:
            sentences.append(
                f"the budget of the {budget.scope} {budget.whom} has {free_usd:.2f} of {budget.limit_usd:.2f} "
                f"USD free, and {needed:.2f} are to come."
            )
    return sentences


def _stored_member(
    ports: Ports, season: Season, character: Character, entries: list[CostEntry], notes: list[str]
) -> Member:
    if not character.is_lora_wanted:
        return Member(character=character)
    training_set = ports.cast.latest_training_set(character.id)
    current = {lora.base_model: lora for lora in ports.loras.current(character.id)}
    learners = []
    for place, base in enumerate(sorted(character.base_models)):
        lora = current.get(base)
        if lora is None or is_outdated(lora, character, training_set.id if training_set else None):
            trouble = _given_trouble(ports, character, base)
            if trouble:
                notes.append(f"{character.name}: the given LoRA {trouble}, so nothing is bought for it.")
            learners.append(new_learner(ports.registry, season, character, base, -1 - place, not trouble))
        else:
            learners.append(_begun_lora(ports, character, lora, entries))
    drawn = [lora for lora in learners if lora.is_usable and still_model(ports.registry, season, lora.base_model)]
    is_pinned = is_pinned_to_current(ports, character.id)
    is_sheet_there = any(lora.lora_id > 0 and ports.loras.references(lora.lora_id) for lora in drawn)
    references = 0
    if drawn and not is_pinned and not is_sheet_there:
        bought = _bought(entries, Stage.REFERENCES, character.id, after=_last_training(entries, character.id))
        references = max(0, len(reference_candidates()) - bought)
    described = 0
    if any(lora.trainer is not None for lora in learners) and character.captions is CaptionMode.DESCRIBED:
        if training_set is not None:
            described = sum(not image.is_caption_own for image in training_set.trained)
        else:
            described = TRAINED_AIM
            notes.append(f"{character.name}: {TRAINED_AIM} pictures to describe at most; none is chosen yet.")
    return Member(
        character=character,
        captions=described,
        loras=tuple(learners),
        references=references,
        is_pinned=is_pinned or (bool(drawn) and not season.review),
    )


def _given_trouble(ports: Ports, character: Character, base: str) -> str:
    if not character.lora.startswith("sha256:"):
        return ""
    return file_trouble(ports, ports.blobs.local_path(character.lora.removeprefix("sha256:")), base)


def _begun_lora(ports: Ports, character: Character, lora: Lora, entries: list[CostEntry]) -> Learner:
    """What a LoRA that was begun still needs. Controls are drawn once: a second training needs its own views only."""
    if lora.status in (LoraStatus.READY, LoraStatus.FAILED, LoraStatus.ARCHIVED):
        return Learner(base_model=lora.base_model, lora_id=lora.id, is_usable=lora.status is LoraStatus.READY)
    succeeded = sum(ports.ledger.get(key).state is JobState.SUCCEEDED for key in lora.job_keys)
    is_to_be_trained = lora.status in (LoraStatus.PENDING, LoraStatus.TRAINING) and lora.trainer != "given"
    rejected = succeeded if is_to_be_trained else max(succeeded - 1, 0)
    views = len(IDENTITY_VIEWS) if rejected else VIEWS_PER_LORA
    if not is_to_be_trained:
        bought = _bought(entries, Stage.IDENTITY_CHECK, character.id, after=_last_training(entries, character.id))
        views = max(0, views - bought)
    trainer = ports.registry.model(lora.trainer) if is_to_be_trained else None
    steps = steps_of(trainer, lora.training_options, rejected) if trainer is not None else 0
    return Learner(base_model=lora.base_model, lora_id=lora.id, trainer=trainer, steps=steps, views=views)


def _last_training(entries: list[CostEntry], character_id: int) -> int:
    """How many entries there were when the character's last training was settled; 0 when none was."""
    return max(
        (
            place + 1
            for place, entry in enumerate(entries)
            if entry.stage is Stage.LORA_TRAINING and entry.character_id == character_id and entry.amount_usd
        ),
        default=0,
    )


def _bought(entries: list[CostEntry], stage: Stage, character_id: int, *, after: int) -> int:
    """Jobs of a stage that were paid for a character since then."""
    return sum(
        entry.stage is stage and entry.character_id == character_id and entry.amount_usd > 0
        for entry in entries[after:]
    )


def _stored_slot(
    registry: Registry,
    season: Season,
    slot: Slot,
    render: Render | None,
    cast: list[Member],
    entries: list[CostEntry],
    notes: list[str],
) -> list[Purchase]:
    """A slot without its clip: as its render stands, else as it would be planned now."""
    if render is None or not render.routes or slot.plan is None:
        entry = SlotEntry.model_validate({key: slot.entry[key] for key in slot.entry if key != "scene_sha256s"})
        return slot_purchases(registry, season, entry, cast, notes)
    model = registry.model(render.video_model)
    assert model.video is not None
    seconds = model.video.duration.nearest_seconds(slot.plan.seconds)
    drawn = sum(
        entry.stage is Stage.LORA_APPLICATION
        and entry.slot_number == slot.number
        and entry.amount_usd > 0
        and entry.created_at is not None
        and entry.created_at >= render.created_at
        for entry in entries
    )
    purchases = filming_purchases(registry, season, slot.number, model, seconds, render.routes, slot.plan.cast)
    return purchases[min(drawn, len(purchases) - 1) :]  # its stills come first, its video last
