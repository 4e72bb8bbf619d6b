"""Reading rows as dictionaries, and writing frozen records as JSON: what every table here shares."""

from __future__ import annotations

from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from domain.records import Record
from providers.postgres.database import Database

Values = tuple[Any, ...] | dict[str, Any]


class Table:
    """A named set of queries over one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _one(self, query: str, values: Values) -> dict[str, Any] | None:
        with self._database.transaction() as db:
            return one(db, query, values)

    def _all(self, query: str, values: Values) -> list[dict[str, Any]]:
        with self._database.transaction() as db:
            return db.cursor(row_factory=dict_row).execute(query, values).fetchall()

    def _do(self, query: str, values: Values) -> int:
        with self._database.transaction() as db:
            return db.execute(query, values).rowcount


def one(db: Connection[Any], query: str, values: Values) -> dict[str, Any] | None:
    """The first row, or None."""
    return db.cursor(row_factory=dict_row).execute(query, values).fetchone()


def as_json(value: Record | list[Any] | dict[str, Any] | tuple[Record, ...]) -> Jsonb:
    """A record, or a tuple of them, as a jsonb value."""
    if isinstance(value, Record):
        return Jsonb(value.model_dump(mode="json"))
    if isinstance(value, tuple):
        return Jsonb([record.model_dump(mode="json") for record in value])
    return Jsonb(value)
