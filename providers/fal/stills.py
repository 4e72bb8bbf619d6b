"""Orders for stills written as requests to fal's image models. Pure: nothing is sent, nothing costs."""

from __future__ import annotations

from typing import Any

from domain.errors import BadInput
from domain.jobs import VendorRequest, blob_argument
from domain.model_rules import Model, ModelKind, RangeRule, StillRule
from domain.registry import Registry
from providers.vendor_ports import LoraUse, StillOrder

MAX_SEED = 2**32 - 1


class FalImageMaker:
    """`ImageMaker` for every still model the registry lists at fal."""

    def __init__(self, registry: Registry, vendor: str) -> None:
        self._registry = registry
        self._vendor = vendor

    def still_request(self, order: StillOrder) -> VendorRequest:
        """The request; `BadInput` names what the model does not take."""
        model = self._registry.model(order.model_key)
        rule = model.still
        if model.kind is not ModelKind.IMAGE or rule is None:
            raise BadInput(f"{model.key} makes no stills: choose an image model.")
        check_prompt(model, order.prompt)
        _check_range(model, "steps", order.steps, rule.steps)
        _check_range(model, "guidance", order.guidance, rule.guidance)
        arguments: dict[str, Any] = {
            **model.fixed,
            "prompt": order.prompt,
            "image_size": _size(model, rule, order.image_size),
            "num_inference_steps": order.steps,
            "guidance_scale": order.guidance,
            "seed": check_seed(order.seed),
            **lora_arguments(model, order.loras),
        }
        return VendorRequest(vendor=self._vendor, endpoint=model.endpoint, arguments=arguments)


def lora_arguments(model: Model, loras: tuple[LoraUse, ...]) -> dict[str, Any]:
    """The model's LoRA field, or nothing when none is used; `BadInput` gives the reason where none can be."""
    if not loras:
        return {}
    rule = model.lora
    if rule is None or not rule.takes or rule.field is None:
        reason = rule.reason if rule else "it has no field for one"
        raise BadInput(f"{model.key} was given a LoRA and takes none: {reason}.")
    if rule.max_count is not None and len(loras) > rule.max_count:
        raise BadInput(f"{model.key} takes {rule.max_count} LoRAs and was given {len(loras)}: leave some out.")
    entries = []
    for lora in loras:
        if not rule.min_scale <= lora.scale <= rule.max_scale:
            raise BadInput(f"LoRA scale is {lora.scale:g}: {model.key} takes {rule.min_scale:g} to {rule.max_scale:g}.")
        entry: dict[str, Any] = {"path": blob_argument(lora.file), "scale": lora.scale}
        if rule.transformer is not None:
            entry["transformer"] = rule.transformer
        entries.append(entry)
    return {rule.field: entries}


def check_prompt(model: Model, prompt: str) -> None:
    """`BadInput` for a prompt that is blank or longer than the model takes."""
    if not prompt.strip():
        raise BadInput(f"{model.key} was given an empty prompt: say what is to be seen.")
    if model.prompt_max_chars is not None and len(prompt) > model.prompt_max_chars:
        raise BadInput(
            f"The prompt has {len(prompt)} characters and {model.key} takes {model.prompt_max_chars}: shorten it."
        )


def check_seed(seed: int) -> int:
    """The seed, when it is one: 0 to 2^32 - 1."""
    if not 0 <= seed <= MAX_SEED:
        raise BadInput(f"The seed is {seed}: give a number from 0 to {MAX_SEED}.")
    return seed


def _check_range(model: Model, name: str, value: float, rule: RangeRule | None) -> None:
    if rule is None:
        return
    if not rule.minimum <= value <= rule.maximum:
        raise BadInput(f"{name} is {value:g} and {model.key} takes {rule.minimum:g} to {rule.maximum:g}.")


def _size(model: Model, rule: StillRule, size: str | tuple[int, int]) -> str | dict[str, int]:
    if isinstance(size, str):
        if size not in rule.sizes:
            raise BadInput(f"{model.key} has no size {size!r}: choose one of {', '.join(rule.sizes)}.")
        return size
    width, height = size
    if width < 1 or height < 1:
        raise BadInput(f"A still of {width}×{height} pixels cannot be made: give both sides above zero.")
    return {"width": width, "height": height}
