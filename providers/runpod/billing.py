"""What RunPod says it charged for pods."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from domain.errors import BadInput, Unavailable
from providers.runpod.client import RunPodClient, json_of, read_time, read_usd
from providers.vendor_ports import UsageLine

HOURLY_UP_TO = timedelta(days=3)
"""RunPod widens a span to whole buckets; hours keep a short span near what was asked, days keep a long list short."""


def read_usage(client: RunPodClient, since: datetime, until: datetime) -> tuple[UsageLine, ...]:
    """One line per pod that cost anything, by pod id: the sum of its buckets, from the first's start to the last's end.

    The span is RunPod's, which starts and ends on whole hours (days, for spans over three days). `Unavailable` when the
    list, any record of it, or its own count of records does not hold.
    """
    if not since < until:
        raise BadInput(
            f"RunPod's charges from {since} until {until} were asked for: give a span that ends after it begins."
        )
    query = {
        "startTime": _rfc3339(since),
        "endTime": _rfc3339(until),
        "bucketSize": "hour" if until - since <= HOURLY_UP_TO else "day",
    }
    answer = json_of(client.look("GET", "/billing/pods", "reading what pods have cost", query=query))
    records = _records(answer)
    if records is None:
        raise Unavailable("RunPod's list of charges could not be read; it can be asked again.")
    by_pod: dict[str, UsageLine] = {}
    for line in _lines(records):
        before = by_pod.get(line.subject)
        by_pod[line.subject] = line if before is None else _joined(before, line)
    return tuple(line for _, line in sorted(by_pod.items()) if line.amount_usd)


def _records(answer: Any) -> list[Any] | None:
    """The one list of the answer: bare, as v1 sent it, or under a name (`records` in the specification of v2)."""
    if isinstance(answer, list):
        return answer
    if not isinstance(answer, dict):
        return None
    lists = [value for value in answer.values() if isinstance(value, list)]
    found = answer.get("records", lists[0] if len(lists) == 1 else None)
    metadata = answer.get("metadata")
    count = metadata.get("recordCount") if isinstance(metadata, dict) else None
    if not isinstance(found, list) or (isinstance(count, int) and count != len(found)):
        return None
    return found


def _lines(records: list[Any]) -> Iterator[UsageLine]:
    for place, record in enumerate(records, start=1):
        fields = record if isinstance(record, dict) else {}
        pod_id, amount = fields.get("podId"), read_usd(fields.get("totalAmount", fields.get("amount")))
        began, ended = read_time(fields.get("startTime")), read_time(fields.get("endTime"))
        if not isinstance(pod_id, str) or not pod_id or amount is None or began is None or ended is None:
            raise Unavailable(
                f"Record {place} of RunPod's list of charges could not be read; no part of such a list is used."
            )
        yield UsageLine(subject=pod_id, is_single_job=True, amount_usd=amount, began_at=began, ended_at=ended)


def _joined(one: UsageLine, other: UsageLine) -> UsageLine:
    # A bucket that cost nothing says nothing about when the pod ran.
    if not one.amount_usd or not other.amount_usd:
        return one if one.amount_usd else other
    return one.model_copy(
        update={
            "amount_usd": Decimal(one.amount_usd + other.amount_usd),
            "began_at": min(one.began_at, other.began_at),
            "ended_at": max(one.ended_at, other.ended_at),
        }
    )


def _rfc3339(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
