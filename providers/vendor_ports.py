"""What we ask of vendors: to take paid jobs, to hold files, to write requests, to tell what they charged.

An adapter gets its HTTP client and its part of the settings as arguments, answers `ping()`, and turns
the vendor's words and JSON into the records of `domain.jobs`. It raises only errors of `domain.errors`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from domain.jobs import BlobRef, JobOutput, JobStatus, OutputFile, VendorJobIds, VendorRequest
from domain.model_rules import Model
from domain.profiles import GenerationProfile
from domain.records import Record
from domain.submissions import AbsenceRule, LookUp, Submission

# --- money: everything that is bought goes through these ---


class JobQueue(Protocol):
    """A vendor's queue. Only `submit` costs money, and it is one single POST."""

    vendor: str

    absence: AbsenceRule
    """Whether looking up can prove that a job does not exist, and what that takes."""

    charges_failures: bool
    """Whether a job that failed or was stopped may cost all the same, as a machine by the hour does."""

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """Send the job once, with the file addresses of `submission`, and its mark where the vendor takes one.

        Never repeats by itself. Errors say what became of the job: `RateLimited`, `Unavailable`, `Rejected`,
        `OutOfCredit`, `NotConfigured` mean definitely not accepted; `SubmissionUnknown` means it may exist.
        """
        ...

    def look_up(self, request: VendorRequest, submission: Submission, known_ids: frozenset[str]) -> LookUp:
        """Does the vendor have this submission? Free and repeatable. `known_ids` belong to other jobs of ours.

        `FOUND` only when it cannot be another's; `ABSENT` is one look's answer, what it proves stands in `absence`.
        `Retryable` or `OutOfCredit` when the vendor could not be asked.
        """
        ...

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:
        """Look once; free and repeatable. `Unavailable` or `RateLimited` when the look itself failed."""
        ...

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        """The result of a job that is `DONE`; free and repeatable while the vendor keeps it.

        `JobFailed`, `PromptRefused` or `BadTrainingSet` when it ended without one (fal says COMPLETED then too);
        `ResultExpired` when the vendor has forgotten it.
        """
        ...

    def cancel(self, request: VendorRequest, ids: VendorJobIds) -> None:
        """Ask the vendor to stop; free, repeatable, and no error when it is already over."""
        ...

    def ping(self) -> Ping:
        """Is the vendor there and does it accept our key? Free."""
        ...


class FileHost(Protocol):
    """Where a vendor can read our files, and we can fetch what it made. Free of charge."""

    def upload(self, path: Path, ref: BlobRef) -> str:
        """A URL the vendor can read, valid for at least an hour. Repeating it makes another URL, no harm."""
        ...

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """Stream the whole file; resumes a broken connection. `ResultExpired` on 404 or 410, `Unavailable` else."""
        ...


class Ping(Record):
    """Answer of `ping()`: `is_ready` or the one sentence that says what to do."""

    is_ready: bool
    detail: str


# --- the makers and the captioner: pure translators from an order to the vendor's request ---


class TrainingOrder(Record):
    """A LoRA wanted: on which base, from which zip, for how long. Unset options take the trainer's default."""

    trainer_key: str
    zip: BlobRef
    trigger_word: str
    steps: int
    learning_rate: float | None = None
    rank: int | None = None
    image_count: int


class LoraUse(Record):
    """A LoRA applied to a generation: the file and its strength (0–4, 0.8–1.0 usual).

    `high_noise` is the second file of a Wan 2.2 LoRA that has one for each expert; `file` is then the low-noise one.
    """

    file: BlobRef
    scale: float
    high_noise: BlobRef | None = None


class StillOrder(Record):
    """One picture. `image_size` is the registry's preset name (`landscape_16_9`) or (width, height) in pixels.

    `faces` are pictures of the one who is drawn, for models that keep a face without a LoRA (`StillRule.identity`).
    Steps and guidance that are None are the model's own.
    """

    model_key: str
    prompt: str
    loras: tuple[LoraUse, ...] = ()
    faces: tuple[BlobRef, ...] = ()
    image_size: str | tuple[int, int]
    steps: int | None = None
    guidance: float | None = None
    seed: int
    profile: GenerationProfile | None = None


class Element(Record):
    """A character given to a video model by pictures: one frontal, 1–3 more."""

    frontal: BlobRef
    references: tuple[BlobRef, ...]


class VideoOrder(Record):
    """One clip. Which of `image`, `elements`, `references`, `loras` a model takes stands in the registry; others are
    refused. `references` are pictures of the characters for a model that takes them as a list."""

    model_key: str
    prompt: str
    seconds: float
    aspect_ratio: str = "16:9"
    image: BlobRef | None = None
    elements: tuple[Element, ...] = ()
    references: tuple[BlobRef, ...] = ()
    images: tuple[BlobRef, ...] = ()
    loras: tuple[LoraUse, ...] = ()
    seed: int | None = None
    frames: int | None = None
    profile: GenerationProfile | None = None


class LoraTrainer(Protocol):
    """Writes training requests. Pure and free; `Rejected` or `BadInput` names what the trainer cannot take."""

    def training_request(self, order: TrainingOrder) -> VendorRequest: ...


class ImageMaker(Protocol):
    """Writes requests for stills. Pure and free."""

    def still_request(self, order: StillOrder) -> VendorRequest: ...


class VideoMaker(Protocol):
    """Writes requests for clips. Pure and free; checks the model's limits before anything is sent."""

    def video_request(self, order: VideoOrder) -> VendorRequest: ...


class CaptionOrder(Record):
    """One picture to be described by a captioner of the registry."""

    model_key: str
    picture: BlobRef


class Captioner(Protocol):
    """Writes requests for descriptions of pictures. Pure and free; the words come back as `JobOutput.text`.

    They are a stranger's: `domain.captions.cleaned_caption` makes a caption of them.
    """

    def caption_request(self, order: CaptionOrder) -> VendorRequest: ...


class Handover(Protocol):
    """A place of our own where machines that hold none of our keys read files and leave what they made.

    A box is one job's part of it, named `[a-z0-9-]{1,80}`; a file name is one plain segment. Links are signed for one
    method and one file, and end. Nothing in a box is trusted: sizes and digests are checked by whoever fetches.
    """

    def read_link(self, path: Path, ref: BlobRef, valid_for: timedelta) -> str:
        """A link by which anyone holding it may read these bytes; its path ends with `ref.file_name`. Repeatable.

        `NotConfigured` when no machine elsewhere could follow it (a store on this disk, asked for a rented machine).
        """
        ...

    def write_link(self, box: str, name: str, valid_for: timedelta) -> str:
        """A link that takes one file of this name by HTTP PUT, as often as it is put. `NotConfigured` as above."""
        ...

    def read_back_link(self, box: str, name: str, valid_for: timedelta) -> str:
        """A link by which a machine reads what it put under this name; 403 or 404 while nobody has. `NotConfigured` as
        above."""
        ...

    def read(self, box: str, name: str, limit_bytes: int = 1_000_000) -> bytes | None:
        """A small file of a box; None when nobody has put it. `Unavailable` when that cannot be known."""
        ...

    def fetch(self, box: str, name: str, into: BinaryIO) -> None:
        """Stream a file of a box into a seekable stream. `ResultExpired` when it is not there, `Unavailable` else."""
        ...

    def delete(self, box: str) -> None:
        """Forget a box; no error when there is none."""
        ...


class JobVendor(JobQueue, FileHost, Protocol):
    """What the door for money needs of a vendor: its queue and its files."""


class Vendor(LoraTrainer, ImageMaker, VideoMaker, Captioner, JobVendor, Protocol):
    """A vendor that plays all the roles, as fal does."""


# --- what a vendor says a model takes, today ---


class LiveSchema(Record):
    """The fields that a model's input has at its vendor, and which of them are required, as read at `read_at` (UTC)."""

    fields: frozenset[str]
    required: frozenset[str]
    read_at: datetime


@runtime_checkable
class SchemaReader(Protocol):
    """A vendor that publishes what its models take. Free."""

    def live_schema(self, model: Model) -> LiveSchema:
        """The schema, at most an hour old. `Rejected` when the vendor no longer has the model, `Unavailable` when its
        answer does not tell."""
        ...

    def check_schema(self, model: Model, request: VendorRequest) -> None:
        """Hold a request against the schema: `Rejected` names the field that is gone or newly wanted, or says that the
        model is. What cannot be read is a warning in the log and no error."""
        ...


# --- what a vendor says it charged ---


class UsageLine(Record):
    """What a vendor charged, as finely as it tells: for one request or pod, else for a model on a day.

    `subject` is the vendor's id (a request, a pod) or model; `amount_usd` what it charged; times are aware, UTC.
    """

    subject: str
    is_single_job: bool
    amount_usd: Decimal
    began_at: datetime
    ended_at: datetime


class UsageReader(Protocol):
    """A vendor that tells what it charged. Free."""

    def usage(self, since: datetime, until: datetime) -> tuple[UsageLine, ...]:
        """Every charge in the span; `Unavailable` when it could not be read whole (never a part of it)."""
        ...


# --- machines by the hour ---


class Pod(Record):
    """A rented machine. `name` is ours; `status` the vendor's word; `cost_usd_per_hour` as the vendor states it."""

    pod_id: str
    name: str
    status: str
    cost_usd_per_hour: Decimal | None = None
    started_at: datetime | None = None


class PodHost(Protocol):
    """A vendor that rents machines by the hour, as the reaper sees it."""

    vendor: str

    def pods(self) -> tuple[Pod, ...]:
        """Every pod of the account. A listing that fails or cannot be read is an error, never "no pods"."""
        ...

    def delete_pod(self, pod_id: str) -> None:
        """End it for good; no error when it is gone already. Repeatable."""
        ...
