"""Connections to OnModel's PostgreSQL: one lazy pool for a process, and separate connections that hold session locks.

Only `psycopg.Error`s of a statement reach the caller; a connection that cannot be had or is lost becomes an error of
ours, which never shows the password.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGconn
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from domain.errors import NotConfigured, Unavailable

Connection = psycopg.Connection[tuple[Any, ...]]

SCHEMA = "onmodel"
OLDEST_SERVER = 140000
_MOST_CONNECTIONS = 12
_CONNECT_SECONDS = 10
_WAIT_SECONDS = 15.0
_START_UP_SECONDS = 1.5
_IDLE_SECONDS = 120.0
_LOST_MACHINE = "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
"""After a minute the server lets go of a connection, and of its locks, whose machine lost power or network; by default
it waits two hours (PostgreSQL, tcp_keepalives_idle). Without effect on a local socket, whose end is known at once."""


class Database:
    """A pool of connections to one database, for any number of threads. Open one per process, close it at the end.

    `revive` starts the server again where it is ours to start: a server that was killed is back before its absence is
    an error. Safe to call at any time and from any process.

    Every session has the search path `onmodel` and the time zone UTC. A connection that died while it lay in the pool
    (the server was restarted) is replaced before it is handed out.
    """

    def __init__(self, url: str, revive: Callable[[], object] | None = None) -> None:
        self._url = url
        self._revive = revive
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            kwargs={"connect_timeout": _CONNECT_SECONDS, "application_name": "onmodel"},
            min_size=0,
            max_size=_MOST_CONNECTIONS,
            timeout=_WAIT_SECONDS,
            max_idle=_IDLE_SECONDS,
            configure=_set_up,
            check=self._check,
            name="onmodel",
            open=True,
        )

    @classmethod
    def open(cls, url: str, revive: Callable[[], object] | None = None) -> Database:
        """Look once whether the server is there and new enough, and open a pool that holds no connection yet.

        `NotConfigured`: the address is unreadable, the server refuses this user, password or database, or is older than
        PostgreSQL 14. `Unavailable`: nothing answers there.
        """
        with _connect(url):
            return cls(url, revive)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection inside one transaction: committed at the end, rolled back on any error.

        `Unavailable` when no connection can be had (all 12 busy for 15 s, server down) or it is lost on the way; if it
        was lost during the commit, the change may or may not be stored, so what runs here must be safe to run again.
        """
        connection = self._take()
        try:
            with connection.transaction():
                yield connection
        except psycopg.OperationalError as error:
            raise self._lost(connection, error) from error
        finally:
            self._pool.putconn(connection)

    def connection(self) -> contextlib.AbstractContextManager[Connection]:
        """The same as `transaction()`, under the name that reads better round a single look."""
        return self.transaction()

    @contextlib.contextmanager
    def dedicated(self) -> Iterator[Connection]:
        """An autocommit connection outside the pool, closed at the end, and with it every lock it holds."""
        with self._connected() as connection:
            try:
                yield connection
            except psycopg.OperationalError as error:
                raise self._lost(connection, error) from error

    def close(self) -> None:
        """Close every idle connection; safe to repeat. Using the database afterwards is `Unavailable`."""
        self._pool.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> Connection:
        for is_last in (self._revive is None, True):
            try:
                return self._pool.getconn()
            except PoolTimeout as error:
                reason = self._why_none(error)
                if is_last or not isinstance(reason, Unavailable):
                    raise reason from None
                self._connected().close()
            except PoolClosed as error:
                raise self._why_none(error) from None
        raise AssertionError("the last try raises")

    def _check(self, connection: Connection) -> None:
        """Before a connection is handed out; where it is dead, the server is brought back before the pool asks it."""
        try:
            ConnectionPool.check_connection(connection)
        except psycopg.OperationalError:
            self._bring_back()
            raise

    def _bring_back(self) -> None:
        """Start a server of ours that is gone, before the pool asks for it: its own tries wait longer and longer."""
        if self._revive is not None:
            with contextlib.suppress(Unavailable, NotConfigured):
                self._connected().close()

    def _connected(self) -> Connection:
        try:
            return _connect(self._url)
        except Unavailable:
            if self._revive is None:
                raise
        self._revive()
        return _connect(self._url)

    def _lost(self, connection: Connection, error: psycopg.OperationalError) -> Exception:
        if not connection.broken:
            return error  # a lock not had, a deadlock: the caller's affair
        self._bring_back()
        return Unavailable(
            f"The connection to the database at {describe_url(self._url)} was lost while it was used "
            "(the server was stopped or restarted): run this again."
        )

    def _why_none(self, error: PoolTimeout | PoolClosed) -> Unavailable | NotConfigured:
        where = describe_url(self._url)
        if isinstance(error, PoolClosed):
            return Unavailable(f"The connections to the database at {where} were closed already: open it again.")
        try:
            with _connect(self._url):
                return Unavailable(
                    f"All {_MOST_CONNECTIONS} connections to the database at {where} were busy "
                    f"for {_WAIT_SECONDS:.0f} s: run this again, with fewer slots at once if it happens often."
                )
        except (Unavailable, NotConfigured) as reason:
            return reason


def describe_url(url: str) -> str:
    """Host and database of an address, for messages: never the user's password, whatever the address looks like."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        return "the given address"
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    port = f":{parts['port']}" if parts.get("port") and not str(host).startswith("/") else ""
    return f"{host}{port}, database {parts.get('dbname') or parts.get('user') or 'of the same name as the user'}"


def _connect(url: str) -> Connection:
    """A new autocommit connection, set up and checked; see `Database.open` for its errors."""
    where = describe_url(url)
    deadline = time.monotonic() + _START_UP_SECONDS
    while True:
        try:
            connection: Connection = psycopg.connect(
                url, autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name="onmodel"
            )
            break
        except psycopg.OperationalError as error:
            # psycopg gives a refused connection no SQLSTATE, so that "wrong password" and "still starting up" differ
            # only in that the second passes. Its exception holds the password (`pgconn`): it is not chained.
            if error.pgconn is None or not _is_listening(error.pgconn):
                raise Unavailable(
                    f"No database server answers at {where} ({_first_line(error, url)}): "
                    "start it, or mend ONMODEL_DATABASE_URL."
                ) from None
            if time.monotonic() > deadline:
                raise NotConfigured(
                    f"The database server at {where} refuses the connection ({_first_line(error, url)}): "
                    "check the user, password and database name in ONMODEL_DATABASE_URL."
                ) from None
        except (psycopg.Error, UnicodeError):
            raise NotConfigured(
                "ONMODEL_DATABASE_URL cannot be read: write postgresql://user:password@host/database, "
                "with every special character of the password as %XX."
            ) from None
        time.sleep(0.2)
    try:
        _set_up(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: Connection) -> None:
    found = connection.info.server_version
    if found < OLDEST_SERVER:
        # Up to 9.6 the number was 90603 for 9.6.3, since then 130004 for 13.4.
        shown = f"{found // 10000}.{found % 10000}" if found >= 100000 else f"{found // 10000}.{found // 100 % 100}"
        raise NotConfigured(
            f"The database server at {connection.info.host} is PostgreSQL {shown} and OnModel needs 14 or newer: "
            "set ONMODEL_DATABASE_URL to a newer one, or unset it to use the built-in server."
        )
    before = connection.autocommit
    connection.autocommit = True
    connection.execute(f"SET search_path TO {SCHEMA}; SET TIME ZONE 'UTC'; {_LOST_MACHINE}".encode())
    connection.autocommit = before


def _is_listening(failed: PGconn) -> bool:
    host = (failed.hostaddr or failed.host).decode()
    port = failed.port.decode() or "5432"
    with contextlib.suppress(OSError):
        if host.startswith("/"):
            with socket.socket(socket.AF_UNIX) as attempt:
                attempt.settimeout(_CONNECT_SECONDS)
                attempt.connect(f"{host}/.s.PGSQL.{port}")
        else:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        return True
    return False


def _first_line(error: psycopg.Error, url: str) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
    password = conninfo_to_dict(url).get("password")
    return text.replace(str(password), "***") if password else text
