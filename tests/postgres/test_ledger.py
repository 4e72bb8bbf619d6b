"""The ledger's own promises, call by call: one transaction each, repeatable, and always adding up."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.costs import free_step, job_cost
from domain.errors import BadInput, OverBudget
from domain.jobs import (
    LEGAL_EDGES,
    JobOrder,
    JobState,
    KeptFile,
    Operation,
    ProviderJob,
    Stage,
    VendorJobIds,
    VendorRequest,
    canonical_json,
)
from domain.submissions import Submission, last_submission
from providers.postgres.ledger import Ledger
from tests.ports_for_tests import STARTED_AT, PortsForTests, new_database, settings_for_tests, store_season

_numbers = itertools.count(1)
IDS = VendorJobIds(request_id="r-1", status_url="s", response_url="o", cancel_url="c")
FILE = KeptFile(
    role="video", sha256="f" * 64, media_type="video/mp4", file_name="clip.mp4", url="https://x.example/clip"
)


@pytest.fixture(scope="module")
def ports(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortsForTests]:
    with new_database(server_url) as url:
        opened = PortsForTests(settings_for_tests(tmp_path_factory.mktemp("home"), url), {})
        yield opened
        opened.close()


@pytest.fixture
def ledger(ports: PortsForTests) -> Ledger:
    return ports.ledger


@pytest.fixture
def season_id(ports: PortsForTests) -> int:
    return store_season(ports, f"ledger-{next(_numbers)}", budget_usd="10")


def order(season_id: int, *, usd: str = "2", arguments: dict[str, Any] | None = None) -> JobOrder:
    arguments = arguments or {"prompt": f"shot {next(_numbers)}"}
    return JobOrder(
        season_id=season_id,
        slot_number=6,
        stage=Stage.VIDEO,
        operation=Operation.MAKE_VIDEO,
        api_name="kling_o1_reference",
        model_key="kling_o1_reference",
        request=VendorRequest(vendor="sandbox", endpoint="video/x", arguments=arguments),
        estimate_usd=Decimal(usd) / 2,
        ceiling_usd=Decimal(usd),
    )


def submitted(ledger: Ledger, season_id: int, usd: str = "2") -> ProviderJob:
    job = ledger.plan(order(season_id, usd=usd), 1)
    assert ledger.claim(job.key, STARTED_AT, {})
    ledger.submitted(job.key, IDS)
    return ledger.get(job.key)


def test_a_planned_job_is_read_back_as_it_was_ordered(ledger: Ledger, season_id: int) -> None:
    asked = order(
        season_id, arguments={"prompt": "é 雨 'quoted' \"x\"; --", "scale": 0.8, "rate": 2e-4, "n": [1, None]}
    )
    job = ledger.plan(asked, 1)
    assert job == ledger.get(asked.job_key(1)) == ledger.latest(asked.work_key)
    assert (job.state, job.attempt, job.request) == (JobState.PLANNED, 1, asked.request)
    assert (job.ids, job.files, job.billed_usd, job.not_before) == (None, (), None, None)
    assert job in ledger.open_jobs(season_id)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=4),
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(1e-9, 1e9)
        | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=10),
        min_size=1,
        max_size=4,
    )
)
def test_a_request_comes_back_from_the_tables_with_the_same_key(
    ports: PortsForTests, arguments: dict[str, Any]
) -> None:
    one = store_season(ports, "ledger-round-trip", budget_usd="1000000")
    asked = order(one, arguments=arguments)
    read = ports.ledger.plan(asked, 1).request
    assert canonical_json(read.arguments) == canonical_json(asked.request.arguments)


def test_planning_the_same_attempt_again_changes_nothing(ledger: Ledger, season_id: int) -> None:
    asked = order(season_id)
    assert ledger.plan(asked, 1) == ledger.plan(asked, 1)
    assert ledger.budget(season_id) == (Decimal(10), Decimal(2), Decimal(0))


def test_over_budget_leaves_no_row_no_event_and_no_reservation(ledger: Ledger, season_id: int) -> None:
    asked = order(season_id, usd="10.01")
    with pytest.raises(OverBudget):
        ledger.plan(asked, 1)
    assert ledger.latest(asked.work_key) is None
    assert ledger.open_jobs(season_id) == []
    assert ledger.budget(season_id) == (Decimal(10), Decimal(0), Decimal(0))


def test_only_one_of_many_claims_a_job(ledger: Ledger, season_id: int) -> None:
    key = ledger.plan(order(season_id), 1).key
    together, answers = threading.Barrier(6), list[Submission | None]()

    def claim() -> None:
        together.wait(10)
        answers.append(ledger.claim(key, STARTED_AT, {"f" * 64: "https://x.example/f"}))

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    (submission,) = [answer for answer in answers if answer is not None]
    assert submission == last_submission(ledger.get(key))
    assert (submission.number, submission.sent_at) == (1, STARTED_AT)
    assert len(answers) == 6


def test_the_right_to_submit_is_held_by_one_and_given_back(ledger: Ledger) -> None:
    with ledger.submitter("key-a") as ours:
        assert ours.is_ours
        with ledger.submitter("key-a") as theirs, ledger.submitter("key-b") as other:
            assert not theirs.is_ours
            assert other.is_ours
    with ledger.submitter("key-a") as again:
        assert again.is_ours


def test_the_right_to_submit_is_given_back_when_the_work_fails(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.submitter("key-c"):
        raise ZeroDivisionError
    with ledger.submitter("key-c") as again:
        assert again.is_ours


def test_the_right_to_submit_is_looked_at_once_more_right_before_the_post(ledger: Ledger, season_id: int) -> None:
    key = ledger.plan(order(season_id), 1).key
    with ledger.submitter(key) as ours:
        assert not ours.still_submitting()
        assert ledger.claim(key, STARTED_AT, {})
        assert ours.still_submitting()
        with ledger.submitter(key) as theirs:
            assert not theirs.still_submitting()
        ledger.lose(key, "somebody took us for dead")
        assert not ours.still_submitting()


def test_a_postponed_job_is_claimed_at_its_time_and_not_before(ledger: Ledger, season_id: int) -> None:
    key = ledger.plan(order(season_id), 1).key
    assert ledger.claim(key, STARTED_AT, {})
    due = STARTED_AT + timedelta(seconds=30)
    ledger.postpone(key, due, "busy")
    assert ledger.get(key).not_before == due
    assert not ledger.claim(key, due - timedelta(milliseconds=1), {})
    second = ledger.claim(key, due, {})
    assert second is not None
    assert second.number == 2


def test_the_vendors_ids_are_kept_as_they_came(ledger: Ledger, season_id: int) -> None:
    job = submitted(ledger, season_id)
    assert (job.state, job.ids) == (JobState.SUBMITTED, IDS)
    assert job.submitted_at is not None


def test_a_look_moves_a_job_to_running_once_and_keeps_its_progress(ledger: Ledger, season_id: int) -> None:
    key = submitted(ledger, season_id).key
    ledger.beat(key, is_running=False, progress=None, waited_seconds=0)
    assert ledger.get(key).state is JobState.SUBMITTED
    for progress in (0.2, None, 0.4):
        ledger.beat(key, is_running=True, progress=progress, waited_seconds=1.5)
    job = ledger.get(key)
    assert (job.state, job.waited_seconds) == (JobState.RUNNING, 4.5)
    assert [event.to_state for event in ledger.events(key)].count(JobState.RUNNING) == 1


def test_success_settles_once_however_often_it_is_told(ledger: Ledger, season_id: int) -> None:
    job = submitted(ledger, season_id)
    for _ in range(3):
        ledger.succeed(job.key, (FILE,), 7, job_cost(job, Decimal("0.7"), "a clip"))
    done = ledger.get(job.key)
    assert (done.state, done.files, done.seed, done.billed_usd) == (JobState.SUCCEEDED, (FILE,), 7, Decimal("0.7"))
    assert done.file("video") == FILE
    assert done.file("image") is None
    assert ledger.budget(season_id) == (Decimal(10), Decimal(0), Decimal("0.7"))
    assert [cost.amount_usd for cost in ledger.costs(season_id)] == [Decimal("0.7")]
    assert ledger.open_jobs(season_id) == []


def test_a_bill_above_the_ceiling_is_recorded_as_it_is(ledger: Ledger, season_id: int) -> None:
    job = submitted(ledger, season_id)
    ledger.succeed(job.key, (), None, job_cost(job, Decimal(11), "dearer than said"))
    assert ledger.budget(season_id) == (Decimal(10), Decimal(0), Decimal(11))
    with pytest.raises(OverBudget):
        ledger.plan(order(season_id, usd="0.01"), 1)


def test_what_has_ended_cannot_end_otherwise(ledger: Ledger, season_id: int) -> None:
    job = submitted(ledger, season_id)
    ledger.end(job.key, JobState.FAILED, "JobFailed", "it fell over", job_cost(job, Decimal(0), "x"))
    events = ledger.events(job.key)
    ledger.succeed(job.key, (FILE,), None, job_cost(job, Decimal(1), "x"))
    assert ledger.events(job.key) == events
    assert ledger.get(job.key).files == ()
    failed = ledger.get(job.key)
    assert (failed.state, failed.error_class, failed.error_message) == (JobState.FAILED, "JobFailed", "it fell over")
    assert ledger.budget(season_id) == (Decimal(10), Decimal(0), Decimal(0))


def test_python_refuses_every_illegal_move_before_the_database_has_to(ledger: Ledger, season_id: int) -> None:
    key = ledger.plan(order(season_id), 1).key
    with pytest.raises(AssertionError, match="cannot go from planned to submitted"):
        ledger.submitted(key, IDS)
    job = submitted(ledger, season_id)
    with pytest.raises(AssertionError, match="cannot go from submitted to planned"):
        ledger.postpone(job.key, STARTED_AT, "busy")
    assert JobState.PLANNED not in LEGAL_EDGES[JobState.SUBMITTED]


def test_only_what_is_being_submitted_can_be_lost(ledger: Ledger, season_id: int) -> None:
    planned = ledger.plan(order(season_id), 1).key
    ledger.lose(planned, "gone")
    assert ledger.get(planned).state is JobState.PLANNED
    job = submitted(ledger, season_id)
    ledger.lose(job.key, "gone")
    assert ledger.get(job.key) == job
    assert ledger.claim(planned, STARTED_AT, {})
    ledger.lose(planned, "the read timed out")
    lost = ledger.get(planned)
    assert (lost.state, lost.error_message) == (JobState.SUBMISSION_UNKNOWN, "the read timed out")
    assert ledger.budget(season_id)[1] == Decimal(4)


def test_a_word_about_an_earlier_post_does_nothing_to_the_one_under_way(ledger: Ledger, season_id: int) -> None:
    key = ledger.plan(order(season_id), 1).key
    assert ledger.claim(key, STARTED_AT, {})
    ledger.lose(key, "somebody took its sender for dead")
    assert ledger.plan_again(key, "its vendor does not have it")
    assert ledger.claim(key, STARTED_AT, {})
    ledger.postpone(key, STARTED_AT, "not sent after all", post=1)
    ledger.lose(key, "the read timed out", post=1)
    assert ledger.get(key).state is JobState.SUBMITTING
    ledger.postpone(key, STARTED_AT, "busy", post=2)
    assert ledger.get(key).state is JobState.PLANNED


def test_of_two_that_find_the_same_request_one_adopts_it(ledger: Ledger, season_id: int) -> None:
    keys = [ledger.plan(order(season_id), 1).key for _ in range(2)]
    found = VendorJobIds(request_id=f"found-{keys[0]}")
    for key in keys:
        assert ledger.claim(key, STARTED_AT, {})
        ledger.lose(key, "reset")
    together, refusals = threading.Barrier(2), list[str]()

    def adopt(key: str) -> None:
        together.wait(10)
        try:
            ledger.adopt(key, found, "found in its list")
        except BadInput as refusal:
            refusals.append(refusal.message)

    threads = [threading.Thread(target=adopt, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(ledger.get(key).state for key in keys) == [JobState.SUBMISSION_UNKNOWN, JobState.SUBMITTED]
    assert [found.request_id in refusal for refusal in refusals] == [True]


def test_every_move_leaves_an_event(ports: PortsForTests, ledger: Ledger, season_id: int) -> None:
    job = submitted(ledger, season_id)
    ledger.beat(job.key, is_running=True, progress=0.1, waited_seconds=1)
    ledger.succeed(job.key, (), None, job_cost(job, Decimal(1), "x"))
    with ports.database.transaction() as db:
        rows = db.execute(
            "SELECT from_state, to_state FROM provider_job_events WHERE job_key = %s ORDER BY id", (job.key,)
        ).fetchall()
    states = [None, "planned", "submitting", "submitted", "running", "succeeded"]
    assert rows == list(itertools.pairwise(states))


def test_a_job_nobody_wrote_is_our_bug(ledger: Ledger) -> None:
    with pytest.raises(KeyError):
        ledger.get("nothing")
    assert ledger.latest("nothing") is None


def test_a_free_step_is_logged_once_with_its_reason(ledger: Ledger, season_id: int) -> None:
    step = free_step(season_id, Stage.FRAMES, "onmodel", "done on this machine", f"frames:{season_id}", slot_number=1)
    ledger.log_cost(step)
    ledger.log_cost(step)
    (cost,) = ledger.costs(season_id)
    assert cost.model_copy(update={"created_at": None}) == step
    assert ledger.budget(season_id)[2] == Decimal(0)


def test_an_upload_is_remembered_for_as_long_as_the_caller_trusts_it(ledger: Ledger) -> None:
    ledger.keep_uploaded_url("fal", "a" * 64, "https://x.example/1")
    ledger.keep_uploaded_url("fal", "a" * 64, "https://x.example/2")
    long_ago, in_the_future = STARTED_AT.replace(year=2000), STARTED_AT.replace(year=2200)
    assert ledger.uploaded_url("fal", "a" * 64, long_ago) == "https://x.example/2"
    assert ledger.uploaded_url("fal", "a" * 64, in_the_future) is None
    assert ledger.uploaded_url("sandbox", "a" * 64, long_ago) is None


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.sampled_from(["leave", "lose", "fail", "succeed"]), st.integers(0, 400)),
        max_size=8,
    )
)
def test_whatever_happens_reserved_and_spent_are_the_sums_of_what_is_open_and_what_was_billed(
    ports: PortsForTests, jobs: list[tuple[int, str, int]]
) -> None:
    ledger = ports.ledger
    season_id = store_season(ports, f"sums-{next(_numbers)}", budget_usd="10")
    reserved = spent = Decimal(0)
    for ceiling, fate, billed in jobs:
        ceiling_usd, billed_usd = Decimal(ceiling) / 100, Decimal(billed) / 100
        asked = order(season_id, usd=str(ceiling_usd))
        if reserved + spent + ceiling_usd > 10:
            with pytest.raises(OverBudget):
                ledger.plan(asked, 1)
            continue
        job = ledger.plan(asked, 1)
        ledger.claim(job.key, STARTED_AT, {})
        match fate:
            case "lose":
                ledger.lose(job.key, "reset")
                reserved += ceiling_usd
            case "fail":
                ledger.end(job.key, JobState.FAILED, "Rejected", "no", job_cost(job, Decimal(0), "refused"))
            case "succeed":
                ledger.submitted(job.key, IDS)
                ledger.succeed(job.key, (), None, job_cost(job, billed_usd, "x"))
                spent += billed_usd
            case _:
                reserved += ceiling_usd
        assert ledger.budget(season_id) == (Decimal(10), reserved, spent)
    assert sum(cost.amount_usd for cost in ledger.costs(season_id)) == spent
