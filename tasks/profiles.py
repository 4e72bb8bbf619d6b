"""Which generation profile holds for somebody: the character's, else its project's, else the declared default one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from domain.characters import LoraStatus
from domain.model_rules import Model, ModelKind
from domain.profiles import GenerationProfile, WorkflowTemplate
from providers.vendor_ports import LoraUse

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.profiles")


def profile_for(ports: Ports, season_id: int, character_id: int | None, model: Model) -> GenerationProfile | None:
    """The profile by which a ComfyUI model draws or films this character, or the season where there is none.

    None where nobody chose one that fits the model: its built-in template then stands. A profile fits by what its
    template makes and by the base its LoRA loader takes. Reads two rows; free. Models that are no workflow have none.
    """
    if model.template is None:
        return None
    project_id = ports.profiles.project_of(season_id, character_id)
    chosen = ports.profiles.chosen_for(project_id, character_id)
    return next((profile for profile in chosen if fits(profile.template, model)), None)


def profiled_lora(
    ports: Ports, season_id: int, character_id: int, model: Model, use: LoraUse, trigger_word: str
) -> tuple[LoraUse, str]:
    """A character's LoRA as their profile wants it, and the word that calls it: at the profile's strength, and the
    version it names, where that is ready and its file is here. Unchanged where no profile holds. Free."""
    profile = profile_for(ports, season_id, character_id, model)
    if profile is None:
        return use, trigger_word
    named = ports.loras.find(profile.lora_id) if profile.lora_id is not None else None
    file = named.file_ref() if named is not None and named.status is LoraStatus.READY else None
    if named is None or file is None or not ports.blobs.has(file.sha256):
        if profile.lora_id is not None:
            log.warning("%s: LoRA %d is not usable, the current one is taken", profile.name, profile.lora_id)
        return use.model_copy(update={"scale": profile.lora_strength}), trigger_word
    used = LoraUse(file=file, scale=profile.lora_strength, high_noise=named.high_noise_ref())
    return used, named.trigger_word


def fits(template: WorkflowTemplate, model: Model) -> bool:
    """Whether a template can stand in for the model's own. Pure."""
    kinds = {"image": ModelKind.IMAGE, "video": ModelKind.VIDEO}
    return kinds[template.kind] is model.kind and template.base_model == model.base_model
