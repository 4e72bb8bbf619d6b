"""The smallest paid jobs that show whether a model does what the registry says: with a LoRA, without it, and again.

Pure but for the probe's picture, which is put into the store. Nothing is sent.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from domain.jobs import BlobRef, JobOrder, Operation, Stage, VendorRequest
from domain.loras import IDENTITY_SEED
from domain.model_rules import Model, ModelKind, StillRule, VideoRule
from domain.money import ceiling_usd, price_of_caption, price_of_still, price_of_video
from domain.probe_rules import MAX_PROBE_STEPS
from domain.records import Record
from providers.vendor_ports import CaptionOrder, Element, LoraUse, StillOrder, TrainingOrder, VideoOrder

if TYPE_CHECKING:
    from providers.wiring import Ports

SCENE = "portrait, facing the camera, plain background"
PICTURE_SIDE_PX = 768
"""A side of the drawn first frame: above what any model here asks for (300 px), and small to send."""

FULL_STRENGTH = 1.0


class Shot(StrEnum):
    """What is bought, in this order. `AGAIN` repeats `WITHOUT`: how far the two lie apart is the noise."""

    WITHOUT = "without the LoRA"
    WITH = "with the LoRA"
    AGAIN = "without the LoRA, once more"


class ProbePlan(Record):
    """A probe before anything is bought. `number` counts the model's probes at this vendor, so that an interrupted one
    is taken up and the next buys anew; `picture` goes wherever the model wants one; `lora` is None where the model
    takes none, and then `WITHOUT` is all that is bought."""

    model: Model
    vendor: str
    is_simulated: bool
    number: int
    lora: LoraUse | None = None
    trigger_word: str = ""
    picture: BlobRef | None = None
    estimate_usd: Decimal
    """Of all shots together: the most that is likely to be spent."""
    ceiling_usd: Decimal

    @property
    def shots(self) -> tuple[Shot, ...]:
        """Everything that may be bought; nothing of a trainer, whose schema alone is read."""
        if self.model.kind is ModelKind.TRAINER:
            return ()
        return tuple(Shot) if self.lora is not None else (Shot.WITHOUT,)

    @property
    def has_seed(self) -> bool:
        """Whether two equal requests can be expected to give equal outputs."""
        if self.model.still is not None:
            return self.model.still.takes_seed
        return self.model.video is not None and self.model.video.takes_seed


def needs_picture(model: Model) -> bool:
    """Whether the model is given a picture in a probe."""
    if model.still is not None:
        return model.still.identity is not None
    if model.video is not None:
        return bool(
            model.video.image_field or model.video.elements or (model.video.references and _least_references(model))
        )
    return model.captioner is not None


def wants_a_face(model: Model) -> bool:
    """Whether a drawn pattern will not do, because the model looks for a face."""
    return model.still is not None and model.still.identity is not None


def shot_price(model: Model) -> Decimal:
    """Estimate in USD of one shot; 0 for a trainer, of which none is bought. `NotConfigured` without a price."""
    match model.kind:
        case ModelKind.IMAGE:
            assert model.still is not None
            return price_of_still(model.key, *model.still.sizes[smallest_size(model.still)])
        case ModelKind.VIDEO:
            assert model.video is not None
            return price_of_video(model.key, model.video.duration.shortest_clip[0])
        case ModelKind.CAPTIONER:
            return price_of_caption(model.key)
        case ModelKind.TRAINER:
            return Decimal(0)


def probe_order(ports: Ports, plan: ProbePlan, shot: Shot, season_id: int) -> JobOrder:
    """One shot as a job; its slot number tells equal requests of a probe, and of two probes, apart."""
    estimate = shot_price(plan.model)
    operations = {
        ModelKind.IMAGE: Operation.MAKE_STILL,
        ModelKind.VIDEO: Operation.MAKE_VIDEO,
        ModelKind.CAPTIONER: Operation.DESCRIBE_PICTURE,
    }
    return JobOrder(
        season_id=season_id,
        slot_number=len(Shot) * plan.number + list(Shot).index(shot) + 1,
        stage=Stage.MODEL_PROBE,
        operation=operations[plan.model.kind],
        api_name=plan.model.key,
        model_key=plan.model.key,
        request=shot_request(ports, plan, shot),
        estimate_usd=estimate,
        ceiling_usd=ceiling_usd(estimate),
        is_simulated=plan.is_simulated,
    )


def shot_request(ports: Ports, plan: ProbePlan, shot: Shot) -> VendorRequest:
    """The vendor's request for a shot; for a trainer, the request of a training. Pure.

    `BadInput` names what the model does not take."""
    model = plan.model
    loras = _loras(plan, shot)
    match model.kind:
        case ModelKind.IMAGE:
            assert model.still is not None
            return ports.image_maker(plan.vendor).still_request(_still(plan, model.still, loras))
        case ModelKind.VIDEO:
            assert model.video is not None
            return ports.video_maker(plan.vendor).video_request(_clip(plan, model.video, loras))
        case ModelKind.CAPTIONER:
            assert plan.picture is not None
            return ports.captioner(plan.vendor).caption_request(CaptionOrder(model_key=model.key, picture=plan.picture))
        case ModelKind.TRAINER:
            return ports.trainer(plan.vendor).training_request(_training(model))


def drawn_picture(ports: Ports) -> BlobRef:
    """A picture for models that want one: a ball over a plain in colours, always the same bytes, in the store."""
    row, column = np.mgrid[0:PICTURE_SIDE_PX, 0:PICTURE_SIDE_PX].astype(np.float32) / PICTURE_SIDE_PX
    image = np.stack([200 - 90 * row, 170 + 40 * column, 150 + 90 * row], axis=-1)
    image[row > 0.7] = (96, 120, 72)
    distance = np.hypot(row - 0.5, column - 0.5)
    ball = distance < 0.22
    image[ball] = np.stack([220 - 300 * distance, 80 - 100 * distance, 60 + 0 * distance], axis=-1)[ball]
    encoded = ports.media.png_bytes(image.clip(0, 255).astype(np.uint8))
    sha256 = ports.blobs.put_bytes(encoded, "image/png")
    return BlobRef(sha256=sha256, media_type="image/png", file_name="probe.png")


def smallest_size(rule: StillRule) -> str:
    """The preset with the fewest pixels."""
    return min(rule.sizes, key=lambda name: rule.sizes[name][0] * rule.sizes[name][1])


def _loras(plan: ProbePlan, shot: Shot) -> tuple[LoraUse, ...]:
    rule, use = plan.model.lora, plan.lora
    if use is None or rule is None:
        return ()
    if shot is Shot.WITH:
        return (use,)
    # A model that makes nothing without one is given the same file at no strength.
    return (use.model_copy(update={"scale": rule.min_scale}),) if rule.is_required else ()


def _still(plan: ProbePlan, rule: StillRule, loras: tuple[LoraUse, ...]) -> StillOrder:
    steps = None
    if rule.steps is not None:
        steps = int(max(rule.steps.minimum, min(rule.steps.default, MAX_PROBE_STEPS)))
    faces = (plan.picture,) * rule.identity.minimum if rule.identity is not None and plan.picture is not None else ()
    return StillOrder(
        model_key=plan.model.key,
        prompt=_prompt(plan),
        loras=loras,
        faces=faces,
        image_size=smallest_size(rule),
        steps=steps,
        guidance=None,
        seed=IDENTITY_SEED,
    )


def _clip(plan: ProbePlan, rule: VideoRule, loras: tuple[LoraUse, ...]) -> VideoOrder:
    _, frames = rule.duration.shortest_clip
    words = [_prompt(plan)]
    elements: tuple[Element, ...] = ()
    references: tuple[BlobRef, ...] = ()
    if rule.elements is not None and plan.picture is not None and rule.image_field is None:
        elements = (Element(frontal=plan.picture, references=(plan.picture,) * rule.elements.min_references),)
        words.append(f"{rule.elements.prompt_word}1 turns around")
    least = _least_references(plan.model)
    if least and plan.picture is not None:
        references = (plan.picture,) * least
        words += [f"{rule.reference_word}{number}" for number in range(1, least + 1) if rule.reference_word]
    return VideoOrder(
        model_key=plan.model.key,
        prompt=", ".join(words),
        seconds=rule.duration.shortest_and_longest[0],
        frames=frames,
        aspect_ratio=_aspect(rule),
        image=plan.picture if rule.image_field is not None else None,
        elements=elements,
        references=references,
        loras=loras,
        seed=IDENTITY_SEED if rule.takes_seed else None,
    )


def _training(model: Model) -> TrainingOrder:
    assert model.training is not None
    steps = model.training.steps
    return TrainingOrder(
        trainer_key=model.key,
        zip=BlobRef(sha256="0" * 64, media_type="application/zip", file_name="probe.zip"),
        trigger_word="PROBE_01",
        steps=int(steps.default or steps.minimum or 1000),
        image_count=max(model.training.min_images, 10),
    )


def _least_references(model: Model) -> int:
    rule = model.video.references if model.video is not None else None
    return rule.minimum if rule is not None else 0


def _aspect(rule: VideoRule) -> str:
    if rule.aspect is None or "1:1" in rule.aspect.allowed:
        return "1:1"
    return rule.aspect.allowed[0]


def _prompt(plan: ProbePlan) -> str:
    return f"{plan.trigger_word}, {SCENE}" if plan.trigger_word else SCENE
