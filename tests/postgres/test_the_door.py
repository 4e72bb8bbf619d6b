"""The one door for money, on real tables: whatever goes wrong, a job is paid at most once and nothing is lost."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from domain.circuits import FIRST_PAUSE, OUTAGES_TO_OPEN
from domain.errors import (
    BadTrainingSet,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    PromptRefused,
    RateLimited,
    Rejected,
    Retryable,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import BlobRef, JobState, VendorRequest, blob_argument
from tasks.jobs import await_job, plan_again, plan_job, submit_job
from tests.acceptance.standin_vendor import WEIGHTS, StandinVendor
from tests.ports_for_tests import HandClock, store_season
from tests.postgres.door_orders import Open, budget, order_in, planned, slugs, state

# --- the whole way ---


def test_a_job_goes_through_the_door_from_plan_to_settlement(open_with: Open) -> None:
    vendor = StandinVendor(billed_usd=Decimal("0.90"))
    ports = open_with(vendor)
    order, key = planned(ports)
    assert (state(ports, key), budget(ports, order)) == (JobState.PLANNED, (Decimal(2), Decimal(0)))
    submit_job(ports, key)
    job = ports.ledger.get(key)
    assert (job.state, job.ids and job.ids.request_id) == (JobState.SUBMITTED, "request-1")
    await_job(ports, key)
    job = ports.ledger.get(key)
    assert (job.state, job.billed_usd, job.seed) == (JobState.SUCCEEDED, Decimal("0.90"), 7)
    assert budget(ports, order) == (Decimal(0), Decimal("0.90"))
    kept = job.file("lora")
    assert kept is not None
    assert ports.blobs.read(kept.sha256) == WEIGHTS
    (cost,) = ports.ledger.costs(order.season_id)
    assert (cost.amount_usd, cost.forecast_usd, cost.once_key) == (Decimal("0.90"), Decimal(1), f"job:{key}")


def test_where_the_vendor_says_no_price_the_estimate_is_settled_and_the_rest_released(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    order, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    assert budget(ports, order) == (Decimal(0), Decimal(1))


def test_doing_everything_again_makes_no_call_and_no_cost(open_with: Open) -> None:
    vendor = StandinVendor()
    ports = open_with(vendor)
    order, key = planned(ports)
    for _ in range(3):
        assert plan_job(ports, order) == key
        submit_job(ports, key)
        await_job(ports, key)
    calls = vendor.calls
    again = ports.beside()
    assert plan_job(again, order) == key
    submit_job(again, key)
    await_job(again, key)
    again.close()
    assert (len(vendor.posts), vendor.calls) == (1, calls)
    assert len(ports.ledger.costs(order.season_id)) == 1
    assert budget(ports, order) == (Decimal(0), Decimal(1))


def test_a_job_submitted_by_one_process_is_awaited_by_another(open_with: Open) -> None:
    vendor = StandinVendor()
    first, second = open_with(vendor), open_with(vendor)
    _, key = planned(first)
    submit_job(first, key)
    await_job(second, key)
    assert state(first, key) is JobState.SUCCEEDED
    assert len(vendor.posts) == 1


def test_a_file_is_uploaded_once_and_its_url_is_what_the_vendor_gets(open_with: Open) -> None:
    vendor = StandinVendor()
    ports = open_with(vendor)
    sha256 = ports.blobs.put_bytes(b"a zip of this test", "application/zip")
    ref = BlobRef(sha256=sha256, media_type="application/zip", file_name="set.zip")
    season_id = store_season(ports, next(slugs))
    for prompt in ("one", "two"):
        request = VendorRequest(
            vendor="sandbox", endpoint="train/flux", arguments={"zip": blob_argument(ref), "prompt": prompt}
        )
        submit_job(ports, plan_job(ports, order_in(ports, season_id, request=request)))
    assert vendor.uploaded == [ref]
    assert vendor.urls_sent == [{sha256: "standin:uploads/1/set.zip"}] * 2


class _ForgetfulVendor(StandinVendor):
    """Forgets an upload before it could be sent again."""

    uploads_kept_for = timedelta(days=-100 * 365)


def test_a_vendor_that_forgets_uploads_gets_the_file_again_for_the_next_job(open_with: Open) -> None:
    vendor = _ForgetfulVendor()
    ports = open_with(vendor)
    sha256 = ports.blobs.put_bytes(b"a zip of that test", "application/zip")
    ref = BlobRef(sha256=sha256, media_type="application/zip", file_name="set.zip")
    season_id = store_season(ports, next(slugs))
    for prompt in ("one", "two"):
        request = VendorRequest(
            vendor="sandbox", endpoint="train/flux", arguments={"zip": blob_argument(ref), "prompt": prompt}
        )
        submit_job(ports, plan_job(ports, order_in(ports, season_id, request=request)))
    assert vendor.uploaded == [ref, ref]


def test_an_upload_that_fails_for_now_is_repeated_before_anything_is_paid(open_with: Open) -> None:
    vendor = StandinVendor(uploads=[Unavailable("the storage is down")])
    ports = open_with(vendor)
    ref = BlobRef(sha256=ports.blobs.put_bytes(b"another", "x/y"), media_type="x/y", file_name="a")
    request = VendorRequest(vendor="sandbox", endpoint="train/flux", arguments={"zip": blob_argument(ref)})
    _, key = planned(ports, request=request)
    submit_job(ports, key)
    assert (len(vendor.posts), state(ports, key)) == (1, JobState.SUBMITTED)


# --- a lost answer ---


@pytest.mark.parametrize("lost", ["the read timed out", "the connection was dropped", "the answer is no JSON"])
def test_a_lost_answer_is_never_paid_twice(open_with: Open, lost: str) -> None:
    vendor = StandinVendor(submits=[SubmissionUnknown(lost)])
    ports = open_with(vendor)
    order, key = planned(ports)
    for process in (ports, ports, open_with(vendor)):
        with pytest.raises(SubmissionUnknown, match=f"{key[:12]}.*{lost}.*not sent again") as unknown:
            submit_job(process, key)
        assert unknown.value.exit_code == 6
        for choice in ("--adopt ID", "--resubmit", "--abandon"):
            assert f"onmodel jobs resolve {key[:12]} {choice}" in unknown.value.message
        assert plan_job(process, order) == key
    assert len(vendor.posts) == 1
    assert state(ports, key) is JobState.SUBMISSION_UNKNOWN
    assert budget(ports, order) == (Decimal(2), Decimal(0))
    assert ports.ledger.costs(order.season_id) == []


def test_a_lost_answer_is_not_planned_again_as_another_attempt(open_with: Open) -> None:
    ports = open_with(StandinVendor(submits=[SubmissionUnknown("reset")]))
    order, key = planned(ports)
    with pytest.raises(SubmissionUnknown):
        submit_job(ports, key)
    assert plan_job(ports, order, max_attempts=5) == key
    latest = ports.ledger.latest(order.work_key)
    assert latest is not None
    assert latest.attempt == 1


# --- definite refusals ---


@pytest.mark.parametrize("refusal", [RateLimited("too many", 30.0), Unavailable("connection refused")])
def test_a_definite_refusal_for_now_goes_back_to_planned_and_is_claimed_again(
    open_with: Open, refusal: OnModelError
) -> None:
    vendor = StandinVendor(submits=[refusal])
    ports = open_with(vendor)
    assert isinstance(ports.clock, HandClock)
    before = ports.clock.now()
    order, key = planned(ports)
    submit_job(ports, key)
    assert (len(vendor.posts), state(ports, key)) == (2, JobState.SUBMITTED)
    waited = ports.clock.now() - before
    assert waited >= timedelta(seconds=30 if isinstance(refusal, RateLimited) else 0.1)
    assert budget(ports, order) == (Decimal(2), Decimal(0))


def test_nobody_claims_a_refused_job_before_its_time(open_with: Open) -> None:
    vendor = StandinVendor(submits=[RateLimited("too many", 600.0)] * 9)
    ports = open_with(vendor)
    _, key = planned(ports)
    with pytest.raises(RateLimited):
        submit_job(ports, key)
    due = ports.ledger.get(key).not_before
    assert due == ports.clock.now() + timedelta(seconds=600)
    assert due is not None
    assert not ports.ledger.claim(key, due - timedelta(seconds=1), {})
    assert state(ports, key) is JobState.PLANNED
    assert ports.ledger.claim(key, due, {})


def test_a_vendor_that_keeps_refusing_is_given_up_for_now_and_the_job_stays_planned(open_with: Open) -> None:
    vendor = StandinVendor(submits=[Unavailable("down")] * 99)
    ports = open_with(vendor)
    order, key = planned(ports)
    with pytest.raises(Retryable):
        submit_job(ports, key)
    assert OUTAGES_TO_OPEN < len(vendor.posts) < 20
    assert state(ports, key) is JobState.PLANNED
    assert budget(ports, order) == (Decimal(2), Decimal(0))
    well = open_with(StandinVendor())
    well.clock.sleep((ports.clock.now() - well.clock.now()).total_seconds())
    submit_job(well, key)
    assert state(ports, key) is JobState.SUBMITTED


@pytest.mark.parametrize("kind", [OutOfCredit, NotConfigured])
def test_a_locked_account_stops_at_once_and_the_job_goes_on_when_it_is_open_again(
    open_with: Open, kind: type[OnModelError]
) -> None:
    vendor = StandinVendor(submits=[kind("the account is locked")])
    ports = open_with(vendor)
    _, key = planned(ports)
    with pytest.raises(kind):
        submit_job(ports, key)
    assert (len(vendor.posts), state(ports, key)) == (1, JobState.PLANNED)
    if kind is OutOfCredit:
        with pytest.raises(OutOfCredit, match=r"its account was refused.*is locked"):
            submit_job(ports, key)
        assert len(vendor.posts) == 1
        ports.clock.sleep(FIRST_PAUSE["account"].total_seconds())
    submit_job(ports, key)
    assert (len(vendor.posts), state(ports, key)) == (2, JobState.SUBMITTED)


@pytest.mark.parametrize("kind", [Rejected, PromptRefused, BadTrainingSet])
def test_a_refused_request_ends_failed_charges_nothing_and_is_never_repeated(
    open_with: Open, kind: type[OnModelError]
) -> None:
    vendor = StandinVendor(submits=[kind("field steps: too many")])
    ports = open_with(vendor)
    order, key = planned(ports)
    with pytest.raises(kind, match="too many"):
        submit_job(ports, key)
    assert state(ports, key) is JobState.FAILED
    assert budget(ports, order) == (Decimal(0), Decimal(0))
    assert [cost.amount_usd for cost in ports.ledger.costs(order.season_id)] == [Decimal(0)]
    assert plan_job(ports, order, max_attempts=5) == key
    assert plan_again(ports, key, max_attempts=5) is None
    submit_job(ports, key)
    with pytest.raises(kind, match="too many"):
        await_job(ports, key)
    assert len(vendor.posts) == 1
