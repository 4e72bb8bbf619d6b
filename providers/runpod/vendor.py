"""RunPod as a vendor: a training is a pod, made once, found again by its name, and ended by deleting it.

The pod's worker (providers/trainers/worker.py) fetches the data and leaves what it made in our own store, by links that
are signed for it alone: RunPod keeps no file, and the pod holds no key of ours.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import httpx
from pydantic import SecretStr

from domain.errors import (
    BadInput,
    JobFailed,
    NotConfigured,
    OnModelError,
    Rejected,
    ResultExpired,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import BlobRef, JobOutput, JobStatus, OutputFile, VendorJobIds, VendorRequest, VendorState
from domain.pods import pod_name
from domain.registry import Registry
from domain.submissions import AbsenceRule, Finding, LookUp, Submission
from domain.vendors import is_stand_in
from providers.blobs.handover import plain_name
from providers.ports import Clock
from providers.runpod.billing import read_usage
from providers.runpod.catalogue import candidates, read_catalogue
from providers.runpod.client import BASE_URL, RunPodClient, json_of, read_usd
from providers.runpod.life import PodTicket, billed_usd, judge, read_ticket, ticket_of
from providers.runpod.listing import POD_ID, PodLook, list_pods, oldest_first, read_pod
from providers.runpod.orders import (
    LOG_NAME,
    STATUS_NAME,
    PodOrder,
    plan_of,
    pod_body,
    pod_request,
    read_order,
)
from providers.trainers.machine_orders import stored_name
from providers.trainers.worker_job import StatusFile, WorkerStatus, read_status
from providers.vendor_ports import Handover, Ping, Pod, TrainingOrder, UsageLine
from providers.web import NEVER_SENT

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

ABOUT_THE_MACHINE = (400, 403)
"""By the same specification the next candidate is worth asking for: a broken rule will be refused for each of them."""

TRANSIENT = "something went wrong"

BILLS_NOTHING = ("EXITED", "TERMINATED")
"""Without a mount a stopped pod costs nothing (runpod_trainers.md 5.4), and ours have none."""

POST_DEADLINE_SECONDS = 180.0
"""After this a POST has arrived or never will: 15 s for a connection from the pool, 15 s to connect, 60 s to write and
60 s to read (`open_http`), and half a minute on RunPod's side."""


UPLOAD_LIVES = timedelta(hours=36)
"""The door sends an address again for half a day (`tasks.jobs.UPLOADS_KEPT_FOR`), and a pod that is started again reads
it once more."""

HEARTBEAT_SECONDS = 30.0
"""As often as issue and reference have it (runpod_trainers.md 5.1)."""
REHEARSED_HEARTBEAT_SECONDS = 0.5
"""A rehearsed training takes seconds, and is to be seen at work too."""

_MEDIA_TYPES = {"log": "text/plain", "json": "application/json", "yaml": "text/plain", "toml": "text/plain"}


class RunPodVendor:
    """`LoraTrainer`, `JobVendor`, `PodHost` and `UsageReader` over RunPod's REST v2, as far as pods go.

    Requests are those of `training_request` (endpoint "pods"). `handover` is where pods read and leave files;
    `hugging_face_secret` names a secret at RunPod that holds a token for gated bases. One account belongs to one
    ledger: another ledger's reaper would take its pods for orphans. `counts_hours` False settles jobs at their estimate
    instead of their pods' hours, for a rehearsal, whose machines take seconds. Safe to share between threads.
    """

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

    def __init__(
        self,
        http: httpx.Client,
        key: SecretStr,
        registry: Registry,
        *,
        handover: Handover,
        clock: Clock,
        name: str = "runpod",
        base_url: str = BASE_URL,
        hugging_face_secret: str | None = None,
        counts_hours: bool = True,
    ) -> None:
        self.vendor = name
        self._client = RunPodClient(http, key, base_url)
        self._registry = registry
        self._handover = handover
        self._clock = clock
        self._hugging_face_secret = hugging_face_secret
        self._counts_hours = counts_hours

    def __repr__(self) -> str:
        return f"RunPodVendor(name={self.vendor!r})"

    # --- writing requests ---

    def training_request(self, order: TrainingOrder) -> VendorRequest:
        """As `LoraTrainer`, for trainers of the registry that are a program on a rented machine."""
        return pod_request(self._registry, order, self.vendor)

    # --- the queue ---

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """One POST that makes the pod, after one look at the catalogue; as `JobQueue`.

        The nth POST of a job asks for the nth GPU that may be free under the price cap, and again from the first, so
        that a refusal for want of machines moves on to the next. There is no idempotency key,
        and a 500 was seen with the pod already running and billing (transformerlab-app #2305): so whatever is not a
        plain refusal counts as a lost answer, and the name finds the pod again.
        """
        name, order = pod_name(submission), read_order(request)
        catalogue = read_catalogue(self._client)
        possible = candidates(catalogue, order.gpus, cap=order.cap_usd, min_cuda_version=order.min_cuda_version)
        gpu = possible[(submission.number - 1) % len(possible)]
        # The machine's deadline counts by RunPod's clock: ours may be wrong, and its worker would stop at once.
        timed = submission.model_copy(update={"sent_at": catalogue.read_at or submission.sent_at})
        content, secrets = pod_body(
            self._registry,
            order,
            timed,
            name=name,
            gpu=gpu,
            handover=self._handover,
            hugging_face_secret=self._hugging_face_secret,
            heartbeat_seconds=REHEARSED_HEARTBEAT_SECONDS if is_stand_in(self.vendor) else HEARTBEAT_SECONDS,
        )
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
            raise self._refusal(name, response, secrets, has_others=submission.number < len(possible))
        answer = json_of(response)
        pod_id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(pod_id, str) or POD_ID.fullmatch(pod_id) is None:
            raise self._lost(name, f"{response.status_code} without a readable id")
        price = read_usd(answer.get("cost")) or gpu.usd_per_hour
        return PodTicket(pod_id=pod_id, name=name, usd_per_hour=price).ids()

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
        return LookUp(finding=Finding.FOUND, detail=detail, ids=ticket_of(found[0]).ids())

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:
        """As `JobQueue`: what the pod's worker last told, and where that is not final, what RunPod shows of the pod."""
        return self._look(read_order(request), ids)[0]

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        """As `JobQueue`; the pod is deleted before anything is returned or raised, and its whole life is charged.

        `JobFailed` with what it cost where it ended without a result, `ResultExpired` where RunPod has no such pod and
        it left none, `Unavailable` while it still trains or cannot be deleted. Repeatable.
        """
        order = read_order(request)
        status, ticket, look, told = self._look(order, ids)
        if status.state in (VendorState.QUEUED, VendorState.RUNNING, VendorState.UNKNOWN_WORD):
            raise Unavailable(f"The pod {ids.request_id} is still at work; its result can be asked for later.")
        if look is None:
            look = self._seen(ids.request_id)  # a worker's word came first: is its machine really gone?
        if look is not None:
            self._end(ids.request_id)
        billed = None
        if ticket is not None and self._counts_hours:
            billed = billed_usd(ticket, look, told, cap=order.cap_usd)
        whom = f"The pod {ids.request_id}"
        if status.state is VendorState.GONE:
            raise ResultExpired(f"{whom} is gone, and it left no result.")
        if status.state is not VendorState.DONE or ticket is None or told is None:
            raise JobFailed(f"{whom} ended without a result: {status.message or 'it does not say why'}", billed)
        files = {file.role: file for file in told.files}
        results = [(one.role, stored_name(one), one.is_required) for one in plan_of(self._registry, order).results]
        missing = [role for role, _, is_required in results if is_required and role not in files]
        if missing:
            raise JobFailed(f"{whom} says it is done and left no {' and no '.join(missing)}.", billed)
        results.append(("log", LOG_NAME, False))
        kept = tuple(_output_file(ticket.name, name, files[role]) for role, name, _ in results if role in files)
        return JobOutput(files=kept, billed_usd=billed)

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

    def upload(self, path: Path, ref: BlobRef) -> str:
        """A link of our own store, as `FileHost`: RunPod keeps no files."""
        return self._handover.read_link(path, ref, UPLOAD_LIVES)

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """A file the pod left, as `FileHost`; `JobFailed` when its bytes are not those its worker spoke of."""
        parts = urlsplit(file.url)
        wanted = parse_qs(parts.query).get("sha256", [""])[0]
        if parts.scheme != "handover" or not parts.netloc:
            raise ResultExpired(f"The {file.role} has no address in a handover of ours ({parts.scheme!r}).")
        digest = _Digest(into)
        self._handover.fetch(parts.netloc, parts.path.strip("/"), digest)  # type: ignore[arg-type]
        if digest.hexdigest() != wanted:
            raise JobFailed(
                f"The {file.role} of the pod {parts.netloc} is not what its worker put there: its SHA-256 differs."
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
        if not self._counts_hours:
            raise NotConfigured("A rehearsed machine takes seconds, not hours: what it cost cannot be compared.")
        return read_usage(self._client, since, until)

    # --- looking ---

    def _look(
        self, order: PodOrder, ids: VendorJobIds
    ) -> tuple[JobStatus, PodTicket | None, PodLook | None, WorkerStatus | None]:
        ticket = read_ticket(ids)
        told = self._told(ticket)
        look = None if told is not None and told.is_final else self._seen(ids.request_id)
        if ticket is None and look is not None:
            ticket = ticket_of(look.pod)
            told = self._told(ticket)
        elif look is None and told is not None and not told.is_final:
            told = self._told(ticket)  # it may have come to its end, and removed itself, between the two looks
        status = judge(look, told, hard_stop=timedelta(seconds=order.hard_stop_seconds))
        return status, ticket, look, told

    def _told(self, ticket: PodTicket | None) -> WorkerStatus | None:
        told = read_status(self._handover.read(ticket.name, STATUS_NAME)) if ticket is not None else None
        return told if told is not None and ticket is not None and told.job == ticket.name else None

    def _seen(self, pod_id: str) -> PodLook | None:
        doing = f"looking at the pod {pod_id}"
        response = self._client.look("GET", _path(pod_id), doing, fine=(404, 410))
        if response.status_code in (404, 410):
            return None
        look = read_pod(response, doing)
        # Ours counts only where RunPod does not say what time it is.
        return look if look.seen_at is not None else look.model_copy(update={"seen_at": self._clock.now()})

    def _end(self, pod_id: str) -> None:
        """Delete the pod; where that is refused, stop it, which ends its costs too, and leave it to the reaper."""
        try:
            self.delete_pod(pod_id)
        except (NotConfigured, Unavailable) as refusal:
            if self._client.send_action(pod_id, "stop"):
                return
            look = self._seen(pod_id)  # it may have stopped itself
            if look is not None and look.pod.status not in BILLS_NOTHING:
                raise refusal from None

    # --- reading refusals ---

    def _refusal(
        self, name: str, response: httpx.Response, secrets: tuple[str, ...], *, has_others: bool
    ) -> OnModelError:
        """`has_others`: whether a next POST would ask for a machine that was not asked for yet."""
        doing = f"ordering the pod {name}"
        account = self._client.account_error(response, doing, secrets)
        if account is not None:
            return account
        said = self._client.words(response, secrets)
        code = response.status_code
        seen = f"{code}: {said}"
        is_definite = code in REFUSALS and TRANSIENT not in said.lower()
        if not is_definite:
            return self._lost(name, seen)
        is_short = code == 400 and any(text in said.lower() for text in NO_CAPACITY)
        if is_short or (has_others and code in ABOUT_THE_MACHINE):
            return Unavailable(f"RunPod has no such machine for the pod {name} ({seen}); another one is ordered.")
        if code == 403:
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


class _Digest:
    """Writes on into a stream, and takes the SHA-256 of what went by."""

    def __init__(self, into: BinaryIO) -> None:
        self._into, self._digest = into, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._into.write(data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _output_file(box: str, name: str, file: StatusFile) -> OutputFile:
    facts = urlencode({"sha256": file.sha256})
    return OutputFile(
        role=file.role,
        url=f"handover://{box}/{quote(name)}?{facts}",
        content_type=_MEDIA_TYPES.get(name.rpartition(".")[2], "application/octet-stream"),
        file_name=plain_name(file.name),
        size_bytes=file.size_bytes,
    )


def _path(pod_id: str) -> str:
    if POD_ID.fullmatch(pod_id) is None:
        raise BadInput(f"{pod_id!r} is no id of a pod: RunPod's are letters, digits, hyphens and underscores.")
    return f"/pods/{pod_id}"
