"""A LoRA of a character on one base model, its reference set, and the pin made of it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from domain.characters import ImageType, LoraStatus
from domain.jobs import BlobRef
from domain.records import Record
from domain.seasons import TrainingOptions


class Lora(Record):
    """A row of `character_loras`."""

    id: int
    season_id: int
    character_id: int
    character_name: str
    base_model: str
    version: int
    trainer: str
    training_set_id: int | None
    training_options: TrainingOptions
    trigger_word: str
    lora_url: str | None
    sha256: str | None
    high_noise_sha256: str | None = None
    training_images_count: int
    training_steps: int
    training_cost_usd: Decimal
    status: LoraStatus
    status_reason: str
    job_keys: tuple[str, ...]
    created_at: datetime

    def file_ref(self) -> BlobRef | None:
        """The weights as a job's argument, named so that a vendor's loader recognises them."""
        return self._weights(self.sha256, "")

    def high_noise_ref(self) -> BlobRef | None:
        """The second file of a Wan 2.2 LoRA, for the expert of high noise; None for all others."""
        return self._weights(self.high_noise_sha256, "-high_noise")

    def _weights(self, sha256: str | None, suffix: str) -> BlobRef | None:
        if sha256 is None:
            return None
        name = f"{self.trigger_word}-v{self.version}{suffix}.safetensors"
        return BlobRef(sha256=sha256, media_type="application/octet-stream", file_name=name)


class ReferenceImage(Record):
    """One picture of a reference set."""

    lora_id: int
    character_id: int
    sha256: str
    image_url: str
    prompt: str
    image_type: ImageType
    is_primary: bool
    score: float | None
    job_key: str | None = None


class PinnedCharacter(Record):
    """The pictures that stand for a character wherever a video model takes elements."""

    character_id: int
    character_name: str
    lora_id: int | None
    frontal_sha256: str
    frontal_image_url: str
    reference_sha256s: tuple[str, ...]
    reference_image_urls: tuple[str, ...]


class View(Record):
    """A standard view: what is asked for, in words after the trigger word."""

    key: str
    words: str
    image_size: str | tuple[int, int]
    image_type: ImageType | None = None


IDENTITY_SEED = 20_240
IDENTITY_STEPS = 28
IDENTITY_GUIDANCE = 3.5

IDENTITY_VIEWS: tuple[View, ...] = (
    View(key="portrait", words="portrait, facing the camera, plain background", image_size=(1024, 1024)),
    View(key="full_body", words="full body, standing, plain background", image_size=(1024, 1024)),
    View(key="profile", words="profile, side view, looking to the left", image_size=(1024, 1024)),
    View(key="lighting", words="bust, warm evening light from one side", image_size=(1024, 1024)),
    View(key="expression", words="close-up, laughing", image_size=(1024, 1024)),
)
"""The five standard views of the identity check: 1024×1024, 28 steps, guidance 3.5, scale 1.0 (issue)."""

REFERENCE_VIEWS: tuple[View, ...] = (
    View(
        key="frontal",
        words="frontal portrait, facing the camera, neutral background",
        image_size="landscape_16_9",
        image_type=ImageType.FRONTAL,
    ),
    View(
        key="side",
        words="side view, profile, neutral background",
        image_size="landscape_16_9",
        image_type=ImageType.SIDE,
    ),
    View(
        key="three_quarter",
        words="three-quarter view, neutral background",
        image_size="landscape_16_9",
        image_type=ImageType.THREE_QUARTER,
    ),
    View(
        key="full_body",
        words="full body, standing, neutral background",
        image_size="landscape_16_9",
        image_type=ImageType.FULL_BODY,
    ),
    View(
        key="action",
        words="in action, running, dynamic pose",
        image_size="landscape_16_9",
        image_type=ImageType.ACTION,
    ),
)
"""The reference set of five (issue)."""

FRONTAL_CANDIDATES = 2
"""So many frontal pictures are drawn, with different seeds; the best scored becomes the primary."""
