"""What upkeep asks of the tables: which files are still referred to, which LoRAs nothing uses, and what was tidied.

References are not listed column by column: every row of every table is searched, so that no table that is added later
can be forgotten, and a file only counts as unreferenced when nothing anywhere names its SHA-256.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from psycopg import sql

from domain.upkeep import IdleLora, MaintenanceReport
from providers.postgres.database import SCHEMA
from providers.postgres.rows import Table, as_json

_REPORTS_KEPT_FOR = timedelta(days=90)
_DIGEST_LENGTH = 64

_TABLES = """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'm', 'f') ORDER BY c.relname"""

_IDLE = """FROM character_loras AS lora
    WHERE lora.status IN ('failed', 'archived') AND lora.sha256 IS NOT NULL AND lora.weights_dropped_at IS NULL
      AND greatest(lora.created_at,
              (SELECT max(job.finished_at) FROM provider_jobs AS job WHERE job.key = ANY(lora.job_keys)),
              (SELECT max(score.created_at) FROM identity_scores AS score
               WHERE score.subject_kind = 'lora' AND score.subject_id = lora.id),
              (SELECT max(picture.created_at) FROM character_reference_images AS picture
               WHERE picture.lora_id = lora.id)) < now() - %(kept_for)s
      AND NOT EXISTS (SELECT 1 FROM renders AS render WHERE jsonb_path_exists(
              render.routes, '$[*] ? (@.lora_id == $lora)', jsonb_build_object('lora', lora.id)))
      AND NOT EXISTS (SELECT 1 FROM slots AS slot WHERE jsonb_path_exists(
              slot.plan, '$.routes[*] ? (@.lora_id == $lora)', jsonb_build_object('lora', lora.id)))
      AND NOT EXISTS (SELECT 1 FROM slots AS slot WHERE jsonb_path_exists(
              slot.entry, '$.lora_id ? (@ == $lora)', jsonb_build_object('lora', lora.id)))
      AND NOT EXISTS (SELECT 1 FROM pinned_characters AS pin WHERE pin.lora_id = lora.id)
      AND NOT EXISTS (SELECT 1 FROM generation_profiles AS profile WHERE profile.lora_id = lora.id)
      AND NOT EXISTS (SELECT 1 FROM characters AS character WHERE character.is_current
              AND character.lora = 'sha256:' || lora.sha256)
      AND NOT EXISTS (SELECT 1 FROM character_loras AS other WHERE other.sha256 = lora.sha256
              AND other.status NOT IN ('failed', 'archived'))
      AND NOT EXISTS (SELECT 1 FROM provider_jobs AS job
              WHERE job.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')
                AND position(lora.sha256 IN job.request::text || job.fallbacks::text) > 0)"""
"""Nothing says since when a LoRA has its status: its last sign of life counts, be it its row, a training that ended,
its judgement or its pictures."""


class UpkeepTable(Table):
    """Searching all tables, dropping weights, and `maintenance_runs`."""

    def referenced_digests(self) -> frozenset[str]:
        """Every SHA-256 that any row of any table names, wherever in it, all at one moment. Reads every row.

        An error when one table could not be read: there is never a part of the list.
        """
        found: set[str] = set()
        with self._database.transaction() as db:
            db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            tables = [row[0] for row in db.execute(_TABLES, (SCHEMA,)).fetchall()]
            assert "character_loras" in tables, f"the tables found in {SCHEMA} cannot be all of them: {tables}"
            for name in tables:
                # A row as text holds all its columns, whatever their types: text, lists, JSON within JSON.
                query = sql.SQL(
                    "SELECT DISTINCT lower(hit[1]) FROM {} AS t, "
                    "regexp_matches(t::text, '[0-9A-Fa-f]{{64,}}', 'g') AS hit"
                ).format(sql.Identifier(SCHEMA, name))
                for (run,) in db.execute(query):
                    # Where two stand side by side without a gap, either may be meant.
                    found.update(run[at : at + _DIGEST_LENGTH] for at in range(len(run) - _DIGEST_LENGTH + 1))
        return frozenset(found)

    def born_at(self) -> datetime:
        """When this database was made: of files that are older than it, it cannot know who needs them."""
        row = self._one("SELECT min(applied_at) AS born_at FROM schema_migrations", ())
        assert row is not None
        born_at: datetime = row["born_at"]
        return born_at

    def idle_loras(self, kept_for: timedelta) -> list[IdleLora]:
        """LoRAs that failed or were archived so long ago and that no render, pin, profile or open job uses."""
        rows = self._all(
            f"""SELECT lora.id, lora.character_name, lora.base_model, lora.version, lora.status::text AS status,
                       lora.sha256 {_IDLE} ORDER BY lora.id""",
            {"kept_for": kept_for},
        )
        return [IdleLora.model_validate(row) for row in rows]

    def note_dropped(self, lora_id: int) -> None:
        """The weights of a LoRA are gone; its row stays."""
        self._do("UPDATE character_loras SET weights_dropped_at = now() WHERE id = %s", (lora_id,))

    def has_jobs_in_flight(self, vendor: str) -> bool:
        """Whether a vendor may be at work for us."""
        row = self._one(
            """SELECT EXISTS (SELECT 1 FROM provider_jobs WHERE vendor = %s
                   AND state IN ('submitting', 'submission_unknown', 'submitted', 'running')) AS is_so""",
            (vendor,),
        )
        return bool(row and row["is_so"])

    def runs_at_work(self) -> list[str]:
        """The Prefect runs that are noted at jobs in flight, each once: the runs themselves and those inside them."""
        rows = self._all(
            """SELECT DISTINCT run FROM provider_jobs, LATERAL (VALUES (flow_run_id), (root_flow_run_id)) AS v(run)
               WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'expired') AND post_count > 0 AND run <> ''
               ORDER BY run""",
            (),
        )
        return [str(row["run"]) for row in rows]

    def end_runs_of(self, flow_run_id: str, how: str) -> None:
        """The open runs of a Prefect run are over; the first word stands."""
        self._do(
            "UPDATE season_runs SET ended_at = now(), how_it_ended = %s WHERE flow_run_id = %s AND ended_at IS NULL",
            (how, flow_run_id),
        )

    def keep_report(self, report: MaintenanceReport) -> int:
        """Store what a pass did, and forget what passes did more than 90 days ago; the pass's number."""
        self._do("DELETE FROM maintenance_runs WHERE started_at < now() - %s", (_REPORTS_KEPT_FOR,))
        row = self._one(
            "INSERT INTO maintenance_runs (is_dry_run, started_at, report) VALUES (%s, %s, %s) RETURNING id",
            (report.is_dry_run, report.started_at, as_json(report)),
        )
        assert row is not None
        return int(row["id"])

    def report(self, number: int) -> MaintenanceReport | None:
        """What a pass did; None when it is forgotten."""
        row = self._one("SELECT report FROM maintenance_runs WHERE id = %s", (number,))
        return MaintenanceReport.model_validate(row["report"]) if row else None

    def tidied_files_at(self) -> datetime | None:
        """When files were last looked through, by a pass that did its work."""
        row = self._one(
            """SELECT max(started_at) AS at FROM maintenance_runs
               WHERE NOT is_dry_run AND report -> 'steps' @> '[{"step": "files", "problems": []}]'""",
            (),
        )
        return row["at"] if row else None
