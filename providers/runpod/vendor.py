"""RunPod as a vendor: a job is a pod, made once, found again by its name, and ended by deleting it.

What is not here yet: collecting what a pod made. A pod puts its result into our own store through a presigned PUT, and
the scripts that do so come with the trainers. Until then a pod's job can be sent, found, watched, cancelled and reaped,
but not finished: `output` says so.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from pydantic import SecretStr

from domain.errors import (
    BadInput,
    JobFailed,
    NotConfigured,
    OnModelError,
    Rejected,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import BlobRef, JobOutput, JobStatus, OutputFile, VendorJobIds, VendorRequest, VendorState
from domain.pods import HARD_STOP_ARGUMENT, deadline_epoch, pod_name
from domain.submissions import AbsenceRule, Finding, LookUp, Submission
from providers.runpod.billing import read_usage
from providers.runpod.client import BASE_URL, RunPodClient, json_of
from providers.runpod.listing import POD_ID, list_pods, oldest_first, read_pod
from providers.vendor_ports import Ping, Pod, UsageLine
from providers.web import NEVER_SENT

PODS = "pods"
"""The one endpoint a request may name."""

DEADLINE_VARIABLE = "ONMODEL_DEADLINE"
"""When the pod must have ended itself: seconds since 1970, absolute, because a container is started again when its
command ends (runpod_trainers.md 0.5) and must not gain time by it."""

STATE_OF = {
    "PROVISIONING": VendorState.QUEUED,
    "STARTING": VendorState.QUEUED,
    "RUNNING": VendorState.RUNNING,
    "EXITED": VendorState.FAILED,
    "ERROR": VendorState.FAILED,
    "TERMINATED": VendorState.CANCELLED,
}
"""`PodStatus` of the specification. A pod has no word for done: one that did its work deletes itself."""

REFUSALS = frozenset({400, 403, 404, 405, 413, 415, 422})
"""Answers to a create that mean nothing was made: those of the specification, and HTTP's own about an ill-made request.
401, 402 and 429 are about the account; every other may come after the pod was made."""

NO_CAPACITY = (
    "no longer any instances available",
    "please refresh and try again",
    "does not have the resources",
    "try a different machine",
)
"""RunPod answers 400 both to a broken rule and to a lack of machines, and by its specification only the text tells
(create-a-pod, 2.0.0). Texts: runpod_trainers.md 5.4."""

TRANSIENT = "something went wrong"

POST_DEADLINE_SECONDS = 180.0
"""After this a POST has arrived or never will: 15 s for a connection from the pool, 15 s to connect, 60 s to write and
60 s to read (`open_http`), and half a minute on RunPod's side."""


class RunPodVendor:
    """`JobVendor`, `PodHost` and `UsageReader` over RunPod's REST v2, as far as pods go.

    A request is `VendorRequest(vendor="runpod", endpoint="pods", arguments=…)`, its arguments the body of
    `POST /v2/pods` without `name`, which is ours, and with `hard_stop_seconds` (`domain.pods.hard_stop`), which stays
    here. One account belongs to one ledger: another ledger's reaper would take its pods for orphans.
    Safe to share between threads.
    """

    vendor = "runpod"
    charges_failures = True  # its hours, the pulling of the image included

    absence = AbsenceRule(
        can_prove=True,
        reason=(
            "The pod's name is ours alone, and RunPod lists every pod: a name in none of four lists, half a minute "
            "apart, after the POST's own deadline is no pod. One list proves nothing, a new pod can be missing from it."
        ),
        looks=4,
        after_seconds=POST_DEADLINE_SECONDS,
        seconds_apart=30.0,
    )
    """A pod just made was seen missing from a list (transformerlab-app #1680; runpod_trainers.md 5.2)."""

    def __init__(self, http: httpx.Client, key: SecretStr, *, base_url: str = BASE_URL) -> None:
        self._client = RunPodClient(http, key, base_url)

    def __repr__(self) -> str:
        return "RunPodVendor()"

    # --- the queue ---

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """One POST that makes the pod; as `JobQueue`. `Rejected`, with nothing sent, for what is no pod's request.

        There is no idempotency key, and a 500 was seen with the pod already running and billing (transformerlab-app
        #2305): so whatever is not a plain refusal counts as a lost answer, and the name finds the pod again.
        """
        name = pod_name(submission)
        content, secrets = _body(request, submission, name)
        try:
            response = self._client.send("POST", "/pods", content=content)
        except NEVER_SENT as error:
            raise Unavailable(
                f"The pod {name} was not ordered, RunPod could not be reached ({self._client.failure(error)}): "
                "it is ordered later."
            ) from error
        except Exception as error:
            # Whatever else broke, it broke after the request began to leave.
            raise self._lost(name, self._client.failure(error)) from error
        if not response.is_success:
            raise self._refusal(name, response, secrets)
        answer = json_of(response)
        pod_id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(pod_id, str) or POD_ID.fullmatch(pod_id) is None:
            raise self._lost(name, f"{response.status_code} without a readable id")
        return VendorJobIds(request_id=pod_id)

    def look_up(
        self,
        request: VendorRequest,  # noqa: ARG002 (the pod's name tells everything)
        submission: Submission,
        known_ids: frozenset[str],
    ) -> LookUp:
        """One list, searched for the pod's exact name; as `JobQueue`. A list that cannot be read whole is an error."""
        name = pod_name(submission)
        namesakes = tuple(pod for pod in list_pods(self._client, f"looking for the pod {name}") if pod.name == name)
        found = oldest_first(tuple(pod for pod in namesakes if pod.pod_id not in known_ids))
        if not namesakes:
            return LookUp(finding=Finding.ABSENT, detail=f"RunPod lists no pod {name}.")
        if not found:
            taken = tuple(pod.pod_id for pod in namesakes)
            detail = f"RunPod lists {name} as {', '.join(taken)}, which the ledger has under another job."
            return LookUp(finding=Finding.UNCLEAR, detail=detail, candidates=taken)
        detail = f"RunPod has {name} as the pod {found[0].pod_id} ({found[0].status})."
        if len(found) > 1:
            others = ", ".join(pod.pod_id for pod in found[1:])
            detail += f" It is the oldest of {len(found)} of that name; the others ({others}) are for the reaper."
        return LookUp(finding=Finding.FOUND, detail=detail, ids=VendorJobIds(request_id=found[0].pod_id))

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:  # noqa: ARG002 (the id is enough)
        """As `JobQueue`. A pod counts as queued until its container runs: RUNNING is said while the image is pulled."""
        doing = f"looking at the pod {ids.request_id}"
        response = self._client.look("GET", _path(ids.request_id), doing, fine=(404, 410))
        if response.status_code in (404, 410):
            return JobStatus(state=VendorState.GONE, message=self._client.words(response))
        pod, has_runtime = read_pod(response, doing)
        state = STATE_OF.get(pod.status, VendorState.UNKNOWN_WORD)
        if state is VendorState.RUNNING and not has_runtime:
            state = VendorState.QUEUED
        is_plain = state in (VendorState.QUEUED, VendorState.RUNNING)
        return JobStatus(state=state, message=None if is_plain else f"RunPod says {self._client.quote(pod.status)!r}")

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:  # noqa: ARG002 (the id is enough)
        """Always `JobFailed` for now: no pod's result can be collected yet.

        What a pod makes is put into our own store by a presigned PUT, and RunPod keeps none of it. The scripts in the
        pod that do so, and the reading of what they put there, come with the trainers.
        """
        raise JobFailed(
            f"The pod {ids.request_id} ended without a result that can be collected: a pod puts what it made into our "
            "own store, and this version does not yet send pods that do. What it cost stands in RunPod's billing."
        )

    def cancel(self, request: VendorRequest, ids: VendorJobIds) -> None:  # noqa: ARG002 (the id is enough)
        """Delete the pod and whatever lies on it; as `JobQueue`."""
        self.delete_pod(ids.request_id)

    def ping(self) -> Ping:
        """One list of pods: free, needs the key, and is what finding and reaping rest on."""
        try:
            list_pods(self._client, "asking whether RunPod answers")
        except OnModelError as error:
            return Ping(is_ready=False, detail=error.message)
        return Ping(is_ready=True, detail="runpod answers and accepts the key")

    # --- files ---

    def upload(self, path: Path, ref: BlobRef) -> str:  # noqa: ARG002 (nothing can be put there)
        """Always `NotConfigured` for now: RunPod keeps no files, and a pod must be given a link of our own store."""
        raise NotConfigured(
            f"RunPod keeps no files, so {ref.file_name} cannot be put there: a pod reads it by a link of our own "
            "store, which this version does not yet hand to pods. Train at fal, or in the sandbox."
        )

    def download(self, file: OutputFile, into: BinaryIO) -> None:  # noqa: ARG002 (nothing lies there)
        """Always `NotConfigured` for now: what a pod made lies in our own store, never at RunPod."""
        raise NotConfigured(
            f"RunPod keeps no files, so the {file.role} cannot be fetched from there: pods put their results into our "
            "own store, which this version does not yet collect."
        )

    # --- machines by the hour, and their price ---

    def pods(self) -> tuple[Pod, ...]:
        """As `PodHost`: every pod that still exists. One that RunPod lists as TERMINATED is deleted for good."""
        return tuple(pod for pod in list_pods(self._client, "listing the pods") if pod.status != "TERMINATED")

    def delete_pod(self, pod_id: str) -> None:
        """As `PodHost`. 204 means deleted, 404 that it was gone (runpod/runpod-mcp #46 reads it so, too)."""
        self._client.look("DELETE", _path(pod_id), f"deleting the pod {pod_id}", fine=(404, 410))

    def usage(self, since: datetime, until: datetime) -> tuple[UsageLine, ...]:
        """As `UsageReader`: one line per pod; `billing.read_usage` says how the span is rounded."""
        return read_usage(self._client, since, until)

    # --- reading refusals ---

    def _refusal(self, name: str, response: httpx.Response, secrets: tuple[str, ...]) -> OnModelError:
        doing = f"ordering the pod {name}"
        account = self._client.account_error(response, doing, secrets)
        if account is not None:
            return account
        said = self._client.words(response, secrets)
        seen = f"{response.status_code}: {said}"
        is_definite = response.status_code in REFUSALS and TRANSIENT not in said.lower()
        if not is_definite:
            return self._lost(name, seen)
        if response.status_code == 400 and any(text in said.lower() for text in NO_CAPACITY):
            return Unavailable(f"RunPod has no such machine free for the pod {name} ({seen}); it is ordered later.")
        if response.status_code == 403:
            return Rejected(
                f"RunPod does not let this account order the pod {name} ({seen}): choose another gpu, cloud or data "
                "centre, or give RUNPOD_API_KEY the right to make pods."
            )
        return Rejected(f"RunPod refused the pod {name} ({seen}): ordering the same again is useless.")

    def _lost(self, name: str, seen: str) -> SubmissionUnknown:
        return SubmissionUnknown(
            f"The pod {name} was ordered and no usable answer came back ({seen}): it may be running and is not ordered "
            "again; it is looked for by its name."
        )


def _body(request: VendorRequest, submission: Submission, name: str) -> tuple[bytes, tuple[str, ...]]:
    """The body to send, and the values in it that no text may show: addresses and variables of the pod."""
    if request.endpoint != PODS:
        raise Rejected(f"RunPod is asked for {request.endpoint!r}: only {PODS!r} can be ordered there.")
    try:
        body: dict[str, Any] = request.with_urls(submission.url_of)
        deadline = deadline_epoch(submission, body)
    except KeyError as missing:
        raise Rejected(f"The file {missing} of the pod {name} has no address: it cannot be ordered.") from None
    except BadInput as wrong:
        raise Rejected(f"The pod {name} cannot be ordered: {wrong.message}") from wrong
    body.pop(HARD_STOP_ARGUMENT, None)
    variables = body.get("env", {})
    if "name" in body or not isinstance(variables, dict) or DEADLINE_VARIABLE in variables:
        raise Rejected(f"The request of the pod {name} sets its name or {DEADLINE_VARIABLE}, or its env is no table.")
    body |= {"name": name, "env": {**variables, DEADLINE_VARIABLE: str(deadline)}}
    try:
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise Rejected(f"The request of the pod {name} is not plain JSON: {error}.") from error
    values = [*submission.url_of.values(), *(value for value in variables.values() if isinstance(value, str))]
    return content, tuple(value for value in values if len(value) >= 8)


def _path(pod_id: str) -> str:
    if POD_ID.fullmatch(pod_id) is None:
        raise BadInput(f"{pod_id!r} is no id of a pod: RunPod's are letters, digits, hyphens and underscores.")
    return f"/pods/{pod_id}"
