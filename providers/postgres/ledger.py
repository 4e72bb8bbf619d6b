"""The ledger in SQL: jobs and every legal move of them. Every method is one transaction.

The rules are in `tasks/jobs.py`; what must never happen (an illegal move, a budget passed, a cost charged
twice) is refused here by the database itself. Money is in `budgets.py`, the cost log in `costs.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import Connection, OperationalError
from psycopg.types.json import Jsonb

from domain.costs import CostEntry
from domain.errors import BadInput, Unavailable
from domain.jobs import LEGAL_EDGES, JobOrder, JobState, KeptFile, ProviderJob, VendorJobIds
from domain.retries import LONGEST_ASKED_SECONDS
from domain.submissions import Submission
from providers.postgres.budgets import refuse_where_passed, release, reserve, settle
from providers.postgres.costs import write_cost
from providers.postgres.job_reading import JobReading
from providers.postgres.job_rows import job_state, write_event


class SubmitterHold:
    """The right to submit a job, held by a connection of its own: it goes when the connection does."""

    def __init__(self, db: Connection[Any], key: str, *, is_ours: bool) -> None:
        self._db, self._key, self.is_ours = db, key, is_ours

    def still_submitting(self) -> bool:
        """As `ports.SubmitterHold`."""
        try:
            row = self._db.execute("SELECT state FROM provider_jobs WHERE key = %s", (self._key,)).fetchone()
        except OperationalError as error:
            raise Unavailable("The connection that holds the right to submit was lost: run this again.") from error
        return self.is_ours and row is not None and row[0] == JobState.SUBMITTING


class Ledger(JobReading):
    """`provider_jobs`, their events and their costs."""

    # --- (a) the row and its reservation, in one transaction ---

    def plan(self, order: JobOrder, attempt: int) -> ProviderJob:
        """Write the row and reserve its ceiling; the existing row when the key is already there.

        `OverBudget` or `AsksForBudget` when the ceiling does not fit: then nothing is written.
        """
        with self._database.transaction() as db:
            _plan_in(db, order, attempt)
        return self.get(order.job_key(attempt))

    def move(self, key: str, order: JobOrder, attempt: int, why: str) -> ProviderJob | None:
        """Give work that its vendor definitely does not have to another vendor, as a new job: both or neither.

        The old job ends as cancelled and names the new one. Safe to repeat: a job moves once, and where another process
        was faster its choice is returned. None when the job is not planned any more, so that its vendor may have it.
        """
        with self._database.transaction() as db:
            if job_state(db, key) is JobState.PLANNED:
                _cancel_in(db, key, f"moved to {order.request.vendor}: {why}")
                _plan_in(db, order, attempt)
                db.execute("UPDATE provider_jobs SET moved_to = %s WHERE key = %s", (order.job_key(attempt), key))
        new_key = self.get(key).moved_to
        return self.get(new_key) if new_key is not None else None

    def cancel_planned(self, key: str, why: str) -> bool:
        """End a job that was never sent and release its reservation; False when it is not planned (any more)."""
        with self._database.transaction() as db:
            if job_state(db, key) is not JobState.PLANNED:
                return False
            _cancel_in(db, key, why)
        return True

    # --- (b) … (e) moving along the legal edges ---

    def claim(self, key: str, now: datetime, url_of: dict[str, str]) -> Submission | None:
        """Mark a planned job as being submitted by us; None when somebody else has it or its time has not come.

        `now` is the caller's clock, the same that set the time: two machines' clocks are never compared.
        `OverBudget` or `AsksForBudget` when a budget it falls under is passed meanwhile; it stays planned.
        """
        with self._database.transaction() as db:
            row = db.execute(
                """UPDATE provider_jobs SET state = 'submitting', heartbeat_at = now(), submitting_at = %(now)s,
                       post_count = post_count + 1, sent_urls = %(urls)s
                   WHERE key = %(key)s AND state = 'planned'
                     AND (not_before IS NULL OR not_before <= %(now)s OR not_before > %(absurd)s)
                   RETURNING post_count, (SELECT mark FROM installation)""",
                {
                    "key": key,
                    "now": now,
                    "urls": Jsonb(url_of),
                    "absurd": now + timedelta(seconds=2 * LONGEST_ASKED_SECONDS),
                },
            ).fetchone()
            if row is None:
                return None
            refuse_where_passed(db, key)
            write_event(db, key, JobState.PLANNED, JobState.SUBMITTING, f"POST {row[0]}")
        return Submission(installation=row[1], job_key=key, number=row[0], sent_at=now, url_of=url_of)

    def note_flow_run(self, key: str, flow_run_id: str, root_flow_run_id: str) -> None:
        """Which Prefect run is at work on it, for people who look and for cancelling; nothing else goes by it."""
        self._do(
            "UPDATE provider_jobs SET flow_run_id = %s, root_flow_run_id = %s WHERE key = %s",
            (flow_run_id, root_flow_run_id, key),
        )

    def submitted(self, key: str, ids: VendorJobIds, how: str = "") -> None:
        """The vendor has it: its ids are committed before anything else happens. Safe to repeat.

        Nothing changes where another process has adopted the job under the same id meanwhile.
        """
        with self._database.transaction() as db:
            _submitted_in(db, key, ids, how or f"request {ids.request_id}")

    def adopt(self, key: str, ids: VendorJobIds, how: str) -> None:
        """A job whose answer was lost turns out to exist; `BadInput` when another job of ours has that id."""
        with self._database.transaction() as db:
            # Two lost jobs that look the same may be found as one at the same time: only one of them may have it.
            db.execute("SELECT pg_advisory_xact_lock(%s)", (lock_number(f"adopt:{ids.request_id}"),))
            other = db.execute(
                """SELECT other.key FROM provider_jobs AS other JOIN provider_jobs AS ours ON ours.key = %s
                   WHERE other.vendor = ours.vendor AND other.request_id = %s AND other.key <> ours.key""",
                (key, ids.request_id),
            ).fetchone()
            if other is not None:
                raise BadInput(f"The request {ids.request_id} belongs to our job {other[0]}: give another id.")
            _submitted_in(db, key, ids, how)

    def postpone(self, key: str, not_before: datetime, why: str, *, post: int | None = None) -> None:
        """A definite refusal for now: back to planned, to be claimed again after `not_before`.

        `post` is the POST that was refused: nothing happens to a row that another process has sent again meanwhile.
        """
        with self._database.transaction() as db:
            if _is_at_post(db, key, post):
                _move_in(db, key, JobState.PLANNED, why, "not_before = %(not_before)s", {"not_before": not_before})

    def refuse(self, key: str, error_class: str, message: str, entry: CostEntry, *, post: int) -> None:
        """The vendor's final no to this POST: the job has failed.

        Where another process took the POST for lost meanwhile, its no proves that nothing exists: back to planned.
        """
        with self._database.transaction() as db:
            if not _is_at_post(db, key, post):
                return
            match job_state(db, key):
                case JobState.SUBMITTING:
                    _end_in(db, key, JobState.FAILED, entry, *_error(error_class, message), message)
                case JobState.SUBMISSION_UNKNOWN:
                    _move_in(db, key, JobState.PLANNED, message, "", {})

    def lose(self, key: str, why: str, *, post: int | None = None) -> None:
        """The answer to the submit is lost: the row keeps its reservation and is looked up.

        Nothing happens to a row that is no longer being submitted, or not with this `post`: its answer came after all.
        """
        with self._database.transaction() as db:
            if job_state(db, key) is JobState.SUBMITTING and _is_at_post(db, key, post):
                _move_in(db, key, JobState.SUBMISSION_UNKNOWN, why, *_error("SubmissionUnknown", why))

    def note_look_up(self, key: str) -> None:
        """A lost job was looked up and not found: somebody is watching it."""
        self._do("UPDATE provider_jobs SET heartbeat_at = now() WHERE key = %s", (key,))

    def plan_again(self, key: str, why: str) -> bool:
        """A lost job that does not exist may be sent again; its reservation stands. False when it is not lost."""
        with self._database.transaction() as db:
            if job_state(db, key) is not JobState.SUBMISSION_UNKNOWN:
                return False
            _move_in(
                db,
                key,
                JobState.PLANNED,
                why,
                "not_before = NULL, error_class = NULL, error_message = NULL, sent_urls = '{}'",
                {},
            )
        return True

    def beat(self, key: str, *, is_running: bool, progress: float | None, waited_seconds: float) -> None:
        """Note a look at the job and the seconds waited before it; the first that sees it run moves it to running.

        What adds up is time really waited: a clock that jumps or a machine that sleeps adds nothing.
        """
        with self._database.transaction() as db:
            db.execute(
                """UPDATE provider_jobs SET progress = coalesce(%s, progress), waited_seconds = waited_seconds + %s,
                       heartbeat_at = now() WHERE key = %s""",
                (progress, waited_seconds, key),
            )
            if (
                is_running
                and db.execute(
                    "UPDATE provider_jobs SET state = 'running' WHERE key = %s AND state = 'submitted'", (key,)
                ).rowcount
            ):
                write_event(db, key, JobState.SUBMITTED, JobState.RUNNING, "")

    def decide(self, key: str, error_class: str, why: str) -> None:
        """What a person says of a job that ended without a result: kept as an event, and as its error from now on."""
        with self._database.transaction() as db:
            state = job_state(db, key)
            assert not LEGAL_EDGES[state], f"job {key} is {state}: there is nothing to decide about it"
            db.execute("UPDATE provider_jobs SET error_class = %s WHERE key = %s", (error_class, key))
            write_event(db, key, state, state, why)

    def note_cancel(self, key: str) -> None:
        """The vendor was asked to stop it."""
        self._do(
            "UPDATE provider_jobs SET cancel_requested_at = coalesce(cancel_requested_at, now()) WHERE key = %s", (key,)
        )

    # --- (f), (g) the end: kept, settled, and only then over ---

    def keep(
        self, key: str, files: tuple[KeptFile, ...], seed: int | None, billed_usd: Decimal, *, text: str | None = None
    ) -> None:
        """What a finished job made is in our store: noted before it is settled. Safe to repeat.

        Should we die in between and the vendor forget the job, its result is still known and not bought again.
        """
        self._do(
            """UPDATE provider_jobs SET result = %s, billed_usd = %s
               WHERE key = %s AND state IN ('submitted', 'running')""",
            (_result(files, seed, text), billed_usd, key),
        )

    def succeed(
        self, key: str, files: tuple[KeptFile, ...], seed: int | None, entry: CostEntry, *, text: str | None = None
    ) -> None:
        """File stored and checked: settle at what was billed, release the rest, and the job has succeeded."""
        self._end(key, JobState.SUCCEEDED, entry, "result = %(result)s", {"result": _result(files, seed, text)}, "")

    def end(self, key: str, state: JobState, error_class: str, message: str, entry: CostEntry) -> None:
        """Failed, cancelled or expired: settle at what the vendor charges for that (often nothing)."""
        self._end(key, state, entry, *_error(error_class, message), message)

    def _end(
        self, key: str, state: JobState, entry: CostEntry, assignments: str, values: dict[str, Any], detail: str
    ) -> None:
        with self._database.transaction() as db:
            if not LEGAL_EDGES[job_state(db, key)]:
                return  # over already: another process that polled it was faster
            _end_in(db, key, state, entry, assignments, values, detail)

    # --- who is submitting ---

    @contextmanager
    def submitter(self, key: str) -> Iterator[SubmitterHold]:
        """Hold the right to submit this job as long as our connection lives; `is_ours` False when another has it."""
        with self._database.dedicated() as db:
            row = db.execute("SELECT pg_try_advisory_lock(%s)", (lock_number(key),)).fetchone()
            assert row is not None
            try:
                yield SubmitterHold(db, key, is_ours=bool(row[0]))
            finally:
                if row[0]:
                    # Where the connection is gone, so is its lock; what happened meanwhile must not be hidden by that.
                    with suppress(OperationalError):
                        db.execute("SELECT pg_advisory_unlock(%s)", (lock_number(key),))


def _plan_in(db: Connection[Any], order: JobOrder, attempt: int) -> None:
    key = order.job_key(attempt)
    inserted = db.execute(
        """INSERT INTO provider_jobs (key, work_key, attempt, season_id, slot_number, character_id, stage,
               operation, api_name, model_key, vendor, endpoint, request, estimate_usd, ceiling_usd,
               is_simulated, fallbacks)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (key) DO NOTHING""",
        (
            key,
            order.work_key,
            attempt,
            order.season_id,
            order.slot_number,
            order.character_id,
            order.stage,
            order.operation,
            order.api_name,
            order.model_key,
            order.request.vendor,
            order.request.endpoint,
            Jsonb(order.request.arguments),
            order.estimate_usd,
            order.ceiling_usd,
            order.is_simulated,
            Jsonb([fallback.model_dump(mode="json") for fallback in order.fallbacks]),
        ),
    ).rowcount
    if inserted:
        write_event(db, key, None, JobState.PLANNED, f"attempt {attempt}, up to {order.ceiling_usd} USD")
        reserve(db, order, key)


def _cancel_in(db: Connection[Any], key: str, why: str) -> None:
    """End a planned job: nothing was sent, so there is nothing to log as a cost."""
    _move_in(db, key, JobState.CANCELLED, why, "finished_at = now(), billed_usd = 0", {})
    release(db, key)


def _end_in(
    db: Connection[Any],
    key: str,
    state: JobState,
    entry: CostEntry,
    assignments: str,
    values: dict[str, Any],
    detail: str,
) -> None:
    moved = _move_in(
        db,
        key,
        state,
        detail,
        assignments + ", billed_usd = %(billed)s, finished_at = now(), heartbeat_at = now()",
        {**values, "billed": entry.amount_usd},
    )
    if moved:
        settle(db, key, state, entry)
        write_cost(db, entry, job_key=key)


def _move_in(
    db: Connection[Any], key: str, to: JobState, detail: str, assignments: str, values: dict[str, Any]
) -> bool:
    was = job_state(db, key)
    if was is to:
        return False
    assert to in LEGAL_EDGES[was], f"job {key} cannot go from {was} to {to}"
    sets = "state = %(to)s" + (", " + assignments if assignments else "")
    db.execute(f"UPDATE provider_jobs SET {sets} WHERE key = %(key)s", {**values, "to": to, "key": key})
    write_event(db, key, was, to, detail)
    return True


def _submitted_in(db: Connection[Any], key: str, ids: VendorJobIds, how: str) -> None:
    if job_state(db, key) is not JobState.SUBMITTING and _has_request(db, key, ids.request_id):
        return
    _move_in(
        db,
        key,
        JobState.SUBMITTED,
        how,
        """request_id = %(request_id)s, status_url = %(status_url)s, response_url = %(response_url)s,
           cancel_url = %(cancel_url)s, submitted_at = now(), heartbeat_at = now(), error_class = NULL,
           error_message = NULL""",
        ids.model_dump(),
    )


def _is_at_post(db: Connection[Any], key: str, post: int | None) -> bool:
    row = db.execute("SELECT post_count FROM provider_jobs WHERE key = %s FOR UPDATE", (key,)).fetchone()
    return row is not None and (post is None or row[0] == post)


def _has_request(db: Connection[Any], key: str, request_id: str) -> bool:
    row = db.execute("SELECT request_id FROM provider_jobs WHERE key = %s", (key,)).fetchone()
    return row is not None and row[0] == request_id


def _result(files: tuple[KeptFile, ...], seed: int | None, text: str | None) -> Jsonb:
    return Jsonb({"files": [file.model_dump() for file in files], "seed": seed, "text": text})


def _error(error_class: str, message: str) -> tuple[str, dict[str, Any]]:
    return (
        "error_class = %(error_class)s, error_message = %(error_message)s",
        {"error_class": error_class, "error_message": message},
    )


def lock_number(name: str) -> int:
    """The advisory lock of a job's key, or of another name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
