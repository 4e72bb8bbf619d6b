"""Migrations: each once, in order, whole or not at all, and never against what a database already holds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from domain.errors import NotConfigured, OnModelError
from providers.postgres.database import Database
from providers.postgres.migrate import MIGRATIONS, read_migrations, run_migrations


@pytest.fixture
def database(empty_database: str) -> Iterator[Database]:
    with Database.open(empty_database) as opened:
        yield opened


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name[1:]}.sql").write_text(text)
    return folder


def _tables(database: Database) -> list[str]:
    with database.transaction() as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'onmodel' ORDER BY 1").fetchall()
    return [row[0] for row in found]


def test_each_file_is_applied_once_and_in_order(database: Database, tmp_path: Path) -> None:
    _write(tmp_path, _0001_casts="CREATE TABLE casts (id int); INSERT INTO casts VALUES (1);")
    _write(tmp_path, _0002_names="ALTER TABLE casts ADD name text")
    assert run_migrations(database, tmp_path) == ["0001_casts.sql", "0002_names.sql"]
    assert run_migrations(database, tmp_path) == []
    _write(tmp_path, _0003_more="INSERT INTO casts VALUES (2, 'Mei')")
    assert run_migrations(database, tmp_path) == ["0003_more.sql"]

    assert _tables(database) == ["casts", "schema_migrations"]
    with database.transaction() as connection:
        assert connection.execute("SELECT id, name FROM casts ORDER BY id").fetchall() == [(1, None), (2, "Mei")]
        recorded = connection.execute("SELECT name, sha256 FROM schema_migrations ORDER BY name").fetchall()
    assert recorded == [(one.name, one.sha256) for one in read_migrations(tmp_path)]


def test_many_processes_that_start_together_apply_each_file_once(database: Database, tmp_path: Path) -> None:
    _write(tmp_path, _0001_casts="CREATE TABLE casts (id int)", _0002_row="INSERT INTO casts VALUES (1)")
    together = threading.Barrier(4)
    answers: list[list[str]] = []

    def run() -> None:
        together.wait(10)
        answers.append(run_migrations(database, tmp_path))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [[], [], [], ["0001_casts.sql", "0002_row.sql"]]


def test_a_file_that_fails_leaves_nothing_and_names_its_line(database: Database, tmp_path: Path) -> None:
    _write(tmp_path, _0001_casts="CREATE TABLE casts (id int)")
    _write(tmp_path, _0002_wrong="CREATE TABLE half (id int);\n\nALTER TABLE nowhere ADD name text")
    with pytest.raises(OnModelError, match=r"0002_wrong\.sql.*nothing of it was kept.*nowhere"):
        run_migrations(database, tmp_path)
    assert _tables(database) == ["casts", "schema_migrations"]
    _write(tmp_path, _0002_wrong="CREATE TABLE half (id int);\n\nSELEKT 1")
    with pytest.raises(OnModelError, match=r"0002_wrong\.sql, line 3 failed"):
        run_migrations(database, tmp_path)
    _write(tmp_path, _0002_wrong="CREATE TABLE half (id int)")
    assert run_migrations(database, tmp_path) == ["0002_wrong.sql"]


def test_a_file_that_ends_its_own_transaction_is_refused(database: Database, tmp_path: Path) -> None:
    _write(tmp_path, _0001_commits="CREATE TABLE half (id int); COMMIT")
    with pytest.raises(OnModelError, match="take COMMIT and ROLLBACK out of it"):
        run_migrations(database, tmp_path)


def test_an_applied_file_that_was_changed_is_named(database: Database, tmp_path: Path) -> None:
    _write(tmp_path, _0001_casts="CREATE TABLE casts (id int)\n")
    run_migrations(database, tmp_path)
    (tmp_path / "0001_casts.sql").write_bytes(b"CREATE TABLE casts (id int)\r\n")
    assert run_migrations(database, tmp_path) == []
    _write(tmp_path, _0001_casts="CREATE TABLE casts (id bigint)\n")
    with pytest.raises(NotConfigured, match=r"0001_casts\.sql in .* was changed after this database applied it"):
        run_migrations(database, tmp_path)


def test_a_database_newer_than_the_code_is_refused(database: Database, tmp_path: Path) -> None:
    _write(tmp_path, _0001_casts="CREATE TABLE casts (id int)", _0002_names="ALTER TABLE casts ADD name text")
    run_migrations(database, tmp_path)
    (tmp_path / "0002_names.sql").unlink()
    with pytest.raises(NotConfigured, match=r"already has 0002_names\.sql.*made by a newer version"):
        run_migrations(database, tmp_path)


@pytest.mark.parametrize("name", ["0003_gap.sql", "0001_twin.sql", "2_short.sql", "0002_Capital.sql"])
def test_files_out_of_order_are_refused_before_anything_is_applied(tmp_path: Path, name: str) -> None:
    _write(tmp_path, _0001_casts="CREATE TABLE casts (id int)")
    assert [one.name for one in read_migrations(tmp_path)] == ["0001_casts.sql"]
    (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(OnModelError, match="must be named 000"):
        read_migrations(tmp_path)


def test_a_user_who_may_not_make_the_schema_is_told_so(database: Database, empty_database: str, tmp_path: Path) -> None:
    with database.dedicated() as connection:
        connection.execute("DROP ROLE IF EXISTS om_reader")
        connection.execute("CREATE ROLE om_reader LOGIN PASSWORD 'om-reader'")
    try:
        reader = psycopg.conninfo.make_conninfo(empty_database, user="om_reader", password="om-reader")
        with (
            Database.open(reader) as closed,
            pytest.raises(NotConfigured, match="'om_reader' may not create the schema"),
        ):
            run_migrations(closed, tmp_path)
    finally:
        with database.dedicated() as connection:
            connection.execute("DROP ROLE om_reader")


def test_our_own_migrations_bring_an_empty_database_to_this_version(database: Database) -> None:
    names = [one.name for one in read_migrations(MIGRATIONS)]
    assert names
    assert run_migrations(database) == names
    assert run_migrations(database) == []
