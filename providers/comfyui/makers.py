"""Orders for stills and clips written as ComfyUI workflows, from a template and the registry. Pure: nothing is sent.

A request's `arguments` are `workflow` (the filled graph), `output_role` ("image" or "video"), `base_model` (what its
LoRA loader takes, or None) and `filled` (the inputs that were filled, `[node, input]`), which are held against the
server's own list of inputs before the workflow is sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from domain.errors import BadInput
from domain.jobs import VendorRequest
from domain.model_rules import Model
from domain.profiles import GenerationProfile, Parameter, WorkflowTemplate
from domain.registry import Registry
from domain.vendors import catalogue_of
from providers.comfyui.injecting import check_file_name, find_place, injected, require, with_own_prefix
from providers.comfyui.lora_nodes import with_loras
from providers.requests.stills import still_arguments
from providers.requests.videos import video_arguments
from providers.vendor_ports import CaptionOrder, LoraUse, StillOrder, TrainingOrder, VideoOrder

SIDE_STEP_PX = 16
"""A still's sides are brought to a multiple of this, the largest step of the nodes that make empty pictures."""

CLIP_SIDE_STEP_PX = 32
"""As above for clips: LTX's latents have this step (nodes_lt.py), all others' divide it."""

SMALLEST_SIDE_PX = 64


class ComfyUiMakers:
    """`ImageMaker` and `VideoMaker` for the registry's ComfyUI models.

    `templates` gives a template by name: a model's own, where the order brings no profile with another. It raises
    `BadInput` for a name it does not know.
    """

    def __init__(self, registry: Registry, templates: Callable[[str], WorkflowTemplate], vendor: str) -> None:
        self._registry = registry
        self._templates = templates
        self._vendor = vendor

    def still_request(self, order: StillOrder) -> VendorRequest:
        """As `vendor_ports.ImageMaker`. A parameter that the template has no target for stays as it stands there."""
        model = self._model(order.model_key)
        given = still_arguments(model, order.model_copy(update={"loras": ()}))
        template = self._template(model, order.profile, "image")
        values: dict[Parameter, Any] = {
            Parameter.PROMPT: given["prompt"],
            Parameter.SEED: order.seed,
            Parameter.WIDTH: _stepped(given["width"], SIDE_STEP_PX),
            Parameter.HEIGHT: _stepped(given["height"], SIDE_STEP_PX),
            **{name: given[str(name)] for name in (Parameter.STEPS, Parameter.GUIDANCE) if str(name) in given},
        }
        return self._request(model, template, values, order.loras, order.profile)

    def video_request(self, order: VideoOrder) -> VendorRequest:
        """As `vendor_ports.VideoMaker`. The clip has as many pixels as the template's own, in the order's shape."""
        model = self._model(order.model_key)
        given = video_arguments(model, order.model_copy(update={"loras": ()}))
        assert model.video is not None
        template = self._template(model, order.profile, "video")
        if order.seed is None:
            raise BadInput(f"{model.key} was given no seed: an equal workflow is answered from ComfyUI's cache.")
        values: dict[Parameter, Any] = {
            Parameter.PROMPT: given["prompt"],
            Parameter.SEED: order.seed,
            Parameter.FRAMES: given[model.video.duration.field],
            **_sides(template, order.aspect_ratio),
        }
        if model.video.duration.frames_per_second:
            values[Parameter.FRAMES_PER_SECOND] = model.video.duration.frames_per_second
        has_image = bool(template.targets.get(Parameter.IMAGE))
        if order.image is not None:
            require(template, (Parameter.IMAGE,))
            assert model.video.image_field is not None
            values[Parameter.IMAGE] = given[model.video.image_field]
        elif has_image:
            raise BadInput(f"The workflow {template.name!r} films a picture and was given none: give the first frame.")
        return self._request(model, template, values, order.loras, order.profile)

    def training_request(self, order: TrainingOrder) -> VendorRequest:
        """`BadInput`, always."""
        raise BadInput(
            f"ComfyUI trains no LoRAs ({order.trainer_key}): choose fal, runpod, replicate or local in vendor.train."
        )

    def caption_request(self, order: CaptionOrder) -> VendorRequest:
        """`BadInput`, always."""
        raise BadInput(
            f"ComfyUI describes no pictures ({order.model_key}): write captions: auto, fixed or own in the manifest."
        )

    def _model(self, key: str) -> Model:
        model = self._registry.model(key)
        if model.vendor != catalogue_of(self._vendor):
            raise BadInput(f"{key} is {model.vendor}'s and was ordered from {self._vendor}: choose a model it has.")
        return model

    def _template(
        self, model: Model, profile: GenerationProfile | None, kind: Literal["image", "video"]
    ) -> WorkflowTemplate:
        if profile is not None:
            template = profile.template
        elif model.template is not None:
            template = self._templates(model.template)
        else:
            raise BadInput(f"The registry names no workflow for {model.key}: give a profile with one.")
        if template.kind != kind:
            raise BadInput(
                f"The workflow {template.name!r} makes a {template.kind}, and {model.key} is to make a {kind}."
            )
        return template

    def _request(
        self,
        model: Model,
        template: WorkflowTemplate,
        values: Mapping[Parameter, Any],
        loras: tuple[LoraUse, ...],
        profile: GenerationProfile | None,
    ) -> VendorRequest:
        require(template, (Parameter.PROMPT, Parameter.SEED))
        _check_loras(model, template, loras)
        checkpoint: dict[Parameter, Any] = {}
        if profile is not None and profile.checkpoint is not None:
            require(template, (Parameter.CHECKPOINT,))
            whose = f"The checkpoint of the profile {profile.name!r}"
            checkpoint = {Parameter.CHECKPOINT: check_file_name(profile.checkpoint.replace("\\", "/"), whose)}
        filled = injected(template, {**values, **checkpoint})
        done = with_own_prefix(with_loras(filled, template, loras), template)
        return VendorRequest(
            vendor=self._vendor,
            endpoint=model.endpoint,
            arguments={
                "workflow": done.graph,
                "output_role": template.kind,
                "base_model": template.base_model,
                "filled": [list(place) for place in done.filled],
            },
        )


def _check_loras(model: Model, template: WorkflowTemplate, loras: tuple[LoraUse, ...]) -> None:
    rule = model.lora
    if loras and (rule is None or not rule.takes):
        raise BadInput(
            f"{model.key} was given a LoRA and takes none: {(rule.reason if rule else None) or 'no loader'}."
        )
    if loras and template.base_model is None:
        raise BadInput(
            f"The workflow {template.name!r} does not say which base its LoRAs are of: set it, because ComfyUI ignores "
            "one of another base without a word."
        )
    for lora in loras:
        if rule is not None and not rule.min_scale <= lora.scale <= rule.max_scale:
            raise BadInput(f"LoRA scale is {lora.scale:g}: {model.key} takes {rule.min_scale:g} to {rule.max_scale:g}.")


def _sides(template: WorkflowTemplate, aspect_ratio: str) -> dict[Parameter, Any]:
    """Width and height in the wanted shape with as many pixels as the template's own; nothing without targets."""
    standing = [
        template.workflow[node_id]["inputs"][field]
        for parameter in (Parameter.WIDTH, Parameter.HEIGHT)
        for node_id, field in [
            find_place(template.workflow, target, str(parameter)) for target in template.targets.get(parameter, ())[:1]
        ]
    ]
    if len(standing) != 2 or not all(isinstance(side, int) for side in standing):
        return {}
    wide, _, high = aspect_ratio.partition(":")
    shape = float(wide) / float(high)
    area = standing[0] * standing[1]
    return {
        Parameter.WIDTH: _stepped(math.sqrt(area * shape), CLIP_SIDE_STEP_PX),
        Parameter.HEIGHT: _stepped(math.sqrt(area / shape), CLIP_SIDE_STEP_PX),
    }


def _stepped(side: float, step: int) -> int:
    return max(SMALLEST_SIDE_PX, step * round(side / step))
