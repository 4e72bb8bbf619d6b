"""fal as a vendor: one object in all the roles of `ports.Vendor`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import httpx
from pydantic import SecretStr

from domain.jobs import BlobRef, JobOutput, JobStatus, OutputFile, VendorJobIds, VendorRequest
from domain.model_rules import Model, ModelKind
from domain.registry import Registry
from domain.submissions import AbsenceRule, LookUp, Submission
from providers.fal.client import FalClient
from providers.fal.files import FalFiles
from providers.fal.lookup import ABSENCE, FalLookUp
from providers.fal.queue import FalQueue
from providers.fal.schemas import FalSchemas
from providers.fal.usage import FalUsage
from providers.requests.writer import RequestWriter
from providers.vendor_ports import CaptionOrder, LiveSchema, Ping, StillOrder, TrainingOrder, UsageLine, VideoOrder


class FalVendor:
    """`Vendor` over fal, or over the sandbox, which speaks the same protocol (`name="sandbox"`).

    `http` comes from `providers.web.open_http` and stays the caller's to close. Safe to share between threads.
    """

    def __init__(self, http: httpx.Client, key: SecretStr, registry: Registry, *, name: str = "fal") -> None:
        client = FalClient(http, key)
        self.vendor = name
        self._registry = registry
        self.absence: AbsenceRule = ABSENCE
        self.charges_failures = False  # never for a 5xx; a 422 after GPU time may be (fal.md 1.5)
        self._queue = FalQueue(client, registry, name)
        self._lookup = FalLookUp(client, name)
        self._usage = FalUsage(client)
        self._files = FalFiles(client)
        self._writer = RequestWriter(registry, name)
        self._schemas = FalSchemas(client)

    def __repr__(self) -> str:
        return f"FalVendor(name={self.vendor!r})"

    # --- writing requests ---

    def training_request(self, order: TrainingOrder) -> VendorRequest:
        """As `ports.LoraTrainer`."""
        return self._writer.training_request(order)

    def still_request(self, order: StillOrder) -> VendorRequest:
        """As `ports.ImageMaker`."""
        return self._writer.still_request(order)

    def video_request(self, order: VideoOrder) -> VendorRequest:
        """As `ports.VideoMaker`."""
        return self._writer.video_request(order)

    def caption_request(self, order: CaptionOrder) -> VendorRequest:
        """As `ports.Captioner`."""
        return self._writer.caption_request(order)

    # --- the queue ---

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """As `ports.JobQueue`: one POST, never repeated.

        Before a training the trainer's live schema is read, because fal's trainers vanish within months (fal.md 2.7):
        `Rejected` then means that nothing was sent.
        """
        model = self._registry.by_endpoint("fal", request.endpoint)
        if model is not None and model.kind is ModelKind.TRAINER:
            self._schemas.check_schema(model, request)
        return self._queue.submit(request, submission)

    def look_up(self, request: VendorRequest, submission: Submission, known_ids: frozenset[str]) -> LookUp:
        """As `ports.JobQueue`."""
        return self._lookup.look_up(request, submission, known_ids)

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:
        """As `ports.JobQueue`."""
        return self._queue.status(request, ids)

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        """As `ports.JobQueue`."""
        return self._queue.output(request, ids)

    def cancel(self, request: VendorRequest, ids: VendorJobIds) -> None:
        """As `ports.JobQueue`."""
        self._queue.cancel(request, ids)

    def ping(self) -> Ping:
        """As `ports.JobQueue`."""
        return self._queue.ping()

    # --- what a model takes today ---

    def live_schema(self, model: Model) -> LiveSchema:
        """As `ports.SchemaReader`."""
        return self._schemas.live_schema(model)

    def check_schema(self, model: Model, request: VendorRequest) -> None:
        """As `ports.SchemaReader`."""
        self._schemas.check_schema(model, request)

    # --- money ---

    def usage(self, since: datetime, until: datetime) -> tuple[UsageLine, ...]:
        """As `ports.UsageReader`."""
        return self._usage.usage(since, until)

    # --- files ---

    def upload(self, path: Path, ref: BlobRef) -> str:
        """As `ports.FileHost`."""
        return self._files.upload(path, ref)

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """As `ports.FileHost`; `into` must be seekable."""
        self._files.download(file, into)
