"""Look-up and charges through the unchanged adapter, against what the sandbox really accepted and did."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from domain.errors import (
    NotConfigured,
    OnModelError,
    OutOfCredit,
    RateLimited,
    ResultExpired,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import OutputFile, VendorJobIds, VendorRequest, VendorState
from domain.money import price_of_still, price_of_training, price_of_video
from domain.registry import load_registry
from domain.submissions import Finding, Submission
from providers.fal.vendor import FalVendor
from providers.sandbox.charges import list_price_usd
from providers.sandbox.journal import Job
from providers.sandbox.launcher import control
from providers.sandbox.server import SandboxServer
from providers.sandbox.transport import SandboxTransport
from providers.vendor_ports import StillOrder, UsageLine
from providers.web import open_http
from tests.contract.fal_standin import sent
from tests.contract.sandbox_fixtures import ELEMENTS, KLING, STILLS, TRAINER, WAN_LORA, running_sandbox, wait_until

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    with running_sandbox(tmp_path_factory.mktemp("charges")) as server:
        yield server


@pytest.fixture
def server(shared_server: SandboxServer) -> Iterator[SandboxServer]:
    """One server for all, each time without faults."""
    shared_server.faults.set("")
    yield shared_server
    shared_server.faults.set("")


@pytest.fixture
def vendor(server: SandboxServer) -> Iterator[FalVendor]:
    with open_http(SandboxTransport(server.url), timeout=httpx.Timeout(5, connect=5)) as http:
        yield FalVendor(http, SecretStr("test"), load_registry(), name="sandbox")


prompts = (f"a pier, {number}" for number in range(1000))


def still(vendor: FalVendor) -> VendorRequest:
    """A request that no other test makes."""
    return vendor.still_request(StillOrder(model_key="flux_lora", prompt=next(prompts), image_size="square", seed=1))


def known(server: SandboxServer) -> frozenset[str]:
    return frozenset(job["request_id"] for job in control(server.url, "GET", "jobs"))


def lost(server: SandboxServer, vendor: FalVendor, fault: str) -> tuple[VendorRequest, Submission]:
    """A submit whose answer was lost, and the list is without faults again."""
    request, submission = still(vendor), sent()
    server.faults.set(fault)
    with pytest.raises(SubmissionUnknown):
        vendor.submit(request, submission)
    server.faults.set("")
    return request, submission


def finish(vendor: FalVendor, request: VendorRequest, ids: VendorJobIds) -> None:
    wait_until(lambda: vendor.status(request, ids).state is VendorState.DONE)


def charged(vendor: FalVendor, request_id: str) -> list[UsageLine]:
    now = datetime.now(UTC)
    return [line for line in vendor.usage(now - DAY, now + DAY) if line.subject == request_id]


@pytest.mark.parametrize("fault", ["submit:drop_after_accept", "submit:malformed"])
def test_a_job_whose_answer_was_lost_is_found_and_brought_to_its_end(
    server: SandboxServer, vendor: FalVendor, fault: str
) -> None:
    before = known(server)
    request, submission = lost(server, vendor, fault)
    found = vendor.look_up(request, submission, before)
    assert found.finding is Finding.FOUND
    assert found.ids is not None
    finish(vendor, request, found.ids)
    assert vendor.output(request, found.ids).files
    assert vendor.look_up(request, submission, before | {found.ids.request_id}).finding is Finding.ABSENT


@pytest.mark.parametrize("fault", ["submit:drop_before_accept", "submit:unavailable=502", "submit:refuse=500"])
def test_a_job_that_was_never_accepted_is_not_found(server: SandboxServer, vendor: FalVendor, fault: str) -> None:
    before = known(server)
    request, submission = lost(server, vendor, fault)
    assert vendor.look_up(request, submission, before).finding is Finding.ABSENT
    assert known(server) == before


def test_a_list_that_lags_or_shows_no_inputs_does_not_mislead(server: SandboxServer, vendor: FalVendor) -> None:
    before = known(server)
    request, submission = lost(server, vendor, "submit:drop_after_accept")
    server.faults.set("list:hide#1,list:no_input#2")
    looks = [vendor.look_up(request, submission, before) for _ in range(3)]
    assert [look.finding for look in looks] == [Finding.ABSENT, Finding.UNCLEAR, Finding.FOUND]
    assert looks[2].ids is not None
    assert looks[1].candidates == (looks[2].ids.request_id,)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("list:unavailable=502", Unavailable),
        ("list:refuse=500", Unavailable),
        ("list:malformed", Unavailable),
        ("list:drop", Unavailable),
        ("list:rate_limit_body=2", RateLimited),
        ("list:lock", OutOfCredit),
    ],
)
def test_a_list_that_fails_is_no_answer(
    server: SandboxServer, vendor: FalVendor, fault: str, error: type[OnModelError]
) -> None:
    server.faults.set(fault)
    with pytest.raises(error) as caught:
        vendor.look_up(still(vendor), sent(), frozenset())
    assert type(caught.value) is error


def test_a_wait_that_stands_in_the_body_alone_is_read(server: SandboxServer, vendor: FalVendor) -> None:
    server.faults.set("submit:rate_limit_body=2")
    before = known(server)
    with pytest.raises(RateLimited) as caught:
        vendor.submit(still(vendor), sent())
    assert (caught.value.retry_after_seconds, known(server)) == (2.0, before)


def test_what_was_done_is_charged_at_its_list_price_and_a_failure_is_not(
    server: SandboxServer, vendor: FalVendor
) -> None:
    price = price_of_still("flux_lora", 512, 512)
    expected = {"job:slow=0": price, "job:fail=500": None, "job:fail=422": None, "job:charge@*,job:fail=422": price}
    expected["job:charge=1.25"] = Decimal("1.25")
    for fault, amount in expected.items():
        server.faults.set(fault)
        request = still(vendor)
        ids = vendor.submit(request, sent())
        finish(vendor, request, ids)
        assert [line.amount_usd for line in charged(vendor, ids.request_id)] == ([] if amount is None else [amount])


@pytest.mark.parametrize("fault", ["usage:refuse=403@billing-events", "usage:vanish@billing-events"])
def test_the_sums_of_the_days_are_those_of_the_requests(server: SandboxServer, vendor: FalVendor, fault: str) -> None:
    request = still(vendor)
    finish(vendor, request, vendor.submit(request, sent()))
    now = datetime.now(UTC)
    by_request = vendor.usage(now - DAY, now + DAY)
    server.faults.set(fault)
    by_day = vendor.usage(now - DAY, now + DAY)
    assert {line.subject for line in by_day} == {STILLS}
    assert sum(line.amount_usd for line in by_day) == sum(line.amount_usd for line in by_request)
    assert [line.is_single_job for line in by_day] == [False] * len(by_day)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("usage:refuse=403", NotConfigured),
        ("usage:unavailable=502", Unavailable),
        ("usage:malformed", Unavailable),
        ("usage:drop", Unavailable),
    ],
)
def test_charges_that_cannot_be_read_are_an_error(
    server: SandboxServer, vendor: FalVendor, fault: str, error: type[OnModelError]
) -> None:
    server.faults.set(fault)
    now = datetime.now(UTC)
    with pytest.raises(error):
        vendor.usage(now - DAY, now)


def priced(endpoint: str, **given: object) -> Decimal:
    return list_price_usd(Job(request_id="x", endpoint=endpoint, input=given, accepted_at=0))


def test_each_kind_of_work_has_its_list_price() -> None:
    zip_url = {"images_data_url": "https://v3.fal.media/files/set.zip"}
    assert priced(TRAINER, **zip_url) == price_of_training("fal_flux_lora_fast", 1000)
    assert priced(TRAINER, **zip_url, steps=300) == price_of_training("fal_flux_lora_fast", 300)
    size = {"width": 1024, "height": 1024}
    assert priced(STILLS, prompt="x", image_size=size, num_images=2) == 2 * price_of_still("flux_lora", 1024, 1024)
    assert priced(KLING, prompt="x", image_url="u", duration="10") == price_of_video("kling_v25_turbo", 10)
    assert priced(ELEMENTS, prompt="x", image_urls=["u"], duration="7") == price_of_video("kling_o1_reference", 7)
    assert priced(WAN_LORA, prompt="x", num_frames=81) == price_of_video("wan_22_t2v_lora", 81 / 16)
    assert priced("fal-ai/veo3.1/image-to-video", prompt="x", image_url="u", duration="4s") == price_of_video(
        "veo_31", 4
    )
    assert priced(STILLS) == priced("fal-ai/unknown") == 0


def test_an_address_that_ran_out_once_comes_back_new_with_the_next_result(
    server: SandboxServer, vendor: FalVendor, tmp_path: Path
) -> None:
    request = still(vendor)
    ids = vendor.submit(request, sent())
    finish(vendor, request, ids)

    def fetch(file: OutputFile) -> bytes:
        with (tmp_path / "file").open("w+b") as into:
            vendor.download(file, into)
        return (tmp_path / "file").read_bytes()

    (old,) = vendor.output(request, ids).files
    whole = fetch(old)
    server.faults.set("file:expire_once")
    for _ in range(2):
        with pytest.raises(ResultExpired):
            fetch(old)
    (new,) = vendor.output(request, ids).files
    assert new.url != old.url
    assert fetch(new) == fetch(new) == whole


@pytest.mark.parametrize("fault", ["result:refuse=500", "result:unavailable=502", "result:malformed"])
def test_a_result_that_failed_once_can_be_had_again(server: SandboxServer, vendor: FalVendor, fault: str) -> None:
    request = still(vendor)
    ids = vendor.submit(request, sent())
    finish(vendor, request, ids)
    server.faults.set(f"{fault}#1")
    with pytest.raises(Unavailable):
        vendor.output(request, ids)
    assert vendor.output(request, ids).files


def test_a_cancel_that_is_taken_and_ignored_leaves_the_job_running(server: SandboxServer, vendor: FalVendor) -> None:
    server.faults.set("job:never_ends,cancel:ignore#1")
    request = still(vendor)
    ids = vendor.submit(request, sent())
    wait_until(lambda: vendor.status(request, ids).state is VendorState.RUNNING)
    vendor.cancel(request, ids)
    assert vendor.status(request, ids).state is VendorState.RUNNING
    vendor.cancel(request, ids)
    assert vendor.status(request, ids).state is VendorState.DONE
    assert charged(vendor, ids.request_id) == []
