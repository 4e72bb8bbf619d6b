"""What the tests of the RunPod adapter order, how they reach it, and the word of a pod's worker."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from pydantic import SecretStr

from domain.jobs import BlobRef
from domain.pods import pod_name
from domain.registry import load_registry
from domain.submissions import Submission
from providers.runpod.orders import LOG_NAME, STATUS_NAME, pod_request
from providers.runpod.vendor import RunPodVendor
from providers.trainers.worker_job import StatusFile, WorkerStatus
from providers.trainers.worker_web import Web
from providers.vendor_ports import Handover, TrainingOrder
from providers.wiring import SystemClock
from tests.contract.runpod_standin import KEY

SENT_AT = datetime(2026, 3, 1, 12, 0, 0, 400_000, tzinfo=UTC)
JOB_KEY = "0123456789abcdef0123" + "f" * 20
SET = BlobRef(sha256="a" * 64, media_type="application/zip", file_name="set.zip")
SET_LINK = "https://store.example/set.zip?signature=only-the-pod-may-read-this"
FIRST = Submission(installation="0a1b2c3d", job_key=JOB_KEY, number=1, sent_at=SENT_AT, url_of={SET.sha256: SET_LINK})
NAME = pod_name(FIRST)
REGISTRY = load_registry()
ORDER = TrainingOrder(trainer_key="runpod_ai_toolkit_sdxl", zip=SET, trigger_word="MEI_7", steps=1000, image_count=12)
TRAIN = pod_request(REGISTRY, ORDER, "runpod")
HARD_STOP = timedelta(seconds=TRAIN.arguments["hard_stop_seconds"])
WEIGHTS = b"weights"


def vendor_over(http: httpx.Client, handover: Handover, url: str, key: str = KEY, **given: Any) -> RunPodVendor:
    """The adapter at a stand-in's address."""
    return RunPodVendor(http, SecretStr(key), REGISTRY, handover=handover, clock=SystemClock(), base_url=url, **given)


def open_plain() -> httpx.Client:
    """A client with a short patience that loads no certificates."""
    return httpx.Client(transport=httpx.HTTPTransport(verify=False), timeout=1.5, trust_env=False)


def tell(handover: Handover, name: str = NAME, **facts: Any) -> WorkerStatus:
    """Leave a worker's word in a pod's box, as its link takes it."""
    given: dict[str, Any] = {"state": "running", "phase": "training", "at": SENT_AT.timestamp(), **facts}
    told = WorkerStatus(job=name, **given)
    _put(handover, name, STATUS_NAME, told.model_dump_json().encode())
    return told


def leave_results(handover: Handover, name: str = NAME, **facts: Any) -> WorkerStatus:
    """Leave what a training that went well leaves, and its last word."""
    kept = {"lora": WEIGHTS, "config": b"job: extension\n", "log": b"1000/1000\n"}
    stored = {"lora": "lora.safetensors", "config": "config.yaml", "log": LOG_NAME}
    for role, data in kept.items():
        _put(handover, name, stored[role], data)
    files = tuple(
        StatusFile(role=role, name=stored[role], size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for role, data in kept.items()
    )
    return tell(handover, name, **{"state": "done", "step": 1000, "total_steps": 1000, "files": files, **facts})


def _put(handover: Handover, name: str, file: str, data: bytes) -> None:
    Web().put(handover.write_link(name, file, timedelta(hours=1)), data, ())
