"""RunPod serverless as a vendor of stills: a job is one POST to our worker's queue, its picture comes into our store.

The worker (deployments/serverless-sdxl) puts the picture and a small status.json into the job's box of the handover,
each by a link that is written for this POST. RunPod keeps its own word for 30 minutes; ours in the box stays longer.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from pydantic import SecretStr

from domain.errors import (
    JobFailed,
    NotConfigured,
    OnModelError,
    Rejected,
    ResultExpired,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import BlobRef, JobOutput, JobStatus, OutputFile, VendorJobIds, VendorRequest, VendorState
from domain.registry import Registry
from domain.submissions import AbsenceRule, Finding, LookUp, Submission
from providers.runpod.client import RunPodClient, json_of
from providers.runpod.package import SERVERLESS_URL, Call, RunPodPackage, cancel_job
from providers.runpod.serverless_box import BOX, BOX_SCHEME, PICTURE, STATUS, Report, box_of, read_report
from providers.runpod.serverless_stills import SERVERLESS, ServerlessImageMaker
from providers.vendor_ports import Handover, Ping, StillOrder
from providers.web import NEVER_SENT

STATE_OF = {
    "IN_QUEUE": VendorState.QUEUED,
    "IN_PROGRESS": VendorState.RUNNING,
    "RUNNING": VendorState.RUNNING,
    "COMPLETED": VendorState.DONE,
    "FAILED": VendorState.FAILED,
    "TIMED_OUT": VendorState.FAILED,
    "CANCELLED": VendorState.CANCELLED,
}
"""runpod_trainers.md 1.4. Any other word may be a new one for something that still runs."""

EXECUTION_TIMEOUT = timedelta(minutes=10)
"""`policy.executionTimeout`: RunPod itself stops a job that works longer. A cold start is not counted in it."""

TIME_TO_LIVE = timedelta(hours=1)
"""`policy.ttl`: RunPod deletes the job so long after the POST, waiting or working; the door stops a still sooner."""

LINKS_VALID_FOR = timedelta(hours=24)
"""The door may send a file's address for half a day after it was made, and the job may live an hour after that."""

REFUSALS = frozenset({400, 403, 404, 405, 413, 415, 422})
"""Answers to /run that mean nothing was queued; 401, 402 and 429 are about the account, all others prove nothing."""

MAX_BODY_BYTES = 10_000_000
"""What /run takes at most: 10 MB (runpod_trainers.md 1.4)."""

ENDPOINT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""What may stand in a path: an id is the vendor's word and must not lead elsewhere."""


class ServerlessVendor:
    """`ImageMaker` and `JobVendor` over one RunPod endpoint that runs our worker, through the `runpod` package.

    A request names the endpoint `serverless`; its arguments are the worker's input without `put_url`, `status_url` and
    `box`, which are made for each POST. `http` must not follow redirects by itself and stays the caller's to close.
    Safe to share between threads.
    """

    charges_failures = True  # the worker's seconds, whatever came of them

    absence = AbsenceRule(
        can_prove=False,
        reason=(
            "RunPod serverless has no list of jobs and takes no name of ours: a job shows itself only by what its "
            "worker puts into our own store, once a worker has begun it."
        ),
    )

    def __init__(
        self,
        key: SecretStr,
        registry: Registry,
        *,
        endpoint_id: str,
        handover: Handover,
        http: httpx.Client,
        name: str = "runpod",
        base_url: str | None = None,
    ) -> None:
        if ENDPOINT_ID.fullmatch(endpoint_id) is None:
            raise NotConfigured(
                f"ONMODEL_RUNPOD_ENDPOINT is {endpoint_id[:80]!r}: write the id of your serverless endpoint, letters "
                "and digits alone, as RunPod's console shows it."
            )
        url = base_url or SERVERLESS_URL
        self._client = RunPodClient(http, key, url)  # checks the key and the address, and reads refusals
        self._package = RunPodPackage(http, key.get_secret_value().strip(), endpoint_id, url)
        self._endpoint_id = endpoint_id
        self._handover = handover
        self._stills = ServerlessImageMaker(registry, name)
        self.vendor = name

    def __repr__(self) -> str:
        return f"ServerlessVendor(name={self.vendor!r}, endpoint_id={self._endpoint_id!r})"

    def still_request(self, order: StillOrder) -> VendorRequest:
        """As `vendor_ports.ImageMaker`."""
        return self._stills.still_request(order)

    # --- the queue ---

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """One POST to /run, never repeated; as `JobQueue`. The ids carry the job's box, where its picture will lie."""
        job, box = f"a still at {self.vendor} serverless", box_of(submission)
        body, secrets = self._body(request, submission, box)
        try:
            response = self._package.ask(lambda endpoint: endpoint.run(body))
        except NEVER_SENT as error:
            raise Unavailable(
                f"The order of {job} was not sent, RunPod could not be reached ({self._client.failure(error)}): "
                "it is sent later."
            ) from error
        except NotConfigured:
            raise
        except Exception as error:
            # Whatever else broke, it broke after the request began to leave.
            raise self._lost(job, self._client.failure(error)) from error
        if not response.is_success:
            raise self._submit_error(job, response, secrets)
        answer = json_of(response)
        job_id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(job_id, str) or JOB_ID.fullmatch(job_id) is None:
            raise self._lost(job, f"{response.status_code} without a readable id")
        return VendorJobIds(request_id=job_id, response_url=f"{BOX_SCHEME}:{box}")

    def look_up(self, request: VendorRequest, submission: Submission, known_ids: frozenset[str]) -> LookUp:  # noqa: ARG002
        """The status.json in the job's box, put there by the worker; as `JobQueue`. Never proves an absence."""
        box = box_of(submission)
        report = read_report(self._handover, box)
        if report is None or JOB_ID.fullmatch(report.job_id) is None:
            return LookUp(
                finding=Finding.UNCLEAR,
                detail=f"No worker has put anything into the box {box} yet: the job may wait in the queue, or not be.",
            )
        if report.job_id in known_ids:
            return LookUp(
                finding=Finding.UNCLEAR,
                detail=f"The box {box} was filled by {report.job_id}, which the ledger has under another job.",
                candidates=(report.job_id,),
            )
        return LookUp(
            finding=Finding.FOUND,
            detail=f"A worker says that it has the job as {report.job_id} ({report.state}).",
            ids=VendorJobIds(request_id=report.job_id, response_url=f"{BOX_SCHEME}:{box}"),
        )

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:  # noqa: ARG002 (the id is enough)
        """As `JobQueue`. What RunPod has forgotten (after 30 minutes) the box still tells, if a worker ended it."""
        doing = f"looking at the job {ids.request_id}"
        answer = self._job(ids, doing)
        if answer is None:
            report = self._report_of(ids)
            if report is not None and report.is_over:
                state = VendorState.DONE if report.is_done else VendorState.FAILED
                return JobStatus(state=state, message=self._client.quote(report.error) if report.error else None)
            return JobStatus(state=VendorState.GONE, message="RunPod does not know the job any more")
        word = answer["status"]
        state = STATE_OF.get(word, VendorState.UNKNOWN_WORD)
        message = None
        if state is VendorState.FAILED:
            message = self._why(answer)
        elif state is VendorState.UNKNOWN_WORD:
            message = f"RunPod says {self._client.quote(word)!r}"
        return JobStatus(state=state, progress=1.0 if state is VendorState.DONE else None, message=message)

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:  # noqa: ARG002 (the id is enough)
        """The picture of a finished job, in our own store; as `JobQueue`.

        `billed_usd` stays None: RunPod charges a worker's seconds, its start and its idling included, and says of a job
        only how long it worked.
        """
        job = f"the job {ids.request_id}"
        answer = self._job(ids, f"fetching {job}")
        report = self._report_of(ids)
        if answer is None and (report is None or not report.is_over):
            raise ResultExpired(
                f"RunPod does not know {job} any more, and its worker left no result in our store: RunPod keeps a "
                "result for 30 minutes, and a job that waits longer than its time to live is deleted."
            )
        if answer is not None:
            state = STATE_OF.get(answer["status"], VendorState.UNKNOWN_WORD)
            if state not in (VendorState.DONE, VendorState.FAILED, VendorState.CANCELLED):
                raise Unavailable(f"RunPod has not finished {job} yet ({answer['status']}); it can be asked again.")
            if state is VendorState.DONE:
                given = answer.get("output")
                report = Report.of_output(ids.request_id, given) if isinstance(given, dict) else report
            elif report is None or not report.is_done:
                # A worker that was stopped after its last word has done the work all the same.
                raise JobFailed(f"RunPod ended {job} without a result ({self._why(answer)}).")
        if report is None or not report.is_done or report.sha256 is None:
            why = self._client.quote(report.error) if report and report.error else "it names no picture"
            raise JobFailed(f"The worker ended {job} without a picture ({why}).")
        box = _own_box(ids) or report.box
        if box is None or BOX.fullmatch(box) is None:
            raise JobFailed(f"RunPod calls {job} done, but nobody knows into which box its picture was put.")
        file = OutputFile(
            role="image",
            url=f"{BOX_SCHEME}:{box}/{PICTURE}#{report.sha256}",
            content_type="image/png",
            file_name=PICTURE,
            size_bytes=report.size_bytes,
        )
        return JobOutput(files=(file,), seed=report.seed)

    def cancel(self, request: VendorRequest, ids: VendorJobIds) -> None:  # noqa: ARG002 (the id is enough)
        """As `JobQueue`: a job that is over or forgotten is no error."""
        job_id, doing = _checked(ids.request_id), f"cancelling the job {ids.request_id}"
        response = self._look(lambda endpoint: cancel_job(endpoint, job_id), doing)
        if not response.is_success and response.status_code not in (400, 404, 409, 410, 422):
            raise self._look_error(response, doing)

    def ping(self) -> Ping:
        """Asks the endpoint for its health: free, needs the key, says how many workers there are."""
        doing = "asking for the endpoint's health"
        try:
            response = self._look(lambda endpoint: endpoint.health(), doing)
            if not response.is_success:
                raise self._look_error(response, doing)
        except OnModelError as error:
            return Ping(is_ready=False, detail=error.message)
        answer = json_of(response)
        workers = answer.get("workers") if isinstance(answer, dict) else None
        known = {word: count for word, count in workers.items() if isinstance(count, int)} if workers else {}
        told = ", ".join(f"{count} {word}" for word, count in sorted(known.items()) if count) or "no worker is up"
        return Ping(is_ready=True, detail=f"{self.vendor} serverless answers and accepts the key ({told})")

    # --- files ---

    def upload(self, path: Path, ref: BlobRef) -> str:
        """A link into our own store by which the worker may read the file for a day; as `FileHost`."""
        return self._handover.read_link(path, ref, LINKS_VALID_FOR)

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """Stream the picture out of its box into a seekable stream, and hold it to the digest that the worker named.

        `ResultExpired` when it is not there, `Unavailable` when other bytes came; then nothing stays in `into`.
        """
        place = re.fullmatch(rf"{BOX_SCHEME}:({BOX.pattern})/({re.escape(PICTURE)})#([0-9a-f]{{64}})", file.url)
        if place is None:
            raise JobFailed(f"The address of the {file.role} is none of our boxes: it is not fetched.")
        start = into.tell()
        self._handover.fetch(place[1], place[2], into)
        into.seek(start)
        digest = hashlib.sha256()
        while chunk := into.read(1 << 20):
            digest.update(chunk)
        if digest.hexdigest() != place[3]:
            into.seek(start)
            into.truncate()
            raise Unavailable(
                f"The picture in the box {place[1]} is not the one its worker made (another SHA-256): it may still be "
                "on its way, and is fetched again."
            )

    # --- reading RunPod's answers ---

    def _body(self, request: VendorRequest, submission: Submission, box: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The body to send, and the links in it, which no text may show."""
        if request.endpoint != SERVERLESS:
            raise Rejected(f"RunPod serverless is asked for {request.endpoint!r}: only {SERVERLESS!r} is there.")
        try:
            given = request.with_urls(submission.url_of)
        except KeyError as missing:
            raise Rejected(f"The file {missing} of the still has no address: it cannot be ordered.") from None
        links = {
            "put_url": self._handover.write_link(box, PICTURE, LINKS_VALID_FOR),
            "status_url": self._handover.write_link(box, STATUS, LINKS_VALID_FOR),
        }
        body = {
            "input": {**given, **links, "box": box},
            "policy": {
                "executionTimeout": int(EXECUTION_TIMEOUT.total_seconds() * 1000),
                "ttl": int(TIME_TO_LIVE.total_seconds() * 1000),
            },
        }
        try:
            size_bytes = len(json.dumps(body, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise Rejected(f"The request of the still is not plain JSON: {error}.") from error
        if size_bytes > MAX_BODY_BYTES:
            raise Rejected(
                f"The request of the still has {size_bytes} bytes and RunPod takes {MAX_BODY_BYTES}: shorten it."
            )
        return body, (*submission.url_of.values(), *links.values())

    def _submit_error(self, job: str, response: httpx.Response, secrets: tuple[str, ...]) -> OnModelError:
        account = self._client.account_error(response, f"sending {job}", secrets)
        if account is not None:
            return account
        seen = f"{response.status_code}: {self._client.words(response, secrets)}"
        if response.status_code == 404:
            return NotConfigured(
                f"RunPod has no endpoint {self._endpoint_id} ({seen}): correct ONMODEL_RUNPOD_ENDPOINT, or deploy the "
                "worker of deployments/serverless-sdxl."
            )
        if response.status_code in REFUSALS:
            return Rejected(f"RunPod refused {job} ({seen}): sending the same again is useless.")
        return self._lost(job, seen)

    def _lost(self, job: str, seen: str) -> SubmissionUnknown:
        return SubmissionUnknown(
            f"The order of {job} was sent and no usable answer came back ({seen}): it may be in the queue and is not "
            "sent again; it is found by what its worker puts into our store."
        )

    def _job(self, ids: VendorJobIds, doing: str) -> dict[str, Any] | None:
        """RunPod's word on the job, with a `status` in it; None when it does not know the job."""
        job_id = _checked(ids.request_id)
        response = self._look(lambda endpoint: endpoint.rp_client.get(f"{self._endpoint_id}/status/{job_id}"), doing)
        if response.status_code in (404, 410):
            return None
        if not response.is_success:
            raise self._look_error(response, doing)
        answer = json_of(response)
        if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
            raise Unavailable(f"RunPod's answer could not be read when {doing}; it can be asked again.")
        return answer

    def _look(self, call: Call, doing: str) -> httpx.Response:
        try:
            return self._package.ask(call)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unavailable(
                f"RunPod could not be asked when {doing} ({self._client.failure(error)}); ask again later."
            ) from error

    def _look_error(self, response: httpx.Response, doing: str) -> OnModelError:
        account = self._client.account_error(response, doing)
        if account is not None:
            return account
        seen = f"{response.status_code}: {self._client.words(response)}"
        if response.status_code in (403, 404):
            return NotConfigured(
                f"RunPod does not give this key the endpoint {self._endpoint_id}, when {doing} ({seen}): correct "
                "ONMODEL_RUNPOD_ENDPOINT or RUNPOD_API_KEY."
            )
        return Unavailable(f"RunPod failed when {doing} ({seen}); it can be asked again.")

    def _report_of(self, ids: VendorJobIds) -> Report | None:
        box = _own_box(ids)
        report = read_report(self._handover, box) if box else None
        return report if report is not None and report.job_id == ids.request_id else None

    def _why(self, answer: dict[str, Any]) -> str:
        """Why a job ended so, in the worker's words where there are any; the package would drop them."""
        if answer["status"] == "TIMED_OUT":
            return f"it worked longer than {EXECUTION_TIMEOUT.total_seconds():.0f} s"
        error = answer.get("error")
        try:
            told = json.loads(error) if isinstance(error, str) else error
        except (ValueError, RecursionError):
            told = error
        if isinstance(told, dict):
            told = told.get("message") or told.get("error_message") or told.get("error_type")
        return self._client.quote(told or answer["status"])


def _own_box(ids: VendorJobIds) -> str | None:
    """The box that was written down with the job's id; None for a job that a person adopted by its id alone."""
    word, _, box = (ids.response_url or "").partition(":")
    return box if word == BOX_SCHEME and BOX.fullmatch(box) else None


def _checked(job_id: str) -> str:
    if JOB_ID.fullmatch(job_id) is None:
        raise Rejected(f"{job_id[:80]!r} is no id of a RunPod job: they are letters, digits, hyphens and underscores.")
    return job_id
