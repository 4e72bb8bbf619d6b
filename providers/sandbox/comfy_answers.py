"""Refusals and faults of the stand-in of ComfyUI: in ComfyUI's words, or a proxy's where it has none of its own."""

from __future__ import annotations

from providers.sandbox.faults import Fault, answer_of, gateway_page, status_and_type
from providers.sandbox.wire import Reply


def refused(kind: str, message: str) -> Reply:
    error = {"type": kind, "message": message, "details": "", "extra_info": {}}
    return Reply.of(400, {"error": error, "node_errors": {}})


def fault_answer(fault: Fault) -> Reply:
    """The reply of a fault."""
    match fault.kind:
        case "refuse":
            status, kind = status_and_type(fault, 400)
            reply = refused(kind or "prompt_outputs_failed_validation", f"Refused on purpose: {fault.text}")
            return Reply(status, reply.headers, reply.body)
        case "lock":
            return Reply.of(402, {"detail": "Payment required: the balance of this server's host is used up"})
        case "unavailable":
            return gateway_page(int(fault.number(503)))
        case "malformed":
            return Reply(200, {"Content-Type": "application/json"}, b'{"prompt_id": "12')
        case _:
            return answer_of(fault)
