"""One suite for every vendor: each adapter against its stand-in in the sandbox, under the same faults.

What a fault means does not depend on the vendor: refused is not paid, a lost answer is never a refusal, and what
cannot be had any more says so. The stand-ins answer in their vendors' own words; these tests speak ours alone.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from domain.errors import (
    JobFailed,
    OnModelError,
    OutOfCredit,
    RateLimited,
    Rejected,
    ResultExpired,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import BlobRef, JobOutput, VendorJobIds, VendorRequest, VendorState
from domain.submissions import Finding, Submission
from providers.sandbox.server import SandboxServer
from providers.settings import Settings
from providers.vendor_ports import JobVendor, LoraUse, StillOrder, TrainingOrder
from providers.wiring import Ports
from tasks.view_orders import still_settings
from tests.contract.fal_standin import sent
from tests.contract.sandbox_fixtures import running_sandbox, training_zip, wait_until
from tests.contract.sandbox_stand_in_engine import TENSOR_OF

STILLS = {
    "fal": ("sandbox", "flux_lora"),
    "replicate": ("sandbox-replicate", "flux_lora_replicate"),
    "runpod serverless": ("sandbox-runpod", "runpod_sdxl_lora"),
    "comfyui": ("sandbox-comfyui", "comfyui_sdxl"),
}
PODS = "runpod pods"
EVERY = (*STILLS, PODS)
NUMBERS = itertools.count(1)
"""Every POST has a number of its own: some vendors take a name that is made of it, once."""

NUMBERS = itertools.count(1)
"""Every POST of the suite has one of its own: a vendor that is given our ids must not meet one twice."""

ENDS = (VendorState.DONE, VendorState.FAILED, VendorState.CANCELLED, VendorState.GONE)


@dataclass
class Shop:
    """Buys from one vendor as the door does: upload, submit once, look, fetch."""

    server: SandboxServer
    vendor: JobVendor
    request: VendorRequest
    folder: Path

    def submission(self) -> Submission:
        urls = {ref.sha256: self.vendor.upload(self.folder / ref.sha256, ref) for ref in self.request.blobs()}
        return sent(urls).model_copy(update={"number": next(NUMBERS)})

    def submit(self) -> VendorJobIds:
        return self.vendor.submit(self.request, self.submission())

    def wait(self, ids: VendorJobIds) -> VendorState:
        wait_until(lambda: self.vendor.status(self.request, ids).state in ENDS)
        return self.vendor.status(self.request, ids).state

    def output(self, ids: VendorJobIds) -> JobOutput:
        self.wait(ids)
        return self.vendor.output(self.request, ids)

    def fetch(self, output: JobOutput) -> bytes:
        into = io.BytesIO()
        self.vendor.download(output.files[0], into)
        return into.getvalue()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SandboxServer, Ports, Path]]:
    """One sandbox that plays all vendors, and the product's own wiring to it."""
    home = tmp_path_factory.mktemp("every")
    with running_sandbox(home) as server:
        ports = Ports(Settings(home=home, storage_url=(home / "blobs").as_uri()))
        yield server, ports, home
        ports.close()


@pytest.fixture(params=EVERY)
def shop(request: pytest.FixtureRequest, ground: tuple[SandboxServer, Ports, Path]) -> Iterator[Shop]:
    server, ports, folder = ground
    server.faults.set("")
    yield _shop(server, ports, folder, request.param)
    server.faults.set("")


@pytest.fixture(params=STILLS)
def still_shop(request: pytest.FixtureRequest, ground: tuple[SandboxServer, Ports, Path]) -> Iterator[Shop]:
    """Those that take a request and give a picture; a pod trains for minutes and has tests of its own."""
    server, ports, folder = ground
    server.faults.set("")
    yield _shop(server, ports, folder, request.param)
    server.faults.set("")


@pytest.fixture(params=STILLS)
def lora_shop(request: pytest.FixtureRequest, ground: tuple[SandboxServer, Ports, Path]) -> Iterator[Shop]:
    """The same, with a LoRA of the model's base at strength 0.8."""
    server, ports, folder = ground
    server.faults.set("")
    file = folder / f"{request.param}.safetensors"
    module, width = TENSOR_OF[ports.registry.model(STILLS[request.param][1]).base_model]
    factors = {"lora_A": np.full((1, width), 0.01, np.float16), "lora_B": np.full((width, 1), 0.01, np.float16)}
    save_file({f"{module}.{factor}.weight": values for factor, values in factors.items()}, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    file.rename(folder / sha256)
    ref = BlobRef(sha256=sha256, media_type="application/octet-stream", file_name="mei-v1.safetensors")
    yield _shop(server, ports, folder, request.param, LoraUse(file=ref, scale=0.8))
    server.faults.set("")


def _shop(server: SandboxServer, ports: Ports, folder: Path, what: str, *loras: LoraUse) -> Shop:
    if what == PODS:
        name, zipped = "sandbox-runpod", training_zip()
        ref = BlobRef(sha256=hashlib.sha256(zipped).hexdigest(), media_type="application/zip", file_name="set.zip")
        (folder / ref.sha256).write_bytes(zipped)
        order = TrainingOrder(
            trainer_key="runpod_sd_scripts_sdxl", zip=ref, trigger_word="MEIKOB_01", steps=10, image_count=5
        )
        return Shop(server, ports.job_vendor(name), ports.trainer(name).training_request(order), folder)
    name, model = STILLS[what]
    steps, guidance = still_settings(ports.registry.model(model))
    still = StillOrder(
        model_key=model,
        prompt="a pier at night",
        loras=loras,
        image_size=(512, 512),
        steps=steps,
        guidance=guidance,
        seed=7,
    )
    return Shop(server, ports.job_vendor(name), ports.image_maker(name).still_request(still), folder)


# --- what goes well ---


def test_a_still_is_bought_fetched_and_is_what_was_ordered(still_shop: Shop) -> None:
    output = still_shop.output(still_shop.submit())
    assert [file.role for file in output.files] == ["image"]
    assert b"a pier at night" in still_shop.fetch(output)


def test_a_lora_reaches_the_picture_and_one_that_is_accepted_and_ignored_does_not(lora_shop: Shop) -> None:
    used = lora_shop.fetch(lora_shop.output(lora_shop.submit()))
    assert json.loads(used)["loras"] == [0.8]
    lora_shop.server.faults.set("job:ignore=loras")
    ignored = lora_shop.fetch(lora_shop.output(lora_shop.submit()))
    assert json.loads(ignored)["loras"] == []


def test_everyone_says_whether_it_is_there(shop: Shop) -> None:
    assert shop.vendor.ping().is_ready


# --- the submit ---


def test_a_refusal_is_definite_and_a_person_can_read_it(shop: Shop) -> None:
    shop.server.faults.set("submit:refuse=422")
    with pytest.raises(Rejected) as caught:
        shop.submit()
    assert caught.value.message.endswith((".", ".)")) or ":" in caught.value.message


@pytest.mark.parametrize("where", ["rate_limit=7", "rate_limit_body=7"])
def test_being_told_to_wait_says_how_long_in_header_or_body(shop: Shop, where: str) -> None:
    shop.server.faults.set(f"submit:{where}")
    with pytest.raises(RateLimited) as caught:
        shop.submit()
    assert caught.value.retry_after_seconds == 7


def test_an_empty_account_is_told_apart(shop: Shop) -> None:
    shop.server.faults.set("submit:lock")
    with pytest.raises(OutOfCredit):
        shop.submit()


@pytest.mark.parametrize("fault", ["drop_after_accept", "stall_after_accept=0.1", "malformed", "unavailable=502"])
def test_an_answer_that_is_lost_or_unreadable_is_never_taken_for_a_refusal(shop: Shop, fault: str) -> None:
    shop.server.faults.set(f"submit:{fault}")
    with pytest.raises(SubmissionUnknown):
        shop.submit()


def test_a_lost_job_is_found_again_or_the_adapter_says_why_it_cannot_be(shop: Shop) -> None:
    shop.server.faults.set("submit:drop_after_accept#1")
    submission = shop.submission()
    with pytest.raises(SubmissionUnknown):
        shop.vendor.submit(shop.request, submission)
    found = shop.vendor.look_up(shop.request, submission, frozenset())
    if found.finding is Finding.FOUND:
        assert found.ids is not None
        shop.vendor.cancel(shop.request, found.ids)
    else:
        assert not shop.vendor.absence.can_prove
        assert shop.vendor.absence.reason


def test_a_job_that_never_was_is_not_found(shop: Shop) -> None:
    never = shop.submission().model_copy(update={"number": 999_999})
    assert shop.vendor.look_up(shop.request, never, frozenset()).finding is not Finding.FOUND


# --- looking and fetching ---


def test_a_word_that_nobody_knows_is_told_as_such_and_the_job_goes_on(still_shop: Shop) -> None:
    ids = still_shop.submit()
    still_shop.server.faults.set("status:unknown_word=MELTED")
    seen = still_shop.vendor.status(still_shop.request, ids)
    still_shop.server.faults.set("")
    assert seen.state is VendorState.UNKNOWN_WORD
    assert still_shop.wait(ids) is VendorState.DONE


@pytest.mark.parametrize("fault", ["unavailable=503", "malformed", "drop"])
def test_a_look_that_fails_can_be_made_again(still_shop: Shop, fault: str) -> None:
    ids = still_shop.submit()
    still_shop.server.faults.set(f"status:{fault}")
    with pytest.raises(Unavailable):
        still_shop.vendor.status(still_shop.request, ids)
    still_shop.server.faults.set("")
    assert still_shop.wait(ids) is VendorState.DONE


def test_a_job_that_fails_is_a_failure_with_the_vendors_words(still_shop: Shop) -> None:
    still_shop.server.faults.set("job:fail=500")
    ids = still_shop.submit()
    with pytest.raises(JobFailed):
        still_shop.output(ids)


def test_success_without_a_file_is_no_success(still_shop: Shop) -> None:
    still_shop.server.faults.set("job:no_file")
    ids = still_shop.submit()
    with pytest.raises(JobFailed):
        still_shop.output(ids)


def test_a_file_that_breaks_off_is_not_taken_for_whole(still_shop: Shop) -> None:
    still_shop.server.faults.set("job:truncate")
    output = still_shop.output(still_shop.submit())
    with pytest.raises(Unavailable):
        still_shop.fetch(output)


def test_a_file_that_is_gone_says_so(still_shop: Shop) -> None:
    still_shop.server.faults.set("job:expire")
    ids = still_shop.submit()
    with pytest.raises(ResultExpired):
        still_shop.fetch(still_shop.output(ids))


def test_a_job_that_somebody_else_cancels_ends_without_a_result(still_shop: Shop) -> None:
    still_shop.server.faults.set("job:never_ends")
    ids = still_shop.submit()
    still_shop.vendor.cancel(still_shop.request, ids)
    state = still_shop.wait(ids)
    assert state in ENDS
    if state is VendorState.DONE:  # fal calls a cancelled job completed, too
        with pytest.raises(OnModelError):
            still_shop.vendor.output(still_shop.request, ids)
    still_shop.vendor.cancel(still_shop.request, ids)


# --- the files ---


def test_what_is_uploaded_can_be_uploaded_again(shop: Shop) -> None:
    assert all(shop.vendor.upload(shop.folder / ref.sha256, ref) for _ in range(2) for ref in shop.request.blobs())
