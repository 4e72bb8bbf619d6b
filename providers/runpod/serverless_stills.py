"""Orders for stills written as input of our serverless worker (deployments/serverless-sdxl). Pure: nothing is sent."""

from __future__ import annotations

from typing import Any

from domain.errors import BadInput
from domain.jobs import VendorRequest, blob_argument
from domain.model_rules import LoraWire, Model, ModelKind, RangeRule, StillRule
from domain.registry import Registry
from providers.vendor_ports import LoraUse, StillOrder

SERVERLESS = "serverless"
"""The endpoint that a request of ours names; which of RunPod's it is says the setting ONMODEL_RUNPOD_ENDPOINT."""

MAX_SEED = 2**32 - 1
SIDE_STEP_PX = 8
"""Stable Diffusion XL's pictures have sides that are multiples of 8: its autoencoder makes them eight times smaller
(diffusers `StableDiffusionXLPipeline.check_inputs`, 0.42.1)."""


class ServerlessImageMaker:
    """`ImageMaker` for every still model that the registry lists at RunPod's endpoint `serverless`."""

    def __init__(self, registry: Registry, vendor: str) -> None:
        self._registry = registry
        self._vendor = vendor

    def still_request(self, order: StillOrder) -> VendorRequest:
        """The request, without the links that are made for each POST; `BadInput` names what the model does not take."""
        model = self._registry.model(order.model_key)
        rule = model.still
        if model.kind is not ModelKind.IMAGE or rule is None or model.endpoint != SERVERLESS:
            raise BadInput(f"{model.key} is no still model of RunPod serverless: choose another image model.")
        if order.faces:
            raise BadInput(f"{model.key} keeps no faces by pictures: give it a LoRA, or choose a face model.")
        if not order.prompt.strip():
            raise BadInput(f"{model.key} was given an empty prompt: say what is to be seen.")
        if model.prompt_max_chars is not None and len(order.prompt) > model.prompt_max_chars:
            raise BadInput(
                f"The prompt has {len(order.prompt)} characters and {model.key} takes {model.prompt_max_chars}: "
                "shorten it."
            )
        if not 0 <= order.seed <= MAX_SEED:
            raise BadInput(f"The seed is {order.seed}: give a number from 0 to {MAX_SEED}.")
        width, height = _sides(model, rule, order.image_size)
        arguments: dict[str, Any] = {
            **model.fixed,
            "prompt": order.prompt,
            "width": width,
            "height": height,
            "seed": order.seed,
            **_number(model, "steps", rule.steps, "num_inference_steps", order.steps),
            **_number(model, "guidance", rule.guidance, "guidance_scale", order.guidance),
            **_weights(model, order.loras),
        }
        return VendorRequest(vendor=self._vendor, endpoint=SERVERLESS, arguments=arguments)


def _number(model: Model, name: str, rule: RangeRule | None, field: str, given: float | None) -> dict[str, float]:
    if rule is None:
        return {}
    value = rule.default if given is None else given
    if not rule.minimum <= value <= rule.maximum:
        raise BadInput(f"{name} is {value:g} and {model.key} takes {rule.minimum:g} to {rule.maximum:g}.")
    return {rule.field or field: int(value) if name == "steps" else value}


def _sides(model: Model, rule: StillRule, size: str | tuple[int, int]) -> tuple[int, int]:
    if isinstance(size, str):
        if size not in rule.sizes:
            raise BadInput(f"{model.key} has no size {size!r}: choose one of {', '.join(rule.sizes)}.")
        return rule.sizes[size]
    width, height = size
    if width < 1 or height < 1 or width % SIDE_STEP_PX or height % SIDE_STEP_PX:
        raise BadInput(
            f"A still of {width}×{height} pixels cannot be made by {model.key}: give sides above zero, in multiples "
            f"of {SIDE_STEP_PX}."
        )
    return width, height


def _weights(model: Model, loras: tuple[LoraUse, ...]) -> dict[str, Any]:
    if not loras:
        return {}
    rule = model.lora
    if rule is None or not rule.takes or rule.field is None or rule.wire is not LoraWire.WEIGHTS:
        reason = rule.reason if rule and rule.reason else "it has no field for weights"
        raise BadInput(f"{model.key} was given a LoRA and takes none: {reason}.")
    if rule.max_count is not None and len(loras) > rule.max_count:
        raise BadInput(f"{model.key} takes {rule.max_count} LoRAs and was given {len(loras)}: leave some out.")
    entries = []
    for lora in loras:
        if lora.high_noise is not None:
            raise BadInput(
                f"{model.key} has one denoiser and was given a LoRA of two files: choose a model of its base."
            )
        if not rule.min_scale <= lora.scale <= rule.max_scale:
            raise BadInput(f"LoRA scale is {lora.scale:g}: {model.key} takes {rule.min_scale:g} to {rule.max_scale:g}.")
        # The digest travels beside the address: the worker loads nothing else.
        entries.append({"url": blob_argument(lora.file), "sha256": lora.file.sha256, "scale": lora.scale})
    return {rule.field: entries}
