"""Recipes: what a trainer's dataset must be, from the registry or, for somebody's own trainer, by a layout."""

from __future__ import annotations

from domain.captions import CAPTION_RULES_VERSION, CaptionStyle, TriggerRule
from domain.crops import CROP_RULES_VERSION, RESOLUTIONS
from domain.dataset_manifests import RuleVersions
from domain.errors import BadInput
from domain.layouts import LAYOUT_RULES_VERSION, LayoutKind
from domain.model_rules import ModelKind
from domain.records import Record
from domain.registry import Registry
from domain.stretches import FrameRule

RULES = RuleVersions(crops=CROP_RULES_VERSION, captions=CAPTION_RULES_VERSION, layouts=LAYOUT_RULES_VERSION)

WAN_FRAMES = FrameRule(frames_multiple=4, frames_offset=1, min_frames=17, max_frames=81, fps=16)
"""81 frames at 16 per second, which fal's Wan 2.2 trainers fit clips to (fal.md 2.3); 17 is the shortest clip that
endpoint makes (2.4). Whether its trainer takes clips between the two unscaled is not confirmed."""


class Recipe(Record):
    """How a dataset is made. `name` is the trainer's key in the registry, or names a layout below."""

    name: str
    layout: LayoutKind
    style: CaptionStyle = CaptionStyle.PROSE
    trigger: TriggerRule = TriggerRule.WORD
    resolutions: tuple[int, ...] = RESOLUTIONS
    videos: FrameRule | None = None
    fewest_items: int = 1

    @property
    def key(self) -> str:
        """Under what a dataset is filed: other rules, another dataset."""
        return f"{self.name}@{RULES.crops}.{RULES.captions}.{RULES.layouts}"


_BY_LAYOUT = (
    Recipe(name="plain", layout=LayoutKind.PLAIN),
    Recipe(name="ai_toolkit", layout=LayoutKind.AI_TOOLKIT),
    Recipe(name="kohya", layout=LayoutKind.KOHYA, style=CaptionStyle.TAGS),
    Recipe(name="musubi", layout=LayoutKind.MUSUBI),
    Recipe(name="musubi_clips", layout=LayoutKind.MUSUBI, videos=WAN_FRAMES),
    Recipe(name="clips", layout=LayoutKind.CLIPS, videos=WAN_FRAMES),
)


def recipe_names(registry: Registry) -> tuple[str, ...]:
    """Everything `recipe_for` knows, trainers first."""
    trainers = [model.key for model in registry.models if model.kind is ModelKind.TRAINER]
    return (*trainers, *(recipe.name for recipe in _BY_LAYOUT))


def recipe_for(registry: Registry, name: str) -> Recipe:
    """The recipe of a registered trainer or of a layout; `BadInput` names those there are."""
    for recipe in _BY_LAYOUT:
        if recipe.name == name:
            return recipe
    for model in registry.models:
        if model.key == name and model.training is not None:
            rule = model.training
            return Recipe(
                name=name,
                layout=rule.layout,
                style=rule.captions,
                trigger=rule.trigger,
                resolutions=rule.resolutions,
                videos=rule.videos,
                fewest_items=rule.min_images,
            )
    raise BadInput(f"No dataset can be laid out for {name!r}: choose one of {', '.join(recipe_names(registry))}.")
