"""RunPod whole: pods by the hour for trainings, a serverless endpoint of ours for stills, one vendor for the ledger."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from domain.errors import NotConfigured, Rejected
from domain.jobs import BlobRef, JobOutput, JobStatus, OutputFile, VendorJobIds, VendorRequest
from domain.submissions import AbsenceRule, LookUp, Submission
from providers.runpod.orders import PODS
from providers.runpod.serverless import ServerlessVendor
from providers.runpod.serverless_box import BOX_SCHEME
from providers.runpod.serverless_stills import SERVERLESS
from providers.runpod.vendor import RunPodVendor
from providers.vendor_ports import JobVendor, Ping, Pod, StillOrder, TrainingOrder, UsageLine


class RunPod:
    """`LoraTrainer`, `ImageMaker`, `JobVendor`, `PodHost` and `UsageReader`; a request's endpoint says which part.

    `serverless` is None where ONMODEL_RUNPOD_ENDPOINT is not set: then stills are `NotConfigured`, trainings are not
    touched by it. `absence` is the pods' rule: a serverless look-up never calls a job absent, so it proves nothing.
    """

    charges_failures = True

    def __init__(self, pods: RunPodVendor, serverless: ServerlessVendor | None) -> None:
        self.vendor = pods.vendor
        self.absence: AbsenceRule = pods.absence
        self._pods = pods
        self._serverless = serverless

    def __repr__(self) -> str:
        return f"RunPod({self._pods!r}, {self._serverless!r})"

    # --- writing requests ---

    def training_request(self, order: TrainingOrder) -> VendorRequest:
        """As `LoraTrainer`."""
        return self._pods.training_request(order)

    def still_request(self, order: StillOrder) -> VendorRequest:
        """As `ImageMaker`; `NotConfigured` without an endpoint."""
        return self._drawing().still_request(order)

    # --- the queue ---

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """As `JobQueue`."""
        return self._part(request).submit(request, submission)

    def look_up(self, request: VendorRequest, submission: Submission, known_ids: frozenset[str]) -> LookUp:
        """As `JobQueue`."""
        return self._part(request).look_up(request, submission, known_ids)

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:
        """As `JobQueue`."""
        return self._part(request).status(request, ids)

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        """As `JobQueue`."""
        return self._part(request).output(request, ids)

    def cancel(self, request: VendorRequest, ids: VendorJobIds) -> None:
        """As `JobQueue`."""
        self._part(request).cancel(request, ids)

    def ping(self) -> Ping:
        """Both parts; the endpoint is asked only where there is one."""
        pods = self._pods.ping()
        if self._serverless is None or not pods.is_ready:
            return pods
        stills = self._serverless.ping()
        return stills if not stills.is_ready else Ping(is_ready=True, detail=f"{pods.detail}; {stills.detail}")

    # --- files ---

    def upload(self, path: Path, ref: BlobRef) -> str:
        """As `FileHost`: a link into our own store, good for a pod and for a worker."""
        return self._pods.upload(path, ref)

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """As `FileHost`, from our own store."""
        if file.url.startswith(f"{BOX_SCHEME}:"):
            self._drawing().download(file, into)
        else:
            self._pods.download(file, into)

    # --- machines by the hour, and what they cost ---

    def pods(self) -> tuple[Pod, ...]:
        """As `PodHost`; a serverless worker is none of them."""
        return self._pods.pods()

    def delete_pod(self, pod_id: str) -> None:
        """As `PodHost`."""
        self._pods.delete_pod(pod_id)

    def usage(self, since: datetime, until: datetime) -> tuple[UsageLine, ...]:
        """As `UsageReader`, for pods: what RunPod charges for an endpoint it does not tell by job."""
        return self._pods.usage(since, until)

    # --- which part ---

    def _part(self, request: VendorRequest) -> JobVendor:
        if request.endpoint == SERVERLESS:
            return self._drawing()
        if request.endpoint == PODS:
            return self._pods
        raise Rejected(f"RunPod is asked for {request.endpoint!r}: it has {PODS!r} and {SERVERLESS!r} here.")

    def _drawing(self) -> ServerlessVendor:
        if self._serverless is None:
            raise NotConfigured(
                "Stills at RunPod need a serverless endpoint with the worker of deployments/serverless-sdxl: deploy it "
                "and set ONMODEL_RUNPOD_ENDPOINT to the endpoint's id."
            )
        return self._serverless
