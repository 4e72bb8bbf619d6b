"""Finding our lost job in a vendor's list that knows no name of ours: its input against ours, and what that proves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.jobs import VendorJobIds
from domain.submissions import Finding, LookUp, Submission

CLOCK_SLACK = timedelta(minutes=2)
"""A vendor's clock may stand before ours by this much."""

SHOWN_CANDIDATES = 20


class Sifted:
    """The unknown jobs of a list, as they are read: those with our very input, and those that may have it."""

    def __init__(self) -> None:
        self._equal: dict[str, None] = {}
        self._maybe: dict[str, None] = {}
        self._seen = 0

    def see(self) -> None:
        """Count one that is not yet ours and was made since our POST."""
        self._seen += 1

    def equal(self, job_id: str) -> None:
        """Its input is ours, and so is its time."""
        self._equal[job_id] = None

    def maybe(self, job_id: str) -> None:
        """Its input or its time is not shown, or says more than ours."""
        self._maybe[job_id] = None

    def verdict(self, where: str, jobs: str, found: Callable[[str], str]) -> LookUp:
        """Found when exactly one is equal, unclear when several are or some may be, absent when there is none.

        `where` is the list and `jobs` what it holds, in words; `found` says of an id that it is the one.
        """
        if len(self._equal) == 1:
            (job_id,) = self._equal
            return LookUp(finding=Finding.FOUND, detail=found(job_id), ids=VendorJobIds(request_id=job_id))
        candidates = tuple({**self._equal, **self._maybe})
        if candidates:
            why = "have our input" if len(self._equal) > 1 else "may be ours, their input cannot be compared with it"
            return LookUp(
                finding=Finding.UNCLEAR,
                detail=f"{where} holds {len(candidates)} {jobs} that {why}",
                candidates=candidates[:SHOWN_CANDIDATES],
            )
        return LookUp(finding=Finding.ABSENT, detail=f"{where} holds {self._seen} unknown {jobs}, none with our input")


def since_of(submission: Submission) -> datetime:
    """The earliest time at which the vendor's clock can have seen our POST."""
    return submission.sent_at.astimezone(UTC) - CLOCK_SLACK


def is_same_json(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(is_same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
