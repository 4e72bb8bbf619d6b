"""`onmodel budget` and `onmodel owner`: what may be spent is shown, changed, and parsed strictly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from decimal import Decimal

import pytest

from domain.errors import AsksForBudget, BadInput
from studio.budgeting import amount_of
from tests.commands_in_process import commands_on, onmodel
from tests.ports_for_tests import PortsForTests, store_season
from tests.postgres.door_orders import order_in

slugs = (f"thrifty-{n}" for n in itertools.count(1))


@pytest.fixture
def ports(shared: PortsForTests) -> Iterator[PortsForTests]:
    with commands_on(shared):
        yield shared


@pytest.mark.parametrize("text", ["0.01", "12.5", "12.50", "1000000"])
def test_an_amount_is_read_to_the_cent(text: str) -> None:
    assert amount_of(text, "--limit") == Decimal(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("12,50", "write USD with a point and at most two decimals, such as 12.50"),
        ("12.505", "at most two decimals"),
        ("-5", "is no amount"),
        ("1e3", "is no amount"),
        ("NaN", "is no amount"),
        ("", "is no amount"),
        (" 5", "is no amount"),
        ("٥", "is no amount"),
        ("$5", "is no amount"),
        ("0", "is out of range: write USD above 0, at most 1,000,000"),
        ("0.00", "is out of range"),
        ("1000000.01", "is out of range"),
    ],
)
def test_what_is_no_amount_gets_its_sentence(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        amount_of(text, "--limit")


def test_a_seasons_limit_is_shown_and_changed_and_the_manifest_does_not_undo_it(ports: PortsForTests) -> None:
    slug = next(slugs)
    season_id = store_season(ports, slug, budget_usd="20")
    ports.ledger.plan(order_in(ports, season_id, usd="8"), 1)
    (shown,) = onmodel("budget", slug, "--json").document["budgets"]
    assert (shown["limit_usd"], shown["reserved_usd"], shown["free_usd"]) == ("20.0000", "8.0000", "12.0000")
    told = onmodel("budget", slug, "--limit", "35.50", "--at-limit", "ask")
    assert told.exit_code == 0
    assert f"season {slug}" in told.out
    assert "35.50" in told.out
    assert "27.50" in told.out
    assert "At the season's limit: what does not fit waits" in told.out
    store_season(ports, slug, budget_usd="20")
    (kept,) = onmodel("budget", slug, "--json").document["budgets"]
    assert (kept["limit_usd"], kept["at_limit"]) == ("35.5000", "ask")


def test_a_table_of_budgets_fits_a_terminal(ports: PortsForTests) -> None:
    slug = next(slugs)
    store_season(ports, slug, budget_usd="1000000", characters=[{"name": "Mei Kobayashi", "budget_usd": "2500"}])
    assert max(len(line) for line in onmodel("budget", slug).out.splitlines()) <= 80


def test_a_limit_below_what_is_held_is_told_and_lets_nothing_more_through(ports: PortsForTests) -> None:
    slug = next(slugs)
    season_id = store_season(ports, slug, budget_usd="20", at_limit="ask")
    ports.ledger.plan(order_in(ports, season_id, usd="8"), 1)
    assert f"The budget of season {slug} is passed" in onmodel("budget", slug, "--limit", "5").out
    with pytest.raises(AsksForBudget):
        ports.ledger.plan(order_in(ports, season_id, usd="0.01", prompt="more"), 1)


def test_a_character_gets_a_budget_of_its_own(ports: PortsForTests) -> None:
    slug = next(slugs)
    store_season(ports, slug)
    assert "Mei has no budget of its own" in onmodel("budget", slug, "Mei").out
    budgets = onmodel("budget", slug, "mei", "--limit", "4", "--json").document["budgets"]
    assert [(one["scope"], one["whom"], one["limit_usd"]) for one in budgets][1:] == [("character", "Mei", "4.0000")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "12,50"], "such as 12.50"),
        (["Nobody", "--limit", "5"], "its cast: Mei"),
        (["Mei", "--at-limit", "ask"], "said once for a season and all its characters"),
        (["--at-limit", "maybe"], "--at-limit"),
    ],
)
def test_a_budget_that_makes_no_sense_changes_nothing(ports: PortsForTests, arguments: list[str], words: str) -> None:
    slug = next(slugs)
    store_season(ports, slug)
    before = onmodel("budget", slug, "--json").out
    refused = onmodel("budget", slug, *arguments)
    assert refused.exit_code == 2
    assert words in refused.err
    assert onmodel("budget", slug, "--json").out == before


def test_an_owner_gets_a_limit_or_credits_and_not_both(ports: PortsForTests) -> None:
    store_season(ports, next(slugs), owner="thrifty")
    assert "no limit over all seasons" in onmodel("owner", "thrifty").out
    assert onmodel("owner", "thrifty", "--limit", "5", "--add-credits", "5").exit_code == 2
    limited = onmodel("owner", "thrifty", "--limit", "50", "--at-limit", "ask", "--json").document
    assert (limited["budget"]["limit_usd"], limited["budget"]["at_limit"]) == ("50.0000", "ask")
    assert limited["credits"] is None
    for paid in ("20", "5.50"):
        told = onmodel("owner", "thrifty", "--add-credits", paid)
    assert "Credits: 25.50 USD paid in, 0.00 taken" in told.out
    refused = onmodel("owner", "thrifty", "--limit", "60")
    assert (refused.exit_code, "--add-credits instead" in refused.err) == (2, True)
    assert onmodel("owner", "nobody").exit_code == 2
