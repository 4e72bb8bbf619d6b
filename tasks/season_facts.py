"""Facts about a season that several readers share: the report, the exit code, the command line."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from domain.budgets import Budget, BudgetScope
from domain.records import Record
from domain.renders import RenderState
from domain.spending import AcceptedVideo
from tasks.clip_lengths import clip_lengths

if TYPE_CHECKING:
    from providers.wiring import Ports


class SlotClip(Record):
    """The clip a slot has, won or rendered."""

    slot_number: int
    sha256: str
    is_rendered: bool = True


def clips_of_season(ports: Ports, season_id: int) -> list[SlotClip]:
    """What there is to assemble, in order."""
    clips = []
    for slot in ports.seasons.slots(season_id):
        if slot.winning_clip_id is not None:
            sha256 = ports.seasons.clip(slot.winning_clip_id).sha256
            clips.append(SlotClip(slot_number=slot.number, sha256=sha256, is_rendered=False))
            continue
        render = ports.renders.of_slot(slot.id, slot.entry_sha256)
        if render is not None and render.state is RenderState.DONE and render.clip_sha256 is not None:
            clips.append(SlotClip(slot_number=slot.number, sha256=render.clip_sha256))
    return clips


def accepted_video(ports: Ports, season_id: int) -> AcceptedVideo:
    """The rendered clips that are in the season, with their lengths as they are, not as they were ordered. Free."""
    clips = [clip for clip in clips_of_season(ports, season_id) if clip.is_rendered]
    return AcceptedVideo(clips=len(clips), seconds=sum(clip_lengths(ports, [clip.sha256 for clip in clips])))


def gaps_of_season(ports: Ports, season_id: int) -> tuple[int, ...]:
    """Slot numbers up to the last one that have no clip."""
    slots = ports.seasons.slots(season_id)
    have = {clip.slot_number for clip in clips_of_season(ports, season_id)}
    return tuple(
        number for number in range(1, max((slot.number for slot in slots), default=0) + 1) if number not in have
    )


def is_pinned_to_current(ports: Ports, character_id: int) -> bool:
    """Whether the character is pinned to the reference set of a LoRA it still has."""
    pin = ports.loras.pinned(character_id)
    return pin is not None and pin.lora_id in {lora.id for lora in ports.loras.current(character_id)}


def unpinned_references(ports: Ports, character_id: int) -> int | None:
    """The LoRA whose finished reference set waits to be pinned, or None."""
    if is_pinned_to_current(ports, character_id):
        return None
    return next((lora.id for lora in ports.loras.current(character_id) if ports.loras.references(lora.id)), None)


def tightest_budget(ports: Ports, season_id: int, names: Collection[str]) -> Budget:
    """Of the budgets that work for these characters falls under, the one with the least left; a wider one on a tie."""
    budgets = [
        budget
        for budget in ports.budgets.of_season(season_id)
        if budget.scope is not BudgetScope.CHARACTER or budget.whom in names
    ]
    return min(budgets, key=lambda budget: (budget.free_usd, budget.scope is BudgetScope.CHARACTER))


def short_of_budget(character_id: int) -> str:
    """How the notices begin that say why a character waits for money."""
    return f"short:{character_id}:"


def season_exit_codes(ports: Ports, season_id: int) -> list[int]:
    """Why a season is not done, as exit codes: 5 failed, 4 over budget, 6 waits for a person. Free."""
    codes = []
    for slot in ports.seasons.slots(season_id):
        render = ports.renders.of_slot(slot.id, slot.entry_sha256)
        if slot.winning_clip_id is None and render is not None and render.state is not RenderState.DONE:
            codes.append(render.exit_code or 5)
    codes += [6 for _ in ports.ledger.jobs_for_a_person(season_id)]
    if ports.seasons.get(season_id).review:
        codes += [6 for character in ports.cast.of_season(season_id) if unpinned_references(ports, character.id)]
    return codes
