"""The real fal, opt-in and with a spending cap: what it does today, where the reference could only read.

Runs when both are set: `FAL_KEY=… ONMODEL_LIVE_BUDGET_USD=0.10 pytest -m live tests/live`.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from PIL import Image
from pydantic import SecretStr

from domain.errors import NotConfigured
from domain.jobs import BlobRef, JobOutput, OutputFile, VendorRequest, VendorState
from domain.money import ceiling_usd, price_of_caption, price_of_still
from domain.registry import load_registry
from domain.submissions import Submission
from providers.fal.vendor import FalVendor
from providers.vendor_ports import CaptionOrder, StillOrder
from providers.web import open_http

KEY = os.environ.get("FAL_KEY") or os.environ.get("FAL_API_KEY") or ""
BUDGET = os.environ.get("ONMODEL_LIVE_BUDGET_USD") or ""
POLL_SECONDS = 2.0
PATIENCE_POLLS = 150

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not (KEY and BUDGET), reason="set FAL_KEY and ONMODEL_LIVE_BUDGET_USD to talk to the real fal"),
]


@pytest.fixture
def vendor() -> Iterator[FalVendor]:
    with open_http() as http:
        yield FalVendor(http, SecretStr(KEY), load_registry())


def test_the_key_is_accepted(vendor: FalVendor) -> None:
    ping = vendor.ping()
    assert ping.is_ready, ping.detail


def test_a_wrong_key_is_said_to_be_wrong() -> None:
    with open_http() as http:
        vendor = FalVendor(http, SecretStr("00000000-0000-0000-0000-000000000000:wrong"), load_registry())
        request = vendor.still_request(StillOrder(model_key="flux_lora", prompt="x", image_size="square", seed=1))
        with pytest.raises(NotConfigured):
            vendor.submit(request, _sent({}))


def test_what_is_uploaded_can_be_fetched_again(vendor: FalVendor, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    Image.new("RGB", (64, 64), (200, 60, 40)).save(path, "PNG")
    url = vendor.upload(path, BlobRef(sha256="0" * 64, media_type="image/png", file_name="picture.png"))
    into = io.BytesIO()
    vendor.download(OutputFile(role="image", url=url), into)
    assert into.getvalue() == path.read_bytes()


def test_one_still_is_bought_within_the_budget(vendor: FalVendor) -> None:
    ceiling = ceiling_usd(price_of_still("flux_lora", 512, 512))
    if ceiling > Decimal(BUDGET):
        pytest.skip(f"one still may cost {ceiling} USD and ONMODEL_LIVE_BUDGET_USD is {BUDGET}")
    order = StillOrder(model_key="flux_lora", prompt="a red lighthouse at dusk", image_size="square", seed=1)
    output = _bought(vendor, vendor.still_request(order), {})
    into = io.BytesIO()
    vendor.download(output.files[0], into)
    assert Image.open(into).size == (512, 512)


def test_one_picture_is_described_within_the_budget(vendor: FalVendor, tmp_path: Path) -> None:
    """The schema of this endpoint is read second hand (domain/models.toml); this says whether it holds."""
    ceiling = ceiling_usd(price_of_caption("moondream_3_caption"))
    if ceiling > Decimal(BUDGET):
        pytest.skip(f"one description may cost {ceiling} USD and ONMODEL_LIVE_BUDGET_USD is {BUDGET}")
    path = tmp_path / "picture"
    drawn = Image.new("RGB", (640, 480), (30, 60, 160))
    drawn.paste((220, 30, 30), (240, 160, 400, 320))
    drawn.save(path, "PNG")
    ref = BlobRef(sha256="0" * 64, media_type="image/png", file_name="picture.png")
    request = vendor.caption_request(CaptionOrder(model_key="moondream_3_caption", picture=ref))
    output = _bought(vendor, request, {ref.sha256: vendor.upload(path, ref)})
    assert output.text
    assert "red" in output.text.casefold()


def _sent(url_of: dict[str, str]) -> Submission:
    return Submission(job_key="0" * 40, number=1, sent_at=datetime.now(UTC), url_of=url_of)


def _bought(vendor: FalVendor, request: VendorRequest, url_of: dict[str, str]) -> JobOutput:
    """Send once, look until it is over, and read the outcome."""
    ids = vendor.submit(request, _sent(url_of))
    pause = threading.Event()
    for _ in range(PATIENCE_POLLS):
        status = vendor.status(request, ids)
        assert status.state in (VendorState.QUEUED, VendorState.RUNNING, VendorState.DONE), status
        if status.state is VendorState.DONE:
            break
        pause.wait(POLL_SECONDS)
    return vendor.output(request, ids)
