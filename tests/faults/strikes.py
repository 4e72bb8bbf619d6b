"""What a spoiled answer of the product's own sandbox is: lost, silent, cut, or words that its vendor does not mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from providers.sandbox.faults import gateway_page
from providers.sandbox.wire import FilePart, Reply, Request
from tests.faults.matrix import Fault

Strike = Callable[[Request, Callable[[], Reply]], Reply]
"""Answers in the sandbox's place; the second argument lets it do its work and gives what it would have answered."""


def drop(request: Request, work: Callable[[], Reply]) -> Reply:
    work()
    return Reply(is_dropped=True)


def stall(request: Request, work: Callable[[], Reply]) -> Reply:
    work()
    return Reply(stall_seconds=60, is_dropped=True)


def refuse(reply: Reply) -> Strike:
    """This answer, and nothing is done."""
    return lambda request, work: reply


def spoil(reply: Reply) -> Strike:
    """This answer after the work is done."""

    def strike(request: Request, work: Callable[[], Reply]) -> Reply:
        work()
        return reply

    return strike


def cut_by(folder: Path) -> Strike:
    """The whole answer is promised, half of it comes; `folder` takes the file it is cut from."""

    def cut(request: Request, work: Callable[[], Reply]) -> Reply:
        reply = work()
        part = reply.body
        if isinstance(part, bytes):
            if not part:  # an answer without a body has no half
                return Reply(is_dropped=True)
            path = folder / "cut"
            path.write_bytes(part)
            part = FilePart(path, 0, len(part))
        return replace(reply, body=replace(part, cut_at=part.length // 2))

    return cut


def strikes_of(*, rate_limit: Reply, error: Reply, malformed: bytes, odd_status: Reply) -> dict[Fault, Strike]:
    """The faults that are the same at each step, in a vendor's own words; `malformed` is the torn JSON of a success."""
    torn = Reply(200, {"Content-Type": "application/json"}, malformed)
    return {
        Fault.DROP: drop,
        Fault.STALL: stall,
        Fault.RATE_LIMIT: refuse(rate_limit),
        Fault.ERROR: spoil(error),
        Fault.GATEWAY: spoil(gateway_page(502)),
        Fault.MALFORMED: spoil(torn),
        Fault.UNKNOWN: spoil(odd_status),
    }
