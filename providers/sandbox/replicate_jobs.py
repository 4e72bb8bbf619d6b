"""What the stand-in of Replicate keeps of its jobs and models on disk, and how a job is shown.

A job's work is one of the sandbox's own (`journal.py`); beside it stands what was sent, under an id as Replicate's.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import tarfile
import threading
import zipfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domain.money import PriceUnit, load_prices
from domain.registry import load_registry
from providers.sandbox.journal import Job, Phase
from providers.sandbox.parts import Stage
from providers.sandbox.replicate_files import delivery_address
from providers.sandbox.replicate_models import played_models
from providers.sandbox.work import faults_of

_ID = re.compile(r"[a-z0-9]{26}")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_STEP = re.compile(r"step (\d+)/(\d+) loss (\S+)")
_PACKING = threading.Lock()
API = "https://api.replicate.com/v1"


@dataclass(frozen=True)
class JobRecord:
    """One accepted prediction or training. `request_id` is the journal's; `created_at` Unix seconds."""

    job_id: str
    kind: str
    model: str
    version: str
    input: dict[str, Any]
    destination: str | None
    request_id: str
    created_at: float


class RecordBook:
    """Jobs and made models, in files below `folder`. Safe from many threads; one server writes it."""

    def __init__(self, folder: Path) -> None:
        self._jobs_folder, self._models_file = folder / "jobs", folder / "models.json"
        self._jobs_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        records = (JobRecord(**json.loads(path.read_text())) for path in self._jobs_folder.glob("*.json"))
        self._jobs = {record.job_id: record for record in sorted(records, key=lambda record: record.created_at)}
        self._models: dict[str, dict[str, Any]] = (
            json.loads(self._models_file.read_text()) if self._models_file.exists() else {}
        )

    def keep(self, **facts: Any) -> JobRecord:
        """A new job, on disk when this returns."""
        record = JobRecord(job_id="".join(secrets.choice(_ALPHABET) for _ in range(26)), **facts)
        _write(self._jobs_folder / f"{record.job_id}.json", asdict(record))
        with self._lock:
            self._jobs[record.job_id] = record
        return record

    def find(self, kind: str, job_id: str) -> JobRecord | None:
        with self._lock:
            record = self._jobs.get(job_id) if _ID.fullmatch(job_id) else None
        return record if record is not None and record.kind == kind else None

    def newest(self, kind: str) -> list[JobRecord]:
        """Every job of a kind, newest first."""
        with self._lock:
            return [record for record in reversed(self._jobs.values()) if record.kind == kind]

    def add_model(self, name: str, facts: dict[str, Any]) -> bool:
        """Whether a model of this name is new; it is on disk then."""
        with self._lock:
            if name in self._models:
                return False
            self._models[name] = facts
            _write(self._models_file, self._models)
            return True

    def has_model(self, name: str) -> bool:
        return self.model(name) is not None

    def model(self, name: str) -> dict[str, Any] | None:
        with self._lock:
            return self._models.get(name)


def shown_job(record: JobRecord, job: Job, stage: Stage, *, is_removed: bool) -> dict[str, Any]:
    """A prediction or training as Replicate shows it; `is_removed`: its input, output and logs are gone."""
    status, error = _ending(job)
    has_data = not (is_removed and status == "succeeded")
    output = _output(record, job, stage) if status == "succeeded" and has_data else None
    address = f"{API}/{record.kind}/{record.job_id}"
    shown: dict[str, Any] = {
        "id": record.job_id,
        "model": record.model,
        "version": record.version,
        "input": record.input if has_data else {},
        "logs": _logs(job, stage) if has_data else "",
        "output": output,
        "data_removed": not has_data,
        "error": error,
        "status": status,
        "source": "api",
        "created_at": _time(record.created_at),
        "started_at": _time(job.started_at),
        "completed_at": _time(job.ended_at),
        "urls": {"get": address, "cancel": f"{address}/cancel", "web": f"https://replicate.com/p/{record.job_id}"},
    }
    if record.destination is not None:
        shown["destination"] = record.destination
    if job.ended_at is not None:
        shown["metrics"] = {
            "predict_time": _predict_seconds(record, job, is_good=status == "succeeded"),
            "total_time": round(job.ended_at - job.accepted_at, 3),
        }
    return shown


def _predict_seconds(record: JobRecord, job: Job, *, is_good: bool) -> float:
    """How long a job that went well would have had the real machine, where that is what is sold: a rehearsal's bill is
    to show the real one's. Else how long it took here."""
    there = [model for model in load_registry().models if model.vendor == "replicate"]
    charged = faults_of(job, "charge")
    for model in there:
        price = load_prices().prices.get(model.key)
        if model.endpoint.partition(":")[0] != record.model or price is None or not (is_good or charged):
            continue
        if price.unit is PriceUnit.MACHINE_HOUR and all(record.input.get(k) == v for k, v in model.fixed.items()):
            if charged and charged[0].argument and price.amount_usd:
                return round(charged[0].number(0.0) / float(price.amount_usd) * 3600, 3)
            units = job.input.get("steps") or job.input.get("seconds") or 1
            return float(price.seconds_before) + float(price.seconds_each) * float(units)
    assert job.ended_at is not None, "only what is over has metrics"
    return round(job.ended_at - (job.started_at or job.ended_at), 3)


def _ending(job: Job) -> tuple[str, str | None]:
    """Replicate's word for where a job is, and its error where there is one."""
    outcome = job.outcome
    if job.phase is not Phase.COMPLETED or outcome is None:
        return ("starting" if job.phase is Phase.IN_QUEUE else "processing"), None
    if outcome.error is None:
        if faults_of(job, "nsfw"):
            return "failed", _flagged()
        return "succeeded", None
    if outcome.error_type == "client_cancelled":
        return "canceled", None
    if outcome.error_type == "request_timeout":
        return "aborted", "Prediction deadline exceeded before it started"
    if "content_policy" in json.dumps([outcome.error_type, outcome.body]):
        return "failed", _flagged()
    if outcome.status >= 500:
        return "failed", f"E1000 {outcome.error}"
    return "failed", outcome.error


def _flagged() -> str:
    return "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"


def _output(record: JobRecord, job: Job, stage: Stage) -> Any:
    assert job.outcome is not None
    model, body = played_models()[record.model], stage.shelf.with_fresh_urls(job.outcome.body)
    if model.makes == "train":
        url = _packed(record, job, stage, model.archive)
        return None if url is None else {"version": f"{record.destination}:{model.version}", "weights": url}
    if model.makes == "still":
        return [delivery_address(image["url"]) for image in body["images"] if image] or None
    return delivery_address(body["video"]["url"]) if body.get("video") else None


def _packed(record: JobRecord, job: Job, stage: Stage, archive: str) -> str | None:
    """The address of a training's archive, made at the first look and kept: one LoRA beside its configuration."""
    assert job.outcome is not None
    made = job.outcome.body.get("lora")
    if not made:
        return None
    note = stage.folder / "replicate" / "weights" / f"{record.job_id}.txt"
    with _PACKING:
        if not note.exists():
            file_id, name = made["url"].rsplit("/", 2)[-2:]
            draft = stage.shelf.scratch()
            _pack(stage.shelf.root / file_id / name, draft, archive)
            stored = stage.shelf.put(
                draft,
                f"trained_model.{archive}",
                "application/octet-stream",
                made_by=record.model,
                is_truncated=bool(faults_of(job, "truncate")),
                is_expired=bool(faults_of(job, "expire")),
            )
            note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            note.write_text(stored.url())
        fresh: str = stage.shelf.with_fresh_urls(note.read_text())
        if fresh != note.read_text():
            note.write_text(fresh)
        return delivery_address(fresh)


def _pack(lora: Path, target: Path, archive: str) -> None:
    settings = b"sandbox: true\n"
    if archive == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.write(lora, "lora.safetensors")
            packed.writestr("config.yaml", settings)
        return
    with tarfile.open(target, "w") as tar:
        folder = "output/flux_train_replicate"
        tar.add(lora, f"{folder}/lora.safetensors", recursive=False)
        facts = tarfile.TarInfo(f"{folder}/config.yaml")
        facts.size = len(settings)
        tar.addfile(facts, io.BytesIO(settings))


def _logs(job: Job, stage: Stage) -> str:
    """The log as text; a training's steps as the trainers' own progress bars."""
    entries = stage.journal.logs(job.request_id)
    return "\n".join(_bar(entry, job) for entry in entries)


def _bar(entry: dict[str, str], job: Job) -> str:
    match = _STEP.fullmatch(entry["message"])
    if match is None:
        return entry["message"]
    step, total, loss = int(match[1]), int(match[2]), float(match[3])
    elapsed = max(0.0, datetime.fromisoformat(entry["timestamp"]).timestamp() - (job.started_at or job.accepted_at))
    left = elapsed / max(1, step) * (total - step)
    rate = step / elapsed if elapsed else 0.0
    share = 100 * step // max(1, total)
    return (
        f"flux_train_replicate: {share:3d}%|{'█' * (share // 10):<10}| {step}/{total} "
        f"[{_clock(elapsed)}<{_clock(left)}, {rate:5.2f}it/s, lr: 4.0e-04 loss: {loss:.3e}]"
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _write(path: Path, value: Any) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(value))
    draft.rename(path)
