"""Several processes at one job, and one that dies in the middle: there is never a second post."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from domain.errors import OnModelError, SubmissionUnknown
from domain.jobs import JobState, VendorJobIds
from domain.submissions import Finding, LookUp
from tasks.jobs import await_job, plan_job, submit_job
from tests.acceptance.standin_vendor import PROVES_ABSENCE, StandinVendor
from tests.ports_for_tests import HandClock, PortsForTests, store_season
from tests.postgres.door_orders import Open, budget, order_in, planned, run_together, slugs, state

ROOT = Path(__file__).parents[2]


def test_many_who_ask_for_the_same_job_make_one_row_one_reservation_and_one_post(open_with: Open) -> None:
    def take_a_moment() -> None:
        threading.Event().wait(0.05)

    vendor = StandinVendor(before_submit=take_a_moment)
    processes = [open_with(vendor) for _ in range(4)]
    season_id = store_season(processes[0], next(slugs))
    order = order_in(processes[0], season_id)
    together = threading.Barrier(4)
    keys: list[str] = []

    def buy(ports: PortsForTests) -> None:
        together.wait(10)
        key = plan_job(ports, order)
        submit_job(ports, key)
        await_job(ports, key)
        keys.append(key)

    run_together(*(lambda p=p: buy(p) for p in processes))
    assert len(vendor.posts) == 1
    assert keys == [order.job_key(1)] * 4
    assert len(processes[0].ledger.costs(season_id)) == 1
    assert budget(processes[0], order) == (Decimal(0), Decimal(1))


def test_another_process_waits_while_one_is_submitting_and_never_posts(open_with: Open) -> None:
    in_post, may_answer = threading.Event(), threading.Event()

    def hold() -> None:
        in_post.set()
        assert may_answer.wait(20)

    slow, other = StandinVendor(before_submit=hold), StandinVendor()
    first, second = open_with(slow), open_with(other)
    _, key = planned(first)
    marker = threading.Thread(target=submit_job, args=(first, key))
    marker.start()
    assert in_post.wait(20)
    waiter = threading.Thread(target=submit_job, args=(second, key))
    waiter.start()
    waiter.join(0.3)
    assert waiter.is_alive()
    assert state(second, key) is JobState.SUBMITTING
    may_answer.set()
    marker.join(20)
    waiter.join(20)
    assert not waiter.is_alive()
    assert (len(slow.posts), len(other.posts), state(second, key)) == (1, 0, JobState.SUBMITTED)


def test_a_job_whose_submitter_died_is_never_posted_by_another(open_with: Open) -> None:
    vendor = StandinVendor()
    ports = open_with(vendor)
    order, key = planned(ports)
    assert ports.ledger.claim(key, ports.clock.now(), {})  # and then the process is gone, with its lock
    with pytest.raises(SubmissionUnknown, match="died before the answer was stored"):
        submit_job(ports, key)
    assert vendor.posts == []
    assert (state(ports, key), budget(ports, order)) == (JobState.SUBMISSION_UNKNOWN, (Decimal(2), Decimal(0)))


def _kill_while_submitting(ports: PortsForTests, key: str) -> None:
    assert ports.settings.database_url is not None
    url = ports.settings.database_url.get_secret_value()
    process = subprocess.run([sys.executable, "-c", KILLED_WHILE_SUBMITTING, url, key], cwd=ROOT, timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert state(ports, key) is JobState.SUBMITTING


KILLED_WHILE_SUBMITTING = """
import os, signal, sys
from datetime import UTC, datetime
from providers.postgres.database import Database
from providers.postgres.ledger import Ledger

ledger = Ledger(Database.open(sys.argv[1]))
with ledger.submitter(sys.argv[2]) as hold:
    assert hold.is_ours and ledger.claim(sys.argv[2], datetime.now(UTC), {})
    os.kill(os.getpid(), signal.SIGKILL)  # here the POST would be under way
"""


def test_a_process_killed_in_the_middle_of_its_post_leaves_a_job_that_waits_for_a_person(open_with: Open) -> None:
    vendor = StandinVendor()
    ports = open_with(vendor)
    order, key = planned(ports)
    _kill_while_submitting(ports, key)
    with pytest.raises(SubmissionUnknown):
        submit_job(ports, key)
    assert vendor.posts == []
    assert budget(ports, order) == (Decimal(2), Decimal(0))


def test_what_a_killed_process_had_sent_is_found_at_its_vendor_and_goes_on(open_with: Open) -> None:
    ids = VendorJobIds(request_id="sent-by-the-dead")
    vendor = StandinVendor(look_ups=[LookUp(finding=Finding.FOUND, detail="there", ids=ids)])
    ports = open_with(vendor)
    _, key = planned(ports)
    _kill_while_submitting(ports, key)
    submit_job(ports, key)
    await_job(ports, key)
    assert (vendor.posts, ports.ledger.get(key).ids, state(ports, key)) == ([], ids, JobState.SUCCEEDED)


def test_what_a_killed_process_had_not_sent_is_sent_where_its_vendor_proves_that(open_with: Open) -> None:
    vendor = StandinVendor(absence=PROVES_ABSENCE)
    ports = open_with(vendor)
    # The dead one's POST was begun by the machine's clock, which is ahead of ours: it counts as just begun.
    _, key = planned(ports)
    _kill_while_submitting(ports, key)
    submit_job(ports, key)
    assert (len(vendor.looked_for), len(vendor.posts)) == (3, 1)
    assert (state(ports, key), ports.ledger.get(key).post_count) == (JobState.SUBMITTED, 2)
    assert isinstance(ports.clock, HandClock)
    assert PROVES_ABSENCE.after_seconds in ports.clock.slept


def test_an_answer_that_comes_after_all_is_stored_and_the_job_goes_on(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    other = open_with(StandinVendor())
    _, key = planned(ports)

    def think_us_dead() -> None:
        # As when our lock's connection was cut: another process takes the job for lost while our POST is under way.
        other.ledger.lose(key, "the process that was submitting died")

    slow = open_with(StandinVendor(before_submit=think_us_dead))
    submit_job(slow, key)
    assert state(ports, key) is JobState.SUBMITTED
    other.ledger.lose(key, "too late")
    assert state(ports, key) is JobState.SUBMITTED
    await_job(slow, key)
    assert state(ports, key) is JobState.SUCCEEDED


def test_an_accepted_request_that_cannot_be_stored_is_named_in_the_log_and_taken_up_from_paper(
    open_with: Open, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    ports = open_with(StandinVendor())
    _, key = planned(ports)

    def cut_us_off() -> None:
        ports.database.close()

    vendor = StandinVendor(before_submit=cut_us_off)
    cut = PortsForTests(ports.settings, {"sandbox": vendor}, HandClock(ports.clock.now()))
    cut.__dict__["database"] = ports.database
    with caplog.at_level(logging.CRITICAL, "onmodel.jobs"), pytest.raises(OnModelError):
        submit_job(cut, key)
    assert key in caplog.text
    assert "request-1" in caplog.text
    elsewhere = open_with(StandinVendor())
    elsewhere.settings = ports.settings.model_copy(update={"home": tmp_path})
    with pytest.raises(SubmissionUnknown):
        submit_job(elsewhere, key)
    here = open_with(StandinVendor())
    submit_job(here, key)
    job = here.ledger.get(key)
    assert (job.state, job.ids and job.ids.request_id, job.post_count) == (JobState.SUBMITTED, "request-1", 1)
    assert list((ports.settings.home / "accepted").iterdir()) == []


def test_an_error_of_our_own_in_the_middle_of_a_post_counts_as_a_lost_answer(open_with: Open) -> None:
    def stumble() -> None:
        raise ZeroDivisionError

    vendor = StandinVendor(before_submit=stumble)
    ports = open_with(vendor)
    _, key = planned(ports)
    with pytest.raises(ZeroDivisionError):
        submit_job(ports, key)
    with pytest.raises(SubmissionUnknown):
        submit_job(ports, key)
    assert len(vendor.posts) == 1
