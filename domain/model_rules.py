"""What a model takes, as records: the tables of `domain/models/*.toml`, one class per table.

Vendors differ in how a fact is put on the wire; every rule says the vendor's own field names, so that a new model is a
few lines of TOML and no code. A field that is None is not taken by the model.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, model_validator

from domain.captions import CaptionStyle, TriggerRule
from domain.crops import RESOLUTIONS
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


class LoraWire(StrEnum):
    """How a request carries LoRAs.

    `ENTRIES`: a list of `{path, scale}` in `field` (fal). `FLAT`: one address in `field`, its strength in
    `scale_field`; a second in `extra_field` and `extra_scale_field` where there are such (Replicate). `EXPERTS`: two
    addresses, low noise in `field`, high noise in `high_noise_field` (Wan 2.2 on Replicate). `NODES`: loader nodes
    of a ComfyUI workflow; there are no fields. `WEIGHTS`: our own serverless worker's `[{url, sha256, scale}]` in
    `field`.
    """

    ENTRIES = "entries"
    FLAT = "flat"
    EXPERTS = "experts"
    NODES = "nodes"
    WEIGHTS = "weights"


class LoraRule(Record):
    """Whether a model loads LoRAs: in which field and at what strength, or the reason why not.

    `max_count` is None where the vendor states no limit. `transformer` is Wan 2.2's word for which of its two
    experts a single file goes to. `has_two_experts`: a LoRA of this base may have a low- and a high-noise file, and
    both are sent. `is_required`: the model makes nothing without one.
    """

    takes: bool
    field: str | None = None
    wire: LoraWire = LoraWire.ENTRIES
    scale_field: str | None = None
    high_noise_field: str | None = None
    high_noise_scale_field: str | None = None
    extra_field: str | None = None
    extra_scale_field: str | None = None
    transformer: str | None = None
    has_two_experts: bool = False
    is_required: bool = False
    max_count: int | None = None
    min_scale: float = 0.0
    max_scale: float = 4.0
    reason: str | None = None


class OptionRule(Record):
    """A training option: the vendor's field and range, or the reason why it cannot be given. `choices` are the only
    values taken, where there are such."""

    takes: bool
    field: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    default: float | None = None
    choices: tuple[float, ...] = ()
    reason: str | None = None


class TrainerKind(StrEnum):
    """The programs that train on a machine of ours, rented or owned."""

    AI_TOOLKIT = "ai_toolkit"
    MUSUBI = "musubi"
    SD_SCRIPTS = "sd_scripts"


class ProgramRule(Record):
    """A trainer that runs on a machine of ours: which program, in which container, on which GPUs, for how long.

    `architecture` is the program's own word for the base (ai-toolkit's `arch`, musubi's task). `weights` are the files
    or repositories it loads, by the program's own argument name. `settings` are what differs from base to base, in the
    program's own words (providers/trainers). `home` is the program's folder in the image ('' on a machine of one's own,
    which says so itself); where the image lacks the program, `repository` and `commit` say what is put there. `gpus`
    are RunPod's ids in order of preference, `price_cap_usd_per_hour` the most one may cost; `hard_stop_seconds` its
    life's end whatever happens. `seconds_per_step` and `overhead_seconds` (boot, downloads, caching, upload) are for
    the estimate.
    """

    program: TrainerKind
    architecture: str
    weights: dict[str, str]
    settings: dict[str, Any] = Field(default_factory=dict)
    is_gated: bool = False
    has_two_experts: bool = False
    image: str
    home: str = ""
    repository: str | None = None
    commit: str | None = None
    gpus: tuple[str, ...] = ()
    min_cuda_version: str | None = None
    disk_gb: int = 120
    price_cap_usd_per_hour: str = "2.50"
    hard_stop_seconds: int = 6 * 3600
    seconds_per_step: float
    overhead_seconds: float


class TrainingRule(Record):
    """What a trainer takes: a zip of stills, or of clips cut by `videos`, with captions of the same stem.

    `zip_field` and `trigger_field` are the vendor's; both are '' for a `program` of ours, and `trigger_field` is None
    where captions alone carry the word. `weights` maps the answer's fields to the roles `lora` and `lora_high_noise`
    (Wan 2.2's second file). `layout` is one of domain/layouts.py, `captions` and `trigger` say how captions are written
    (domain/captions.py), `resolutions` the buckets pictures are cut for (domain/crops.py).
    """

    zip_field: str = ""
    trigger_field: str | None = ""
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
    weights: dict[str, str] = Field(default_factory=dict)
    program: ProgramRule | None = None

    @model_validator(mode="after")
    def _frame_rule_with_videos_only(self) -> TrainingRule:
        if (self.takes == "videos") != (self.videos is not None):
            raise ValueError("videos: a trainer that takes videos, and no other, states its frame rule")
        return self


class RangeRule(Record):
    """A number's limits, both included, and what it is when nobody says; `field` is the vendor's name for it."""

    minimum: float
    maximum: float
    default: float
    field: str | None = None


class PicturesRule(Record):
    """Pictures that show who is meant: a list of them in `field`, or a single one where `maximum` is 1 and `is_list`
    is False."""

    field: str
    minimum: int = 1
    maximum: int
    is_list: bool = True


class StillRule(Record):
    """What a still model takes; `sizes` maps preset names to (width, height) in pixels.

    `size_wire`: `preset` sends our preset's name, or `{width, height}`; `sides` the two fields `width` and `height`;
    `aspect` the nearest of `aspects` as `size_field`'s text ("16:9"). `min_side_px` and `max_side_px` bound a size
    given in pixels; None where the vendor states no bound. `identity`: pictures of somebody go in and the still keeps
    the face (a route of its own, without a LoRA).
    """

    sizes: dict[str, tuple[int, int]]
    size_field: str = "image_size"
    size_wire: Literal["preset", "sides", "aspect"] = "preset"
    aspects: tuple[str, ...] = ()
    min_side_px: int | None = None
    max_side_px: int | None = None
    steps: RangeRule | None = None
    guidance: RangeRule | None = None
    takes_seed: bool = True
    identity: PicturesRule | None = None


class DurationRule(Record):
    """How long a clip can be and how the vendor wants to read it.

    `wire`: `string` "5", `string_with_s` "8s", `number` 5, `frames` a frame count at `frames_per_second`, of the form
    `frames_multiple` × N + 1; `none`: the model has one length and no field.
    """

    field: str
    wire: Literal["string", "string_with_s", "number", "frames", "none"]
    default: float
    seconds: tuple[float, ...] = ()
    frames_per_second: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    frames_multiple: int = 4

    @property
    def shortest_and_longest(self) -> tuple[float, float]:
        """The limits in seconds, both included."""
        if self.seconds:
            return min(self.seconds), max(self.seconds)
        rate = self.frames_per_second or 1
        return ((self.min_frames or 1) - 1) / rate, ((self.max_frames or 1) - 1) / rate

    @property
    def shortest_clip(self) -> tuple[float, int | None]:
        """The shortest clip: its length in seconds, as it is priced, and its frames where the model counts those."""
        if self.wire != "frames":
            return self.shortest_and_longest[0], None
        frames = self.min_frames or 1
        return frames / (self.frames_per_second or 1), frames

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
    """The clip's shape, where the model does not take it from the picture. `values` says what is sent for a shape
    where that is not its own text: a size in pixels, or a preset's name."""

    field: str
    allowed: tuple[str, ...]
    values: dict[str, Any] = Field(default_factory=dict)


class PictureRule(Record):
    """What a picture must be to be accepted; aspect is width / height."""

    max_bytes: int
    min_side_px: int
    min_aspect: float
    max_aspect: float

    def problem_of(self, width: int, height: int, size_bytes: int) -> str | None:
        """What is wrong with a picture of so many pixels and bytes, as the end of a sentence; None when it is taken."""
        if size_bytes > self.max_bytes:
            return f"has {size_bytes} bytes and {self.max_bytes} are taken"
        if min(width, height) < self.min_side_px:
            return f"has {width}×{height} pixels and both sides must have {self.min_side_px}"
        if not self.min_aspect <= width / height <= self.max_aspect:
            return f"has {width}×{height} pixels and width ÷ height must be {self.min_aspect:g} to {self.max_aspect:g}"
        return None


class VideoRule(Record):
    """What a video model takes beside its prompt. A field that is None is not taken.

    `references` are pictures of the characters in a list of their own, beside or instead of a first frame (Veo 3.1
    references); `reference_word` is how the prompt cites them ("Image " for "Image 1"), None where it need not.
    """

    duration: DurationRule
    image_field: str | None = None
    image_is_optional: bool = False
    elements: ElementRule | None = None
    references: PicturesRule | None = None
    reference_word: str | None = None
    images_field: str | None = None
    max_images_and_elements: int | None = None
    aspect: AspectRule | None = None
    picture: PictureRule | None = None
    takes_seed: bool = False

    @property
    def takes(self) -> tuple[str, ...]:
        """Of `elements`, `references`, `images`, `image`, `text`: what can be given; every model takes its prompt."""
        given = {
            "elements": self.elements,
            "references": self.references,
            "images": self.images_field,
            "image": self.image_field,
        }
        return (*(word for word, rule in given.items() if rule), "text")


class CaptionerRule(Record):
    """How a captioner takes its picture, and in which field of the answer its words stand."""

    image_field: str
    text_field: str


class Model(Record):
    """One thing that can be bought. Exactly one of `training`, `still`, `video`, `captioner` is set, by its kind.

    `same_as` is the key of the same model at another vendor, by which a manifest names both (`kling_v21` at fal and on
    Replicate). `fixed` are request fields that are always sent with these values, in the vendor's own words.
    `template` is the workflow of a ComfyUI model, by its name in `video_workflow_templates`.
    """

    key: str
    kind: ModelKind
    title: str
    vendor: str
    endpoint: str
    base_model: str
    same_as: str | None = None
    template: str | None = None
    fixed: dict[str, Any] = Field(default_factory=dict)
    prompt_max_chars: int | None = None
    lora: LoraRule | None = None
    training: TrainingRule | None = None
    still: StillRule | None = None
    video: VideoRule | None = None
    captioner: CaptionerRule | None = None
    sources: tuple[FactSource, ...]

    @property
    def name(self) -> str:
        """What a manifest calls it, whichever vendor has it."""
        return self.same_as or self.key


class BaseModelEntry(Record):
    """What a LoRA is trained on; the reasons say why something is missing for it."""

    key: str
    title: str
    no_trainer: str | None = None
    no_still_model: str | None = None


class Unsupported(Record):
    """A model that somebody would look for and that cannot be had here, with the reason and who says so."""

    key: str
    title: str
    vendor: str
    reason: str
    source: str
    date: str
