"""The ledger in SQL: jobs, their events, reservations and costs. Every method is one transaction.

The rules are in `tasks/jobs.py`; what must never happen (an illegal move, a budget passed, a cost charged
twice) is refused here by the database itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import Connection, OperationalError
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from domain.costs import CostEntry
from domain.errors import OverBudget
from domain.jobs import LEGAL_EDGES, JobOrder, JobState, KeptFile, ProviderJob, VendorJobIds, VendorRequest
from providers.postgres.rows import Table

_COLUMNS = """key, work_key, attempt, season_id, slot_number, character_id, stage, operation, api_name, model_key,
    vendor, endpoint, request, state, not_before, request_id, status_url, response_url, cancel_url, result,
    error_class, error_message, estimate_usd, ceiling_usd, billed_usd, is_simulated, submitted_at"""


class Ledger(Table):
    """`provider_jobs` and everything about money."""

    # --- reading ---

    def get(self, key: str) -> ProviderJob:
        """The job of this key; `KeyError` when there is none (our bug, keys are made by the door)."""
        row = self._one(f"SELECT {_COLUMNS} FROM provider_jobs WHERE key = %s", (key,))
        if row is None:
            raise KeyError(key)
        return _job(row)

    def latest(self, work_key: str) -> ProviderJob | None:
        """The newest attempt at this work."""
        row = self._one(
            f"SELECT {_COLUMNS} FROM provider_jobs WHERE work_key = %s ORDER BY attempt DESC LIMIT 1",
            (work_key,),
        )
        return _job(row) if row else None

    def open_jobs(self, season_id: int) -> list[ProviderJob]:
        """Jobs of a season that are not over."""
        return [
            _job(row)
            for row in self._all(
                f"SELECT {_COLUMNS} FROM provider_jobs WHERE season_id = %s "
                "AND state NOT IN ('succeeded', 'failed', 'cancelled', 'expired') ORDER BY created_at",
                (season_id,),
            )
        ]

    # --- (a) the row and its reservation, in one transaction ---

    def plan(self, order: JobOrder, attempt: int) -> ProviderJob:
        """Write the row and reserve its ceiling; the existing row when the key is already there.

        `OverBudget` when the ceiling does not fit: then nothing is written.
        """
        key = order.job_key(attempt)
        with self._database.transaction() as db:
            inserted = db.execute(
                """INSERT INTO provider_jobs (key, work_key, attempt, season_id, slot_number, character_id, stage,
                       operation, api_name, model_key, vendor, endpoint, request, estimate_usd, ceiling_usd,
                       is_simulated)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
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
                ),
            ).rowcount
            if inserted:
                _event(db, key, None, JobState.PLANNED, f"attempt {attempt}, up to {order.ceiling_usd} USD")
                self._reserve(db, order, key)
        return self.get(key)

    def _reserve(self, db: Connection[Any], order: JobOrder, key: str) -> None:
        budgets = (
            db.cursor(row_factory=dict_row)
            .execute(
                """SELECT id, limit_usd, reserved_usd, spent_usd FROM budgets
                   WHERE season_id = %s ORDER BY id FOR UPDATE""",
                (order.season_id,),
            )
            .fetchall()
        )
        assert budgets, f"season {order.season_id} has no budget"
        for budget in budgets:
            committed = budget["reserved_usd"] + budget["spent_usd"]
            if committed + order.ceiling_usd > budget["limit_usd"]:
                raise OverBudget(
                    f"{order.api_name} for {_whom(order)} may cost up to {order.ceiling_usd} USD, but only "
                    f"{budget['limit_usd'] - committed} of the season's {budget['limit_usd']} USD are free: raise "
                    f"budget_usd in the manifest and run again; nothing was submitted."
                )
            db.execute(
                "INSERT INTO reservations (budget_id, job_key, amount_usd) VALUES (%s, %s, %s)",
                (budget["id"], key, order.ceiling_usd),
            )
            db.execute(
                "UPDATE budgets SET reserved_usd = reserved_usd + %s WHERE id = %s", (order.ceiling_usd, budget["id"])
            )

    # --- (b) … (e) moving along the legal edges ---

    def claim(self, key: str, now: datetime) -> bool:
        """Mark a planned job as being submitted by us; False when somebody else has it or its time has not come.

        `now` is the caller's clock, the same that set the time: two machines' clocks are never compared.
        """
        with self._database.transaction() as db:
            claimed = db.execute(
                """UPDATE provider_jobs SET state = 'submitting', heartbeat_at = now()
                   WHERE key = %s AND state = 'planned' AND (not_before IS NULL OR not_before <= %s)""",
                (key, now),
            ).rowcount
            if claimed:
                _event(db, key, JobState.PLANNED, JobState.SUBMITTING, "")
        return bool(claimed)

    def note_flow_run(self, key: str, flow_run_id: str) -> None:
        """Which Prefect run is at work on it, for people who look; nothing is decided by it."""
        self._do("UPDATE provider_jobs SET flow_run_id = %s WHERE key = %s", (flow_run_id, key))

    def submitted(self, key: str, ids: VendorJobIds) -> None:
        """The vendor has it: its ids are committed before anything else happens."""
        self._move(
            key,
            JobState.SUBMITTED,
            f"request {ids.request_id}",
            """request_id = %(request_id)s, status_url = %(status_url)s, response_url = %(response_url)s,
               cancel_url = %(cancel_url)s, submitted_at = now(), heartbeat_at = now()""",
            ids.model_dump(),
        )

    def postpone(self, key: str, not_before: datetime, why: str) -> None:
        """A definite refusal for now: back to planned, to be claimed again after `not_before`."""
        self._move(key, JobState.PLANNED, why, "not_before = %(not_before)s", {"not_before": not_before})

    def lose(self, key: str, why: str) -> None:
        """The answer to the submit is lost: the row keeps its reservation and waits for a person.

        Nothing happens to a row that is no longer being submitted: its answer came after all.
        """
        assignments, values = _error("SubmissionUnknown", why)
        with self._database.transaction() as db:
            if _state(db, key) is JobState.SUBMITTING:
                self._move_in(db, key, JobState.SUBMISSION_UNKNOWN, why, assignments, values)

    def beat(self, key: str, *, is_running: bool, progress: float | None) -> None:
        """Note a look at the job; the first that sees it run moves it to running."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE provider_jobs SET heartbeat_at = now(), progress = coalesce(%s, progress) WHERE key = %s",
                (progress, key),
            )
            if (
                is_running
                and db.execute(
                    "UPDATE provider_jobs SET state = 'running' WHERE key = %s AND state = 'submitted'", (key,)
                ).rowcount
            ):
                _event(db, key, JobState.SUBMITTED, JobState.RUNNING, "")

    # --- (f), (g) the end: kept, settled, and only then over ---

    def succeed(
        self, key: str, files: tuple[KeptFile, ...], seed: int | None, entry: CostEntry, *, text: str | None = None
    ) -> None:
        """File stored and checked: settle at what was billed, release the rest, and the job has succeeded."""
        result = {"files": [file.model_dump() for file in files], "seed": seed, "text": text}
        self._end(key, JobState.SUCCEEDED, entry, "result = %(result)s", {"result": Jsonb(result)}, "")

    def end(self, key: str, state: JobState, error_class: str, message: str, entry: CostEntry) -> None:
        """Failed, cancelled or expired: settle at what the vendor charges for that (often nothing)."""
        self._end(key, state, entry, *_error(error_class, message), message)

    def _end(
        self, key: str, state: JobState, entry: CostEntry, assignments: str, values: dict[str, Any], detail: str
    ) -> None:
        with self._database.transaction() as db:
            moved = self._move_in(
                db,
                key,
                state,
                detail,
                assignments + ", billed_usd = %(billed)s, finished_at = now(), heartbeat_at = now()",
                {**values, "billed": entry.amount_usd},
            )
            if not moved:
                return
            released = db.execute(
                "UPDATE reservations SET released_at = now() WHERE job_key = %s AND released_at IS NULL "
                "RETURNING budget_id, amount_usd",
                (key,),
            ).fetchall()
            for budget_id, amount_usd in sorted(released):
                db.execute(
                    "UPDATE budgets SET reserved_usd = reserved_usd - %s, spent_usd = spent_usd + %s WHERE id = %s",
                    (amount_usd, entry.amount_usd, budget_id),
                )
            _write_cost(db, entry, job_key=key)

    def _move(
        self, key: str, to: JobState, detail: str, assignments: str = "", values: dict[str, Any] | None = None
    ) -> None:
        with self._database.transaction() as db:
            self._move_in(db, key, to, detail, assignments, values or {})

    def _move_in(
        self, db: Connection[Any], key: str, to: JobState, detail: str, assignments: str, values: dict[str, Any]
    ) -> bool:
        was = _state(db, key)
        if was is to:
            return False
        assert to in LEGAL_EDGES[was], f"job {key} cannot go from {was} to {to}"
        sets = "state = %(to)s" + (", " + assignments if assignments else "")
        db.execute(f"UPDATE provider_jobs SET {sets} WHERE key = %(key)s", {**values, "to": to, "key": key})
        _event(db, key, was, to, detail)
        return True

    # --- who is submitting ---

    @contextmanager
    def submitter(self, key: str) -> Iterator[bool]:
        """Hold the right to submit this job as long as our connection lives; False when another process has it."""
        with self._database.dedicated() as db:
            row = db.execute("SELECT pg_try_advisory_lock(%s)", (_lock_number(key),)).fetchone()
            assert row is not None
            try:
                yield bool(row[0])
            finally:
                if row[0]:
                    # Where the connection is gone, so is its lock; what happened meanwhile must not be hidden by that.
                    with suppress(OperationalError):
                        db.execute("SELECT pg_advisory_unlock(%s)", (_lock_number(key),))

    # --- uploads and costs ---

    def uploaded_url(self, vendor: str, sha256: str, not_older_than: datetime) -> str | None:
        """Where the vendor already has these bytes, if we put them there recently."""
        row = self._one(
            "SELECT url FROM vendor_files WHERE vendor = %s AND sha256 = %s AND uploaded_at >= %s",
            (vendor, sha256, not_older_than),
        )
        return str(row["url"]) if row else None

    def keep_uploaded_url(self, vendor: str, sha256: str, url: str) -> None:
        with self._database.transaction() as db:
            db.execute(
                """INSERT INTO vendor_files (vendor, sha256, url) VALUES (%s, %s, %s)
                   ON CONFLICT (vendor, sha256) DO UPDATE SET url = excluded.url, uploaded_at = now()""",
                (vendor, sha256, url),
            )

    def log_cost(self, entry: CostEntry) -> None:
        """Write a cost outside a job (free steps with their reason); the same `once_key` is written once."""
        with self._database.transaction() as db:
            _write_cost(db, entry, job_key=None)

    def costs(self, season_id: int) -> list[CostEntry]:
        """Every entry of a season, oldest first."""
        rows = self._all(
            """SELECT season_id, slot_number, character_id, stage, api_name, amount AS amount_usd, forecast_usd,
                      purpose, once_key, is_simulated, created_at
               FROM job_costs WHERE season_id = %s ORDER BY id""",
            (season_id,),
        )
        return [CostEntry.model_validate(row) for row in rows]

    def budget(self, season_id: int) -> tuple[Decimal, Decimal, Decimal]:
        """(limit, reserved, spent) of a season in USD."""
        row = self._one("SELECT limit_usd, reserved_usd, spent_usd FROM budgets WHERE season_id = %s", (season_id,))
        assert row is not None, season_id
        return row["limit_usd"], row["reserved_usd"], row["spent_usd"]


def _state(db: Connection[Any], key: str) -> JobState:
    """Where the job stands, held still until the transaction ends."""
    row = db.execute("SELECT state FROM provider_jobs WHERE key = %s FOR UPDATE", (key,)).fetchone()
    assert row is not None, key
    return JobState(row[0])


def _error(error_class: str, message: str) -> tuple[str, dict[str, Any]]:
    return (
        "error_class = %(error_class)s, error_message = %(error_message)s",
        {"error_class": error_class, "error_message": message},
    )


def _event(db: Connection[Any], key: str, was: JobState | None, to: JobState, detail: str) -> None:
    db.execute(
        "INSERT INTO provider_job_events (job_key, from_state, to_state, detail) VALUES (%s, %s, %s, %s)",
        (key, was, to, detail),
    )


def _write_cost(db: Connection[Any], entry: CostEntry, job_key: str | None) -> None:
    db.execute(
        """INSERT INTO job_costs (season_id, slot_number, character_id, job_key, stage, api_name, amount,
               forecast_usd, purpose, once_key, is_simulated)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (once_key) DO NOTHING""",
        (
            entry.season_id,
            entry.slot_number,
            entry.character_id,
            job_key,
            entry.stage,
            entry.api_name,
            entry.amount_usd,
            entry.forecast_usd,
            entry.purpose,
            entry.once_key,
            entry.is_simulated,
        ),
    )


def _job(row: dict[str, Any]) -> ProviderJob:
    result = row.pop("result") or {}
    ids = {name: row.pop(name) for name in ("request_id", "status_url", "response_url", "cancel_url")}
    request = VendorRequest(vendor=row.pop("vendor"), endpoint=row.pop("endpoint"), arguments=row.pop("request"))
    return ProviderJob(
        **row,
        request=request,
        ids=VendorJobIds(**ids) if ids["request_id"] else None,
        files=tuple(KeptFile.model_validate(file) for file in result.get("files", [])),
        text=result.get("text"),
        seed=result.get("seed"),
    )


def _lock_number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)


def _whom(order: JobOrder) -> str:
    return f"slot {order.slot_number}" if order.slot_number is not None else f"character {order.character_id}"
