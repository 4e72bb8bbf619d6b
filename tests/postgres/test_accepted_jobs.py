"""A job the vendor accepted: how it fails, is forgotten, is waited for, and what its files must be."""

from __future__ import annotations

from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from domain.errors import JobFailed, ResultExpired, Unavailable
from domain.jobs import JobOutput, JobState, Operation, OutputFile, VendorState
from tasks.jobs import await_job, plan_again, plan_job, submit_job
from tasks.results import LOOKS_BEFORE_GONE
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import HandClock
from tests.postgres.door_orders import Open, budget, planned, state


def test_an_attempt_rises_only_after_the_last_is_known_dead(open_with: Open) -> None:
    vendor = StandinVendor(outputs=[JobFailed("the GPU fell over")])
    ports = open_with(vendor)
    order, key = planned(ports)
    assert plan_job(ports, order, max_attempts=2) == key
    submit_job(ports, key)
    assert plan_job(ports, order, max_attempts=2) == key
    with pytest.raises(JobFailed):
        await_job(ports, key)
    assert budget(ports, order) == (Decimal(0), Decimal(0))
    second = plan_job(ports, order, max_attempts=2)
    assert second != key
    assert second == order.job_key(2) == plan_again(ports, key, max_attempts=2)
    submit_job(ports, second)
    await_job(ports, second)
    assert plan_job(ports, order, max_attempts=9) == second
    assert len(vendor.posts) == 2


def test_when_its_attempts_are_used_up_a_job_answers_with_its_error_again(open_with: Open) -> None:
    vendor = StandinVendor(outputs=[JobFailed("the GPU fell over")] * 2)
    ports = open_with(vendor)
    order, key = planned(ports)
    for attempt in (1, 2):
        key = plan_job(ports, order, max_attempts=2)
        assert ports.ledger.get(key).attempt == attempt
        submit_job(ports, key)
        with pytest.raises(JobFailed):
            await_job(ports, key)
    assert plan_again(ports, key, max_attempts=2) is None
    assert plan_job(ports, order, max_attempts=2) == key
    with pytest.raises(JobFailed, match="fell over"):
        await_job(ports, key)
    assert len(vendor.posts) == 2


def test_a_job_cancelled_at_the_vendor_ends_cancelled_and_releases_its_money(open_with: Open) -> None:
    ports = open_with(StandinVendor(states=(VendorState.QUEUED, VendorState.CANCELLED)))
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(JobFailed, match="cancelled"):
        await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.CANCELLED, (Decimal(0), Decimal(0)))


def test_a_job_the_vendor_forgot_is_believed_after_three_looks_and_counts_as_spent(open_with: Open) -> None:
    vendor = StandinVendor(states=(VendorState.GONE,))
    ports = open_with(vendor)
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(ResultExpired, match="request-1"):
        await_job(ports, key)
    assert vendor.calls == 1 + LOOKS_BEFORE_GONE
    assert (state(ports, key), budget(ports, order)) == (JobState.EXPIRED, (Decimal(0), Decimal(1)))


def test_a_job_missed_twice_and_seen_again_goes_on(open_with: Open) -> None:
    gone = VendorState.GONE
    ports = open_with(StandinVendor(states=(gone, gone, VendorState.RUNNING, gone, gone, VendorState.DONE)))
    _, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    assert state(ports, key) is JobState.SUCCEEDED


def test_a_look_that_fails_changes_nothing_and_can_be_repeated(open_with: Open) -> None:
    vendor = StandinVendor(looks=[Unavailable("502")], outputs=[Unavailable("503")], downloads=[Unavailable("cut")])
    ports = open_with(vendor)
    order, key = planned(ports)
    submit_job(ports, key)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await_job(ports, key)
        assert budget(ports, order) == (Decimal(2), Decimal(0))
    await_job(ports, key)
    assert (state(ports, key), len(vendor.posts)) == (JobState.SUCCEEDED, 1)


def test_a_job_that_takes_too_long_is_not_lost(open_with: Open) -> None:
    vendor = StandinVendor(states=(VendorState.RUNNING,))
    ports = open_with(vendor)
    ports.clock = HandClock(step_seconds=60)
    _, key = planned(ports, operation=Operation.MAKE_STILL)
    submit_job(ports, key)
    with pytest.raises(Unavailable, match="run again to go on waiting"):
        await_job(ports, key)
    assert state(ports, key) is JobState.RUNNING


def _file(role: str, **fields: Any) -> JobOutput:
    return JobOutput(files=(OutputFile(**{"role": role, "url": "standin:out", **fields}),), billed_usd=Decimal("0.5"))


def _png() -> bytes:
    picture = BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    return picture.getvalue()


@pytest.mark.parametrize(
    ("role", "content", "words"),
    [
        ("lora", b"", "returned an empty lora file"),
        ("image", b"<html>error</html>", "the image from sandbox cannot be used"),
        ("image", _png()[:60], "the image from sandbox cannot be used"),
        ("video", b"\0" * 400, "the video from sandbox cannot be used"),
    ],
)
def test_an_output_that_is_empty_or_does_not_decode_fails_the_job_at_what_was_billed(
    open_with: Open, role: str, content: bytes, words: str
) -> None:
    ports = open_with(StandinVendor(outputs=[_file(role)], downloads=[content]))
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(JobFailed, match=words):
        await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.FAILED, (Decimal(0), Decimal("0.5")))
    assert plan_again(ports, key, max_attempts=2) is not None


def test_a_whole_image_is_kept(open_with: Open) -> None:
    ports = open_with(StandinVendor(outputs=[_file("image", file_name="a.png")], downloads=[_png()]))
    _, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    assert ports.ledger.get(key).file("image") is not None


def test_a_result_that_is_gone_before_it_was_fetched_counts_as_spent(open_with: Open) -> None:
    ports = open_with(StandinVendor(outputs=[_file("lora", url="gone:1")]))
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(ResultExpired):
        await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.EXPIRED, (Decimal(0), Decimal("0.5")))


@pytest.mark.parametrize(
    ("said", "kept"),
    [("../../etc/passwd", "passwd"), ("a\\b\\x.safetensors", "x.safetensors"), ("..", ".."), ("", "lora")],
)
def test_a_vendors_file_name_is_only_a_name(open_with: Open, said: str, kept: str) -> None:
    ports = open_with(StandinVendor(outputs=[_file("lora", file_name=said)]))
    _, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    file = ports.ledger.get(key).file("lora")
    assert file is not None
    assert file.file_name == kept
    assert "/" not in file.file_name
