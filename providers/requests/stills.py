"""Orders for stills in the fields that a model's `StillRule` names, whichever vendor's. Pure: nothing is sent."""

from __future__ import annotations

from math import log
from typing import Any

from domain.errors import BadInput
from domain.jobs import blob_argument
from domain.model_rules import Model, ModelKind, RangeRule, StillRule
from providers.requests.checks import check_picture_count, check_prompt, check_range, check_seed
from providers.requests.loras import lora_arguments
from providers.vendor_ports import StillOrder

STEPS_FIELD, GUIDANCE_FIELD = "num_inference_steps", "guidance_scale"
"""What most models call them; `RangeRule.field` says otherwise."""


def still_arguments(model: Model, order: StillOrder) -> dict[str, Any]:
    """The request's arguments; `BadInput` names what the model does not take or still needs.

    Steps and guidance that the order leaves open are the model's own; where it has no field for one, or for a seed,
    the wish is left out. Which size is asked for is always said: no vendor's own default is relied on.
    """
    rule = model.still
    if model.kind is not ModelKind.IMAGE or rule is None:
        raise BadInput(f"{model.key} makes no stills: choose an image model.")
    arguments: dict[str, Any] = {
        **model.fixed,
        "prompt": check_prompt(model, order.prompt),
        **_size(model, rule, order.image_size),
        **_number(model, "steps", order.steps, rule.steps, STEPS_FIELD),
        **_number(model, "guidance", order.guidance, rule.guidance, GUIDANCE_FIELD),
        **_faces(model, rule, order),
        **lora_arguments(model, order.loras),
    }
    if rule.takes_seed:
        arguments["seed"] = check_seed(order.seed)
    return arguments


def _number(model: Model, name: str, wished: float | None, rule: RangeRule | None, usual: str) -> dict[str, Any]:
    if rule is None:
        return {}
    value = rule.default if wished is None else wished
    check_range(model, name, value, rule)
    return {rule.field or usual: int(value) if name == "steps" else value}


def _faces(model: Model, rule: StillRule, order: StillOrder) -> dict[str, Any]:
    if rule.identity is None:
        if order.faces:
            raise BadInput(f"{model.key} draws nobody from pictures and was given {len(order.faces)}: leave them out.")
        return {}
    check_picture_count(model, "pictures of the one who is drawn", order.faces, rule.identity)
    if not rule.identity.is_list:
        return {rule.identity.field: blob_argument(order.faces[0])} if order.faces else {}
    return {rule.identity.field: [blob_argument(face) for face in order.faces]} if order.faces else {}


def _size(model: Model, rule: StillRule, size: str | tuple[int, int]) -> dict[str, Any]:
    if isinstance(size, str) and size not in rule.sizes:
        raise BadInput(f"{model.key} has no size {size!r}: choose one of {', '.join(rule.sizes)}.")
    width, height = rule.sizes[size] if isinstance(size, str) else size
    if width < 1 or height < 1:
        raise BadInput(f"A still of {width}×{height} pixels cannot be made: give both sides above zero.")
    lowest, highest = rule.min_side_px or 1, rule.max_side_px or max(width, height)
    if not (lowest <= min(width, height) and max(width, height) <= highest):
        raise BadInput(
            f"{model.key} draws sides of {lowest} to {rule.max_side_px or 'any number of'} pixels, not "
            f"{width}×{height}: choose one of {', '.join(rule.sizes)}."
        )
    match rule.size_wire:
        case "preset":
            return {rule.size_field: size if isinstance(size, str) else {"width": width, "height": height}}
        case "sides":
            return {"width": width, "height": height}
        case "aspect":
            return {rule.size_field: nearest_aspect(rule.aspects, width / height)}


def nearest_aspect(aspects: tuple[str, ...], wanted: float) -> str:
    """Of texts such as "16:9" the one whose shape is nearest; `wanted` is width / height. Nearness is a ratio, so that
    twice as wide is as far as half as wide."""
    return min(aspects, key=lambda text: abs(log(_ratio(text) / wanted)))


def _ratio(text: str) -> float:
    wide, _, high = text.partition(":")
    return float(wide) / float(high)
