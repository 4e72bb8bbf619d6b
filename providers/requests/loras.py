"""LoRAs of an order in the fields that a model's `LoraRule` names, whichever vendor's. Pure: nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from domain.errors import BadInput
from domain.jobs import blob_argument
from domain.model_rules import LoraRule, LoraWire, Model
from providers.vendor_ports import LoraUse

LOW_NOISE, HIGH_NOISE = "low", "high"
"""fal's words for Wan 2.2's two experts (fal.md 2.4)."""


def lora_arguments(model: Model, loras: Sequence[LoraUse]) -> dict[str, Any]:
    """The model's LoRA fields, or nothing when none is used; `BadInput` gives the reason where none can be, or must.

    A LoRA of two files goes to both experts of a model that has two, each file to its own. A LoRA of one file goes
    where `LoraRule.transformer` says, or, in the `EXPERTS` wire, into both fields: the one file is all there is, and
    an expert without it would draw somebody else for its half of the steps.
    """
    rule = model.lora
    if not loras:
        if rule is not None and rule.is_required:
            raise BadInput(f"{model.key} makes nothing without a LoRA: give one of {model.base_model}.")
        return {}
    if rule is None or not rule.takes:
        reason = (rule.reason if rule else None) or "it has no field for one"
        raise BadInput(f"{model.key} was given a LoRA and takes none: {reason}.")
    _check(model, rule, loras)
    match rule.wire:
        case LoraWire.ENTRIES:
            return {_named(model, rule.field): [entry for lora in loras for entry in _entries(rule, lora)]}
        case LoraWire.FLAT:
            return _flat(model, rule, loras)
        case LoraWire.EXPERTS:
            return _experts(model, rule, loras)
        case LoraWire.WEIGHTS:
            return {_named(model, rule.field): [_weights(lora) for lora in loras]}
        case LoraWire.NODES:
            raise BadInput(f"{model.key} is a workflow: its LoRAs go into loader nodes and not into fields.")
        case _:
            assert_never(rule.wire)


def _check(model: Model, rule: LoraRule, loras: Sequence[LoraUse]) -> None:
    most = rule.max_count
    if rule.wire is LoraWire.FLAT:
        most = 2 if rule.extra_field else 1
    if rule.wire is LoraWire.EXPERTS:
        most = 1
    if most is not None and len(loras) > most:
        raise BadInput(f"{model.key} takes {most} LoRAs and was given {len(loras)}: leave some out.")
    has_two = rule.has_two_experts or rule.wire is LoraWire.EXPERTS
    for lora in loras:
        if not rule.min_scale <= lora.scale <= rule.max_scale:
            raise BadInput(f"LoRA scale is {lora.scale:g}: {model.key} takes {rule.min_scale:g} to {rule.max_scale:g}.")
        if lora.high_noise is not None and not has_two:
            raise BadInput(
                f"{model.key} loads one file for a LoRA and was given one of two, {lora.file.file_name} and "
                f"{lora.high_noise.file_name}: choose a model with two experts."
            )


def _entries(rule: LoraRule, lora: LoraUse) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {"path": blob_argument(lora.file), "scale": lora.scale}
    if lora.high_noise is not None:
        high = {"path": blob_argument(lora.high_noise), "scale": lora.scale, "transformer": HIGH_NOISE}
        return [entry | {"transformer": LOW_NOISE}, high]
    return [entry if rule.transformer is None else entry | {"transformer": rule.transformer}]


def _flat(model: Model, rule: LoraRule, loras: Sequence[LoraUse]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    fields = ((rule.field, rule.scale_field), (rule.extra_field, rule.extra_scale_field))
    for (field, scale_field), lora in zip(fields, loras, strict=False):
        arguments[_named(model, field)] = blob_argument(lora.file)
        if scale_field is not None:
            arguments[scale_field] = lora.scale
    return arguments


def _experts(model: Model, rule: LoraRule, loras: Sequence[LoraUse]) -> dict[str, Any]:
    lora = loras[0]
    arguments: dict[str, Any] = {
        _named(model, rule.field): blob_argument(lora.file),
        _named(model, rule.high_noise_field): blob_argument(lora.high_noise or lora.file),
    }
    for field in (rule.scale_field, rule.high_noise_scale_field):
        if field is not None:
            arguments[field] = lora.scale
    return arguments


def _weights(lora: LoraUse) -> dict[str, Any]:
    """What our own serverless worker reads: it checks the digest of what it fetched."""
    return {"url": blob_argument(lora.file), "sha256": lora.file.sha256, "scale": lora.scale}


def _named(model: Model, field: str | None) -> str:
    if field is None:
        raise BadInput(f"The registry names no LoRA field for {model.key}: add it to domain/models/.")
    return field
