"""The circuit breaker of a vendor: when nothing more is sent to it, and when it is tried again.

Trouble with the account (401, 402, 403) opens it at once. Outages open it after several in a row. Open, it lets nothing
through until `probe_after`; then one process may probe: first a free ping, then one job. What becomes of that job
closes it, or opens it for twice as long.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from domain.records import Record

OUTAGES_TO_OPEN = 4
"""Unanswered or refused submits in a row before a vendor counts as down: a single 503 is weather."""

FIRST_PAUSE = {"account": timedelta(minutes=1), "outage": timedelta(seconds=30)}
LONGEST_PAUSE = timedelta(minutes=30)
PROBE_LASTS = timedelta(minutes=3)
"""A probe that nobody finished in this time (its process died) is anybody's again: longer than a POST may take."""


class CircuitState(StrEnum):
    """Equal to the SQL check on `vendor_circuits.state`."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitCause(StrEnum):
    """Why it opened: the account is locked, empty or its key is wrong; or the vendor is down."""

    ACCOUNT = "account"
    OUTAGE = "outage"


class Circuit(Record):
    """A row of `vendor_circuits`. `failures` counts outages in a row; `openings` how often it opened in a row."""

    vendor: str
    state: CircuitState = CircuitState.CLOSED
    cause: CircuitCause | None = None
    reason: str = ""
    failures: int = 0
    openings: int = 0
    opened_at: datetime | None = None
    probe_after: datetime | None = None

    def after_success(self) -> Circuit:
        """The vendor took a job."""
        return Circuit(vendor=self.vendor)

    def after_account_trouble(self, reason: str, now: datetime) -> Circuit:
        """Opens at once."""
        return self._opened(CircuitCause.ACCOUNT, reason, now)

    def after_outage(self, reason: str, now: datetime) -> Circuit:
        """Counts, and opens at the fourth in a row, or when it was being probed."""
        if self.state is CircuitState.CLOSED and self.failures + 1 < OUTAGES_TO_OPEN:
            return self.model_copy(update={"failures": self.failures + 1, "reason": reason})
        return self._opened(CircuitCause.OUTAGE, reason, now)

    def may_probe(self, now: datetime) -> bool:
        """Whether somebody may try it now. A clock that was set back does not keep it shut."""
        if self.state is CircuitState.CLOSED or self.probe_after is None:
            return False
        return now >= self.probe_after or self.probe_after - now > LONGEST_PAUSE

    def probing(self, now: datetime) -> Circuit:
        """One process tries; the others wait until it is done, or is believed dead."""
        return self.model_copy(update={"state": CircuitState.HALF_OPEN, "probe_after": now + PROBE_LASTS})

    def _opened(self, cause: CircuitCause, reason: str, now: datetime) -> Circuit:
        openings = 1 if self.state is CircuitState.CLOSED or self.cause is not cause else self.openings + 1
        pause = min(FIRST_PAUSE[cause] * 2 ** min(openings - 1, 10), LONGEST_PAUSE)
        return Circuit(
            vendor=self.vendor,
            state=CircuitState.OPEN,
            cause=cause,
            reason=reason,
            failures=self.failures + 1,
            openings=openings,
            opened_at=now,
            probe_after=now + pause,
        )
