"""A vendor in memory, written by hand: takes jobs, finishes them, and fails exactly where a test's plan says so.

    vendor = StandinVendor(submits=[RateLimited("busy", 30.0)])     # refuses once, then accepts
    vendor = StandinVendor(submits=[SubmissionUnknown("reset")])    # accepts, and loses its answer

`posts` counts what a real vendor would charge for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

from domain.errors import OnModelError, ResultExpired
from domain.jobs import (
    BlobRef,
    JobOutput,
    JobStatus,
    OutputFile,
    VendorJobIds,
    VendorRequest,
    VendorState,
    blob_argument,
)
from domain.submissions import AbsenceRule, Finding, LookUp, Submission
from providers.vendor_ports import CaptionOrder, Ping, StillOrder, TrainingOrder, VideoOrder

Fault = OnModelError | None
"""What a call does instead of its work; None lets it through."""

_HEADER = json.dumps({"a.lora_A.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
WEIGHTS = len(_HEADER).to_bytes(8, "little") + _HEADER + bytes(4)
"""The smallest whole safetensors file."""

DONE_AT_ONCE = (VendorState.QUEUED, VendorState.RUNNING, VendorState.DONE)


LIST_MAY_LAG = AbsenceRule(can_prove=False, reason="its list may lag")
PROVES_ABSENCE = AbsenceRule(
    can_prove=True, reason="neither its queue nor its history forgets", looks=3, after_seconds=60, seconds_apart=5
)


class StandinVendor:
    """`Vendor` without a network. Each plan is used up call by call; when it is empty, everything goes well.

    `states`: what every job is seen as, look by look; the last one stays. `before_submit` runs inside each POST, before
    it is answered, so that a test can look at, stop or kill things there.
    """

    def __init__(
        self,
        *,
        look_ups: Iterable[LookUp | OnModelError] = (),
        submits: Iterable[Fault] = (),
        looks: Iterable[Fault] = (),
        outputs: Iterable[Fault | JobOutput] = (),
        downloads: Iterable[Fault | bytes] = (),
        uploads: Iterable[Fault] = (),
        states: tuple[VendorState, ...] = DONE_AT_ONCE,
        content: bytes = WEIGHTS,
        role: str = "lora",
        billed_usd: Decimal | None = None,
        before_submit: Callable[[], None] | None = None,
        name: str = "sandbox",
        absence: AbsenceRule = LIST_MAY_LAG,
        charges_failures: bool = False,
        pings: Iterable[Ping] = (),
    ) -> None:
        self.vendor, self.absence, self._pings = name, absence, list(pings)
        self.charges_failures = charges_failures
        self._look_ups = list(look_ups)
        self._submits, self._looks, self._uploads = list(submits), list(looks), list(uploads)
        self._outputs, self._downloads = list(outputs), list(downloads)
        self._states, self._content, self._role = states, content, role
        self._billed_usd, self._before_submit = billed_usd, before_submit
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self.posts: list[VendorRequest] = []
        self.urls_sent: list[dict[str, str]] = []
        self.uploaded: list[BlobRef] = []
        self.cancelled: list[str] = []
        self.looked_for: list[tuple[Submission, frozenset[str]]] = []
        self.calls = 0
        """Every question put to the vendor, paid or free."""

    # --- writing requests, in words of its own ---

    def training_request(self, order: TrainingOrder) -> VendorRequest:
        return VendorRequest(
            vendor=self.vendor,
            endpoint=f"train/{order.trainer_key}",
            arguments={"zip": blob_argument(order.zip), "word": order.trigger_word, "steps": order.steps},
        )

    def still_request(self, order: StillOrder) -> VendorRequest:
        loras = [{"path": blob_argument(use.file), "scale": use.scale} for use in order.loras]
        return VendorRequest(
            vendor=self.vendor,
            endpoint=f"still/{order.model_key}",
            arguments={"prompt": order.prompt, "loras": loras, "seed": order.seed},
        )

    def video_request(self, order: VideoOrder) -> VendorRequest:
        pictures = [order.image, *order.images, *(element.frontal for element in order.elements)]
        return VendorRequest(
            vendor=self.vendor,
            endpoint=f"video/{order.model_key}",
            arguments={
                "prompt": order.prompt,
                "seconds": order.seconds,
                "pictures": [blob_argument(picture) for picture in pictures if picture],
                "loras": [{"path": blob_argument(use.file), "scale": use.scale} for use in order.loras],
            },
        )

    def caption_request(self, order: CaptionOrder) -> VendorRequest:
        return VendorRequest(
            vendor=self.vendor,
            endpoint=f"caption/{order.model_key}",
            arguments={"picture": blob_argument(order.picture)},
        )

    # --- the queue ---

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        with self._lock:
            self.calls += 1
            self.posts.append(request)
            self.urls_sent.append(submission.url_of)
            number = len(self.posts)
            fault = self._submits.pop(0) if self._submits else None
        if self._before_submit is not None:
            self._before_submit()
        if fault is not None:
            raise fault
        return VendorJobIds(request_id=f"request-{number}", status_url=f"standin:{number}/status")

    def look_up(self, request: VendorRequest, submission: Submission, known_ids: frozenset[str]) -> LookUp:
        self.calls += 1
        self.looked_for.append((submission, known_ids))
        planned = self._look_ups.pop(0) if self._look_ups else None
        if isinstance(planned, OnModelError):
            raise planned
        return planned or LookUp(finding=Finding.ABSENT, detail="its list does not show it")

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:
        with self._lock:
            self.calls += 1
            fault = self._looks.pop(0) if self._looks else None
            if fault is not None:
                raise fault
            seen = self._seen.get(ids.request_id, 0)
            self._seen[ids.request_id] = seen + 1
        return JobStatus(state=self._states[min(seen, len(self._states) - 1)], progress=0.5)

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        self.calls += 1
        planned = self._outputs.pop(0) if self._outputs else None
        if isinstance(planned, OnModelError):
            raise planned
        if planned is not None:
            return planned
        name = {"lora": "lora.safetensors", "image": "still.png", "video": "clip.mp4"}.get(self._role, "file.bin")
        file = OutputFile(role=self._role, url=f"standin:{ids.request_id}/{name}?token=1", file_name=name)
        return JobOutput(files=(file,), seed=7, billed_usd=self._billed_usd)

    def cancel(self, request: VendorRequest, ids: VendorJobIds) -> None:
        self.calls += 1
        self.cancelled.append(ids.request_id)

    def ping(self) -> Ping:
        self.calls += 1
        return self._pings.pop(0) if self._pings else Ping(is_ready=True, detail="a stand-in")

    # --- files ---

    def upload(self, path: Path, ref: BlobRef) -> str:
        self.calls += 1
        fault = self._uploads.pop(0) if self._uploads else None
        if fault is not None:
            raise fault
        assert path.is_file()
        self.uploaded.append(ref)
        return f"standin:uploads/{len(self.uploaded)}/{ref.file_name}"

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        self.calls += 1
        planned = self._downloads.pop(0) if self._downloads else None
        if isinstance(planned, OnModelError):
            raise planned
        if file.url.startswith("gone:"):
            raise ResultExpired(f"{file.url} is gone.")
        into.write(self._content if planned is None else planned)
