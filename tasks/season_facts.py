"""Facts about a season that several readers share: the report, the exit code, the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.renders import RenderState

if TYPE_CHECKING:
    from providers.wiring import Ports


def is_pinned_to_current(ports: Ports, character_id: int) -> bool:
    """Whether the character is pinned to the reference set of a LoRA it still has."""
    pin = ports.loras.pinned(character_id)
    return pin is not None and pin.lora_id in {lora.id for lora in ports.loras.current(character_id)}


def unpinned_references(ports: Ports, character_id: int) -> int | None:
    """The LoRA whose finished reference set waits to be pinned, or None."""
    if is_pinned_to_current(ports, character_id):
        return None
    return next((lora.id for lora in ports.loras.current(character_id) if ports.loras.references(lora.id)), None)


def season_exit_codes(ports: Ports, season_id: int) -> list[int]:
    """Why a season is not done, as exit codes: 5 failed, 4 over budget, 6 waits for a person. Free."""
    codes = []
    for slot in ports.seasons.slots(season_id):
        render = ports.renders.of_slot(slot.id, slot.entry_sha256)
        if slot.winning_clip_id is None and render is not None and render.state is not RenderState.DONE:
            codes.append(render.exit_code or 5)
    if ports.seasons.get(season_id).review:
        codes += [6 for character in ports.cast.of_season(season_id) if unpinned_references(ports, character.id)]
    return codes
