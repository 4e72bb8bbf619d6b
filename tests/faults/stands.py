"""The vendors that the matrix buys from: each a stand-in over real HTTP that can be told what its next answers meet.

`strike(step, fault)` arms a fault for the next request of that step; for a settlement, which asks the vendor nothing,
that of the process that takes it up. Counts are since `begin()`.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from PIL import Image

from domain.jobs import BlobRef, JobOrder, Operation, Stage, VendorRequest, blob_argument
from providers.ports import BlobStore
from providers.sandbox.faults import gateway_page
from providers.sandbox.server import SandboxOptions, SandboxServer
from providers.sandbox.wire import API_HOST, FILE_HOSTS, QUEUE_HOSTS, REST_HOST, FilePart, Reply, Request
from providers.sandbox.work import WorkOptions
from tasks.results import FETCH_AFTER_SECONDS, LOOKS_BEFORE_GONE
from tests.contract import comfyui_standin, runpod_standin
from tests.contract.comfyui_standin import ComfyUiStandin, Seen
from tests.contract.runpod_standin import Answer, RunPodStandIn
from tests.contract.sandbox_fixtures import STAND_IN, TRAINER, training_zip
from tests.faults.matrix import Fault, Step, VendorName

ESTIMATE_USD, CEILING_USD = Decimal(1), Decimal(2)
ODD_STATUS = 599
"""A status that no standard and no vendor knows."""

FREE_REPEATS = 2
"""How often in a row a free request meets its fault."""

FETCHES = len(FETCH_AFTER_SECONDS)
REPEATS_OF_SILENCE = 3


class Stand(Protocol):
    """A vendor's stand-in as the matrix uses it; a context manager."""

    vendor: VendorName
    url: str
    poll_seconds: float

    def begin(self) -> None:
        """Forget every fault, and count from here."""

    def order(self, season_id: int, blobs: BlobStore) -> JobOrder:
        """Work of the usual kind for the season."""

    def strike(self, step: Step, fault: Fault) -> None:
        """Arm the fault."""

    def hide_jobs(self) -> None:
        """Show no job to a look-up any more, where the vendor's list may lag: what we were told is all there is."""

    def has_struck(self) -> bool:
        """Whether every request that was to meet the fault has met it."""

    def accepted(self) -> int:
        """Jobs taken since `begin`."""

    def served(self) -> frozenset[str]:
        """SHA-256s of the files that the jobs taken since `begin` made."""

    def __enter__(self) -> Stand: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_stand(vendor: VendorName, folder: Path) -> Stand:
    """The stand-in of a vendor, not yet entered."""
    match vendor:
        case VendorName.FAL:
            return FalStand(folder)
        case VendorName.COMFYUI:
            return ComfyUiStand()
        case VendorName.RUNPOD:
            return RunPodStand()


def _order(season_id: int, request: VendorRequest, operation: Operation, stage: Stage) -> JobOrder:
    return JobOrder(
        season_id=season_id,
        slot_number=1,
        stage=stage,
        operation=operation,
        api_name=f"{request.vendor}_{operation}",
        model_key=f"{request.vendor}_{operation}",
        request=request,
        estimate_usd=ESTIMATE_USD,
        ceiling_usd=CEILING_USD,
    )


def _after_settling(fault: Fault) -> Step:
    """Which request of the process that finishes a settlement meets the fault."""
    match fault:
        case Fault.EXPIRED | Fault.TRUNCATED:
            return Step.DOWNLOAD
        case Fault.MALFORMED:
            return Step.COMPLETION
        case _:
            return Step.POLLING


# --- fal ---

Strike = Callable[[Request, Callable[[], Reply]], Reply]


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
        self._known = {job.request_id for job in self._server._journal.all_jobs()}

    def order(self, season_id: int, blobs: BlobStore) -> JobOrder:
        data = training_zip() + str(season_id).encode()  # another for every cell, so that each uploads its own
        archive = BlobRef(
            sha256=blobs.put_bytes(data, "application/zip"), media_type="application/zip", file_name="set.zip"
        )
        arguments = {"images_data_url": blob_argument(archive), "trigger_word": f"MEI_{season_id}", "steps": 3}
        request = VendorRequest(vendor="fal", endpoint=TRAINER, arguments=arguments)
        return _order(season_id, request, Operation.TRAIN_LORA, Stage.LORA_TRAINING)

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
        shelf = self._server._shelf
        urls = [url for job in self._jobs() if job.outcome is not None for url in _urls_in(job.outcome.body)]
        found = [shelf._read_facts(url.split("/")[-2]) for url in urls]
        return frozenset(
            hashlib.sha256(shelf.path(stored).read_bytes()).hexdigest() for stored in found if stored is not None
        )

    def _jobs(self) -> list[Any]:
        return [job for job in self._server._journal.all_jobs() if job.request_id not in self._known]

    def strike(self, step: Step, fault: Fault) -> None:
        if step is Step.SETTLEMENT:
            step = _after_settling(fault)
        match fault, step:
            case Fault.VANISHED, Step.AFTER_POST:
                self._server.faults.set("list:hide")
                self._arm("submit", [_drop])
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
                self._arm("submit", [_drop])
            case Fault.EXPIRED, _:
                self._server.faults.set("file:expire_once#1")
            case Fault.ENDLESS, Step.AFTER_POST:
                self._server.faults.set("job:never_ends#1")
            case Fault.ENDLESS, Step.POLLING | Step.COMPLETION:
                self._stick()
            case Fault.ENDLESS, _:
                self._arm(_FAL_ROUTE[step], [_stall] * REPEATS_OF_SILENCE)
            case Fault.UNKNOWN, Step.POLLING:
                self._server.faults.set(f"status:unknown_word=PAUSED#1-{LOOKS_BEFORE_GONE}")
            case _, _:
                times = 1 if step is Step.AFTER_POST or fault is Fault.STALL else FREE_REPEATS
                self._arm(_FAL_ROUTE[step], [self._cut if fault is Fault.TRUNCATED else _ANSWERS[fault]] * times)

    def _arm(self, route: str, strikes: list[Strike]) -> None:
        self._server.armed[route] = _Strikes(strikes)

    def _cut(self, request: Request, work: Callable[[], Reply]) -> Reply:
        """The whole answer is promised, half of it comes."""
        reply = work()
        part = reply.body
        if isinstance(part, bytes):
            path = self._folder / "cut"
            path.write_bytes(part)
            part = FilePart(path, 0, len(part))
        return replace(reply, body=replace(part, cut_at=part.length // 2))

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


def _drop(request: Request, work: Callable[[], Reply]) -> Reply:
    work()
    return Reply(is_dropped=True)


def _stall(request: Request, work: Callable[[], Reply]) -> Reply:
    work()
    return Reply(stall_seconds=60, is_dropped=True)


def _rate_limit(request: Request, work: Callable[[], Reply]) -> Reply:
    return Reply.of(429, {"detail": "Too many requests", "retry_after": 2})


def _error(request: Request, work: Callable[[], Reply]) -> Reply:
    work()
    return Reply.of(500, {"detail": "Internal Server Error"})


def _gateway(request: Request, work: Callable[[], Reply]) -> Reply:
    work()
    return gateway_page(502)


def _malformed(request: Request, work: Callable[[], Reply]) -> Reply:
    work()
    return Reply(200, {"Content-Type": "application/json"}, b'{"status": "COMPLETED", "request_id": "6f')


def _missing(request: Request, work: Callable[[], Reply]) -> Reply:
    return Reply.of(404, {"detail": "Not found"})


def _gone(request: Request, work: Callable[[], Reply]) -> Reply:
    return Reply.of(410, {"detail": "Gone"})


def _odd_status(request: Request, work: Callable[[], Reply]) -> Reply:
    work()
    return Reply.of(ODD_STATUS, {"detail": "PAUSED"})


_ANSWERS: dict[Fault, Strike] = {
    Fault.DROP: _drop,
    Fault.STALL: _stall,
    Fault.RATE_LIMIT: _rate_limit,
    Fault.ERROR: _error,
    Fault.GATEWAY: _gateway,
    Fault.MALFORMED: _malformed,
    Fault.UNKNOWN: _odd_status,
}


def _body_of(reply: Reply) -> bytes:
    assert isinstance(reply.body, bytes)
    return reply.body


def _urls_in(answer: Any) -> Iterable[str]:
    if isinstance(answer, dict):
        for value in answer.values():
            yield from _urls_in(value)
    elif isinstance(answer, str) and answer.startswith("https://"):
        yield answer


# --- ComfyUI ---

_COMFYUI_ROUTE = {
    Step.BEFORE_POST: "POST /upload/image",
    Step.AFTER_POST: "POST /prompt",
    Step.POLLING: "GET /queue",
    Step.COMPLETION: "GET /history",
    Step.DOWNLOAD: "GET /view",
}
_COMFYUI_WORD = {
    Fault.DROP: "drop",
    Fault.STALL: "stall",
    Fault.RATE_LIMIT: "429",
    Fault.ERROR: "500",
    Fault.GATEWAY: "502",
    Fault.MALFORMED: "malformed",
    Fault.TRUNCATED: "truncate",
}


class _ComfyUi(ComfyUiStandin):
    """The stand-in of the contract tests; a fate is that of one job, and an answer may be one it does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.odd: dict[str, list[int]] = {}
        """Statuses that the next requests of a route are answered with."""

    def reply(self, seen: Seen) -> tuple[int, Any]:
        statuses = self.odd.get(seen.route)
        if statuses:
            return statuses.pop(0), b"what is this"
        answer = super().reply(seen)
        if seen.route == "POST /prompt":
            self.fate = "done"
        return answer


class ComfyUiStand:
    """ComfyUI: the contract tests' stand-in, asked for a picture."""

    vendor = VendorName.COMFYUI
    poll_seconds = 15.0

    def __init__(self) -> None:
        self._comfy = _ComfyUi()
        self.url = self._comfy.url
        self._known = 0

    def __enter__(self) -> ComfyUiStand:
        self._comfy.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._comfy.__exit__(*error)

    def begin(self) -> None:
        self._comfy.plan.clear()
        self._comfy.odd.clear()
        self._comfy.fate = "done"
        self._comfy.output = _picture(len(self._comfy.accepted))
        self._known = len(self._comfy.accepted)

    def order(self, season_id: int, blobs: BlobStore) -> JobOrder:
        face = BlobRef(
            sha256=blobs.put_bytes(_picture(season_id), "image/png"), media_type="image/png", file_name="face.png"
        )
        graph = {
            "5": {"class_type": "LoadImage", "inputs": {"image": blob_argument(face)}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": f"season-{season_id}"}},
        }
        arguments = {"workflow": graph, "output_role": "image"}
        request = VendorRequest(vendor="comfyui", endpoint="prompt", arguments=arguments)
        return _order(season_id, request, Operation.MAKE_STILL, Stage.REFERENCES)

    def hide_jobs(self) -> None:
        """Its queue and history never lag."""

    def has_struck(self) -> bool:
        comfy = self._comfy
        is_used = all(comfy.count[rule.route] >= (rule.nth or 0) for rule in comfy.plan)
        return is_used and not any(comfy.odd.values()) and comfy.fate == "done"

    def accepted(self) -> int:
        return len(self._comfy.accepted) - self._known

    def served(self) -> frozenset[str]:
        return frozenset({hashlib.sha256(self._comfy.output).hexdigest()} if self.accepted() else ())

    def strike(self, step: Step, fault: Fault) -> None:
        comfy = self._comfy
        is_settling = step is Step.SETTLEMENT
        if is_settling:
            step = _after_settling(fault)
        route = _COMFYUI_ROUTE[step]
        match fault, step:
            case Fault.VANISHED, Step.AFTER_POST:
                comfy.fate = "vanish"
                self._arm(route, "drop")
            case Fault.VANISHED, Step.POLLING | Step.COMPLETION:
                comfy.restart()
            case Fault.VANISHED, Step.DOWNLOAD:
                self._arm(route, "404", FETCHES)
            case Fault.VANISHED, _:
                self._arm(route, "404")
            case Fault.EXPIRED, Step.BEFORE_POST:
                comfy.odd[route] = [410] * FREE_REPEATS
            case Fault.EXPIRED, Step.AFTER_POST:
                self._arm(route, "drop")
                self._arm(_COMFYUI_ROUTE[Step.DOWNLOAD], "404")
            case Fault.EXPIRED, _:
                self._arm(_COMFYUI_ROUTE[Step.DOWNLOAD], "404")
            case Fault.ENDLESS, Step.AFTER_POST:
                comfy.fate = "endless"
            case Fault.ENDLESS, Step.POLLING | Step.COMPLETION:
                comfy.jobs[-1].fate = "endless"
                comfy.jobs[-1].place = "running"
            case Fault.ENDLESS, _:
                self._arm(route, "stall", REPEATS_OF_SILENCE)
            case Fault.UNKNOWN, Step.AFTER_POST:
                comfy.fate = "unknown"
            case Fault.UNKNOWN, Step.POLLING:
                comfy.jobs[-1].fate = "unknown"
            case Fault.UNKNOWN, _:
                comfy.odd[route] = [ODD_STATUS] * FREE_REPEATS
            case _, _:
                times = 1 if step is Step.AFTER_POST or fault is Fault.STALL else FREE_REPEATS
                self._arm(route, _COMFYUI_WORD[fault], times)

    def _arm(self, route: str, word: str, times: int = 1) -> None:
        seen = self._comfy.count[route]
        accepts = word not in ("429", "404")
        asked = 2.0 if word == "429" else None
        self._comfy.plan += [
            comfyui_standin.Fault(route, word, nth=seen + number, accepts=accepts, retry_after=asked)
            for number in range(1, times + 1)
        ]


def _picture(number: int) -> bytes:
    """A picture that no other number has."""
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (number % 256, number // 256 % 256, 90)).save(out, "PNG")
    return out.getvalue()


# --- RunPod ---

_RUNPOD_ROUTE = {Step.BEFORE_POST: "list", Step.AFTER_POST: "create"}
_RUNPOD_FAULT = {
    Fault.DROP: runpod_standin.Fault.DROP_AFTER,
    Fault.STALL: runpod_standin.Fault.STALL_AFTER,
    Fault.RATE_LIMIT: runpod_standin.Fault.RATE_LIMITED_IN_BODY,
    Fault.ERROR: runpod_standin.Fault.ERROR_AFTER,
    Fault.GATEWAY: runpod_standin.Fault.BAD_GATEWAY_AFTER,
    Fault.MALFORMED: runpod_standin.Fault.MALFORMED,
}


class _RunPod(RunPodStandIn):
    """The stand-in of the contract tests; `cut` answers of a route promise more than comes, `forgets` pods at once."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: dict[str, int] = {}
        self.forgets = 0

    def work(self, route: str, pod_id: str, given: dict[str, Any]) -> Answer:
        answer = super().work(route, pod_id, given)
        if route == "create" and self.forgets:
            self.forgets -= 1
            self.pods.clear()
        if self.cut.get(route):
            self.cut[route] -= 1
            # Two lengths that differ: no client can read such an answer.
            answer.headers["Content-Length"] = "1000000"
        return answer


class RunPodStand:
    """RunPod: the contract tests' stand-in, asked for a pod. The job counts as done when its id is stored."""

    vendor = VendorName.RUNPOD
    poll_seconds = 15.0

    def __init__(self) -> None:
        self.server = _RunPod()
        self.url = self.server.url
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._known = 0

    def __enter__(self) -> RunPodStand:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.released.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def begin(self) -> None:
        for route in _RUNPOD_ROUTE.values():
            self.server.on(route)
        self.server.cut.clear()
        self.server.pods.clear()
        self.server.forgets = self.server.hide_new_pods_for = 0
        self.server.life = runpod_standin.LIFE
        self._known = len(self.server.created)

    def order(self, season_id: int, blobs: BlobStore) -> JobOrder:
        arguments = {
            "image": f"onmodel/trainer:{season_id}",
            "gpu": {"id": "NVIDIA GeForce RTX 4090"},
            "hard_stop_seconds": 7200,
        }
        request = VendorRequest(vendor="runpod", endpoint="pods", arguments=arguments)
        return _order(season_id, request, Operation.TRAIN_LORA, Stage.LORA_TRAINING)

    def hide_jobs(self) -> None:
        self.server.pods.update(
            {pod_id: replace(pod, hidden_listings=FREE_REPEATS) for pod_id, pod in self.server.pods.items()}
        )

    def has_struck(self) -> bool:
        server = self.server
        return not any(server._plan.values()) and not any(server.cut.values()) and not server.forgets

    def accepted(self) -> int:
        return len(self.server.created) - self._known

    def served(self) -> frozenset[str]:
        return frozenset()

    def strike(self, step: Step, fault: Fault) -> None:
        server, route = self.server, _RUNPOD_ROUTE[step]
        match fault, step:
            case Fault.VANISHED, Step.AFTER_POST:
                server.forgets = 1
                server.on(route, runpod_standin.Fault.DROP_AFTER)
            case Fault.VANISHED, _:
                server.on(route, runpod_standin.Fault.NOT_FOUND)
            case Fault.TRUNCATED, _:
                server.cut[route] = 1
            case Fault.ENDLESS, Step.AFTER_POST:
                # No answer, and the pod is missing from the next lists too.
                server.hide_new_pods_for = FREE_REPEATS
                server.on(route, runpod_standin.Fault.STALL_AFTER)
            case Fault.ENDLESS, _:
                server.on(route, *[runpod_standin.Fault.STALL_AFTER] * REPEATS_OF_SILENCE)
            case Fault.UNKNOWN, Step.AFTER_POST:
                server.life = ("MELTED",)
                server.on(route, runpod_standin.Fault.DROP_AFTER)
            case Fault.UNKNOWN, _:
                server.on(route, *[Answer(ODD_STATUS, {"title": "PAUSED"})] * FREE_REPEATS)
            case _, _:
                server.on(route, _RUNPOD_FAULT[fault])
