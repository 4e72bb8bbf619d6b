"""Asking the vendors whether they are there, and telling their circuit breakers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.circuits import Circuit, CircuitCause, CircuitState
from domain.errors import OnModelError, Unavailable
from domain.upkeep import StepReport, UpkeepStep
from domain.vendors import is_stand_in
from providers.vendor_ports import Ping
from tasks.breaker import note_refusal

if TYPE_CHECKING:
    from providers.wiring import Ports


def ping_vendor(ports: Ports, vendor: str) -> Ping:
    """Is it there, and does it accept our key? Free; never raises an error of ours."""
    try:
        return ports.job_vendor(vendor).ping()
    except OnModelError as error:
        return Ping(is_ready=False, detail=error.message)


def ask_vendors(ports: Ports, *, is_dry_run: bool) -> StepReport:
    """Ping every vendor that is set up. Free, safe to repeat.

    One that does not answer counts towards its circuit as a refused submit does; one that was down and answers may be
    tried by the next job at once. A dry run asks, and changes no circuit. The sandbox is a process of our own that is
    started when it is needed: it is asked only while a job is there or its circuit is open.
    """
    did, waits = [], []
    for vendor in ports.vendors_set_up():
        circuit = ports.circuits.get(vendor)
        if is_stand_in(vendor) and circuit == Circuit(vendor=vendor) and not ports.upkeep.has_jobs_in_flight(vendor):
            continue
        ping = ping_vendor(ports, vendor)
        if circuit.cause is CircuitCause.ACCOUNT:
            waits.append(
                f"{vendor}: nothing is sent to it, because its account was refused ({circuit.reason}). See to it "
                "on the vendor's own page."
            )
        elif not ping.is_ready:
            did.append(f"{vendor} does not answer: {ping.detail}")
        elif circuit.state is not CircuitState.CLOSED:
            did.append(f"{vendor} answers again: the next job tries it.")
        if not is_dry_run:
            _tell_circuit(ports, circuit, ping)
    return StepReport(step=UpkeepStep.VENDORS, did=tuple(did), waits=tuple(waits))


def _tell_circuit(ports: Ports, circuit: Circuit, ping: Ping) -> None:
    now = ports.clock.now()
    if circuit.cause is CircuitCause.ACCOUNT:
        return  # a ping does not show what an account has left: the door's own probe does
    if not ping.is_ready:
        # While it is held back its pause runs as it is: looking at it more often does not make it longer.
        if circuit.state is CircuitState.CLOSED or circuit.may_probe(now):
            note_refusal(ports, circuit.vendor, Unavailable(ping.detail))
    elif circuit.state is CircuitState.OPEN:
        ports.circuits.change(circuit.vendor, lambda known: _due(known, circuit, ports))


def _due(known: Circuit, seen: Circuit, ports: Ports) -> Circuit:
    return known.model_copy(update={"probe_after": ports.clock.now()}) if known == seen else known
