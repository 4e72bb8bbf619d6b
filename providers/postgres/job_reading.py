"""Looking at the ledger: one job, the jobs of a season, of a run or of a vendor; nothing here moves a job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from domain.errors import BadInput
from domain.jobs import JobEvent, ProviderJob
from providers.postgres.costs import CostRows
from providers.postgres.job_rows import JOB_COLUMNS, OVER, read_job

_SELECT = f"SELECT {JOB_COLUMNS} FROM provider_jobs"


class JobReading(CostRows):
    """What the ledger knows."""

    def get(self, key: str) -> ProviderJob:
        """The job of this key; `KeyError` when there is none (our bug, keys are made by the door)."""
        row = self._one(f"{_SELECT} WHERE key = %s", (key,))
        if row is None:
            raise KeyError(key)
        return read_job(row)

    def latest(self, work_key: str) -> ProviderJob | None:
        """The newest attempt at this work."""
        row = self._one(f"{_SELECT} WHERE work_key = %s ORDER BY attempt DESC LIMIT 1", (work_key,))
        return read_job(row) if row else None

    def open_jobs(self, season_id: int) -> list[ProviderJob]:
        """Jobs of a season that are not over."""
        return self._jobs(f"season_id = %s AND state NOT IN {OVER} ORDER BY created_at", (season_id,))

    def jobs_of_season(self, season_id: int) -> list[ProviderJob]:
        """Every job of a season, oldest first."""
        return self._jobs("season_id = %s ORDER BY created_at, key", (season_id,))

    def jobs_for_a_person(self, season_id: int) -> list[ProviderJob]:
        """Jobs of a season that only a person's word moves on: lost, or paid perhaps and without a result."""
        return self._jobs(
            """season_id = %s AND (state = 'submission_unknown'
               OR (state IN ('expired', 'failed') AND error_class IN ('ResultExpired', 'Overdue')))
               ORDER BY created_at""",
            (season_id,),
        )

    def jobs_of_run(self, flow_run_id: str) -> list[ProviderJob]:
        """Open jobs that a Prefect run, or a run inside it, was last at work on."""
        return self._jobs(
            f"(root_flow_run_id = %(run)s OR flow_run_id = %(run)s) AND state NOT IN {OVER} ORDER BY created_at",
            {"run": flow_run_id},
        )

    def unwatched(self, silent_for: timedelta) -> list[ProviderJob]:
        """Jobs in flight, in any season, that nobody has looked at for so long by the database's clock."""
        return self._jobs(
            """state IN ('submitting', 'submission_unknown', 'submitted', 'running')
               AND (heartbeat_at IS NULL OR heartbeat_at < now() - %s OR heartbeat_at > now() + %s)
               ORDER BY created_at""",
            (silent_for, silent_for),
        )

    def find(self, beginning: str) -> ProviderJob:
        """The one job whose key begins so; `BadInput` when there is none or more than one."""
        if len(beginning) < 4 or not beginning.isalnum():
            raise BadInput(f"{beginning!r} is no job key: give at least its first four letters, see: onmodel jobs list")
        found = self._jobs("key LIKE %s ORDER BY key LIMIT 2", (f"{beginning}%",))
        if len(found) != 1:
            what = "No job" if not found else "More than one job"
            raise BadInput(f"{what} has a key beginning with {beginning!r}: see onmodel jobs list SEASON")
        return found[0]

    def jobs_by_key_prefix(self, prefixes: Sequence[str]) -> dict[str, ProviderJob]:
        """Jobs by the beginnings of their keys; a prefix without a job is left out."""
        found = self._jobs("key LIKE ANY(%s)", ([f"{prefix}%" for prefix in prefixes if prefix.isalnum()],))
        return {prefix: job for prefix in prefixes for job in found if job.key.startswith(prefix)}

    def settled_jobs(self, vendor: str, since: datetime, until: datetime) -> tuple[ProviderJob, ...]:
        """Jobs of a vendor that were sent and ended in the span, oldest first."""
        return tuple(
            self._jobs(
                f"""vendor = %s AND post_count > 0 AND state IN {OVER} AND finished_at >= %s AND finished_at < %s
                    ORDER BY finished_at""",
                (vendor, since, until),
            )
        )

    def request_ids(self, vendor: str, since: datetime) -> frozenset[str]:
        """The vendor's ids of all jobs of ours that were made since."""
        rows = self._all(
            "SELECT request_id FROM provider_jobs WHERE vendor = %s AND request_id IS NOT NULL AND created_at >= %s",
            (vendor, since),
        )
        return frozenset(row["request_id"] for row in rows)

    def failed_attempts(self, work_key: str) -> int:
        """How often this work has failed; attempts that a person or a move to another vendor ended do not count."""
        row = self._one(
            "SELECT count(*) AS failed FROM provider_jobs WHERE work_key = %s AND state IN ('failed', 'expired')",
            (work_key,),
        )
        return int(row["failed"]) if row else 0

    def seconds_since_claim(self, key: str) -> float:
        """How long ago its last POST was claimed, by the database's clock alone; 0 when that was set back or never."""
        row = self._one(
            """SELECT extract(epoch FROM clock_timestamp() - max(at))::float8 AS seconds FROM provider_job_events
               WHERE job_key = %s AND to_state = 'submitting'""",
            (key,),
        )
        return max(float(row["seconds"] or 0.0), 0.0) if row else 0.0

    def times_resent(self, key: str) -> int:
        """How often a job was planned again after its answer was lost."""
        row = self._one(
            """SELECT count(*) AS times FROM provider_job_events
               WHERE job_key = %s AND from_state = 'submission_unknown' AND to_state = 'planned'""",
            (key,),
        )
        return int(row["times"]) if row else 0

    def installation(self) -> str:
        """The mark of this database, which names given to vendors begin with."""
        row = self._one("SELECT mark FROM installation", ())
        assert row is not None
        return str(row["mark"])

    def events(self, key: str) -> list[JobEvent]:
        """Every move of a job, oldest first."""
        rows = self._all(
            "SELECT from_state, to_state, detail, at FROM provider_job_events WHERE job_key = %s ORDER BY id", (key,)
        )
        return [JobEvent.model_validate(row) for row in rows]

    def _jobs(self, where: str, values: tuple[Any, ...] | dict[str, Any]) -> list[ProviderJob]:
        return [read_job(row) for row in self._all(f"{_SELECT} WHERE {where}", values)]

    # --- uploads and the season's budget ---

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

    def budget(self, season_id: int) -> tuple[Decimal, Decimal, Decimal]:
        """(limit, reserved, spent) of a season in USD."""
        row = self._one("SELECT limit_usd, reserved_usd, spent_usd FROM budgets WHERE season_id = %s", (season_id,))
        assert row is not None, season_id
        return row["limit_usd"], row["reserved_usd"], row["spent_usd"]
