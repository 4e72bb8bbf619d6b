"""The budget at the door: what is reserved, refused and released, and that many at once never overdraw it."""

from __future__ import annotations

import threading
from decimal import Decimal

import pytest

from domain.errors import OverBudget
from tasks.jobs import await_job, plan_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import store_season
from tests.postgres.door_orders import Open, budget, order_in, planned, run_together, slugs


def test_over_budget_reserves_nothing_writes_nothing_and_submits_nothing(open_with: Open) -> None:
    vendor = StandinVendor()
    ports = open_with(vendor)
    season_id = store_season(ports, next(slugs), budget_usd="1.99")
    order = order_in(ports, season_id, usd="2.00")
    with pytest.raises(
        OverBudget, match=r"only 1\.9900 of the season's budget \(1\.9900 USD\) are free: raise budget_usd"
    ) as over:
        plan_job(ports, order)
    assert over.value.exit_code == 4
    assert ports.ledger.latest(order.work_key) is None
    assert budget(ports, order) == (Decimal(0), Decimal(0))
    assert vendor.calls == 0


def test_a_ceiling_that_fits_exactly_is_reserved(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    season_id = store_season(ports, next(slugs), budget_usd="4.00")
    plan_job(ports, order_in(ports, season_id, prompt="one"))
    last = order_in(ports, season_id, prompt="two")
    plan_job(ports, last)
    assert budget(ports, last) == (Decimal(4), Decimal(0))
    with pytest.raises(OverBudget):
        plan_job(ports, order_in(ports, season_id, prompt="three", usd="0.01"))


def test_what_settlement_releases_can_be_reserved_again(open_with: Open) -> None:
    ports = open_with(StandinVendor(billed_usd=Decimal("0.25")))
    order, key = planned(ports, budget_usd="2.00")
    other = order_in(ports, order.season_id, prompt="another", usd="1.75")
    with pytest.raises(OverBudget):
        plan_job(ports, other)
    submit_job(ports, key)
    await_job(ports, key)
    plan_job(ports, other)
    assert budget(ports, order) == (Decimal("1.75"), Decimal("0.25"))


def test_a_raised_budget_lets_the_refused_job_through(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    slug = next(slugs)
    order = order_in(ports, store_season(ports, slug, budget_usd="1"))
    with pytest.raises(OverBudget):
        plan_job(ports, order)
    store_season(ports, slug, budget_usd="2")
    assert plan_job(ports, order) == order.job_key(1)


def test_many_at_once_never_reserve_more_than_the_budget(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    season_id = store_season(ports, next(slugs), budget_usd="6.00")
    together = threading.Barrier(8)
    answers: list[str] = []

    def plan(number: int) -> None:
        together.wait(10)
        try:
            plan_job(ports, order_in(ports, season_id, prompt=f"shot {number}"))
            answers.append("planned")
        except OverBudget:
            answers.append("over budget")

    run_together(*(lambda n=n: plan(n) for n in range(8)))
    assert sorted(answers) == ["over budget"] * 5 + ["planned"] * 3
    assert ports.ledger.budget(season_id)[1] == Decimal(6)
