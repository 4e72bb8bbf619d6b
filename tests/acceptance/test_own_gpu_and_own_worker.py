"""A LoRA trained on one's own GPU by the programs that stand for the trainers, and drawn with on RunPod serverless."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageDraw
from pydantic import SecretStr

from domain.errors import JobFailed
from domain.jobs import BlobRef, VendorJobIds, VendorRequest, VendorState
from domain.layouts import LayoutFacts, LayoutKind, caption_path, path_in
from domain.registry import load_registry
from domain.submissions import Submission
from providers.local.orders import trainers_environment
from providers.local.vendor import LocalVendor
from providers.lora_files import check_lora_file
from providers.runpod.serverless import ServerlessVendor
from providers.sandbox.handover import SandboxHandover
from providers.sandbox.places import RENTED_HOSTS
from providers.sandbox.trainers.doing import FAULT
from providers.sandbox.trainers.homes import HOMES, stand_in_commands
from providers.sandbox.transport import SandboxTransport
from providers.vendor_ports import JobVendor, LoraUse, StillOrder, TrainingOrder
from tests.contract.sandbox_fixtures import REAL, running_sandbox, wait_until

ROOT = Path(__file__).resolve().parents[2]
TRIGGER, PICTURES, STEPS = "MEIKOB_01", 5, 60
SENT_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
OVER = (VendorState.DONE, VendorState.FAILED, VendorState.CANCELLED)

DYING = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.acceptance.test_own_gpu_and_own_worker import begin
begin(Path(sys.argv[2]), "runner", fault="slow:2")
os.kill(os.getpid(), signal.SIGKILL)
"""


def vendor_at(folder: Path, fault: str = "") -> LocalVendor:
    """The adapter as a rehearsal has it."""
    environment = trainers_environment(os.environ) | {FAULT: fault}
    python = stand_in_commands(folder / "bin")
    return LocalVendor(
        folder / "local", load_registry(), trainer_homes=HOMES, python=python, name="sandbox-local", environ=environment
    )


def packed_set(folder: Path) -> tuple[Path, BlobRef]:
    """A small training set as a zip in ai-toolkit's layout."""
    facts = LayoutFacts(trigger_word=TRIGGER, class_word="person", image_count=PICTURES, resolutions=(512,))
    path = folder / "set.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for number in range(PICTURES):
            name = path_in(LayoutKind.AI_TOOLKIT, facts, f"{number}.png")
            picture, out = Image.new("RGB", (128, 160), (200, 200, 210)), io.BytesIO()
            ImageDraw.Draw(picture).ellipse((30 + number * 3, 30, 90, 140), fill=(180, 40, 60))
            picture.save(out, "PNG")
            packed.writestr(zipfile.ZipInfo(name), out.getvalue())
            packed.writestr(zipfile.ZipInfo(caption_path(name)), f"{TRIGGER}, number {number} before a grey wall")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, BlobRef(sha256=digest, media_type="application/zip", file_name="set.zip")


def begin(folder: Path, name: str, *, fault: str = "") -> tuple[VendorRequest, VendorJobIds]:
    """Order a training and submit it."""
    vendor, (path, ref) = vendor_at(folder, fault), packed_set(folder)
    order = TrainingOrder(
        trainer_key="local_ai_toolkit_sdxl", zip=ref, trigger_word=TRIGGER, steps=STEPS, image_count=PICTURES, rank=4
    )
    request = vendor.training_request(order)
    key = hashlib.sha256(name.encode()).hexdigest()[:40]
    url_of = {ref.sha256: vendor.upload(path, ref)}
    submission = Submission(installation="0badcafe", job_key=key, number=1, sent_at=SENT_AT, url_of=url_of)
    return request, vendor.submit(request, submission)


def is_over(vendor: JobVendor, request: VendorRequest, ids: VendorJobIds) -> bool:
    return vendor.status(request, ids).state in OVER


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("own-gpu")
    yield place
    for job in (place / "local" / "jobs").iterdir():
        request = VendorRequest(vendor="sandbox-local", endpoint="gpu", arguments={})
        vendor_at(place).cancel(request, VendorJobIds(request_id=job.name))


@pytest.fixture(scope="module")
def lora(folder: Path) -> Path:
    """Trained by a job whose submitter was killed; another process looks after it."""
    dying = subprocess.run([sys.executable, "-c", DYING, str(ROOT), str(folder)], check=False, timeout=60)
    assert dying.returncode == -signal.SIGKILL
    (job,) = (folder / "local" / "jobs").iterdir()
    vendor, ids = vendor_at(folder), VendorJobIds(request_id=job.name)
    request = VendorRequest(vendor="sandbox-local", endpoint="gpu", arguments={})
    wait_until(lambda: vendor.status(request, ids).state in OVER, 60)
    assert vendor.status(request, ids).state is VendorState.DONE, vendor.status(request, ids).message
    (made,) = (file for file in vendor.output(request, ids).files if file.role == "lora")
    path = folder / "lora.safetensors"
    with path.open("w+b") as into:
        vendor.download(made, into)
    return path


def test_a_training_goes_on_when_its_submitter_is_killed_and_its_lora_is_whole(lora: Path) -> None:
    found = check_lora_file(lora, expected_base="sdxl", expected_steps=STEPS, expected_rank=4)
    assert found.verdict == "healthy", found


@pytest.mark.parametrize(("fault", "words"), [("nan", "no number"), ("short", "steps")])
def test_a_training_that_did_not_train_has_failed_with_its_reason(folder: Path, fault: str, words: str) -> None:
    request, ids = begin(folder, fault, fault=fault)
    vendor = vendor_at(folder)
    wait_until(lambda: vendor.status(request, ids).state in OVER, 60)
    with pytest.raises(JobFailed, match=words):
        vendor.output(request, ids)


def test_the_lora_changes_what_the_worker_draws(lora: Path, tmp_path: Path) -> None:
    ref = BlobRef(
        sha256=hashlib.sha256(lora.read_bytes()).hexdigest(), media_type="x/y", file_name="MEIKOB_01-v1.safetensors"
    )
    order = StillOrder(model_key="runpod_sdxl_lora", prompt=f"{TRIGGER} portrait", image_size=(512, 512), seed=7)
    with (
        running_sandbox(tmp_path, engine=REAL) as server,
        httpx.Client(transport=SandboxTransport(server.url, hosts=RENTED_HOSTS), timeout=60) as http,
    ):
        vendor = ServerlessVendor(
            SecretStr("rpa_rehearsal"),
            load_registry(),
            endpoint_id="abc123",
            handover=SandboxHandover(http),
            http=http,
            name="sandbox-runpod",
        )
        url_of = {ref.sha256: vendor.upload(lora, ref)}
        drawn = []
        for loras in ((), (LoraUse(file=ref, scale=1.0),)):
            request = vendor.still_request(order.model_copy(update={"loras": loras}))
            key = hashlib.sha256(str(len(loras)).encode()).hexdigest()[:40]
            submission = Submission(installation="0badcafe", job_key=key, number=1, sent_at=SENT_AT, url_of=url_of)
            ids = vendor.submit(request, submission)
            wait_until(partial(is_over, vendor, request, ids), 60)
            into = io.BytesIO()
            vendor.download(vendor.output(request, ids).files[0], into)
            drawn.append(into.getvalue())
    assert all(Image.open(io.BytesIO(one)).size == (512, 512) for one in drawn)
    assert drawn[0] != drawn[1]
