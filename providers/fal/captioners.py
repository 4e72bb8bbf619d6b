"""Pictures to be described, written as requests to fal's captioners, and the words read out of their answers. Pure.

What Moondream 3 answers is read in others' code only (domain/models.toml): `output`, a text, beside `finish_reason` and
`usage_info`, which are not needed. Anything else in its place is no description, and the job has failed.
"""

from __future__ import annotations

from typing import Any

from domain.errors import BadInput, JobFailed
from domain.jobs import VendorRequest, blob_argument
from domain.model_rules import CaptionerRule, ModelKind
from domain.registry import Registry
from providers.vendor_ports import CaptionOrder

LONGEST_TEXT = 4000
"""Characters kept of an answer: several times what the longest description needs."""


class FalCaptioner:
    """`Captioner` for every captioner the registry lists at fal."""

    def __init__(self, registry: Registry, vendor: str) -> None:
        self._registry = registry
        self._vendor = vendor

    def caption_request(self, order: CaptionOrder) -> VendorRequest:
        """The request; `BadInput` for a model that describes nothing."""
        model = self._registry.model(order.model_key)
        rule = model.captioner
        if model.kind is not ModelKind.CAPTIONER or rule is None:
            raise BadInput(f"{model.key} describes no pictures: choose a captioner.")
        arguments: dict[str, Any] = {**model.fixed, rule.image_field: blob_argument(order.picture)}
        return VendorRequest(vendor=self._vendor, endpoint=model.endpoint, arguments=arguments)


def described_text(answer: dict[str, Any], rule: CaptionerRule, job: str) -> str:
    """What an answer says of the picture: one printable line of at most 4,000 characters.

    `JobFailed`, naming the job, when there are no words in it.
    """
    said = answer.get(rule.text_field)
    words = _one_line(said[: 2 * LONGEST_TEXT]) if isinstance(said, str) else ""
    if not words:
        raise JobFailed(f"fal calls {job} done, but its result says nothing of the picture in {rule.text_field!r}.")
    return words[:LONGEST_TEXT].rstrip()


def _one_line(text: str) -> str:
    # Half of a surrogate pair and the zero byte, which PostgreSQL refuses, are not printable either.
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
