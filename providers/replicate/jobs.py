"""Predictions and trainings as Replicate shows them: which of the two a request is, how far it is, how it ended.

Statuses and fields: replicate_comfyui.md 1.1; `canceled` was stopped while it ran, `aborted` before it began.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit

from domain.errors import JobFailed, OnModelError, PromptRefused
from domain.jobs import JobOutput, JobStatus, OutputFile, TrainingProgress, VendorRequest, VendorState
from domain.model_rules import Model, ModelKind
from domain.money import ESTIMATE_STEP, PriceUnit, load_prices, round_up
from domain.registry import Registry
from providers.vendor_words import moment

CATALOGUE = "replicate"

STATE_OF = {
    "starting": VendorState.QUEUED,
    "processing": VendorState.RUNNING,
    "succeeded": VendorState.DONE,
    "failed": VendorState.FAILED,
    "canceled": VendorState.CANCELLED,
    "aborted": VendorState.CANCELLED,
}
FINAL = ("succeeded", "failed", "canceled", "aborted")

KEPT_FOR = timedelta(hours=1)
"""Outputs and inputs of predictions made by the API are removed after it (replicate_comfyui.md 1.1)."""

CONTENT_FILTER = "E005"
"""A model's content filter: "The input or output was flagged as sensitive. … (E005)", second hand (as above)."""

ERROR_CODE = re.compile(r"^\s*(E\d{3,4})\b|\((E\d{3,4})\)")
ROLE_SOLD = {ModelKind.TRAINER: "lora", ModelKind.IMAGE: "image", ModelKind.VIDEO: "video"}

# " 35%|███▌      | 350/1000 [01:57<03:34,  3.03it/s, lr: 4.0e-04 loss: 2.5e-01]": tqdm's line as ai-toolkit writes it.
_BAR = re.compile(r"(\d{1,9})/(\d{1,9}) \[(?:[\d:]+)<([\d:]+|\?)([^\]\r\n]{0,120})\]")
_LOSS = re.compile(r"loss: ?(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
_COUNT = re.compile(r"(\d{1,9})\s*/\s*(\d{1,9})")
LOG_TAIL_CHARS = 20_000


def model_of(registry: Registry, request: VendorRequest) -> Model | None:
    """The registry's model that a request is for: of those at its endpoint the one whose fixed fields it carries."""
    there = [model for model in registry.models if (model.vendor, model.endpoint) == (CATALOGUE, request.endpoint)]
    for model in there:
        if all(request.arguments.get(field) == value for field, value in model.fixed.items()):
            return model
    return there[0] if there else None


def is_training(registry: Registry, request: VendorRequest) -> bool:
    """Whether it is sent as a training and not as a prediction."""
    model = model_of(registry, request)
    return model is not None and model.kind is ModelKind.TRAINER


def read_status(job: dict[str, Any], model: Model | None, request: VendorRequest, *, quoted_error: str) -> JobStatus:
    """One look; `job["status"]` is a text. Steps, loss and time left come from the last line of its log that counts."""
    word = job["status"]
    state = STATE_OF.get(word, VendorState.UNKNOWN_WORD)
    message = quoted_error or None
    if state is VendorState.UNKNOWN_WORD:
        message = f"Replicate says {word!r}"
    training = _training_progress(job, model, request) if state is VendorState.RUNNING else None
    progress = 1.0 if state is VendorState.DONE else None
    if training is not None:
        progress = training.step / training.total_steps
    elif state is VendorState.RUNNING:
        progress = _share_done(job)
    return JobStatus(state=state, progress=progress, message=message, training=training)


def failure_of(job: dict[str, Any], what: str, model: Model | None, *, quoted_error: str) -> OnModelError:
    """The error that a job which did not succeed ended with; classed by Replicate's codes, never by its sentences.

    Whether Replicate charges the time of a failed job is not confirmed: its own figure is given as if it did.
    """
    sentence = f"Replicate ended {what} as {job.get('status')} ({quoted_error or 'without a reason'})"
    if CONTENT_FILTER in error_codes(job.get("error")):
        return PromptRefused(f"{sentence}: its content filter refused it, change the prompt or the picture.")
    return JobFailed(f"{sentence}: the job ended without a result.", charged_usd(job, model))


def error_codes(error: object) -> frozenset[str]:
    """Codes such as E1001 at the beginning of an error, or in brackets within it."""
    if not isinstance(error, str):
        return frozenset()
    return frozenset(code for pair in ERROR_CODE.findall(error) for code in pair if code)


def charged_usd(job: dict[str, Any], model: Model | None) -> Decimal | None:
    """What the time on Replicate's machine cost, for models that are sold by it; None where they are not, or no time
    is stated. `metrics.predict_time` is in seconds."""
    metrics = job.get("metrics")
    seconds = metrics.get("predict_time") if isinstance(metrics, dict) else None
    price = load_prices().prices.get(model.key) if model is not None else None
    if price is None or price.unit is not PriceUnit.MACHINE_HOUR or price.amount_usd is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e7:
        return None
    return round_up(Decimal(str(seconds)) / 3600 * price.amount_usd, ESTIMATE_STEP)


def is_removed(job: dict[str, Any], now: datetime) -> bool:
    """Whether a job that succeeded has lost its output by now, as it says itself or as its age says."""
    if job.get("data_removed") is True:
        return True
    ended_at = moment(job.get("completed_at"))
    return job.get("output") is None and ended_at is not None and now - ended_at >= KEPT_FOR


def output_of(job: dict[str, Any], what: str, model: Model | None) -> JobOutput:
    """The files of a job that succeeded; `JobFailed` when it names none of the kind that was bought."""
    output = job.get("output")
    kind = model.kind if model is not None else None
    role = ROLE_SOLD.get(kind, "other") if kind is not None else "other"
    if kind is ModelKind.TRAINER and model is not None and model.training is not None:
        given = output if isinstance(output, dict) else {}
        named = [(given.get(field), weights_role) for field, weights_role in model.training.weights.items()]
    else:
        named = [(value, role) for value in (output if isinstance(output, list) else [output])]
    found = tuple(_file(url, its_role) for url, its_role in named if _is_address(url))
    if not any(file.role == role for file in found):
        raise JobFailed(
            f"Replicate calls {what} succeeded, but its output names no {role} file.", charged_usd(job, model)
        )
    return JobOutput(files=found, seed=_seed(job), billed_usd=charged_usd(job, model))


def _file(url: str, role: str) -> OutputFile:
    name = unquote(urlsplit(url).path.rsplit("/", 1)[-1]) or None
    if role.startswith("lora"):
        # What is kept is the one .safetensors inside, whatever the archive is called.
        return OutputFile(role=role, url=url, content_type="application/octet-stream", file_name=f"{role}.safetensors")
    return OutputFile(role=role, url=url, content_type=_media_type(name or ""), file_name=name)


def _media_type(name: str) -> str | None:
    suffix = name.rsplit(".", 1)[-1].lower()
    kinds = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "mp4": "video/mp4"}
    return kinds.get(suffix)


def _is_address(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.startswith("https://")


def _seed(job: dict[str, Any]) -> int | None:
    """The seed that was sent: no model here gives one back."""
    given = job.get("input")
    seed = given.get("seed") if isinstance(given, dict) else None
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def _training_progress(job: dict[str, Any], model: Model | None, request: VendorRequest) -> TrainingProgress | None:
    if model is None or model.training is None:
        return None
    wanted = request.arguments.get(model.training.steps.field or "")
    logs = job.get("logs")
    bars = _BAR.findall(logs[-LOG_TAIL_CHARS:]) if isinstance(logs, str) else []
    for step, total, left, rest in reversed(bars):
        # Other bars (downloads, caching) count other things than the steps that were ordered.
        if int(total) == wanted and int(total) > 0 and int(step) <= int(total):
            loss = _LOSS.search(rest)
            return TrainingProgress(
                step=int(step),
                total_steps=int(total),
                loss=float(loss[1]) if loss else None,
                seconds_left=_clock_seconds(left),
            )
    return None


def _clock_seconds(text: str) -> float | None:
    """`1:02:03` or `03:34` in seconds."""
    parts = text.split(":")
    if not all(part.isdigit() for part in parts) or not 2 <= len(parts) <= 3:
        return None
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + int(part)
    return seconds


def _share_done(job: dict[str, Any]) -> float | None:
    """Share of a model's own steps, 0 to 1; for showing only, nothing is decided by it."""
    logs = job.get("logs")
    counts = _COUNT.findall(logs[-LOG_TAIL_CHARS:]) if isinstance(logs, str) else []
    for done, total in reversed(counts):
        if int(total) > 0 and int(done) <= int(total):
            return int(done) / int(total)
    return None
