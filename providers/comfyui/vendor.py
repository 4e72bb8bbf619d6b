"""ComfyUI as a vendor: makers of stills and clips, its queue, its files, and LoRAs brought to its disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import httpx

from domain.errors import JobFailed, NotConfigured, ResultExpired, Unavailable
from domain.jobs import BlobRef, JobOutput, JobStatus, OutputFile, VendorJobIds, VendorRequest, VendorState
from domain.profiles import WorkflowTemplate
from domain.registry import Registry, load_registry
from domain.submissions import LookUp, Submission
from providers.comfyui.client import ComfyUiClient
from providers.comfyui.files import ComfyUiFiles
from providers.comfyui.history import ending, made_files
from providers.comfyui.listening import Listeners, OpenSocket, open_web_socket
from providers.comfyui.makers import ComfyUiMakers
from providers.comfyui.placing import LoraPlace, placed_name, wait_until_listed
from providers.comfyui.queue import ComfyUiQueue
from providers.comfyui.templates import built_in_template
from providers.vendor_ports import CaptionOrder, Ping, StillOrder, TrainingOrder, VideoOrder

LINGER_SECONDS = 1.0
"""How long a look waits for the end of a job whose web socket is open: less than the pause between two looks, and the
result is read the moment it is there."""


class ComfyUiVendor:
    """`Vendor` over one ComfyUI server, 0.3.64 or newer, that trains and describes nothing.

    A request's `arguments` are `workflow`, a node graph in API format with a file where its uploaded name goes, and
    `output_role`, "image" or "video"; `makers.py` writes them. `http` stays the caller's to close, and its timeouts
    decide when a lost job counts as absent; a name and password in `base_url` are for a proxy. `templates` gives a
    workflow by name; `loras` brings LoRA files to the server's disk; without `open_socket` jobs are polled alone.
    Safe to share between threads.
    """

    def __init__(
        self,
        http: httpx.Client,
        base_url: str,
        registry: Registry | None = None,
        *,
        templates: Callable[[str], WorkflowTemplate] = built_in_template,
        loras: LoraPlace | None = None,
        name: str = "comfyui",
        open_socket: OpenSocket | None = open_web_socket,
    ) -> None:
        self.vendor = name
        self._client = ComfyUiClient(http, base_url)
        self._listeners = Listeners(self._client, open_socket)
        self._queue = ComfyUiQueue(self._client, self._listeners)
        self._files = ComfyUiFiles(self._client)
        self._loras = loras
        self._makers = ComfyUiMakers(registry or load_registry(), templates, name)
        self.absence = self._queue.absence
        self.charges_failures = False

    def __repr__(self) -> str:
        return f"ComfyUiVendor({self._client.base_url!r})"

    # --- the makers ---

    def still_request(self, order: StillOrder) -> VendorRequest:
        """As `vendor_ports.ImageMaker`."""
        return self._makers.still_request(order)

    def video_request(self, order: VideoOrder) -> VendorRequest:
        """As `vendor_ports.VideoMaker`."""
        return self._makers.video_request(order)

    def training_request(self, order: TrainingOrder) -> VendorRequest:
        """`BadInput`, always: ComfyUI trains nothing."""
        return self._makers.training_request(order)

    def caption_request(self, order: CaptionOrder) -> VendorRequest:
        """`BadInput`, always: ComfyUI describes nothing."""
        return self._makers.caption_request(order)

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
        """As `vendor_ports.JobQueue`. Queue before history, since that is how a job moves.

        While the job's web socket is open a running job is waited for up to a second, then looked at again: what the
        socket says is a hint, the look decides.
        """
        status = self._look(ids)
        if status.state is not VendorState.RUNNING:
            return self._told(ids, status)
        heard = self._listeners.heard(ids.request_id, wait_seconds=LINGER_SECONDS)
        if heard.is_over:
            return self._told(ids, self._look(ids))
        return status.model_copy(update={"progress": heard.progress})

    def _look(self, ids: VendorJobIds) -> JobStatus:
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

    def _told(self, ids: VendorJobIds, status: JobStatus) -> JobStatus:
        if status.state in (VendorState.DONE, VendorState.FAILED, VendorState.CANCELLED):
            self._listeners.end(ids.request_id)
        return status

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
        self._listeners.end(ids.request_id)

    def ping(self) -> Ping:
        """As `vendor_ports.JobQueue`."""
        return self._queue.ping()

    # --- files ---

    def upload(self, path: Path, ref: BlobRef) -> str:
        """As `vendor_ports.FileHost`: the name a workflow's node takes, not a URL.

        A LoRA (.safetensors) is brought to the server's disk, under a name that its bytes make, and waited for until
        the server lists it. `NotConfigured` where no way there is set up; `Rejected` for a file that is no LoRA.
        """
        if PurePosixPath(ref.file_name).suffix.lower() != ".safetensors":
            return self._files.upload(path, ref)
        if self._loras is None:
            raise NotConfigured(
                f"{self._client.place} has no way to take the LoRA {ref.file_name!r}: set ONMODEL_COMFYUI_LORAS to its "
                "models/loras folder, or ONMODEL_COMFYUI_LORA_SYNC to a command that brings {file} there as {name}."
            )
        name = placed_name(path, ref)
        self._loras.bring(path, name)
        return wait_until_listed(self._client, name)

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """As `vendor_ports.FileHost`; `into` must be seekable."""
        self._files.download(file, into)
