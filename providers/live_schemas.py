"""A request held against what a vendor's endpoint takes today, and reading in documents that others wrote."""

from __future__ import annotations

from typing import Any

from domain.errors import Rejected
from domain.jobs import VendorRequest
from domain.model_rules import Model
from providers.vendor_ports import LiveSchema


def check_arguments(model: Model, request: VendorRequest, live: LiveSchema, vendor: str, registry_file: str) -> None:
    """`Rejected`, with every field named, when the request has one too many or lacks one; free, nothing is sent.

    `vendor` as a person reads it; `registry_file` is where the model was written down.
    """
    given = frozenset(request.arguments)
    problems = [f"has no field {name!r}" for name in sorted(given - live.fields)]
    problems += [f"also wants {name!r}" for name in sorted(live.required - given)]
    if problems:
        raise Rejected(
            f"{model.endpoint} has changed since it was written down: it {' and '.join(problems)} "
            f"({vendor}'s schema, read {live.read_at:%Y-%m-%d %H:%M} UTC). Correct {model.key} in "
            f"{registry_file} or choose another model; nothing was sent."
        )


def part_at(value: Any, *keys: str) -> Any:
    """What stands under these keys of a JSON document, one in the other; None where any is missing or no object."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
