"""Replicate's queue: submit once, look, fetch the outcome, cancel."""

from __future__ import annotations

import json
from typing import Any

from domain.errors import BadInput, OnModelError, ResultExpired, SubmissionUnknown, Unavailable
from domain.jobs import JobOutput, JobStatus, VendorJobIds, VendorRequest, VendorState
from domain.model_rules import ModelKind
from domain.registry import Registry
from domain.submissions import Submission
from providers.ports import Clock
from providers.replicate.client import MAYBE_TAKEN, ReplicateClient, in_path, may_carry_token, refusal
from providers.replicate.jobs import (
    FINAL,
    failure_of,
    is_removed,
    is_training,
    model_of,
    output_of,
    read_status,
)
from providers.replicate.trainings import TrainingGround
from providers.vendor_ports import Ping
from providers.vendor_words import json_of
from providers.web import NEVER_SENT

STOPPED_AFTER_SECONDS = {ModelKind.IMAGE: 900, ModelKind.VIDEO: 3600}
"""Replicate's own deadline for a job, counted from its creation: as long as we wait for one (tasks/results.py). Without
it a prediction ends after 30 minutes. Only predictions take it (replicate_comfyui.md 1.1)."""

STOPPED_AFTER_DEFAULT = 3600


class ReplicateQueue:
    """`JobQueue` over Replicate's HTTP API; what was lost is looked up by `ReplicateLookUp`."""

    def __init__(
        self, client: ReplicateClient, registry: Registry, ground: TrainingGround, clock: Clock, vendor: str
    ) -> None:
        self.vendor = vendor
        self._client = client
        self._registry = registry
        self._ground = ground
        self._clock = clock

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """One POST of the model's input, never repeated.

        A training first has its destination and its trainer's version found or made by free calls, whose failures
        mean that nothing was sent. Replicate takes neither an idempotency key nor a name of ours; no `Prefer` is sent,
        so that it answers at once.
        """
        job = f"{request.endpoint} at {self.vendor}"
        given = _filled(request, submission.url_of)
        model = model_of(self._registry, request)
        if model is not None and model.kind is ModelKind.TRAINER:
            place = self._ground.prepare(model, request)
            url, body, headers = place.url, {"destination": place.destination, "input": given}, {}
        else:
            seconds = STOPPED_AFTER_SECONDS.get(model.kind, STOPPED_AFTER_DEFAULT) if model else STOPPED_AFTER_DEFAULT
            url, body = _prediction(request.endpoint, given)
            headers = {"Cancel-After": f"{seconds}s"}
        content = _as_json(body, request.endpoint)
        try:
            response = self._client.send("POST", url, content=content, headers=headers)
        except NEVER_SENT as error:
            raise Unavailable(
                f"The job {job} was not sent, Replicate could not be reached ({self._client.failure(error)}): "
                "send it later."
            ) from error
        except OnModelError:
            raise
        except Exception as error:
            # Whatever else broke, it broke after the request began to leave.
            raise self._lost(job, self._client.failure(error)) from error
        if not response.is_success:
            account = self._client.account_error(response, f"sending {job}")
            if account is not None:
                raise account
            said = self._client.words(response)
            if 400 <= said.status < 500 and said.status not in MAYBE_TAKEN:
                zip_field = model.training.zip_field if model is not None and model.training is not None else None
                raise refusal(said, f"the job {job}", zip_field)
            raise self._lost(job, f"{said.status}: {said.text}")
        answer = json_of(response)
        request_id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(request_id, str) or not request_id:
            raise self._lost(job, f"{response.status_code} without a readable id")
        return VendorJobIds(
            request_id=request_id, status_url=_kept_url(answer, "get"), cancel_url=_kept_url(answer, "cancel")
        )

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:
        """Look once."""
        response = self._client.look("GET", self._job_url(request, ids))
        if response.status_code in (404, 410):
            return JobStatus(state=VendorState.GONE, message=self._client.words(response).text)
        self._client.check_look(response, f"looking at the job {ids.request_id}")
        job = self._read_job(json_of(response), ids)
        return read_status(job, model_of(self._registry, request), request, quoted_error=self._error_of(job))

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        """The files of a job that succeeded. `billed_usd` is told for models sold by a machine's time only."""
        what = f"the job {ids.request_id} ({request.endpoint})"
        response = self._client.look("GET", self._job_url(request, ids))
        if response.status_code in (404, 410):
            raise ResultExpired(
                f"Replicate no longer knows {what} ({response.status_code}: {self._client.words(response).text})."
            )
        self._client.check_look(response, f"fetching {what}")
        job = self._read_job(json_of(response), ids)
        model = model_of(self._registry, request)
        if job["status"] not in FINAL:
            raise Unavailable(
                f"Replicate has not finished {what} yet ({self._client.quote(job['status'])}); it can be asked again."
            )
        if job["status"] != "succeeded":
            raise failure_of(job, what, model, quoted_error=self._error_of(job))
        if is_removed(job, self._clock.now()):
            raise ResultExpired(f"Replicate has removed the output of {what}: it does so an hour after its end.")
        return output_of(job, what, model)

    def cancel(self, request: VendorRequest, ids: VendorJobIds) -> None:
        """Ask Replicate to stop. Over, unknown or already stopped is fine: its codes for these are not documented."""
        url = ids.cancel_url or f"{self._job_url(request, ids)}/cancel"
        response = self._client.look("POST", url)
        if response.status_code not in (400, 404, 409, 410, 422):
            self._client.check_look(response, f"cancelling the job {ids.request_id}")

    def ping(self) -> Ping:
        """Read our own account: free, and needs the token. Whether there is credit is not told there."""
        try:
            self._client.check_look(self._client.look("GET", "/account"), "reading the account")
        except OnModelError as error:
            return Ping(is_ready=False, detail=error.message)
        return Ping(is_ready=True, detail=f"{self.vendor} answers and accepts the token")

    # --- reading Replicate's answers ---

    def _job_url(self, request: VendorRequest, ids: VendorJobIds) -> str:
        if ids.status_url is not None:
            return ids.status_url
        return job_url(ids.request_id, of_training=is_training(self._registry, request))

    def _read_job(self, answer: object, ids: VendorJobIds) -> dict[str, Any]:
        if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
            raise Unavailable(f"Replicate's answer about the job {ids.request_id} could not be read; ask again.")
        return answer

    def _error_of(self, job: dict[str, Any]) -> str:
        error = job.get("error")
        return self._client.quote(error) if error else ""

    def _lost(self, job: str, seen: str) -> SubmissionUnknown:
        return SubmissionUnknown(f"The job {job} was sent and no usable answer came back ({seen}).")


def job_url(request_id: str, *, of_training: bool) -> str:
    """Path of a job below the API."""
    return f"/{'trainings' if of_training else 'predictions'}/{in_path(request_id)}"


def _prediction(endpoint: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Where a prediction is made and with which body: `owner/name:version` names a version, `owner/name` an official
    model, where a `version` in the body would be refused."""
    name, colon, version = endpoint.partition(":")
    if colon:
        return "/predictions", {"version": f"{name}:{version}", "input": given}
    return f"/models/{name}/predictions", {"input": given}


def _filled(request: VendorRequest, url_of: dict[str, str]) -> dict[str, Any]:
    try:
        return request.with_urls(url_of)
    except KeyError as missing:
        raise BadInput(
            f"The file {missing} of {request.endpoint} has no address: upload it before submitting."
        ) from None


def _as_json(body: dict[str, Any], endpoint: str) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BadInput(f"The request for {endpoint} is not plain JSON: {error}.") from error


def _kept_url(answer: dict[str, Any], name: str) -> str | None:
    """An address Replicate gave us, unless it leads away from it: then ours is built from the id instead."""
    urls = answer.get("urls")
    url = urls.get(name) if isinstance(urls, dict) else None
    return url if isinstance(url, str) and may_carry_token(url) else None
