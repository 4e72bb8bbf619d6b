"""What fal says it charged, request by request or by day, and never a part of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.errors import NotConfigured, OnModelError, RateLimited, Unavailable
from providers.fal.vendor import FalVendor
from providers.vendor_ports import UsageLine, UsageReader
from tests.contract.fal_standin import Answer, StandIn, fal_stand_in, vendor_at

EVENTS = "GET api.fal.ai/v1/models/billing-events"
DAYS = "GET api.fal.ai/v1/models/usage"
SINCE = datetime(2026, 3, 1, tzinfo=UTC)
UNTIL = SINCE + timedelta(days=2)
NO_SCOPE = Answer(403, {"error": {"type": "authorization_error", "message": "Admin key required"}})


@pytest.fixture(scope="module")
def shared() -> Iterator[StandIn]:
    with fal_stand_in() as server:
        yield server


@pytest.fixture
def fal(shared: StandIn) -> StandIn:
    """One stand-in for all, each time without plans and memories."""
    shared.plan.clear()
    shared.seen.clear()
    return shared


@pytest.fixture(scope="module")
def vendor(shared: StandIn) -> Iterator[FalVendor]:
    with vendor_at(shared) as vendor:
        yield vendor


def event(request_id: str, cost: Any, at: str = "2026-03-01T10:00:00Z", **fields: Any) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "endpoint_id": "fal-ai/flux-lora",
        "timestamp": at,
        "cost_total": cost,
        **fields,
    }


def events(*entries: Any, cursor: str | None = None) -> Answer:
    return Answer(200, {"billing_events": list(entries), "next_cursor": cursor, "has_more": cursor is not None})


def days(*results: Any, bucket: Any = "2026-03-01T00:00:00Z") -> Answer:
    series = [{"bucket": bucket, "results": list(results)}]
    return Answer(200, {"time_series": series, "next_cursor": None, "has_more": False})


def test_charges_are_told_request_by_request_over_all_pages(fal: StandIn, vendor: FalVendor) -> None:
    role: UsageReader = vendor
    nano = {"cost_total": None, "cost_estimate_nano_usd": 45_000_000}
    fal.on(EVENTS, events(event("a", 0.035), cursor="Mg=="), events(event("b", "0.28"), event("c", 0, **nano)))
    lines = role.usage(SINCE, UNTIL)
    at = datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert [(line.subject, line.amount_usd) for line in lines] == [
        ("a", Decimal("0.035")),
        ("b", Decimal("0.28")),
        ("c", Decimal("0.045")),
    ]
    assert lines[0] == UsageLine(subject="a", is_single_job=True, amount_usd=Decimal("0.035"), began_at=at, ended_at=at)
    assert fal.seen[0].query == "start=2026-03-01T00%3A00%3A00Z&end=2026-03-03T00%3A00%3A00Z&limit=1000"


def test_the_end_of_the_span_is_not_in_it_and_its_last_part_of_a_second_is(fal: StandIn, vendor: FalVendor) -> None:
    until = datetime(2026, 3, 1, 10, 0, 0, 500_000, tzinfo=UTC)
    fal.on(EVENTS, events(event("in", 1, "2026-03-01T10:00:00.4Z"), event("out", 1, "2026-03-01T10:00:00.5Z")))
    assert [line.subject for line in vendor.usage(SINCE, until)] == ["in"]
    assert "end=2026-03-01T10%3A00%3A01Z" in fal.seen[0].query


def test_more_than_ninety_days_are_asked_for_in_parts(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(EVENTS, events(event("a", 1)), events())
    assert len(vendor.usage(SINCE, SINCE + timedelta(days=100))) == 1
    assert [seen.query.split("&")[:2] for seen in fal.seen] == [
        ["start=2026-03-01T00%3A00%3A00Z", "end=2026-05-30T00%3A00%3A00Z"],
        ["start=2026-05-30T00%3A00%3A00Z", "end=2026-06-09T00%3A00%3A00Z"],
    ]


@pytest.mark.parametrize("refused", [NO_SCOPE, Answer(404, {}), Answer(500, {"error": {"type": "server_error"}})])
def test_without_a_list_by_request_the_sums_of_the_days_are_told(
    fal: StandIn, vendor: FalVendor, refused: Answer
) -> None:
    fal.on(EVENTS, refused)
    fal.on(
        DAYS,
        days(
            {"endpoint_id": "fal-ai/flux-lora", "cost_total": 0.7, "cost": 0.7, "currency": "USD"},
            {"endpoint_id": "fal-ai/veo3.1", "cost": 1.6},
            bucket="2026-03-01T00:00:00-05:00",
        ),
    )
    lines = vendor.usage(SINCE, UNTIL)
    assert [(line.subject, line.amount_usd, line.is_single_job) for line in lines] == [
        ("fal-ai/flux-lora", Decimal("0.7"), False),
        ("fal-ai/veo3.1", Decimal("1.6"), False),
    ]
    assert (lines[0].began_at, lines[0].ended_at - lines[0].began_at) == (
        datetime(2026, 3, 1, 5, tzinfo=UTC),
        timedelta(days=1),
    )


def test_a_key_that_may_not_see_charges_is_no_empty_account(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(EVENTS, NO_SCOPE)
    fal.on(DAYS, NO_SCOPE)
    with pytest.raises(NotConfigured, match="Admin scope"):
        vendor.usage(SINCE, UNTIL)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(502, b"<html>nginx</html>"), Unavailable),
        (Answer(200, b'{"billing_ev'), Unavailable),
        (Answer(200, {"items": []}), Unavailable),
        (events("x"), Unavailable),
        (events(event("", 1)), Unavailable),
        (events(event("a", 1, "yesterday")), Unavailable),
        (events(event("a", None)), Unavailable),
        (events(event("a", "free")), Unavailable),
        (events(event("a", "NaN")), Unavailable),
        (events(event("a", True)), Unavailable),
        (Answer(429, {}), RateLimited),
        (Answer(401, {}), NotConfigured),
    ],
)
def test_charges_that_cannot_be_read_whole_are_an_error(
    fal: StandIn, vendor: FalVendor, answer: Answer, error: type[OnModelError]
) -> None:
    fal.on(EVENTS, events(event("good", 1), cursor="Mg=="), answer)
    with pytest.raises(error):
        vendor.usage(SINCE, UNTIL)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, {}),
        Answer(200, {"time_series": None}),
        days({"endpoint_id": "x", "cost": 1}, bucket=7),
        days({"cost": 1}),
        days({"endpoint_id": "x"}),
        days({"endpoint_id": "x", "cost": 1, "currency": "EUR"}),
    ],
)
def test_days_that_cannot_be_read_are_an_error(fal: StandIn, vendor: FalVendor, answer: Answer) -> None:
    fal.on(EVENTS, NO_SCOPE)
    fal.on(DAYS, answer)
    with pytest.raises(Unavailable):
        vendor.usage(SINCE, UNTIL)
