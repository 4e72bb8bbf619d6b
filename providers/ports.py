"""What we ask of the world outside this process: small roles, documented once, answered in our own records.

An adapter gets its HTTP client and its part of the settings as arguments, answers `ping()`, and turns
the vendor's words and JSON into the records of `domain.jobs`. It raises only errors of `domain.errors`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from domain.captions import Surroundings
from domain.characters import CharacterKind
from domain.clips import ClipFacts as ClipFacts
from domain.crops import CropPlan
from domain.jobs import BlobRef, JobOutput, JobStatus, OutputFile, VendorJobIds, VendorRequest
from domain.looks import Bars, Harvest
from domain.pictures import Box, Framing, View
from domain.records import Record
from domain.stretches import Stretch

RgbImage = NDArray[np.uint8]
"""Height × width × 3, 8-bit sRGB."""


# --- money: everything that is bought goes through these ---


class JobQueue(Protocol):
    """A vendor's queue. Only `submit` costs money, and it is one single POST."""

    vendor: str

    def submit(self, request: VendorRequest, url_of: dict[str, str]) -> VendorJobIds:
        """Send the job once. `url_of` maps each blob's SHA-256 to a URL the vendor can read.

        Never repeats by itself. Errors say what became of the job: `RateLimited`, `Unavailable`, `Rejected`,
        `OutOfCredit`, `NotConfigured` mean definitely not accepted; `SubmissionUnknown` means it may exist.
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
    """A LoRA applied to a generation: the file and its strength (0–4, 0.8–1.0 usual)."""

    file: BlobRef
    scale: float


class StillOrder(Record):
    """One picture. `image_size` is the registry's preset name (`landscape_16_9`) or (width, height) in pixels."""

    model_key: str
    prompt: str
    loras: tuple[LoraUse, ...] = ()
    image_size: str | tuple[int, int]
    steps: int = 28
    guidance: float = 3.5
    seed: int


class Element(Record):
    """A character given to a video model by pictures: one frontal, 1–3 more."""

    frontal: BlobRef
    references: tuple[BlobRef, ...]


class VideoOrder(Record):
    """One clip. Which of `image`, `elements`, `loras` a model takes stands in the registry; others are refused."""

    model_key: str
    prompt: str
    seconds: float
    aspect_ratio: str = "16:9"
    image: BlobRef | None = None
    elements: tuple[Element, ...] = ()
    images: tuple[BlobRef, ...] = ()
    loras: tuple[LoraUse, ...] = ()
    seed: int | None = None
    frames: int | None = None


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


class Vendor(LoraTrainer, ImageMaker, VideoMaker, Captioner, JobQueue, FileHost, Protocol):
    """A vendor that plays all the roles, as fal does."""


# --- our own files ---


class BlobStore(Protocol):
    """Bytes by their SHA-256. Writes are atomic and repeatable; equal bytes are stored once."""

    def put_file(self, path: Path, media_type: str) -> str:
        """Store a file's bytes, return their SHA-256 (64 hex digits). The file stays where it is."""
        ...

    def put_bytes(self, data: bytes, media_type: str) -> str: ...

    def open(self, sha256: str) -> BinaryIO:
        """The bytes as a stream to close; `BadInput` naming the digest when it is not there."""
        ...

    def read(self, sha256: str) -> bytes: ...

    def local_path(self, sha256: str) -> Path:
        """A readable file with these bytes on this machine (fetched into a cache where the store is remote).

        Never to be changed, and never handed to another task: the next one may run elsewhere.
        """
        ...

    def has(self, sha256: str) -> bool: ...

    def size_bytes(self, sha256: str) -> int: ...

    def delete(self, sha256: str) -> None:
        """Forget the bytes; no error when they are not there."""
        ...

    def digests(self) -> Iterator[str]:
        """Every stored digest, in no order."""
        ...

    def presign_get(self, sha256: str, valid_for: timedelta) -> str:
        """A link that anyone holding it may read until it expires."""
        ...

    def presign_put(self, sha256: str, media_type: str, valid_for: timedelta) -> str:
        """A link that takes exactly the bytes of this digest by HTTP PUT until it expires."""
        ...

    def url(self, sha256: str) -> str:
        """The stable address for tables and reports (`file:///…` or `s3://…`), not a secret, not presigned."""
        ...


# --- pictures and clips ---


class ImageFacts(Record):
    """What a picture is; `format` is JPEG, PNG or WEBP."""

    format: str
    width: int
    height: int
    size_bytes: int


class SampledFrame(Record):
    """A decoded frame with the measures it is judged by; `image` is full resolution unless asked otherwise."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    at_seconds: float
    image: RgbImage
    sharpness: float
    brightness: float
    hash64: int


class SeasonClip(Record):
    """One piece of the assembled season."""

    slot_number: int
    path: Path


class MediaTools(Protocol):
    """ffmpeg, PyAV and Pillow behind one door; nothing here touches the network."""

    def probe_clip(self, path: Path) -> ClipFacts:
        """`BadInput` with one sentence for anything that is not a readable video with at least one frame."""
        ...

    def probe_image(self, path: Path) -> ImageFacts:
        """`BadInput` for what is no JPEG, PNG or WebP, is over 10 MB, or claims absurd dimensions (a bomb)."""
        ...

    def load_image(self, path: Path) -> RgbImage:
        """Decoded, EXIF rotation applied, transparency laid on white. Errors as `probe_image`."""
        ...

    def harvest(self, path: Path, folder: Path, wanted: int) -> Harvest:
        """The `wanted` best frames of a clip: sharp, lit, distinct, spread over its shots, at least 0.5 s apart.

        Writes a thumbnail of every look and the full picture of every kept one into `folder` (JPEG, bars cut off).
        Decodes in a child process with limits; `BadInput` as `probe_clip`, also when a limit was passed.
        """
        ...

    def measure_image(self, image: RgbImage) -> SampledFrame:
        """The measures of a picture that comes from no clip (`at_seconds` is 0)."""
        ...

    def frames_at(self, path: Path, times: Sequence[float]) -> list[RgbImage]:
        """The frames on screen at these seconds, in the order asked for."""
        ...

    def last_frame(self, path: Path) -> RgbImage: ...

    def png_bytes(self, image: RgbImage) -> bytes: ...

    def jpeg_bytes(self, image: RgbImage, quality: int = 92) -> bytes: ...

    def assemble(
        self, clips: list[SeasonClip], out: Path, *, width: int, height: int, frames_per_second: int
    ) -> ClipFacts:
        """Bring clips of any size and rate together (letterboxed, silence where there is no sound) into one MP4."""
        ...


class TrainingCuts(Protocol):
    """Brings pictures and clips to what a trainer takes. Nothing is ever enlarged, nothing touches the network."""

    def crop(self, image: RgbImage, plan: CropPlan) -> RgbImage:
        """The planned part of the picture at the planned size; `BadInput` when it does not lie in it."""
        ...

    def cut_clip(
        self, path: Path, shown_size: tuple[int, int], stretch: Stretch, out: Path, bars: Bars | None = None
    ) -> None:
        """Write a stretch of a clip (width and height as shown) as a silent MP4 of exactly so many frames.

        `bars` are cut off first. Equal bytes for equal input. `BadInput` when the clip ends early or is damaged.
        """
        ...

    def surroundings(self, image: RgbImage) -> Surroundings:
        """Light, tone and colours around, in words for captions. Deterministic."""
        ...


# --- identity ---


class Appearance(Record):
    """Answer of a scorer for one image: a vector, or a reason why it abstains."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    vector: NDArray[np.float32] | None
    abstained_because: str | None = None


class IdentityScorer(Protocol):
    """Says how alike two pictures of a subject are. `metric` names what is measured, with its version."""

    metric: str

    def describe(self, image: RgbImage) -> Appearance:
        """The subject's description, unit length, or an abstention. Deterministic."""
        ...

    def similarity(self, a: Appearance, b: Appearance) -> float:
        """-1 (unlike) … 1 (the same picture); both must have a vector."""
        ...

    def similarities(self, looks: Sequence[Appearance]) -> NDArray[np.float32]:
        """`similarity` of each with each, n × n; all must have a vector."""
        ...


class Subject(Record):
    """Somebody in a picture: where, how close, from which side, and how they look to the scorer."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    box: Box
    face: Box | None
    framing: Framing
    view: View
    appearance: Appearance
    is_sure: bool = True
    """False where it may be a thing of the place; likeness to somebody known then decides."""


class SubjectFinder(Protocol):
    """Finds the people (or creatures) of a picture, each by itself."""

    def subjects(self, image: RgbImage, kind: CharacterKind) -> tuple[Subject, ...]:
        """Everybody who can be told apart, the most prominent first; empty when nobody stands out. Deterministic."""
        ...


class PictureLook(Record):
    """Everything that is seen in one picture: who is in it, the light and colours around, its layout."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    subjects: tuple[Subject, ...]
    surroundings: Surroundings
    layout: NDArray[np.float32]


class PictureDescriber(Protocol):
    """Says what a whole picture looks like, whoever is in it: pose, place, light and colours, for telling twins."""

    layout: str
    """What is described, with its version; vectors of two versions cannot be compared."""

    def describe(self, image: RgbImage) -> NDArray[np.float32]:
        """Rows of unit length: the whole picture, then crops of it. `tasks.choosing.layout_likeness` compares them."""
        ...


# --- LoRA files ---


class LoraFileReport(Record):
    """What the file check found. `verdict`: healthy, suspect, broken or wrong_base; `reasons` in plain words."""

    verdict: str
    reasons: tuple[str, ...]
    architecture: str
    module_count: int
    rank: int | None
    dead_share: float
    median_delta_norm: float
    size_bytes: int
    sha256: str
    metadata: dict[str, str]


class Clock(Protocol):
    """Time, so that tests can turn it."""

    def now(self) -> datetime: ...

    def sleep(self, seconds: float) -> None: ...


JsonObject = dict[str, Any]
