"""What a vendor says, read as JSON or time and quoted on one line: all about its words but their meaning."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import httpx

QUOTE_CHARS = 300
HIDDEN = "**********"


def json_of(response: httpx.Response) -> Any:
    """The answer's JSON, or None when it is none."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def moment(text: object) -> datetime | None:
    """A time as ISO 8601 writes it, aware, in UTC, which is meant where no zone stands; None when it cannot be read.

    Some vendors write nanoseconds; what lies below a microsecond is dropped.
    """
    if not isinstance(text, str):
        return None
    try:
        when = datetime.fromisoformat(text)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def in_zulu(when: datetime) -> str:
    """A time in UTC as vendors' lists are asked for it, to the second; `moment` reads it back."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def without(text: object, secrets: Iterable[str]) -> str:
    """The text with each of the secrets hidden, in their order."""
    line = str(text)
    for secret in secrets:
        line = line.replace(secret, HIDDEN)
    return line


def one_line(text: str, most_chars: int = QUOTE_CHARS) -> str:
    """The text on one line, cut."""
    line = " ".join(text.split())
    return line if len(line) <= most_chars else line[: most_chars - 1] + "…"


def failure_line(error: BaseException, quoted: str) -> str:
    """An exception in a few words, its class first, because httpx leaves many without a text."""
    return f"{type(error).__name__}: {quoted}" if quoted else type(error).__name__
