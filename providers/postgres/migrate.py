"""Brings the database to this version's tables: numbered SQL files, forward only, each once, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row

from domain.errors import NotConfigured, OnModelError, Unavailable
from domain.records import Record
from providers.postgres.database import SCHEMA, Connection, Database

MIGRATIONS = Path(__file__).with_name("migrations")
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_LOCK_KEY = 0x6F6E6D6F64656C  # "onmodel" in ASCII; only has to differ from other programs' advisory locks
_LOCK_WAIT_SECONDS = 120
_PREPARE = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {SCHEMA}.schema_migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_LIST_APPLIED = "SELECT name, sha256 FROM schema_migrations ORDER BY name"
_RECORD = "INSERT INTO schema_migrations (name, sha256) VALUES (%s, %s)"


class Migration(Record):
    """One file of SQL; `sha256` counts line ends as one character, so that a checkout on Windows is the same file."""

    name: str
    text: str
    sha256: str


class _Applied(Record):
    name: str
    sha256: str


def run_migrations(database: Database, folder: Path = MIGRATIONS) -> list[str]:
    """Apply what is missing, in order; the names applied now (none when all was there). Safe to repeat and to race.

    Errors: `NotConfigured` when an applied file was changed, the database is newer than this code or may not be changed
    by this user; `Unavailable` when another process holds the lock for two minutes; `OnModelError` when a file itself
    is wrong, of which then nothing stays behind.
    """
    migrations = read_migrations(folder)
    with database.dedicated() as connection, _hold_lock(connection):
        try:
            with connection.transaction():
                connection.execute(_PREPARE.encode())
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotConfigured(
                f"The database user {connection.info.user!r} may not create the schema {SCHEMA!r} in "
                f"{connection.info.dbname!r}: GRANT CREATE ON DATABASE to it, or let its owner run this once."
            ) from error
        with connection.cursor(row_factory=class_row(_Applied)) as cursor:
            applied = {row.name: row.sha256 for row in cursor.execute(_LIST_APPLIED.encode())}
        missing = _missing(migrations, applied, folder)
        for migration in missing:
            _apply(connection, migration)
        return [migration.name for migration in missing]


def read_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The files of the folder in order. `OnModelError` when their numbers are not 0001, 0002, … without gap or twin."""
    migrations = []
    for number, path in enumerate(sorted(folder.glob("*.sql")), start=1):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None or int(match[1]) != number:
            raise OnModelError(
                f"The migration {path.name} in {folder} is out of order: "
                f"the file in this place must be named {number:04d}_what_it_does.sql."
            )
        text = path.read_text(encoding="utf-8")  # universal newlines
        digest = hashlib.sha256(text.encode()).hexdigest()
        migrations.append(Migration(name=path.name, text=text, sha256=digest))
    return migrations


@contextlib.contextmanager
def _hold_lock(connection: Connection) -> Iterator[None]:
    connection.execute(f"SET lock_timeout TO '{_LOCK_WAIT_SECONDS}s'".encode())
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
    except psycopg.errors.LockNotAvailable as error:
        raise Unavailable(
            f"Another process has been changing the tables of {connection.info.dbname!r} for {_LOCK_WAIT_SECONDS} s: "
            "wait until it is done and run this again."
        ) from error
    yield  # given back when the connection closes, however that comes about


def _missing(migrations: list[Migration], applied: dict[str, str], folder: Path) -> list[Migration]:
    known = {migration.name for migration in migrations}
    unknown = sorted(set(applied) - known)
    if unknown:
        raise NotConfigured(
            f"The database already has {unknown[-1]}, which this version of OnModel does not know: "
            "it was made by a newer version, so install that one."
        )
    for migration in migrations:
        if applied.get(migration.name, migration.sha256) != migration.sha256:
            raise NotConfigured(
                f"The migration {migration.name} in {folder} was changed after this database applied it: "
                "restore the file and put the change into a new one."
            )
    missing = [migration for migration in migrations if migration.name not in applied]
    if missing and applied and missing[0].name < max(applied):
        raise NotConfigured(
            f"The database applied {max(applied)} but never {missing[0].name}, which comes before it: "
            "restore the database from a copy, or begin with an empty one."
        )
    return missing


def _apply(connection: Connection, migration: Migration) -> None:
    try:
        with connection.transaction():
            connection.execute(migration.text.encode())
            if connection.info.transaction_status != TransactionStatus.INTRANS:
                raise OnModelError(
                    f"The migration {migration.name} ends its own transaction: take COMMIT and ROLLBACK out of it."
                )
            connection.execute(_RECORD.encode(), (migration.name, migration.sha256))
    except psycopg.Error as error:
        if connection.broken:
            raise  # not the file's fault
        position = error.diag.statement_position
        line = f", line {migration.text.count(chr(10), 0, int(position)) + 1}" if position else ""
        raise OnModelError(
            f"The migration {migration.name}{line} failed and nothing of it was kept "
            f"({error.diag.message_primary or error}): mend the file and run this again."
        ) from error
