"""Upkeep on real tables: orphans, vendors, runs that died, machines, forgotten files; a dry run does nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from psycopg import sql

from domain.characters import LoraStatus
from domain.circuits import CircuitCause, CircuitState
from domain.errors import JobFailed, OutOfCredit, Unavailable
from domain.jobs import JobState, VendorJobIds, VendorState
from domain.loras import PinnedCharacter
from domain.submissions import AbsenceRule, Finding, LookUp
from domain.upkeep import BLOB_KEPT_FOR, LORA_KEPT_FOR, MaintenanceReport, StepReport, UpkeepStep
from providers.vendor_ports import Ping, Pod
from tasks.breaker import note_refusal
from tasks.cancelling import cancel_job
from tasks.dropping import drop_leftovers
from tasks.jobs import submit_job
from tasks.maintaining import tidy
from tasks.results import TIME_LIMIT_SECONDS
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import HandClock, PortsForTests, new_database, settings_for_tests, store_season
from tests.postgres.door_orders import budget, planned, slugs, state

QUEUED, RUNNING, DONE = VendorState.QUEUED, VendorState.RUNNING, VendorState.DONE
MONTH = timedelta(days=30)


@pytest.fixture(scope="module")
def tables(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortsForTests]:
    """A database of this file's own: upkeep looks at all of it."""
    with new_database(server_url) as url:
        ports = PortsForTests(settings_for_tests(tmp_path_factory.mktemp("home"), url), {})
        yield ports
        ports.close()


class Upkeep(PortsForTests):
    """Ports a month from now, with a vendor and a host of pods that the test holds."""

    def __init__(self, of: PortsForTests, vendor: StandinVendor, host: StandinHost | None = None) -> None:
        super().__init__(of.settings, {"sandbox": vendor}, HandClock(datetime.now(UTC) + MONTH))
        self.host = host

    def pod_hosts(self) -> tuple[StandinHost, ...]:
        return (self.host,) if self.host else ()

    def left(self, *keys: str) -> None:
        """As if nobody had looked at these jobs for eleven minutes."""
        with self.database.transaction() as db:
            query = "UPDATE provider_jobs SET heartbeat_at = now() - interval '11 minutes' WHERE key = ANY(%s)"
            db.execute(query, (list(keys),))

    def do(self, query: str) -> None:
        with self.database.transaction() as db:
            db.execute(sql.SQL(query))

    def tidied(self, step: UpkeepStep) -> StepReport:
        """What one step of a whole pass reports."""
        report = tidy(self, is_dry_run=False)
        return next(one for one in report.steps if one.step is step)


class StandinHost:
    """A vendor of machines in memory."""

    vendor = "runpod"

    def __init__(self, *names: str, deletes: bool = True) -> None:
        self._pods = {f"pod-{name}": name for name in names}
        self._deletes = deletes
        self.lists = True

    def pods(self) -> tuple[Pod, ...]:
        if not self.lists:
            raise Unavailable("RunPod did not answer.")
        return tuple(Pod(pod_id=pod_id, name=name, status="RUNNING") for pod_id, name in self._pods.items())

    def delete_pod(self, pod_id: str) -> None:
        if not self._deletes:
            raise Unavailable("RunPod refused.")
        self._pods.pop(pod_id, None)


@pytest.fixture
def opened() -> Iterator[list[PortsForTests]]:
    ports: list[PortsForTests] = []
    yield ports
    for one in ports:
        one.close()


Make = Callable[..., Upkeep]


@pytest.fixture
def make(tables: PortsForTests, opened: list[PortsForTests]) -> Iterator[Make]:
    """Makes ports; afterwards no job, run or circuit of this test is left for the next to tidy up."""

    def make(vendor: StandinVendor | None = None, host: StandinHost | None = None) -> Upkeep:
        ports = Upkeep(tables, vendor or StandinVendor(), host)
        opened.append(ports)
        return ports

    yield make
    make().do("DELETE FROM vendor_circuits; DELETE FROM season_runs; DELETE FROM maintenance_runs")
    make().do("UPDATE provider_jobs SET heartbeat_at = now()")


def sent(ports: Upkeep) -> str:
    """A new season's job that its vendor has accepted and that nobody has looked at since."""
    _, key = planned(ports)
    submit_job(ports, key)
    ports.left(key)
    return key


def died_before_its_answer(ports: Upkeep) -> str:
    """A job whose submitter was killed in the middle of its POST."""
    _, key = planned(ports)
    assert ports.ledger.claim(key, ports.clock.now(), {})
    ports.left(key)
    return key


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


# --- files ---


def stored(ports: Upkeep, text: str, *, age: timedelta) -> str:
    """Bytes that were put so long before the test's now."""
    sha256 = ports.blobs.put_bytes(text.encode(), "text/plain")
    at = (ports.clock.now() - age).timestamp()
    os.utime(ports.blobs.local_path(sha256), (at, at))
    return sha256


OLD = BLOB_KEPT_FOR + timedelta(hours=1)
YOUNG = BLOB_KEPT_FOR - timedelta(hours=1)


def test_a_file_that_nothing_refers_to_is_dropped_after_its_time_and_a_young_one_is_kept(make: Make) -> None:
    ports = make()
    forgotten, young = stored(ports, "forgotten", age=OLD), stored(ports, "young", age=YOUNG)
    would = drop_leftovers(ports, is_dry_run=True)
    assert "1 stored files (0.0 MB)" in would.did[0]
    assert ports.blobs.has(forgotten)
    assert forgotten[:12] in drop_leftovers(ports, is_dry_run=False).did[0]
    assert (ports.blobs.has(forgotten), ports.blobs.has(young)) == (False, True)
    assert drop_leftovers(ports, is_dry_run=False).did == ()


def test_a_file_that_is_put_again_is_kept(make: Make) -> None:
    ports = make()
    sha256 = stored(ports, "wanted after all", age=OLD)
    at = (datetime.now(UTC) - timedelta(days=1)).timestamp()
    os.utime(ports.blobs.local_path(sha256), (at, at))
    before = ports.blobs.stored_at(sha256)
    ports.blobs.put_bytes(b"wanted after all", "text/plain")
    after = ports.blobs.stored_at(sha256)
    assert before is not None
    assert after is not None
    assert after - before > timedelta(hours=23)
    ports.blobs.delete(sha256)


def test_a_file_older_than_the_database_is_kept_whoever_refers_to_it(make: Make) -> None:
    ports = make()
    sha256 = stored(ports, "from before", age=MONTH + timedelta(days=1))
    assert drop_leftovers(ports, is_dry_run=False).did == ()
    assert ports.blobs.has(sha256)


def test_a_digest_anywhere_in_any_table_keeps_its_file_also_in_a_table_nobody_knows_yet(make: Make) -> None:
    ports = make()
    texts = ("in text", "in a list", "in JSON within JSON", "in an address", "in bytes", "beside another")
    kept = [stored(ports, text, age=OLD) for text in texts]
    ports.do("CREATE TABLE onmodel.of_a_later_version (a text, b text[], c jsonb, d varchar(500), e bytea, f text)")
    try:
        with ports.database.transaction() as db:
            db.execute(
                "INSERT INTO of_a_later_version VALUES (%s, %s, %s::jsonb, %s, %s, %s)",
                (
                    kept[0],
                    ["x", kept[1].upper()],
                    f'{{"a": [{{"b": "{{\\"sha\\": \\"{kept[2]}\\"}}"}}]}}',
                    f"file:///blobs/{kept[3]}.png",
                    bytes.fromhex(kept[4]),
                    f"ab{kept[5]}{kept[0]}",
                ),
            )
        assert drop_leftovers(ports, is_dry_run=False).did == ()
        assert all(ports.blobs.has(sha256) for sha256 in kept)
    finally:
        ports.do("DROP TABLE onmodel.of_a_later_version")
    assert "6 stored files" in drop_leftovers(ports, is_dry_run=False).did[0]


def test_when_a_table_cannot_be_read_nothing_is_dropped(make: Make) -> None:
    ports = make()
    forgotten = stored(ports, "not to be judged", age=OLD)
    ports.do("CREATE VIEW onmodel.broken_source AS SELECT 1 / (random() * 0)::int AS a")
    ports.do("CREATE MATERIALIZED VIEW onmodel.unreadable AS SELECT * FROM onmodel.broken_source WITH NO DATA")
    try:
        report = tidy(ports, is_dry_run=False)
        assert report.steps[4].problems
        assert report.exit_code == 5
        assert ports.blobs.has(forgotten)
    finally:
        ports.do("DROP MATERIALIZED VIEW onmodel.unreadable")
        ports.do("DROP VIEW onmodel.broken_source")
    assert "1 stored files" in drop_leftovers(ports, is_dry_run=False).did[0]


def lora_of(ports: Upkeep, status: LoraStatus, *, days: float, text: str) -> tuple[int, str]:
    """A LoRA of a new season with weights in the store, whose last sign of life is so many days ago."""
    season_id = store_season(ports, next(slugs))
    character = ports.cast.named(season_id, "Mei")
    sha256 = ports.blobs.put_bytes(text.encode(), "application/octet-stream")
    lora = ports.loras.create(
        character, "flux-1-dev", trainer="given", training_set_id=None, images_count=0, created_by="test",
        sha256=sha256, lora_url=ports.blobs.url(sha256),
    )  # fmt: skip
    ports.loras.set_status(lora.id, status, "test")
    with ports.database.transaction() as db:
        ago = timedelta(days=days)
        db.execute("UPDATE character_loras SET created_at = now() - %s WHERE id = %s", (ago, lora.id))
    return lora.id, sha256


TERM = LORA_KEPT_FOR.days


@pytest.mark.parametrize(
    ("status", "days", "is_dropped"),
    [
        (LoraStatus.FAILED, TERM + 0.1, True),
        (LoraStatus.ARCHIVED, TERM + 0.1, True),
        (LoraStatus.FAILED, TERM - 0.1, False),
        (LoraStatus.READY, TERM * 4, False),
        (LoraStatus.VALIDATING, TERM * 4, False),
    ],
)
def test_the_weights_of_a_lora_that_came_to_nothing_go_after_their_time_and_its_row_stays(
    make: Make, status: LoraStatus, days: float, is_dropped: bool
) -> None:
    ports = make()
    lora_id, sha256 = lora_of(ports, status, days=days, text=f"weights {status} {days}")
    drop_leftovers(ports, is_dry_run=True)
    assert ports.blobs.has(sha256)
    report = drop_leftovers(ports, is_dry_run=False)
    assert ports.blobs.has(sha256) is not is_dropped
    assert any(f"LoRA {lora_id} (Mei" in line for line in report.did) is is_dropped
    assert ports.loras.get(lora_id).sha256 == sha256
    assert drop_leftovers(ports, is_dry_run=False).did == ()


def test_weights_that_something_uses_are_kept(make: Make) -> None:
    ports = make()
    pinned, pinned_sha256 = lora_of(ports, LoraStatus.ARCHIVED, days=200, text="pinned")
    lora = ports.loras.get(pinned)
    pin = PinnedCharacter(
        character_id=lora.character_id, character_name="Mei", lora_id=pinned, frontal_sha256="", frontal_image_url="",
        reference_sha256s=(), reference_image_urls=(),
    )  # fmt: skip
    ports.loras.pin(lora.season_id, pin)
    rendered, rendered_sha256 = lora_of(ports, LoraStatus.ARCHIVED, days=200, text="rendered with")
    season_id = ports.loras.get(rendered).season_id
    with ports.database.transaction() as db:
        slot = db.execute(
            "INSERT INTO slots (season_id, number, entry, entry_sha256) VALUES (%s, 1, '{}', 'e') RETURNING id",
            (season_id,),
        ).fetchone()
        assert slot is not None
        db.execute(
            """INSERT INTO renders (season_id, slot_id, entry_sha256, video_model, routes)
               VALUES (%s, %s, 'e', 'wan', jsonb_build_array(jsonb_build_object('lora_id', %s::bigint)))""",
            (season_id, slot[0], rendered),
        )
    _, twin_sha256 = lora_of(ports, LoraStatus.READY, days=1, text="the same file")
    lora_of(ports, LoraStatus.FAILED, days=200, text="the same file")
    assert drop_leftovers(ports, is_dry_run=False).did == ()
    assert all(ports.blobs.has(sha256) for sha256 in (pinned_sha256, rendered_sha256, twin_sha256))


def test_leftovers_of_killed_processes_go_after_a_day_and_an_id_that_is_still_needed_stays(make: Make) -> None:
    ports = make(StandinVendor(states=(QUEUED,)))
    notes = ports.settings.home / "accepted"
    notes.mkdir(exist_ok=True)
    done, needed = sent(ports), died_before_its_answer(ports)
    scratch = ports.scratch()
    (scratch / "old-folder").mkdir()
    (scratch / "young-folder").mkdir()
    files = [scratch / "old", scratch / "old-folder" / "inside", notes / f"{done}.json", notes / f"{needed}.json"]
    young = scratch / "young-folder" / "inside"
    for path in (*files, young):
        path.write_text("{}")
    age(scratch / "young-folder", ports, hours=25)
    age(young, ports, hours=23)
    for path in (*files, scratch / "old-folder"):
        age(path, ports, hours=25)
    report = drop_leftovers(ports, is_dry_run=False)
    assert report.did == ("3 leftovers of processes that were killed, removed.",)
    assert [path.exists() for path in files] == [False, False, False, True]
    assert young.exists()
    assert needed in report.waits[0]
    young.unlink()
    files[3].unlink()


def age(path: Path, ports: Upkeep, *, hours: float) -> None:
    at = (ports.clock.now() - timedelta(hours=hours)).timestamp()
    os.utime(path, (at, at))


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
