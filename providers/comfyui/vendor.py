"""ComfyUI as a vendor of paid work: its queue and its files."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import httpx

from domain.errors import JobFailed, ResultExpired, Unavailable
from domain.jobs import BlobRef, JobOutput, JobStatus, OutputFile, VendorJobIds, VendorRequest, VendorState
from domain.submissions import LookUp, Submission
from providers.comfyui.client import ComfyUiClient
from providers.comfyui.files import ComfyUiFiles
from providers.comfyui.history import ending, made_files
from providers.comfyui.queue import ComfyUiQueue
from providers.vendor_ports import Ping


class ComfyUiVendor:
    """`JobVendor` over one ComfyUI server, 0.3.64 or newer.

    A request's `arguments` are `workflow`, a node graph in API format with a file where its uploaded name goes, and
    `output_role`, "image" or "video". `http` stays the caller's to close, and its timeouts decide when a lost job
    counts as absent; a name and password in `base_url` are for a proxy. Safe to share between threads.
    """

    vendor = "comfyui"

    def __init__(self, http: httpx.Client, base_url: str) -> None:
        self._client = ComfyUiClient(http, base_url)
        self._queue = ComfyUiQueue(self._client)
        self._files = ComfyUiFiles(self._client)
        self.absence = self._queue.absence
        self.charges_failures = False

    def __repr__(self) -> str:
        return f"ComfyUiVendor({self._client.base_url!r})"

    # --- the queue ---

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """As `vendor_ports.JobQueue`: one POST, never repeated."""
        return self._queue.submit(request, submission)

    def look_up(
        self,
        request: VendorRequest,  # noqa: ARG002 (our own prompt id tells everything)
        submission: Submission,
        known_ids: frozenset[str],  # noqa: ARG002 (no other job has that id)
    ) -> LookUp:
        """As `vendor_ports.JobQueue`: `FOUND` or `ABSENT`, by our own prompt id."""
        return self._queue.look_up(submission)

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:  # noqa: ARG002 (the id is enough)
        """As `vendor_ports.JobQueue`. Queue before history, since that is how a job moves."""
        queue = self._queue.look()
        if ids.request_id in queue.running:
            return JobStatus(state=VendorState.RUNNING)
        if ids.request_id in queue.waiting:
            return JobStatus(state=VendorState.QUEUED, queue_position=queue.waiting.index(ids.request_id))
        entry = self._queue.history(ids.request_id)
        if entry is None:
            return JobStatus(state=VendorState.GONE, message="neither in ComfyUI's queue nor in its history")
        state, message = ending(entry)
        return JobStatus(
            state=state,
            progress=1.0 if state is VendorState.DONE else None,
            message=self._client.quote(message) if message else None,
        )

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        """As `vendor_ports.JobQueue`. `billed_usd` stays None: ComfyUI knows no prices."""
        job = f"the job {ids.request_id}"
        entry = self._queue.history(ids.request_id)
        if entry is None:
            if ids.request_id in self._queue.look():
                raise Unavailable(f"{self._client.place} has not finished {job} yet; it can be asked again.")
            raise ResultExpired(
                f"{self._client.place} no longer knows {job}: its history is lost when it restarts; the files may "
                "still lie in its output folder."
            )
        state, message = ending(entry)
        if state is VendorState.UNKNOWN_WORD:
            raise Unavailable(f"How {job} ended cannot be read ({self._client.quote(message)}); ask again.")
        if state is not VendorState.DONE:
            raise JobFailed(f"{self._client.place} ended {job} without a result ({self._client.quote(message)}).")
        role, graph = request.arguments.get("output_role"), request.arguments.get("workflow")
        files = made_files(
            entry,
            self._client,
            role=role if isinstance(role, str) else "image",
            graph=graph if isinstance(graph, dict) else {},
        )
        return JobOutput(files=files)

    def cancel(self, request: VendorRequest, ids: VendorJobIds) -> None:  # noqa: ARG002 (the id is enough)
        """As `vendor_ports.JobQueue`: never stops another's job."""
        self._queue.cancel(ids.request_id)

    def ping(self) -> Ping:
        """As `vendor_ports.JobQueue`."""
        return self._queue.ping()

    # --- files ---

    def upload(self, path: Path, ref: BlobRef) -> str:
        """As `vendor_ports.FileHost`: the name a workflow's node takes, not a URL."""
        return self._files.upload(path, ref)

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """As `vendor_ports.FileHost`; `into` must be seekable."""
        self._files.download(file, into)
