"""Work whose vendor is down moves to the next one of the manifest: as a new job, only when the first cannot have it."""

from __future__ import annotations

import threading
from decimal import Decimal

import pytest

from domain.errors import JobFailed, OutOfCredit, OverBudget, RateLimited, SubmissionUnknown, Unavailable
from domain.jobs import JobOrder, JobState
from tasks.breaker import note_refusal
from tasks.jobs import await_job, current_job, move_to_next_vendor, plan_again, plan_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import PortsForTests, store_season
from tests.postgres.door_orders import Open, budget, order_in, request_at, run_together, run_whole, slugs, state


def _vendors(**of: StandinVendor) -> list[StandinVendor]:
    return [of.get(name) or StandinVendor(name=name) for name in ("a", "b", "c")]


def _chained(ports: PortsForTests, *, budget_usd: str = "60", prices: tuple[str, ...] = ("2", "3", "4")) -> JobOrder:
    """An order at vendor a with b and c to follow."""
    season_id = store_season(ports, next(slugs), budget_usd=budget_usd)
    a, b, c = (
        order_in(ports, season_id, request=request_at(name, f"shot of {season_id}"), usd=usd)
        for name, usd in zip("abc", prices, strict=True)
    )
    return a.model_copy(update={"fallbacks": (b, c)})


def test_a_job_whose_vendor_is_down_becomes_a_new_job_at_the_next(open_with: Open) -> None:
    vendors = _vendors(a=StandinVendor(name="a", submits=[Unavailable("503")] * 4))
    ports = open_with(*vendors)
    order = _chained(ports)
    key = plan_job(ports, order)
    with pytest.raises(Unavailable):
        submit_job(ports, key)
    assert state(ports, key) is JobState.PLANNED
    moved = move_to_next_vendor(ports, key)
    assert moved == order.fallbacks[0].job_key(1)
    old, new = ports.ledger.get(key), ports.ledger.get(moved)
    assert (old.state, old.moved_to, old.billed_usd) == (JobState.CANCELLED, moved, Decimal(0))
    assert (new.state, new.request.vendor, new.attempt) == (JobState.PLANNED, "b", 1)
    assert [fallback.request.vendor for fallback in new.fallbacks] == ["c"]
    assert budget(ports, order) == (Decimal(3), Decimal(0))
    assert "moved to b: 503" in ports.ledger.events(key)[-1].detail
    run_whole(ports, moved)
    assert budget(ports, order) == (Decimal(0), Decimal("1.5"))
    assert [len(vendor.posts) for vendor in vendors] == [4, 1, 0]


def test_the_same_work_is_found_wherever_it_has_moved(open_with: Open) -> None:
    ports = open_with(*_vendors())
    order = _chained(ports)
    key = plan_job(ports, order)
    second = move_to_next_vendor(ports, key)
    assert second is not None
    third = move_to_next_vendor(ports, second)
    assert third is not None
    assert ports.ledger.get(third).request.vendor == "c"
    assert move_to_next_vendor(ports, third) is None, "there is no vendor after c"
    assert state(ports, third) is JobState.PLANNED
    for known in (order, *order.fallbacks):
        current = current_job(ports, known.work_key)
        assert current is not None
        assert current.key == third
    assert plan_job(ports, order, max_attempts=3) == third
    assert budget(ports, order) == (Decimal(4), Decimal(0))


def test_an_attempt_after_a_move_is_made_where_the_work_is_by_now(open_with: Open) -> None:
    ports = open_with(*_vendors(b=StandinVendor(name="b", outputs=[JobFailed("the GPU fell over")])))
    order = _chained(ports)
    moved = move_to_next_vendor(ports, plan_job(ports, order))
    assert moved is not None
    submit_job(ports, moved)
    with pytest.raises(JobFailed):
        await_job(ports, moved)
    assert plan_job(ports, order, max_attempts=1) == moved
    second = plan_job(ports, order, max_attempts=2)
    assert second == order.fallbacks[0].job_key(2)
    assert ports.ledger.get(second).request.vendor == "b"
    run_whole(ports, second)
    assert plan_job(ports, order, max_attempts=2) == second


def test_moving_twice_is_moving_once(open_with: Open) -> None:
    ports = open_with(*_vendors())
    order = _chained(ports)
    key = plan_job(ports, order)
    moved = move_to_next_vendor(ports, key)
    assert move_to_next_vendor(ports, key) == moved
    assert budget(ports, order) == (Decimal(3), Decimal(0))


def test_two_processes_that_would_move_it_to_different_vendors_agree(open_with: Open) -> None:
    processes = [open_with(*_vendors()) for _ in range(2)]
    order = _chained(processes[0])
    key = plan_job(processes[0], order)
    together, keys = threading.Barrier(2), list[str]()

    def move(ports: PortsForTests, following: JobOrder) -> None:
        together.wait(10)
        moved = ports.ledger.move(key, following, 1, "down")
        assert moved is not None
        keys.append(moved.key)

    run_together(
        *(lambda p=p, f=f: move(p, f) for p, f in zip(processes, order.fallbacks, strict=True)),
    )
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert [job.key for job in processes[0].ledger.open_jobs(order.season_id)] == keys[:1]


def test_what_does_not_fit_at_the_second_stays_at_the_first(open_with: Open) -> None:
    ports = open_with(*_vendors())
    order = _chained(ports, budget_usd="2.50")
    key = plan_job(ports, order)
    with pytest.raises(OverBudget, match="3"):
        move_to_next_vendor(ports, key)
    job = ports.ledger.get(key)
    assert (job.state, job.moved_to, budget(ports, order)) == (JobState.PLANNED, None, (Decimal(2), Decimal(0)))
    assert len(ports.ledger.jobs_of_season(order.season_id)) == 1


def test_a_dearer_vendor_fits_where_the_firsts_reservation_makes_room(open_with: Open) -> None:
    ports = open_with(*_vendors())
    order = _chained(ports, budget_usd="3.00")
    assert move_to_next_vendor(ports, plan_job(ports, order)) is not None
    assert budget(ports, order) == (Decimal(3), Decimal(0))


def test_a_job_whose_answer_was_lost_never_moves(open_with: Open) -> None:
    ports = open_with(*_vendors(a=StandinVendor(name="a", submits=[SubmissionUnknown("reset")])))
    order = _chained(ports)
    key = plan_job(ports, order)
    with pytest.raises(SubmissionUnknown):
        submit_job(ports, key)
    assert move_to_next_vendor(ports, key) is None
    assert state(ports, key) is JobState.SUBMISSION_UNKNOWN


@pytest.mark.parametrize("end", ["submitting", "submitted", "cancelled by a person"])
def test_only_a_planned_job_moves(open_with: Open, end: str) -> None:
    ports = open_with(*_vendors())
    order = _chained(ports)
    key = plan_job(ports, order)
    match end:
        case "submitting":
            ports.ledger.claim(key, ports.clock.now(), {})
        case "submitted":
            submit_job(ports, key)
        case _:
            assert ports.ledger.cancel_planned(key, "not wanted")
    before = state(ports, key)
    assert ports.ledger.move(key, order.fallbacks[0], 1, "down") is None
    assert move_to_next_vendor(ports, key) is None
    assert (state(ports, key), ports.ledger.latest(order.fallbacks[0].work_key)) == (before, None)


def test_a_vendor_in_trouble_or_not_set_up_is_passed_over(open_with: Open) -> None:
    a, b, c = _vendors()
    ports = open_with(a, c)
    moved = move_to_next_vendor(ports, plan_job(ports, _chained(ports)))
    assert moved is not None
    assert ports.ledger.get(moved).request.vendor == "c"
    both = open_with(a, b, c)
    note_refusal(both, "b", OutOfCredit("locked"))
    moved = move_to_next_vendor(both, plan_job(both, _chained(both)))
    assert moved is not None
    assert ports.ledger.get(moved).request.vendor == "c"


def test_a_job_that_can_move_does_not_wait_until_its_vendor_is_back(open_with: Open) -> None:
    down = StandinVendor(name="a", submits=[Unavailable("503")] * 99)
    ports = open_with(down, *_vendors()[1:])
    key = plan_job(ports, _chained(ports))
    with pytest.raises((Unavailable, RateLimited)):
        submit_job(ports, key)
    assert len(down.posts) == 4
    waited = (ports.clock.now() - open_with().clock.now()).total_seconds()
    assert waited < 30


def test_what_a_person_cancelled_is_bought_anew(open_with: Open) -> None:
    ports = open_with(*_vendors())
    order = _chained(ports)
    key = plan_job(ports, order)
    assert ports.ledger.cancel_planned(key, "not wanted")
    assert not ports.ledger.cancel_planned(key, "not wanted")
    assert budget(ports, order) == (Decimal(0), Decimal(0))
    anew = plan_job(ports, order)
    assert anew == order.job_key(2)
    assert plan_again(ports, key, max_attempts=1) == anew
    run_whole(ports, anew)
    assert [cost.amount_usd for cost in ports.ledger.costs(order.season_id)] == [Decimal(1)]
    assert not ports.ledger.cancel_planned(anew, "too late")
