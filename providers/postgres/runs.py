"""Runs of seasons: which are at work, and which died with their machine.

A run holds the advisory lock of its row on a connection of its own. The lock goes when the process does, however it
ends, so an open row whose lock is free is a run that died; no clock and no heartbeat decides it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from psycopg import Connection, OperationalError

from domain.errors import Unavailable
from domain.runs import SeasonRun
from providers.postgres.ledger import lock_number
from providers.postgres.rows import Table

_COLUMNS = "id, season_id, flow_run_id, deployment_id, machine, process_id, started_at, ended_at, exit_code"


class RunTable(Table):
    """`season_runs`."""

    @contextmanager
    def running(self, season_id: int, flow_run_id: str | None, deployment_id: str | None) -> Iterator[int]:
        """Be known as at work on a season, as long as this process lives; yields the run's id. End it with `end`."""
        with self._database.dedicated() as db:
            # The row is seen by others only with its lock held: a moment between the two would look like a death.
            with db.transaction():
                row = db.execute(
                    """INSERT INTO season_runs (season_id, flow_run_id, deployment_id, machine, process_id)
                       VALUES (%s, %s, %s, %s, %s) RETURNING id""",
                    (season_id, flow_run_id, deployment_id, platform.node(), os.getpid()),
                ).fetchone()
                assert row is not None
                db.execute("SELECT pg_advisory_lock(%s)", (_lock(row[0]),))
            yield int(row[0])

    @contextmanager
    def hold(self, run_id: int) -> Iterator[None]:
        """Hold a run's lock again, after the connection that held it was lost."""
        with self._database.dedicated() as db:
            db.execute("SELECT pg_advisory_lock(%s)", (_lock(run_id),))
            yield

    def is_held(self, run_id: int) -> bool:
        """Whether some process is at work on the run."""
        with self._database.dedicated() as db:
            return not _is_free(db, run_id)

    def end(self, run_id: int, exit_code: int | None, how: str) -> None:
        """A run is over; the first word stands."""
        self._do(
            """UPDATE season_runs SET ended_at = now(), exit_code = %s, how_it_ended = %s
               WHERE id = %s AND ended_at IS NULL""",
            (exit_code, how, run_id),
        )

    def dead(self) -> list[SeasonRun]:
        """Open runs whose process is gone, oldest first."""
        rows = self._all(f"SELECT {_COLUMNS} FROM season_runs WHERE ended_at IS NULL ORDER BY id", ())
        runs = [SeasonRun.model_validate(row) for row in rows]
        with self._database.dedicated() as db:
            return [run for run in runs if _is_free(db, run.id)]

    def alive(self, season_id: int) -> list[SeasonRun]:
        """Runs that are at work on a season now."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM season_runs WHERE ended_at IS NULL AND season_id = %s ORDER BY id", (season_id,)
        )
        runs = [SeasonRun.model_validate(row) for row in rows]
        with self._database.dedicated() as db:
            return [run for run in runs if not _is_free(db, run.id)]

    @contextmanager
    def only_one(self, what: str) -> Iterator[bool]:
        """Hold a lock that only one process at a time can have; False when another has it."""
        with self._database.dedicated() as db:
            row = db.execute("SELECT pg_try_advisory_lock(%s)", (lock_number(what),)).fetchone()
            assert row is not None
            try:
                yield bool(row[0])
            finally:
                with suppress(OperationalError, Unavailable):
                    db.execute("SELECT pg_advisory_unlock(%s)", (lock_number(what),))


def _lock(run_id: int) -> int:
    return lock_number(f"season-run:{run_id}")


def _is_free(db: Connection[Any], run_id: int) -> bool:
    row = db.execute("SELECT pg_try_advisory_lock(%s)", (_lock(run_id),)).fetchone()
    assert row is not None
    if row[0]:
        db.execute("SELECT pg_advisory_unlock(%s)", (_lock(run_id),))
    return bool(row[0])
