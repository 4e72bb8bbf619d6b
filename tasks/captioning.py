"""Captions by a vendor's captioner: a paid job for each trained picture, and the set that has what came of them.

Only for characters whose captions are `described`. A picture whose job failed, was refused or waits for a person keeps
its automatic caption, with a warning: no training waits for a caption.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.captions import CAPTION_RULES_VERSION, cleaned_caption
from domain.characters import LoraStatus
from domain.errors import JobFailed, OnModelError, Overdue, Rejected, ResultExpired, SubmissionUnknown
from domain.jobs import BlobRef, JobOrder, Operation, ProviderJob, Stage
from domain.money import ceiling_usd, price_of_caption
from domain.pictures import CaptionMode
from domain.records import Record
from domain.seasons import Character
from domain.training_sets import CuratedSet, TrainingImage, TrainingSet
from domain.vendors import catalogue_of, is_stand_in
from providers.vendor_ports import CaptionOrder
from providers.wiring import open_ports
from tasks.fallback_orders import order_with_fallbacks
from tasks.planning_together import plan_together

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.captioning")

DESCRIBED_RULES_VERSION = 1
"""Raised whenever `cleaned_caption` changes, so that the same words give a new set."""

CAPTION_ATTEMPTS = 2


class CaptionJobs(Record):
    """The jobs that describe a set's pictures: all of them, and those that are not over yet."""

    job_keys: tuple[str, ...] = ()
    open_job_keys: tuple[str, ...] = ()


def plan_captions(ports: Ports, training_set_id: int) -> CaptionJobs:
    """A job for each trained picture of the set. Reserves money, spends none; safe to repeat.

    None where the captions are not `described`, and none where every base model has a LoRA that did not fail: that one
    was, or is being, trained with other words, and nobody would read these. `BadInput` for a vendor without a
    captioner, `OverBudget` or `AsksForBudget` when one of the ceilings does not fit.
    """
    training_set = ports.cast.training_set(training_set_id)
    character = ports.cast.get(training_set.character_id)
    if character.captions is not CaptionMode.DESCRIBED or not _is_to_be_trained(ports, character):
        return CaptionJobs()
    orders = (_order(ports, character, image) for image in training_set.trained if not image.is_caption_own)
    keys = plan_together(ports, orders, max_attempts=CAPTION_ATTEMPTS)
    return CaptionJobs(
        job_keys=tuple(keys), open_job_keys=tuple(key for key in keys if not ports.ledger.get(key).is_over)
    )


def _is_to_be_trained(ports: Ports, character: Character) -> bool:
    standing = {lora.base_model for lora in ports.loras.current(character.id) if lora.status is not LoraStatus.FAILED}
    return bool(set(character.base_models) - standing)


def _order(ports: Ports, character: Character, image: TrainingImage) -> JobOrder:
    season = ports.seasons.get(character.season_id)
    picture = BlobRef(sha256=image.sha256, media_type=image.media_type, file_name=image.file_name)

    def order_at(vendor: str) -> JobOrder:
        model = ports.registry.captioner_for(catalogue_of(vendor))
        estimate = price_of_caption(model.key)
        return JobOrder(
            season_id=season.id,
            character_id=character.id,
            stage=Stage.CAPTIONS,
            operation=Operation.DESCRIBE_PICTURE,
            api_name=model.key,
            model_key=model.key,
            request=ports.captioner(vendor).caption_request(CaptionOrder(model_key=model.key, picture=picture)),
            estimate_usd=estimate,
            ceiling_usd=ceiling_usd(estimate),
            is_simulated=is_stand_in(vendor),
        )

    return order_with_fallbacks(season, "image", order_at)


def is_survivable(error: OnModelError) -> bool:
    """Whether the pictures go on without this caption; what stops every job (no money, no key) stops these too."""
    return isinstance(error, JobFailed | Rejected | ResultExpired | Overdue | SubmissionUnknown)


def caption_training_set(ports: Ports, training_set_id: int, keys: Sequence[str]) -> int:
    """The id of the set of the same pictures with what these jobs said of them. Free.

    Safe to repeat: the same words for the same pictures are the same set, stored once. The set itself, unchanged, where
    there are no jobs.
    """
    if not keys:
        return training_set_id
    before = ports.cast.training_set(training_set_id)
    character = ports.cast.get(before.character_id)
    jobs = {job.request.blobs()[0].sha256: job for job in map(ports.ledger.get, keys)}
    trained = tuple(_captioned(image, jobs.get(image.sha256), character.trigger_word) for image in before.trained)
    set_id = ports.cast.keep_training_set(
        CuratedSet(
            character_id=before.character_id,
            digest=_digest(before, trained),
            trained=trained,
            held_out=before.held_out,
            left_out=before.left_out,
            coverage=before.coverage,
            warnings=(*before.warnings, *_warnings(before.trained, jobs)),
        )
    )
    described = sum(job.text is not None for job in jobs.values())
    log.info("%s: %d of %d pictures described by a captioner", character.name, described, len(trained))
    return set_id


def _captioned(image: TrainingImage, job: ProviderJob | None, trigger_word: str) -> TrainingImage:
    if job is None or job.text is None:
        return image
    caption = cleaned_caption(job.text, trigger_word, image.caption)
    return image.model_copy(update={"caption": caption, "is_caption_own": True})


def _digest(before: TrainingSet, trained: Sequence[TrainingImage]) -> str:
    said = (f"{image.sha256} {image.is_caption_own} {image.caption}" for image in trained)
    parts = (before.digest, str(CAPTION_RULES_VERSION), str(DESCRIBED_RULES_VERSION), *said)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _warnings(images: Sequence[TrainingImage], jobs: dict[str, ProviderJob]) -> list[str]:
    """One sentence for all that kept their automatic captions, with the first reason."""
    silent = [(image, jobs[image.sha256]) for image in images if image.sha256 in jobs and not jobs[image.sha256].text]
    if not silent:
        return []
    names = ", ".join(image.name or image.file_name for image, _ in silent)
    job = silent[0][1]
    why = job.error_message or f"its job is {job.state}"
    described = f"{len(jobs) - len(silent)} of {len(jobs)} pictures"
    return [f"The captioner described {described}; automatic captions stay with {names}: {why.rstrip('.')}."]


@task(name="plan-captions", cache_policy=NO_CACHE)
def plan_captions_task(training_set_id: int) -> CaptionJobs:
    """The jobs that describe a set's pictures; none unless the manifest asks for them."""
    return plan_captions(open_ports(), training_set_id)


@task(name="caption-training-set", cache_policy=NO_CACHE)
def caption_training_set_task(training_set_id: int, keys: list[str]) -> int:
    """The set with its pictures' descriptions for captions."""
    return caption_training_set(open_ports(), training_set_id, keys)
