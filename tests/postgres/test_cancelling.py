"""Stopping what was bought, on real tables: what was not sent, what runs, what is done, and what nobody can stop."""

from __future__ import annotations

from decimal import Decimal

import pytest

from domain.errors import JobFailed, NeedsPerson, NotConfigured, SubmissionUnknown, Unavailable
from domain.jobs import JobState, VendorState
from tasks.cancelling import cancel_job, cancel_jobs_of_run, cancel_jobs_of_season, stop_paid_work, told
from tasks.jobs import await_job, plan_again, plan_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import PortsForTests
from tests.postgres.door_orders import Open, budget, order_in, planned, state

QUEUED, RUNNING, DONE = VendorState.QUEUED, VendorState.RUNNING, VendorState.DONE
FREE = (Decimal(0), Decimal(0))


def sent(ports: PortsForTests) -> str:
    """A new season's job that its vendor has accepted."""
    _, key = planned(ports)
    submit_job(ports, key)
    return key


def look(ports: PortsForTests, key: str) -> None:
    """As a run's look that sees it running."""
    ports.ledger.beat(key, is_running=True, progress=0.5, waited_seconds=1.0)


def test_a_job_that_was_not_sent_is_cancelled_and_its_money_released(open_with: Open) -> None:
    vendor = StandinVendor()
    ports = open_with(vendor)
    order, key = planned(ports)
    assert cancel_job(ports, key) is JobState.CANCELLED
    assert cancel_job(ports, key) is JobState.CANCELLED
    assert budget(ports, order) == FREE
    submit_job(ports, key)
    assert vendor.calls == 0


def test_a_job_that_waits_in_its_vendors_queue_is_stopped_there_and_costs_nothing(open_with: Open) -> None:
    vendor = StandinVendor(states=(QUEUED, VendorState.CANCELLED))
    ports = open_with(vendor)
    order, key = planned(ports)
    submit_job(ports, key)
    assert cancel_job(ports, key) is JobState.CANCELLED
    assert (vendor.cancelled, budget(ports, order)) == (["request-1"], FREE)


def test_a_job_that_was_running_counts_its_estimate_because_it_may_be_billed(open_with: Open) -> None:
    ports = open_with(StandinVendor(states=(RUNNING, VendorState.CANCELLED)))
    order, key = planned(ports)
    submit_job(ports, key)
    look(ports, key)
    assert cancel_job(ports, key) is JobState.CANCELLED
    assert budget(ports, order) == (Decimal(0), order.estimate_usd)
    assert "1.0000 USD are counted" in told(ports.ledger.get(key))


def test_what_turns_out_done_is_kept_and_settled(open_with: Open) -> None:
    ports = open_with(StandinVendor(states=(DONE,), billed_usd=Decimal("0.40")))
    order, key = planned(ports)
    submit_job(ports, key)
    assert cancel_job(ports, key) is JobState.SUCCEEDED
    job = ports.ledger.get(key)
    assert ports.blobs.has(job.files[0].sha256)
    assert budget(ports, order) == (Decimal(0), Decimal("0.40"))


def test_what_the_vendor_does_not_stop_keeps_its_money_and_the_wish(open_with: Open) -> None:
    ports = open_with(StandinVendor(states=(RUNNING,)))
    order, key = planned(ports)
    submit_job(ports, key)
    look(ports, key)
    assert cancel_job(ports, key) is JobState.RUNNING
    assert ports.ledger.get(key).cancel_requested_at is not None
    assert budget(ports, order) == (order.ceiling_usd, Decimal(0))


def test_a_vendor_that_cannot_be_asked_is_told_and_the_wish_is_noted(open_with: Open) -> None:
    ports = open_with(StandinVendor(states=(QUEUED,), looks=[Unavailable("a gateway's page")]))
    key = sent(ports)
    with pytest.raises(Unavailable):
        cancel_job(ports, key)
    assert (state(ports, key), ports.ledger.get(key).cancel_requested_at is not None) == (JobState.SUBMITTED, True)


def test_a_job_whose_answer_is_not_known_is_left_with_the_wish(open_with: Open) -> None:
    vendor = StandinVendor(submits=[SubmissionUnknown("reset")])
    ports = open_with(vendor)
    order, key = planned(ports)
    with pytest.raises(SubmissionUnknown):
        submit_job(ports, key)
    assert cancel_job(ports, key) is JobState.SUBMISSION_UNKNOWN
    assert ports.ledger.get(key).cancel_requested_at is not None
    assert (vendor.cancelled, budget(ports, order)) == ([], (order.ceiling_usd, Decimal(0)))
    assert "once it is found" in told(ports.ledger.get(key))


def test_a_run_that_waits_for_a_cancelled_job_does_not_buy_it_again(open_with: Open) -> None:
    vendor = StandinVendor(states=(QUEUED, VendorState.CANCELLED))
    ports = open_with(vendor)
    order, key = planned(ports)
    submit_job(ports, key)
    ports.ledger.note_cancel(key)  # the other process has asked; the run sees what came of it first
    with pytest.raises(NeedsPerson, match="run the season again"):
        await_job(ports, key)
    _, unsent = planned(ports)
    cancel_job(ports, unsent)
    submit_job(ports, unsent)
    with pytest.raises(NeedsPerson, match="run the season again"):
        await_job(ports, unsent)
    assert len(vendor.posts) == 1
    # The next run does.
    assert plan_job(ports, order) == order.job_key(2) == plan_again(ports, key, max_attempts=1)


def test_every_open_job_of_a_season_is_cancelled_and_no_others(open_with: Open) -> None:
    ports = open_with(StandinVendor(states=(QUEUED, QUEUED, VendorState.CANCELLED)))
    order, first = planned(ports)
    submit_job(ports, first)
    second = plan_job(ports, order_in(ports, order.season_id, prompt="a gallery"))
    stranger = sent(ports)
    ends = cancel_jobs_of_season(ports, order.season_id)
    assert dict(ends) == {first: JobState.CANCELLED, second: JobState.CANCELLED}
    assert ends[0][0] == second  # what is not sent yet goes first
    assert state(ports, stranger) is JobState.SUBMITTED
    assert cancel_jobs_of_season(ports, order.season_id) == ()


def test_one_jobs_trouble_keeps_no_other_from_being_cancelled(open_with: Open, shared: PortsForTests) -> None:
    vendor = StandinVendor(states=(QUEUED, VendorState.CANCELLED), looks=[Unavailable("a gateway's page")])
    ports = open_with(vendor)
    order, first = planned(ports)
    second = plan_job(ports, order_in(ports, order.season_id, prompt="a gallery"))
    submit_job(ports, first)
    submit_job(ports, second)
    assert dict(cancel_jobs_of_season(ports, order.season_id)) == {
        first: JobState.SUBMITTED,
        second: JobState.CANCELLED,
    }
    with pytest.raises(NotConfigured):  # a machine where the vendor is not set up
        cancel_job(shared, first)


def test_a_runs_jobs_are_found_by_the_run_itself_and_by_the_runs_inside_it(open_with: Open) -> None:
    ports = open_with(StandinVendor(states=(QUEUED, VendorState.CANCELLED)))
    keys = [sent(ports) for _ in range(3)]
    for key, flow_run, root in zip(keys, ("slot-a", "slot-b", "other"), ("season", "season", "other"), strict=True):
        ports.ledger.note_flow_run(key, f"{flow_run}-of-the-test", f"{root}-of-the-test")
    assert [key for key, _ in cancel_jobs_of_run(ports, "slot-a-of-the-test")] == keys[:1]
    assert [key for key, _ in cancel_jobs_of_run(ports, "season-of-the-test")] == keys[1:2]
    assert [state(ports, key) for key in keys] == [JobState.CANCELLED, JobState.CANCELLED, JobState.SUBMITTED]


def test_prefects_hook_stands_at_every_flow_that_buys() -> None:
    from flows.generate_references import generate_references
    from flows.render_season import render_season
    from flows.render_slot import render_slot
    from flows.train_character import train_character

    for flow in (render_season, render_slot, train_character, generate_references):
        assert flow.on_cancellation_hooks == [stop_paid_work]
        assert flow.on_crashed_hooks == []  # a crash cancels nothing


def test_a_stopped_job_that_its_vendor_calls_done_without_a_result_is_cancelled(open_with: Open) -> None:
    nothing = [JobFailed("Request was cancelled")] * 2
    ports = open_with(StandinVendor(states=(RUNNING, DONE), outputs=nothing))
    order, key = planned(ports)
    submit_job(ports, key)
    look(ports, key)
    assert cancel_job(ports, key) is JobState.CANCELLED
    assert budget(ports, order) == (Decimal(0), order.estimate_usd)
    seen_by_the_run = sent(ports)
    ports.ledger.note_cancel(seen_by_the_run)
    with pytest.raises(NeedsPerson, match="run the season again"):
        await_job(ports, seen_by_the_run)
    assert state(ports, seen_by_the_run) is JobState.CANCELLED
