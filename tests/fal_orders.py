"""The plainest order of every model at fal: all that it needs and, where it loads one, a LoRA."""

from __future__ import annotations

from domain.jobs import BlobRef, VendorRequest
from domain.model_rules import Model, ModelKind
from domain.registry import load_registry
from providers.requests.writer import RequestWriter
from providers.vendor_ports import (
    CaptionOrder,
    Element,
    LoraUse,
    StillOrder,
    TrainingOrder,
    Vendor,
    VideoOrder,
)

MODELS = tuple(model for model in load_registry().models if model.vendor == "fal")


def plainest_order(
    writer: RequestWriter | Vendor, model: Model, *, archive: BlobRef, picture: BlobRef, lora: LoraUse
) -> VendorRequest:
    """`archive` is the training set, of stills or of clips as the trainer takes them."""
    loras: tuple[LoraUse, ...] = ()
    if model.lora is not None and model.lora.takes:
        loras = (lora if model.lora.has_two_experts else lora.model_copy(update={"high_noise": None}),)
    match model.kind:
        case ModelKind.TRAINER:
            return writer.training_request(_training(model, archive))
        case ModelKind.IMAGE:
            return writer.still_request(_still(model, picture, loras))
        case ModelKind.VIDEO:
            return writer.video_request(_video(model, picture, loras))
        case ModelKind.CAPTIONER:
            return writer.caption_request(CaptionOrder(model_key=model.key, picture=picture))


def _training(model: Model, archive: BlobRef) -> TrainingOrder:
    rule = model.training
    assert rule is not None
    return TrainingOrder(
        trainer_key=model.key,
        zip=archive,
        trigger_word="MEIKOB_01",
        steps=int(rule.steps.default or 1000),
        learning_rate=rule.learning_rate.default if rule.learning_rate.takes else None,
        rank=int(rule.rank.default or 0) if rule.rank.takes else None,
        image_count=10,
    )


def _still(model: Model, picture: BlobRef, loras: tuple[LoraUse, ...]) -> StillOrder:
    assert model.still is not None
    faces = (picture,) * model.still.identity.minimum if model.still.identity else ()
    return StillOrder(
        model_key=model.key, prompt="MEIKOB_01 runs", loras=loras, faces=faces, image_size="landscape_16_9", seed=7
    )


def _video(model: Model, picture: BlobRef, loras: tuple[LoraUse, ...]) -> VideoOrder:
    rule = model.video
    assert rule is not None
    references = (picture,) * rule.references.minimum if rule.references else ()
    cited = [f"{rule.reference_word}{number + 1}" for number in range(len(references)) if rule.reference_word]
    return VideoOrder(
        model_key=model.key,
        prompt=" ".join(["@Element1, MEIKOB_01, runs by", *cited]),
        seconds=rule.duration.default,
        image=picture if rule.image_field else None,
        elements=(Element(frontal=picture, references=(picture,)),) if rule.elements else (),
        references=references,
        loras=loras,
        seed=4,
    )
