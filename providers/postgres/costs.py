"""`job_costs` in SQL: what everything cost, append-only, once per thing paid for."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from domain.costs import CostEntry
from providers.postgres.rows import Table


class CostRows(Table):
    """Reading and writing the cost log."""

    def log_cost(self, entry: CostEntry) -> None:
        """Write a cost outside a job (free steps with their reason); the same `once_key` is written once."""
        with self._database.transaction() as db:
            write_cost(db, entry, job_key=None)

    def costs(self, season_id: int) -> list[CostEntry]:
        """Every entry of a season, oldest first."""
        rows = self._all(
            """SELECT season_id, slot_number, character_id, stage, api_name, amount AS amount_usd, forecast_usd,
                      purpose, once_key, is_simulated, created_at
               FROM job_costs WHERE season_id = %s ORDER BY id""",
            (season_id,),
        )
        return [CostEntry.model_validate(row) for row in rows]


def write_cost(db: Connection[Any], entry: CostEntry, job_key: str | None) -> None:
    """Append an entry inside a transaction; one with the same `once_key` stays as it is."""
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
