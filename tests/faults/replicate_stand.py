"""Replicate in the fault matrix: the product's own sandbox, asked for a training, whose next answers can be spoiled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from domain.jobs import BlobRef, JobOrder, Operation, Stage, VendorRequest, blob_argument
from providers.ports import BlobStore
from providers.sandbox.launcher import control
from providers.sandbox.replicate_answers import problem, throttled
from providers.sandbox.replicate_wire import API_HOST, DELIVERY_HOST
from providers.sandbox.server import SandboxOptions, SandboxServer
from providers.sandbox.wire import Reply, Request
from providers.sandbox.work import WorkOptions
from tasks.results import LOOKS_BEFORE_GONE
from tests.contract.sandbox_fixtures import STAND_IN, training_zip
from tests.faults.matrix import Fault, Step, VendorName
from tests.faults.stands import (
    FETCHES,
    FREE_REPEATS,
    ODD_STATUS,
    REPEATS_OF_SILENCE,
    after_settling,
    paid_order,
)
from tests.faults.strikes import Strike, cut_by, drop, refuse, stall, strikes_of

TRAINER, STEPS = "ostris/flux-dev-lora-trainer", 20
FIXED = {"autocaption": False, "resolution": "512,768,1024", "batch_size": 1}

_ROUTE = {
    Step.BEFORE_POST: "upload",
    Step.AFTER_POST: "submit",
    Step.POLLING: "look",
    Step.COMPLETION: "look",
    Step.DOWNLOAD: "file",
}


class _Sandbox(SandboxServer):
    """The product's sandbox; an armed strike answers in its place, and may let it do its work first."""

    def __init__(self, options: SandboxOptions) -> None:
        self.armed: dict[str, list[Strike]] = {}
        self.always: dict[str, Strike] = {}
        self.cancels = 0
        super().__init__(options)

    def answer(self, request: Request) -> Reply:
        route = _route(request)
        self.cancels += route == "cancel"
        strikes = self.armed.get(route)
        strike = strikes.pop(0) if strikes else self.always.get(route)
        if strike is None:
            return super().answer(request)
        return strike(request, lambda: super(_Sandbox, self).answer(request))


def _route(request: Request) -> str:
    if request.host == DELIVERY_HOST:
        return "file"
    match request.method, request.segments[1:] if request.host == API_HOST else []:
        case "POST", ["files"]:
            return "upload"
        case "POST", ["models", _, _, "versions", _, "trainings"]:
            return "submit"
        case "POST", ["trainings", _, "cancel"]:
            return "cancel"
        case "GET", ["trainings", _]:
            return "look"
        case _:
            return ""


class ReplicateStand:
    """Replicate: the sandbox's own server on its tests' light engine, asked for a training."""

    vendor = VendorName.REPLICATE
    poll_seconds = 15.0
    billed_usd = Decimal("0.4880")
    """(300 + 20 × 1.0) s of the trainer's machine at 5.49 USD an hour: what it says it charged, not the estimate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cut = cut_by(folder)
        self._server = _Sandbox(SandboxOptions(home=folder, work=WorkOptions(engine=STAND_IN)))
        self.url = ""
        self._known: set[str] = set()

    def __enter__(self) -> ReplicateStand:
        self.url = self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def begin(self) -> None:
        self._server.armed.clear()
        self._server.always.clear()
        self._server.cancels = 0
        self._server.faults.set("")
        self._known = {job["request_id"] for job in control(self.url, "GET", "jobs")}

    def order(self, season_id: int, blobs: BlobStore) -> JobOrder:
        data = training_zip() + str(season_id).encode()  # another for every cell, so that each uploads its own
        archive = BlobRef(
            sha256=blobs.put_bytes(data, "application/zip"), media_type="application/zip", file_name="set.zip"
        )
        given = {"input_images": blob_argument(archive), "trigger_word": f"MEI_{season_id}", "steps": STEPS}
        request = VendorRequest(vendor="replicate", endpoint=TRAINER, arguments={**FIXED, **given})
        return paid_order(season_id, request, Operation.TRAIN_LORA, Stage.LORA_TRAINING)

    def hide_jobs(self) -> None:
        self._server.faults.set("list:hide")

    def has_struck(self) -> bool:
        planned = self._server.faults.report()["faults"]
        assert isinstance(planned, list)
        is_stuck = bool(self._server.always) and not self._server.cancels
        return not is_stuck and not any(self._server.armed.values()) and all(rule["applied"] for rule in planned)

    def accepted(self) -> int:
        return len(self._jobs())

    def served(self) -> frozenset[str]:
        """The LoRAs themselves: what is kept is the file inside each training's archive."""
        urls = [job["outcome"]["body"]["lora"]["url"] for job in self._jobs() if self._is_good(job)]
        files = [self._folder / "sandbox" / "files" / Path(*url.split("/")[-2:]) for url in urls]
        return frozenset(hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists())

    @staticmethod
    def _is_good(job: dict[str, Any]) -> bool:
        return bool(job["outcome"]) and job["outcome"]["error"] is None

    def _jobs(self) -> list[dict[str, Any]]:
        return [job for job in control(self.url, "GET", "jobs") if job["request_id"] not in self._known]

    def strike(self, step: Step, fault: Fault) -> None:
        if step is Step.SETTLEMENT:
            step = after_settling(fault)
        match fault, step:
            case Fault.VANISHED, Step.AFTER_POST:
                self._server.faults.set("list:hide")
                self._arm("submit", [drop])
            case Fault.VANISHED, Step.POLLING:
                self._arm("look", [_missing] * LOOKS_BEFORE_GONE)
            case Fault.VANISHED, Step.COMPLETION | Step.DOWNLOAD:
                self._arm(_ROUTE[step], [_missing] * FETCHES)
            case Fault.VANISHED, _:
                self._arm(_ROUTE[step], [_missing])
            case Fault.EXPIRED, Step.BEFORE_POST:
                self._arm("upload", [_gone] * FREE_REPEATS)
            case Fault.EXPIRED, Step.AFTER_POST:
                self._server.faults.set("file:expire_once#1")
                self._arm("submit", [drop])
            case Fault.EXPIRED, _:
                self._server.faults.set("file:expire_once#1")
            case Fault.ENDLESS, Step.AFTER_POST:
                self._server.faults.set("job:never_ends#1")
            case Fault.ENDLESS, Step.POLLING | Step.COMPLETION:
                self._server.always["look"] = self._at_work
            case Fault.ENDLESS, _:
                self._arm(_ROUTE[step], [stall] * REPEATS_OF_SILENCE)
            case Fault.UNKNOWN, Step.POLLING:
                self._server.faults.set(f"status:unknown_word=PAUSED#1-{LOOKS_BEFORE_GONE}")
            case _, _:
                times = 1 if step is Step.AFTER_POST or fault is Fault.STALL else FREE_REPEATS
                self._arm(_ROUTE[step], [self._cut if fault is Fault.TRUNCATED else _ANSWERS[fault]] * times)

    def _arm(self, route: str, strikes: list[Strike]) -> None:
        self._server.armed[route] = list(strikes)

    def _at_work(self, request: Request, work: Callable[[], Reply]) -> Reply:
        """Every look shows the job at work, until somebody stops it."""
        reply = work()
        if self._server.cancels:
            return reply
        assert isinstance(reply.body, bytes)
        return Reply.of(200, json.loads(reply.body) | {"status": "processing", "output": None, "completed_at": None})


_ANSWERS = strikes_of(
    rate_limit=throttled(2),
    error=problem(500, "Internal server error", "Something went wrong"),
    malformed=b'{"status": "succeeded", "id": "6f',
    odd_status=problem(ODD_STATUS, "Paused", "Paused"),
)
_missing = refuse(problem(404, "Not found", "The requested resource could not be found."))
_gone = refuse(problem(410, "Gone", "It is no longer here."))
