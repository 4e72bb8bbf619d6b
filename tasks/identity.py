"""Identity: was the character learned, and is it in the shot? Measured against pictures never trained on.

A LoRA is judged on the five standard views beside the same views drawn without it (same prompts, same seeds). The
threshold comes from the character's own pictures against the rest of the cast's, before anything is judged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.characters import LoraStatus
from domain.clip_identity import judge_clip
from domain.costs import free_step
from domain.errors import BadInput, BadTrainingSet
from domain.identity import (
    Calibration,
    IdentityVerdict,
    calibrate_threshold,
    judge_lora,
    score_against_references,
)
from domain.jobs import Operation, ProviderJob, Stage
from domain.loras import IDENTITY_SEED, IDENTITY_VIEWS
from providers.wiring import open_ports
from tasks.planning_together import plan_together
from tasks.view_orders import order_view

if TYPE_CHECKING:
    from providers.ports import Appearance, RgbImage
    from providers.wiring import Ports

log = logging.getLogger("onmodel.identity")

JUDGED_FRAMES = 6
FEWEST_REFERENCES = 3
STRANGERS_PER_CHARACTER = 8


def plan_views(ports: Ports, lora_id: int) -> list[str]:
    """The jobs of the identity check, each view with the LoRA and then without it. Reserves money, spends none.

    `BadTrainingSet` when there would be nothing to judge the views by.
    """
    lora = ports.loras.get(lora_id)
    season = ports.seasons.get(lora.season_id)
    character = ports.cast.get(lora.character_id)
    try:
        calibrate(ports, character.id)
    except BadInput as nothing:
        raise BadTrainingSet(
            f"The LoRA of {character.name} cannot be judged, because there is too little to compare its pictures with: "
            f"give at least two images or references of {character.name}."
        ) from nothing
    orders = (
        order_view(
            ports,
            season,
            character,
            lora,
            view,
            scale=scale,
            seed=IDENTITY_SEED + number,
            stage=Stage.IDENTITY_CHECK,
        )
        for number, view in enumerate(IDENTITY_VIEWS)
        for scale in (1.0, 0.0)
    )
    return plan_together(ports, orders, max_attempts=2)


def judge_views(ports: Ports, lora_id: int, keys: Sequence[str]) -> str:
    """Judge a LoRA by its finished views: '' and status ready when it passed, else the reason. Safe to repeat. Free."""
    lora = ports.loras.get(lora_id)
    references, calibration = calibrate(ports, lora.character_id)
    looks = [_look_of_job(ports, ports.ledger.get(key)) for key in keys]
    pairs = list(zip(looks[0::2], looks[1::2], strict=True))
    judged = [pair for pair in pairs if all(look.abstained_because is None for look in pair)]
    verdict = judge_lora(
        [_score(ports, look, references) for look, _ in judged],
        [_score(ports, control, references) for _, control in judged],
        calibration,
        len(pairs) - len(judged),
        metric=ports.scorer.metric,
    )
    ports.loras.keep_verdict("lora", lora_id, lora.character_id, verdict)
    ports.ledger.log_cost(
        free_step(
            lora.season_id,
            Stage.IDENTITY_CHECK,
            ports.scorer.metric,
            "judged on this machine",
            f"identity_check:{lora_id}:{lora.sha256}",
            character_id=lora.character_id,
        )
    )
    if not verdict.is_passed:
        return verdict.reason
    ports.loras.set_status(lora_id, LoraStatus.READY, verdict.reason)
    log.info("%s: %s", lora.character_name, verdict.reason)
    return ""


def calibrate(ports: Ports, character_id: int) -> tuple[list[Appearance], Calibration]:
    """What a character's pictures are compared with, and from which score on they count as the character.

    The references are the held-out pictures where there are three, else all of its pictures; never the picture itself.
    """
    own = _own_pictures(ports, character_id)
    held = [look for look, is_held_out in own if is_held_out]
    if len(held) >= FEWEST_REFERENCES:
        references = held
        genuine = [_score(ports, look, held) for look, is_held_out in own if not is_held_out]
    else:
        references = [look for look, _ in own]
        genuine = [
            _score(ports, look, [other for j, other in enumerate(references) if j != i])
            for i, look in enumerate(references)
            if len(references) > 1
        ]
    character = ports.cast.get(character_id)
    impostors = [
        _score(ports, look, references)
        for other in ports.cast.of_season(character.season_id)
        if other.id != character_id and references
        for look, _ in _own_pictures(ports, other.id)[:STRANGERS_PER_CHARACTER]
    ]
    return references, calibrate_threshold(genuine, impostors)


def score_render(ports: Ports, render_id: int) -> None:
    """Score a rendered clip for each character in it, beside the control of its LoRA. Safe to repeat. Free.

    A character with nothing to compare with, or a clip where the scorer abstains, gets a verdict that says so.
    """
    render = ports.renders.get(render_id)
    if render.clip_sha256 is None:
        return
    path = ports.blobs.local_path(render.clip_sha256)
    seconds = ports.media.probe_clip(path).duration_seconds
    times = [seconds * (i + 0.5) / JUDGED_FRAMES for i in range(JUDGED_FRAMES)]
    frames = ports.media.frames_at(path, times)
    for route in render.routes:
        if not _own_pictures(ports, route.character_id):
            continue
        try:
            references, calibration = calibrate(ports, route.character_id)
        except BadInput:  # one picture, and nobody else in the season: there is nothing to draw the line with
            log.warning("slot %d: %s has too few pictures to judge the clip by", render.slot_number, route.name)
            continue
        scores = [_best_in_frame(ports, frame, references, len(render.routes)) for frame in frames]
        judged = [score for score in scores if score is not None]
        check = lora_control(ports, route.character_id)
        verdict = judge_clip(
            judged,
            calibration,
            len(scores) - len(judged),
            metric=ports.scorer.metric,
            control=check.score.mean_control if check else None,
        )
        ports.loras.keep_verdict("render", render_id, route.character_id, verdict)
    ports.ledger.log_cost(
        free_step(
            render.season_id,
            Stage.IDENTITY_SCORE,
            ports.scorer.metric,
            "done on this machine",
            f"identity_score:{render_id}:{render.clip_sha256}",
            slot_number=render.slot_number,
        )
    )


def lora_control(ports: Ports, character_id: int) -> IdentityVerdict | None:
    """The identity check of the character's current LoRA, with its control."""
    for lora in ports.loras.current(character_id):
        verdict = ports.loras.verdict("lora", lora.id, character_id)
        if verdict is not None:
            return verdict
    return None


def _own_pictures(ports: Ports, character_id: int) -> list[tuple[Appearance, bool]]:
    """Descriptions of the character's pictures that can be judged, each with whether it was held out."""
    training_set = ports.cast.latest_training_set(character_id)
    if training_set is not None:
        named = [(image.sha256, False) for image in training_set.trained]
        named += [(image.sha256, True) for image in training_set.held_out]
    else:
        stills = [still for role in ("reference", "training") for still in ports.cast.stills(character_id, role)]
        named = [(sha256, False) for sha256 in dict.fromkeys(still.sha256 for still in stills)]
    looks = [(ports.describe(sha256), is_held_out) for sha256, is_held_out in named]
    return [(look, is_held_out) for look, is_held_out in looks if look.abstained_because is None]


def _score(ports: Ports, look: Appearance, references: Sequence[Appearance]) -> float:
    return score_against_references([ports.scorer.similarity(look, reference) for reference in references])


def score_picture(ports: Ports, sha256: str, references: Sequence[Appearance]) -> float | None:
    """Likeness of a stored picture to the references, or None where the scorer abstains."""
    look = ports.describe(sha256)
    return None if look.abstained_because is not None or not references else _score(ports, look, references)


def _best_in_frame(ports: Ports, frame: RgbImage, references: Sequence[Appearance], cast_count: int) -> float | None:
    """The frame's likeness; where several characters share it, the best of the whole and its two halves."""
    width = frame.shape[1]
    crops = [frame] if cast_count < 2 else [frame, frame[:, : width // 2], frame[:, width // 2 :]]
    looks = [ports.scorer.describe(crop) for crop in crops]
    scores = [_score(ports, look, references) for look in looks if look.abstained_because is None]
    return max(scores, default=None) if references else None


def _look_of_job(ports: Ports, job: ProviderJob) -> Appearance:
    """How the scorer sees a finished view: the still, or the middle frame of the short clip."""
    if job.operation is Operation.MAKE_STILL:
        image = job.file("image")
        assert image is not None, job.key
        return ports.describe(image.sha256)
    video = job.file("video")
    assert video is not None, job.key
    path = ports.blobs.local_path(video.sha256)
    middle = ports.media.probe_clip(path).duration_seconds / 2
    return ports.scorer.describe(ports.media.frames_at(path, [middle])[0])


@task(name="plan-views", cache_policy=NO_CACHE)
def plan_views_task(lora_id: int) -> list[str]:
    """The jobs of the identity check, with and without the LoRA."""
    return plan_views(open_ports(), lora_id)


@task(name="judge-views", cache_policy=NO_CACHE)
def judge_views_task(lora_id: int, keys: list[str]) -> str:
    """Judge a LoRA by its views: '' or the reason it did not pass."""
    return judge_views(open_ports(), lora_id, keys)


@task(name="score-render", cache_policy=NO_CACHE)
def score_render_task(render_id: int) -> None:
    """Score a rendered clip for each character in it."""
    score_render(open_ports(), render_id)
