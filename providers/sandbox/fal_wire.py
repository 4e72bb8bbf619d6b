"""fal's queue, direct calls and platform API, as the reference describes them (1.4, 1.5, 1.9).

Wrong inputs are accepted here and fail in the runner; keys are judged here. A key that begins with `locked` belongs to
an account without balance: it may look at jobs and buys nothing (fal-ai/fal #1147), one that begins with `invalid` is
unknown.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from providers.sandbox.fal_lists import FalLists
from providers.sandbox.faults import FaultPlan, answer_of, locked_account
from providers.sandbox.journal import Job, Journal, Outcome, Phase
from providers.sandbox.openapi import openapi_document
from providers.sandbox.schemas import issue, load_catalogue
from providers.sandbox.shelf import Shelf
from providers.sandbox.wire import Reply, Request, refusal
from providers.sandbox.work import Workshop

SMALL_RESULT_BYTES = 10 * 1024
LARGE_RESULT_SHARE = 0.1
"""A result of 10 KB or more is kept 6 minutes where a small one is kept an hour (reference 1.4)."""
RUN_GIVE_UP_SECONDS = 3600


class FalQueue:
    """Answers for queue.fal.run, fal.run, api.fal.ai and the schema pages of fal.ai."""

    def __init__(
        self,
        journal: Journal,
        workshop: Workshop,
        shelf: Shelf,
        faults: FaultPlan,
        *,
        keep_result_seconds: float,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._journal = journal
        self._workshop = workshop
        self._shelf = shelf
        self._faults = faults
        self._keep_result_seconds = keep_result_seconds
        self._is_stopping = is_stopping
        self._lock = threading.Lock()
        self._posts: Counter[str] = Counter()
        self._lists = FalLists(journal, faults, lambda request: 0.0 if _is_locked(request) else 100.0)

    def posts(self) -> dict[str, int]:
        """Every submit that arrived since this server started, accepted or not, by endpoint."""
        with self._lock:
            return dict(self._posts)

    def answer_queue(self, request: Request) -> Reply:
        segments = request.segments
        if "requests" not in segments:
            if request.method != "POST" or len(segments) < 2:
                return refusal(405 if len(segments) >= 2 else 404, "Method Not Allowed")
            return self._submit(request, "/".join(segments))
        if refused := refuse_key(request, is_buying=False):
            return refused
        if segments.index("requests") != 2 or not 4 <= len(segments) <= 6:
            # Follow-up addresses carry owner and app only; the whole endpoint there is a known mistake.
            return refusal(405, "Method Not Allowed")
        job = self._journal.find(segments[3])
        action = "/".join(segments[4:])
        if job is None or job.app != "/".join(segments[:2]) or self._is_forgotten(job):
            return refusal(404, "Request not found")
        match request.method, action:
            case "GET", "status":
                return self._status(request, job)
            case "GET", "":
                return self._result(job)
            case "PUT", "cancel":
                return self._cancel(job)
            case _:
                return refusal(405, "Method Not Allowed")

    def answer_run(self, request: Request) -> Reply:
        """The direct call: the same job, and the connection waits for its end."""
        if request.method != "POST":
            return refusal(405, "Method Not Allowed")
        accepted = self._submit(request, "/".join(request.segments))
        if accepted.status != 200 or accepted.is_dropped or not isinstance(accepted.body, bytes):
            return accepted
        request_id = json.loads(accepted.body)["request_id"]
        deadline = time.monotonic() + RUN_GIVE_UP_SECONDS
        job = self._workshop.wait(request_id, lambda: self._is_stopping() or time.monotonic() > deadline)
        if job is None or job.outcome is None:
            return Reply(is_dropped=True)
        return _outcome_reply(job, job.outcome)

    def answer_api(self, request: Request) -> Reply:
        """The platform's own addresses: the balance, the list for lost submits, what was charged."""
        if refused := refuse_key(request, is_buying=False):
            return refused
        return self._lists.answer(request)

    def answer_site(self, request: Request) -> Reply:
        if request.method != "GET" or request.path != "/api/openapi/queue/openapi.json":
            return refusal(404, "Not found")
        catalogue = load_catalogue()
        name = request.query.get("endpoint_id", "")
        fault = self._faults.pick("schema", name)
        if fault is not None and fault.kind != "rename":
            return answer_of(fault)
        endpoint = catalogue.endpoints.get(name)
        if endpoint is None or endpoint.is_neutral:
            return refusal(404, "Endpoint not found")
        if fault is not None:
            old = fault.argument or next(iter(endpoint.fields))
            fields = {f"new_{one}" if one == old else one: spec for one, spec in endpoint.fields.items()}
            endpoint = replace(endpoint, fields=fields)
        return Reply.of(200, openapi_document(endpoint, catalogue))

    def _submit(self, request: Request, endpoint: str) -> Reply:
        with self._lock:
            self._posts[endpoint] += 1
        raw = request.body.read()
        if refused := refuse_key(request, is_buying=True):
            return refused
        fault = self._faults.pick("submit", endpoint)
        is_taken_anyway = fault is not None and fault.kind in ("drop_after_accept", "stall_after_accept", "malformed")
        if fault is not None and not is_taken_anyway:
            return answer_of(fault)
        if not load_catalogue().has_app(endpoint):
            return refusal(404, f"Application {'/'.join(endpoint.split('/')[1:2])!r} not found")
        try:
            body = json.loads(raw)
        except ValueError:
            return Reply.of(422, {"detail": [issue(["body"], "json_invalid", "JSON decode error", {})]})
        try:
            deadline = request.header("X-Fal-Request-Timeout")
            start_within = None if deadline is None else float(deadline)
        except ValueError:
            return refusal(400, "Invalid X-Fal-Request-Timeout header", "bad_request")
        job = self._journal.accept(
            endpoint,
            body,
            is_low_priority=request.header("X-Fal-Queue-Priority") == "low",
            start_within_seconds=start_within,
            faults=tuple(drawn.text for drawn in self._faults.pick_all("job", endpoint)),
        )
        if "fal_webhook" in request.query:
            self._journal.log(job.request_id, "The sandbox sends no webhooks: ask for the status", "WARN")
        self._workshop.add(job)
        if fault is not None:
            return answer_of(fault)
        position = self._workshop.position(job.request_id)
        answer = {"status": "IN_QUEUE", "request_id": job.request_id, **_urls(job), "queue_position": position}
        return Reply.of(200, answer, {"x-fal-request-id": job.request_id})

    def _status(self, request: Request, job: Job) -> Reply:
        fault = self._faults.pick("status", job.endpoint)
        if fault is not None and fault.kind != "unknown_word":
            return answer_of(fault)
        wants_logs = request.query.get("logs", "").lower() in ("true", "1")
        word = str(job.phase) if fault is None else fault.argument or "PAUSED"
        answer: dict[str, Any] = {
            "status": word,
            "request_id": job.request_id,
            **_urls(job),
            "logs": self._journal.logs(job.request_id) if wants_logs else None,
        }
        if job.phase is Phase.IN_QUEUE:
            answer["queue_position"] = self._workshop.position(job.request_id)
        if job.phase is Phase.COMPLETED and job.outcome is not None:
            answer["metrics"] = {"inference_time": (job.ended_at or 0) - (job.started_at or job.ended_at or 0)}
            if job.outcome.error is not None:
                answer["error"] = job.outcome.error
                answer["error_type"] = job.outcome.error_type
        status = 200 if job.phase is Phase.COMPLETED else 202
        return Reply.of(status, answer, {"x-fal-request-id": job.request_id})

    def _result(self, job: Job) -> Reply:
        if fault := self._faults.pick("result", job.endpoint):
            return answer_of(fault)
        if job.outcome is None:
            # What fal answers here is unconfirmed (reference 5.2); a client should not come before COMPLETED.
            return refusal(400, "Request is still in progress")
        # What ran out by `file:expire_once` is still there, under a new address.
        return _outcome_reply(job, replace(job.outcome, body=self._shelf.with_fresh_urls(job.outcome.body)))

    def _cancel(self, job: Job) -> Reply:
        fault = self._faults.pick("cancel", job.endpoint)
        if fault is not None and fault.kind == "ignore":
            return Reply.of(202, {"status": "CANCELLATION_REQUESTED"})
        if fault is not None:
            return answer_of(fault)
        if self._workshop.cancel(job.request_id):
            return Reply.of(202, {"status": "CANCELLATION_REQUESTED"})
        return Reply.of(400, {"status": "ALREADY_COMPLETED"})

    def _is_forgotten(self, job: Job) -> bool:
        if job.ended_at is None or job.outcome is None:
            return False
        is_large = job.outcome.size_bytes >= SMALL_RESULT_BYTES
        kept = self._keep_result_seconds * (LARGE_RESULT_SHARE if is_large else 1)
        return time.time() - job.ended_at > kept


def _outcome_reply(job: Job, outcome: Outcome) -> Reply:
    headers = {"x-fal-request-id": job.request_id, **outcome.headers}
    if outcome.status >= 400:
        headers["X-Fal-Retryable"] = "true" if outcome.status in (503, 504) else "false"
    return Reply.of(outcome.status, outcome.body, headers)


def _urls(job: Job) -> dict[str, str]:
    base = f"https://queue.fal.run/{job.app}/requests/{job.request_id}"
    return {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}


def refuse_key(request: Request, *, is_buying: bool) -> Reply | None:
    """The refusal that this request's key deserves, or None."""
    scheme, _, key = (request.header("Authorization") or "").partition(" ")
    if scheme != "Key" or not key.strip() or key.startswith("invalid"):
        return refusal(401, "Authentication is required to access this application.")
    if is_buying and _is_locked(request):
        return locked_account()
    return None


def _is_locked(request: Request) -> bool:
    return (request.header("Authorization") or "").startswith("Key locked")
