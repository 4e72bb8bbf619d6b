"""Pictures to be described, in the field that a captioner's rule names, whichever vendor's. Pure: nothing is sent."""

from __future__ import annotations

from typing import Any

from domain.errors import BadInput
from domain.jobs import blob_argument
from domain.model_rules import Model, ModelKind
from providers.vendor_ports import CaptionOrder


def caption_arguments(model: Model, order: CaptionOrder) -> dict[str, Any]:
    """The request's arguments; `BadInput` for a model that describes nothing."""
    rule = model.captioner
    if model.kind is not ModelKind.CAPTIONER or rule is None:
        raise BadInput(f"{model.key} describes no pictures: choose a captioner.")
    return {**model.fixed, rule.image_field: blob_argument(order.picture)}
