"""Looking for a job at fal whose answer was lost: fal's list of requests, compared with what we sent.

Parameters and fields: fal's platform API, "List requests by endpoint" (fal.ai/docs/platform-apis/v1/models/requests/
by-endpoint), read 2026-11, not tried. What is not said there: whether `start` counts from a request's sending, start or
end (all three lie after our POST, so it serves either way); how soon a request is listed, and whether before it has
ended (the list is sorted by end); whether `json_input` is what we sent to the letter. So nothing here proves that a
request does not exist, and an input that merely holds ours is shown to a person and not adopted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx

from domain.errors import Unavailable
from domain.jobs import VendorRequest
from domain.records import Record
from domain.submissions import AbsenceRule, LookUp, Submission
from providers.fal.client import API_URL, FalClient
from providers.lost_jobs import Sifted, is_same_json, since_of
from providers.vendor_words import in_zulu, json_of, moment

ABSENCE = AbsenceRule(
    can_prove=False,
    reason=(
        "fal's list of requests can show a job, but not prove that there is none: it may lag, "
        "and fal takes no name of ours to look for"
    ),
)

PAGE_SIZE = 100
"""The most that fal gives at once (its documentation, as above)."""

MOST_PAGES = 50
INPUT_FIELDS = ("json_input", "input")
TIME_FIELDS = ("sent_at", "created_at", "started_at")


class _Listed(Record):
    """One request of the list. `input` None: not shown; `sent_at` None: not said."""

    request_id: str
    input: Any
    sent_at: datetime | None


class FalLookUp:
    """The look-up of `JobQueue` at fal."""

    def __init__(self, client: FalClient, vendor: str) -> None:
        self._client = client
        self._vendor = vendor

    def look_up(self, request: VendorRequest, submission: Submission, known_ids: frozenset[str]) -> LookUp:
        """Found when exactly one request not yet ours, sent since two minutes before our POST, has our very input.

        Several such, or ones whose input is not shown or says more than ours: unclear, with their ids. Reads every
        page first. `Unavailable` when the list could not be read whole; `NotConfigured` or `OutOfCredit` on 401, 403.
        """
        since, sifted = since_of(submission), Sifted()
        ours = request.with_urls(submission.url_of)
        for listed in self._requests(request.endpoint, since):
            if listed.request_id in known_ids or (listed.sent_at is not None and listed.sent_at < since):
                continue
            sifted.see()
            if listed.input is None:
                sifted.maybe(listed.request_id)
            elif is_same_json(listed.input, ours):
                (sifted.maybe if listed.sent_at is None else sifted.equal)(listed.request_id)
            elif isinstance(listed.input, dict) and is_same_json({key: listed.input.get(key) for key in ours}, ours):
                sifted.maybe(listed.request_id)
        return sifted.verdict(
            f"fal's list of {request.endpoint} since {in_zulu(since)}",
            "requests",
            lambda request_id: f"fal lists the request {request_id} with our input, sent since {in_zulu(since)}",
        )

    def _requests(self, endpoint: str, since: datetime) -> Iterator[_Listed]:
        asked: dict[str, str] = {
            "endpoint_id": endpoint,
            "start": in_zulu(since),
            "expand": "payloads",
            "limit": str(PAGE_SIZE),
        }
        for page in pages(self._client, "/models/requests/by-endpoint", asked, "looking up a lost request"):
            items = page.get("items")
            if not isinstance(items, list):
                raise Unavailable("fal's list of requests has no items that can be read; it can be asked again.")
            for item in items:
                if not isinstance(item, dict) or not isinstance(item.get("request_id"), str) or not item["request_id"]:
                    raise Unavailable("fal's list of requests holds one without an id; it can be asked again.")
                if item.get("endpoint_id", endpoint) == endpoint:
                    yield _Listed(request_id=item["request_id"], input=_input_of(item), sent_at=_sent_at(item))


def pages(
    client: FalClient,
    path: str,
    asked: dict[str, str],
    doing: str,
    check: Callable[[httpx.Response], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Every page of one of fal's lists, in order. Free; `Unavailable` when any of them cannot be read.

    `check` raises for an answer that is no page; without it, refusals mean what they mean everywhere at fal.
    """
    cursors: set[str] = set()
    for _ in range(MOST_PAGES):
        response = client.look("GET", str(httpx.URL(f"{API_URL}{path}", params=asked)))
        if check is None:
            client.check_look(response, doing)
        else:
            check(response)
        page = json_of(response)
        if not isinstance(page, dict):
            raise Unavailable(f"fal's answer when {doing} could not be read; it can be asked again.")
        yield page
        cursor = page.get("next_cursor")
        if not page.get("has_more", cursor is not None):
            return
        if not isinstance(cursor, str) or cursor in cursors:
            raise Unavailable(f"fal's list when {doing} says that it goes on and not where; it can be asked again.")
        cursors.add(cursor)
        asked = asked | {"cursor": cursor}
    raise Unavailable(f"fal's list when {doing} has more than {MOST_PAGES} pages: look on fal's dashboard.")


def _input_of(item: dict[str, Any]) -> Any:
    """What was sent, where the list shows it; a text is read as JSON, because some of fal's addresses wrap it so."""
    value = next((item[field] for field in INPUT_FIELDS if item.get(field) is not None), None)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _sent_at(item: dict[str, Any]) -> datetime | None:
    return next((when for field in TIME_FIELDS if (when := moment(item.get(field))) is not None), None)
