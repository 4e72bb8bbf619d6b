"""ComfyUI in the fault matrix: the contract tests' stand-in, asked for a picture."""

from __future__ import annotations

import hashlib
import io
from typing import Any

from PIL import Image

from domain.jobs import BlobRef, JobOrder, Operation, Stage, VendorRequest, blob_argument
from providers.ports import BlobStore
from tests.contract import comfyui_standin
from tests.contract.comfyui_standin import ComfyUiStandin, Seen
from tests.faults.matrix import Fault, Step, VendorName
from tests.faults.stands import (
    FETCHES,
    FREE_REPEATS,
    ODD_STATUS,
    REPEATS_OF_SILENCE,
    after_settling,
    paid_order,
)

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
        return paid_order(season_id, request, Operation.MAKE_STILL, Stage.REFERENCES)

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
            step = after_settling(fault)
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
