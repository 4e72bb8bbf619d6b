"""fal in the fault matrix: the product's own sandbox, asked for a training, whose next answers can be spoiled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from domain.jobs import BlobRef, JobOrder, Operation, Stage, VendorRequest, blob_argument
from providers.ports import BlobStore
from providers.sandbox.launcher import control
from providers.sandbox.server import SandboxOptions, SandboxServer
from providers.sandbox.wire import API_HOST, FILE_HOSTS, QUEUE_HOSTS, REST_HOST, Reply, Request
from providers.sandbox.work import WorkOptions
from tasks.results import LOOKS_BEFORE_GONE
from tests.contract.sandbox_fixtures import STAND_IN, TRAINER, training_zip
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


class _Sandbox(SandboxServer):
    """The product's sandbox; an armed strike answers in its place, and may let it do its work first."""

    def __init__(self, options: SandboxOptions) -> None:
        self.armed: dict[str, _Strikes] = {}
        self.cancels = 0
        super().__init__(options)

    def answer(self, request: Request) -> Reply:
        self.cancels += request.method == "PUT"
        strikes = self.armed.get(_route(request))
        strike = strikes.take() if strikes is not None else None
        if strike is None:
            return super().answer(request)
        return strike(request, lambda: super(_Sandbox, self).answer(request))


def _route(request: Request) -> str:
    is_about_job = "requests" in request.segments
    match request.method:
        case "POST" if request.host == REST_HOST:
            return "upload"
        case "POST" if request.host in QUEUE_HOSTS and not is_about_job:
            return "submit"
        case "GET" if request.host in QUEUE_HOSTS and is_about_job:
            return "status" if request.segments[-1] == "status" else "result"
        case "GET" if request.host in FILE_HOSTS:
            return "file"
        case "GET" if request.host == API_HOST:
            return "list"
        case _:
            return ""


_FAL_ROUTE = {
    Step.BEFORE_POST: "upload",
    Step.AFTER_POST: "submit",
    Step.POLLING: "status",
    Step.COMPLETION: "result",
    Step.DOWNLOAD: "file",
}


class FalStand:
    """fal: the sandbox's own server on its tests' light engine, asked for a training."""

    vendor = VendorName.FAL
    poll_seconds = 15.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cut = cut_by(folder)
        self._server = _Sandbox(SandboxOptions(home=folder, work=WorkOptions(engine=STAND_IN)))
        self.url = ""
        self._known: set[str] = set()

    def __enter__(self) -> FalStand:
        self.url = self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def begin(self) -> None:
        self._server.armed.clear()
        self._server.cancels = 0
        self._server.faults.set("")
        self._known = {job["request_id"] for job in control(self.url, "GET", "jobs")}

    def order(self, season_id: int, blobs: BlobStore) -> JobOrder:
        data = training_zip() + str(season_id).encode()  # another for every cell, so that each uploads its own
        archive = BlobRef(
            sha256=blobs.put_bytes(data, "application/zip"), media_type="application/zip", file_name="set.zip"
        )
        arguments = {"images_data_url": blob_argument(archive), "trigger_word": f"MEI_{season_id}", "steps": 3}
        request = VendorRequest(vendor="fal", endpoint=TRAINER, arguments=arguments)
        return paid_order(season_id, request, Operation.TRAIN_LORA, Stage.LORA_TRAINING)

    def hide_jobs(self) -> None:
        self._server.faults.set("list:hide")

    def has_struck(self) -> bool:
        planned = self._server.faults.report()["faults"]
        assert isinstance(planned, list)
        return not any(strikes.is_due() for strikes in self._server.armed.values()) and all(
            rule["applied"] for rule in planned
        )

    def accepted(self) -> int:
        return len(self._jobs())

    def served(self) -> frozenset[str]:
        urls = [url for job in self._jobs() if job["outcome"] for url in _urls_in(job["outcome"]["body"])]
        files = [self._folder / "sandbox" / "files" / Path(*url.split("/")[-2:]) for url in urls]
        return frozenset(hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists())

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
                self._arm("status", [_missing] * LOOKS_BEFORE_GONE)
            case Fault.VANISHED, Step.DOWNLOAD:
                # Each try to fetch begins with the first file.
                self._arm("file", [_missing] * FETCHES)
            case Fault.VANISHED, Step.COMPLETION:
                self._arm("result", [_missing] * FETCHES)
            case Fault.VANISHED, _:
                self._arm(_FAL_ROUTE[step], [_missing])
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
                self._stick()
            case Fault.ENDLESS, _:
                self._arm(_FAL_ROUTE[step], [stall] * REPEATS_OF_SILENCE)
            case Fault.UNKNOWN, Step.POLLING:
                self._server.faults.set(f"status:unknown_word=PAUSED#1-{LOOKS_BEFORE_GONE}")
            case _, _:
                times = 1 if step is Step.AFTER_POST or fault is Fault.STALL else FREE_REPEATS
                self._arm(_FAL_ROUTE[step], [self._cut if fault is Fault.TRUNCATED else _ANSWERS[fault]] * times)

    def _arm(self, route: str, strikes: list[Strike]) -> None:
        self._server.armed[route] = _Strikes(strikes)

    def _stick(self) -> None:
        """From now on every look shows the job at work and its result is not there yet, until somebody stops it."""

        def at_work(request: Request, work: Callable[[], Reply]) -> Reply:
            answer = json.loads(_body_of(work()))
            return Reply.of(202, {"status": "IN_PROGRESS", "request_id": answer.get("request_id", "")})

        def not_yet(request: Request, work: Callable[[], Reply]) -> Reply:
            return Reply.of(400, {"detail": "Request is still in progress"})

        self._server.armed["status"] = _Forever(at_work, self._is_stopped)
        self._server.armed["result"] = _Forever(not_yet, self._is_stopped)

    def _is_stopped(self) -> bool:
        return self._server.cancels > 0


class _Strikes:
    """What the next requests of a route meet, one after the other."""

    def __init__(self, strikes: Iterable[Strike]) -> None:
        self._left = list(strikes)

    def take(self) -> Strike | None:
        return self._left.pop(0) if self._left else None

    def is_due(self) -> bool:
        """Whether it has not struck as often as it was to."""
        return bool(self._left)


class _Forever(_Strikes):
    """A strike that is never used up, until `is_over`."""

    def __init__(self, strike: Strike, is_over: Callable[[], bool]) -> None:
        super().__init__(())
        self._strike, self._is_over = strike, is_over

    def is_due(self) -> bool:
        return not self._is_over()

    def take(self) -> Strike | None:
        return None if self._is_over() else self._strike


_ANSWERS = strikes_of(
    rate_limit=Reply.of(429, {"detail": "Too many requests", "retry_after": 2}),
    error=Reply.of(500, {"detail": "Internal Server Error"}),
    malformed=b'{"status": "COMPLETED", "request_id": "6f',
    odd_status=Reply.of(ODD_STATUS, {"detail": "PAUSED"}),
)
_missing = refuse(Reply.of(404, {"detail": "Not found"}))
_gone = refuse(Reply.of(410, {"detail": "Gone"}))


def _body_of(reply: Reply) -> bytes:
    assert isinstance(reply.body, bytes)
    return reply.body


def _urls_in(answer: Any) -> Iterable[str]:
    if isinstance(answer, dict):
        for value in answer.values():
            yield from _urls_in(value)
    elif isinstance(answer, str) and answer.startswith("https://"):
        yield answer
