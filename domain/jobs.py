"""Paid work at a vendor: its identity, its states and the only legal way between them.

A `VendorRequest` is canonical: where the vendor wants a URL it holds a `BlobRef` (the SHA-256 of the
bytes), because uploads and signed links change while the picture does not. The digest of the request,
with whom it is for and the attempt, is the job's key, and a key is paid at most once.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from domain.records import Record


class Operation(StrEnum):
    """What is bought."""

    TRAIN_LORA = "train_lora"
    MAKE_STILL = "make_still"
    MAKE_VIDEO = "make_video"
    DESCRIBE_PICTURE = "describe_picture"


class Stage(StrEnum):
    """Where in the chain a cost arises; the words of `job_costs.stage`."""

    FRAMES = "frames"
    TRAINING_SET = "training_set"
    CAPTIONS = "captions"
    LORA_TRAINING = "lora_training"
    LORA_CHECK = "lora_check"
    IDENTITY_CHECK = "identity_check"
    REFERENCES = "references"
    PINNING = "pinning"
    LORA_APPLICATION = "lora_application"
    VIDEO = "video"
    IDENTITY_SCORE = "identity_score"
    ASSEMBLY = "assembly"
    MODEL_PROBE = "model_probe"


class JobState(StrEnum):
    """State of a row in `provider_jobs`; equal to the SQL type `job_state`."""

    PLANNED = "planned"
    SUBMITTING = "submitting"
    SUBMISSION_UNKNOWN = "submission_unknown"
    SUBMITTED = "submitted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


_ENDS = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})

LEGAL_EDGES: dict[JobState, frozenset[JobState]] = {
    JobState.PLANNED: frozenset({JobState.SUBMITTING, JobState.CANCELLED}),
    JobState.SUBMITTING: frozenset(
        {JobState.SUBMITTED, JobState.PLANNED, JobState.SUBMISSION_UNKNOWN, JobState.FAILED}
    ),
    JobState.SUBMISSION_UNKNOWN: frozenset({JobState.SUBMITTED, JobState.PLANNED, JobState.CANCELLED}),
    JobState.SUBMITTED: frozenset({JobState.RUNNING}) | _ENDS,
    JobState.RUNNING: _ENDS,
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.EXPIRED: frozenset(),
}
"""`submitting → failed` is the vendor's definite and final refusal (a 422): nothing exists there."""


class BlobRef(Record):
    """Bytes in our own store, standing where a vendor expects a URL."""

    sha256: str
    media_type: str
    file_name: str


class VendorRequest(Record):
    """One paid call, in the vendor's own field names, with `BlobRef`s instead of URLs.

    `arguments` is plain JSON in which a file appears as `{"$blob": {"sha256", "media_type", "file_name"}}`.
    """

    vendor: str
    endpoint: str
    arguments: dict[str, Any]

    def blobs(self) -> tuple[BlobRef, ...]:
        """The files this request needs the vendor to reach, in order of appearance, each once."""
        found: dict[str, BlobRef] = {}

        def walk(value: Any) -> None:
            if isinstance(value, dict):
                if set(value) == {"$blob"}:
                    ref = BlobRef.model_validate(value["$blob"])
                    found.setdefault(ref.sha256, ref)
                else:
                    for inner in value.values():
                        walk(inner)
            elif isinstance(value, list | tuple):
                for inner in value:
                    walk(inner)

        walk(self.arguments)
        return tuple(found.values())

    def with_urls(self, url_of: dict[str, str]) -> dict[str, Any]:
        """The JSON body to send: every file replaced by `url_of[sha256]`."""

        def fill(value: Any) -> Any:
            if isinstance(value, dict):
                if set(value) == {"$blob"}:
                    return url_of[value["$blob"]["sha256"]]
                return {key: fill(inner) for key, inner in value.items()}
            if isinstance(value, list | tuple):
                return [fill(inner) for inner in value]
            return value

        body: dict[str, Any] = fill(self.arguments)
        return body


def blob_argument(ref: BlobRef) -> dict[str, Any]:
    """How a file is written inside `VendorRequest.arguments`."""
    return {"$blob": ref.model_dump()}


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN. Files count by their SHA-256 alone."""

    def strip(inner: Any) -> Any:
        if isinstance(inner, dict):
            if set(inner) == {"$blob"}:
                return {"$blob": inner["$blob"]["sha256"]}
            return {key: strip(value) for key, value in inner.items()}
        if isinstance(inner, list | tuple):
            return [strip(value) for value in inner]
        return inner

    return json.dumps(strip(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class JobOrder(Record):
    """What somebody wants bought, and for whom; `ceiling_usd` is reserved before it is sent."""

    season_id: int
    slot_number: int | None = None
    character_id: int | None = None
    stage: Stage
    operation: Operation
    api_name: str
    model_key: str
    request: VendorRequest
    estimate_usd: Decimal
    ceiling_usd: Decimal
    is_simulated: bool = False
    fallbacks: tuple[JobOrder, ...] = ()
    """The same work at the next vendors of the manifest, in order; used only when this one is known dead."""

    @property
    def work_key(self) -> str:
        """Digest of the work itself: the same for every attempt at it."""
        identity = {
            "season": self.season_id,
            "slot": self.slot_number,
            "character": self.character_id,
            "stage": self.stage,
            "operation": self.operation,
            "model": self.model_key,
            "request": self.request.model_dump(),
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()

    def job_key(self, attempt: int) -> str:
        """The key of one attempt (1, 2, …). A key is submitted, and paid, at most once."""
        return hashlib.sha256(f"{self.work_key}:{attempt}".encode()).hexdigest()[:40]


class VendorJobIds(Record):
    """What the vendor calls our job; stored before anything else happens after a submit."""

    request_id: str
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None


class KeptFile(Record):
    """An output file in our own store, checked; `url` is where the vendor had it."""

    role: str
    sha256: str
    media_type: str
    file_name: str
    url: str

    def ref(self) -> BlobRef:
        return BlobRef(sha256=self.sha256, media_type=self.media_type, file_name=self.file_name)


class ProviderJob(Record):
    """A row of the ledger."""

    key: str
    work_key: str
    attempt: int
    season_id: int
    slot_number: int | None
    character_id: int | None
    stage: Stage
    operation: Operation
    api_name: str
    model_key: str
    request: VendorRequest
    state: JobState
    not_before: datetime | None
    ids: VendorJobIds | None
    files: tuple[KeptFile, ...]
    text: str | None = None
    """What a captioner said, on one line; None for every other job."""
    seed: int | None
    error_class: str | None
    error_message: str | None
    estimate_usd: Decimal
    ceiling_usd: Decimal
    billed_usd: Decimal | None
    """Set with its end; or before it, when its result is kept already and only the settling is left."""
    is_simulated: bool
    submitted_at: datetime | None
    created_at: datetime
    heartbeat_at: datetime | None
    finished_at: datetime | None
    waited_seconds: float
    """Time spent looking at it, as `Ledger.beat` counts it: not the time since it was submitted."""
    cancel_requested_at: datetime | None
    post_count: int
    submitting_at: datetime | None
    sent_urls: dict[str, str]
    fallbacks: tuple[JobOrder, ...]
    moved_to: str | None
    installation: str
    """The mark of the database that holds it."""

    @property
    def is_over(self) -> bool:
        return self.state in _ENDS

    @property
    def needs_word(self) -> bool:
        """Whether it may have been paid without a result, so that only a person's word buys the work again."""
        return self.is_over and self.error_class in ("ResultExpired", "Overdue")

    @property
    def was_refused(self) -> bool:
        """Whether the vendor said no to the request itself, so that asking again is useless."""
        return self.error_class in ("Rejected", "PromptRefused", "BadTrainingSet")

    def file(self, role: str) -> KeptFile | None:
        """The first kept file of a role, or None."""
        return next((file for file in self.files if file.role == role), None)

    def order(self) -> JobOrder:
        """What was ordered, so that it can be ordered again."""
        return JobOrder(
            season_id=self.season_id,
            slot_number=self.slot_number,
            character_id=self.character_id,
            stage=self.stage,
            operation=self.operation,
            api_name=self.api_name,
            model_key=self.model_key,
            request=self.request,
            estimate_usd=self.estimate_usd,
            ceiling_usd=self.ceiling_usd,
            is_simulated=self.is_simulated,
            fallbacks=self.fallbacks,
        )


class JobEvent(Record):
    """One move of a job, as it is kept for good."""

    from_state: JobState | None
    to_state: JobState
    detail: str
    at: datetime


class VendorState(StrEnum):
    """The vendors' many words for a job's state, reduced to ours."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    GONE = "gone"
    UNKNOWN_WORD = "unknown_word"


class TrainingProgress(Record):
    """How far a training is, as far as its trainer says: `loss` is its own figure, `seconds_left` its own estimate."""

    step: int
    total_steps: int
    loss: float | None = None
    seconds_left: float | None = None


class JobStatus(Record):
    """One look at a job. `DONE` promises only that an output can be asked for, not that it is good."""

    state: VendorState
    queue_position: int | None = None
    progress: float | None = None
    message: str | None = None
    training: TrainingProgress | None = None


class OutputFile(Record):
    """A file the vendor made; `role` is ours: lora, lora_high_noise, config, log, image, video, other."""

    role: str
    url: str
    content_type: str | None = None
    file_name: str | None = None
    size_bytes: int | None = None


class JobOutput(Record):
    """A finished job's answer. `billed_usd` is None where the vendor does not say what it charged.

    `text` is what a captioner said: printable, on one line, of bounded length, and otherwise in the vendor's own words.
    """

    files: tuple[OutputFile, ...]
    text: str | None = None
    seed: int | None = None
    billed_usd: Decimal | None = None
