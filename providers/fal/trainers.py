"""Training orders written as requests to fal's LoRA trainers. Pure: nothing is sent, nothing costs."""

from __future__ import annotations

from typing import Any

from domain.errors import BadInput, BadTrainingSet
from domain.jobs import VendorRequest, blob_argument
from domain.model_rules import Model, ModelKind, OptionRule
from domain.registry import Registry
from providers.vendor_ports import TrainingOrder


class FalLoraTrainer:
    """`LoraTrainer` for every trainer the registry lists at fal."""

    def __init__(self, registry: Registry, vendor: str) -> None:
        self._registry = registry
        self._vendor = vendor

    def training_request(self, order: TrainingOrder) -> VendorRequest:
        """The request; `BadInput` names an option the trainer does not take, `BadTrainingSet` too few images."""
        model = self._registry.model(order.trainer_key)
        rule = model.training
        if model.kind is not ModelKind.TRAINER or rule is None:
            raise BadInput(f"{model.key} is no trainer but makes {model.kind}s: choose a trainer.")
        if not order.trigger_word.strip():
            raise BadInput(f"{model.key} needs a trigger word: give the character one.")
        if order.image_count < rule.min_images:
            raise BadTrainingSet(
                f"{model.title} needs at least {rule.min_images} images and the set has {order.image_count}: add more."
            )
        arguments: dict[str, Any] = {
            **model.fixed,
            rule.zip_field: blob_argument(order.zip),
        }
        if rule.trigger_field is not None:
            arguments[rule.trigger_field] = order.trigger_word
        options = (("steps", rule.steps, order.steps),)
        wished = (("learning_rate", rule.learning_rate, order.learning_rate), ("rank", rule.rank, order.rank))
        for name, option, value in (*options, *wished):
            if value is not None:
                arguments[_field_of(model, name, option, value)] = value
        return VendorRequest(vendor=self._vendor, endpoint=model.endpoint, arguments=arguments)


def _field_of(model: Model, name: str, option: OptionRule, value: float) -> str:
    if not option.takes or option.field is None:
        raise BadInput(f"{name} {value:g} cannot be given to {model.key}: {option.reason}; leave it out.")
    lowest, highest = option.minimum, option.maximum
    if (lowest is not None and value < lowest) or (highest is not None and value > highest):
        raise BadInput(f"{name} is {value:g} and {model.key} takes {lowest:g} to {highest:g}: choose a value between.")
    return option.field
