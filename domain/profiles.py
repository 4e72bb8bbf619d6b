"""ComfyUI workflows as templates, the places in them that we fill, and the profiles that choose one for somebody."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, model_validator

from domain.records import Record

DEFAULT_LORA_STRENGTH = 0.8
"""Issue: the strength of a LoRA where a profile says nothing."""


class Parameter(StrEnum):
    """What can be put into a workflow. Width, height, frames and rate are numbers; images are uploaded files' names."""

    PROMPT = "prompt"
    NEGATIVE_PROMPT = "negative_prompt"
    SEED = "seed"
    STEPS = "steps"
    GUIDANCE = "guidance"
    WIDTH = "width"
    HEIGHT = "height"
    FRAMES = "frames"
    FRAMES_PER_SECOND = "frames_per_second"
    IMAGE = "image"
    CHECKPOINT = "checkpoint"
    LORA = "lora"
    LORA_STRENGTH = "lora_strength"
    LORA_HIGH_NOISE = "lora_high_noise"
    OUTPUT_PREFIX = "output_prefix"


class Target(Record):
    """One place in a workflow: an input of the node with this title, else of this class, else with this id; exactly one
    of the three is given, and it must fit exactly one node (replicate_comfyui.md 3.6)."""

    title: str | None = None
    class_type: str | None = None
    node_id: str | None = None
    input: str

    @model_validator(mode="after")
    def _one_way(self) -> Target:
        if sum(way is not None for way in (self.title, self.class_type, self.node_id)) != 1:
            raise ValueError("a target needs exactly one of title, class_type and node_id")
        return self


class WorkflowTemplate(Record):
    """A workflow in ComfyUI's API format, and where each parameter goes; `base_model` is what its LoRA loader takes."""

    name: str
    kind: Literal["image", "video"]
    base_model: str | None = None
    workflow: dict[str, Any]
    targets: dict[Parameter, tuple[Target, ...]] = Field(default_factory=dict)
    is_built_in: bool = False


class GenerationProfile(Record):
    """What ComfyUI draws somebody with: a template, and what is to stand in it instead of the template's own.

    `checkpoint` None leaves the template's; `lora_id` None means the character's current LoRA of the template's base.
    """

    name: str
    template: WorkflowTemplate
    checkpoint: str | None = None
    lora_id: int | None = None
    lora_strength: float = DEFAULT_LORA_STRENGTH
    character_id: int | None = None
    project_id: int | None = None
    is_default: bool = False
