"""Captions by a vendor's captioner: refused, with the reason, until one can be bought through the door for money.

Known of the nearest, fal's Florence-2 (https://fal.ai/models/fal-ai/florence-2-large/dense-region-caption/llms.txt, a
stored copy, read 2026-11): it takes `image_url`, answers `results`, and its price reads "$0 per compute seconds". So no
ceiling can be reserved for it, and a job's output here is files, not text.
"""

from __future__ import annotations

from domain.errors import NotConfigured
from domain.jobs import BlobRef, JobOutput, VendorRequest

_REASONS = {
    "fal": "fal states no usable price for its captioner, so nothing could be reserved for it",
    "sandbox": "the sandbox rehearses no captioner",
    "replicate": "Replicate is not in this version",
}


class RefusingCaptioner:
    """A `Captioner` for a vendor whose captions cannot be bought; refuses before anything is sent."""

    def __init__(self, vendor: str) -> None:
        self._vendor = vendor

    def caption_request(self, picture: BlobRef) -> VendorRequest:  # noqa: ARG002 the port names it
        """Always `NotConfigured`, with the reason and what to do instead."""
        raise self._refusal()

    def caption_text(self, output: JobOutput) -> str:  # noqa: ARG002 the port names it
        """Always `NotConfigured`: there is nothing to read."""
        raise self._refusal()

    def _refusal(self) -> NotConfigured:
        reason = _REASONS.get(self._vendor, f"the vendor {self._vendor!r} is not in this version")
        return NotConfigured(
            f"Captions cannot be bought from {self._vendor}: {reason}. Write captions: auto, fixed or own in the "
            "manifest."
        )
