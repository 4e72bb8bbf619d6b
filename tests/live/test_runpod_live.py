"""The real RunPod, opt-in and with a spending cap: what it does today, where the reference could only read.

Runs when both are set: `RUNPOD_API_KEY=… ONMODEL_LIVE_BUDGET_USD=0.10 pytest -m live tests/live`. Machines there read
and leave files by signed links: the paid ones also want ONMODEL_LIVE_STORAGE_URL=s3://bucket/prefix, the still
ONMODEL_LIVE_RUNPOD_ENDPOINT with our worker, and the training a budget that covers its hard stop.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from pydantic import SecretStr

from domain.jobs import VendorRequest
from domain.model_rules import Model, ModelKind
from domain.money import ceiling_of_training, ceiling_usd, price_of_still, price_of_training
from domain.registry import load_registry
from domain.submissions import Finding
from providers.runpod.catalogue import candidates, read_catalogue
from providers.runpod.client import RunPodClient
from providers.settings import Settings
from providers.vendor_ports import JobVendor, StillOrder, TrainingOrder
from providers.web import open_http
from providers.wiring import Ports
from tests.live.buying import BUDGET, bought, sent, skip_above_budget, stored, uploaded

KEY = os.environ.get("RUNPOD_API_KEY") or ""
STORAGE = os.environ.get("ONMODEL_LIVE_STORAGE_URL") or ""
ENDPOINT = os.environ.get("ONMODEL_LIVE_RUNPOD_ENDPOINT") or ""
STEPS = 20

TRAINERS = tuple(
    model for model in load_registry().models if (model.vendor, model.kind) == ("runpod", ModelKind.TRAINER)
)

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not (KEY and BUDGET), reason="set RUNPOD_API_KEY and ONMODEL_LIVE_BUDGET_USD to talk to the real RunPod"
    ),
]


def _open(home: Path, key: str) -> Ports:
    return Ports(
        Settings(
            home=home,
            storage_url=STORAGE or (home / "blobs").as_uri(),
            runpod_api_key=SecretStr(key),
            runpod_endpoint=ENDPOINT or None,
        )
    )


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    opened = _open(tmp_path / "home", KEY)
    yield opened
    opened.close()


@pytest.fixture
def vendor(ports: Ports) -> JobVendor:
    return ports.job_vendor("runpod")


def test_the_key_is_accepted(vendor: JobVendor) -> None:
    ping = vendor.ping()
    assert ping.is_ready, ping.detail


def test_a_wrong_key_is_said_to_be_wrong(tmp_path: Path) -> None:
    opened = _open(tmp_path / "home", "rpa_WRONG")
    assert not opened.job_vendor("runpod").ping().is_ready
    opened.close()


def test_the_account_s_pods_are_listed(ports: Ports) -> None:
    for host in ports.pod_hosts():
        assert all(pod.pod_id and pod.name for pod in host.pods())


def test_a_pod_that_was_never_ordered_is_not_there(vendor: JobVendor) -> None:
    request = VendorRequest(vendor="runpod", endpoint="pods", arguments={})
    assert vendor.look_up(request, sent(), frozenset()).finding is not Finding.FOUND


def test_what_was_charged_can_be_read(ports: Ports) -> None:
    now = datetime.now(UTC)
    assert all(line.amount_usd >= 0 for line in ports.usage_reader("runpod").usage(now - timedelta(days=7), now))


@pytest.mark.parametrize("model", TRAINERS, ids=lambda model: model.key)
def test_a_gpu_of_each_trainer_s_list_is_to_be_had_under_its_price_cap(model: Model) -> None:
    """Unconfirmed in the documentation: the ids of the GPUs. Free."""
    assert model.training is not None
    program = model.training.program
    assert program is not None
    with open_http() as http:
        catalogue = read_catalogue(RunPodClient(http, SecretStr(KEY)))
    cap = Decimal(program.price_cap_usd_per_hour)
    found = candidates(catalogue, program.gpus, cap=cap, min_cuda_version=program.min_cuda_version)
    assert all(gpu.usd_per_hour <= cap for gpu in found)


@pytest.mark.skipif(not (ENDPOINT and STORAGE), reason="set ONMODEL_LIVE_RUNPOD_ENDPOINT and ONMODEL_LIVE_STORAGE_URL")
def test_one_still_of_our_worker_is_bought_within_the_budget(ports: Ports, vendor: JobVendor) -> None:
    model = next(m for m in load_registry().models if (m.vendor, m.kind) == ("runpod", ModelKind.IMAGE))
    assert model.still is not None
    size = min(model.still.sizes, key=lambda name: model.still.sizes[name][0] if model.still else 0)
    skip_above_budget("one still", ceiling_usd(price_of_still(model.key, *model.still.sizes[size])))
    order = StillOrder(model_key=model.key, prompt="a red lighthouse at dusk", image_size=size, seed=1)
    request = ports.image_maker("runpod").still_request(order)
    output = bought(vendor, request, sent(), look_every=2.0, patience=900.0)
    into = io.BytesIO()
    vendor.download(output.files[0], into)
    assert Image.open(into).size == model.still.sizes[size]


@pytest.mark.skipif(not STORAGE, reason="set ONMODEL_LIVE_STORAGE_URL to train on a real pod")
def test_one_short_training_leaves_weights_and_no_pod(ports: Ports, vendor: JobVendor, tmp_path: Path) -> None:
    model = min(TRAINERS, key=lambda one: ceiling_of_training(one, price_of_training(one.key, STEPS)))
    skip_above_budget(f"{STEPS} steps", ceiling_of_training(model, price_of_training(model.key, STEPS)))
    assert model.training is not None
    order = TrainingOrder(
        trainer_key=model.key,
        zip=stored(ports, _pictures(tmp_path / "set.zip", model.training.min_images + 4), "application/zip"),
        trigger_word="LIVE_BALL",
        steps=STEPS,
        image_count=model.training.min_images + 4,
    )
    request = ports.trainer("runpod").training_request(order)
    submission = sent(uploaded(ports, vendor, request))
    output = bought(vendor, request, submission, look_every=20.0, patience=3 * 3600.0)
    into = io.BytesIO()
    weights = next(file for file in output.files if file.role == "lora")
    vendor.download(weights, into)
    path = tmp_path / "lora.safetensors"
    path.write_bytes(into.getvalue())
    assert ports.check_lora_file(path, expected_base=model.base_model).verdict in ("healthy", "suspect")
    left = [pod.name for host in ports.pod_hosts() for pod in host.pods()]
    assert not any(submission.job_key[:20] in name for name in left)


def _pictures(path: Path, count: int) -> Path:
    """A zip of drawn balls with captions of the same stems."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            picture = Image.new("RGB", (512, 512), (200, 205, 210 - 5 * number))
            place = 60 + 20 * number
            ImageDraw.Draw(picture).ellipse((place, place, place + 200, place + 200), fill=(200, 60, 40))
            encoded = io.BytesIO()
            picture.save(encoded, "PNG")
            archive.writestr(f"{number:02d}.png", encoded.getvalue())
            archive.writestr(f"{number:02d}.txt", "LIVE_BALL, a red ball over a plain")
    return path
