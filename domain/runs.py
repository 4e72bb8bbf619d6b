"""A run of a season: the process that is, or was, at work on it."""

from __future__ import annotations

from datetime import datetime

from domain.records import Record


class SeasonRun(Record):
    """A row of `season_runs`. `deployment_id` is there when Prefect started it, so that it can be started again."""

    id: int
    season_id: int
    flow_run_id: str | None
    deployment_id: str | None
    machine: str
    process_id: int
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
