"""fal's platform API as far as a pipeline asks it: the balance, the requests of an endpoint, and what was charged.

Addresses, parameters and fields: fal.ai/docs/platform-apis/v1 (account/billing, models/requests/by-endpoint,
models/billing-events, models/usage), read 2026-11. `start` and `end` count by a request's sending in the list of
requests and by its end in the charges, which fal does not say. What was charged is simulated, like everything here.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from providers.sandbox.charges import charge_usd
from providers.sandbox.faults import FaultPlan, answer_of
from providers.sandbox.journal import Job, Journal
from providers.sandbox.wire import Reply, Request, refusal

LISTED_AT_ONCE = (50, 100)
CHARGED_AT_ONCE = (1000, 10000)
"""Entries of a page: unless asked otherwise, and at most."""


class FalLists:
    """Answers for api.fal.ai."""

    def __init__(self, journal: Journal, faults: FaultPlan, balance_usd: Callable[[Request], float]) -> None:
        self._journal = journal
        self._faults = faults
        self._balance_usd = balance_usd

    def answer(self, request: Request) -> Reply:
        """The key has been judged already."""
        if request.method != "GET":
            return refusal(405, "Method Not Allowed")
        match request.path:
            case "/v1/account/billing":
                credit = {"credits": {"current_balance": self._balance_usd(request), "currency": "USD"}}
                return Reply.of(200, {"username": "sandbox"} | (credit if "expand" in request.query else {}))
            case "/v1/models/requests/by-endpoint":
                return self._requests(request.query)
            case "/v1/models/billing-events":
                return self._charges("billing-events", request.query)
            case "/v1/models/usage":
                return self._charges("usage", request.query)
            case _:
                return refusal(404, "Not found")

    def _requests(self, query: Mapping[str, str]) -> Reply:
        wanted = query.get("endpoint_id")
        if not wanted:
            return _bad_query("endpoint_id is required")
        fault = self._faults.pick("list", wanted)
        if fault is not None and fault.kind not in ("hide", "no_input"):
            return answer_of(fault)
        span = _span(query)
        if span is None:
            return _bad_query("start and end are dates in ISO 8601")
        jobs = [
            job
            for job in reversed(self._journal.all_jobs())
            if job.endpoint in wanted.split(",") and span[0] <= _when(job.accepted_at) < span[1]
        ]
        if fault is not None and fault.kind == "hide":
            jobs = []
        shows_input = "payloads" in query.get("expand", "") and fault is None
        return _page("items", [_listed(job, shows_input=shows_input) for job in jobs], query, LISTED_AT_ONCE)

    def _charges(self, which: str, query: Mapping[str, str]) -> Reply:
        if fault := self._faults.pick("usage", which):
            return answer_of(fault)
        span = _span(query)
        if span is None:
            return _bad_query("start and end are dates in ISO 8601")
        charged = [
            (job, amount)
            for job in self._journal.all_jobs()
            if job.ended_at is not None and span[0] <= _when(job.ended_at) < span[1] and (amount := charge_usd(job))
        ]
        if which == "billing-events":
            return _page("billing_events", [_event(*entry) for entry in charged], query, CHARGED_AT_ONCE)
        if not {"time_series", "summary"} & set(query.get("expand", "").split(",")):
            return _bad_query("expand names time_series or summary")
        return _page("time_series", _by_day(charged), query, CHARGED_AT_ONCE)


def _listed(job: Job, *, shows_input: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "request_id": job.request_id,
        "endpoint_id": job.endpoint,
        "sent_at": _iso(job.accepted_at),
        "started_at": _iso(job.started_at),
        "ended_at": _iso(job.ended_at),
        "status_code": None if job.outcome is None else job.outcome.status,
    }
    return facts | ({"json_input": job.input} if shows_input else {})


def _event(job: Job, amount: Decimal) -> dict[str, Any]:
    return {
        "request_id": job.request_id,
        "endpoint_id": job.endpoint,
        "timestamp": _iso(job.ended_at),
        "output_units": 1,
        "unit_price": float(amount),
        "cost_subtotal": float(amount),
        "cost_discount": 0,
        "cost_total": float(amount),
        "cost_estimate_nano_usd": int(amount * 10**9),
    }


def _by_day(charged: Sequence[tuple[Job, Decimal]]) -> list[dict[str, Any]]:
    sums: dict[datetime, dict[str, list[Decimal]]] = defaultdict(lambda: defaultdict(list))
    for job, amount in charged:
        day = _when(job.ended_at or 0).replace(hour=0, minute=0, second=0, microsecond=0)
        sums[day][job.endpoint].append(amount)
    return [
        {
            "bucket": day.isoformat(),
            "results": [
                {
                    "endpoint_id": endpoint,
                    "unit": "request",
                    "quantity": len(amounts),
                    "cost_total": float(sum(amounts)),
                    "cost": float(sum(amounts)),
                    "currency": "USD",
                }
                for endpoint, amounts in sorted(entries.items())
            ],
        }
        for day, entries in sorted(sums.items())
    ]


def _page(name: str, entries: Sequence[Any], query: Mapping[str, str], sizes: tuple[int, int]) -> Reply:
    usual, most = sizes
    limit = query.get("limit", str(usual))
    if not limit.isdigit() or not 1 <= int(limit) <= most:
        return _bad_query(f"limit is 1 to {most}")
    try:
        number = int(base64.b64decode(query["cursor"])) if query.get("cursor") else 1
    except (ValueError, binascii.Error):
        return _bad_query("cursor comes from an earlier page")
    end = number * int(limit)
    has_more = end < len(entries)
    cursor = base64.b64encode(str(number + 1).encode()).decode() if has_more else None
    return Reply.of(200, {name: list(entries[end - int(limit) : end]), "next_cursor": cursor, "has_more": has_more})


def _span(query: Mapping[str, str]) -> tuple[datetime, datetime] | None:
    """From `start` (a day ago) to before `end` (now, and whatever comes while we look); None when unreadable."""
    now = datetime.now(UTC)
    try:
        start = datetime.fromisoformat(query["start"]) if query.get("start") else now - timedelta(days=1)
        end = datetime.fromisoformat(query["end"]) if query.get("end") else now + timedelta(days=1)
    except ValueError:
        return None
    return _aware(start), _aware(end)


def _aware(when: datetime) -> datetime:
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _bad_query(words: str) -> Reply:
    return Reply.of(400, {"error": {"type": "validation_error", "message": words}})


def _when(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def _iso(moment: float | None) -> str | None:
    return None if moment is None else _when(moment).isoformat()
