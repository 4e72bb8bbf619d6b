"""Budgets of seasons, characters and owners: what fits, what is told, what an overrun stops, and what is asked."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from domain.budgets import WARN_AT_PERCENT, AtLimit, Budget, BudgetScope
from domain.errors import AsksForBudget, BadInput, OverBudget
from domain.jobs import JobOrder, JobState
from tasks.jobs import await_job, plan_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import PortsForTests, store_season
from tests.postgres.door_orders import Open, budget, order_in, planned, run_whole, slugs, state


def _mei(ports: PortsForTests, season_id: int) -> int:
    (mei,) = ports.cast.of_season(season_id)
    return mei.id


def _order(ports: PortsForTests, owner: str, *, budget_usd: str = "60", **fields: Any) -> JobOrder:
    """A job for Mei of a real season, that falls under all three budgets."""
    season_id = store_season(ports, next(slugs), budget_usd=budget_usd, owner=owner)
    return order_in(ports, season_id, character_id=_mei(ports, season_id), is_simulated=False, **fields)


def _again(order: JobOrder, ports: PortsForTests, prompt: str, **fields: Any) -> JobOrder:
    return order_in(
        ports, order.season_id, character_id=order.character_id, is_simulated=False, prompt=prompt, **fields
    )


def _told(ports: PortsForTests, season_id: int) -> list[tuple[str, str]]:
    with ports.database.transaction() as db:
        return db.execute(
            "SELECT kind, message FROM notifications WHERE season_id = %s ORDER BY id", (season_id,)
        ).fetchall()  # type: ignore[return-value]


@pytest.mark.parametrize("scope", list(BudgetScope))
def test_the_tightest_of_three_budgets_decides_and_says_whose_it_is(open_with: Open, scope: BudgetScope) -> None:
    ports, owner = open_with(StandinVendor()), next(slugs)
    order = _order(ports, owner, budget_usd="1.99" if scope is BudgetScope.SEASON else "60")
    assert order.character_id is not None
    ports.budgets.set_character(order.character_id, limit_usd=Decimal("1.99" if scope == "character" else 50))
    ports.budgets.set_owner(owner, limit_usd=Decimal("1.99" if scope == "owner" else 50))
    words = {
        BudgetScope.SEASON: "season's budget",
        BudgetScope.CHARACTER: "budget of character Mei",
        BudgetScope.OWNER: f"budget of owner {owner}",
    }
    with pytest.raises(OverBudget, match=rf"only 1\.9900 of the {words[scope]}.*nothing was submitted"):
        plan_job(ports, order)
    for found in ports.budgets.of_season(order.season_id):
        assert found.reserved_usd == 0
    plan_job(ports, _again(order, ports, "cheaper", usd="1.99"))


def test_a_job_is_held_and_settled_in_every_budget_it_falls_under(open_with: Open) -> None:
    ports, owner = open_with(StandinVendor(billed_usd=Decimal("0.75"))), next(slugs)
    order = _order(ports, owner)
    assert order.character_id is not None
    ports.budgets.set_character(order.character_id, limit_usd=Decimal(20))
    ports.budgets.set_owner(owner, limit_usd=Decimal(30))
    key = plan_job(ports, order)
    whole = plan_job(ports, order_in(ports, order.season_id, is_simulated=False, prompt="of nobody"))
    found = {one.scope: one for one in _all_three(ports, owner, order)}
    assert {scope: one.reserved_usd for scope, one in found.items()} == {"season": 4, "character": 2, "owner": 4}
    run_whole(ports, key)
    found = {one.scope: one for one in _all_three(ports, owner, order)}
    assert {scope: (one.reserved_usd, one.spent_usd) for scope, one in found.items()} == {
        "season": (2, Decimal("0.75")),
        "character": (0, Decimal("0.75")),
        "owner": (2, Decimal("0.75")),
    }
    assert ports.ledger.cancel_planned(whole, "not wanted")
    assert {one.reserved_usd for one in _all_three(ports, owner, order)} == {Decimal(0)}


def _all_three(ports: PortsForTests, owner: str, order: JobOrder) -> list[Budget]:
    of_owner = ports.budgets.of_owner(owner)
    assert of_owner is not None
    return [*[one for one in ports.budgets.of_season(order.season_id) if one.scope != "owner"], of_owner]


def test_a_rehearsal_falls_under_no_owners_budget(open_with: Open) -> None:
    ports, owner = open_with(StandinVendor()), next(slugs)
    order = _order(ports, owner)
    ports.budgets.set_owner(owner, limit_usd=Decimal("0.01"))
    plan_job(ports, order.model_copy(update={"is_simulated": True}))
    with pytest.raises(OverBudget):
        plan_job(ports, _again(order, ports, "real"))


@pytest.mark.parametrize("scope", [BudgetScope.SEASON, BudgetScope.OWNER])
def test_whose_budget_says_ask_is_asked_and_the_rest_goes_on(open_with: Open, scope: BudgetScope) -> None:
    ports, owner = open_with(StandinVendor()), next(slugs)
    order = _order(ports, owner, budget_usd="1" if scope is BudgetScope.SEASON else "60")
    if scope is BudgetScope.SEASON:
        ports.budgets.set_season(order.season_id, at_limit=AtLimit.ASK)
    else:
        ports.budgets.set_owner(owner, limit_usd=Decimal(1), at_limit=AtLimit.ASK)
    with pytest.raises(AsksForBudget, match="nothing was submitted") as asks:
        plan_job(ports, order)
    assert asks.value.exit_code == 6
    plan_job(ports, _again(order, ports, "cheaper", usd="1.00"))
    if scope is BudgetScope.SEASON:
        ports.budgets.set_season(order.season_id, at_limit=AtLimit.STOP)
    else:
        ports.budgets.set_owner(owner, at_limit=AtLimit.STOP)
    with pytest.raises(OverBudget) as stops:
        plan_job(ports, order)
    assert stops.value.exit_code == 4


def test_a_bill_above_the_limit_is_recorded_and_stops_what_was_planned_until_it_is_raised(open_with: Open) -> None:
    vendor = StandinVendor(billed_usd=Decimal("7.00"))
    ports = open_with(vendor)
    order, key = planned(ports, budget_usd="5.00")
    waiting = plan_job(ports, order_in(ports, order.season_id, prompt="waits"))
    run_whole(ports, key)
    (found,) = [one for one in ports.budgets.of_season(order.season_id) if one.scope == "season"]
    assert (found.spent_usd, found.reserved_usd, found.overrun_usd) == (7, 2, 2)
    with pytest.raises(OverBudget, match=r"is passed: 7\.00 USD are spent and 2\.00 reserved of 5\.00"):
        submit_job(ports, waiting)
    assert (len(vendor.posts), state(ports, waiting)) == (1, JobState.PLANNED)
    assert ports.ledger.get(waiting).post_count == 0
    ports.budgets.set_season(order.season_id, limit_usd=Decimal("8.99"))
    with pytest.raises(OverBudget):
        submit_job(ports, waiting)
    ports.budgets.set_season(order.season_id, limit_usd=Decimal(9))
    submit_job(ports, waiting)
    assert state(ports, waiting) is JobState.SUBMITTED


def test_a_bill_above_its_ceiling_but_within_the_limit_is_told_and_stops_nothing(open_with: Open) -> None:
    ports = open_with(StandinVendor(billed_usd=Decimal("2.50")))
    order, key = planned(ports)
    run_whole(ports, key)
    assert [message for kind, message in _told(ports, order.season_id) if kind == "overrun"] == [
        f"Job {key} was billed at 2.50 USD, more than the 2.0000 that were reserved for it."
    ]
    run_whole(ports, plan_job(ports, order_in(ports, order.season_id, prompt="goes on")))


def test_a_lowered_limit_stops_what_is_planned_but_not_what_is_under_way(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    order, under_way = planned(ports, budget_usd="10")
    waiting = plan_job(ports, order_in(ports, order.season_id, prompt="waits"))
    submit_job(ports, under_way)
    ports.budgets.set_season(order.season_id, limit_usd=Decimal("3.99"))
    with pytest.raises(OverBudget, match="limit was lowered"):
        submit_job(ports, waiting)
    with pytest.raises(OverBudget):
        plan_job(ports, order_in(ports, order.season_id, prompt="new", usd="0.01"))
    await_job(ports, under_way)
    assert budget(ports, order) == (Decimal(2), Decimal(1))
    submit_job(ports, waiting)
    assert state(ports, waiting) is JobState.SUBMITTED


def test_a_budget_passed_before_the_post_asks_where_its_owner_wants_to_be_asked(open_with: Open) -> None:
    vendor = StandinVendor()
    ports = open_with(vendor)
    order, key = planned(ports, budget_usd="10")
    ports.budgets.set_season(order.season_id, limit_usd=Decimal("1.99"), at_limit=AtLimit.ASK)
    with pytest.raises(AsksForBudget, match="limit was lowered"):
        submit_job(ports, key)
    assert (vendor.posts, state(ports, key)) == ([], JobState.PLANNED)


def test_each_warning_is_told_once_and_again_when_the_limit_has_changed(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    season_id = store_season(ports, next(slugs), budget_usd="10")
    for shot in range(10):
        run_whole(ports, plan_job(ports, order_in(ports, season_id, prompt=f"shot {shot}", usd="1.00")))
    # Half of each ceiling is billed: 0.5 a job, so that 5.0 is reached by the ninth, reserved and spent together.
    assert [message for _, message in _told(ports, season_id)] == [
        "50 % of the season's budget are reserved or spent: 5.00 of 10.00 USD."
    ]
    plan_job(ports, order_in(ports, season_id, prompt="dear", usd="5.00"))
    assert [message[:4] for _, message in _told(ports, season_id)] == ["50 %", "95 %"]
    ports.budgets.set_season(season_id, limit_usd=Decimal(12))
    plan_job(ports, order_in(ports, season_id, prompt="little", usd="0.10"))
    assert [message[:4] for _, message in _told(ports, season_id)] == ["50 %", "95 %", "80 %"]
    assert WARN_AT_PERCENT == (50, 80, 95)


def test_what_has_no_budget_of_its_own_yet_needs_a_limit(open_with: Open) -> None:
    ports, owner = open_with(StandinVendor()), next(slugs)
    order = _order(ports, owner)
    assert order.character_id is not None
    with pytest.raises(BadInput, match="no budget of its own yet: give --limit"):
        ports.budgets.set_character(order.character_id, at_limit=AtLimit.ASK)
    with pytest.raises(BadInput, match="has no budget yet: give --limit"):
        ports.budgets.set_owner(owner, at_limit=AtLimit.ASK)
    with pytest.raises(BadInput, match="There is no owner 'nobody'"):
        ports.budgets.of_owner("nobody")
