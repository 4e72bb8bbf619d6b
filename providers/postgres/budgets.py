"""Budgets in SQL: reserving a job's ceiling, settling at what was billed, credits, and what their owners are told.

Everything about one job happens in the caller's transaction, with its budgets locked in the order of their ids, so that
no two jobs can wait for each other.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from domain.budgets import WARN_AT_PERCENT, AtLimit, Budget, CreditKind
from domain.costs import CostEntry
from domain.errors import AsksForBudget, BadInput, OverBudget
from domain.jobs import JobOrder, JobState
from providers.postgres.rows import Table

_BUDGETS = """SELECT budgets.id, limit_usd, reserved_usd, spent_usd, overrun_usd, is_prepaid, at_limit,
    CASE WHEN budgets.season_id IS NOT NULL THEN 'season' WHEN budgets.character_id IS NOT NULL THEN 'character'
         ELSE 'owner' END AS scope,
    coalesce(seasons.slug, characters.name, owners.name) AS whom
    FROM budgets LEFT JOIN seasons ON seasons.id = budgets.season_id
    LEFT JOIN characters ON characters.id = budgets.character_id LEFT JOIN owners ON owners.id = budgets.owner_id"""

_OF_JOB = """SELECT id FROM budgets WHERE season_id = %(season)s OR character_id = %(character)s
    OR owner_id = (SELECT owner_id FROM seasons WHERE id = %(season)s AND NOT %(is_simulated)s)
    ORDER BY id FOR UPDATE"""
"""A rehearsal costs its owner nothing, so it falls under no owner's budget."""

HOW_TO_RAISE = {
    "season": "raise budget_usd in the manifest, or: onmodel budget {whom} --limit …",
    "character": "raise the character's budget_usd in the manifest, or: onmodel budget SEASON '{whom}' --limit …",
    "owner": "raise it with: onmodel owner {whom} --limit …",
}
HOW_TO_ADD = "add some with: onmodel owner {whom} --add-credits …"


class BudgetTable(Table):
    """Looking at budgets, and what a person sets of them."""

    def of_season(self, season_id: int) -> list[Budget]:
        """The season's own, its characters', and its owner's where it is no rehearsal; the season's first."""
        rows = self._all(
            f"""{_BUDGETS} WHERE budgets.season_id = %(season)s
                OR budgets.character_id IN (SELECT id FROM characters WHERE season_id = %(season)s)
                OR budgets.owner_id = (SELECT owner_id FROM seasons WHERE id = %(season)s AND NOT is_simulated)
                ORDER BY budgets.season_id IS NULL, budgets.character_id IS NULL, budgets.id""",
            {"season": season_id},
        )
        return [Budget.model_validate(row) for row in rows]

    def of_owner(self, name: str) -> Budget | None:
        """What an owner may spend in all; None when nobody set it. `BadInput` when there is no such owner."""
        if self._one("SELECT id FROM owners WHERE name = %s", (name,)) is None:
            raise BadInput(f"There is no owner {name!r}: an owner is known when a season of theirs was imported.")
        row = self._one(f"{_BUDGETS} WHERE owners.name = %s", (name,))
        return Budget.model_validate(row) if row else None

    def set_season(self, season_id: int, *, limit_usd: Decimal | None = None, at_limit: AtLimit | None = None) -> None:
        """Change what a season may spend; what is None stays. Safe to repeat."""
        self._change("season_id = %(id)s", season_id, limit_usd, at_limit)

    def set_character(
        self, character_id: int, *, limit_usd: Decimal | None = None, at_limit: AtLimit | None = None
    ) -> None:
        """Give a character a budget of its own, or change it; `BadInput` for the first without a limit."""
        if limit_usd is None and self._one("SELECT 1 FROM budgets WHERE character_id = %s", (character_id,)) is None:
            raise BadInput("The character has no budget of its own yet: give --limit too.")
        if limit_usd is not None:
            with self._database.transaction() as db:
                begin_character(db, character_id, limit_usd)
        self._change("character_id = %(id)s", character_id, limit_usd, at_limit)

    def set_owner(self, name: str, *, limit_usd: Decimal | None = None, at_limit: AtLimit | None = None) -> None:
        """Limit what an owner spends in all seasons; `BadInput` where the owner holds credits instead."""
        known = self.of_owner(name)
        if known is not None and known.is_prepaid and limit_usd is not None:
            raise BadInput(f"{name} spends credits, which are the limit: add some with --add-credits instead.")
        if known is None and limit_usd is None:
            raise BadInput(f"{name} has no budget yet: give --limit too.")
        with self._database.transaction() as db:
            owner_id = _owner_id(db, name)
            if limit_usd is not None:
                _begin_owner(db, owner_id, limit_usd)
        self._change("owner_id = %(id)s", owner_id, limit_usd, at_limit)

    def add_credits(self, name: str, amount_usd: Decimal, note: str = "") -> None:
        """Write down what an owner paid in; from the first time on the owner spends credits.

        Not repeatable: each call adds. What the owner had spent before under a limit is not taken from the credits.
        """
        self.of_owner(name)
        with self._database.transaction() as db:
            owner_id = _owner_id(db, name)
            _begin_owner(db, owner_id, amount_usd, is_prepaid=True)
            row = db.execute(
                "SELECT id, is_prepaid, overrun_usd FROM budgets WHERE owner_id = %s FOR UPDATE", (owner_id,)
            ).fetchone()
            assert row is not None
            budget_id, is_prepaid, overrun_usd = row
            has_grants = db.execute(
                "SELECT 1 FROM credit_entries WHERE budget_id = %s AND kind = 'grant' LIMIT 1", (budget_id,)
            ).fetchone()
            if not is_prepaid:
                db.execute(
                    """UPDATE budgets SET is_prepaid = true, limit_usd = spent_usd + %s, overrun_usd = 0,
                       warned_percent = 0 WHERE id = %s""",
                    (amount_usd, budget_id),
                )
            owed_usd = Decimal(0)
            if is_prepaid and has_grants:
                owed_usd = min(overrun_usd, amount_usd)
                db.execute(
                    """UPDATE budgets SET limit_usd = limit_usd + %(paid)s - %(owed)s,
                       overrun_usd = overrun_usd - %(owed)s, warned_percent = 0 WHERE id = %(id)s""",
                    {"paid": amount_usd, "owed": owed_usd, "id": budget_id},
                )
            _credit(db, budget_id, CreditKind.GRANT, amount_usd, None, note)
            if owed_usd:
                _credit(db, budget_id, CreditKind.DEDUCT, owed_usd, None, "owed, because jobs cost more than was left")

    def credit_entries(self, name: str) -> list[tuple[CreditKind, Decimal, str | None, str]]:
        """Every movement of an owner's credits, oldest first: kind, USD, job key, note."""
        rows = self._all(
            """SELECT kind, amount_usd, job_key, note FROM credit_entries JOIN budgets ON budgets.id = budget_id
               JOIN owners ON owners.id = owner_id WHERE owners.name = %s ORDER BY credit_entries.id""",
            (name,),
        )
        return [(CreditKind(row["kind"]), row["amount_usd"], row["job_key"], row["note"]) for row in rows]

    def _change(self, where: str, of: int, limit_usd: Decimal | None, at_limit: AtLimit | None) -> None:
        self._do(
            f"""UPDATE budgets SET limit_usd = coalesce(%(limit)s, limit_usd),
                at_limit = coalesce(%(at_limit)s, at_limit),
                overrun_usd = CASE WHEN is_prepaid THEN overrun_usd
                                   ELSE greatest(spent_usd - coalesce(%(limit)s, limit_usd), 0) END,
                warned_percent = CASE WHEN %(limit)s IS NULL THEN warned_percent ELSE 0 END WHERE {where}""",
            {"id": of, "limit": limit_usd, "at_limit": at_limit},
        )


def begin_character(db: Connection[Any], character_id: int, limit_usd: Decimal) -> None:
    """Give a character a budget of its own, in which what it has cost so far counts; one that is there stays."""
    db.execute(
        """INSERT INTO budgets (character_id, limit_usd, spent_usd, overrun_usd)
           SELECT %(id)s, %(limit)s, spent, greatest(spent - %(limit)s, 0)
           FROM (SELECT coalesce(sum(amount), 0) AS spent FROM job_costs WHERE character_id = %(id)s) AS costs
           ON CONFLICT (character_id) DO NOTHING""",
        {"id": character_id, "limit": limit_usd},
    )


def _owner_id(db: Connection[Any], name: str) -> int:
    row = db.execute("SELECT id FROM owners WHERE name = %s", (name,)).fetchone()
    assert row is not None, name
    return int(row[0])


def _begin_owner(db: Connection[Any], owner_id: int, limit_usd: Decimal, *, is_prepaid: bool = False) -> None:
    db.execute(
        "INSERT INTO budgets (owner_id, limit_usd, is_prepaid) VALUES (%s, %s, %s) ON CONFLICT (owner_id) DO NOTHING",
        (owner_id, limit_usd, is_prepaid),
    )


# --- what happens to budgets inside the ledger's transactions ---


def reserve(db: Connection[Any], order: JobOrder, key: str) -> None:
    """Hold an order's ceiling against every budget it falls under.

    `OverBudget` or `AsksForBudget` when one is short: the caller's transaction must then be rolled back.
    """
    at = {"season": order.season_id, "character": order.character_id, "is_simulated": order.is_simulated}
    ids = [row[0] for row in db.execute(_OF_JOB, at).fetchall()]
    rows = (
        db.cursor(row_factory=dict_row)
        .execute(f"{_BUDGETS} WHERE budgets.id = ANY(%s) ORDER BY budgets.id", (ids,))
        .fetchall()
    )
    budgets = [Budget.model_validate(row) for row in rows]
    assert any(budget.scope == "season" for budget in budgets), f"season {order.season_id} has no budget"
    at_limit = next(budget.at_limit for budget in budgets if budget.scope == "season")
    for budget in budgets:
        if budget.reserved_usd + budget.spent_usd + order.ceiling_usd > budget.limit_usd:
            raise _short(order, budget, at_limit)
    for budget in budgets:
        db.execute(
            "INSERT INTO reservations (budget_id, job_key, amount_usd) VALUES (%s, %s, %s)",
            (budget.id, key, order.ceiling_usd),
        )
        db.execute("UPDATE budgets SET reserved_usd = reserved_usd + %s WHERE id = %s", (order.ceiling_usd, budget.id))
        _warn(db, budget.id, order.season_id)


def release(db: Connection[Any], key: str) -> None:
    """Give back what a job holds that was never sent."""
    for budget_id, held_usd in _take_back(db, key):
        db.execute("UPDATE budgets SET reserved_usd = reserved_usd - %s WHERE id = %s", (held_usd, budget_id))


def _take_back(db: Connection[Any], key: str) -> list[tuple[int, Decimal]]:
    """End a job's reservations: (budget, USD held) in the order in which budgets are locked."""
    released = db.execute(
        """UPDATE reservations SET released_at = now() WHERE job_key = %s AND released_at IS NULL
           RETURNING budget_id, amount_usd""",
        (key,),
    ).fetchall()
    return sorted(released)


def settle(db: Connection[Any], key: str, state: JobState, entry: CostEntry) -> None:
    """Release what a job holds and count what it cost; credits are taken for a success only.

    More than was reserved is counted all the same: an overrun is recorded and told, and stops further submits.
    """
    billed_usd = entry.amount_usd
    for budget_id, held_usd in _take_back(db, key):
        row = db.execute(
            "SELECT is_prepaid, limit_usd - spent_usd FROM budgets WHERE id = %s FOR UPDATE", (budget_id,)
        ).fetchone()
        assert row is not None
        is_prepaid, left_usd = row
        charged_usd = billed_usd
        if is_prepaid:
            owed_usd = billed_usd if state is JobState.SUCCEEDED else Decimal(0)
            charged_usd = min(owed_usd, left_usd)
            if state is JobState.SUCCEEDED:
                _credit(db, budget_id, CreditKind.DEDUCT, charged_usd, key, "")
            else:
                _credit(db, budget_id, CreditKind.REFUND, held_usd, key, f"the job ended as {state}")
            short_usd = owed_usd - charged_usd
        else:
            short_usd = max(charged_usd - left_usd, Decimal(0))
        db.execute(
            """UPDATE budgets SET reserved_usd = reserved_usd - %(held)s, spent_usd = spent_usd + %(charged)s,
               overrun_usd = CASE WHEN is_prepaid THEN overrun_usd + %(short)s
                                  ELSE greatest(overrun_usd, spent_usd + %(charged)s - limit_usd, 0) END
               WHERE id = %(id)s""",
            {"held": held_usd, "charged": charged_usd, "short": short_usd, "id": budget_id},
        )
        if billed_usd > held_usd or short_usd > 0:
            _tell_overrun(db, budget_id, entry.season_id, key, billed_usd, held_usd)
        _warn(db, budget_id, entry.season_id)


def refuse_where_passed(db: Connection[Any], key: str) -> None:
    """`OverBudget` or `AsksForBudget` when a budget this job falls under is passed already: it must not be sent."""
    row = (
        db.cursor(row_factory=dict_row)
        .execute(
            f"""{_BUDGETS} JOIN reservations ON reservations.budget_id = budgets.id
            WHERE job_key = %s AND released_at IS NULL AND (reserved_usd + spent_usd > limit_usd OR overrun_usd > 0)
            ORDER BY budgets.id LIMIT 1""",
            (key,),
        )
        .fetchone()
    )
    if row is None:
        return
    budget = Budget.model_validate(row)
    of_season = db.execute(
        """SELECT at_limit FROM budgets JOIN provider_jobs ON provider_jobs.season_id = budgets.season_id
           WHERE provider_jobs.key = %s""",
        (key,),
    ).fetchone()
    assert of_season is not None
    sentence = (
        f"The {_named(budget)} is passed: {budget.spent_usd:.2f} USD are spent and {budget.reserved_usd:.2f} reserved "
        f"of {budget.limit_usd:.2f}, because a vendor billed more than was reserved or the limit was lowered: "
        f"{_way_out(budget)}; until then nothing more is submitted."
    )
    raise _refusal(budget, AtLimit(of_season[0]), sentence)


def _short(order: JobOrder, budget: Budget, season_at_limit: AtLimit) -> OverBudget | AsksForBudget:
    whom = f"slot {order.slot_number}" if order.slot_number is not None else f"character {order.character_id}"
    sentence = (
        f"{order.api_name} for {whom} may cost up to {order.ceiling_usd} USD, but only {budget.free_usd} of the "
        f"{_named(budget)} ({budget.limit_usd} USD) are free: {_way_out(budget)}, and run again; nothing was submitted."
    )
    return _refusal(budget, season_at_limit, sentence)


def _refusal(budget: Budget, season_at_limit: AtLimit, sentence: str) -> OverBudget | AsksForBudget:
    """An owner's budget has its own word on what happens at the limit; the season's holds for its characters."""
    asks = (budget.at_limit if budget.scope == "owner" else season_at_limit) is AtLimit.ASK
    return AsksForBudget(sentence) if asks else OverBudget(sentence)


def _named(budget: Budget) -> str:
    what = "credits" if budget.is_prepaid else "budget"
    return f"{budget.scope}'s {what}" if budget.scope == "season" else f"{what} of {budget.scope} {budget.whom}"


def _way_out(budget: Budget) -> str:
    return (HOW_TO_ADD if budget.is_prepaid else HOW_TO_RAISE[budget.scope]).format(whom=budget.whom)


def _credit(
    db: Connection[Any], budget_id: int, kind: CreditKind, amount_usd: Decimal, key: str | None, note: str
) -> None:
    db.execute(
        "INSERT INTO credit_entries (budget_id, kind, amount_usd, job_key, note) VALUES (%s, %s, %s, %s, %s)",
        (budget_id, kind, amount_usd, key, note),
    )


def _warn(db: Connection[Any], budget_id: int, season_id: int) -> None:
    """Tell once when reserved and spent together have reached a mark of the limit."""
    row = db.cursor(row_factory=dict_row).execute(f"{_BUDGETS} WHERE budgets.id = %s", (budget_id,)).fetchone()
    budget = Budget.model_validate(row)
    reached = max((mark for mark in WARN_AT_PERCENT if budget.used_percent >= mark), default=0)
    is_new = db.execute(
        "UPDATE budgets SET warned_percent = %s WHERE id = %s AND warned_percent < %s", (reached, budget_id, reached)
    ).rowcount
    if is_new:
        _tell(
            db,
            season_id,
            "budget",
            f"{reached} % of the {_named(budget)} are reserved or spent: {budget.reserved_usd + budget.spent_usd:.2f} "
            f"of {budget.limit_usd:.2f} USD.",
            f"budget:{budget_id}:{budget.limit_usd}:{reached}",
        )


def _tell_overrun(
    db: Connection[Any], budget_id: int, season_id: int, key: str, billed_usd: Decimal, held_usd: Decimal
) -> None:
    _tell(
        db,
        season_id,
        "overrun",
        f"Job {key} was billed at {billed_usd} USD, more than the {held_usd} that were reserved for it.",
        f"overrun:{budget_id}:{key}",
    )


def _tell(db: Connection[Any], season_id: int, kind: str, message: str, once_key: str) -> None:
    db.execute(
        """INSERT INTO notifications (season_id, kind, message, once_key) VALUES (%s, %s, %s, %s)
           ON CONFLICT (once_key) DO NOTHING""",
        (season_id, kind, message, once_key),
    )
