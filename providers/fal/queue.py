"""fal's queue: submit once, look, fetch the outcome, cancel."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx

from domain.errors import (
    BadInput,
    JobFailed,
    OnModelError,
    PromptRefused,
    ResultExpired,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import JobOutput, JobStatus, OutputFile, VendorJobIds, VendorRequest, VendorState
from domain.model_rules import Model, ModelKind
from domain.registry import Registry
from domain.submissions import Submission
from providers.fal.captioners import described_text
from providers.fal.client import QUEUE_URL, REST_URL, FalClient, may_carry_key, refusal
from providers.fal.logs import log_lines, training_progress
from providers.vendor_ports import Ping
from providers.vendor_words import json_of
from providers.web import NEVER_SENT

STATE_OF = {
    "IN_QUEUE": VendorState.QUEUED,
    "IN_PROGRESS": VendorState.RUNNING,
    "COMPLETED": VendorState.DONE,
}
"""fal has no word for failure: a failed or cancelled job is COMPLETED too, and its result tells."""

ROLE_OF_FIELD = {"images": "image", "image": "image", "video": "video"}
"""What a still or a clip comes in; a trainer's fields stand in `TrainingRule.weights`, each has its own."""

NAMESPACES = ("workflows", "comfy")
MAYBE_TAKEN = (408, 409)
"""Refusals by word that do not prove that nothing was queued: a timeout and a conflict."""


class FalQueue:
    """`JobQueue` over fal's wire protocol; what was lost is looked up by `FalLookUp`."""

    def __init__(self, client: FalClient, registry: Registry, vendor: str) -> None:
        self.vendor = vendor
        self._client = client
        self._registry = registry

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """One POST of the model's input, never repeated.

        fal takes neither an idempotency key nor a name of ours, so the submission's mark is not sent.
        """
        body = _body(request, submission.url_of)
        job = f"{request.endpoint} at {self.vendor}"
        try:
            response = self._client.send("POST", f"{QUEUE_URL}/{request.endpoint}", content=body)
        except NEVER_SENT as error:
            raise Unavailable(
                f"The job {job} was not sent, fal could not be reached ({self._client.failure(error)}): send it later."
            ) from error
        except OnModelError:
            raise
        except Exception as error:
            # Whatever else broke, it broke after the request began to leave.
            raise self._lost(job, self._client.failure(error)) from error
        if not response.is_success:
            raise self._submit_error(job, response)
        answer = json_of(response)
        request_id = answer.get("request_id") if isinstance(answer, dict) else None
        if not isinstance(request_id, str) or not request_id:
            trace = response.headers.get("x-fal-request-id")
            seen = f"{response.status_code} without a readable request_id" + (
                f", x-fal-request-id {trace}" if trace else ""
            )
            raise self._lost(job, seen)
        return VendorJobIds(
            request_id=request_id,
            status_url=_kept_url(answer, "status_url"),
            response_url=_kept_url(answer, "response_url"),
            cancel_url=_kept_url(answer, "cancel_url"),
        )

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:
        """Look once. COMPLETED only means that there is an outcome to ask for; logs are read for trainings only."""
        model = self._registry.by_endpoint("fal", request.endpoint)
        is_training = model is not None and model.kind is ModelKind.TRAINER
        url = httpx.URL(ids.status_url or f"{_job_url(request, ids)}/status")
        response = self._client.look("GET", str(url.copy_merge_params({"logs": "true" if is_training else "false"})))
        if response.status_code in (404, 410):
            return JobStatus(state=VendorState.GONE, message=self._client.words(response).text)
        self._client.check_look(response, f"looking at the job {ids.request_id}")
        answer = json_of(response)
        if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
            raise Unavailable(f"fal's status of the job {ids.request_id} could not be read; it can be asked again.")
        return self._read_status(answer)

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        """The files of a finished job, or a captioner's words.

        fal answers with the model's own status code, so a 4xx or 5xx is the verdict.
        `billed_usd` stays None: `X-Fal-Billable-Units` counts units that fal does not name, so no sum follows from it.
        """
        job = f"the job {ids.request_id} ({request.endpoint})"
        response = self._client.look("GET", ids.response_url or _job_url(request, ids))
        if not response.is_success:
            raise self._outcome_error(request, ids, job, response)
        answer = json_of(response)
        if not isinstance(answer, dict):
            raise Unavailable(f"fal's result of {job} could not be read; it can be asked again.")
        if response.status_code == 202 or answer.get("status") in ("IN_QUEUE", "IN_PROGRESS"):
            raise Unavailable(f"fal has not finished {job} yet; it can be asked again.")
        flagged = answer.get("has_nsfw_concepts")
        if isinstance(flagged, list) and any(flag is True for flag in flagged):
            raise PromptRefused(
                f"fal's safety check blacked out the picture of {job}: change the prompt; the picture was charged."
            )
        model = self._registry.by_endpoint("fal", request.endpoint)
        if model is not None and model.captioner is not None:
            return JobOutput(files=(), text=described_text(answer, model.captioner, job))
        files = _files(answer, self._roles(model))
        missing = _sold(model) - {file.role for file in files}
        if missing or not files:
            missing = missing or {"image", "video", "lora"}
            raise JobFailed(f"fal calls {job} done, but its result names no {' and no '.join(sorted(missing))} file.")
        seed = answer.get("seed")
        return JobOutput(files=files, seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else None)

    def cancel(self, request: VendorRequest, ids: VendorJobIds) -> None:
        """Ask fal to stop. Over, unknown or already stopped is fine: fal's codes for these are not documented."""
        response = self._client.look("PUT", ids.cancel_url or f"{_job_url(request, ids)}/cancel")
        if response.status_code not in (400, 404, 409, 410, 422):
            self._client.check_look(response, f"cancelling the job {ids.request_id}")

    def ping(self) -> Ping:
        """Ask for an upload token: free, needs the key, and is refused where the account is locked."""
        try:
            url = f"{REST_URL}/storage/auth/token?storage_type=fal-cdn-v3"
            self._client.check_look(self._client.look("POST", url, content=b"{}"), "asking for an upload token")
        except OnModelError as error:
            return Ping(is_ready=False, detail=error.message)
        return Ping(is_ready=True, detail=f"{self.vendor} answers and accepts the key")

    # --- reading fal's answers ---

    def _roles(self, model: Model | None) -> dict[str, str]:
        """The answer's fields that hold files, and our names for them. A trainer's `video` is a sample, no more.

        A job of an endpoint that has left the registry since is still owed its result: any field of any model counts.
        """
        if model is not None and model.training is None:
            return ROLE_OF_FIELD
        if model is not None and model.training is not None:
            return {**model.training.weights, "config_file": "config"}
        trainings = (one.training for one in self._registry.models if one.vendor == "fal" and one.training)
        weights = {field: role for training in trainings for field, role in training.weights.items()}
        return {**weights, "config_file": "config", **ROLE_OF_FIELD}

    def _submit_error(self, job: str, response: httpx.Response) -> OnModelError:
        account = self._client.account_error(response, f"sending {job}")
        if account is not None:
            return account
        said = self._client.words(response)
        if 400 <= said.status < 500 and said.status not in MAYBE_TAKEN:
            return refusal(said, f"the job {job}")
        return self._lost(job, f"{said.status}: {said.text}")

    def _lost(self, job: str, seen: str) -> SubmissionUnknown:
        return SubmissionUnknown(f"The job {job} was sent and no usable answer came back ({seen}).")

    def _read_status(self, answer: dict[str, Any]) -> JobStatus:
        state = STATE_OF.get(answer["status"], VendorState.UNKNOWN_WORD)
        position = answer.get("queue_position")
        lines = log_lines(answer.get("logs"))
        training = training_progress(lines)
        share = training.step / training.total_steps if training else None
        message = answer.get("error") or (lines[-1][0] if lines else None)
        if state is VendorState.UNKNOWN_WORD:
            message = f"fal says {answer['status']!r}"
        return JobStatus(
            state=state,
            queue_position=position if isinstance(position, int) and state is VendorState.QUEUED else None,
            progress=1.0 if state is VendorState.DONE else share,
            training=training,
            message=self._client.quote(message) if message else None,
        )

    def _outcome_error(
        self, request: VendorRequest, ids: VendorJobIds, job: str, response: httpx.Response
    ) -> OnModelError:
        account = self._client.account_error(response, f"fetching {job}")
        if account is not None:
            return account
        said = self._client.words(response)
        if said.status in (404, 410):
            return ResultExpired(f"fal no longer has the result of {job} ({said.status}: {said.text}).")
        is_verdict = 400 <= said.status < 500 or said.error_type is not None
        if said.status == 400 or not is_verdict:
            # A 5xx may be the job's own end or a gateway's hiccup, a 400 may mean "not yet": the status tells which.
            status = self._client.look("GET", ids.status_url or f"{_job_url(request, ids)}/status")
            answer = json_of(status)
            if isinstance(answer, dict) and answer.get("status") in ("IN_QUEUE", "IN_PROGRESS"):
                return Unavailable(f"fal has not finished {job} yet; it can be asked again.")
            ended_badly = isinstance(answer, dict) and (answer.get("error") or answer.get("error_type"))
            # A model's own 500 names its type (docs.fal.ai/errors, 2026-11) or stands in the status as an error; any
            # other 5xx may be an accident on the way to a result that is there and paid for.
            is_verdict = bool(ended_badly) or said.status == 400 or (said.status == 500 and bool(said.types))
        if not is_verdict:
            return Unavailable(f"fal failed when fetching {job} ({said.status}: {said.text}); it can be asked again.")
        return refusal(said, job, JobFailed)


def _body(request: VendorRequest, url_of: dict[str, str]) -> bytes:
    try:
        return json.dumps(request.with_urls(url_of), ensure_ascii=False, allow_nan=False).encode()
    except KeyError as missing:
        raise BadInput(
            f"The file {missing} of {request.endpoint} has no address: upload it before submitting."
        ) from None
    except (TypeError, ValueError) as error:
        raise BadInput(f"The request for {request.endpoint} is not plain JSON: {error}.") from error


def _job_url(request: VendorRequest, ids: VendorJobIds) -> str:
    """Follow-up addresses carry owner and app only, never the whole endpoint (fal-client 1.0.3, `AppId`)."""
    parts = request.endpoint.split("/")
    app = "/".join(parts[: 3 if parts[0] in NAMESPACES else 2])
    # The id is the vendor's word: nothing in it may lead elsewhere.
    return f"{QUEUE_URL}/{app}/requests/{re.sub(r'[^A-Za-z0-9._~-]', '-', ids.request_id)}"


def _kept_url(answer: dict[str, Any], name: str) -> str | None:
    """An address fal gave us, unless it leads away from fal: then ours is built from the id instead."""
    url = answer.get(name)
    return url if isinstance(url, str) and may_carry_key(url) else None


def _sold(model: Model | None) -> set[str]:
    """The files without which the job has made nothing; of a LoRA in two files both."""
    if model is None:
        return set()
    if model.training is not None:
        return set(model.training.weights.values())
    return {"video" if model.kind is ModelKind.VIDEO else "image"}


def _files(answer: dict[str, Any], role_of_field: dict[str, str]) -> tuple[OutputFile, ...]:
    found = []
    for field, role in role_of_field.items():
        values = answer.get(field)
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, dict) and isinstance(value.get("url"), str) and value["url"]:
                size = value.get("file_size")
                found.append(
                    OutputFile(
                        role=role,
                        url=value["url"],
                        content_type=_text(value.get("content_type")),
                        file_name=_text(value.get("file_name")),
                        size_bytes=size if isinstance(size, int) and not isinstance(size, bool) else None,
                    )
                )
    return tuple(found)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
