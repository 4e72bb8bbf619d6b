"""A video model's pictures held against its limits before anything is sent: a refusal there may be charged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from domain.errors import BadInput
from domain.jobs import BlobRef
from domain.model_rules import Model
from providers.vendor_ports import VideoOrder

if TYPE_CHECKING:
    from providers.wiring import Ports


def pictures_of(order: VideoOrder) -> tuple[BlobRef, ...]:
    """Every picture of an order, each once."""
    elements = (picture for element in order.elements for picture in (element.frontal, *element.references))
    given: Iterable[BlobRef] = (*([order.image] if order.image else ()), *elements, *order.references, *order.images)
    return tuple({ref.sha256: ref for ref in given}.values())


def check_pictures(ports: Ports, model: Model, order: VideoOrder) -> None:
    """`BadInput` names the first picture that the model would refuse, and why. Free; reads each picture's head."""
    rule = model.video.picture if model.video is not None else None
    if rule is None:
        return
    for ref in pictures_of(order):
        facts = ports.media.probe_image(ports.blobs.local_path(ref.sha256))
        problem = rule.problem_of(facts.width, facts.height, facts.size_bytes)
        if problem is not None:
            raise BadInput(f"The picture {ref.file_name} {problem} by {model.key}: give another, or another model.")
