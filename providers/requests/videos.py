"""Orders for clips in the fields that a model's `VideoRule` names, whichever vendor's. Pure: nothing is sent."""

from __future__ import annotations

from typing import Any, assert_never

from domain.errors import BadInput
from domain.jobs import blob_argument
from domain.model_rules import DurationRule, ElementRule, Model, ModelKind, VideoRule
from providers.requests.checks import check_picture_count, check_prompt, check_seed
from providers.requests.loras import lora_arguments
from providers.vendor_ports import Element, VideoOrder


def video_arguments(model: Model, order: VideoOrder) -> dict[str, Any]:
    """The request's arguments; `BadInput` names what the model does not take or still needs.

    A seed is a wish: where the model has no field for one (`VideoRule.takes_seed`) it is left out. So is the
    aspect ratio where the model takes the clip's shape from its picture.
    """
    rule = model.video
    if model.kind is not ModelKind.VIDEO or rule is None:
        raise BadInput(f"{model.key} makes no videos: choose a video model.")
    arguments: dict[str, Any] = {
        **model.fixed,
        "prompt": check_prompt(model, order.prompt),
        **_duration(model, rule.duration, order),
        **_pictures(model, rule, order),
        **lora_arguments(model, order.loras),
    }
    if rule.aspect is not None:
        if order.aspect_ratio not in rule.aspect.allowed:
            allowed = ", ".join(rule.aspect.allowed)
            raise BadInput(f"{model.key} has no aspect ratio {order.aspect_ratio!r}: choose one of {allowed}.")
        arguments[rule.aspect.field] = rule.aspect.values.get(order.aspect_ratio, order.aspect_ratio)
    if rule.takes_seed and order.seed is not None:
        arguments["seed"] = check_seed(order.seed)
    return arguments


def frames_of(rule: DurationRule, seconds: float) -> int:
    """How many frames come nearest to `seconds` for a model that counts in frames: a multiple of its step, plus one.

    Wan encodes frames in fours after the first, LTX in eights (fal.md 2.3, 2.4).
    """
    step = rule.frames_multiple
    return step * round(seconds * (rule.frames_per_second or 1) / step) + 1


def _pictures(model: Model, rule: VideoRule, order: VideoOrder) -> dict[str, Any]:
    given: dict[str, Any] = {
        "image": order.image,
        "elements": order.elements,
        "references": order.references,
        "images": order.images,
    }
    unwanted = [word for word, value in given.items() if value and word not in rule.takes]
    if unwanted:
        raise BadInput(
            f"{model.key} takes {', '.join(rule.takes)} and was given {', '.join(unwanted)}: leave them out."
        )
    arguments: dict[str, Any] = {}
    if rule.image_field is not None and order.image is not None:
        arguments[rule.image_field] = blob_argument(order.image)
    elif rule.image_field is not None and not rule.image_is_optional:
        raise BadInput(f"{model.key} films a picture and was given none: give the clip's first frame.")
    if rule.elements is not None and order.elements:
        _check_elements(model, rule.elements, order)
        arguments[rule.elements.field] = [_element(rule.elements, element) for element in order.elements]
    if rule.references is not None:
        check_picture_count(model, "pictures of the characters", order.references, rule.references)
        # Several may show one person, who is called once; a prompt that calls nobody would film strangers.
        _check_cited(model, rule.reference_word, min(1, len(order.references)), order.prompt)
        if order.references:
            arguments[rule.references.field] = [blob_argument(reference) for reference in order.references]
    if rule.images_field is not None and order.images:
        arguments[rule.images_field] = [blob_argument(image) for image in order.images]
    limit = rule.max_images_and_elements
    count = len(order.elements) + len(order.images) + (order.image is not None)
    if limit is not None and count > limit:
        raise BadInput(f"{model.key} takes {limit} elements and images in all and was given {count}: leave some out.")
    return arguments


def _check_elements(model: Model, rule: ElementRule, order: VideoOrder) -> None:
    for number, element in enumerate(order.elements, start=1):
        count = len(element.references)
        if not rule.min_references <= count <= rule.max_references:
            raise BadInput(
                f"Element {number} has {count} reference images beside its frontal one and {model.key} takes "
                f"{rule.min_references} to {rule.max_references}."
            )
    _check_cited(model, rule.prompt_word, len(order.elements), order.prompt)


def _check_cited(model: Model, word: str | None, count: int, prompt: str) -> None:
    # What the prompt does not call is silently left out of the picture.
    for number in range(1, count + 1 if word else 1):
        if f"{word}{number}" not in prompt:
            raise BadInput(f"The prompt for {model.key} does not call {word}{number}: write it where it acts.")


def _element(rule: ElementRule, element: Element) -> dict[str, Any]:
    return {
        rule.frontal_field: blob_argument(element.frontal),
        rule.references_field: [blob_argument(reference) for reference in element.references],
    }


def _duration(model: Model, rule: DurationRule, order: VideoOrder) -> dict[str, Any]:
    if rule.wire == "frames":
        return {rule.field: _frames(model, rule, order)}
    if order.frames is not None:
        raise BadInput(f"{model.key} counts in seconds and was given {order.frames} frames: give seconds only.")
    if order.seconds not in rule.seconds:
        allowed = ", ".join(f"{seconds:g}" for seconds in rule.seconds)
        nearest = rule.nearest_seconds(order.seconds)
        raise BadInput(f"{model.key} makes clips of {allowed} s, not {order.seconds:g} s: {nearest:g} s fits best.")
    whole = int(order.seconds)
    match rule.wire:
        case "string":
            return {rule.field: str(whole)}
        case "string_with_s":
            return {rule.field: f"{whole}s"}
        case "number":
            return {rule.field: whole}
        case "none":
            return {}
        case _:
            assert_never(rule.wire)


def _frames(model: Model, rule: DurationRule, order: VideoOrder) -> int:
    step = rule.frames_multiple
    frames = frames_of(rule, order.seconds) if order.frames is None else order.frames
    if not (rule.min_frames or 1) <= frames <= (rule.max_frames or frames):
        shortest, longest = rule.shortest_and_longest
        raise BadInput(
            f"{model.key} makes clips of {shortest:g} to {longest:g} s, {rule.min_frames} to {rule.max_frames} frames: "
            f"{frames} frames are not among them."
        )
    if (frames - 1) % step:
        raise BadInput(
            f"{model.key} counts frames as {step} × N + 1 and was given {frames}: give a count of that form."
        )
    return frames
