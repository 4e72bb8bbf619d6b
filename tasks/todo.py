"""What a season leaves for a person to do: decide, mend, or know about; each with the command that goes on."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from domain.budgets import BudgetScope
from domain.characters import LoraStatus
from domain.circuits import CircuitState
from domain.errors import AsksForBudget
from domain.jobs import JobState
from domain.renders import RenderState
from domain.reports import TodoItem, Urgency
from tasks.season_facts import short_of_budget, tightest_budget, unpinned_references

if TYPE_CHECKING:
    from domain.seasons import Character
    from providers.wiring import Ports

RUN_AGAIN = "onmodel run season.yaml"
ASKS = AsksForBudget.exit_code
LEARNED_OR_NOT = (LoraStatus.READY, LoraStatus.FAILED, LoraStatus.ARCHIVED)


def things_to_do(ports: Ports, season_id: int) -> tuple[TodoItem, ...]:
    """Slots that failed or wait, answers that were lost, vendors that are held back, budgets that are short or passed,
    LoRAs that failed, references to look at. Free."""
    characters = ports.cast.of_season(season_id)
    return (
        *_slots(ports, season_id),
        *_lost_answers(ports, season_id),
        *_held_back_vendors(ports, season_id),
        *_passed_budgets(ports, season_id),
        *(item for character in characters for item in _short_budgets(ports, character)),
        *(item for character in characters for item in _failed_loras(ports, character)),
        *(item for character in characters for item in _references(ports, character)),
    )


def _slots(ports: Ports, season_id: int) -> list[TodoItem]:
    todo = []
    at_work = {job.slot_number for job in ports.ledger.open_jobs(season_id)}
    for slot in ports.seasons.slots(season_id):
        render = ports.renders.of_slot(slot.id, slot.entry_sha256) if slot.winning_clip_id is None else None
        if render is not None and render.state in (RenderState.FAILED, RenderState.WAITING):
            is_waiting = render.state is RenderState.WAITING
            # It asks, and has nothing at a vendor whose answer it waits for: it asks for budget.
            is_short = is_waiting and render.exit_code == ASKS and slot.number not in at_work
            cast = [route.name for route in render.routes]
            todo.append(
                TodoItem(
                    urgency=Urgency.DECISION if is_waiting else Urgency.FAILURE,
                    what=f"Slot {slot.number} has no clip",
                    why=render.reason,
                    command=allow_more(ports, season_id, cast) if is_short else RUN_AGAIN,
                )
            )
    return todo


def _lost_answers(ports: Ports, season_id: int) -> list[TodoItem]:
    return [
        TodoItem(
            urgency=Urgency.DECISION,
            what=f"The answer to {job.api_name} was lost",
            why=f"Job {job.key[:12]} at {job.request.vendor} may be running and paid for: {job.error_message}",
            command=f"onmodel jobs resolve {job.key[:12]} --adopt ID, or --resubmit, or --abandon",
        )
        if job.state is JobState.SUBMISSION_UNKNOWN
        else TodoItem(
            urgency=Urgency.DECISION,
            what=f"{job.api_name} may have been paid and has no result",
            why=job.error_message or "",
            command=f"onmodel jobs resolve {job.key[:12]} --resubmit, or --abandon",
        )
        for job in ports.ledger.jobs_for_a_person(season_id)
    ]


def _held_back_vendors(ports: Ports, season_id: int) -> list[TodoItem]:
    """Vendors that jobs of this season wait for, while nothing is sent to them."""
    wanted = {job.request.vendor for job in ports.ledger.open_jobs(season_id) if job.state is JobState.PLANNED}
    return [
        TodoItem(
            urgency=Urgency.FAILURE,
            what=f"Nothing is sent to {circuit.vendor} for now",
            why=circuit.reason,
            command=RUN_AGAIN,
        )
        for circuit in ports.circuits.all()
        if circuit.state is not CircuitState.CLOSED and circuit.vendor in wanted
    ]


def _passed_budgets(ports: Ports, season_id: int) -> list[TodoItem]:
    slug = ports.seasons.get(season_id).slug
    overruns = ports.seasons.notices(season_id, "overrun")
    return [
        TodoItem(
            urgency=Urgency.DECISION,
            what=f"The budget of {budget.scope} {budget.whom} is passed by {budget.overrun_usd:.2f} USD",
            why=overruns[-1] if overruns else "its limit was lowered below what is spent",
            command=_raise(budget.scope, budget.whom, slug, is_prepaid=budget.is_prepaid),
        )
        for budget in ports.budgets.of_season(season_id)
        if budget.overrun_usd > 0
    ]


def _short_budgets(ports: Ports, character: Character) -> list[TodoItem]:
    """Why a character that is not learned yet waits for money, as it was told last."""
    told = ports.seasons.notices(character.season_id, "short", short_of_budget(character.id))
    ended = {lora.base_model for lora in ports.loras.current(character.id) if lora.status in LEARNED_OR_NOT}
    if not told or not set(character.base_models) - ended:
        return []
    return [
        TodoItem(
            urgency=Urgency.DECISION,
            what=f"{character.name} waits for a budget",
            why=told[-1],
            command=allow_more(ports, character.season_id, [character.name]),
        )
    ]


def allow_more(ports: Ports, season_id: int, names: Collection[str]) -> str:
    """The command that raises the budget which is short for work of these characters."""
    budget = tightest_budget(ports, season_id, names)
    slug = ports.seasons.get(season_id).slug
    return f"{_raise(budget.scope, budget.whom, slug, is_prepaid=budget.is_prepaid)}, and {RUN_AGAIN}"


def _raise(scope: BudgetScope, whom: str, slug: str, *, is_prepaid: bool) -> str:
    match scope:
        case BudgetScope.SEASON:
            return f"onmodel budget {slug} --limit USD"
        case BudgetScope.CHARACTER:
            return f"onmodel budget {slug} '{whom}' --limit USD"
        case BudgetScope.OWNER:
            return f"onmodel owner {whom} {'--add-credits' if is_prepaid else '--limit'} USD"


def _failed_loras(ports: Ports, character: Character) -> list[TodoItem]:
    return [
        TodoItem(
            urgency=Urgency.FAILURE,
            what=f"{character.name}: the LoRA for {lora.base_model} failed",
            why=lora.status_reason,
        )
        for lora in ports.loras.current(character.id)
        if lora.status is LoraStatus.FAILED
    ]


def _references(ports: Ports, character: Character) -> list[TodoItem]:
    season = ports.seasons.get(character.season_id)
    if not season.review or unpinned_references(ports, character.id) is None:
        return []
    return [
        TodoItem(
            urgency=Urgency.DECISION,
            what=f"{character.name}: look at the reference sheet and pin it",
            command=f"onmodel pin {season.slug} '{character.name}'",
        )
    ]
