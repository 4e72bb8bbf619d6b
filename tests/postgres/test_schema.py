"""The tables: every name that others expect, words equal in SQL and Python, and history that nobody can rewrite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

import psycopg
import pytest

from domain.applications import Route
from domain.budgets import AtLimit, CreditKind
from domain.characters import CharacterKind, ImageType, LoraStatus
from domain.circuits import CircuitCause, CircuitState
from domain.jobs import LEGAL_EDGES, JobState
from domain.pictures import CaptionMode, Decision
from domain.renders import RenderState
from providers.postgres.database import Database
from providers.postgres.migrate import run_migrations
from tests.ports_for_tests import new_database


@pytest.fixture(scope="module")
def database(server_url: str) -> Iterator[Database]:
    with new_database(server_url) as url, Database.open(url) as opened:
        run_migrations(opened)
        with opened.transaction() as db:
            db.execute("INSERT INTO owners (name) VALUES ('studio-a')")
            db.execute("INSERT INTO projects (owner_id, name) VALUES (1, 'p')")
            db.execute(
                """INSERT INTO seasons (slug, owner_id, project_id, time_zone, review, vendor, is_simulated, manifest,
                                        manifest_sha256)
                   VALUES ('s', 1, 1, 'UTC', false, '{}', true, '{}', 'x')"""
            )
        yield opened


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("character_kind", CharacterKind),
        ("lora_status", LoraStatus),
        ("image_type", ImageType),
        ("job_state", JobState),
        ("render_state", RenderState),
        ("route", Route),
    ],
)
def test_the_words_of_an_enum_are_equal_in_sql_and_python(database: Database, name: str, words: type[StrEnum]) -> None:
    with database.transaction() as db:
        rows = db.execute(
            """SELECT enumlabel FROM pg_enum JOIN pg_type ON pg_type.oid = enumtypid
               WHERE typname = %s ORDER BY enumsortorder""",
            (name,),
        ).fetchall()
    assert [row[0] for row in rows] == [word.value for word in words]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("characters.captions", CaptionMode),
        ("picture_decisions.decision", Decision),
        ("budgets.at_limit", AtLimit),
        ("credit_entries.kind", CreditKind),
        ("vendor_circuits.state", CircuitState),
        ("vendor_circuits.cause", CircuitCause),
    ],
)
def test_the_words_a_column_takes_are_equal_in_sql_and_python(
    database: Database, column: str, words: type[StrEnum]
) -> None:
    table, name = column.split(".")
    with database.transaction() as db:
        (rule,) = db.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", (f"{table}_{name}_check",)
        ).fetchone() or ("",)
    assert re.findall(r"'(\w+)'::text", rule) == [word.value for word in words]


def test_every_enum_of_the_database_is_compared_above(database: Database) -> None:
    with database.transaction() as db:
        rows = db.execute("SELECT typname FROM pg_type WHERE typtype = 'e' ORDER BY 1").fetchall()
    assert [row[0] for row in rows] == [
        "character_kind",
        "image_type",
        "job_state",
        "lora_status",
        "render_state",
        "route",
    ]


EXPECTED = {
    "seasons": "id slug",
    "slots": "id season_id number prompt",
    "clips": "id season_id last_frame_url",
    "characters": "name project_id description",
    "character_loras": "season_id character_name trigger_word lora_url config_url training_images_count training_steps "
    "training_cost_cents status fal_request_id created_by created_at version base_model trainer sha256 parent",
    "character_reference_images": "lora_id image_url prompt is_primary image_type",
    "pinned_characters": "frontal_image_url reference_image_urls",
    "ai_models": "name type model_path file_path",
    "generation_profiles": "name checkpoint_id lora_id video_workflow_template_id",
    "video_workflow_templates": "name workflow_template",
    "job_costs": "stage api_name amount purpose job_key season_id slot_number character_id",
    "frames": "clip_id",
    "training_sets": "character_id",
    "provider_jobs": "key state",
    "budgets": "season_id character_id owner_id limit_usd is_prepaid at_limit overrun_usd",
    "reservations": "budget_id job_key",
    "credit_entries": "budget_id kind amount_usd job_key",
    "vendor_circuits": "vendor state cause",
    "season_runs": "season_id flow_run_id machine process_id",
    "renders": "slot_id state",
    "identity_scores": "subject_kind subject_id",
    "notifications": "kind message",
    "projects": "owner_id name",
    "owners": "name",
    "current_character_loras": "season_id character_name base_model version status",
    "season_costs": "season_id total_cost",
}


@pytest.mark.parametrize("table", EXPECTED)
def test_a_table_has_the_columns_that_others_expect(database: Database, table: str) -> None:
    with database.transaction() as db:
        rows = db.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'onmodel' AND table_name = %s",
            (table,),
        ).fetchall()
    assert set(EXPECTED[table].split()) <= {row[0] for row in rows}


def test_money_is_never_a_float(database: Database) -> None:
    with database.transaction() as db:
        rows = db.execute(
            """SELECT table_name, column_name, data_type FROM information_schema.columns
               WHERE table_schema = 'onmodel' AND (column_name LIKE '%usd%' OR column_name LIKE '%amount%'
                     OR column_name LIKE '%cost')"""
        ).fetchall()
    assert rows
    assert {kind for _, _, kind in rows} == {"numeric"}


def test_every_moment_has_its_time_zone(database: Database) -> None:
    with database.transaction() as db:
        rows = db.execute(
            """SELECT DISTINCT data_type FROM information_schema.columns
               WHERE table_schema = 'onmodel' AND (data_type LIKE 'timestamp%' OR column_name LIKE '%\\_at')"""
        ).fetchall()
    assert rows == [("timestamp with time zone",)]


# --- states ---

_jobs = iter(range(10_000))


def _job_in(db: psycopg.Connection[tuple[object, ...]], state: JobState) -> str:
    """A job brought to a state along legal edges."""
    key = f"job-{next(_jobs)}"
    db.execute(
        """INSERT INTO provider_jobs (key, work_key, attempt, season_id, stage, operation, api_name, model_key, vendor,
                                      endpoint, request, estimate_usd, ceiling_usd, is_simulated)
           VALUES (%s, %s, 1, 1, 'video', 'make_video', 'x', 'x', 'x', 'x', '{}', 1, 1, true)""",
        (key, key),
    )
    for step in _way_to(state):
        db.execute("UPDATE provider_jobs SET state = %s WHERE key = %s", (step, key))
    return key


def _way_to(state: JobState) -> list[JobState]:
    ways: dict[JobState, list[JobState]] = {JobState.PLANNED: []}
    while state not in ways:
        ways.update(
            {
                following: [*way, following]
                for one, way in list(ways.items())
                for following in LEGAL_EDGES[one]
                if following not in ways
            }
        )
    return ways[state]


@pytest.mark.parametrize("was", list(JobState))
def test_exactly_the_legal_moves_are_allowed_in_sql_as_in_python(database: Database, was: JobState) -> None:
    allowed = set()
    for to in JobState:
        with database.transaction() as db:
            key = _job_in(db, was)
        try:
            with database.transaction() as db:
                db.execute("UPDATE provider_jobs SET state = %s WHERE key = %s", (to, key))
            allowed.add(to)
        except psycopg.errors.RaiseException as refused:
            assert f"cannot go from {was} to {to}" in str(refused)
    assert allowed == LEGAL_EDGES[was] | {was}


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.PLANNED])
def test_a_job_begins_as_planned_and_nothing_else(database: Database, state: JobState) -> None:
    with (
        pytest.raises(psycopg.errors.RaiseException, match="a job begins as planned"),
        database.transaction() as db,
    ):
        db.execute(
            """INSERT INTO provider_jobs (key, work_key, attempt, season_id, stage, operation, api_name, model_key,
                                          vendor, endpoint, request, state, estimate_usd, ceiling_usd, is_simulated)
               VALUES ('x', 'x', 1, 1, 'video', 'make_video', 'x', 'x', 'x', 'x', '{}', %s, 1, 1, true)""",
            (state,),
        )


def test_the_rules_of_python_are_the_issues_and_two_of_ours() -> None:
    """`planned → cancelled`: nothing was sent; `submitting → failed`: the vendor's final no (docs/decisions/0007)."""
    issue = {
        ("planned", "submitting"),
        *(("submitting", to) for to in ("submitted", "planned", "submission_unknown")),
        *(("submission_unknown", to) for to in ("submitted", "planned", "cancelled")),
        ("submitted", "running"),
        *((was, to) for was in ("submitted", "running") for to in ("succeeded", "failed", "cancelled", "expired")),
    }
    ours = {("planned", "cancelled"), ("submitting", "failed")}
    assert {(str(was), str(to)) for was, ways in LEGAL_EDGES.items() for to in ways} == issue | ours


# --- budgets ---

_Db = psycopg.Connection[tuple[object, ...]]


def _budget(db: _Db, *, limit_usd: int, is_prepaid: bool = False) -> int:
    """A budget of an owner of its own."""
    row = db.execute("INSERT INTO owners (name) VALUES ('owner ' || gen_random_uuid()) RETURNING id").fetchone()
    assert row is not None
    made = db.execute(
        "INSERT INTO budgets (owner_id, limit_usd, is_prepaid) VALUES (%s, %s, %s) RETURNING id",
        (row[0], limit_usd, is_prepaid),
    ).fetchone()
    assert made is not None
    assert isinstance(made[0], int)
    return made[0]


@pytest.mark.parametrize(
    ("before", "change", "is_allowed"),
    [
        ("spent_usd = 6", "reserved_usd = 4", True),
        ("spent_usd = 6", "reserved_usd = 4.0001", False),
        ("spent_usd = 11", "reserved_usd = 0.0001", False),
        ("reserved_usd = 9", "limit_usd = 5", True),
        ("reserved_usd = 9", "spent_usd = 12, reserved_usd = 7", True),
        ("reserved_usd = 9", "limit_usd = 12, reserved_usd = 12", True),
        ("reserved_usd = 9", "limit_usd = 12, reserved_usd = 12.0001", False),
    ],
)
def test_no_statement_whatever_reserves_past_a_limit(
    database: Database, before: str, change: str, is_allowed: bool
) -> None:
    with database.transaction() as db:
        budget_id = _budget(db, limit_usd=10)
        db.execute(f"UPDATE budgets SET {before} WHERE id = %s".encode(), (budget_id,))
    if is_allowed:
        with database.transaction() as db:
            assert db.execute(f"UPDATE budgets SET {change} WHERE id = %s".encode(), (budget_id,)).rowcount == 1
        return
    with pytest.raises(psycopg.errors.RaiseException, match="would be passed"), database.transaction() as db:
        db.execute(f"UPDATE budgets SET {change} WHERE id = %s".encode(), (budget_id,))


def test_no_statement_whatever_makes_credits_negative(database: Database) -> None:
    with database.transaction() as db:
        prepaid, limited = _budget(db, limit_usd=10, is_prepaid=True), _budget(db, limit_usd=10)
        db.execute("UPDATE budgets SET spent_usd = 10 WHERE id = %s", (prepaid,))
        db.execute("UPDATE budgets SET spent_usd = 10.0001 WHERE id = %s", (limited,))
    for change in ("spent_usd = 10.0001", "limit_usd = 9.9999"):
        with pytest.raises(psycopg.errors.RaiseException, match="would be negative"), database.transaction() as db:
            db.execute(f"UPDATE budgets SET {change} WHERE id = %s".encode(), (prepaid,))


@pytest.mark.parametrize(
    "change", ["reserved_usd = -0.0001", "spent_usd = -0.0001", "overrun_usd = -1", "limit_usd = 0"]
)
def test_no_figure_of_a_budget_is_negative(database: Database, change: str) -> None:
    with database.transaction() as db:
        budget_id = _budget(db, limit_usd=10)
    with pytest.raises(psycopg.errors.CheckViolation), database.transaction() as db:
        db.execute(f"UPDATE budgets SET {change} WHERE id = %s".encode(), (budget_id,))


@pytest.mark.parametrize(
    ("columns", "values"),
    [("", ""), ("season_id, owner_id, ", "1, 1, "), ("season_id, is_prepaid, ", "1, true, ")],
)
def test_a_budget_is_of_one_and_only_owners_hold_credits(database: Database, columns: str, values: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation), database.transaction() as db:
        db.execute(f"INSERT INTO budgets ({columns}limit_usd) VALUES ({values}5)".encode())


# --- history ---


@pytest.mark.parametrize("table", ["job_costs", "provider_job_events", "credit_entries"])
@pytest.mark.parametrize("change", ["UPDATE {} SET id = DEFAULT", "DELETE FROM {}", "TRUNCATE {}"])
def test_what_is_append_only_refuses_every_change_but_takes_new_rows(
    database: Database, table: str, change: str
) -> None:
    with database.transaction() as db:
        key = _job_in(db, JobState.PLANNED)
        db.execute("INSERT INTO provider_job_events (job_key, to_state) VALUES (%s, 'planned')", (key,))
        db.execute(
            """INSERT INTO job_costs (season_id, stage, api_name, amount, purpose, once_key, is_simulated)
               VALUES (1, 'video', 'x', 1, 'x', %s, true)""",
            (key,),
        )
        db.execute(
            "INSERT INTO credit_entries (budget_id, kind, amount_usd, note) VALUES (%s, 'grant', 1, %s)",
            (_budget(db, limit_usd=9, is_prepaid=True), key),
        )
        before = db.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    with (
        pytest.raises(psycopg.errors.RaiseException, match=f"{table} is append-only: correct it with a new row"),
        database.transaction() as db,
    ):
        db.execute(change.format(table).encode())
    with database.transaction() as db:
        assert db.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == before


def test_a_correction_of_a_cost_is_a_new_row_and_the_total_follows(database: Database) -> None:
    with database.transaction() as db:
        before = db.execute("SELECT total_cost FROM season_costs WHERE season_id = 1").fetchone()
        for once, amount in (("paid", "2.50"), ("corrected", "-0.50")):
            db.execute(
                """INSERT INTO job_costs (season_id, stage, api_name, amount, purpose, once_key, is_simulated)
                   VALUES (1, 'video', 'x', %s, 'x', %s, true)""",
                (amount, once),
            )
        after = db.execute("SELECT total_cost FROM season_costs WHERE season_id = 1").fetchone()
    assert before is not None
    assert after is not None
    assert after[0] - before[0] == 2


@pytest.mark.parametrize("number", [0, 76])
def test_the_database_itself_refuses_a_slot_outside_1_to_75(database: Database, number: int) -> None:
    with pytest.raises(psycopg.errors.CheckViolation), database.transaction() as db:
        db.execute("INSERT INTO slots (season_id, number, entry, entry_sha256) VALUES (1, %s, '{}', 'x')", (number,))


def test_cents_are_made_from_dollars_and_older_systems_read_ready_as_completed(database: Database) -> None:
    with database.transaction() as db:
        row = db.execute(
            """INSERT INTO characters (season_id, project_id, name, description, trigger_word, kind, base_models, lora,
                                       lora_scale, min_images, training)
               VALUES (1, 1, 'Mei', '', 'MEI_01', 'person', '{flux-1-dev}', 'auto', 0.8, 10, '{}') RETURNING id"""
        ).fetchone()
        assert row is not None
        for version, status in enumerate(LoraStatus, start=1):
            db.execute(
                """INSERT INTO character_loras (season_id, character_id, character_name, base_model, version, trainer,
                                                trigger_word, training_cost_usd, status, created_by)
                   VALUES (1, %s, 'Mei', 'flux-1-dev', %s, 't', 'MEI_01', 2.345, %s, 'me')""",
                (row[0], version, status),
            )
        rows = db.execute("SELECT status, training_cost_cents FROM completed_character_loras ORDER BY id").fetchall()
        current = db.execute("SELECT version FROM current_character_loras WHERE character_id = %s", row).fetchall()
    assert [status for status, _ in rows] == ["pending", "training", "validating", "completed", "failed", "archived"]
    assert {cents for _, cents in rows} == {235}
    assert current == [(5,)]
