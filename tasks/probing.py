"""Proving a cell of the matrix: the vendor's live schema read, the smallest jobs bought, their outputs compared.

Everything is bought through the one door, for a season of its own that nobody runs (`PROBE_SEASONS`). A probe that was
interrupted takes up its own jobs; nothing is bought twice.
"""

from __future__ import annotations

import hashlib
import logging
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from domain.errors import BadInput, JobFailed, NotConfigured, PromptRefused, Rejected, Retryable
from domain.imports import SeasonImport
from domain.jobs import BlobRef, JobOrder, JobState, KeptFile
from domain.model_rules import Model, ModelKind
from domain.money import ceiling_usd
from domain.probe_rules import judge_against_noise, judge_pair
from domain.proofs import PROBE_SEASONS, Proof, Verdict, entry_sha256
from domain.seasons import SeasonManifest
from domain.vendors import catalogue_of, is_stand_in
from providers.vendor_ports import LoraUse, SchemaReader
from tasks.jobs import POLL_RETRY_SECONDS, plan_job, submit_job
from tasks.probe_orders import (
    FULL_STRENGTH,
    ProbePlan,
    Shot,
    drawn_picture,
    needs_picture,
    probe_order,
    shot_price,
    shot_request,
    wants_a_face,
)
from tasks.results import await_job

if TYPE_CHECKING:
    from providers.ports import RgbImage
    from providers.wiring import Ports

log = logging.getLogger("onmodel.probing")

CLIP_LOOKS = (0.1, 0.5, 0.9)
"""Where in a clip frames are compared, as shares of its length."""

ATTEMPTS = 2
"""How often a shot is bought whose job fails: one failure may be the vendor's bad day."""

USABLE_LORA = ("healthy", "suspect")
MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


def plan_probe(
    ports: Ports,
    key: str,
    *,
    vendor: str | None = None,
    lora: Path | None = None,
    trigger_word: str = "",
    picture: Path | None = None,
) -> ProbePlan:
    """What would be bought to prove a model, and what it may cost. Buys and asks nothing; files go into the store.

    `BadInput` when the vendor does not have the model, or a LoRA or picture is missing that only a person can give.
    """
    vendor = vendor or ports.registry.model(key).vendor
    model = ports.registry.at(key, (catalogue_of(vendor),))
    if model is None:
        raise BadInput(f"{vendor} does not have {key}: leave --vendor out, or see onmodel models --vendor {vendor}.")
    is_simulated = is_stand_in(vendor)
    ports.blobs.share(ports.ledger.installation())
    use, word = _lora(ports, model, vendor, lora, is_simulated=is_simulated)
    shots = 0 if model.kind is ModelKind.TRAINER else 1 if use is None else len(Shot)
    return ProbePlan(
        model=model,
        vendor=vendor,
        is_simulated=is_simulated,
        number=ports.proofs.count(model.key, vendor),
        lora=use,
        trigger_word=trigger_word or word,
        picture=_picture(ports, model, picture),
        estimate_usd=shots * shot_price(model),
        ceiling_usd=shots * ceiling_usd(shot_price(model)),
    )


def read_schema(ports: Ports, plan: ProbePlan) -> Proof | None:
    """Hold the request we would send against the vendor's live schema. Free.

    A proof, stored, when that alone decides: the model is gone, a field of ours is, or a new one is demanded; and for
    a trainer also that all is as we write it. None when the outputs must be compared, or the vendor has no schema.
    """
    reader = ports.job_vendor(plan.vendor)
    is_trainer = plan.model.kind is ModelKind.TRAINER
    if not isinstance(reader, SchemaReader):
        if is_trainer:
            raise BadInput(
                f"{plan.vendor} publishes no schema that could be read, and a training is no small job: "
                f"{plan.model.key} is proved by training with it."
            )
        return None
    try:
        reader.live_schema(plan.model)
        reader.check_schema(plan.model, shot_request(ports, plan, Shot.WITH))
    except Rejected as changed:
        return _prove(ports, plan, Verdict.SCHEMA_CHANGED, changed.message, [])
    except (Retryable, NotConfigured) as unknown:
        if is_trainer:
            raise
        log.warning("The live schema of %s could not be read: %s", plan.model.key, unknown.message)
        return None
    if not is_trainer:
        return None
    return _prove(ports, plan, Verdict.WORKS, "its live schema has every field we send; no training was bought", [])


def run_probe(ports: Ports, plan: ProbePlan) -> Proof:
    """Buy the smallest jobs, compare, and store the verdict. Costs up to `plan.ceiling_usd`; safe to repeat: a probe
    that was interrupted goes on with the jobs it has bought.

    The third job, which tells how far two equal requests lie apart, is bought only where it can matter. Errors of the
    door that leave a job open (no answer, no budget, no key, the vendor away) are raised and nothing is stored.
    """
    assert plan.shots, f"{plan.model.key}: a trainer's schema is read, nothing is bought"
    season_id = _season(ports, plan)
    bought: list[str] = []
    outputs: dict[Shot, list[RgbImage]] = {}
    for shot in plan.shots:
        if shot is Shot.AGAIN and (ended := judge_pair(_between(outputs, Shot.WITH))) is not None:
            return _prove(ports, plan, *ended, bought, _between(outputs, Shot.WITH))
        log.info("%s at %s, %s", plan.model.key, plan.vendor, shot.value)
        try:
            outputs[shot] = _bought(ports, probe_order(ports, plan, shot, season_id), bought)
        except PromptRefused as refusal:
            return _prove(ports, plan, Verdict.INCONCLUSIVE, refusal.message, bought)
        except Rejected as refusal:
            return _prove(ports, plan, Verdict.REFUSED, f"{shot.value}: {refusal.message}", bought)
        except JobFailed as failure:
            # Some vendors take any request and judge it when it runs: what goes well without the LoRA and fails twice
            # with it is as good as refused.
            verdict = Verdict.REFUSED if shot is Shot.WITH else Verdict.INCONCLUSIVE
            return _prove(ports, plan, verdict, f"{shot.value}, {ATTEMPTS} times: {failure.message}", bought)
    if len(plan.shots) == 1:
        return _prove(ports, plan, Verdict.WORKS, "it took the request as the registry writes it, and answered", bought)
    difference = _between(outputs, Shot.WITH)
    assert difference is not None
    verdict, detail = judge_against_noise(difference, _between(outputs, Shot.AGAIN))
    return _prove(ports, plan, verdict, detail, bought, difference)


def pixel_difference(one: RgbImage, other: RgbImage) -> float | None:
    """The mean absolute difference of two pictures (height × width × 3, uint8) over all pixels and colours, 0 to 1;
    None when they differ in size."""
    if one.shape != other.shape:
        return None
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean() / 255)


def _between(outputs: dict[Shot, list[RgbImage]], shot: Shot) -> float | None:
    """How far a shot lies from the one without the LoRA: the mean over its pictures."""
    pairs = [pixel_difference(*pair) for pair in zip(outputs[Shot.WITHOUT], outputs[shot], strict=True)]
    known = [pair for pair in pairs if pair is not None]
    return sum(known) / len(known) if len(known) == len(pairs) and known else None


def _bought(ports: Ports, order: JobOrder, bought: list[str]) -> list[RgbImage]:
    """Buy a shot, once more where its job fails, and look at what it made; a captioner's words are no pictures.

    The keys of its jobs are added to `bought`. `JobFailed` when every attempt failed.
    """
    for attempt in range(1, ATTEMPTS + 1):
        key = plan_job(ports, order, max_attempts=ATTEMPTS)
        bought += [key] if key not in bought else []
        submit_job(ports, key)
        try:
            _await(ports, key)
            break
        except JobFailed as failure:
            if attempt == ATTEMPTS:
                raise
            log.warning("%s Trying once more.", failure.message)
    job = ports.ledger.get(key)
    assert job.state is JobState.SUCCEEDED, job.state
    return [picture for file in job.files for picture in _pictures(ports, file)]


def _await(ports: Ports, key: str) -> None:
    """Wait for a job's end; a look that fails is made again, ever later."""
    for seconds in POLL_RETRY_SECONDS:
        try:
            await_job(ports, key)
        except Retryable as failed_look:
            log.warning("%s Looking again in %g s.", failed_look.message, seconds)
            ports.clock.sleep(seconds)
        else:
            return
    await_job(ports, key)


def _pictures(ports: Ports, file: KeptFile) -> list[RgbImage]:
    path = ports.blobs.local_path(file.sha256)
    if file.role == "image":
        return [ports.media.load_image(path)]
    if file.role == "video":
        seconds = ports.media.probe_clip(path).duration_seconds
        return ports.media.frames_at(path, [share * seconds for share in CLIP_LOOKS])
    return []


def _prove(
    ports: Ports, plan: ProbePlan, verdict: Verdict, detail: str, bought: list[str], difference: float | None = None
) -> Proof:
    jobs = [ports.ledger.get(key) for key in bought]
    proof = Proof(
        model_key=plan.model.key,
        vendor=plan.vendor,
        verdict=verdict,
        detail=detail,
        difference=difference,
        cost_usd=sum((job.billed_usd or Decimal(0) for job in jobs), Decimal(0)),
        registry_sha256=entry_sha256(plan.model),
        job_keys=tuple(bought),
        is_simulated=plan.is_simulated,
        proved_at=ports.clock.now(),
    )
    ports.proofs.add(proof)
    return proof


def _season(ports: Ports, plan: ProbePlan) -> int:
    """The season that probes are booked on, with room in its budget for this one."""
    slug = PROBE_SEASONS[plan.is_simulated]
    manifest = SeasonManifest.model_validate({"season": slug, "budget_usd": "0.01"})
    season_id = ports.seasons.store(
        SeasonImport(
            manifest=manifest,
            sha256=hashlib.sha256(slug.encode()).hexdigest(),
            is_simulated=plan.is_simulated,
            clips=(),
            characters=(),
            slots=(),
            warnings=(),
        )
    )
    _, reserved, spent = ports.ledger.budget(season_id)
    ports.budgets.set_season(season_id, limit_usd=max(spent + reserved + plan.ceiling_usd, Decimal("0.01")))
    return season_id


def _lora(
    ports: Ports, model: Model, vendor: str, path: Path | None, *, is_simulated: bool
) -> tuple[LoraUse | None, str]:
    """The LoRA to prove a model with, and its trigger word where it is known."""
    if model.lora is None or not model.lora.takes:
        if path is not None:
            raise BadInput(f"{model.key} takes no LoRA ({model.lora.reason if model.lora else 'it trains'}).")
        return None, ""
    scale = min(FULL_STRENGTH, model.lora.max_scale)
    if path is not None:
        report = ports.check_lora_file(path, expected_base=model.base_model)
        if report.verdict not in USABLE_LORA:
            raise BadInput(f"{path.name} cannot prove {model.key}: {'; '.join(report.reasons)}")
        sha256 = ports.blobs.put_file(path, "application/octet-stream")
        file = BlobRef(sha256=sha256, media_type="application/octet-stream", file_name="probe.safetensors")
        return LoraUse(file=file, scale=scale), ""
    lora_id = ports.proofs.ready_lora(model.base_model, is_simulated=is_simulated)
    if lora_id is None:
        where = "of a rehearsal " if is_simulated else ""
        raise BadInput(
            f"To prove {model.key} at {vendor} a LoRA of {model.base_model} is needed, and none {where}is ready here: "
            f"give one with --lora FILE, or train a character on {model.base_model} first."
        )
    lora = ports.loras.get(lora_id)
    weights = lora.file_ref()
    assert weights is not None, lora_id
    high_noise = lora.high_noise_ref() if model.lora.has_two_experts or model.lora.high_noise_field else None
    return LoraUse(file=weights, scale=scale, high_noise=high_noise), lora.trigger_word


def _picture(ports: Ports, model: Model, path: Path | None) -> BlobRef | None:
    if not needs_picture(model):
        return None
    if path is not None:
        media_type = MEDIA_TYPES[ports.media.probe_image(path).format]
        sha256 = ports.blobs.put_file(path, media_type)
        return BlobRef(sha256=sha256, media_type=media_type, file_name=f"probe{path.suffix.lower()}")
    if wants_a_face(model):
        raise BadInput(f"{model.key} keeps a face: give a picture of one that you may use with --picture FILE.")
    return drawn_picture(ports)
