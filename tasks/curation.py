"""Curation: from all of a character's frames and stills, the training set and what is held out of it.

Order of work: gather → throw out strangers (leave-one-out likeness) → throw out near-duplicates across clips → choose
with a fair share per source → hold out, spread over the sources. Captions say the trigger word first and then what
varies (light, colours, place), never the face (curation_and_identity.md section 1).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.costs import free_step
from domain.errors import BadInput
from domain.frame_rules import DUPLICATE_BITS
from domain.jobs import Stage
from domain.records import Record
from domain.seasons import DEFAULT_MIN_IMAGES, Character
from domain.training_sets import (
    HELD_OUT_AIM,
    SMALLEST_SIDE,
    TRAINED_AIM,
    Coverage,
    CuratedSet,
    TrainingImage,
    held_out_count,
)
from providers.wiring import open_ports
from tasks.datasets import pack_training_zip

if TYPE_CHECKING:
    from providers.ports import Appearance, RgbImage
    from providers.wiring import Ports

log = logging.getLogger("onmodel.curation")

RULES_VERSION = 1
"""Raised whenever the rules of this file change, so that a set made by older ones is made anew."""

STRANGER_MARGIN = 0.12
"""A picture this much less alike to the rest than the median picture is, shows somebody else or two people.
Chosen on the drawn development characters of `benchmarks/identity_dev.py`, then frozen."""


class Candidate(Record):
    """A picture that could be trained on."""

    sha256: str
    media_type: str
    source: str
    at_seconds: float | None
    width: int
    height: int
    sharpness: float
    hash64: int


def curate_training_set(ports: Ports, character_id: int) -> int:
    """Build the character's training set from its harvested clips and stills; returns its id.

    Safe to repeat: the same material gives the same set, byte for byte, stored once. Free. `BadInput` when there are
    too few images: then nothing has been spent on the character.
    """
    character = ports.cast.get(character_id)
    candidates = _gather(ports, character)
    digest = _material_digest(character, candidates)
    known = ports.cast.training_set_of(character_id, digest)
    if known is not None:
        return known
    warnings: list[str] = []
    alike = _without_strangers(ports, candidates, warnings)
    distinct = _without_twins(alike)
    if len(distinct) < character.min_images:
        raise BadInput(
            f"{character.name}: {len(distinct)} usable images of {len(candidates)} found, at least "
            f"{character.min_images} are needed: give more or longer clips, or more images."
        )
    if character.min_images < DEFAULT_MIN_IMAGES:
        warnings.append(f"min_images was lowered to {character.min_images}: expect a weaker likeness.")
    if small := sum(min(c.width, c.height) < SMALLEST_SIDE for c in distinct):
        warnings.append(f"{small} frames are under {SMALLEST_SIDE} pixels: the trainer enlarges them.")
    chosen = _fair_share(distinct, TRAINED_AIM + HELD_OUT_AIM)
    hold = held_out_count(len(chosen), character.min_images)
    if hold < 3:
        warnings.append(f"Only {hold} of {len(chosen)} images could be held out: the identity judgement is weaker.")
    held_out, trained = _split(chosen, hold)
    trained_images = tuple(_training_image(ports, character, c, i) for i, c in enumerate(trained))
    held_images = tuple(_training_image(ports, character, c, i) for i, c in enumerate(held_out, len(trained)))
    zip_sha256 = pack_training_zip(ports, trained_images)
    set_id = ports.cast.keep_training_set(
        CuratedSet(
            character_id=character_id,
            digest=digest,
            zip_sha256=zip_sha256,
            trained=trained_images,
            held_out=held_images,
            left_out=(),
            coverage=Coverage(),
            warnings=tuple(warnings),
        )
    )
    ports.ledger.log_cost(
        free_step(
            character.season_id,
            Stage.TRAINING_SET,
            "onmodel",
            "done on this machine",
            f"training_set:{set_id}",
            character_id=character_id,
        )
    )
    log.info("%s: %d images to train on, %d held out", character.name, len(trained), len(held_out))
    return set_id


def _material_digest(character: Character, candidates: list[Candidate]) -> str:
    """What a set is made of and by which rules: the same digest, the same set."""
    rules = (RULES_VERSION, character.trigger_word, character.min_images, TRAINED_AIM, HELD_OUT_AIM, STRANGER_MARGIN)
    content = "|".join([*map(str, rules), *sorted(candidate.sha256 for candidate in candidates)])
    return hashlib.sha256(content.encode()).hexdigest()


def _gather(ports: Ports, character: Character) -> list[Candidate]:
    candidates = [
        Candidate(
            sha256=frame.sha256,
            media_type=frame.media_type,
            source=clip.source_name,
            at_seconds=frame.at_seconds,
            width=frame.width,
            height=frame.height,
            sharpness=frame.sharpness,
            hash64=frame.hash64,
        )
        for clip in ports.cast.clips(character.id)
        for frame in ports.cast.frames(clip.id)
        if frame.is_kept and frame.sha256 is not None
    ]
    for still in ports.cast.stills(character.id, "training"):
        if min(still.width, still.height) < SMALLEST_SIDE:
            continue
        measured = ports.media.measure_image(ports.media.load_image(ports.blobs.local_path(still.sha256)))
        candidates.append(
            Candidate(
                sha256=still.sha256,
                media_type=still.media_type,
                source=still.source_name,
                at_seconds=None,
                width=still.width,
                height=still.height,
                sharpness=measured.sharpness,
                hash64=measured.hash64,
            )
        )
    return list({candidate.sha256: candidate for candidate in candidates}.values())


def _without_strangers(ports: Ports, candidates: list[Candidate], warnings: list[str]) -> list[Candidate]:
    seen = [(candidate, ports.describe(candidate.sha256)) for candidate in candidates]
    judged = [(candidate, look) for candidate, look in seen if look.abstained_because is None]
    if len(judged) < 4:
        return [candidate for candidate, _ in judged] or candidates
    likeness = leave_one_out([look for _, look in judged], ports.scorer.similarity)
    floor = median(likeness) - STRANGER_MARGIN
    kept = [candidate for (candidate, _), score in zip(judged, likeness, strict=True) if score >= floor]
    if dropped := len(judged) - len(kept):
        warnings.append(f"Left out as unlike the rest (someone else, or two people): {_frames(dropped)}.")
    if unseen := len(seen) - len(judged):
        warnings.append(f"Left out because no subject is clearly seen: {_frames(unseen)}.")
    return kept


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def leave_one_out(looks: Sequence[Appearance], similarity: object) -> list[float]:
    """For each look the median similarity to all the others."""
    assert callable(similarity)
    return [
        float(median(similarity(look, other) for j, other in enumerate(looks) if j != i))
        for i, look in enumerate(looks)
    ]


def _without_twins(candidates: list[Candidate]) -> list[Candidate]:
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (-c.sharpness, c.sha256)):
        if all((candidate.hash64 ^ other.hash64).bit_count() > DUPLICATE_BITS for other in kept):
            kept.append(candidate)
    return kept


def _fair_share(candidates: list[Candidate], wanted: int) -> list[Candidate]:
    """The sharpest of each source in turn, until there are enough; then in order of source and time."""
    by_source: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_source.setdefault(candidate.source, []).append(candidate)
    rounds = [
        c for rank in range(len(candidates)) for source in sorted(by_source) for c in by_source[source][rank : rank + 1]
    ]
    return sorted(rounds[:wanted], key=lambda c: (c.source, c.at_seconds or 0.0, c.sha256))


def _split(chosen: list[Candidate], hold: int) -> tuple[list[Candidate], list[Candidate]]:
    """Held out evenly over the ordered list, so that every source has its share; and the rest."""
    places = {round((i + 0.5) * len(chosen) / hold - 0.5) for i in range(hold)} if hold else set()
    return [c for i, c in enumerate(chosen) if i in places], [c for i, c in enumerate(chosen) if i not in places]


def _training_image(ports: Ports, character: Character, candidate: Candidate, number: int) -> TrainingImage:
    suffix = {"image/png": ".png", "image/webp": ".webp"}.get(candidate.media_type, ".jpg")
    image = ports.media.load_image(ports.blobs.local_path(candidate.sha256))
    return TrainingImage(
        sha256=candidate.sha256,
        file_name=f"{number + 1:03d}{suffix}",
        media_type=candidate.media_type,
        caption=caption_for(character.trigger_word, image),
        source=candidate.source,
        at_seconds=candidate.at_seconds,
        sharpness=candidate.sharpness,
        width=candidate.width,
        height=candidate.height,
    )


_COLOURS = {
    "black": (20, 20, 25),
    "grey": (128, 128, 128),
    "white": (240, 240, 240),
    "red": (190, 40, 40),
    "orange": (225, 130, 40),
    "yellow": (230, 205, 80),
    "green": (70, 140, 70),
    "teal": (40, 130, 135),
    "blue": (50, 80, 170),
    "navy": (25, 35, 80),
    "purple": (110, 60, 140),
    "pink": (225, 140, 170),
    "brown": (110, 75, 50),
    "beige": (215, 195, 160),
}


def caption_for(trigger_word: str, image: RgbImage) -> str:
    """Trigger word, then the light and colours around the subject: what varies from picture to picture."""
    edge = max(2, min(image.shape[:2]) // 12)
    top, bottom = image[:edge].reshape(-1, 3), image[-edge:].reshape(-1, 3)
    sides = np.concatenate([image[:, :edge].reshape(-1, 3), image[:, -edge:].reshape(-1, 3)])
    luma = float(image.mean()) / 255
    light = (
        "night light"
        if luma < 0.25
        else "dim light"
        if luma < 0.42
        else "soft light"
        if luma < 0.65
        else "bright light"
    )
    warmth = float(image[..., 0].mean()) - float(image[..., 2].mean())
    tone = "warm tones" if warmth > 12 else "cool tones" if warmth < -12 else "neutral tones"
    return (
        f"{trigger_word}, {light} with {tone}, {_colour_name(top)} above, {_colour_name(bottom)} below, "
        f"{_colour_name(sides)} background"
    )


def _colour_name(pixels: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> str:
    mean = pixels.astype(np.float64).mean(axis=0)
    return min(_COLOURS, key=lambda name: float(((mean - np.array(_COLOURS[name])) ** 2).sum()))


@task(name="curate-training-set", cache_policy=NO_CACHE)
def curate_training_set_task(character_id: int) -> int:
    """Build the character's training set."""
    return curate_training_set(open_ports(), character_id)
