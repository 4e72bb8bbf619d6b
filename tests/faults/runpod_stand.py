"""RunPod in the fault matrix: the product's own sandbox, asked for a pod whose machine is played, not run.

A played machine does nothing until the stand says so, at the second look at its pod: then it leaves what a worker
leaves. What a real worker does stands in tests/contract/test_worker.py and tests/acceptance/test_rented_training.py.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from domain.jobs import BlobRef, JobOrder, Operation, Stage
from domain.registry import load_registry
from providers.ports import BlobStore
from providers.runpod.orders import LOG_NAME, STATUS_NAME, pod_request
from providers.sandbox.machines import Machine
from providers.sandbox.places import HANDOVER_HOST, RUNPOD_HOST
from providers.sandbox.runpod_wire import RunPodPart, problem
from providers.sandbox.server import SandboxOptions, SandboxServer
from providers.sandbox.wire import Reply, Request
from providers.trainers.worker_job import StatusFile, WorkerJob, WorkerStatus
from providers.vendor_ports import TrainingOrder
from tasks.results import LOOKS_BEFORE_GONE
from tests.faults.matrix import Fault, Step, VendorName
from tests.faults.stands import FREE_REPEATS, ODD_STATUS, REPEATS_OF_SILENCE, after_settling, paid_order
from tests.faults.strikes import Strike, cut_by, drop, refuse, stall, strikes_of

LOOKS_UNTIL_DONE = 2


_ROUTE = {
    Step.BEFORE_POST: "upload",
    Step.AFTER_POST: "create",
    Step.POLLING: "look",
    Step.COMPLETION: "delete",
    Step.DOWNLOAD: "fetch",
}


def _route(request: Request) -> str:
    match request.host, request.method, request.segments:
        case h, "PUT", ["files", _, _] if h == HANDOVER_HOST:
            return "upload"
        case h, "GET", ["boxes", _, name] if h == HANDOVER_HOST:
            return "told" if name == STATUS_NAME else "fetch"
        case h, "POST", ["v2", "pods"] if h == RUNPOD_HOST:
            return "create"
        case h, "GET", ["v2", "pods", _] if h == RUNPOD_HOST:
            return "look"
        case h, "GET", ["v2", "catalog", "gpus"] if h == RUNPOD_HOST:
            return "catalogue"
        case h, "DELETE", ["v2", "pods", _] if h == RUNPOD_HOST:
            return "delete"
        case _:
            return ""


class _Played(Machine):
    """A machine that stands there, and whose worker's files are left by `finish`."""

    def __init__(self, folder: Path, args: str, env: Mapping[str, str], trainer_fault: str | None) -> None:
        super().__init__(folder, args, env, trainer_fault)
        self.job = WorkerJob.model_validate_json(gzip.decompress(base64.b64decode(env["ONMODEL_JOB"])))

    def start(self, on_up: Callable[[], None]) -> None:
        self.began_at = time.time()
        on_up()

    def end(self) -> None:
        self._over.set()


class _Sandbox(SandboxServer):
    """The product's sandbox with played machines; an armed strike answers in its place, and may let it work first."""

    def __init__(self, options: SandboxOptions) -> None:
        self.armed: dict[str, list[Strike]] = {}
        self.machines: dict[str, _Played] = {}
        self.looks: dict[str, int] = {}
        self.is_endless = False
        self.served: set[str] = set()
        super().__init__(options)
        part = next(part for part in self._parts if isinstance(part, RunPodPart))
        self.part = RunPodPart(part.stage, self._play)
        self._parts = (*(other for other in self._parts if other is not part), self.part)
        self.boxes = options.folder / "handover" / "boxes"

    def _play(self, folder: Path, args: str, env: Mapping[str, str], trainer_fault: str | None) -> Machine:
        machine = _Played(folder, args, env, trainer_fault)
        self.machines[env["RUNPOD_POD_ID"]] = machine
        return machine

    def answer(self, request: Request) -> Reply:
        route = _route(request)
        strikes = self.armed.get(route)
        if strikes:
            return strikes.pop(0)(request, lambda: self._work(route, request))
        return self._work(route, request)

    def _work(self, route: str, request: Request) -> Reply:
        reply = super().answer(request)
        if route == "look" and reply.status == 200:
            pod_id = request.segments[-1]
            self.looks[pod_id] = self.looks.get(pod_id, 0) + 1
            if self.looks[pod_id] >= LOOKS_UNTIL_DONE and not self.is_endless:
                self.finish(pod_id)
        return reply

    def finish(self, pod_id: str) -> None:
        """Leave what a worker leaves: its files, and its last word."""
        job = self.machines[pod_id].job
        made = {"lora": _lora_of(job.job), "config": job.job.encode(), "log": b"1000/1000\n"}
        names = {"lora": "lora.safetensors", "config": "config.yaml", "log": LOG_NAME}
        files = tuple(
            StatusFile(role=role, name=names[role], size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            for role, data in made.items()
        )
        for role, data in made.items():
            self.leave(job.job, names[role], data)
        self.served |= {file.sha256 for file in files}
        self.tell(job.job, state="done", files=files, finished_at=time.time())

    def tell(self, box: str, **facts: Any) -> None:
        told = WorkerStatus(job=box, at=time.time(), phase="training", **facts)
        self.leave(box, STATUS_NAME, told.model_dump_json().encode())

    def leave(self, box: str, name: str, data: bytes) -> None:
        (self.boxes / box).mkdir(parents=True, exist_ok=True)
        draft = self.boxes / box / f".{name}"
        draft.write_bytes(data)
        draft.rename(self.boxes / box / name)

    def forget_boxes(self) -> None:
        for file in self.boxes.glob("*/*"):
            file.unlink()


class RunPodStand:
    """RunPod: asked for a pod that trains an SDXL LoRA by ai-toolkit."""

    vendor = VendorName.RUNPOD
    poll_seconds = 15.0
    billed_usd = None  # its minutes, which are seconds here

    def __init__(self, folder: Path) -> None:
        self._cut = cut_by(folder)
        self._server = _Sandbox(SandboxOptions(home=folder))
        self.url = ""
        self._known = 0

    def __enter__(self) -> RunPodStand:
        self.url = self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def begin(self) -> None:
        server = self._server
        server.armed.clear()
        server.faults.set("")
        server.is_endless = False
        server.served.clear()
        server.forget_boxes()
        for pod in server.part.pods.there():
            server.part.pods.end(pod.pod_id)
        self._known = len(server.part.pods.ever())

    def order(self, season_id: int, blobs: BlobStore) -> JobOrder:
        data = b"a training set of season " + str(season_id).encode()
        archive = BlobRef(
            sha256=blobs.put_bytes(data, "application/zip"), media_type="application/zip", file_name="set.zip"
        )
        training = TrainingOrder(
            trainer_key="runpod_ai_toolkit_sdxl", zip=archive, trigger_word="MEI_7", steps=1000, image_count=12
        )
        request = pod_request(load_registry(), training, "runpod")
        return paid_order(season_id, request, Operation.TRAIN_LORA, Stage.LORA_TRAINING)

    def hide_jobs(self) -> None:
        self._server.faults.set(f"list:hide#1-{FREE_REPEATS}")

    def has_struck(self) -> bool:
        planned = self._server.faults.report()["faults"]
        assert isinstance(planned, list)
        return not any(self._server.armed.values()) and all(rule["applied"] for rule in planned)

    def accepted(self) -> int:
        return len(self._server.part.pods.ever()) - self._known

    def served(self) -> frozenset[str]:
        return frozenset(self._server.served)

    def strike(self, step: Step, fault: Fault) -> None:
        if step is Step.SETTLEMENT:
            # Once its worker has had the last word RunPod itself is not asked any more, only our own store is.
            route = "fetch" if after_settling(fault) is Step.DOWNLOAD else "told"
            times = LOOKS_BEFORE_GONE - 1 if fault is Fault.MALFORMED else 1
            self._arm(route, [_missing if fault is Fault.EXPIRED else self._answer(fault)] * times)
            return
        match fault, step:
            case Fault.VANISHED, Step.BEFORE_POST:
                self._arm("upload", [_missing])
            case Fault.MALFORMED, Step.BEFORE_POST:
                # Of an upload only the status counts: the catalogue is read before the POST, too.
                self._arm("catalogue", [_ANSWERS[Fault.MALFORMED]] * FREE_REPEATS)
            case Fault.VANISHED, Step.AFTER_POST:
                self._arm("create", [self._take_and_lose])
            case Fault.VANISHED, _:
                self._vanish()
            case Fault.EXPIRED, Step.BEFORE_POST:
                self._arm("upload", [_gone] * FREE_REPEATS)
            case Fault.EXPIRED, _:
                self._arm("fetch", [_missing])
                self._arm("create", [drop] if step is Step.AFTER_POST else [])
            case Fault.ENDLESS, Step.AFTER_POST:
                # No answer, and the pod is missing from the next lists too.
                self._server.faults.set(f"list:hide#1-{FREE_REPEATS}")
                self._arm("create", [stall])
            case Fault.ENDLESS, Step.POLLING | Step.COMPLETION:
                self._stay_at_work()
            case Fault.ENDLESS, _:
                self._arm(_ROUTE[step], [stall] * REPEATS_OF_SILENCE)
            case Fault.UNKNOWN, Step.AFTER_POST:
                self._server.faults.set("status:unknown_word=MELTED@pods")
                self._arm("create", [drop])
            case Fault.UNKNOWN, Step.POLLING:
                self._server.faults.set(f"status:unknown_word=MELTED@pods#1-{FREE_REPEATS}")
            case _, _:
                # A delete whose answer was lost is not asked for again: that the pod is gone, or stopped, is seen.
                is_once = step in (Step.AFTER_POST, Step.COMPLETION) or fault is Fault.STALL
                times = 1 if is_once else FREE_REPEATS
                self._arm(_ROUTE[step], [self._answer(fault)] * times)

    def _arm(self, route: str, strikes: list[Strike]) -> None:
        self._server.armed[route] = strikes

    def _answer(self, fault: Fault) -> Strike:
        return self._cut if fault is Fault.TRUNCATED else _ANSWERS.get(fault, _missing)

    def _take_and_lose(self, request: Request, work: Callable[[], Reply]) -> Reply:
        """The pod is made, its answer is lost, and it is gone."""
        work()
        for pod in self._server.part.pods.there():
            self._server.part.pods.end(pod.pod_id)
        return Reply(is_dropped=True)

    def _vanish(self) -> None:
        """Pods and whatever they left, for good."""
        for pod in self._server.part.pods.there():
            self._server.part.pods.end(pod.pod_id)
        self._server.forget_boxes()

    def _stay_at_work(self) -> None:
        """From now on the worker says that it trains, and never that it is done."""
        self._server.is_endless = True
        for pod in self._server.part.pods.there():
            self._server.tell(pod.name, state="running")


def _lora_of(name: str) -> bytes:
    header = json.dumps({"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}, "__metadata__": {"job": name}})
    return struct.pack("<Q", len(header)) + header.encode() + b"\1\0"


_ANSWERS = strikes_of(
    rate_limit=problem(429, "Too Many Requests", "rate limit exceeded", retry_after=2),
    error=problem(500, "Internal Server Error", "something broke"),
    malformed=b'{"id": "6f',
    odd_status=problem(ODD_STATUS, "PAUSED", "paused"),
)
_missing = refuse(problem(404, "Not Found", "not found"))
_gone = refuse(problem(410, "Gone", "gone"))
