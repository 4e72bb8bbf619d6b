"""How we speak HTTP with anybody: one client with its timeouts, proxies and certificates, and the waits asked of us."""

from __future__ import annotations

import email.utils
import math
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx

TIMEOUT = httpx.Timeout(connect=15.0, read=60.0, write=60.0, pool=15.0)

NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)
"""Failures that happen before the first byte of a request leaves. httpx raises `ProxyError` for a tunnel or SOCKS
handshake, which precede the request; a plain proxy's refusal is an answer like any other."""

LONGEST_WAIT_SECONDS = 3600.0
"""Whatever a vendor asks for, it is tried again after an hour: a longer wait is a mistake more often than a wish."""

WAIT_FIELDS = ("retry_after_seconds", "retry_after", "retryAfter")


def open_http(
    sandbox_transport: httpx.BaseTransport | None = None, *, timeout: httpx.Timeout = TIMEOUT
) -> httpx.Client:
    """A client to give to an adapter; the caller closes it.

    With a sandbox transport everything goes through it and the environment is left alone. Without, HTTPS_PROXY,
    NO_PROXY and SSL_CERT_FILE are honoured, and loopback is never asked through a proxy. It never retries and never
    follows a redirect by itself, because either could send a paid request twice.
    """
    if sandbox_transport is not None:
        return httpx.Client(transport=sandbox_transport, timeout=timeout, trust_env=False, follow_redirects=False)
    direct = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))
    return httpx.Client(timeout=timeout, trust_env=True, follow_redirects=False, mounts=direct)


def is_https_at(url: str, hosts: Collection[str]) -> bool:
    """Whether the address is https, on its usual port, without a login, at one of these hosts: where a key may go."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme == "https" and parsed.host in hosts and parsed.port is None and not parsed.userinfo


def retry_after_seconds(response: httpx.Response) -> float | None:
    """How long a refusal asks us to wait, 0 to 3600 s; None when it does not say.

    Read from the header `Retry-After`, written as seconds or as a date, else from the body: `retry_after` or
    `retry_after_seconds` at its top or inside `detail` or `error`.
    """
    for value in (response.headers.get("retry-after"), *_waits_in_body(response)):
        seconds = _seconds(value)
        if seconds is not None:
            return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)
    return None


def _waits_in_body(response: httpx.Response) -> Iterator[Any]:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return
    if not isinstance(body, dict):
        return
    for part in (body, body.get("detail"), body.get("error")):
        for entry in part if isinstance(part, list) else [part]:
            if isinstance(entry, dict):
                yield from (entry[field] for field in WAIT_FIELDS if field in entry)


def _seconds(value: Any) -> float | None:
    """Seconds from now; None for what is no number and no date, for infinity and for what is not one either."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return LONGEST_WAIT_SECONDS
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(str(value))
        except (ValueError, TypeError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return seconds if math.isfinite(seconds) else None
