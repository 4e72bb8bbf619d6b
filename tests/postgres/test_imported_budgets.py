"""What an import does to budgets: the manifest's word counts when it is new, a person's since then is kept."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest

from domain.budgets import AtLimit, Budget
from domain.costs import free_step
from domain.errors import AsksForBudget, OverBudget
from domain.jobs import Stage
from domain.seasons import LIFTED_LIMIT_USD
from tests.ports_for_tests import PortsForTests, store_season
from tests.postgres.door_orders import order_in

slugs = (f"imported-{n}" for n in itertools.count(1))


def of_season(ports: PortsForTests, season_id: int) -> Budget:
    return ports.budgets.of_season(season_id)[0]


def of_mei(ports: PortsForTests, season_id: int) -> Budget | None:
    return next((budget for budget in ports.budgets.of_season(season_id) if budget.scope == "character"), None)


def mei_with(budget_usd: str | None) -> list[dict[str, object]]:
    return [{"name": "Mei", "budget_usd": budget_usd}]


def test_a_limit_set_by_command_outlives_imports_of_the_same_manifest(shared: PortsForTests) -> None:
    slug = next(slugs)
    season_id = store_season(shared, slug, budget_usd="20")
    shared.budgets.set_season(season_id, limit_usd=Decimal(35), at_limit=AtLimit.ASK)
    store_season(shared, slug, budget_usd="20.00")
    budget = of_season(shared, season_id)
    assert (budget.limit_usd, budget.at_limit) == (Decimal(35), AtLimit.ASK)


def test_a_figure_changed_in_the_manifest_counts_and_tells_an_overrun(shared: PortsForTests) -> None:
    slug = next(slugs)
    season_id = store_season(shared, slug, budget_usd="20")
    key = shared.ledger.plan(order_in(shared, season_id, usd="8"), 1).key
    with shared.database.transaction() as db:
        db.execute("UPDATE budgets SET spent_usd = 9, warned_percent = 80 WHERE season_id = %s", (season_id,))
    store_season(shared, slug, budget_usd="5", at_limit="ask")
    lower = of_season(shared, season_id)
    assert (lower.limit_usd, lower.overrun_usd, lower.at_limit) == (Decimal(5), Decimal(4), AtLimit.ASK)
    store_season(shared, slug, budget_usd="30", at_limit="ask")
    higher = of_season(shared, season_id)
    assert (higher.limit_usd, higher.overrun_usd, higher.reserved_usd) == (Decimal(30), Decimal(0), Decimal(8))
    assert shared.ledger.get(key).ceiling_usd == Decimal(8)
    with shared.database.transaction() as db:
        row = db.execute("SELECT warned_percent FROM budgets WHERE season_id = %s", (season_id,)).fetchone()
    assert row == (0,)


def test_a_characters_budget_comes_changes_and_goes_with_the_manifest(shared: PortsForTests) -> None:
    slug = next(slugs)
    season_id = store_season(shared, slug)
    assert of_mei(shared, season_id) is None
    for usd in ("4", "6.50"):
        store_season(shared, slug, characters=mei_with(usd))
        budget = of_mei(shared, season_id)
        assert budget is not None
        assert budget.limit_usd == Decimal(usd)
    store_season(shared, slug)
    assert of_mei(shared, season_id) is None


def test_a_used_budget_that_leaves_the_manifest_limits_no_more_but_still_counts(shared: PortsForTests) -> None:
    slug = next(slugs)
    season_id = store_season(shared, slug, characters=mei_with("3"))
    mei = shared.cast.named(season_id, "Mei").id
    shared.ledger.plan(order_in(shared, season_id, usd="2", character_id=mei), 1)
    with pytest.raises(OverBudget, match="budget of character Mei"):
        shared.ledger.plan(order_in(shared, season_id, usd="2", character_id=mei, prompt="another"), 1)
    store_season(shared, slug)
    lifted = of_mei(shared, season_id)
    assert lifted is not None
    assert (lifted.limit_usd, lifted.reserved_usd) == (LIFTED_LIMIT_USD, Decimal(2))
    shared.ledger.plan(order_in(shared, season_id, usd="2", character_id=mei, prompt="another"), 1)
    store_season(shared, slug, characters=mei_with("3"), at_limit="ask")
    with pytest.raises(AsksForBudget, match="budget of character Mei"):
        shared.ledger.plan(order_in(shared, season_id, usd="1", character_id=mei, prompt="a third"), 1)


def test_a_characters_budget_set_by_command_is_not_taken_away_by_a_manifest_without_one(shared: PortsForTests) -> None:
    slug = next(slugs)
    season_id = store_season(shared, slug)
    shared.budgets.set_character(shared.cast.named(season_id, "Mei").id, limit_usd=Decimal(7))
    store_season(shared, slug)
    budget = of_mei(shared, season_id)
    assert budget is not None
    assert budget.limit_usd == Decimal(7)


def test_what_a_character_has_cost_before_counts_in_its_new_budget(shared: PortsForTests) -> None:
    slug = next(slugs)
    season_id = store_season(shared, slug)
    mei = shared.cast.named(season_id, "Mei").id
    entry = free_step(season_id, Stage.CAPTIONS, "captioner", "before", f"before:{mei}", character_id=mei)
    shared.ledger.log_cost(entry.model_copy(update={"amount_usd": Decimal(5)}))
    store_season(shared, slug, characters=mei_with("3"))
    budget = of_mei(shared, season_id)
    assert budget is not None
    assert (budget.spent_usd, budget.overrun_usd) == (Decimal(5), Decimal(2))
