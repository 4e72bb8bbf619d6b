"""The reference set of five, drawn with the LoRA, and the pin made of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.characters import ImageType
from domain.costs import free_step
from domain.errors import BadInput
from domain.jobs import JobState, Stage
from domain.loras import FRONTAL_CANDIDATES, IDENTITY_SEED, REFERENCE_VIEWS, PinnedCharacter, ReferenceImage, View
from providers.wiring import open_ports
from tasks.identity import calibrate, score_picture
from tasks.planning_together import plan_together
from tasks.view_orders import order_view, view_prompt

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.references")

REFERENCE_SEED = IDENTITY_SEED + 1000
PINNED_REFERENCES = 3
"""An element takes one frontal image and 1–3 references (fal.md 2.5)."""


def reference_candidates() -> list[tuple[View, int]]:
    """Every picture of a reference set that is drawn, with its seed; of the frontal view several, to choose from."""
    drawn: list[tuple[View, int]] = []
    for number, view in enumerate(REFERENCE_VIEWS):
        takes = FRONTAL_CANDIDATES if view.image_type is ImageType.FRONTAL else 1
        drawn += [(view, REFERENCE_SEED + 10 * number + take) for take in range(takes)]
    return drawn


def plan_references(ports: Ports, lora_id: int) -> list[str]:
    """The jobs of the reference set; frontal pictures come in candidates. Reserves money, spends none."""
    lora = ports.loras.get(lora_id)
    season = ports.seasons.get(lora.season_id)
    character = ports.cast.get(lora.character_id)
    orders = (
        order_view(ports, season, character, lora, view, scale=character.lora_scale, seed=seed, stage=Stage.REFERENCES)
        for view, seed in reference_candidates()
    )
    return plan_together(ports, orders, max_attempts=2)


def keep_references(ports: Ports, lora_id: int, keys: Sequence[str]) -> int:
    """Score the finished pictures and keep the set: the best frontal one is primary. Safe to repeat. Free.

    Returns how many views there are; a view whose job failed is left out.
    """
    lora = ports.loras.get(lora_id)
    character = ports.cast.get(lora.character_id)
    references, _ = calibrate(ports, lora.character_id)
    best: dict[ImageType, ReferenceImage] = {}
    for (view, _seed), key in zip(reference_candidates(), keys, strict=True):
        job = ports.ledger.get(key)
        file = job.file("image")
        if job.state is not JobState.SUCCEEDED or file is None:
            continue
        assert view.image_type is not None
        image = ReferenceImage(
            lora_id=lora_id,
            character_id=lora.character_id,
            sha256=file.sha256,
            image_url=ports.blobs.url(file.sha256),
            prompt=view_prompt(lora, character, view),
            image_type=view.image_type,
            is_primary=view.image_type is ImageType.FRONTAL,
            score=score_picture(ports, file.sha256, references),
            job_key=key,
        )
        known = best.get(view.image_type)
        if known is None or (image.score or -1.0) > (known.score or -1.0):
            best[view.image_type] = image
    ports.loras.keep_references(lora_id, list(best.values()))
    step = free_step(
        lora.season_id,
        Stage.REFERENCES,
        ports.scorer.metric,
        "chosen on this machine",
        f"references:{lora_id}:{lora.sha256}",
        character_id=lora.character_id,
    )
    ports.ledger.log_cost(step)
    return len(best)


def pin_character(ports: Ports, lora_id: int) -> None:
    """Pin the character to its reference set: the primary, and up to three more by score. Safe to repeat. Free.

    `BadInput` when the set has no frontal picture or nothing beside it.
    """
    lora = ports.loras.get(lora_id)
    images = ports.loras.references(lora_id)
    primary = next((image for image in images if image.is_primary), None)
    others = [image for image in images if not image.is_primary and image.image_type is not ImageType.ACTION]
    others.sort(key=lambda image: -(image.score or -1.0))
    if primary is None or not others:
        raise BadInput(f"{lora.character_name}: the reference set lacks a frontal picture or has nothing beside it.")
    chosen = others[:PINNED_REFERENCES]
    # Logged first: whoever finds the character pinned does not come by here again.
    ports.ledger.log_cost(
        free_step(
            lora.season_id,
            Stage.PINNING,
            "onmodel",
            "done on this machine",
            f"pin:{lora_id}:{primary.sha256}",
            character_id=lora.character_id,
        )
    )
    ports.loras.pin(
        lora.season_id,
        PinnedCharacter(
            character_id=lora.character_id,
            character_name=lora.character_name,
            lora_id=lora_id,
            frontal_sha256=primary.sha256,
            frontal_image_url=primary.image_url,
            reference_sha256s=tuple(image.sha256 for image in chosen),
            reference_image_urls=tuple(image.image_url for image in chosen),
        ),
    )
    log.info("%s is pinned with %d references", lora.character_name, len(chosen))


def ask_for_review(ports: Ports, lora_id: int) -> str:
    """Leave a message that the reference set waits for a nod; returns the sentence."""
    lora = ports.loras.get(lora_id)
    season = ports.seasons.get(lora.season_id)
    message = (
        f"{lora.character_name}: the reference set waits for a person. Look at it in the report, then pin it with: "
        f"onmodel pin {season.slug} '{lora.character_name}'"
    )
    ports.renders.notify(season.id, "review", message, f"review:{lora_id}")
    return message


@task(name="plan-references", cache_policy=NO_CACHE)
def plan_references_task(lora_id: int) -> list[str]:
    """The jobs of the reference set."""
    return plan_references(open_ports(), lora_id)


@task(name="keep-references", cache_policy=NO_CACHE)
def keep_references_task(lora_id: int, keys: list[str]) -> int:
    """Keep the finished reference set."""
    return keep_references(open_ports(), lora_id, keys)


@task(name="pin-character", cache_policy=NO_CACHE)
def pin_character_task(lora_id: int) -> None:
    """Pin the character to its reference set."""
    pin_character(open_ports(), lora_id)


@task(name="ask-for-review", cache_policy=NO_CACHE)
def ask_for_review_task(lora_id: int) -> str:
    """Leave a message that the references wait for a nod."""
    return ask_for_review(open_ports(), lora_id)
