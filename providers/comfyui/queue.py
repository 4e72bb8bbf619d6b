"""ComfyUI's queue: submit once under our own prompt id, look it up, look at it, stop it.

Wire protocol: replicate_comfyui.md 3.1–3.3 (ComfyUI 0.3.64, run) and server.py of Comfy-Org/ComfyUI at 002c3fb (read
2026-11-20). Outcomes are read in `history.py`.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import httpx

from domain.errors import (
    BadInput,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    Rejected,
    Retryable,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import VendorJobIds, VendorRequest
from domain.records import Record
from domain.submissions import AbsenceRule, Finding, LookUp, Submission
from providers.comfyui.checking import NodeChecker
from providers.comfyui.client import ComfyUiClient
from providers.comfyui.injecting import OUR_PREFIX, Graph, check_api_format
from providers.comfyui.listening import Listeners
from providers.comfyui.lora_nodes import PASSES_ON
from providers.comfyui.placing import check_base
from providers.vendor_ports import Ping
from providers.vendor_words import json_of
from providers.web import NEVER_SENT

OUR_IDS = uuid.UUID("6f6e6d6f-6465-4c00-8000-636f6d667975")
"""The namespace our prompt ids are derived in; never changed, or lost jobs could not be found again."""

OLDEST_VERSION = (0, 3, 64)
"""The oldest version seen to keep a prompt id of ours (replicate_comfyui.md 3.1, run). One that gives ids of its own
would make every look-up say "absent"."""

LOOKS = 3
LOOKS_SECONDS_APART = 5.0
PROMPT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
MAYBE_TAKEN = (408, 409)
MOVED = (301, 307, 308)
"""Redirects that mean "send it there", not "it is done, look there"."""


class QueueLook(Record):
    """One look at the queue: prompt ids, the waiting ones in the order in which they will run."""

    running: tuple[str, ...]
    waiting: tuple[str, ...]

    def __contains__(self, prompt_id: str) -> bool:
        return prompt_id in self.running or prompt_id in self.waiting


class ComfyUiQueue:
    """The part of `JobQueue` that is about being in the queue."""

    def __init__(self, client: ComfyUiClient, listeners: Listeners) -> None:
        self._client = client
        self._checker = NodeChecker(client)
        self._listeners = listeners
        self.absence = absence_rule(client.http.timeout)

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        """One POST of the node graph under our own prompt id, never repeated.

        Before it, the graph is held against the server's own nodes and its LoRAs against the workflow's base: what
        fails there is `Rejected`, and nothing was sent. A web socket is opened for the job where the server has one.

        A 200 with node errors means that ComfyUI dropped one branch and queued the rest. That is no job of ours: it is
        taken out of the queue again, and only when a look then shows it gone the answer is `Rejected`. Otherwise it is
        `SubmissionUnknown`: the look-up finds it, and it ends as a cancelled job or with what is left of it.
        """
        prompt_id = prompt_id_of(submission)
        graph = _graph(request, submission, prompt_id)
        _body(graph, prompt_id)  # plain JSON, or nobody is asked anything
        _check_loras(graph, request.arguments.get("base_model"))
        graph = self._checker.checked(graph, _filled(request))
        body = _body(graph, prompt_id)
        self._listeners.begin(prompt_id, graph)
        try:
            return self._post(prompt_id, body)
        except OnModelError:
            self._listeners.end(prompt_id)
            raise

    def _post(self, prompt_id: str, body: bytes) -> VendorJobIds:
        try:
            response = self._client.send("POST", "/prompt", content=body, headers={"Content-Type": "application/json"})
        except NEVER_SENT as error:
            raise Unavailable(
                f"The job {prompt_id} was not sent, {self._client.place} could not be reached "
                f"({self._client.failure(error)}): send it later."
            ) from error
        except Exception as error:
            # Whatever else broke, it broke after the request began to leave.
            raise self._lost(prompt_id, self._client.failure(error)) from error
        if not response.is_success:
            raise self._submit_error(prompt_id, response)
        answer = json_of(response)
        given = answer.get("prompt_id") if isinstance(answer, dict) else None
        if not isinstance(given, str) or not PROMPT_ID.fullmatch(given):
            raise self._lost(prompt_id, f"{response.status_code} without a readable prompt_id")
        if answer.get("node_errors"):
            raise self._take_back(given, self._reasons(answer))
        return VendorJobIds(request_id=given)

    def look_up(self, submission: Submission) -> LookUp:
        """Is the prompt id of this submission in the queue or the history? It is ours alone, so never unclear."""
        prompt_id = prompt_id_of(submission)
        ids = VendorJobIds(request_id=prompt_id)
        if prompt_id in self.look():
            return LookUp(finding=Finding.FOUND, ids=ids, detail=f"{self._client.place} has {prompt_id} in its queue.")
        if self.history(prompt_id) is not None:
            return LookUp(finding=Finding.FOUND, ids=ids, detail=f"{self._client.place} has worked on {prompt_id}.")
        if prompt_id in self.look():  # it may have arrived since the first look
            return LookUp(finding=Finding.FOUND, ids=ids, detail=f"{self._client.place} has just queued {prompt_id}.")
        detail = f"Neither the queue nor the history of {self._client.place} knows {prompt_id}."
        return LookUp(finding=Finding.ABSENT, detail=detail)

    def look(self) -> QueueLook:
        """What is running and waiting. `Unavailable` when the answer is not a queue: it never counts as empty."""
        answer = self._client.look("/queue")
        try:
            running = [_entry(item) for item in answer["queue_running"]]
            waiting = sorted(_entry(item) for item in answer["queue_pending"])  # ComfyUI shows a heap, not an order
        except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
            raise Unavailable(
                f"{self._client.place} showed a queue that cannot be read; it can be asked again."
            ) from error
        return QueueLook(running=tuple(name for _, name in running), waiting=tuple(name for _, name in waiting))

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The history's entry of a job that is over; None when it has none. It is lost when ComfyUI restarts."""
        answer = self._client.look(f"/history/{_in_path(prompt_id)}")
        entry = answer.get(prompt_id) if isinstance(answer, dict) else None
        if answer != {} and not isinstance(entry, dict):
            raise Unavailable(f"{self._client.place} showed a history that cannot be read; it can be asked again.")
        return entry

    def cancel(self, prompt_id: str) -> None:
        """Take it out of the queue; interrupt it when, and only when, it is the one that runs.

        Older servers interrupt whatever runs, whosever it is (replicate_comfyui.md 3.3). Deleted first: if it began to
        run meanwhile, the look shows it.
        """
        doing = f"cancelling the job {prompt_id}"
        self._client.ask("POST", "/queue", doing, json={"delete": [prompt_id]})
        if prompt_id in self.look().running:
            self._client.ask("POST", "/interrupt", doing, json={"prompt_id": prompt_id})

    def ping(self) -> Ping:
        """Ask for the server's version."""
        try:
            answer = self._client.look("/system_stats")
        except Retryable as error:
            return Ping(is_ready=False, detail=error.message)
        system = answer.get("system") if isinstance(answer, dict) else None
        version = system.get("comfyui_version") if isinstance(system, dict) else None
        if not isinstance(version, str):
            return Ping(is_ready=False, detail=f"What answers as {self._client.place} names no ComfyUI version.")
        numbers = tuple(int(part) for part in re.findall(r"\d{1,6}", version)[:3])
        if numbers < OLDEST_VERSION:
            oldest = ".".join(map(str, OLDEST_VERSION))
            detail = f"{self._client.place} is version {self._client.quote(version)}: update it to {oldest} or newer."
            return Ping(is_ready=False, detail=detail)
        return Ping(is_ready=True, detail=f"{self._client.place} answers, version {self._client.quote(version)}")

    # --- reading refusals ---

    def _submit_error(self, prompt_id: str, response: httpx.Response) -> OnModelError:
        code, place = response.status_code, self._client.place
        match code:
            case 429:
                return self._client.slow_down(response, f"sending the job {prompt_id}")
            case 401 | 403:
                return NotConfigured(
                    f"{place} did not let us in ({code}): correct the user and password in ONMODEL_COMFYUI_URL."
                )
            case 402:
                return OutOfCredit(f"{place} asks to be paid (402: {self._client.words(response)}): see its account.")
            case 404 | 405:
                return NotConfigured(
                    f"{place} takes no jobs ({code}): is ONMODEL_COMFYUI_URL the address of a ComfyUI?"
                )
            case _ if code in MOVED:
                return NotConfigured(f"{place} has moved ({code}): write its new address into ONMODEL_COMFYUI_URL.")
            case _ if 400 <= code < 500 and code not in MAYBE_TAKEN:
                answer = json_of(response)
                said = self._reasons(answer) if isinstance(answer, dict) else self._client.words(response)
                return Rejected(f"{place} refused the workflow ({code}: {said}): mend the workflow or what it names.")
            case _:
                # 500 too: ComfyUI's own for unreadable JSON cannot be told from a proxy's after the job was taken.
                return self._lost(prompt_id, f"{code}: {self._client.words(response)}")

    def _take_back(self, prompt_id: str, reasons: str) -> OnModelError:
        half = f"{self._client.place} dropped a part of the workflow ({reasons}) and queued the rest"
        try:
            self.cancel(prompt_id)
            is_there = prompt_id in self.look()
        except Retryable as error:
            return SubmissionUnknown(
                f"{half} as {prompt_id}, which could not be taken back ({error.message}): its queue and history tell."
            )
        if is_there:
            return SubmissionUnknown(
                f"{half} as {prompt_id}, which was told to stop and has not yet: look for it again."
            )
        return Rejected(f"{half}, which was taken back: mend the workflow or what it names.")

    def _lost(self, prompt_id: str, seen: str) -> SubmissionUnknown:
        return SubmissionUnknown(
            f"The job {prompt_id} was sent to {self._client.place} and no usable answer came back ({seen})."
        )

    def _reasons(self, answer: dict[str, Any]) -> str:
        """Why ComfyUI refused, from `error` (a record, in old versions a text) and every node's errors."""
        error = answer.get("error")
        parts = [_joined(error, "message", "details") if isinstance(error, dict) else str(error or "")]
        nodes = answer.get("node_errors")
        for node_id, node in nodes.items() if isinstance(nodes, dict) else ():
            kind, errors = (node.get("class_type"), node.get("errors")) if isinstance(node, dict) else (None, None)
            parts += [
                f"node {node_id} ({kind}): {_joined(item, 'message', 'details')}"
                for item in (errors if isinstance(errors, list) else ())
                if isinstance(item, dict)
            ]
        return self._client.quote("; ".join(part for part in parts if part)) or "without a reason"


def absence_rule(timeout: httpx.Timeout) -> AbsenceRule:
    """When a prompt id that neither queue nor history knows proves that the job does not exist.

    The POST is over for us after pool + connect + write + read seconds. A server or proxy that still holds it then gets
    as long again as we waited for the answer, because ComfyUI finishes a request whose sender has hung up: with the
    timeouts of the product (15 + 15 + 60 + 60) the first look counts 210 s after the POST. Our choice, as are three
    looks 5 s apart. What it does not cover: a request that a broken network delivers later still.
    """
    parts = (timeout.pool, timeout.connect, timeout.write, timeout.read, timeout.read)
    if None in parts:
        return AbsenceRule(can_prove=False, reason="A POST without time limits may arrive at any time.")
    return AbsenceRule(
        can_prove=True,
        reason=(
            "The job was sent under a prompt id of our own, and ComfyUI has every job it took in its queue or its "
            "history. Both are lost when ComfyUI restarts, and a person can clear them: then the job is not running "
            "either, but if it had finished its files still lie in ComfyUI's output folder, and it is made once more."
        ),
        looks=LOOKS,
        after_seconds=sum(part for part in parts if part is not None),
        seconds_apart=LOOKS_SECONDS_APART,
    )


def prompt_id_of(submission: Submission) -> str:
    """Our own prompt id of one POST: the same in every process, another for every POST.

    A canonical lower-case UUID, because newer servers take nothing else (replicate_comfyui.md 3.1).
    """
    return str(uuid.uuid5(OUR_IDS, f"{submission.installation}:{submission.job_key}:{submission.number}"))


def _graph(request: VendorRequest, submission: Submission, prompt_id: str) -> Graph:
    """The graph as it is sent: the files' names at the server in it, and this job's own beginning of file names."""
    try:
        workflow = request.with_urls(submission.url_of).get("workflow")
    except KeyError as missing:
        raise BadInput(f"The file {missing} of {prompt_id} is not at ComfyUI: upload it before submitting.") from None
    graph = check_api_format(workflow, f"of the job {prompt_id}")
    for node in graph.values():
        for field, value in node["inputs"].items():
            if value == OUR_PREFIX:
                node["inputs"][field] = f"onmodel/{prompt_id}"
    return graph


def _body(graph: Graph, prompt_id: str) -> bytes:
    try:
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": prompt_id}
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BadInput(f"The workflow of {prompt_id} is not plain JSON: {error}.") from error


def _check_loras(graph: Graph, base_model: Any) -> None:
    """`Rejected` for a LoRA that was placed as one of another base than the workflow's."""
    if not isinstance(base_model, str):
        return
    for node in graph.values():
        name = node["inputs"].get("lora_name")
        if node["class_type"] in PASSES_ON and isinstance(name, str):
            check_base(name, base_model)


def _filled(request: VendorRequest) -> list[tuple[str, str]]:
    places = request.arguments.get("filled")
    return [(place[0], place[1]) for place in (places if isinstance(places, list) else ())]


def _entry(item: Any) -> tuple[float, str]:
    """Priority and prompt id of a queue's item `[number, prompt_id, …]`."""
    number, prompt_id = item[0], item[1]
    if not isinstance(item, list) or not isinstance(prompt_id, str):
        raise TypeError("no item of a queue")
    return float(number), prompt_id


def _in_path(prompt_id: str) -> str:
    """An id that was a server's word once: nothing in it may lead elsewhere."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", prompt_id)


def _joined(record: dict[str, Any], *names: str) -> str:
    return ": ".join(str(record[name]) for name in names if record.get(name))
