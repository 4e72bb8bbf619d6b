"""`onmodel budget` and `onmodel owner`: what may be spent, by a season, a character or an owner, seen and changed."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from domain.budgets import AtLimit, Budget, BudgetScope, CreditKind
from domain.errors import BadInput
from domain.seasons import LIFTED_LIMIT_USD
from providers.wiring import open_ports
from studio.telling import print_json, print_table, say

MOST_USD = Decimal(1_000_000)
"""As in the manifest."""

OWNERS = "owner's"

_AMOUNT = re.compile(r"[0-9]{1,7}(\.[0-9]{1,2})?")
_AT_THE_LIMIT = {
    AtLimit.STOP: "the run stops, with exit code 4 (--at-limit stop).",
    AtLimit.ASK: "what does not fit waits, the rest goes on, exit code 6 (--at-limit ask).",
}


def season_budget(slug: str, character: str | None, *, limit: str | None, at_limit: str | None, as_json: bool) -> int:
    """Show what a season and its characters may spend, after changing what was given. Exit 0; 2 for bad input.

    Safe to repeat. Free.
    """
    limit_usd = amount_of(limit, "--limit")
    ports = open_ports()
    season = ports.seasons.by_slug(slug)
    wanted = AtLimit(at_limit) if at_limit else None
    if character is None:
        if limit_usd is not None or wanted is not None:
            ports.budgets.set_season(season.id, limit_usd=limit_usd, at_limit=wanted)
    else:
        who = ports.cast.named(season.id, character)
        if wanted is not None:
            raise BadInput(
                f"What happens at a limit is said once for a season and all its characters: "
                f"onmodel budget {slug} --at-limit {wanted}"
            )
        if limit_usd is not None:
            ports.budgets.set_character(who.id, limit_usd=limit_usd)
    budgets = ports.budgets.of_season(season.id)
    at = next(budget.at_limit for budget in budgets if budget.scope is BudgetScope.SEASON)
    if as_json:
        print_json({"season": slug, "budgets": [budget_document(budget, at) for budget in budgets]})
        return 0
    _tell_budgets(f"{slug}: what may be spent, in USD", budgets, at)
    if character is not None and not any(
        budget.scope is BudgetScope.CHARACTER and budget.whom == who.name for budget in budgets
    ):
        say(f"{who.name} has no budget of its own; give one with: onmodel budget {slug} '{who.name}' --limit 10")
    if limit_usd is not None:
        say("The manifest does not undo this until its own figure is changed.")
    return 0


def owner_budget(name: str, *, limit: str | None, add_credits: str | None, at_limit: str | None, as_json: bool) -> int:
    """Show what an owner may spend in all seasons, after changing what was given. Exit 0; 2 for bad input.

    Adding credits adds each time; everything else is safe to repeat. Free.
    """
    limit_usd, paid_usd = amount_of(limit, "--limit"), amount_of(add_credits, "--add-credits")
    if limit_usd is not None and paid_usd is not None:
        raise BadInput("Give either --limit or --add-credits: an owner has a limit or spends credits, not both.")
    budgets = open_ports().budgets
    wanted = AtLimit(at_limit) if at_limit else None
    if paid_usd is not None:
        budgets.add_credits(name, paid_usd)
    if limit_usd is not None or wanted is not None:
        budgets.set_owner(name, limit_usd=limit_usd, at_limit=wanted)
    budget = budgets.of_owner(name)
    credit = _credits(budgets.credit_entries(name))
    if as_json:
        document = budget_document(budget, budget.at_limit) if budget else None
        moved = {f"{kind}_usd": str(amount) for kind, amount in credit.items()}
        print_json({"owner": name, "budget": document, "credits": moved if budget and budget.is_prepaid else None})
        return 0
    if budget is None:
        say(f"{name} has no limit over all seasons; set one with: onmodel owner {name} --limit 100")
        return 0
    _tell_budgets(f"{name}: what may be spent in all seasons, in USD", [budget], budget.at_limit)
    if budget.is_prepaid:
        say(
            f"Credits: {credit[CreditKind.GRANT]:.2f} USD paid in, {credit[CreditKind.DEDUCT]:.2f} taken for jobs that "
            f"succeeded, {credit[CreditKind.REFUND]:.2f} given back for jobs that did not."
        )
    return 0


def amount_of(text: str | None, option: str) -> Decimal | None:
    """Dollars and cents as a person writes them, above 0 and at most 1,000,000; `BadInput` says how to write them."""
    if text is None:
        return None
    if _AMOUNT.fullmatch(text):
        amount = Decimal(text)
        if 0 < amount <= MOST_USD:
            return amount
        raise BadInput(f"{option} {text} is out of range: write USD above 0, at most {MOST_USD:,}.")
    example = with_point if _AMOUNT.fullmatch(with_point := text.replace(",", ".")) else "12.50"
    raise BadInput(
        f"{option} {text!r} is no amount: write USD with a point and at most two decimals, such as {example}."
    )


def budget_document(budget: Budget, season_at_limit: AtLimit) -> dict[str, Any]:
    """A budget as plain data; a limit that was lifted is null. A season's word holds for its characters too."""
    at_limit = budget.at_limit if budget.scope is BudgetScope.OWNER else season_at_limit
    is_lifted = budget.limit_usd == LIFTED_LIMIT_USD
    return {
        "scope": budget.scope.value,
        "whom": budget.whom,
        "limit_usd": None if is_lifted else str(budget.limit_usd),
        "reserved_usd": str(budget.reserved_usd),
        "spent_usd": str(budget.spent_usd),
        "free_usd": None if is_lifted else str(budget.free_usd),
        "overrun_usd": str(budget.overrun_usd),
        "is_prepaid": budget.is_prepaid,
        "at_limit": at_limit.value,
    }


def _tell_budgets(title: str, budgets: list[Budget], season_at_limit: AtLimit) -> None:
    """A table, and a sentence about each that is passed. A season's word about the limit holds for its characters."""
    rows = []
    for budget in budgets:
        is_lifted = budget.limit_usd == LIFTED_LIMIT_USD
        rows.append(
            [
                f"{budget.scope.value} {budget.whom}",
                "none" if is_lifted else f"{budget.limit_usd:.2f}",
                f"{budget.reserved_usd:.2f}",
                f"{budget.spent_usd:.2f}",
                "" if is_lifted else f"{budget.free_usd:.2f}",
                f"{budget.overrun_usd:.2f}" if budget.overrun_usd else "–",
            ]
        )
    heads = ["budget of", "limit", "reserved", "spent", "free", "overrun"]
    print_table(title, heads, rows, right=(1, 2, 3, 4, 5))
    for scope, at_limit in {_spoken(budget): budget.at_limit for budget in budgets}.items():
        say(f"At the {scope} limit: {_AT_THE_LIMIT[at_limit if scope == OWNERS else season_at_limit]}")
    for budget in budgets:
        if budget.reserved_usd + budget.spent_usd > budget.limit_usd or budget.overrun_usd:
            say(f"The budget of {budget.scope.value} {budget.whom} is passed: nothing more is submitted under it.")


def _spoken(budget: Budget) -> str:
    return OWNERS if budget.scope is BudgetScope.OWNER else "season's"


def _credits(entries: list[tuple[CreditKind, Decimal, str | None, str]]) -> dict[CreditKind, Decimal]:
    """Sums by kind, in USD."""
    return {kind: sum((entry[1] for entry in entries if entry[0] is kind), Decimal(0)) for kind in CreditKind}
