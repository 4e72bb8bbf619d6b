"""A vendor in trouble: its breaker stops every other job without a POST, one process tries it, success closes it."""

from __future__ import annotations

import threading
from datetime import timedelta
from decimal import Decimal

import pytest

from domain.circuits import FIRST_PAUSE, OUTAGES_TO_OPEN, PROBE_LASTS, CircuitCause, CircuitState
from domain.errors import NotConfigured, OutOfCredit, RateLimited, Rejected, SubmissionUnknown, Unavailable
from domain.jobs import BlobRef, JobState, VendorRequest, blob_argument
from providers.vendor_ports import Ping
from tasks.breaker import let_through, note_refusal
from tasks.jobs import await_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import PortsForTests
from tests.postgres.door_orders import Open, budget, planned, run_together, state

LOCKED = OutOfCredit("balance exhausted")
ACCOUNT_PAUSE = FIRST_PAUSE["account"].total_seconds()


def _circuit_state(ports: PortsForTests) -> CircuitState:
    return ports.circuits.get("sandbox").state


def test_trouble_with_the_account_stops_every_other_job_without_a_post(open_with: Open) -> None:
    first = StandinVendor(submits=[LOCKED])
    ports = open_with(first)
    _, key = planned(ports)
    with pytest.raises(OutOfCredit):
        submit_job(ports, key)
    for _ in range(3):
        vendor = StandinVendor()
        other = open_with(vendor)
        order, another = planned(other)
        with pytest.raises(OutOfCredit, match=r"balance exhausted.*vendor's own page.*tried anew in 60 s") as stopped:
            submit_job(other, another)
        assert stopped.value.exit_code == 4
        assert vendor.calls == 0
        assert (state(other, another), budget(other, order)) == (JobState.PLANNED, (Decimal(2), Decimal(0)))


def test_a_look_that_is_refused_for_the_account_stops_the_submits_too(open_with: Open) -> None:
    ports = open_with(StandinVendor(looks=[LOCKED]))
    _, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(OutOfCredit):
        await_job(ports, key)
    assert state(ports, key) is JobState.SUBMITTED
    _, another = planned(ports)
    with pytest.raises(OutOfCredit, match="Nothing is sent"):
        submit_job(ports, another)


def test_another_vendor_is_not_held_back(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    note_refusal(ports, "elsewhere", LOCKED)
    _, key = planned(ports)
    submit_job(ports, key)
    assert state(ports, key) is JobState.SUBMITTED


@pytest.mark.parametrize("outage", [Unavailable("503"), SubmissionUnknown("read timed out")])
def test_outages_open_it_at_the_fourth_in_a_row_whoever_had_them(
    open_with: Open, outage: Unavailable | SubmissionUnknown
) -> None:
    processes = [open_with(StandinVendor()) for _ in range(2)]
    for count in range(OUTAGES_TO_OPEN):
        assert _circuit_state(processes[0]) is CircuitState.CLOSED
        note_refusal(processes[count % 2], "sandbox", outage)
    circuit = processes[0].circuits.get("sandbox")
    assert (circuit.state, circuit.cause) == (CircuitState.OPEN, CircuitCause.OUTAGE)
    with pytest.raises(RateLimited, match="sandbox is down") as held:
        let_through(processes[1], "sandbox")
    assert held.value.retry_after_seconds == FIRST_PAUSE["outage"].total_seconds()


def test_being_asked_to_slow_down_or_a_refused_request_is_no_trouble_of_the_vendors(open_with: Open) -> None:
    vendor = StandinVendor(submits=[RateLimited("429", 1.0)] * 9)
    ports = open_with(vendor)
    _, key = planned(ports)
    submit_job(ports, key)
    assert (_circuit_state(ports), len(vendor.posts)) == (CircuitState.CLOSED, 10)
    for _ in range(OUTAGES_TO_OPEN - 1):
        note_refusal(ports, "sandbox", Unavailable("503"))
    refusing = open_with(StandinVendor(submits=[Rejected("422")]))
    _, refused = planned(refusing)
    with pytest.raises(Rejected):
        submit_job(refusing, refused)
    note_refusal(ports, "sandbox", Unavailable("503"))
    assert _circuit_state(ports) is CircuitState.CLOSED


def test_when_the_pause_is_over_one_job_tries_it_and_its_success_closes_it(open_with: Open) -> None:
    vendor = StandinVendor(submits=[LOCKED])
    ports = open_with(vendor)
    _, key = planned(ports)
    with pytest.raises(OutOfCredit):
        submit_job(ports, key)
    ports.clock.sleep(ACCOUNT_PAUSE - 1)
    with pytest.raises(OutOfCredit):
        submit_job(ports, key)
    assert len(vendor.posts) == 1
    ports.clock.sleep(1)
    submit_job(ports, key)
    assert (state(ports, key), _circuit_state(ports), len(vendor.posts)) == (JobState.SUBMITTED, CircuitState.CLOSED, 2)


def test_a_probe_begins_with_a_free_ping_and_sends_nothing_where_that_fails(open_with: Open) -> None:
    vendor = StandinVendor(submits=[LOCKED], pings=[Ping(is_ready=False, detail="still locked")])
    ports = open_with(vendor)
    _, key = planned(ports)
    with pytest.raises(OutOfCredit):
        submit_job(ports, key)
    ports.clock.sleep(ACCOUNT_PAUSE)
    with pytest.raises(OutOfCredit, match="still locked"):
        submit_job(ports, key)
    circuit = ports.circuits.get("sandbox")
    assert (len(vendor.posts), circuit.state, circuit.openings) == (1, CircuitState.OPEN, 2)
    assert circuit.probe_after == ports.clock.now() + 2 * FIRST_PAUSE["account"]


def test_of_many_that_find_the_pause_over_one_may_try(open_with: Open) -> None:
    processes = [open_with(StandinVendor()) for _ in range(5)]
    note_refusal(processes[0], "sandbox", LOCKED)
    together, through = threading.Barrier(5), list[bool]()
    for ports in processes:
        ports.clock.sleep(ACCOUNT_PAUSE)

    def knock(ports: PortsForTests) -> None:
        together.wait(10)
        try:
            let_through(ports, "sandbox")
            through.append(True)
        except OutOfCredit:
            through.append(False)

    run_together(*(lambda p=p: knock(p) for p in processes))
    assert sorted(through) == [False] * 4 + [True]
    assert _circuit_state(processes[0]) is CircuitState.HALF_OPEN


def test_a_prober_that_died_holds_the_vendor_back_for_minutes_and_no_longer(open_with: Open) -> None:
    dead, alive = open_with(StandinVendor()), open_with(StandinVendor())
    note_refusal(dead, "sandbox", LOCKED)
    for ports in (dead, alive):
        ports.clock.sleep(ACCOUNT_PAUSE)
    let_through(dead, "sandbox")  # and then it is gone
    alive.clock.sleep(PROBE_LASTS.total_seconds() - 1)
    with pytest.raises(OutOfCredit):
        let_through(alive, "sandbox")
    alive.clock.sleep(1)
    let_through(alive, "sandbox")


def test_an_outage_defers_a_job_until_the_vendor_is_back(open_with: Open) -> None:
    vendor = StandinVendor(submits=[Unavailable("503")] * (OUTAGES_TO_OPEN + 2))
    ports = open_with(vendor)
    before = ports.clock.now()
    _, key = planned(ports)
    submit_job(ports, key)
    assert (state(ports, key), _circuit_state(ports)) == (JobState.SUBMITTED, CircuitState.CLOSED)
    assert ports.clock.now() - before >= timedelta(seconds=30 + 60 + 120)
    assert ports.circuits.get("sandbox").failures == 0


def test_an_upload_that_is_refused_for_the_account_opens_it_too(open_with: Open) -> None:
    ports = open_with(StandinVendor(uploads=[LOCKED]))
    ref = BlobRef(sha256=ports.blobs.put_bytes(b"of the circuits", "x/y"), media_type="x/y", file_name="a")
    request = VendorRequest(vendor="sandbox", endpoint="train/flux", arguments={"zip": blob_argument(ref)})
    _, key = planned(ports, request=request)
    with pytest.raises(OutOfCredit):
        submit_job(ports, key)
    assert (_circuit_state(ports), state(ports, key)) == (CircuitState.OPEN, JobState.PLANNED)
    assert ports.ledger.get(key).post_count == 0


def test_a_vendor_that_is_not_set_up_here_is_no_vendor_in_trouble(open_with: Open) -> None:
    ports = open_with(StandinVendor(submits=[NotConfigured("no key")]))
    _, key = planned(ports)
    with pytest.raises(NotConfigured):
        submit_job(ports, key)
    assert ports.circuits.all() == []
    note_refusal(ports, "sandbox", LOCKED)
    assert [circuit.vendor for circuit in ports.circuits.all()] == ["sandbox"]
