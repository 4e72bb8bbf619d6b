"""A real ComfyUI, opt-in: what its server does today with our workflows. It costs nothing but its GPU's time.

Runs when both are set: `ONMODEL_LIVE_COMFYUI_URL=http://127.0.0.1:8188 ONMODEL_LIVE_BUDGET_USD=0 pytest -m live
tests/live`; the still also wants ONMODEL_LIVE_COMFYUI_CHECKPOINT, an SDXL checkpoint as that server lists it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from domain.errors import Rejected
from domain.jobs import VendorRequest, VendorState
from domain.profiles import GenerationProfile
from domain.submissions import Finding
from providers.comfyui.templates import built_in_templates, needs
from providers.settings import Settings
from providers.vendor_ports import JobVendor, StillOrder
from providers.wiring import Ports
from tests.live.buying import BUDGET, bought, sent

URL = os.environ.get("ONMODEL_LIVE_COMFYUI_URL") or ""
CHECKPOINT = os.environ.get("ONMODEL_LIVE_COMFYUI_CHECKPOINT") or ""

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not (URL and BUDGET), reason="set ONMODEL_LIVE_COMFYUI_URL and ONMODEL_LIVE_BUDGET_USD to ask a real ComfyUI"
    ),
]


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    home = tmp_path / "home"
    opened = Ports(Settings(home=home, storage_url=(home / "blobs").as_uri(), comfyui_url=URL))
    yield opened
    opened.close()


@pytest.fixture
def vendor(ports: Ports) -> JobVendor:
    return ports.job_vendor("comfyui")


def test_the_server_answers(vendor: JobVendor) -> None:
    ping = vendor.ping()
    assert ping.is_ready, ping.detail


def test_a_job_that_was_never_sent_is_not_there(vendor: JobVendor) -> None:
    request = VendorRequest(vendor="comfyui", endpoint="workflow/sdxl", arguments={})
    assert vendor.look_up(request, sent(), frozenset()).finding is not Finding.FOUND


@pytest.mark.parametrize("name", [template.name for template in built_in_templates()])
def test_the_server_knows_every_node_of_a_built_in_workflow(ports: Ports, name: str) -> None:
    """Asked class by class, as the check before a POST does; nothing is queued."""
    template = next(one for one in built_in_templates() if one.name == name)
    for node in template.workflow.values():
        answer = ports.web.get(f"{URL.rstrip('/')}/object_info/{node['class_type']}").json()
        if not answer and name in needs():
            pytest.skip(f"{node['class_type']} is not installed there: {needs()[name]}")
        assert answer, f"{node['class_type']} is unknown there"
        known = {field for kind in answer[node["class_type"]]["input"].values() for field in kind}
        assert set(node["inputs"]) <= known, node["class_type"]


def test_a_checkpoint_that_is_not_there_is_refused_before_anything_is_queued(ports: Ports, vendor: JobVendor) -> None:
    request = ports.image_maker("comfyui").still_request(_order("no-such-checkpoint.safetensors"))
    with pytest.raises(Rejected):
        vendor.submit(request, sent())


@pytest.mark.skipif(not CHECKPOINT, reason="set ONMODEL_LIVE_COMFYUI_CHECKPOINT to draw one still there")
def test_one_still_is_drawn_once_and_found_by_its_own_name(ports: Ports, vendor: JobVendor) -> None:
    request = ports.image_maker("comfyui").still_request(_order(CHECKPOINT))
    submission = sent()
    output = bought(vendor, request, submission, look_every=1.0, patience=600.0)
    into = io.BytesIO()
    vendor.download(output.files[0], into)
    assert Image.open(into).size == (512, 512)
    found = vendor.look_up(request, submission, frozenset())
    assert found.finding is Finding.FOUND, found
    assert found.ids is not None
    assert vendor.status(request, found.ids).state is VendorState.DONE


def _order(checkpoint: str) -> StillOrder:
    sdxl = next(one for one in built_in_templates() if one.name == "sdxl")
    return StillOrder(
        model_key="comfyui_sdxl",
        prompt="a red lighthouse at dusk",
        image_size=(512, 512),
        steps=10,
        seed=1,
        profile=GenerationProfile(name="live", template=sdxl, checkpoint=checkpoint),
    )
