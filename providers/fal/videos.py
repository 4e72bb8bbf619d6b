"""Orders for clips written as requests to fal's video models. Pure: nothing is sent, nothing costs."""

from __future__ import annotations

from typing import Any

from domain.errors import BadInput
from domain.jobs import VendorRequest, blob_argument
from domain.model_rules import DurationRule, ElementRule, Model, ModelKind, VideoRule
from domain.registry import Registry
from providers.fal.stills import check_prompt, check_seed, lora_arguments
from providers.vendor_ports import Element, VideoOrder

WAN_FRAME_STEP = 4
"""Wan encodes frames in fours after the first: 17, 21, …, 81, …, 161."""


class FalVideoMaker:
    """`VideoMaker` for every video model the registry lists at fal."""

    def __init__(self, registry: Registry, vendor: str) -> None:
        self._registry = registry
        self._vendor = vendor

    def video_request(self, order: VideoOrder) -> VendorRequest:
        """The request; `BadInput` names what the model does not take or still needs.

        A seed is a wish: where the model has no field for one (`VideoRule.takes_seed`) it is left out. So is the
        aspect ratio where the model takes the clip's shape from its picture.
        """
        model = self._registry.model(order.model_key)
        rule = model.video
        if model.kind is not ModelKind.VIDEO or rule is None:
            raise BadInput(f"{model.key} makes no videos: choose a video model.")
        check_prompt(model, order.prompt)
        arguments: dict[str, Any] = {
            **model.fixed,
            "prompt": order.prompt,
            **_duration(model, rule.duration, order),
            **_pictures(model, rule, order),
            **lora_arguments(model, order.loras),
        }
        if rule.aspect is not None:
            if order.aspect_ratio not in rule.aspect.allowed:
                allowed = ", ".join(rule.aspect.allowed)
                raise BadInput(f"{model.key} has no aspect ratio {order.aspect_ratio!r}: choose one of {allowed}.")
            arguments[rule.aspect.field] = order.aspect_ratio
        if rule.takes_seed and order.seed is not None:
            arguments["seed"] = check_seed(order.seed)
        return VendorRequest(vendor=self._vendor, endpoint=model.endpoint, arguments=arguments)


def _pictures(model: Model, rule: VideoRule, order: VideoOrder) -> dict[str, Any]:
    given: dict[str, Any] = {"image": order.image, "elements": order.elements, "images": order.images}
    unwanted = [word for word, value in given.items() if value and word not in rule.takes]
    if unwanted:
        raise BadInput(
            f"{model.key} takes {', '.join(rule.takes)} and was given {', '.join(unwanted)}: leave them out."
        )
    arguments: dict[str, Any] = {}
    if rule.image_field is not None:
        if order.image is None:
            raise BadInput(f"{model.key} films a picture and was given none: give the clip's first frame.")
        arguments[rule.image_field] = blob_argument(order.image)
    if rule.elements is not None and order.elements:
        _check_elements(model, rule.elements, order)
        arguments[rule.elements.field] = [_element(rule.elements, element) for element in order.elements]
    if rule.images_field is not None and order.images:
        arguments[rule.images_field] = [blob_argument(image) for image in order.images]
    limit, count = rule.max_images_and_elements, len(order.elements) + len(order.images)
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
        # An element the prompt does not call is silently left out of the picture.
        if f"{rule.prompt_word}{number}" not in order.prompt:
            raise BadInput(
                f"The prompt for {model.key} does not call {rule.prompt_word}{number}: write it where it acts."
            )


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


def _frames(model: Model, rule: DurationRule, order: VideoOrder) -> int:
    rate = rule.frames_per_second or 1
    shortest, longest = rule.shortest_and_longest
    if order.frames is not None:
        frames = order.frames
    else:
        frames = WAN_FRAME_STEP * round(order.seconds * rate / WAN_FRAME_STEP) + 1
    if not (rule.min_frames or 1) <= frames <= (rule.max_frames or frames):
        raise BadInput(
            f"{model.key} makes clips of {shortest:g} to {longest:g} s, {rule.min_frames} to {rule.max_frames} frames: "
            f"{frames} frames are not among them."
        )
    return frames
