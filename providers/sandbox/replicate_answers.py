"""Refusals in Replicate's words, and the answers that the faults of a plan give there."""

from __future__ import annotations

from typing import Any

from providers.sandbox.faults import Fault, gateway_page, status_and_type
from providers.sandbox.wire import Reply


def problem(status: int, title: str, detail: str, **more: Any) -> Reply:
    """A refusal in Replicate's words: a problem document."""
    body = {"title": title, "detail": detail, "status": status, **more}
    return Reply.of(status, body, {"Content-Type": "application/problem+json"})


def throttled(seconds: float, *, in_header: bool = False) -> Reply:
    """A 429; as public logs quote it the wait stands in the body alone (reference 1.1)."""
    whole = max(1, round(seconds))
    body: dict[str, Any] = {"detail": f"Request was throttled. Your rate limit resets in ~{whole}s.", "status": 429}
    if in_header:
        return Reply.of(429, body, {"Retry-After": f"{seconds:g}"})
    return Reply.of(429, body | {"retry_after": seconds if seconds < 1 else whole})


def answer_of(fault: Fault) -> Reply:
    """The reply of a fault that is nothing but a reply, in Replicate's words."""
    match fault.kind:
        case "refuse":
            status, kind = status_and_type(fault, 422)
            text = f"Refused on purpose by the sandbox: {fault.text}"
            wrong = [{"type": kind or "invalid", "field": "input", "description": text}]
            return problem(status, "Refused", text, invalid_fields=wrong if status == 422 else [])
        case "lock":
            return problem(402, "Insufficient credit", "You have insufficient credit to run this model.")
        case "rate_limit":
            return throttled(fault.number(1), in_header=True)
        case "rate_limit_body":
            return throttled(fault.number(1))
        case "unavailable":
            return gateway_page(int(fault.number(503)))
        case "stall" | "stall_after_accept":
            return Reply(stall_seconds=fault.number(600), is_dropped=True)
        case "malformed":
            return Reply(201, {"Content-Type": "application/json"}, b'{"id": "6f3a')
        case "vanish" | "expire":
            return problem(404, "Not found", "The requested resource could not be found.")
        case _:
            return Reply(is_dropped=True)
