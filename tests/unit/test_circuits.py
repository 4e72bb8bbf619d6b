"""The circuit breaker's steps: when it opens, for how long, who may probe, and what closes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from domain.circuits import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    OUTAGES_TO_OPEN,
    PROBE_LASTS,
    Circuit,
    CircuitCause,
    CircuitState,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WELL = Circuit(vendor="fal")


def _outages(circuit: Circuit, count: int) -> Circuit:
    for _ in range(count):
        circuit = circuit.after_outage("503", NOW)
    return circuit


def test_trouble_with_the_account_opens_it_at_once() -> None:
    circuit = WELL.after_account_trouble("balance exhausted", NOW)
    assert (circuit.state, circuit.cause, circuit.reason) == (
        CircuitState.OPEN,
        CircuitCause.ACCOUNT,
        "balance exhausted",
    )
    assert circuit.probe_after == NOW + FIRST_PAUSE["account"]


def test_three_outages_in_a_row_are_weather_and_the_fourth_opens_it() -> None:
    assert _outages(WELL, OUTAGES_TO_OPEN - 1).state is CircuitState.CLOSED
    circuit = _outages(WELL, OUTAGES_TO_OPEN)
    assert (circuit.state, circuit.cause) == (CircuitState.OPEN, CircuitCause.OUTAGE)
    assert circuit.probe_after == NOW + FIRST_PAUSE["outage"]


def test_a_success_between_outages_starts_the_count_again() -> None:
    circuit = _outages(_outages(WELL, OUTAGES_TO_OPEN - 1).after_success(), OUTAGES_TO_OPEN - 1)
    assert circuit.state is CircuitState.CLOSED
    assert WELL.after_success() == WELL


def test_nobody_probes_before_the_pause_is_over_and_one_does_then() -> None:
    circuit = WELL.after_account_trouble("locked", NOW)
    over = NOW + FIRST_PAUSE["account"]
    assert not circuit.may_probe(over - timedelta(milliseconds=1))
    assert circuit.may_probe(over)
    probing = circuit.probing(over)
    assert probing.state is CircuitState.HALF_OPEN
    assert not probing.may_probe(over + PROBE_LASTS - timedelta(milliseconds=1))
    assert probing.may_probe(over + PROBE_LASTS), "its prober is believed dead"


def test_a_closed_one_is_not_probed() -> None:
    assert not WELL.may_probe(NOW)


def test_a_failed_probe_opens_it_for_twice_as_long_and_another_cause_from_the_beginning() -> None:
    once = _outages(WELL, OUTAGES_TO_OPEN)
    twice = once.probing(NOW).after_outage("503", NOW)
    assert (twice.state, twice.openings, twice.probe_after) == (CircuitState.OPEN, 2, NOW + 2 * FIRST_PAUSE["outage"])
    locked = twice.after_account_trouble("locked", NOW)
    assert (locked.openings, locked.probe_after) == (1, NOW + FIRST_PAUSE["account"])


def test_a_clock_that_was_set_back_does_not_keep_it_shut() -> None:
    circuit = WELL.after_account_trouble("locked", NOW)
    assert circuit.probe_after is not None
    assert circuit.may_probe(circuit.probe_after - LONGEST_PAUSE - timedelta(seconds=1))
    assert not circuit.may_probe(circuit.probe_after - LONGEST_PAUSE)


steps = st.lists(st.sampled_from(["account", "outage", "probe", "success"]), max_size=60)


@given(steps)
def test_however_it_goes_the_pause_is_bounded_and_a_success_closes_it(steps: list[str]) -> None:
    circuit, now = WELL, NOW
    for step in steps:
        now += timedelta(seconds=7)
        match step:
            case "account":
                circuit = circuit.after_account_trouble("locked", now)
            case "outage":
                circuit = circuit.after_outage("503", now)
            case "probe" if circuit.may_probe(now):
                circuit = circuit.probing(now)
            case "success":
                circuit = circuit.after_success()
        if circuit.state is CircuitState.CLOSED:
            assert circuit.failures < OUTAGES_TO_OPEN
            assert not circuit.may_probe(now)
        else:
            assert circuit.probe_after is not None
            assert timedelta() < circuit.probe_after - now <= LONGEST_PAUSE
            assert circuit.may_probe(circuit.probe_after)
    assert circuit.after_success() == WELL
