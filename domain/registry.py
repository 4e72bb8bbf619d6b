"""The models OnModel can buy from, read once from `models.toml`: what each takes, its limits, and who says so.

Facts only: turning an order into a vendor's request is the vendor adapter's work, prices live in `money`.
"""

from __future__ import annotations

import difflib
import tomllib
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from domain.captions import CaptionStyle, TriggerRule
from domain.crops import RESOLUTIONS
from domain.errors import BadInput
from domain.layouts import LayoutKind
from domain.records import Record
from domain.stretches import FrameRule


class ModelKind(StrEnum):
    """What a model makes."""

    TRAINER = "trainer"
    IMAGE = "image"
    VIDEO = "video"
    CAPTIONER = "captioner"


class FactSource(Record):
    """Who says a fact of a model, and when; `fact` is the name of the model's field."""

    fact: str
    source: str
    date: str


class LoraRule(Record):
    """Whether a model loads LoRAs: in which field and at what strength, or the reason why not.

    `max_count` is None where the vendor states no limit. `transformer` is Wan 2.2's word for which of its two
    experts a file goes to.
    """

    takes: bool
    field: str | None = None
    transformer: str | None = None
    max_count: int | None = None
    min_scale: float = 0.0
    max_scale: float = 4.0
    reason: str | None = None


class OptionRule(Record):
    """A training option: the vendor's field and range, or the reason why it cannot be given."""

    takes: bool
    field: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    default: float | None = None
    reason: str | None = None


class TrainingRule(Record):
    """What a trainer takes: a zip of stills, or of clips cut by `videos`, with captions of the same stem.

    `layout` is one of domain/layouts.py, `captions` and `trigger` say how captions are written (domain/captions.py),
    `resolutions` the buckets pictures are cut for (domain/crops.py).
    """

    zip_field: str
    trigger_field: str
    min_images: int
    steps: OptionRule
    learning_rate: OptionRule
    rank: OptionRule
    takes: Literal["images", "videos"] = "images"
    layout: LayoutKind = LayoutKind.PLAIN
    captions: CaptionStyle = CaptionStyle.PROSE
    trigger: TriggerRule = TriggerRule.WORD
    resolutions: tuple[int, ...] = RESOLUTIONS
    videos: FrameRule | None = None

    @model_validator(mode="after")
    def _frame_rule_with_videos_only(self) -> TrainingRule:
        if (self.takes == "videos") != (self.videos is not None):
            raise ValueError("videos: a trainer that takes videos, and no other, states its frame rule")
        return self


class RangeRule(Record):
    """A number's limits, both included, and what it is when nobody says."""

    minimum: float
    maximum: float
    default: float


class StillRule(Record):
    """What a still model takes; `sizes` maps the vendor's preset names to (width, height) in pixels."""

    sizes: dict[str, tuple[int, int]]
    steps: RangeRule
    guidance: RangeRule


class DurationRule(Record):
    """How long a clip can be and how the vendor wants to read it.

    `wire`: `string` "5", `string_with_s` "8s", `number` 5, `frames` a frame count at `frames_per_second`.
    """

    field: str
    wire: Literal["string", "string_with_s", "number", "frames"]
    default: float
    seconds: tuple[float, ...] = ()
    frames_per_second: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None

    @property
    def shortest_and_longest(self) -> tuple[float, float]:
        """The limits in seconds, both included."""
        if self.seconds:
            return min(self.seconds), max(self.seconds)
        rate = self.frames_per_second or 1
        return ((self.min_frames or 1) - 1) / rate, ((self.max_frames or 1) - 1) / rate

    def nearest_seconds(self, wanted: float) -> float:
        """The shortest clip that is at least `wanted` seconds long, else the longest there is."""
        if self.seconds:
            return next((allowed for allowed in sorted(self.seconds) if allowed >= wanted), max(self.seconds))
        shortest, longest = self.shortest_and_longest
        return min(max(wanted, shortest), longest)


class ElementRule(Record):
    """How a video model takes characters as sets of pictures; `prompt_word` is followed by 1, 2, …"""

    field: str
    frontal_field: str
    references_field: str
    min_references: int
    max_references: int
    prompt_word: str


class AspectRule(Record):
    """The clip's shape, where the model does not take it from the picture."""

    field: str
    allowed: tuple[str, ...]


class PictureRule(Record):
    """What a picture must be to be accepted; aspect is width / height."""

    max_bytes: int
    min_side_px: int
    min_aspect: float
    max_aspect: float


class VideoRule(Record):
    """What a video model takes beside its prompt. A field that is None is not taken."""

    duration: DurationRule
    image_field: str | None = None
    elements: ElementRule | None = None
    images_field: str | None = None
    max_images_and_elements: int | None = None
    aspect: AspectRule | None = None
    picture: PictureRule | None = None
    takes_seed: bool = False

    @property
    def takes(self) -> tuple[str, ...]:
        """Of `elements`, `images`, `image`, `text`: what can be given; every model takes its prompt."""
        given = {"elements": self.elements, "images": self.images_field, "image": self.image_field}
        return (*(word for word, rule in given.items() if rule), "text")


class CaptionerRule(Record):
    """How a captioner takes its picture, and in which field of the answer its words stand."""

    image_field: str
    text_field: str


class Model(Record):
    """One thing that can be bought. Exactly one of `training`, `still`, `video`, `captioner` is set, by its kind.

    `fixed` are request fields that are always sent with these values, in the vendor's own words.
    """

    key: str
    kind: ModelKind
    title: str
    vendor: str
    endpoint: str
    base_model: str
    fixed: dict[str, Any] = Field(default_factory=dict)
    prompt_max_chars: int | None = None
    lora: LoraRule | None = None
    training: TrainingRule | None = None
    still: StillRule | None = None
    video: VideoRule | None = None
    captioner: CaptionerRule | None = None
    sources: tuple[FactSource, ...]


class BaseModelEntry(Record):
    """What a LoRA is trained on; the reasons say why something is missing for it."""

    key: str
    title: str
    no_trainer: str | None = None
    no_still_model: str | None = None


class Registry(Record):
    """Every model and base model."""

    models: tuple[Model, ...]
    base_models: tuple[BaseModelEntry, ...]
    default_video_model: str

    def model(self, key: str) -> Model:
        """The model with this key; `BadInput` names the nearest keys when there is none."""
        by_key = {model.key: model for model in self.models}
        if key in by_key:
            return by_key[key]
        raise BadInput(f"There is no model {key!r}: {_did_you_mean(key, list(by_key))}.")

    def base_model(self, key: str) -> BaseModelEntry:
        """The base model with this key; `BadInput` names the nearest keys when there is none."""
        by_key = {base.key: base for base in self.base_models}
        if key in by_key:
            return by_key[key]
        raise BadInput(f"There is no base model {key!r}: {_did_you_mean(key, list(by_key))}.")

    def by_endpoint(self, vendor: str, endpoint: str) -> Model | None:
        """The model behind a vendor's endpoint, if it is one of ours."""
        return next((model for model in self.models if (model.vendor, model.endpoint) == (vendor, endpoint)), None)

    def trainer_for(self, base: str, vendor: str = "fal") -> Model:
        """The vendor's trainer for a base model; `BadInput` says why there is none."""
        for model in self.models:
            if (model.kind, model.base_model, model.vendor) == (ModelKind.TRAINER, base, vendor):
                return model
        reason = self.base_model(base).no_trainer or f"{vendor} has no trainer for it here"
        trainable = sorted(model.base_model for model in self.models if model.kind is ModelKind.TRAINER)
        raise BadInput(f"No LoRA can be trained on {base}: {reason}; choose one of {', '.join(trainable)}.")

    def still_model_for(self, base: str) -> Model | None:
        """A still model that loads LoRAs of this base, or None (`base_model(base).no_still_model` says why)."""
        for model in self.models:
            if model.kind is ModelKind.IMAGE and model.base_model == base and model.lora and model.lora.takes:
                return model
        return None

    def captioner_for(self, vendor: str = "fal") -> Model:
        """The vendor's model that describes pictures; `BadInput` when it has none here."""
        for model in self.models:
            if (model.kind, model.vendor) == (ModelKind.CAPTIONER, vendor):
                return model
        raise BadInput(f"{vendor} has no captioner here: write captions: auto, fixed or own in the manifest.")

    def video_models(self) -> tuple[Model, ...]:
        """Every model that makes clips, in the registry's order."""
        return tuple(model for model in self.models if model.kind is ModelKind.VIDEO)


@cache
def load_registry() -> Registry:
    """The registry of `models.toml`, read at the first call."""
    return parse_registry(Path(__file__).with_name("models.toml").read_text("utf-8"))


def parse_registry(text: str) -> Registry:
    """A registry from TOML text; a `ValueError` of pydantic or tomllib says what is wrong with the text."""
    tables = tomllib.loads(text)
    sources = tables["source"]
    models = tuple(_parse_model(key, entry, sources) for key, entry in tables["model"].items())
    bases = tuple(BaseModelEntry(key=key, **entry) for key, entry in tables["base_model"].items())
    return Registry(models=models, base_models=bases, default_video_model=tables["default_video_model"])


def _parse_model(key: str, entry: dict[str, Any], sources: dict[str, Any]) -> Model:
    cited = tuple(
        FactSource(fact=fact, source=sources[name]["what"], date=sources[name]["date"])
        for fact, name in entry["sources"].items()
    )
    return Model.model_validate({**entry, "key": key, "sources": cited})


def _did_you_mean(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}" if near else f"choose one of {', '.join(known)}"
