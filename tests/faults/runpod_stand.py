"""RunPod in the fault matrix: the contract tests' stand-in, asked for a pod, up to its stored id."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from domain.jobs import JobOrder, Operation, Stage, VendorRequest
from providers.ports import BlobStore
from tests.contract import runpod_standin
from tests.contract.runpod_standin import Answer, RunPodStandIn
from tests.faults.matrix import Fault, Step, VendorName
from tests.faults.stands import FREE_REPEATS, ODD_STATUS, REPEATS_OF_SILENCE, paid_order

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
        self._due: tuple[str, int] | None = None

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
        self._due = None

    def order(self, season_id: int, blobs: BlobStore) -> JobOrder:
        arguments = {
            "image": f"onmodel/trainer:{season_id}",
            "gpu": {"id": "NVIDIA GeForce RTX 4090"},
            "hard_stop_seconds": 7200,
        }
        request = VendorRequest(vendor="runpod", endpoint="pods", arguments=arguments)
        return paid_order(season_id, request, Operation.TRAIN_LORA, Stage.LORA_TRAINING)

    def hide_jobs(self) -> None:
        self.server.pods.update(
            {pod_id: replace(pod, hidden_listings=FREE_REPEATS) for pod_id, pod in self.server.pods.items()}
        )

    def has_struck(self) -> bool:
        server = self.server
        has_met = self._asked(self._due[0]) >= self._due[1] if self._due else True
        return has_met and not any(server.cut.values()) and not server.forgets

    def accepted(self) -> int:
        return len(self.server.created) - self._known

    def served(self) -> frozenset[str]:
        return frozenset()

    def strike(self, step: Step, fault: Fault) -> None:
        server, route = self.server, _RUNPOD_ROUTE[step]
        match fault, step:
            case Fault.VANISHED, Step.AFTER_POST:
                server.forgets = 1
                self._arm(route, runpod_standin.Fault.DROP_AFTER)
            case Fault.VANISHED, _:
                self._arm(route, runpod_standin.Fault.NOT_FOUND)
            case Fault.TRUNCATED, _:
                server.cut[route] = 1
            case Fault.ENDLESS, Step.AFTER_POST:
                # No answer, and the pod is missing from the next lists too.
                server.hide_new_pods_for = FREE_REPEATS
                self._arm(route, runpod_standin.Fault.STALL_AFTER)
            case Fault.ENDLESS, _:
                self._arm(route, *[runpod_standin.Fault.STALL_AFTER] * REPEATS_OF_SILENCE)
            case Fault.UNKNOWN, Step.AFTER_POST:
                server.life = ("MELTED",)
                self._arm(route, runpod_standin.Fault.DROP_AFTER)
            case Fault.UNKNOWN, _:
                self._arm(route, *[Answer(ODD_STATUS, {"title": "PAUSED"})] * FREE_REPEATS)
            case _, _:
                self._arm(route, _RUNPOD_FAULT[fault])

    def _arm(self, route: str, *faults: runpod_standin.Fault | Answer) -> None:
        self.server.on(route, *faults)
        self._due = (route, self._asked(route) + len(faults))

    def _asked(self, route: str) -> int:
        return self.server.routes().count(route)
