"""Which generation profile holds for somebody: the character's, else its project's, else the declared default one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.model_rules import Model, ModelKind
from domain.profiles import GenerationProfile, WorkflowTemplate

if TYPE_CHECKING:
    from providers.wiring import Ports


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


def fits(template: WorkflowTemplate, model: Model) -> bool:
    """Whether a template can stand in for the model's own. Pure."""
    kinds = {"image": ModelKind.IMAGE, "video": ModelKind.VIDEO}
    return kinds[template.kind] is model.kind and template.base_model == model.base_model
