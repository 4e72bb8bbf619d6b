"""What a season tells a person to do about money: short and passed budgets, lost answers, vendors held back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from decimal import Decimal

import pytest

from domain.budgets import BudgetScope
from domain.circuits import Circuit
from domain.costs import job_cost
from domain.errors import AsksForBudget, SubmissionUnknown
from domain.jobs import JobState
from domain.reports import TodoItem
from tasks.jobs import plan_job, submit_job
from tasks.planning_together import plan_together
from tasks.season_facts import tightest_budget
from tasks.todo import things_to_do
from tasks.training import note_short_budget
from tests.acceptance.standin_vendor import StandinVendor
from tests.commands_in_process import commands_on, onmodel
from tests.ports_for_tests import HandClock, PortsForTests, store_season
from tests.postgres.door_orders import order_in

slugs = (f"to-do-{n}" for n in itertools.count(1))


@pytest.fixture
def ports(shared: PortsForTests) -> Iterator[PortsForTests]:
    vendor = StandinVendor(submits=[SubmissionUnknown("the connection was reset")])
    opened = PortsForTests(shared.settings, {"sandbox": vendor}, HandClock())
    yield opened
    with opened.database.transaction() as db:
        db.execute("DELETE FROM vendor_circuits")
    opened.close()


def todo(ports: PortsForTests, season_id: int) -> dict[str, TodoItem]:
    return {item.what: item for item in things_to_do(ports, season_id)}


def test_a_season_in_which_all_is_well_leaves_nothing_to_do(ports: PortsForTests) -> None:
    season_id = store_season(ports, next(slugs))
    plan_job(ports, order_in(ports, season_id))
    assert todo(ports, season_id) == {}


def test_a_lost_answer_comes_with_its_choices(ports: PortsForTests) -> None:
    season_id = store_season(ports, next(slugs))
    key = plan_job(ports, order_in(ports, season_id))
    with pytest.raises(SubmissionUnknown):
        submit_job(ports, key)
    item = todo(ports, season_id)["The answer to fal_flux_lora_fast was lost"]
    assert item.command == f"onmodel jobs resolve {key[:12]} --adopt ID, or --resubmit, or --abandon"


def test_a_vendor_is_told_of_while_it_is_held_back_and_a_job_waits_for_it(ports: PortsForTests) -> None:
    season_id, other_id = store_season(ports, next(slugs)), store_season(ports, next(slugs))
    plan_job(ports, order_in(ports, season_id))
    ports.circuits.change(
        "sandbox", lambda circuit: circuit.after_account_trouble("its balance is exhausted", ports.clock.now())
    )
    item = todo(ports, season_id)["Nothing is sent to sandbox for now"]
    assert item.why == "its balance is exhausted"
    assert todo(ports, other_id) == {}
    ports.circuits.change("sandbox", Circuit.after_success)
    assert todo(ports, season_id) == {}


def test_a_passed_budget_is_told_with_its_bill_until_the_limit_is_raised(ports: PortsForTests) -> None:
    slug = next(slugs)
    season_id = store_season(ports, slug, budget_usd="3")
    job = ports.ledger.plan(order_in(ports, season_id, usd="2"), 1)
    assert ports.ledger.claim(job.key, ports.clock.now(), {}) is not None
    ports.ledger.end(job.key, JobState.FAILED, "JobFailed", "died", job_cost(job, Decimal("4.50"), "billed more"))
    item = todo(ports, season_id)[f"The budget of season {slug} is passed by 1.50 USD"]
    assert "was billed at 4.50" in item.why
    assert item.command == f"onmodel budget {slug} --limit USD"
    with commands_on(ports):
        assert "Note: Job " in onmodel("status", slug).out
    ports.budgets.set_season(season_id, limit_usd=Decimal(10))
    assert todo(ports, season_id) == {}


def test_a_character_short_of_its_own_budget_is_told_apart_from_one_short_of_the_seasons(ports: PortsForTests) -> None:
    slug = next(slugs)
    characters = [{"name": "Mei", "budget_usd": "5"}, {"name": "Rui"}]
    season_id = store_season(ports, slug, budget_usd="20", characters=characters)
    assert note_short_budget(ports, slug, "Mei", "5 USD are free, 6 are asked for")
    assert not note_short_budget(ports, slug, "Rui", "20 USD are free, 21 are asked for")
    items = todo(ports, season_id)
    assert items["Mei waits for a budget"].why == "5 USD are free, 6 are asked for"
    assert items["Mei waits for a budget"].command.startswith(f"onmodel budget {slug} 'Mei' --limit USD, and ")
    assert items["Rui waits for a budget"].command.startswith(f"onmodel budget {slug} --limit USD, and ")


def test_the_tightest_budget_may_be_the_owners(ports: PortsForTests) -> None:
    slug = next(slugs)
    season_id = store_season(ports, slug, owner="tight")
    with ports.database.transaction() as db:
        db.execute("UPDATE seasons SET is_simulated = false WHERE id = %s", (season_id,))
    ports.budgets.set_owner("tight", limit_usd=Decimal(5))
    assert tightest_budget(ports, season_id, []).scope is BudgetScope.OWNER
    ports.budgets.set_owner("tight", limit_usd=Decimal(500))
    assert tightest_budget(ports, season_id, []).scope is BudgetScope.SEASON


def test_work_that_does_not_fit_as_a_whole_holds_nothing_back_from_other_work(ports: PortsForTests) -> None:
    season_id = store_season(ports, next(slugs), budget_usd="5", at_limit="ask")
    orders = [order_in(ports, season_id, usd="2", prompt=f"view {n}") for n in range(3)]
    first = plan_job(ports, orders[0])
    with pytest.raises(AsksForBudget):
        plan_together(ports, orders, max_attempts=2)
    assert ports.ledger.budget(season_id) == (Decimal(5), Decimal(2), Decimal(0))
    assert ports.ledger.get(first).state is JobState.PLANNED
    ports.budgets.set_season(season_id, limit_usd=Decimal(6))
    keys = plan_together(ports, orders, max_attempts=2)
    assert keys == plan_together(ports, orders, max_attempts=2)
    assert (keys[0], len(set(keys))) == (first, 3)
    assert ports.ledger.budget(season_id)[1] == Decimal(6)
