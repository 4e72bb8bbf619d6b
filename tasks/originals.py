"""Originals: the pictures that stand for a character where its LoRA does not. Free of Prefect, for the report."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from domain.jobs import BlobRef
from domain.pictures import suffix_of

if TYPE_CHECKING:
    from providers.wiring import Ports

ORIGINALS_READ = 4


def original_references(ports: Ports, character_id: int) -> tuple[BlobRef, ...]:
    """The pictures that stand for a character without a LoRA: those given, else the sharpest frames learned from."""
    given = ports.cast.stills(character_id, "reference")
    if given:
        return tuple(still.ref() for still in given[:ORIGINALS_READ])
    training_set = ports.cast.latest_training_set(character_id)
    if training_set is None:
        stills = ports.cast.stills(character_id, "training")
        if stills:
            return tuple(still.ref() for still in stills[:ORIGINALS_READ])
        return _best_frames(ports, character_id)
    best = sorted(training_set.trained, key=lambda image: -(image.sharpness or 0.0))[:ORIGINALS_READ]
    return tuple(BlobRef(sha256=i.sha256, media_type=i.media_type, file_name=i.file_name) for i in best)


def _best_frames(ports: Ports, character_id: int) -> tuple[BlobRef, ...]:
    """The sharpest frame of each of its clips, then the next ones."""
    by_clip = [
        sorted((f for f in ports.cast.frames(clip.id) if f.is_kept), key=lambda frame: -frame.sharpness)
        for clip in ports.cast.clips(character_id)
    ]
    ranked = [frame for rank in zip_longest(*by_clip) for frame in rank if frame is not None]
    return tuple(
        BlobRef(
            sha256=frame.sha256, media_type=frame.media_type, file_name=f"frame-{number}{suffix_of(frame.media_type)}"
        )
        for number, frame in enumerate(ranked[:ORIGINALS_READ], 1)
        if frame.sha256 is not None
    )
