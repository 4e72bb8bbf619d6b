"""Connections: transactions, locks held apart, a server that goes and comes back, and addresses that are wrong."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from domain.errors import NotConfigured, Unavailable
from providers.postgres.database import Database, describe_url
from providers.postgres.embedded import ensure_server, server_status, stop_server
from providers.postgres.processes import is_alive, wait_until


@pytest.fixture
def database(empty_database: str) -> Iterator[Database]:
    with Database.open(empty_database) as opened:
        with opened.transaction() as connection:
            connection.execute("CREATE SCHEMA onmodel")
            connection.execute("CREATE TABLE kept (number int PRIMARY KEY)")
        yield opened


def _rows(database: Database) -> list[int]:
    with database.connection() as connection:
        return [row[0] for row in connection.execute("SELECT number FROM onmodel.kept ORDER BY number")]


def test_a_transaction_is_kept_whole_or_not_at_all(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute("INSERT INTO kept VALUES (1)")
    with pytest.raises(psycopg.errors.UniqueViolation), database.transaction() as connection:
        connection.execute("INSERT INTO kept VALUES (2)")
        connection.execute("INSERT INTO kept VALUES (1)")
    assert _rows(database) == [1]


def test_every_session_looks_into_our_schema_and_keeps_utc(database: Database) -> None:
    for opened in (database.transaction(), database.dedicated()):
        with opened as connection:
            assert connection.execute("SHOW search_path").fetchone() == ("onmodel",)
            assert connection.execute("SHOW timezone").fetchone() == ("UTC",)


def test_a_lock_held_apart_is_given_back_when_its_session_ends(database: Database) -> None:
    with database.dedicated() as holder, database.dedicated() as other:
        assert holder.execute("SELECT pg_try_advisory_lock(7)").fetchone() == (True,)
        assert other.execute("SELECT pg_try_advisory_lock(7)").fetchone() == (False,)
        holder.close()
        assert other.execute("SELECT pg_advisory_lock(7)").fetchone() is not None


def test_a_connection_lost_on_the_way_can_be_had_again(database: Database) -> None:
    with (
        pytest.raises(Unavailable, match="was lost while it was used"),
        database.transaction() as connection,
        database.dedicated() as other,
    ):
        connection.execute("INSERT INTO kept VALUES (3)")
        other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        connection.execute("INSERT INTO kept VALUES (4)")
    assert _rows(database) == []


def test_the_pool_finds_a_server_that_was_killed_and_started_again(mortal_home: Path) -> None:
    with Database.open(ensure_server(mortal_home).url) as database:
        with database.transaction() as connection:
            connection.execute("CREATE SCHEMA IF NOT EXISTS onmodel")
            connection.execute("DROP TABLE IF EXISTS kept")
            connection.execute("CREATE TABLE kept (number int)")
            connection.execute("INSERT INTO kept VALUES (1)")
        pid = server_status(mortal_home).process_id
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        ensure_server(mortal_home)
        assert _rows(database) == [1]
        stop_server(mortal_home)
        ensure_server(mortal_home)
        assert _rows(database) == [1]


def test_a_closed_database_says_so(empty_database: str) -> None:
    database = Database.open(empty_database)
    database.close()
    database.close()
    with pytest.raises(Unavailable, match="closed already"), database.transaction():
        pass


def test_where_nothing_listens_is_unavailable_and_shows_no_password() -> None:
    with socket.socket() as held:  # bound and not listening: nobody else can take the port
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with pytest.raises(Unavailable) as caught:
            Database.open(f"postgresql://mei:hush-hush@127.0.0.1:{port}/season")
    assert f"No database server answers at 127.0.0.1:{port}, database season" in caught.value.message
    _assert_silent(caught.value, "hush-hush")


def test_an_unreadable_address_is_not_configured_and_shows_no_password() -> None:
    for url in ("postgresql://mei:hush%hush@127.0.0.1/season", "mei:hush-hush@127.0.0.1/season"):
        with pytest.raises(NotConfigured, match="cannot be read") as caught:
            Database.open(url)
        _assert_silent(caught.value, "hush")


def test_a_database_that_is_not_there_is_not_configured(server_url: str) -> None:
    url = urlsplit(server_url)._replace(path="/om_nowhere").geturl()
    with pytest.raises(NotConfigured, match=r"refuses the connection .*om_nowhere"):
        Database.open(url)


def test_an_address_is_described_without_its_password() -> None:
    assert describe_url("postgresql://mei:hush@db.example:6432/season") == "db.example:6432, database season"
    assert describe_url("postgresql://mei:h%ush@db.example/season") == "the given address"


@pytest.mark.parametrize(
    ("reported", "shown"), [("13.16 (Debian 13.16-1)", r"PostgreSQL 13\.16"), ("9.6.24", r"PostgreSQL 9\.6")]
)
def test_a_server_older_than_14_is_refused(reported: str, shown: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_answer_as_old_server, args=(listening, reported))
        thread.start()
        url = f"postgresql://mei@127.0.0.1:{listening.getsockname()[1]}/season?sslmode=disable&gssencmode=disable"
        with pytest.raises(NotConfigured, match=shown + " and OnModel needs 14 or newer"):
            Database.open(url)
        thread.join(10)
        assert not thread.is_alive()


def _answer_as_old_server(listening: socket.socket, version: str) -> None:
    """Just enough of the wire protocol (PostgreSQL manual, 55.2) to let a client in and tell it the version."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!i", len(body) + 4) + body

    connection, _ = listening.accept()
    with connection:
        connection.recv(4096)
        told = {"server_version": version, "client_encoding": "UTF8", "standard_conforming_strings": "on"}
        answer = message(b"R", struct.pack("!i", 0))
        answer += b"".join(message(b"S", f"{name}\0{value}\0".encode()) for name, value in told.items())
        connection.sendall(answer + message(b"K", struct.pack("!ii", 1, 1)) + message(b"Z", b"I"))
        while connection.recv(4096):
            pass


def _assert_silent(error: BaseException, secret: str) -> None:
    assert secret not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_a_server_of_ours_that_was_killed_is_started_again_by_whoever_needs_it(mortal_home: Path) -> None:
    server = ensure_server(mortal_home)
    with Database.open(server.url, lambda: ensure_server(mortal_home)) as database:
        with database.transaction() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        for ask in (database.dedicated, database.transaction):
            pid = server_status(mortal_home).process_id
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda pid=pid: not is_alive(pid), 20)  # type: ignore[misc]
            with ask() as connection:
                assert connection.execute("SELECT 2").fetchone() == (2,)


def test_a_server_that_is_killed_inside_a_transaction_is_there_for_the_next_one(mortal_home: Path) -> None:
    server = ensure_server(mortal_home)
    with Database.open(server.url, lambda: ensure_server(mortal_home)) as database:
        with pytest.raises(Unavailable), database.transaction() as connection:
            pid = server_status(mortal_home).process_id
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda: not is_alive(pid), 20)
            connection.execute("SELECT pg_sleep(20)")  # the backend notices that its parent is gone
        with database.transaction() as connection:
            assert connection.execute("SELECT 2").fetchone() == (2,)
