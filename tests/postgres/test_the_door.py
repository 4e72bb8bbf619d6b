"""The one door for money, on real tables: whatever goes wrong, a job is paid at most once and nothing is lost."""

from __future__ import annotations

import itertools
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from domain.errors import (
    BadTrainingSet,
    JobFailed,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    OverBudget,
    PromptRefused,
    RateLimited,
    Rejected,
    ResultExpired,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import (
    BlobRef,
    JobOrder,
    JobOutput,
    JobState,
    Operation,
    OutputFile,
    Stage,
    VendorRequest,
    VendorState,
    blob_argument,
)
from tasks.jobs import LOOKS_BEFORE_GONE, REFUSALS_BEFORE_GIVING_UP, await_job, plan_again, plan_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import HandClock, PortsForTests, new_database, settings_for_tests, store_season

ROOT = Path(__file__).parents[2]

_slugs = (f"season-{n}" for n in itertools.count(1))


@pytest.fixture(scope="module")
def shared(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortsForTests]:
    """One database for the whole file; every test has its own season in it."""
    with new_database(server_url) as url:
        ports = PortsForTests(settings_for_tests(tmp_path_factory.mktemp("home"), url), {})
        yield ports
        ports.close()


Open = Callable[[StandinVendor], PortsForTests]


@pytest.fixture
def open_with(shared: PortsForTests) -> Iterator[Open]:
    """Ports over the shared tables with the vendor a test wants; each call is like another process."""
    opened: list[PortsForTests] = []

    def open_one(vendor: StandinVendor) -> PortsForTests:
        opened.append(shared.beside(vendor))
        return opened[-1]

    yield open_one
    for ports in opened:
        ports.close()


def order_in(
    ports: PortsForTests, season_id: int, *, usd: str = "2.00", prompt: str = "a pier", **fields: Any
) -> JobOrder:
    request = VendorRequest(vendor="sandbox", endpoint="train/flux", arguments={"prompt": prompt})
    return JobOrder(
        **{
            "season_id": season_id,
            "stage": Stage.LORA_TRAINING,
            "operation": Operation.TRAIN_LORA,
            "api_name": "fal_flux_lora_fast",
            "model_key": "fal_flux_lora_fast",
            "request": request,
            "estimate_usd": Decimal(usd) / 2,
            "ceiling_usd": Decimal(usd),
            "is_simulated": True,
            **fields,
        }
    )


def planned(ports: PortsForTests, *, budget_usd: str = "60", **fields: Any) -> tuple[JobOrder, str]:
    """A new season and one planned job in it."""
    order = order_in(ports, store_season(ports, next(_slugs), budget_usd=budget_usd), **fields)
    return order, plan_job(ports, order)


def budget(ports: PortsForTests, order: JobOrder) -> tuple[Decimal, Decimal]:
    """(reserved, spent)."""
    _, reserved, spent = ports.ledger.budget(order.season_id)
    return reserved, spent


def state(ports: PortsForTests, key: str) -> JobState:
    return ports.ledger.get(key).state


# --- the whole way ---


def test_a_job_goes_through_the_door_from_plan_to_settlement(open_with: Open) -> None:
    vendor = StandinVendor(billed_usd=Decimal("0.90"))
    ports = open_with(vendor)
    order, key = planned(ports)
    assert (state(ports, key), budget(ports, order)) == (JobState.PLANNED, (Decimal(2), Decimal(0)))
    submit_job(ports, key)
    job = ports.ledger.get(key)
    assert (job.state, job.ids and job.ids.request_id) == (JobState.SUBMITTED, "request-1")
    await_job(ports, key)
    job = ports.ledger.get(key)
    assert (job.state, job.billed_usd, job.seed) == (JobState.SUCCEEDED, Decimal("0.90"), 7)
    assert budget(ports, order) == (Decimal(0), Decimal("0.90"))
    kept = job.file("lora")
    assert kept is not None
    assert ports.blobs.read(kept.sha256) == b"weights"
    (cost,) = ports.ledger.costs(order.season_id)
    assert (cost.amount_usd, cost.forecast_usd, cost.once_key) == (Decimal("0.90"), Decimal(1), f"job:{key}")


def test_where_the_vendor_says_no_price_the_estimate_is_settled_and_the_rest_released(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    order, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    assert budget(ports, order) == (Decimal(0), Decimal(1))


def test_doing_everything_again_makes_no_call_and_no_cost(open_with: Open) -> None:
    vendor = StandinVendor()
    ports = open_with(vendor)
    order, key = planned(ports)
    for _ in range(3):
        assert plan_job(ports, order) == key
        submit_job(ports, key)
        await_job(ports, key)
    calls = vendor.calls
    again = ports.beside()
    assert plan_job(again, order) == key
    submit_job(again, key)
    await_job(again, key)
    again.close()
    assert (len(vendor.posts), vendor.calls) == (1, calls)
    assert len(ports.ledger.costs(order.season_id)) == 1
    assert budget(ports, order) == (Decimal(0), Decimal(1))


def test_a_job_submitted_by_one_process_is_awaited_by_another(open_with: Open) -> None:
    vendor = StandinVendor()
    first, second = open_with(vendor), open_with(vendor)
    _, key = planned(first)
    submit_job(first, key)
    await_job(second, key)
    assert state(first, key) is JobState.SUCCEEDED
    assert len(vendor.posts) == 1


def test_a_file_is_uploaded_once_and_its_url_is_what_the_vendor_gets(open_with: Open) -> None:
    vendor = StandinVendor()
    ports = open_with(vendor)
    sha256 = ports.blobs.put_bytes(b"a zip of this test", "application/zip")
    ref = BlobRef(sha256=sha256, media_type="application/zip", file_name="set.zip")
    season_id = store_season(ports, next(_slugs))
    for prompt in ("one", "two"):
        request = VendorRequest(
            vendor="sandbox", endpoint="train/flux", arguments={"zip": blob_argument(ref), "prompt": prompt}
        )
        submit_job(ports, plan_job(ports, order_in(ports, season_id, request=request)))
    assert vendor.uploaded == [ref]
    assert vendor.urls_sent == [{sha256: "standin:uploads/1/set.zip"}] * 2


def test_an_upload_that_fails_for_now_is_repeated_before_anything_is_paid(open_with: Open) -> None:
    vendor = StandinVendor(uploads=[Unavailable("the storage is down")])
    ports = open_with(vendor)
    ref = BlobRef(sha256=ports.blobs.put_bytes(b"another", "x/y"), media_type="x/y", file_name="a")
    request = VendorRequest(vendor="sandbox", endpoint="train/flux", arguments={"zip": blob_argument(ref)})
    _, key = planned(ports, request=request)
    submit_job(ports, key)
    assert (len(vendor.posts), state(ports, key)) == (1, JobState.SUBMITTED)


# --- a lost answer ---


@pytest.mark.parametrize("lost", ["the read timed out", "the connection was dropped", "the answer is no JSON"])
def test_a_lost_answer_is_never_paid_twice(open_with: Open, lost: str) -> None:
    vendor = StandinVendor(submits=[SubmissionUnknown(lost)])
    ports = open_with(vendor)
    order, key = planned(ports)
    for process in (ports, ports, open_with(vendor)):
        with pytest.raises(SubmissionUnknown, match=f"{key}.*{lost}.*not sent again") as unknown:
            submit_job(process, key)
        assert unknown.value.exit_code == 6
        assert plan_job(process, order) == key
    assert len(vendor.posts) == 1
    assert state(ports, key) is JobState.SUBMISSION_UNKNOWN
    assert budget(ports, order) == (Decimal(2), Decimal(0))
    assert ports.ledger.costs(order.season_id) == []


def test_a_lost_answer_is_not_planned_again_as_another_attempt(open_with: Open) -> None:
    ports = open_with(StandinVendor(submits=[SubmissionUnknown("reset")]))
    order, key = planned(ports)
    with pytest.raises(SubmissionUnknown):
        submit_job(ports, key)
    assert plan_job(ports, order, max_attempts=5) == key
    latest = ports.ledger.latest(order.work_key)
    assert latest is not None
    assert latest.attempt == 1


# --- definite refusals ---


@pytest.mark.parametrize("refusal", [RateLimited("too many", 30.0), Unavailable("connection refused")])
def test_a_definite_refusal_for_now_goes_back_to_planned_and_is_claimed_again(
    open_with: Open, refusal: OnModelError
) -> None:
    vendor = StandinVendor(submits=[refusal])
    ports = open_with(vendor)
    assert isinstance(ports.clock, HandClock)
    before = ports.clock.now()
    order, key = planned(ports)
    submit_job(ports, key)
    assert (len(vendor.posts), state(ports, key)) == (2, JobState.SUBMITTED)
    waited = ports.clock.now() - before
    assert waited >= timedelta(seconds=30 if isinstance(refusal, RateLimited) else 0.1)
    assert budget(ports, order) == (Decimal(2), Decimal(0))


def test_nobody_claims_a_refused_job_before_its_time(open_with: Open) -> None:
    refusals = [RateLimited("too many", 600.0)] * REFUSALS_BEFORE_GIVING_UP
    vendor = StandinVendor(submits=refusals)
    ports = open_with(vendor)
    _, key = planned(ports)
    with pytest.raises(RateLimited):
        submit_job(ports, key)
    due = ports.ledger.get(key).not_before
    assert due == ports.clock.now() + timedelta(seconds=600)
    assert due is not None
    assert not ports.ledger.claim(key, due - timedelta(seconds=1))
    assert state(ports, key) is JobState.PLANNED
    assert ports.ledger.claim(key, due)


def test_a_vendor_that_keeps_refusing_is_given_up_for_now_and_the_job_stays_planned(open_with: Open) -> None:
    vendor = StandinVendor(submits=[Unavailable("down")] * REFUSALS_BEFORE_GIVING_UP)
    ports = open_with(vendor)
    order, key = planned(ports)
    with pytest.raises(Unavailable):
        submit_job(ports, key)
    assert (len(vendor.posts), state(ports, key)) == (REFUSALS_BEFORE_GIVING_UP, JobState.PLANNED)
    assert budget(ports, order) == (Decimal(2), Decimal(0))
    submit_job(ports, key)
    assert state(ports, key) is JobState.SUBMITTED


@pytest.mark.parametrize("kind", [OutOfCredit, NotConfigured])
def test_a_locked_account_stops_at_once_and_the_job_goes_on_when_it_is_open_again(
    open_with: Open, kind: type[OnModelError]
) -> None:
    vendor = StandinVendor(submits=[kind("the account is locked")])
    ports = open_with(vendor)
    _, key = planned(ports)
    with pytest.raises(kind):
        submit_job(ports, key)
    assert (len(vendor.posts), state(ports, key)) == (1, JobState.PLANNED)
    submit_job(ports, key)
    assert (len(vendor.posts), state(ports, key)) == (2, JobState.SUBMITTED)


@pytest.mark.parametrize("kind", [Rejected, PromptRefused, BadTrainingSet])
def test_a_refused_request_ends_failed_charges_nothing_and_is_never_repeated(
    open_with: Open, kind: type[OnModelError]
) -> None:
    vendor = StandinVendor(submits=[kind("field steps: too many")])
    ports = open_with(vendor)
    order, key = planned(ports)
    with pytest.raises(kind, match="too many"):
        submit_job(ports, key)
    assert state(ports, key) is JobState.FAILED
    assert budget(ports, order) == (Decimal(0), Decimal(0))
    assert [cost.amount_usd for cost in ports.ledger.costs(order.season_id)] == [Decimal(0)]
    assert plan_job(ports, order, max_attempts=5) == key
    assert plan_again(ports, key, max_attempts=5) is None
    submit_job(ports, key)
    with pytest.raises(kind, match="too many"):
        await_job(ports, key)
    assert len(vendor.posts) == 1


# --- failures after it was accepted ---


def test_an_attempt_rises_only_after_the_last_is_known_dead(open_with: Open) -> None:
    vendor = StandinVendor(outputs=[JobFailed("the GPU fell over")])
    ports = open_with(vendor)
    order, key = planned(ports)
    assert plan_job(ports, order, max_attempts=2) == key
    submit_job(ports, key)
    assert plan_job(ports, order, max_attempts=2) == key
    with pytest.raises(JobFailed):
        await_job(ports, key)
    assert budget(ports, order) == (Decimal(0), Decimal(0))
    second = plan_job(ports, order, max_attempts=2)
    assert second != key
    assert second == order.job_key(2) == plan_again(ports, key, max_attempts=2)
    submit_job(ports, second)
    await_job(ports, second)
    assert plan_job(ports, order, max_attempts=9) == second
    assert len(vendor.posts) == 2


def test_when_its_attempts_are_used_up_a_job_answers_with_its_error_again(open_with: Open) -> None:
    vendor = StandinVendor(outputs=[JobFailed("the GPU fell over")] * 2)
    ports = open_with(vendor)
    order, key = planned(ports)
    for attempt in (1, 2):
        key = plan_job(ports, order, max_attempts=2)
        assert ports.ledger.get(key).attempt == attempt
        submit_job(ports, key)
        with pytest.raises(JobFailed):
            await_job(ports, key)
    assert plan_again(ports, key, max_attempts=2) is None
    assert plan_job(ports, order, max_attempts=2) == key
    with pytest.raises(JobFailed, match="fell over"):
        await_job(ports, key)
    assert len(vendor.posts) == 2


def test_a_job_cancelled_at_the_vendor_ends_cancelled_and_releases_its_money(open_with: Open) -> None:
    ports = open_with(StandinVendor(states=(VendorState.QUEUED, VendorState.CANCELLED)))
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(JobFailed, match="cancelled"):
        await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.CANCELLED, (Decimal(0), Decimal(0)))


def test_a_job_the_vendor_forgot_is_believed_after_three_looks_and_counts_as_spent(open_with: Open) -> None:
    vendor = StandinVendor(states=(VendorState.GONE,))
    ports = open_with(vendor)
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(ResultExpired, match="request-1"):
        await_job(ports, key)
    assert vendor.calls == 1 + LOOKS_BEFORE_GONE
    assert (state(ports, key), budget(ports, order)) == (JobState.EXPIRED, (Decimal(0), Decimal(1)))


def test_a_job_missed_twice_and_seen_again_goes_on(open_with: Open) -> None:
    gone = VendorState.GONE
    ports = open_with(StandinVendor(states=(gone, gone, VendorState.RUNNING, gone, gone, VendorState.DONE)))
    _, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    assert state(ports, key) is JobState.SUCCEEDED


def test_a_look_that_fails_changes_nothing_and_can_be_repeated(open_with: Open) -> None:
    vendor = StandinVendor(looks=[Unavailable("502")], outputs=[Unavailable("503")], downloads=[Unavailable("cut")])
    ports = open_with(vendor)
    order, key = planned(ports)
    submit_job(ports, key)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await_job(ports, key)
        assert budget(ports, order) == (Decimal(2), Decimal(0))
    await_job(ports, key)
    assert (state(ports, key), len(vendor.posts)) == (JobState.SUCCEEDED, 1)


def test_a_job_that_takes_too_long_is_not_lost(open_with: Open) -> None:
    vendor = StandinVendor(states=(VendorState.RUNNING,))
    ports = open_with(vendor)
    ports.clock = HandClock(step_seconds=60)
    _, key = planned(ports, operation=Operation.MAKE_STILL)
    submit_job(ports, key)
    with pytest.raises(Unavailable, match="run again to go on waiting"):
        await_job(ports, key)
    assert state(ports, key) is JobState.RUNNING


def _file(role: str, **fields: Any) -> JobOutput:
    return JobOutput(files=(OutputFile(**{"role": role, "url": "standin:out", **fields}),), billed_usd=Decimal("0.5"))


def _png() -> bytes:
    picture = BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    return picture.getvalue()


@pytest.mark.parametrize(
    ("role", "content", "words"),
    [
        ("lora", b"", "returned an empty lora file"),
        ("image", b"<html>error</html>", "the image from sandbox cannot be used"),
        ("image", _png()[:60], "the image from sandbox cannot be used"),
        ("video", b"\0" * 400, "the video from sandbox cannot be used"),
    ],
)
def test_an_output_that_is_empty_or_does_not_decode_fails_the_job_at_what_was_billed(
    open_with: Open, role: str, content: bytes, words: str
) -> None:
    ports = open_with(StandinVendor(outputs=[_file(role)], downloads=[content]))
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(JobFailed, match=words):
        await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.FAILED, (Decimal(0), Decimal("0.5")))
    assert plan_again(ports, key, max_attempts=2) is not None


def test_a_whole_image_is_kept(open_with: Open) -> None:
    ports = open_with(StandinVendor(outputs=[_file("image", file_name="a.png")], downloads=[_png()]))
    _, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    assert ports.ledger.get(key).file("image") is not None


def test_a_result_that_is_gone_before_it_was_fetched_counts_as_spent(open_with: Open) -> None:
    ports = open_with(StandinVendor(outputs=[_file("lora", url="gone:1")]))
    order, key = planned(ports)
    submit_job(ports, key)
    with pytest.raises(ResultExpired):
        await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.EXPIRED, (Decimal(0), Decimal("0.5")))


@pytest.mark.parametrize(
    ("said", "kept"),
    [("../../etc/passwd", "passwd"), ("a\\b\\x.safetensors", "x.safetensors"), ("..", ".."), ("", "lora")],
)
def test_a_vendors_file_name_is_only_a_name(open_with: Open, said: str, kept: str) -> None:
    ports = open_with(StandinVendor(outputs=[_file("lora", file_name=said)]))
    _, key = planned(ports)
    submit_job(ports, key)
    await_job(ports, key)
    file = ports.ledger.get(key).file("lora")
    assert file is not None
    assert file.file_name == kept
    assert "/" not in file.file_name


# --- budgets ---


def test_over_budget_reserves_nothing_writes_nothing_and_submits_nothing(open_with: Open) -> None:
    vendor = StandinVendor()
    ports = open_with(vendor)
    season_id = store_season(ports, next(_slugs), budget_usd="1.99")
    order = order_in(ports, season_id, usd="2.00")
    with pytest.raises(
        OverBudget, match=r"only 1\.9900 of the season's 1\.9900 USD are free.*raise budget_usd"
    ) as over:
        plan_job(ports, order)
    assert over.value.exit_code == 4
    assert ports.ledger.latest(order.work_key) is None
    assert budget(ports, order) == (Decimal(0), Decimal(0))
    assert vendor.calls == 0


def test_a_ceiling_that_fits_exactly_is_reserved(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    season_id = store_season(ports, next(_slugs), budget_usd="4.00")
    plan_job(ports, order_in(ports, season_id, prompt="one"))
    last = order_in(ports, season_id, prompt="two")
    plan_job(ports, last)
    assert budget(ports, last) == (Decimal(4), Decimal(0))
    with pytest.raises(OverBudget):
        plan_job(ports, order_in(ports, season_id, prompt="three", usd="0.01"))


def test_what_settlement_releases_can_be_reserved_again(open_with: Open) -> None:
    ports = open_with(StandinVendor(billed_usd=Decimal("0.25")))
    order, key = planned(ports, budget_usd="2.00")
    other = order_in(ports, order.season_id, prompt="another", usd="1.75")
    with pytest.raises(OverBudget):
        plan_job(ports, other)
    submit_job(ports, key)
    await_job(ports, key)
    plan_job(ports, other)
    assert budget(ports, order) == (Decimal("1.75"), Decimal("0.25"))


def test_a_raised_budget_lets_the_refused_job_through(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    slug = next(_slugs)
    order = order_in(ports, store_season(ports, slug, budget_usd="1"))
    with pytest.raises(OverBudget):
        plan_job(ports, order)
    store_season(ports, slug, budget_usd="2")
    assert plan_job(ports, order) == order.job_key(1)


def test_many_at_once_never_reserve_more_than_the_budget(open_with: Open) -> None:
    ports = open_with(StandinVendor())
    season_id = store_season(ports, next(_slugs), budget_usd="6.00")
    together = threading.Barrier(8)
    answers: list[str] = []

    def plan(number: int) -> None:
        together.wait(10)
        try:
            plan_job(ports, order_in(ports, season_id, prompt=f"shot {number}"))
            answers.append("planned")
        except OverBudget:
            answers.append("over budget")

    run_together(*(lambda n=n: plan(n) for n in range(8)))
    assert sorted(answers) == ["over budget"] * 5 + ["planned"] * 3
    assert ports.ledger.budget(season_id)[1] == Decimal(6)


# --- several at once, and death ---


def run_together(*works: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_many_who_ask_for_the_same_job_make_one_row_one_reservation_and_one_post(open_with: Open) -> None:
    def take_a_moment() -> None:
        threading.Event().wait(0.05)

    vendor = StandinVendor(before_submit=take_a_moment)
    processes = [open_with(vendor) for _ in range(4)]
    season_id = store_season(processes[0], next(_slugs))
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
    assert ports.ledger.claim(key, ports.clock.now())  # and then the process is gone, with its lock
    with pytest.raises(SubmissionUnknown, match="died before the answer was stored"):
        submit_job(ports, key)
    assert vendor.posts == []
    assert (state(ports, key), budget(ports, order)) == (JobState.SUBMISSION_UNKNOWN, (Decimal(2), Decimal(0)))


KILLED_WHILE_SUBMITTING = """
import os, signal, sys
from datetime import UTC, datetime
from providers.postgres.database import Database
from providers.postgres.ledger import Ledger

ledger = Ledger(Database.open(sys.argv[1]))
with ledger.submitter(sys.argv[2]) as is_ours:
    assert is_ours and ledger.claim(sys.argv[2], datetime.now(UTC))
    os.kill(os.getpid(), signal.SIGKILL)  # here the POST would be under way
"""


def test_a_process_killed_in_the_middle_of_its_post_leaves_a_job_that_waits_for_a_person(open_with: Open) -> None:
    vendor = StandinVendor()
    ports = open_with(vendor)
    order, key = planned(ports)
    assert ports.settings.database_url is not None
    url = ports.settings.database_url.get_secret_value()
    process = subprocess.run([sys.executable, "-c", KILLED_WHILE_SUBMITTING, url, key], cwd=ROOT, timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert state(ports, key) is JobState.SUBMITTING
    with pytest.raises(SubmissionUnknown):
        submit_job(ports, key)
    assert vendor.posts == []
    assert budget(ports, order) == (Decimal(2), Decimal(0))


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


def test_an_accepted_request_that_cannot_be_stored_is_named_in_the_log(
    open_with: Open, caplog: pytest.LogCaptureFixture
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
    after = open_with(StandinVendor())
    with pytest.raises(SubmissionUnknown):
        submit_job(after, key)


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
