"""The stand-in of Replicate: api.replicate.com and replicate.delivery, as the reference describes them (1.1, 1.2, 2.3).

Tokens are judged here: one that begins with `invalid` is unknown, with `locked` has no credit, with `poor` has under
5 USD left, so that it may make one job in ten seconds. Inputs are judged before anything is made; LoRA addresses when
a job runs, as the models' loaders do. What the real one answers where nothing is confirmed: a missing destination
(422 here), unknown keys in an input (422 here), a stopped job that had not begun (`canceled` here).
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

from providers.sandbox.fal_storage import FalStorage
from providers.sandbox.faults import Fault
from providers.sandbox.journal import Job, Outcome, Phase
from providers.sandbox.parts import Stage
from providers.sandbox.replicate_answers import answer_of, problem, throttled
from providers.sandbox.replicate_files import ReplicateFileStore, delivery_reply, local_address
from providers.sandbox.replicate_jobs import JobRecord, RecordBook, shown_job
from providers.sandbox.replicate_models import PlayedModel, check_input, neutral_job, openapi_of, played_models
from providers.sandbox.replicate_models import refused_address as refused_lora
from providers.sandbox.wire import Reply, Request
from providers.sandbox.work import faults_of

API_HOST = "api.replicate.com"
DELIVERY_HOST = "replicate.delivery"
REPLICATE_HOSTS = frozenset({API_HOST, DELIVERY_HOST})
API = f"https://{API_HOST}/v1"

PAGE_SIZE = 100
POOR_EVERY_SECONDS = 10.0
SHORTEST_DEADLINE_SECONDS = 5
TAKEN_ANYWAY = ("drop_after_accept", "stall_after_accept", "malformed")
BODY_KEYS = frozenset({"input", "webhook", "webhook_events_filter", "stream"})
HARDWARE = ("cpu", "gpu-t4", "gpu-l40s", "gpu-a100-large", "gpu-h100", "gpu-h200")


class ReplicatePart:
    """`Part` that plays Replicate. Outputs are kept for `keep_seconds`; a list's page has `page_size` jobs."""

    hosts = REPLICATE_HOSTS

    def __init__(self, stage: Stage, *, keep_seconds: float = 3600.0, page_size: int = PAGE_SIZE) -> None:
        folder = stage.folder / "replicate"
        self._stage = stage
        self._book = RecordBook(folder)
        self._files = ReplicateFileStore(stage.shelf, stage.faults, folder)
        self._storage = FalStorage(stage.shelf, stage.faults, stage.folder / "secret")
        self._keep_seconds = keep_seconds
        self._page_size = page_size
        self._lock = threading.Lock()
        self._posts: Counter[str] = Counter()
        self._poor_since: dict[str, float] = {}

    def posts(self) -> dict[str, int]:
        """Every create that arrived since this server started, accepted or not, by the model's name."""
        with self._lock:
            return dict(self._posts)

    def start(self) -> None:
        """The workshop takes up unfinished jobs by itself."""

    def stop(self) -> None:
        """Nothing runs here."""

    def answer(self, request: Request) -> Reply:
        if request.host == DELIVERY_HOST:
            return delivery_reply(request, self._storage)
        segments = request.segments
        if segments[:1] != ["v1"]:
            return problem(404, "Not found", "There is no such address.")
        if refused := self._refused_token(request):
            return refused
        match request.method, segments[1:]:
            case "GET", ["account"]:
                return Reply.of(200, {"type": "user", "username": "sandbox", "name": "Sandbox", "github_url": None})
            case "GET", ["hardware"]:
                return Reply.of(200, [{"sku": sku, "name": sku} for sku in HARDWARE])
            case "GET", ["webhooks", "default", "secret"]:
                # Always the same: it signs nothing, because the sandbox sends no webhooks.
                return Reply.of(200, {"key": f"whsec_{base64.b64encode(b'onmodel-sandbox-webhooks').decode()}"})
            case _, ["files", *rest]:
                return self._files.answer(request, rest)
            case "POST", ["predictions"]:
                return self._create_by_version(request)
            case "POST", ["models", owner, name, "predictions"]:
                return self._create_official(request, f"{owner}/{name}")
            case "POST", ["models", owner, name, "versions", version, "trainings"]:
                return self._create_training(request, f"{owner}/{name}", version)
            case "POST", ["models"]:
                return self._create_model(request)
            case "GET", ["models", owner, name]:
                return self._show_model(f"{owner}/{name}")
            case "GET", ["models", owner, name, "versions", version]:
                return self._show_version(f"{owner}/{name}", version)
            case "GET", [("predictions" | "trainings") as kind]:
                return self._list(request, kind)
            case "GET", [("predictions" | "trainings") as kind, job_id]:
                return self._show(kind, job_id)
            case "POST", [("predictions" | "trainings") as kind, job_id, "cancel"]:
                return self._cancel(kind, job_id)
            case _:
                return problem(404, "Not found", "There is no such address.")

    # --- creating ---

    def _create_official(self, request: Request, name: str) -> Reply:
        model = played_models().get(name)
        self._count(name)
        if model is None or not model.is_official or model.makes == "train":
            return problem(404, "Not found", "The requested resource could not be found.")
        return self._create(request, model, BODY_KEYS)

    def _create_by_version(self, request: Request) -> Reply:
        body = _body_of(request)
        wanted = body.get("version") if body is not None else None
        name, _, version = wanted.partition(":") if isinstance(wanted, str) else ("", "", "")
        by_version = {model.version: model for model in played_models().values()}
        model = by_version.get(version or name) if version or "/" not in name else played_models().get(name)
        self._count(model.name if model is not None else str(wanted))
        is_known = model is not None and model.makes != "train" and (version or "/" not in name or model.is_official)
        if model is None or not is_known or (version and name != model.name):
            detail = "The specified version does not exist (or perhaps you don't have permission to use it?)"
            return problem(422, "Invalid version or not permitted", detail)
        return self._create(request, model, BODY_KEYS | {"version"}, body)

    def _create_training(self, request: Request, name: str, version: str) -> Reply:
        model = played_models().get(name)
        self._count(name)
        if model is None or model.makes != "train":
            return problem(404, "Not found", "The requested resource could not be found.")
        if version != model.version:
            return problem(422, "Invalid version or not permitted", "The specified version does not exist.")
        body = _body_of(request)
        destination = body.get("destination") if body is not None else None
        if not isinstance(destination, str) or not self._book.has_model(destination):
            detail = "The specified training destination does not exist"
            wrong = [{"type": "invalid", "field": "destination", "description": detail}]
            return problem(422, "Invalid destination", detail, invalid_fields=wrong)
        return self._create(request, model, BODY_KEYS | {"destination"}, body)

    def _create(
        self, request: Request, model: PlayedModel, keys: frozenset[str], body: dict[str, Any] | None = None
    ) -> Reply:
        body = _body_of(request) if body is None else body
        if refused := self._refused_buyer(request):
            return refused
        fault = self._stage.faults.pick("submit", model.name)
        if fault is not None and fault.kind not in TAKEN_ANYWAY:
            return answer_of(fault)
        if body is None:
            return problem(400, "Bad request", "The body is not valid JSON.")
        unknown = [f"Additional property {name} is not allowed" for name in body if name not in keys]
        values, wrong = check_input(model, body.get("input"))
        wrong += [{"type": "additional_property_not_allowed", "field": "", "description": text} for text in unknown]
        if wrong:
            detail = "".join(f"- {item['field']}: {item['description']}\n" for item in wrong)
            return problem(422, "Input validation failed", detail, invalid_fields=wrong)
        seconds = _deadline_seconds(request.header("Cancel-After"))
        if seconds is not None and seconds < SHORTEST_DEADLINE_SECONDS:
            return problem(422, "Invalid deadline", "Cancel-After must be at least 5 seconds.")
        record = self._accept(model, body, values, seconds)
        if fault is not None:
            return answer_of(fault)
        return Reply.of(201, self._shown(record))

    def _accept(
        self, model: PlayedModel, body: dict[str, Any], values: dict[str, Any], seconds: float | None
    ) -> JobRecord:
        endpoint, given = neutral_job(model, values, local_address)
        drawn = tuple(fault.text for fault in self._stage.faults.pick_all("job", model.name))
        job = self._stage.journal.accept(endpoint, given, faults=drawn, start_within_seconds=seconds)
        record = self._book.keep(
            kind="trainings" if model.makes == "train" else "predictions",
            model=model.name,
            version="hidden" if model.is_official else model.version,
            input=body["input"],
            destination=body.get("destination"),
            request_id=job.request_id,
            created_at=job.accepted_at,
        )
        if refused := refused_lora(model, values):
            self._stage.journal.finish(job.request_id, Outcome(422, {"detail": refused}, refused))
            return record
        if "webhook" in body:
            self._stage.journal.log(job.request_id, "The sandbox sends no webhooks: ask for the status", "WARN")
        self._stage.workshop.add(job)
        return record

    def _create_model(self, request: Request) -> Reply:
        body = _body_of(request) or {}
        missing = [name for name in ("owner", "name", "visibility", "hardware") if not isinstance(body.get(name), str)]
        if missing or body["hardware"] not in HARDWARE or body["visibility"] not in ("private", "public"):
            detail = f"These are missing or unknown: {', '.join(missing) or 'hardware or visibility'}"
            return problem(422, "Validation failed", detail)
        name = f"{body['owner']}/{body['name']}"
        if not self._book.add_model(name, body) or name in played_models():
            return problem(409, "Conflict", "A model with that name and owner already exists")
        return Reply.of(201, self._made_model(name, body))

    # --- looking ---

    def _show_model(self, name: str) -> Reply:
        if facts := self._book.model(name):
            return Reply.of(200, self._made_model(name, facts))
        model = played_models().get(name)
        if model is None:
            return problem(404, "Not found", "The requested resource could not be found.")
        fault = self._stage.faults.pick("schema", name)
        if fault is not None and fault.kind != "rename":
            return answer_of(fault)
        facts = {"visibility": "public", "description": "Played by the sandbox"}
        return Reply.of(200, self._made_model(name, facts) | {"latest_version": _shown_version(model, fault)})

    def _show_version(self, name: str, version: str) -> Reply:
        model = played_models().get(name)
        if model is None or version != model.version:
            return problem(404, "Not found", "The requested resource could not be found.")
        fault = self._stage.faults.pick("schema", name)
        if fault is not None and fault.kind != "rename":
            return answer_of(fault)
        return Reply.of(200, _shown_version(model, fault))

    @staticmethod
    def _made_model(name: str, facts: dict[str, Any]) -> dict[str, Any]:
        owner, _, short = name.partition("/")
        return {
            "url": f"https://replicate.com/{name}",
            "owner": owner,
            "name": short,
            "description": facts.get("description"),
            "visibility": facts.get("visibility", "private"),
            "github_url": None,
            "paper_url": None,
            "license_url": None,
            "run_count": 0,
            "cover_image_url": None,
            "default_example": None,
            "latest_version": None,
        }

    def _show(self, kind: str, job_id: str) -> Reply:
        record = self._book.find(kind, job_id)
        job = self._stage.journal.find(record.request_id) if record is not None else None
        if record is None or job is None:
            return problem(404, "Not found", "The requested resource could not be found.")
        where = "result" if job.phase is Phase.COMPLETED else "status"
        fault = self._stage.faults.pick("status", record.model) or (
            self._stage.faults.pick("result", record.model) if where == "result" else None
        )
        if fault is None:
            return Reply.of(200, self._shown(record))
        if fault.kind == "unknown_word":
            return Reply.of(200, self._shown(record) | {"status": fault.argument or "paused"})
        if fault.kind == "vanish" and where == "result":
            return Reply.of(200, shown_job(record, job, self._stage, is_removed=True))
        return answer_of(fault)

    def _list(self, request: Request, kind: str) -> Reply:
        fault = self._stage.faults.pick("list", kind)
        if fault is not None and fault.kind not in ("hide", "no_input"):
            return answer_of(fault)
        after = request.query.get("created_after", "")
        listed = [] if fault is not None and fault.kind == "hide" else self._book.newest(kind)
        jobs = [job for job in map(self._shown, listed) if job["created_at"] > after]
        start = _cursor_place(request.query.get("cursor"))
        if start is None:
            return problem(422, "Invalid cursor", "The cursor cannot be read.")
        page = jobs[start : start + self._page_size]
        if fault is not None:
            page = [{name: value for name, value in job.items() if name != "input"} for job in page]
        more = f"&created_after={after}" if after else ""
        following = f"{API}/{kind}?cursor={_cursor(start + self._page_size)}{more}"
        return Reply.of(
            200,
            {
                "previous": f"{API}/{kind}?cursor={_cursor(0)}{more}" if start else None,
                "next": following if start + self._page_size < len(jobs) else None,
                "results": page,
            },
        )

    def _cancel(self, kind: str, job_id: str) -> Reply:
        record = self._book.find(kind, job_id)
        if record is None:
            return problem(404, "Not found", "The requested resource could not be found.")
        fault = self._stage.faults.pick("cancel", record.model)
        if fault is not None and fault.kind != "ignore":
            return answer_of(fault)
        if fault is None:
            self._stage.workshop.cancel(record.request_id)
        return Reply.of(200, self._shown(record))

    def _shown(self, record: JobRecord) -> dict[str, Any]:
        job = self._stage.journal.find(record.request_id)
        if job is None:
            job = Job(record.request_id, "", {}, record.created_at, phase=Phase.COMPLETED, ended_at=record.created_at)
        ended = job.ended_at
        is_removed = ended is not None and time.time() - ended > self._keep_seconds
        return shown_job(record, job, self._stage, is_removed=is_removed and not faults_of(job, "never_ends"))

    # --- tokens ---

    def _refused_token(self, request: Request) -> Reply | None:
        token = _token_of(request)
        if not token or token.startswith("invalid"):
            return problem(401, "Unauthenticated", "You did not pass a valid authentication token")
        return None

    def _refused_buyer(self, request: Request) -> Reply | None:
        token = _token_of(request)
        if token.startswith("locked"):
            return problem(402, "Insufficient credit", "You have insufficient credit to run this model.")
        if token.startswith("poor"):
            with self._lock:
                wait = self._poor_since.get(token, 0.0) + POOR_EVERY_SECONDS - time.monotonic()
                if token in self._poor_since and wait > 0:
                    return throttled(wait)
                self._poor_since[token] = time.monotonic()
        return None

    def _count(self, name: str) -> None:
        with self._lock:
            self._posts[name] += 1


def _shown_version(model: PlayedModel, fault: Fault | None) -> dict[str, Any]:
    """A version with its schema; a fault here is a field that has got another name."""
    if fault is not None:
        old = fault.argument or next(iter(model.inputs))
        renamed = {f"new_{name}" if name == old else name: rule for name, rule in model.inputs.items()}
        model = replace(model, inputs=renamed)
    return {
        "id": model.version,
        "created_at": "2026-11-01T00:00:00Z",
        "cog_version": "0.16.8",
        "openapi_schema": openapi_of(model),
    }


def _body_of(request: Request) -> dict[str, Any] | None:
    try:
        body = json.loads(request.body.read())
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _token_of(request: Request) -> str:
    scheme, _, token = (request.header("Authorization") or "").partition(" ")
    return token.strip() if scheme in ("Bearer", "Token") else ""


def _deadline_seconds(text: str | None) -> float | None:
    """`Cancel-After`: 90, 90s, 5m or 1h30m45s; None when it is not there. 0 when it cannot be read."""
    if text is None:
        return None
    if text.isdecimal():
        return float(text)
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if match is None or not any(match.groups()):
        return 0.0
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def _cursor(place: int) -> str:
    return base64.urlsafe_b64encode(f"p={place}".encode()).decode().rstrip("=")


def _cursor_place(cursor: str | None) -> int | None:
    if not cursor:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        return None
    return int(text[2:]) if re.fullmatch(r"p=\d{1,9}", text) else None
