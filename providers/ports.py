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
from domain.looks import Bars, Harvest
from domain.pictures import Box, Framing, View
from domain.records import Record
from domain.stretches import Stretch

RgbImage = NDArray[np.uint8]
"""Height × width × 3, 8-bit sRGB."""


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

    def digests_older_than(self, moment: datetime) -> Iterator[str]:
        """The digests whose bytes were last put before `moment` (aware), by the store's own clock, in no order."""
        ...

    def stored_at(self, sha256: str) -> datetime | None:
        """When these bytes were last put (UTC, within a day where they were put again); None when not there."""
        ...

    def share(self, mark: str) -> None:
        """Note that the database of this mark (`Submission.installation`) uses the store. Safe to repeat."""
        ...

    def sharers(self) -> frozenset[str]:
        """The marks of all databases that use the store: what one does not refer to, another may."""
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


class LoraPairReport(Record):
    """What the check of both files found; a report is None where there is no such file.

    `verdict` is the worse of theirs, and `broken` when one is missing or they do not belong together; `reasons` name
    the file they are about.
    """

    verdict: str
    reasons: tuple[str, ...]
    low: LoraFileReport | None
    high: LoraFileReport | None


class SubmitterHold(Protocol):
    """The right to submit a job, which goes when the process does."""

    is_ours: bool

    def still_submitting(self) -> bool:
        """Asked right before the POST: is it still ours? `Unavailable` when the connection that holds it is lost."""
        ...


class Clock(Protocol):
    """Time, so that tests can turn it."""

    def now(self) -> datetime: ...

    def sleep(self, seconds: float) -> None: ...


JsonObject = dict[str, Any]
