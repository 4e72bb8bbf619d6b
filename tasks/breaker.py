"""The circuit breaker at work: who may send to a vendor now, and what each answer means for the next one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from domain.circuits import Circuit, CircuitCause, CircuitState
from domain.errors import OnModelError, OutOfCredit, RateLimited, Unavailable

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.breaker")


def let_through(ports: Ports, vendor: str) -> None:
    """Return when a job may be sent to the vendor now. Free; one ping at most.

    `OutOfCredit` while its account is locked or empty, `RateLimited` with the seconds left while it is down: nothing
    was sent. When the pause is over one process tries, first by a ping, then with its job.
    """
    circuit = ports.circuits.get(vendor)
    if circuit.state is CircuitState.CLOSED:
        return
    if not ports.circuits.start_probe(vendor, ports.clock.now()):
        raise _held_back(ports, ports.circuits.get(vendor))
    ping = ports.job_vendor(vendor).ping()
    if ping.is_ready:
        log.info("%s answers again; one job is sent to try it", vendor)
        return
    is_account = circuit.cause is CircuitCause.ACCOUNT
    note_refusal(ports, vendor, OutOfCredit(ping.detail) if is_account else Unavailable(ping.detail))
    raise _held_back(ports, ports.circuits.get(vendor))


def note_taken(ports: Ports, vendor: str) -> None:
    """The vendor answered like one that is well, be it with a refusal of this very request."""
    circuit = ports.circuits.get(vendor)
    if circuit != Circuit(vendor=vendor):
        before, _ = ports.circuits.change(vendor, Circuit.after_success)
        if before.state is not CircuitState.CLOSED:
            log.warning("%s takes jobs again", vendor)


def note_refusal(ports: Ports, vendor: str, error: OnModelError) -> None:
    """Count what the vendor answered; being asked to slow down is no trouble of its."""
    now = ports.clock.now()
    if isinstance(error, OutOfCredit):
        before, after = ports.circuits.change(vendor, lambda circuit: circuit.after_account_trouble(error.message, now))
    elif isinstance(error, RateLimited):
        return
    else:
        before, after = ports.circuits.change(vendor, lambda circuit: circuit.after_outage(error.message, now))
    if before.state is not after.state and after.state is CircuitState.OPEN:
        log.error("Nothing more is sent to %s for now: %s", vendor, error.message)


def is_open(ports: Ports, vendor: str) -> bool:
    """Whether the vendor is held back now."""
    return ports.circuits.get(vendor).state is not CircuitState.CLOSED


def _held_back(ports: Ports, circuit: Circuit) -> OnModelError:
    left = (circuit.probe_after - ports.clock.now()).total_seconds() if circuit.probe_after else 0.0
    if circuit.cause is CircuitCause.ACCOUNT:
        return OutOfCredit(
            f"Nothing is sent to {circuit.vendor} because its account was refused ({circuit.reason}). See to it on the "
            f"vendor's own page, then run again: it is tried anew in {max(left, 0):.0f} s at the latest."
        )
    return RateLimited(
        f"{circuit.vendor} is down ({circuit.reason}); it is tried again in {max(left, 0):.0f} s.", max(left, 1.0)
    )
