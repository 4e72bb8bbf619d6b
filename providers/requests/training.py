"""Training orders in the fields that a trainer's `TrainingRule` names, whichever vendor's. Pure: nothing is sent."""

from __future__ import annotations

from typing import Any

from domain.errors import BadInput, BadTrainingSet
from domain.jobs import blob_argument
from domain.model_rules import Model, ModelKind, OptionRule
from providers.vendor_ports import TrainingOrder


def training_arguments(model: Model, order: TrainingOrder) -> dict[str, Any]:
    """The request's arguments; `BadInput` names an option the trainer does not take, `BadTrainingSet` too few images
    or clips.

    For a program on a machine of ours (`TrainingRule.program`) this only checks the order: such a trainer has no
    fields, and the result is what the registry fixes.
    """
    rule = model.training
    if model.kind is not ModelKind.TRAINER or rule is None:
        raise BadInput(f"{model.key} is no trainer but makes {model.kind}s: choose a trainer.")
    if not order.trigger_word.strip():
        raise BadInput(f"{model.key} needs a trigger word: give the character one.")
    if order.image_count < rule.min_images:
        things = "images" if rule.takes == "images" else "clips"
        raise BadTrainingSet(
            f"{model.title} needs at least {rule.min_images} {things} and the set has {order.image_count}: add more."
        )
    arguments: dict[str, Any] = {**model.fixed}
    if rule.zip_field:
        arguments[rule.zip_field] = blob_argument(order.zip)
    if rule.trigger_field:
        arguments[rule.trigger_field] = order.trigger_word
    options = (
        ("steps", rule.steps, order.steps),
        ("learning_rate", rule.learning_rate, order.learning_rate),
        ("rank", rule.rank, order.rank),
    )
    for name, option, value in options:
        if value is not None:
            field = _field_of(model, name, option, value)
            if field:
                arguments[field] = value
    return arguments


def _field_of(model: Model, name: str, option: OptionRule, value: float) -> str | None:
    if not option.takes or (option.field is None and model.training is not None and model.training.zip_field):
        raise BadInput(f"{name} {value:g} cannot be given to {model.key}: {option.reason}; leave it out.")
    lowest, highest = option.minimum, option.maximum
    if (lowest is not None and value < lowest) or (highest is not None and value > highest):
        raise BadInput(f"{name} is {value:g} and {model.key} takes {lowest:g} to {highest:g}: choose a value between.")
    if option.choices and value not in option.choices:
        choices = ", ".join(f"{choice:g}" for choice in option.choices)
        raise BadInput(f"{name} is {value:g} and {model.key} takes {choices}: choose one of them.")
    return option.field
