"""What every order is held against before it is sent: prompt, seed, and numbers within a model's limits. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from domain.errors import BadInput
from domain.jobs import BlobRef
from domain.model_rules import Model, PicturesRule, RangeRule

MAX_SEED = 2**32 - 1


def check_prompt(model: Model, prompt: str) -> str:
    """The prompt; `BadInput` when it is blank or longer than the model takes."""
    if not prompt.strip():
        raise BadInput(f"{model.key} was given an empty prompt: say what is to be seen.")
    if model.prompt_max_chars is not None and len(prompt) > model.prompt_max_chars:
        raise BadInput(
            f"The prompt has {len(prompt)} characters and {model.key} takes {model.prompt_max_chars}: shorten it."
        )
    return prompt


def check_seed(seed: int) -> int:
    """The seed, when it is one: 0 to 2^32 - 1."""
    if not 0 <= seed <= MAX_SEED:
        raise BadInput(f"The seed is {seed}: give a number from 0 to {MAX_SEED}.")
    return seed


def check_range(model: Model, name: str, value: float, rule: RangeRule) -> None:
    """`BadInput` for a number outside the model's limits, both of which are allowed."""
    if not rule.minimum <= value <= rule.maximum:
        raise BadInput(f"{name} is {value:g} and {model.key} takes {rule.minimum:g} to {rule.maximum:g}.")


def check_picture_count(model: Model, what: str, given: Sequence[BlobRef], rule: PicturesRule) -> None:
    """`BadInput` for fewer or more pictures than the model takes."""
    if not rule.minimum <= len(given) <= rule.maximum:
        wanted = f"{rule.minimum}" if rule.minimum == rule.maximum else f"{rule.minimum} to {rule.maximum}"
        raise BadInput(f"{model.key} takes {wanted} {what} and was given {len(given)}.")
