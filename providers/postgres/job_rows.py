"""A row of `provider_jobs` as a record, and the event that every move of it leaves."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from domain.jobs import JobOrder, JobState, KeptFile, ProviderJob, VendorJobIds, VendorRequest

JOB_COLUMNS = """key, work_key, attempt, season_id, slot_number, character_id, stage, operation, api_name, model_key,
    vendor, endpoint, request, state, not_before, request_id, status_url, response_url, cancel_url, result,
    error_class, error_message, estimate_usd, ceiling_usd, billed_usd, is_simulated, submitted_at, created_at,
    heartbeat_at, finished_at, waited_seconds, cancel_requested_at, post_count, submitting_at, sent_urls,
    fallbacks, moved_to, (SELECT mark FROM installation) AS installation"""

OVER = "('succeeded', 'failed', 'cancelled', 'expired')"
"""The states a job ends in, as SQL."""


def read_job(row: dict[str, Any]) -> ProviderJob:
    """A row with `JOB_COLUMNS`."""
    result = row.pop("result") or {}
    ids = {name: row.pop(name) for name in ("request_id", "status_url", "response_url", "cancel_url")}
    request = VendorRequest(vendor=row.pop("vendor"), endpoint=row.pop("endpoint"), arguments=row.pop("request"))
    return ProviderJob(
        **{**row, "fallbacks": tuple(JobOrder.model_validate(order) for order in row["fallbacks"])},
        request=request,
        ids=VendorJobIds(**ids) if ids["request_id"] else None,
        files=tuple(KeptFile.model_validate(file) for file in result.get("files", [])),
        text=result.get("text"),
        seed=result.get("seed"),
    )


def job_state(db: Connection[Any], key: str) -> JobState:
    """Where the job stands, held still until the transaction ends."""
    row = db.execute("SELECT state FROM provider_jobs WHERE key = %s FOR UPDATE", (key,)).fetchone()
    assert row is not None, key
    return JobState(row[0])


def write_event(db: Connection[Any], key: str, was: JobState | None, to: JobState, detail: str) -> None:
    """Append to the job's history."""
    db.execute(
        "INSERT INTO provider_job_events (job_key, from_state, to_state, detail) VALUES (%s, %s, %s, %s)",
        (key, was, to, detail),
    )
