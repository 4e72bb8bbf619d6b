"""What fal says it charged: request by request where it tells, else by model and day.

Addresses, parameters and fields: fal's platform API, "Billing events" and "Usage" (fal.ai/docs/platform-apis/v1/models/
billing-events and …/usage), read 2026-11, not tried. Both want a key of Admin (or billing) scope and answer 403 to
others; the first has been seen to answer 500 (anthropics/claude-code #17965, 2026-01). Charges appear some minutes
after a job has ended; the day's sums may still change before the invoice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import httpx

from domain.errors import NotConfigured, Unavailable
from providers.fal.client import FalClient
from providers.fal.lookup import pages
from providers.vendor_ports import UsageLine
from providers.vendor_words import in_zulu, moment

LONGEST_SPAN = timedelta(days=90)
"""More is refused in one request (documentation as above)."""

EVENTS_AT_ONCE = 1000
NANO = Decimal(10) ** -9
DAY = timedelta(days=1)
JUST_UNDER_A_SECOND = timedelta(microseconds=999_999)
"""Added to an end before it is written in whole seconds."""


class _NoEvents(Unavailable):
    """The list by request is not to be had with this key, or at all."""


class FalUsage:
    """`UsageReader` at fal."""

    def __init__(self, client: FalClient) -> None:
        self._client = client

    def usage(self, since: datetime, until: datetime) -> tuple[UsageLine, ...]:
        """Charges from `since` to before `until`, all of them or none.

        `NotConfigured` when the key may not see them, `Unavailable` when a page could not be read, `RateLimited`.
        """
        try:
            return self._in_spans(self._events, since, until)
        except _NoEvents:
            return self._in_spans(self._days, since, until)

    def _in_spans(
        self, read: Callable[[datetime, datetime], Iterator[UsageLine]], since: datetime, until: datetime
    ) -> tuple[UsageLine, ...]:
        since, until = since.astimezone(UTC), until.astimezone(UTC)
        found: list[UsageLine] = []
        while since < until:
            end = min(since + LONGEST_SPAN, until)
            found.extend(read(since, end))
            since = end
        return tuple(found)

    def _events(self, since: datetime, until: datetime) -> Iterator[UsageLine]:
        asked = {"start": in_zulu(since), "end": in_zulu(until + JUST_UNDER_A_SECOND), "limit": str(EVENTS_AT_ONCE)}
        doing = "reading what was charged"

        def check(response: httpx.Response) -> None:
            if response.status_code in (403, 404, 500):
                raise _NoEvents(f"fal lists no charges by request ({response.status_code}).")
            self._client.check_look(response, doing)

        for page in pages(self._client, "/models/billing-events", asked, doing, check):
            for event in _entries(page, "billing_events"):
                request_id, at = event.get("request_id"), moment(event.get("timestamp"))
                if not isinstance(request_id, str) or not request_id or at is None:
                    raise Unavailable("fal's list of charges holds one without a request or a time; ask again later.")
                amount = _amount(event, "cost_total")
                if amount is None and (nano := _amount(event, "cost_estimate_nano_usd")) is not None:
                    amount = nano * NANO
                line = UsageLine(
                    subject=request_id, is_single_job=True, amount_usd=_known(amount), began_at=at, ended_at=at
                )
                if since <= at < until:
                    yield line

    def _days(self, since: datetime, until: datetime) -> Iterator[UsageLine]:
        asked = {
            "start": in_zulu(since),
            "end": in_zulu(until + JUST_UNDER_A_SECOND),
            "timezone": "UTC",
            "timeframe": "day",
            "bound_to_timeframe": "false",
            "expand": "time_series",
        }
        doing = "reading what was charged by day"

        def check(response: httpx.Response) -> None:
            if response.status_code == 403:
                raise NotConfigured(
                    f"fal shows what it charged only to a key of Admin scope (403: "
                    f"{self._client.words(response).text}): compare its invoice by hand, or give FAL_KEY that scope."
                )
            self._client.check_look(response, doing)

        for page in pages(self._client, "/models/usage", asked, doing, check):
            for bucket in _entries(page, "time_series"):
                day = moment(bucket.get("bucket"))
                if day is None:
                    raise Unavailable("fal's list of charges holds a day without a date; ask again later.")
                for entry in _entries(bucket, "results"):
                    endpoint, currency = entry.get("endpoint_id"), entry.get("currency", "USD")
                    if not isinstance(endpoint, str) or not endpoint or currency != "USD":
                        raise Unavailable("fal's list of charges holds one without a model or not in USD.")
                    amount = _amount(entry, "cost_total")
                    amount = _known(amount if amount is not None else _amount(entry, "cost"))
                    yield UsageLine(
                        subject=endpoint, is_single_job=False, amount_usd=amount, began_at=day, ended_at=day + DAY
                    )


def _entries(page: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = page.get(name)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Unavailable(f"fal's list of charges has no {name} that can be read; it can be asked again.")
    return entries


def _amount(entry: dict[str, Any], field: str) -> Decimal | None:
    """A sum as it was written; None when it is not there or none."""
    value = entry.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None


def _known(amount: Decimal | None) -> Decimal:
    if amount is None:
        raise Unavailable("fal's list of charges holds one whose amount cannot be read; it can be asked again.")
    return amount
