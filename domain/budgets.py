"""Budgets: what a season, a character or an owner may spend at most, and credits that an owner has paid in before.

A job reserves its ceiling against every budget it falls under, in one transaction; it settles at what was billed.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

from domain.records import Record

WARN_AT_PERCENT = (50, 80, 95)
"""Shares of a budget, reserved and spent together, at which its owner is told; each is told once."""


class BudgetScope(StrEnum):
    """Whose budget it is."""

    SEASON = "season"
    CHARACTER = "character"
    OWNER = "owner"


class AtLimit(StrEnum):
    """What happens when a job does not fit: the run stops (exit 4), or goes on without it and asks (exit 6)."""

    STOP = "stop"
    ASK = "ask"


class Budget(Record):
    """A row of `budgets`, in USD. Prepaid ones are credits: `limit_usd` is what was paid in, and a job that fails
    costs its owner nothing.

    `overrun_usd` is what vendors billed beyond the limit: recorded, and nothing more is submitted until it is raised.
    """

    id: int
    scope: BudgetScope
    whom: str
    limit_usd: Decimal
    reserved_usd: Decimal
    spent_usd: Decimal
    overrun_usd: Decimal
    is_prepaid: bool
    at_limit: AtLimit

    @property
    def free_usd(self) -> Decimal:
        """What may still be reserved; never below zero."""
        return max(self.limit_usd - self.reserved_usd - self.spent_usd, Decimal(0))

    @property
    def used_percent(self) -> int:
        """Reserved and spent, of the limit, rounded down."""
        return int(100 * (self.reserved_usd + self.spent_usd) / self.limit_usd)


class CreditKind(StrEnum):
    """A movement of an owner's credits; equal to the SQL check on `credit_entries.kind`."""

    GRANT = "grant"
    DEDUCT = "deduct"
    REFUND = "refund"
