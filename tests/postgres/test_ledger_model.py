"""The door and its ledger against a plain model of them: two processes, random interleavings, and a world that knows.

Each process sends its jobs in a thread of its own, which stands still inside its POST until a step says what becomes of
it. Meanwhile the other one plans, settles, cancels, moves, or believes the first one dead and takes its job over.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from domain.costs import job_cost
from domain.errors import OverBudget, Rejected
from domain.jobs import LEGAL_EDGES, JobState
from domain.submissions import Choice, Submission
from providers.postgres.ledger import lock_number
from tasks.jobs import move_to_next_vendor, plan_job
from tasks.lost_answers import resolve
from tests.ports_for_tests import HandClock, PortsForTests, new_database, settings_for_tests, store_season
from tests.postgres.door_orders import order_in, request_at, slugs
from tests.postgres.ledger_model import FREE, Bill, Books
from tests.postgres.slow_vendors import WORDS, Killed, Process, World

MAX_ATTEMPTS = 3
ENDS = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED)
SENDABLE = (JobState.PLANNED, JobState.SUBMITTING, JobState.SUBMISSION_UNKNOWN)

IN_FLIGHT = (JobState.SUBMITTED, JobState.RUNNING)
cents = st.integers(1, 300).map(lambda value: Decimal(value) / 100)
processes = st.sampled_from((0, 1))
words = st.sampled_from(WORDS)
rarely = st.integers(0, 3).map(lambda number: number == 3)


class LedgerMachine(RuleBasedStateMachine):
    """Every step changes the tables and the model; afterwards both must agree."""

    shared: PortsForTests
    workers: tuple[Process, Process]
    eye: psycopg.Connection[Any]

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        for worker in self.workers:
            worker.world, worker.sent = self.world, None
        self.season_id = store_season(self.shared, next(slugs), budget_usd="8")
        (mei,) = self.shared.cast.of_season(self.season_id)
        self.mei_id = mei.id
        self.shared.budgets.set_character(mei.id, limit_usd=Decimal(5))
        self.books = Books(self.world, Bill(Decimal(8)), Bill(Decimal(5)))
        self.held_before = FREE

    def _in_post(self, key: str) -> Process | None:
        return next((one for one in self.workers if one.sent and one.sent.job_key == key), None)

    def _check(self, error: BaseException | None, expected: type[BaseException] | None) -> None:
        if error is not None and (expected is None or not isinstance(error, expected)):
            raise error
        assert (error is None) == (expected is None), f"expected {expected}"

    def _pick(self, data: st.DataObject, *states: JobState) -> str | None:
        keys = [key for key, job in self.books.jobs.items() if job.state in states]
        return data.draw(st.sampled_from(keys)) if keys else None

    # --- steps ---

    @initialize(ceilings=st.tuples(cents, cents, cents), has_next=st.booleans())
    def begin_a_season(self, ceilings: tuple[Decimal, ...], has_next: bool) -> None:
        for work, ceiling in enumerate(ceilings):
            self._plan(0, work, ceiling, has_next)

    @rule(data=st.data(), who=processes)
    def step(self, data: st.DataObject, who: int) -> None:
        """One of the steps that change something now, the ones that matter most more often."""
        sending = sum(one.sent is not None for one in self.workers)
        weights = {
            "plan": 2,
            "set_limit": 1,
            "cancel": 1 if self.books.jobs else 0,
            "move": 1 if self.books.jobs else 0,
            "send": 5 if sending < 2 and any(self._is_free(key) for key in self.books.jobs) else 0,
            "take_over": 2 if sending == 1 else 0,
            "answer": 6 if sending else 0,
            "look": 1 if self._has(JobState.SUBMITTED) else 0,
            "finish": 2 if self._has(*IN_FLIGHT) else 0,
            "decide": 3 if self._has(JobState.SUBMISSION_UNKNOWN) else 0,
        }
        match data.draw(st.sampled_from([name for name, weight in weights.items() for _ in range(weight)])):
            case "plan":
                self._plan(who, data.draw(st.integers(0, 3)), data.draw(cents), data.draw(st.booleans()))
            case "set_limit":
                self._set_limit(data.draw(st.integers(2, 20)), data.draw(st.booleans()))
            case "cancel":
                self._cancel(who, data)
            case "move":
                self._move(who, data)
            case "send":
                self._send(who, data, data.draw(rarely))
            case "take_over":
                self._take_over(data.draw(rarely))
            case "answer":
                self._answer(who, data.draw(words), data.draw(rarely))
            case "look":
                self._look(who, data)
            case "finish":
                self._finish(who, data, data.draw(cents), data.draw(st.booleans()), data.draw(st.booleans()))
            case "decide":
                self._decide(who, data, data.draw(st.sampled_from(list(Choice))))

    def _plan(self, who: int, work: int, ceiling: Decimal, has_next: bool) -> None:
        ports = self.workers[who].ports
        fields = {"character_id": self.mei_id} if work % 2 else {}
        following = order_in(ports, self.season_id, request=request_at("second", f"work {work}"), usd="1.50", **fields)
        order = order_in(
            ports,
            self.season_id,
            request=request_at("first", f"work {work}"),
            usd=str(ceiling),
            fallbacks=(following,) if has_next else (),
            **fields,
        )
        now = self.books.current(order.work_key)
        job = self.books.jobs[now] if now is not None else None
        if job is None:
            expected = self.books.reserve(order, 1)
        elif job.state is JobState.CANCELLED or (
            job.state in (JobState.FAILED, JobState.EXPIRED)
            and not job.is_refused
            and self.books.failures(job.order.work_key) < MAX_ATTEMPTS
        ):
            expected = self.books.reserve(order if job.order.work_key == order.work_key else job.order, job.attempt + 1)
        else:
            expected = now
        try:
            assert plan_job(ports, order, max_attempts=MAX_ATTEMPTS) == expected
        except OverBudget:
            assert expected is None

    def _has(self, *states: JobState) -> bool:
        return any(job.state in states for job in self.books.jobs.values())

    def _send(self, who: int, data: st.DataObject, is_shy: bool) -> None:
        """A process sends a planned job, or takes one over whose process died or whose answer was lost."""
        worker = self.workers[who] if self.workers[who].sent is None else self.workers[1 - who]
        key = data.draw(st.sampled_from([key for key in self.books.jobs if self._is_free(key)]))
        self._begin(worker, key, is_shy)

    def _take_over(self, is_shy: bool) -> None:
        """A process believes the other one dead, whose lock is gone but whose POST is still under way."""
        busy, idle = sorted(self.workers, key=lambda one: one.sent is None)
        assert busy.sent is not None
        if self.books.jobs[busy.sent.job_key].state is not JobState.SUBMITTING:
            return
        self._cut(busy.sent.job_key)
        self._begin(idle, busy.sent.job_key, is_shy)

    def _is_free(self, key: str) -> bool:
        return self.books.jobs[key].state in SENDABLE and self._in_post(key) is None

    def _begin(self, worker: Process, key: str, is_shy: bool) -> None:
        self.world.is_shy = is_shy
        job = self.books.jobs[key]
        expected = self.books.sends(job) if job.state is JobState.PLANNED else self.books.lost(key)
        self._check(worker.begin(key), expected)

    def _cut(self, key: str) -> None:
        """The connection that holds the right to submit goes, while its owner is in the middle of its POST."""
        self.eye.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_locks
               WHERE locktype = 'advisory' AND ((classid::bigint << 32) | objid::bigint) = %s""",
            (lock_number(key),),
        )

    def _answer(self, who: int, word: str, is_shy: bool) -> None:
        self.world.is_shy = is_shy
        worker = self.workers[who] if self.workers[who].sent else self.workers[1 - who]
        sent = worker.sent
        assert sent is not None
        key, job = sent.job_key, self.books.jobs[sent.job_key]
        is_ours = job.posts == sent.number
        if (key, sent.number) in self.world.too_late or not is_ours or job.state is not JobState.SUBMITTING:
            if (key, sent.number) in self.world.too_late and word.endswith(("accept", "taken")):
                word = "lost"
            if word != "accept":
                self._late_word(worker, sent, word)
                return
        expected: type[BaseException] | None = None
        match word:
            case "accept":
                job.state = JobState.SUBMITTED
            case "refuse":
                expected = self.books.sends(job)
            case "reject":
                job.is_refused, expected = True, Rejected
                self.books.settle(job, JobState.FAILED, FREE)
            case "lost":
                expected = self.books.lost(key)
            case "lost and taken":
                self.world.take(sent)
                expected = self.books.lost(key)
                self.world.taken[key].remove(sent.number)
            case "killed" | "killed and taken":
                expected = Killed
        self._check(worker.answer(word), expected)

    def _late_word(self, worker: Process, sent: Submission, word: str) -> None:
        """What comes after another process took the POST for lost, and then the death of the one it came to."""
        key, ledger, job = sent.job_key, worker.ports.ledger, self.books.jobs[sent.job_key]
        is_theirs = job.posts == sent.number and job.state is JobState.SUBMISSION_UNKNOWN
        if word == "refuse":
            ledger.postpone(key, worker.ports.clock.now(), "429", post=sent.number)
        elif word == "reject":
            cost = job_cost(ledger.get(key), FREE, "refused")
            ledger.refuse(key, "Rejected", "422", cost, post=sent.number)
        else:
            ledger.lose(key, "reset", post=sent.number)
        if is_theirs and word in ("refuse", "reject"):
            job.state = JobState.PLANNED
            job.resends += 1
        self._check(worker.answer("killed"), Killed)

    def _look(self, who: int, data: st.DataObject) -> None:
        if key := self._pick(data, *IN_FLIGHT):
            is_running = data.draw(st.booleans())
            self.workers[who].ports.ledger.beat(key, is_running=is_running, progress=None, waited_seconds=1)
            if is_running:
                self.books.jobs[key].state = JobState.RUNNING

    def _finish(self, who: int, data: st.DataObject, billed: Decimal, is_good: bool, is_charged: bool) -> None:
        """Settled by one process, and once more by the other, whose word then counts for nothing."""
        key = self._pick(data, *IN_FLIGHT)
        if key is None:
            return
        first, second = self.workers[who].ports.ledger, self.workers[1 - who].ports.ledger
        charged = billed if is_good or is_charged else FREE
        job = first.get(key)
        if is_good:
            first.succeed(key, (), 7, job_cost(job, charged, "a shot"))
        else:
            first.end(key, JobState.FAILED, "JobFailed", "it fell over", job_cost(job, charged, "failed"))
        second.end(key, JobState.EXPIRED, "ResultExpired", "gone", job_cost(job, billed * 2, "late"))
        self.books.settle(self.books.jobs[key], JobState.SUCCEEDED if is_good else JobState.FAILED, charged)

    def _cancel(self, who: int, data: st.DataObject) -> None:
        key = self._pick(data, *JobState)
        assert key is not None
        job = self.books.jobs[key]
        assert self.workers[who].ports.ledger.cancel_planned(key, "no longer wanted") is (job.state is JobState.PLANNED)
        if job.state is JobState.PLANNED:
            self.books.settle(job, JobState.CANCELLED, FREE)

    def _decide(self, who: int, data: st.DataObject, choice: Choice) -> None:
        """A person, who has looked at the vendor's own page and says what is true."""
        key = self._pick(data, JobState.SUBMISSION_UNKNOWN)
        if key is None or self._in_post(key):
            return
        job, ports = self.books.jobs[key], self.workers[who].ports
        is_there = job.posts in self.world.taken.get(key, [])
        if choice is Choice.ABANDON:
            resolve(ports, key, choice)
            self.books.settle(job, JobState.CANCELLED, job.order.estimate_usd)
        elif is_there:
            resolve(ports, key, Choice.ADOPT, f"{key}-{job.posts}")
            job.state = JobState.SUBMITTED
        else:
            resolve(ports, key, Choice.RESUBMIT)
            job.state = JobState.PLANNED
            job.resends += 1

    def _move(self, who: int, data: st.DataObject) -> None:
        key = self._pick(data, *JobState)
        assert key is not None
        job, ports = self.books.jobs[key], self.workers[who].ports
        if job.state is not JobState.PLANNED or not job.order.fallbacks:
            assert move_to_next_vendor(ports, key) == job.moved_to
            if job.order.fallbacks:  # it was planned when another process looked
                moved = ports.ledger.move(key, job.order.fallbacks[0], 1, "down")
                assert (moved.key if moved else None) == job.moved_to
            return
        known = self.books.latest(job.order.fallbacks[0].work_key)
        self.books.settle(job, JobState.CANCELLED, FREE)
        attempt = self.books.jobs[known].attempt if known else 1
        new_key = known or self.books.reserve(job.order.fallbacks[0], attempt)
        if new_key is None:
            job.state, job.billed = JobState.PLANNED, None
            for bill in job.bills:
                bill.reserved += job.order.ceiling_usd
            with pytest.raises(OverBudget):
                move_to_next_vendor(ports, key)
            return
        job.moved_to = new_key
        assert move_to_next_vendor(ports, key) == new_key

    def _set_limit(self, limit: int, is_mei: bool) -> None:
        bill = self.books.mei if is_mei else self.books.season
        bill.limit = Decimal(limit)
        bill.overrun = max(bill.spent - bill.limit, FREE)
        if is_mei:
            self.shared.budgets.set_character(self.mei_id, limit_usd=bill.limit)
        else:
            self.shared.budgets.set_season(self.season_id, limit_usd=bill.limit)

    # --- what must hold after every step ---

    @invariant()
    def the_tables_say_what_the_model_says(self) -> None:
        rows = self.eye.execute(
            "SELECT key, state, billed_usd, post_count, moved_to FROM provider_jobs WHERE season_id = %s",
            (self.season_id,),
        ).fetchall()
        assert {row[0]: row[1:] for row in rows} == {
            key: (job.state, job.billed, job.posts, job.moved_to) for key, job in self.books.jobs.items()
        }

    @invariant()
    def the_budgets_hold_what_is_open_and_what_was_billed(self) -> None:
        for bill, where, of in (
            (self.books.season, "season_id", self.season_id),
            (self.books.mei, "character_id", self.mei_id),
        ):
            row = self.eye.execute(
                f"SELECT limit_usd, reserved_usd, spent_usd, overrun_usd FROM budgets WHERE {where} = %s".encode(),
                (of,),
            ).fetchone()
            assert row == (bill.limit, bill.reserved, bill.spent, bill.overrun)
            mine = [job for job in self.books.jobs.values() if bill in job.bills]
            assert bill.reserved == sum(job.order.ceiling_usd for job in mine if job.state not in ENDS)
            assert bill.spent == sum((job.billed or FREE for job in mine), FREE)
        held, spent = self.books.season.reserved, self.books.season.spent
        assert held <= self.held_before or held + spent <= self.books.season.limit, "reserved past the limit"
        self.held_before = held

    @invariant()
    def the_costs_are_what_was_spent(self) -> None:
        row = self.eye.execute(
            "SELECT coalesce(sum(amount), 0) FROM job_costs WHERE season_id = %s", (self.season_id,)
        ).fetchone()
        assert row == (self.books.season.spent,)

    @invariant()
    def nothing_is_bought_twice(self) -> None:
        assert all(len(numbers) <= 1 for numbers in self.world.taken.values()), self.world.taken
        assert dict(self.world.posts) == {key: job.posts for key, job in self.books.jobs.items() if job.posts}

    @invariant()
    def every_move_was_legal_and_is_written_down(self) -> None:
        rows = self.eye.execute(
            """SELECT job_key, from_state, to_state FROM provider_job_events JOIN provider_jobs ON key = job_key
               WHERE season_id = %s ORDER BY id""",
            (self.season_id,),
        ).fetchall()
        at: dict[str, str] = {}
        for key, was, to in rows:
            assert at.get(key) == was
            assert was is None or JobState(to) in LEGAL_EDGES[JobState(was)]
            at[key] = to
        assert at == {key: job.state for key, job in self.books.jobs.items()}

    def teardown(self) -> None:
        for worker in self.workers:
            while worker.sent is not None:
                worker.answer("killed")


@pytest.fixture(scope="module")
def machine(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[LedgerMachine]]:
    with new_database(server_url) as url, psycopg.connect(url, autocommit=True) as eye:
        clock = HandClock()
        shared = PortsForTests(settings_for_tests(tmp_path_factory.mktemp("home"), url), {}, clock)
        shared.database  # noqa: B018 (its tables are made before anybody looks)
        eye.execute("SET search_path TO onmodel")
        workers = (Process(shared, clock), Process(shared, clock))

        class Machine(LedgerMachine):
            pass

        Machine.shared, Machine.workers, Machine.eye = shared, workers, eye
        yield Machine
        for worker in workers:
            worker.ports.close()
        shared.close()


def test_whatever_two_processes_do_the_tables_agree_with_the_model(machine: type[LedgerMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
