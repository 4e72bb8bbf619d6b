"""A job the vendor accepted: how it fails, is forgotten, is waited for, and what its files must be."""

from __future__ import annotations

from decimal import Decimal
from io import BytesIO
from typing import Any, NamedTuple

import pytest
from PIL import Image

from domain.errors import BadInput, JobFailed, NeedsPerson, ResultExpired, Unavailable
from domain.jobs import JobOrder, JobOutput, JobState, Operation, OutputFile, VendorState
from domain.submissions import Choice
from providers.postgres.ledger import Ledger
from tasks.jobs import await_job, plan_again, plan_job, submit_job
from tasks.lost_answers import resolve
from tasks.results import FETCH_AFTER_SECONDS, LOOKS_BEFORE_GONE, TIME_LIMIT_SECONDS
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import HandClock, PortsForTests
from tests.postgres.door_orders import Open, budget, planned, state

FETCHES = len(FETCH_AFTER_SECONDS)


class Overdue(NamedTuple):
    vendor: StandinVendor
    ports: PortsForTests
    order: JobOrder
    key: str


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


def _overdue(open_with: Open, *afterwards: VendorState, seen: VendorState = VendorState.RUNNING) -> Overdue:
    """A still that is looked at for the last time; the vendor is then seen in the states given."""
    vendor = StandinVendor(states=(seen, *afterwards))
    ports = open_with(vendor)
    order, key = planned(ports, operation=Operation.MAKE_STILL)
    submit_job(ports, key)
    limit = TIME_LIMIT_SECONDS[Operation.MAKE_STILL]
    ports.ledger.beat(key, is_running=False, progress=None, waited_seconds=limit + 1)
    return Overdue(vendor, ports, order, key)


def test_a_job_past_its_time_is_stopped_and_counts_as_spent_when_it_was_running(open_with: Open) -> None:
    late = _overdue(open_with, VendorState.CANCELLED)
    with pytest.raises(NeedsPerson, match=r"not over after 0\.25 h of waiting and was stopped"):
        await_job(late.ports, late.key)
    assert late.vendor.cancelled == ["request-1"]
    assert (state(late.ports, late.key), budget(late.ports, late.order)) == (JobState.FAILED, (Decimal(0), Decimal(1)))
    assert late.ports.ledger.get(late.key).cancel_requested_at is not None


def test_a_job_past_its_time_that_never_ran_costs_nothing(open_with: Open) -> None:
    late = _overdue(open_with, VendorState.QUEUED, VendorState.GONE, seen=VendorState.QUEUED)
    with pytest.raises(NeedsPerson, match="was stopped"):
        await_job(late.ports, late.key)
    assert (state(late.ports, late.key), budget(late.ports, late.order)) == (JobState.FAILED, (Decimal(0), Decimal(0)))


def test_a_job_that_turns_out_done_when_it_is_stopped_is_kept(open_with: Open) -> None:
    late = _overdue(open_with, VendorState.RUNNING, VendorState.DONE)
    await_job(late.ports, late.key)
    assert state(late.ports, late.key) is JobState.SUCCEEDED


def test_a_job_that_its_vendor_does_not_stop_keeps_its_money_and_waits_for_a_person(open_with: Open) -> None:
    late = _overdue(open_with)
    with pytest.raises(NeedsPerson, match=f"onmodel jobs resolve {late.key[:12]} --abandon") as waits:
        await_job(late.ports, late.key)
    assert waits.value.exit_code == 6
    assert (state(late.ports, late.key), budget(late.ports, late.order)) == (JobState.RUNNING, (Decimal(2), Decimal(0)))


def test_a_job_within_its_time_is_not_stopped_whatever_the_clock_says(open_with: Open) -> None:
    vendor = StandinVendor(states=(*[VendorState.RUNNING] * 4, VendorState.DONE))
    ports = open_with(vendor)
    ports.clock = HandClock(step_seconds=86_400)
    _, key = planned(ports, operation=Operation.MAKE_STILL)
    submit_job(ports, key)
    await_job(ports, key)
    assert (vendor.cancelled, state(ports, key)) == ([], JobState.SUCCEEDED)
    assert ports.ledger.get(key).waited_seconds < 60


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
    ports = open_with(StandinVendor(outputs=[_file(role)] * FETCHES, downloads=[content] * FETCHES))
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(JobFailed, match=words):
        await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.FAILED, (Decimal(0), Decimal("0.5")))
    assert plan_again(ports, key, max_attempts=2) is not None


@pytest.mark.parametrize("bad_ones", range(1, FETCHES))
def test_a_file_that_does_not_decode_is_fetched_again_before_it_counts(open_with: Open, bad_ones: int) -> None:
    downloads = [*[_png()[:60]] * bad_ones, _png()]
    ports = open_with(StandinVendor(outputs=[_file("image")] * FETCHES, downloads=downloads))
    order, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.SUCCEEDED, (Decimal(0), Decimal("0.5")))


def test_a_whole_image_is_kept(open_with: Open) -> None:
    ports = open_with(StandinVendor(outputs=[_file("image", file_name="a.png")], downloads=[_png()]))
    _, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    assert ports.ledger.get(key).file("image") is not None


def test_a_result_that_is_gone_before_it_was_fetched_counts_as_spent(open_with: Open) -> None:
    vendor = StandinVendor(outputs=[_file("lora", url=f"gone:{fetch}") for fetch in range(1, FETCHES + 1)])
    ports = open_with(vendor)
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(ResultExpired, match=f"job {key[:12]}.*gone:{FETCHES}"):
        await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.EXPIRED, (Decimal(0), Decimal("0.5")))


def test_a_result_that_is_missing_for_a_moment_is_asked_for_again(open_with: Open) -> None:
    missing = ResultExpired("404, the result is not there")
    vendor = StandinVendor(outputs=[missing] * (FETCHES - 1))
    ports = open_with(vendor)
    order, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.SUCCEEDED, (Decimal(0), Decimal(1)))


def test_a_result_that_stays_missing_counts_as_spent(open_with: Open) -> None:
    missing = ResultExpired("404, the result is not there")
    vendor = StandinVendor(outputs=[missing] * FETCHES)
    ports = open_with(vendor)
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(ResultExpired, match=r"not there.*--resubmit"):
        await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.EXPIRED, (Decimal(0), Decimal(1)))


class DyingLedger(Ledger):
    """The process ends just before it settles."""

    def succeed(self, *_: Any, **__: Any) -> None:
        raise Unavailable("the power went out")


def test_a_result_that_was_kept_is_settled_without_its_vendor_by_whoever_comes_next(open_with: Open) -> None:
    first, forgetful = open_with(StandinVendor()), StandinVendor(states=(VendorState.GONE,))
    order, key = planned(first)
    submit_job(first, key)
    first.__dict__["ledger"] = DyingLedger(first.database)
    with pytest.raises(Unavailable, match="power"):
        await_job(first, key)
    assert (state(first, key), budget(first, order)) == (JobState.RUNNING, (Decimal(2), Decimal(0)))
    second = open_with(forgetful)
    await_job(second, key)
    assert (state(second, key), budget(second, order)) == (JobState.SUCCEEDED, (Decimal(0), Decimal(1)))
    assert forgetful.calls == 0
    assert second.blobs.has(second.ledger.get(key).files[0].sha256)


def test_a_result_that_was_noted_and_is_no_longer_in_our_store_is_fetched_again(open_with: Open) -> None:
    first = open_with(StandinVendor())
    _, key = planned(first)
    submit_job(first, key)
    first.__dict__["ledger"] = DyingLedger(first.database)
    with pytest.raises(Unavailable, match="power"):
        await_job(first, key)
    first.blobs.delete(first.ledger.get(key).files[0].sha256)
    second = open_with(StandinVendor())
    await_job(second, key)
    assert state(second, key) is JobState.SUCCEEDED
    assert second.blobs.has(second.ledger.get(key).files[0].sha256)


def test_an_address_that_has_expired_is_asked_for_anew(open_with: Open) -> None:
    ports = open_with(StandinVendor(outputs=[_file("lora", url="gone:1"), _file("lora")]))
    _, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    assert state(ports, key) is JobState.SUCCEEDED


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


@pytest.mark.parametrize(("charges_failures", "spent"), [(False, Decimal(0)), (True, Decimal(1))])
def test_a_failure_counts_its_estimate_where_the_vendor_charges_failures_and_nothing_elsewhere(
    open_with: Open, charges_failures: bool, spent: Decimal
) -> None:
    ports = open_with(StandinVendor(outputs=[JobFailed("out of memory")], charges_failures=charges_failures))
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(JobFailed):
        await_job(ports, key)
    assert budget(ports, order) == (Decimal(0), spent)


def test_what_was_accepted_and_vanished_is_bought_again_only_on_a_persons_word(open_with: Open) -> None:
    vendor = StandinVendor(states=(VendorState.GONE, VendorState.GONE, VendorState.GONE, VendorState.DONE))
    ports = open_with(vendor)
    order, key = planned(ports)
    submit_job(ports, key)
    for _ in range(2):
        with pytest.raises(ResultExpired, match=f"onmodel jobs resolve {key[:12]} --resubmit"):
            await_job(ports, key)
        assert plan_again(ports, key, max_attempts=9) is None
        assert plan_job(ports, order, max_attempts=9) == key
    assert [job.key for job in ports.ledger.jobs_for_a_person(order.season_id)] == [key]
    resolve(ports, key, Choice.RESUBMIT)
    assert ports.ledger.jobs_for_a_person(order.season_id) == []
    second = plan_job(ports, order)
    assert second == order.job_key(2)
    vendor = StandinVendor()
    ports = open_with(vendor)
    submit_job(ports, second)
    await_job(ports, second)
    assert (len(vendor.posts), budget(ports, order)) == (1, (Decimal(0), Decimal(2)))
    assert [event.detail for event in ports.ledger.events(key)][-1] == "a person wants it bought again"


def test_what_a_person_does_without_has_failed_and_is_not_bought_again(open_with: Open) -> None:
    ports = open_with(StandinVendor(states=(VendorState.GONE,)))
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(ResultExpired):
        await_job(ports, key)
    resolve(ports, key, Choice.ABANDON)
    with pytest.raises(JobFailed):
        await_job(ports, key)
    assert plan_again(ports, key, max_attempts=9) is None
    assert plan_job(ports, order, max_attempts=9) == key
    with pytest.raises(BadInput):
        resolve(ports, key, Choice.RESUBMIT)
