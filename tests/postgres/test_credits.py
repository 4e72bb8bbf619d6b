"""Credits that an owner has paid in: deducted on success, given back on failure, never negative, every move kept."""

from __future__ import annotations

from decimal import Decimal

import pytest

from domain.budgets import AtLimit, Budget, CreditKind
from domain.costs import job_cost
from domain.errors import BadInput, JobFailed, OverBudget
from domain.jobs import JobOrder, JobState
from tasks.jobs import await_job, plan_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import PortsForTests, store_season
from tests.postgres.door_orders import Open, order_in, run_whole, slugs, state


def _paid_in(ports: PortsForTests, usd: str) -> tuple[str, int]:
    """A new owner who paid so much in, and a season of theirs."""
    owner = next(slugs)
    season_id = store_season(ports, next(slugs), owner=owner, budget_usd="1000")
    ports.budgets.add_credits(owner, Decimal(usd), "first")
    return owner, season_id


def _real(ports: PortsForTests, season_id: int, prompt: str = "a pier", usd: str = "2.00") -> JobOrder:
    return order_in(ports, season_id, is_simulated=False, prompt=prompt, usd=usd)


def _credits(ports: PortsForTests, owner: str) -> Budget:
    found = ports.budgets.of_owner(owner)
    assert found is not None
    entries = ports.budgets.credit_entries(owner)
    paid, taken = (
        sum((usd for kind, usd, _, _ in entries if kind is which), Decimal(0))
        for which in (CreditKind.GRANT, CreditKind.DEDUCT)
    )
    assert found.is_prepaid
    assert found.limit_usd - found.spent_usd == paid - taken >= 0, (
        "what is left is what was paid in less what was taken"
    )
    return found


def test_a_success_is_deducted_at_what_was_billed(open_with: Open) -> None:
    ports = open_with(StandinVendor(billed_usd=Decimal("0.80")))
    owner, season_id = _paid_in(ports, "5")
    key = plan_job(ports, _real(ports, season_id))
    assert _credits(ports, owner).free_usd == 3
    run_whole(ports, key)
    left = _credits(ports, owner)
    assert (left.reserved_usd, left.spent_usd, left.free_usd) == (0, Decimal("0.80"), Decimal("4.20"))
    assert ports.budgets.credit_entries(owner) == [
        (CreditKind.GRANT, Decimal(5), None, "first"),
        (CreditKind.DEDUCT, Decimal("0.80"), key, ""),
    ]


def test_a_failure_costs_its_owner_nothing_even_where_the_vendor_charges_it(open_with: Open) -> None:
    ports = open_with(StandinVendor(downloads=[b""] * 9, billed_usd=Decimal("0.80")))
    owner, season_id = _paid_in(ports, "5")
    key = plan_job(ports, _real(ports, season_id))
    submit_job(ports, key)
    with pytest.raises(JobFailed):
        await_job(ports, key)
    left = _credits(ports, owner)
    assert (left.reserved_usd, left.spent_usd, left.free_usd) == (0, 0, 5)
    assert ports.budgets.credit_entries(owner)[1:] == [(CreditKind.REFUND, Decimal(2), key, "the job ended as failed")]
    assert ports.ledger.budget(season_id)[2] == Decimal("0.80"), "the season paid it all the same"


def test_what_the_credits_do_not_cover_is_not_submitted(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    owner, season_id = _paid_in(ports, "1.99")
    with pytest.raises(OverBudget, match=rf"only 1\.9900 of the credits of owner {owner}.*--add-credits"):
        plan_job(ports, _real(ports, season_id))
    ports.budgets.add_credits(owner, Decimal("0.01"))
    plan_job(ports, _real(ports, season_id))
    assert _credits(ports, owner).free_usd == 0


def test_a_bill_above_what_is_left_takes_what_is_left_and_the_rest_is_owed(open_with: Open) -> None:
    ports = open_with(StandinVendor(billed_usd=Decimal(8)))
    owner, season_id = _paid_in(ports, "5")
    waiting = plan_job(ports, _real(ports, season_id, "waits", usd="1.00"))
    run_whole(ports, plan_job(ports, _real(ports, season_id)))
    left = _credits(ports, owner)
    assert (left.spent_usd, left.overrun_usd, left.free_usd) == (5, 3, 0)
    with pytest.raises(OverBudget, match="--add-credits"):
        submit_job(ports, waiting)
    assert state(ports, waiting) is JobState.PLANNED
    ports.budgets.set_owner(owner, at_limit=AtLimit.ASK)
    assert _credits(ports, owner).overrun_usd == 3, "what is owed stays owed whatever else is set"
    ports.budgets.add_credits(owner, Decimal(2))
    left = _credits(ports, owner)
    assert (left.overrun_usd, left.limit_usd - left.spent_usd) == (1, 0)
    ports.budgets.add_credits(owner, Decimal(4))
    left = _credits(ports, owner)
    assert (left.overrun_usd, left.limit_usd - left.spent_usd) == (0, 3)
    submit_job(ports, waiting)
    assert state(ports, waiting) is JobState.SUBMITTED


def test_two_that_are_billed_dearer_together_never_take_more_than_was_paid(open_with: Open) -> None:
    ports = open_with(StandinVendor(billed_usd=Decimal("3.50")))
    owner, season_id = _paid_in(ports, "4")
    keys = [plan_job(ports, _real(ports, season_id, f"shot {n}")) for n in range(2)]
    for key in keys:
        submit_job(ports, key)
    for key in keys:
        await_job(ports, key)
    left = _credits(ports, owner)
    assert (left.spent_usd, left.overrun_usd) == (4, 3)


def test_an_owner_with_a_limit_who_pays_in_spends_credits_from_then_on(open_with: Open) -> None:
    ports = open_with(StandinVendor(billed_usd=Decimal(1)))
    owner = next(slugs)
    season_id = store_season(ports, next(slugs), owner=owner, budget_usd="1000")
    ports.budgets.set_owner(owner, limit_usd=Decimal(10))
    run_whole(ports, plan_job(ports, _real(ports, season_id)))
    ports.budgets.add_credits(owner, Decimal(6))
    left = _credits(ports, owner)
    assert (left.spent_usd, left.limit_usd, left.free_usd) == (1, 7, 6)
    with pytest.raises(BadInput, match="spends credits, which are the limit"):
        ports.budgets.set_owner(owner, limit_usd=Decimal(50))


def test_a_rehearsal_takes_no_credits(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    owner, season_id = _paid_in(ports, "5")
    run_whole(ports, plan_job(ports, order_in(ports, season_id)))
    assert _credits(ports, owner).free_usd == 5
    assert len(ports.budgets.credit_entries(owner)) == 1


def test_settling_twice_deducts_once(open_with: Open) -> None:
    ports = open_with(StandinVendor(billed_usd=Decimal(1)))
    owner, season_id = _paid_in(ports, "5")
    key = plan_job(ports, _real(ports, season_id))
    run_whole(ports, key)
    ports.ledger.succeed(key, (), None, job_cost(ports.ledger.get(key), Decimal(3), "again"))
    assert _credits(ports, owner).spent_usd == 1
