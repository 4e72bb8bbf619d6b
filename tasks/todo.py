"""What a season leaves for a person to do: decide, mend, or know about; each with the command that goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.characters import LoraStatus
from domain.jobs import JobState
from domain.renders import RenderState
from domain.reports import TodoItem, Urgency
from tasks.season_facts import unpinned_references

if TYPE_CHECKING:
    from domain.seasons import Character
    from providers.wiring import Ports

RUN_AGAIN = "onmodel run season.yaml"


def things_to_do(ports: Ports, season_id: int) -> tuple[TodoItem, ...]:
    """Slots that failed or wait, answers that were lost, LoRAs that failed, references to look at. Free."""
    characters = ports.cast.of_season(season_id)
    return (
        *_slots(ports, season_id),
        *_lost_answers(ports, season_id),
        *(item for character in characters for item in _failed_loras(ports, character)),
        *(item for character in characters for item in _references(ports, character)),
    )


def _slots(ports: Ports, season_id: int) -> list[TodoItem]:
    todo = []
    for slot in ports.seasons.slots(season_id):
        render = ports.renders.of_slot(slot.id, slot.entry_sha256) if slot.winning_clip_id is None else None
        if render is not None and render.state in (RenderState.FAILED, RenderState.WAITING):
            is_waiting = render.state is RenderState.WAITING
            todo.append(
                TodoItem(
                    urgency=Urgency.DECISION if is_waiting else Urgency.FAILURE,
                    what=f"Slot {slot.number} has no clip",
                    why=render.reason,
                    command=RUN_AGAIN,
                )
            )
    return todo


def _lost_answers(ports: Ports, season_id: int) -> list[TodoItem]:
    return [
        TodoItem(
            urgency=Urgency.DECISION,
            what=f"The answer to {job.api_name} was lost",
            why=f"Job {job.key} at {job.request.vendor} may be running and paid for: {job.error_message}",
        )
        for job in ports.ledger.open_jobs(season_id)
        if job.state is JobState.SUBMISSION_UNKNOWN
    ]


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
