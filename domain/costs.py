"""A cost entry: append-only, in USD, and it names what it was for."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from domain.jobs import ProviderJob, Stage
from domain.records import Record

FREE = Decimal(0)


class CostEntry(Record):
    """One line of `job_costs`. `once_key` names the thing paid for: a second entry for it is not written."""

    season_id: int
    slot_number: int | None = None
    character_id: int | None = None
    stage: Stage
    api_name: str
    amount_usd: Decimal
    forecast_usd: Decimal = FREE
    purpose: str
    once_key: str
    is_simulated: bool = False
    created_at: datetime | None = None


def job_cost(job: ProviderJob, amount_usd: Decimal, purpose: str) -> CostEntry:
    """What a job that is over has cost, beside what was forecast."""
    return CostEntry(
        season_id=job.season_id,
        slot_number=job.slot_number,
        character_id=job.character_id,
        stage=job.stage,
        api_name=job.api_name,
        amount_usd=amount_usd,
        forecast_usd=job.estimate_usd,
        purpose=purpose,
        once_key=f"job:{job.key}",
        is_simulated=job.is_simulated,
    )


def free_step(
    season_id: int,
    stage: Stage,
    api_name: str,
    reason: str,
    once_key: str,
    *,
    character_id: int | None = None,
    slot_number: int | None = None,
) -> CostEntry:
    """A step that cost nothing, logged all the same with the reason."""
    return CostEntry(
        season_id=season_id,
        slot_number=slot_number,
        character_id=character_id,
        stage=stage,
        api_name=api_name,
        amount_usd=FREE,
        purpose=reason,
        once_key=once_key,
    )
