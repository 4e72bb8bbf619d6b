"""Upkeep on real tables: orphans, vendors, runs that died, machines, forgotten files; a dry run does nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from psycopg import sql

from domain.circuits import CircuitCause, CircuitState
from domain.errors import JobFailed, OutOfCredit, Unavailable
from domain.jobs import JobState, VendorJobIds, VendorState
from domain.submissions import AbsenceRule, Finding, LookUp
from domain.upkeep import MaintenanceReport, StepReport, UpkeepStep
from providers.vendor_ports import Ping, Pod
from studio.doctor import CHECKS
from tasks.breaker import note_refusal
from tasks.cancelling import cancel_job
from tasks.jobs import submit_job
from tasks.maintaining import tidy
from tasks.results import TIME_LIMIT_SECONDS
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import HandClock, PortsForTests, new_database, settings_for_tests, store_season
from tests.postgres.door_orders import budget, planned, slugs, state
from tests.postgres.upkeep_ports import (
    DONE,
    OLD,
    QUEUED,
    RUNNING,
    Make,
    StandinHost,
    Upkeep,
    died_before_its_answer,
    make,
    opened,
    sent,
    stored,
    tables,
)

__all__ = ["make", "opened", "tables"]


# --- jobs that nobody watches ---


def test_a_job_that_is_done_is_kept_and_settled_without_its_run(make: Make) -> None:
    ports = make(StandinVendor(states=(DONE,), billed_usd=Decimal("0.30")))
    order, key = planned(ports)
    submit_job(ports, key)
    ports.left(key)
    (line,) = ports.tidied(UpkeepStep.JOBS).did
    assert "is done: its files are kept, 0.3000 USD are settled" in line
    assert state(ports, key) is JobState.SUCCEEDED
    assert ports.blobs.has(ports.ledger.get(key).files[0].sha256)
    assert budget(ports, order) == (Decimal(0), Decimal("0.30"))
    assert ports.tidied(UpkeepStep.JOBS) == StepReport(step=UpkeepStep.JOBS)


def test_a_job_that_runs_on_is_left_and_looked_at_again_only_when_nobody_else_does(make: Make) -> None:
    ports = make(StandinVendor(states=(RUNNING,)))
    key = sent(ports)
    assert "is still running" in ports.tidied(UpkeepStep.JOBS).did[0]
    assert ports.tidied(UpkeepStep.JOBS).did == ()  # the look itself counts as one
    assert (state(ports, key), ports.ledger.get(key).waited_seconds) == (JobState.RUNNING, 600)


def test_a_job_that_failed_while_nobody_watched_is_settled_and_told(make: Make) -> None:
    ports = make(StandinVendor(states=(DONE,), outputs=[JobFailed("the GPU fell over")]))
    key = sent(ports)
    report = ports.tidied(UpkeepStep.JOBS)
    assert "ended as failed: the GPU fell over" in report.did[0]
    assert (report.waits, report.problems, state(ports, key)) == ((), (), JobState.FAILED)


def test_time_that_nobody_watched_counts_towards_the_time_limit(make: Make) -> None:
    vendor = StandinVendor(states=(RUNNING,) * 25 + (VendorState.CANCELLED,))
    ports = make(vendor)
    key = sent(ports)
    passes = int(TIME_LIMIT_SECONDS[ports.ledger.get(key).operation] // 600)
    for _ in range(passes):
        ports.left(key)
        ports.tidied(UpkeepStep.JOBS)
    assert (state(ports, key), vendor.cancelled) == (JobState.RUNNING, [])
    ports.left(key)
    assert "was stopped" in ports.tidied(UpkeepStep.JOBS).did[0]
    assert (state(ports, key), vendor.cancelled) == (JobState.FAILED, ["request-1"])


def test_a_job_whose_submitter_died_is_found_at_its_vendor_and_goes_on_unpaid(make: Make) -> None:
    found = LookUp(finding=Finding.FOUND, detail="its mark", ids=VendorJobIds(request_id="request-9"))
    vendor = StandinVendor(look_ups=[found], states=(DONE,))
    ports = make(vendor)
    key = died_before_its_answer(ports)
    assert "was found at sandbox and is done" in ports.tidied(UpkeepStep.JOBS).did[0]
    assert (state(ports, key), vendor.posts) == (JobState.SUCCEEDED, [])


def test_a_lost_answer_that_nobody_finds_waits_for_a_person_and_is_said_each_time(make: Make) -> None:
    vendor = StandinVendor()
    ports = make(vendor)
    key = died_before_its_answer(ports)
    for _ in range(2):
        report = tidy(ports, is_dry_run=False)
        assert report.exit_code == 6
        (wait,) = report.steps[1].waits
        assert f"onmodel jobs resolve {key[:12]} --adopt ID" in wait
        ports.left(key)
    assert (state(ports, key), vendor.posts) == (JobState.SUBMISSION_UNKNOWN, [])


PROVES = AbsenceRule(can_prove=True, reason="its list is whole", looks=2, after_seconds=30.0, seconds_apart=5.0)


def test_a_job_that_its_vendor_provably_never_had_is_planned_again_and_sent_by_nobody_here(make: Make) -> None:
    vendor = StandinVendor(absence=PROVES)
    ports = make(vendor)
    key = died_before_its_answer(ports)
    assert "its run sends it again" in ports.tidied(UpkeepStep.JOBS).did[0]
    assert (state(ports, key), vendor.posts) == (JobState.PLANNED, [])


def test_a_job_that_was_to_be_cancelled_is_followed_to_its_end(make: Make) -> None:
    ports = make(StandinVendor(states=(QUEUED,) * 5 + (VendorState.CANCELLED,)))
    key = sent(ports)
    assert cancel_job(ports, key) is JobState.SUBMITTED
    ports.left(key)
    assert "ended as cancelled" in ports.tidied(UpkeepStep.JOBS).did[0]
    never_there = make(StandinVendor(absence=PROVES))
    lost = died_before_its_answer(never_there)
    assert cancel_job(never_there, lost) is JobState.SUBMITTING
    assert "is cancelled, as it was to be" in never_there.tidied(UpkeepStep.JOBS).did[0]
    assert state(never_there, lost) is JobState.CANCELLED


def test_a_job_that_another_process_is_sending_right_now_is_left_to_it(make: Make) -> None:
    vendor = StandinVendor()
    ports = make(vendor)
    key = died_before_its_answer(ports)
    with make(vendor).ledger.submitter(key):
        assert ports.tidied(UpkeepStep.JOBS) == StepReport(step=UpkeepStep.JOBS)
        assert "would be left" in tidy(ports, is_dry_run=True).steps[1].did[0]
    assert state(ports, key) is JobState.SUBMITTING


def test_a_vendor_that_cannot_be_asked_is_a_problem_of_that_job_alone(make: Make) -> None:
    ports = make(StandinVendor(states=(DONE,), looks=[Unavailable("a gateway's page")]))
    first, second = sent(ports), sent(ports)
    report = ports.tidied(UpkeepStep.JOBS)
    assert "a gateway's page" in report.problems[0]
    assert first[:12] in report.problems[0]
    assert (state(ports, first), state(ports, second)) == (JobState.SUBMITTED, JobState.SUCCEEDED)


# --- vendors ---


class Counting(StandinVendor):
    pings = 0

    def ping(self) -> Ping:
        self.pings += 1
        return super().ping()


class Silent(StandinVendor):
    def ping(self) -> Ping:
        return Ping(is_ready=False, detail="nothing answers there")


def test_a_silent_vendor_opens_its_circuit_in_the_end_and_an_answer_lets_the_next_job_try(make: Make) -> None:
    ports = make(Silent())
    sent(ports)
    for failures in range(1, 5):
        report = ports.tidied(UpkeepStep.VENDORS)
        assert "nothing answers there" in report.did[0]
        assert ports.circuits.get("sandbox").failures == failures
    assert ports.circuits.get("sandbox").state is CircuitState.OPEN
    ports.tidied(UpkeepStep.VENDORS)
    assert ports.circuits.get("sandbox").openings == 1  # looked at within its pause, it is not held back for longer
    again = make(StandinVendor())
    again.clock = HandClock(ports.clock.now())
    assert not ports.circuits.get("sandbox").may_probe(again.clock.now())
    assert "answers again" in again.tidied(UpkeepStep.VENDORS).did[0]
    assert ports.circuits.get("sandbox").may_probe(again.clock.now())


def test_a_refused_account_waits_for_a_person_and_no_ping_opens_it(make: Make) -> None:
    ports = make()
    note_refusal(ports, "sandbox", OutOfCredit("balance exhausted"))
    before = ports.circuits.get("sandbox")
    report = tidy(ports, is_dry_run=False)
    assert "balance exhausted" in report.steps[0].waits[0]
    assert report.exit_code == 6
    assert ports.circuits.get("sandbox") == before
    assert before.cause is CircuitCause.ACCOUNT


def test_the_sandbox_is_not_started_to_be_asked_when_nothing_is_there(server_url: str, tmp_path: Path) -> None:
    with new_database(server_url) as url:
        vendor = Counting(states=(QUEUED,))
        ports = Upkeep(PortsForTests(settings_for_tests(tmp_path, url), {}), vendor)
        ports.tidied(UpkeepStep.VENDORS)
        assert (vendor.pings, ports.upkeep.has_jobs_in_flight("sandbox")) == (0, False)
        sent(ports)
        ports.tidied(UpkeepStep.VENDORS)
        assert (vendor.pings, ports.upkeep.has_jobs_in_flight("another")) == (1, False)
        ports.close()


# --- runs that died ---


def run_that_died(ports: Upkeep, *, deployment_id: str | None) -> int:
    season_id = store_season(ports, next(slugs))
    with ports.runs.running(season_id, None, deployment_id):
        pass
    return season_id


def how_runs_ended(ports: Upkeep) -> list[str]:
    with ports.database.transaction() as db:
        return [row[0] for row in db.execute("SELECT how_it_ended FROM season_runs ORDER BY id").fetchall()]


def test_a_run_by_hand_that_died_is_told_once_with_the_command_that_goes_on(make: Make) -> None:
    ports = make()
    run_that_died(ports, deployment_id=None)
    assert "onmodel run, with its manifest" in tidy(ports, is_dry_run=True).steps[2].did[0]
    assert how_runs_ended(ports) == [""]
    assert "onmodel run, with its manifest" in ports.tidied(UpkeepStep.RUNS).did[0]
    assert how_runs_ended(ports) == ["died"]
    assert ports.tidied(UpkeepStep.RUNS).did == ()


def test_a_season_that_is_finished_or_at_work_again_is_not_started(make: Make) -> None:
    ports = make()
    run_that_died(ports, deployment_id="11111111-1111-4111-8111-111111111111")
    ports.do("UPDATE seasons SET finished_sha256 = manifest_sha256")
    assert "finished meanwhile" in ports.tidied(UpkeepStep.RUNS).did[0]
    season_id = run_that_died(ports, deployment_id="11111111-1111-4111-8111-111111111111")
    with make().runs.running(season_id, None, None):
        assert "another run is at work" in ports.tidied(UpkeepStep.RUNS).did[0]


# --- rented machines ---


def pod_name_of(ports: Upkeep, age: timedelta) -> str:
    return f"onmodel-{int((ports.clock.now() - age).timestamp())}-{ports.ledger.installation()}-{'ab' * 10}-1"


def test_a_machine_without_a_job_is_deleted_and_one_that_stays_waits_for_a_person(make: Make) -> None:
    name = pod_name_of(make(), timedelta(hours=1))
    host = StandinHost(name, "a-strangers")
    would = tidy(make(host=host), is_dry_run=True)
    assert "would be deleted" in would.steps[3].did[0]
    assert len(host.pods()) == 2
    assert "is deleted" in make(host=host).tidied(UpkeepStep.PODS).did[0]
    assert [pod.name for pod in host.pods()] == ["a-strangers"]
    stubborn = tidy(make(host=StandinHost(name, deletes=False)), is_dry_run=False)
    assert "may still cost" in stubborn.steps[3].waits[0]
    assert stubborn.exit_code == 6


def test_a_list_of_machines_that_fails_is_a_failed_step_and_never_no_machines(make: Make) -> None:
    host = StandinHost(pod_name_of(make(), timedelta(hours=1)))
    host.lists = False
    report = tidy(make(host=host), is_dry_run=False)
    assert "RunPod did not answer" in report.steps[3].problems[0]
    assert report.exit_code == 5


# --- the whole pass ---


def everything(ports: Upkeep) -> list[object]:
    """Every row that a pass could change, and every file."""
    tables = ("provider_jobs", "provider_job_events", "vendor_circuits", "season_runs", "maintenance_runs", "budgets",
              "reservations", "job_costs", "character_loras")  # fmt: skip
    with ports.database.transaction() as db:
        rows = [db.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name))).fetchall() for name in tables]
    return [*rows, sorted(path for path in ports.settings.home.rglob("*"))]


def test_a_dry_run_says_all_of_it_and_changes_nothing(make: Make) -> None:
    host = StandinHost(pod_name_of(make(), timedelta(hours=1)))
    vendor = Silent(states=(DONE,))
    ports = make(vendor, host)
    keys = [sent(ports), died_before_its_answer(ports)]
    run_that_died(ports, deployment_id=None)
    forgotten = stored(ports, "a dry run leaves it", age=OLD)
    before, calls = everything(ports), vendor.calls
    report = tidy(ports, is_dry_run=True)
    assert all(step.did for step in report.steps)
    assert [key[:12] in line for key, line in zip(keys, report.steps[1].did, strict=True)] == [True, True]
    assert everything(ports) == before
    assert (vendor.calls, len(host.pods())) == (calls, 1)
    assert report.exit_code == 0
    ports.blobs.delete(forgotten)


def test_two_passes_never_work_at_once_and_a_dry_run_may(make: Make) -> None:
    ports, beside = make(), make()
    with beside.runs.only_one("maintain"):
        busy = tidy(ports, is_dry_run=False)
        assert (busy.is_busy, busy.steps, busy.exit_code) == (True, (), 0)
        assert not tidy(ports, is_dry_run=True).is_busy
    assert not tidy(ports, is_dry_run=False).is_busy


def test_a_step_that_breaks_keeps_no_other_from_its_work(make: Make) -> None:
    class Broken(StandinHost):
        def pods(self) -> tuple[Pod, ...]:
            raise ZeroDivisionError("a bug of ours")

    ports = make(StandinVendor(states=(DONE,)), Broken())
    key = sent(ports)
    forgotten = stored(ports, "dropped all the same", age=OLD)
    report = tidy(ports, is_dry_run=False)
    assert [bool(step.problems) for step in report.steps] == [False, False, False, True, False]
    assert (state(ports, key), ports.blobs.has(forgotten)) == (JobState.SUCCEEDED, False)
    assert report.exit_code == 5


def test_a_scheduled_pass_looks_for_forgotten_files_once_a_day(make: Make) -> None:
    ports = make()

    def steps_of_a_scheduled_pass() -> int:
        report = tidy(ports, is_dry_run=False, is_scheduled=True)
        number = ports.upkeep.keep_report(report)
        assert ports.upkeep.report(number) == report
        return len(report.steps)

    assert steps_of_a_scheduled_pass() == 5
    ports.clock.sleep(23 * 3600)
    assert steps_of_a_scheduled_pass() == 4
    ports.clock.sleep(2 * 3600)
    assert steps_of_a_scheduled_pass() == 5


@pytest.mark.parametrize(
    ("waits", "problems", "exit_code"), [(1, 1, 6), (1, 0, 6), (0, 1, 5), (0, 0, 0)], ids=["both", "6", "5", "0"]
)
def test_the_exit_code_says_what_is_left(waits: int, problems: int, exit_code: int) -> None:
    step = StepReport(step=UpkeepStep.JOBS, waits=("w",) * waits, problems=("p",) * problems)
    assert MaintenanceReport(is_dry_run=False, started_at=datetime.now(UTC), steps=(step,)).exit_code == exit_code


def test_doctor_tells_which_vendors_are_held_back_and_why(make: Make) -> None:
    ports = make()
    check = next(look for what, _, look in CHECKS if what == "vendors")
    assert "none is held back" in check(ports)
    note_refusal(ports, "sandbox", OutOfCredit("balance exhausted"))
    with pytest.raises(Unavailable, match=r"its account was refused \(balance exhausted\); tried again in 60 s"):
        check(ports)
