"""Replicate as a vendor: one object in all the roles of `vendor_ports.Vendor` but the captioner's."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import httpx
from pydantic import SecretStr

from domain.errors import BadInput
from domain.jobs import BlobRef, JobOutput, JobStatus, OutputFile, VendorJobIds, VendorRequest
from domain.model_rules import Model
from domain.registry import Registry
from domain.submissions import AbsenceRule, LookUp, Submission
from providers.ports import Clock
from providers.replicate.client import ReplicateClient
from providers.replicate.files import ReplicateFiles
from providers.replicate.lookup import ABSENCE, ReplicateLookUp
from providers.replicate.queue import ReplicateQueue
from providers.replicate.schemas import ReplicateSchemas
from providers.replicate.trainings import TrainingGround
from providers.requests.writer import RequestWriter
from providers.vendor_ports import CaptionOrder, Handover, LiveSchema, Ping, StillOrder, TrainingOrder, VideoOrder


class ReplicateVendor:
    """`Vendor` over Replicate, or over its stand-in in the sandbox (`name="sandbox-replicate"`).

    `http` comes from `providers.web.open_http` and stays the caller's to close. `handover` serves LoRAs and large
    files; `destination` ("owner/name" in our account) is needed for trainings only. Safe to share between threads.
    """

    uploads_kept_for = timedelta(minutes=45)
    """How long an uploaded file's address may be used again: an example of Replicate's shows a file kept for an hour,
    and nothing more is known (replicate_comfyui.md 5)."""

    def __init__(
        self,
        http: httpx.Client,
        token: SecretStr,
        registry: Registry,
        *,
        handover: Handover,
        destination: str | None,
        clock: Clock,
        name: str = "replicate",
    ) -> None:
        client = ReplicateClient(http, token)
        self.vendor = name
        self.absence: AbsenceRule = ABSENCE
        self.charges_failures = False  # not confirmed; a failure's machine time is told by `JobFailed.billed_usd`
        self._schemas = ReplicateSchemas(client, clock)
        ground = TrainingGround(client, self._schemas, destination)
        self._queue = ReplicateQueue(client, registry, ground, clock, name)
        self._lookup = ReplicateLookUp(client, registry)
        self._files = ReplicateFiles(client, handover)
        self._writer = RequestWriter(registry, name)

    def __repr__(self) -> str:
        return f"ReplicateVendor(name={self.vendor!r})"

    # --- writing requests ---

    def training_request(self, order: TrainingOrder) -> VendorRequest:
        """As `vendor_ports.LoraTrainer`."""
        return self._writer.training_request(order)

    def still_request(self, order: StillOrder) -> VendorRequest:
        """As `vendor_ports.ImageMaker`."""
        return self._writer.still_request(order)

    def video_request(self, order: VideoOrder) -> VendorRequest:
        """As `vendor_ports.VideoMaker`."""
        return self._writer.video_request(order)

    def caption_request(self, order: CaptionOrder) -> VendorRequest:
        """As `vendor_ports.Captioner`: always `BadInput`."""
        raise BadInput(
            f"{self.vendor} has no captioner here and was asked for {order.model_key}: write captions: auto, fixed or "
            "own in the manifest."
        )

    # --- the queue ---

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """As `vendor_ports.JobQueue`: one POST, never repeated."""
        return self._queue.submit(request, submission)

    def look_up(self, request: VendorRequest, submission: Submission, known_ids: frozenset[str]) -> LookUp:
        """As `vendor_ports.JobQueue`."""
        return self._lookup.look_up(request, submission, known_ids)

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:
        """As `vendor_ports.JobQueue`."""
        return self._queue.status(request, ids)

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        """As `vendor_ports.JobQueue`."""
        return self._queue.output(request, ids)

    def cancel(self, request: VendorRequest, ids: VendorJobIds) -> None:
        """As `vendor_ports.JobQueue`."""
        self._queue.cancel(request, ids)

    def ping(self) -> Ping:
        """As `vendor_ports.JobQueue`."""
        return self._queue.ping()

    # --- what its models take, today ---

    def live_schema(self, model: Model) -> LiveSchema:
        """As `vendor_ports.SchemaReader`."""
        return self._schemas.live_schema(model)

    def check_schema(self, model: Model, request: VendorRequest) -> None:
        """As `vendor_ports.SchemaReader`."""
        self._schemas.check_schema(model, request)

    # --- files ---

    def upload(self, path: Path, ref: BlobRef) -> str:
        """As `vendor_ports.FileHost`."""
        return self._files.upload(path, ref)

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """As `vendor_ports.FileHost`; `into` must be seekable."""
        self._files.download(file, into)
