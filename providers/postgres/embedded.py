"""The PostgreSQL server that comes with OnModel: started on demand, shared by every process of one home, outliving all.

Rules that were measured or learnt the hard way (shared/reference/embedded_parts.md, section 1):
- ask the server, not the process table, whether it is up; `pg_isready` 1 means "in recovery": wait, start nothing;
- a killed postmaster may stay a zombie for ever under a PID 1 that does not reap, and its pid may be given to a
  stranger: the pid file counts only while a process really works in the data directory, and goes when none does;
- a data directory is made aside and renamed, so that one which exists is whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from domain.errors import NotConfigured, Unavailable
from domain.records import Record
from providers.postgres.accounts import make_private_folder
from providers.postgres.binaries import Binaries, choose_binaries, copy_packaged, find_binaries
from providers.postgres.places import (
    SHELTER,
    SOCKET_NAME,
    Place,
    anchor_of,
    find_place,
    hold_lock,
    prepare_place,
)
from providers.postgres.processes import is_alive, postmaster_of, processes_in, wait_until

DATABASE = "onmodel"
_SUPERUSER = "postgres"
_PORT = 5432  # only a part of the socket's name: nothing listens on TCP
_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",  # Prefect's server, a worker and several runs at once
    "shared_buffers": "64MB",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_START_SECONDS = 60.0
_RECOVERY_SECONDS = 600.0
_FAST_STOP_SECONDS = 30.0
_LONGEST_LOG_BYTES = 5_000_000
_DATABASE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
# The shell leaves the server behind as nobody's child, so that it is never our zombie, and tells us its process id.
_DETACH = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'


class EmbeddedServer(Record):
    """A running server that only `runs_as_user` and root can reach. `url` is psycopg's, of the database `onmodel`."""

    url: str
    socket_dir: Path
    data_dir: Path
    bin_dir: Path
    version: str
    has_trigram: bool
    runs_as_user: str
    where_note: str | None

    def url_of(self, database: str) -> str:
        """The psycopg address of a database on this server."""
        # The port is named although it is the usual one, so that a PGPORT in the environment changes nothing.
        return (
            f"postgresql://{_SUPERUSER}@/{_checked(database)}?host={quote(str(self.socket_dir), safe='')}&port={_PORT}"
        )

    def asyncpg_url(self, database: str) -> str:
        """The SQLAlchemy address for Prefect. The database must exist: see `ensure_database`."""
        return f"postgresql+asyncpg://{_SUPERUSER}@/{_checked(database)}?host={self.socket_dir}&port={_PORT}"


class ServerStatus(Record):
    """What `onmodel doctor` says of the server; `data_version` is None before the first start."""

    is_running: bool
    process_id: int | None
    data_dir: Path
    data_version: int | None
    log_path: Path
    runs_as_user: str
    where_note: str | None


def ensure_server(
    home: Path, *, shelter: Path = SHELTER, candidates: Sequence[Binaries] | None = None
) -> EmbeddedServer:
    """The running server of `home`: made at the first call (0.5 s), started when down (0.1 s), else found (20 ms).

    Safe to repeat and to race from any number of processes: exactly one starts it. Nobody stops it but `stop_server`.
    `shelter` is where root's data go when `home` is closed; `candidates` replaces the search for binaries.
    Errors: `NotConfigured` (no binaries, no permission, data of another version), `Unavailable` (it does not come up).
    """
    home = home.absolute().resolve()
    with hold_lock(home):
        place = prepare_place(home, shelter)
        binaries = _binaries_for(place, shelter, find_binaries() if candidates is None else candidates)
        if place.data_major is None:
            _initialise(place, binaries)
            binaries = _binaries_for(place, shelter, [binaries])
        if _ask(place, binaries) != _UP:
            _start(place, binaries)
        server = EmbeddedServer(
            url="",
            socket_dir=place.socket_dir,
            data_dir=place.data_dir,
            bin_dir=binaries.bin_dir,
            version=binaries.version,
            has_trigram=binaries.has_trigram,
            runs_as_user=place.account.name,
            where_note=place.where_note or _note_on_copy(place, binaries, shelter),
        )
        ensure_database(server, DATABASE)
        return server.model_copy(update={"url": server.url_of(DATABASE)})


def ensure_database(server: EmbeddedServer, name: str) -> str:
    """Create the database (UTF-8) unless it is there; its psycopg URL. Safe to repeat and to race."""
    try:
        with psycopg.connect(server.url_of("postgres"), autocommit=True, connect_timeout=10) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if known is None:
                # Two who race pass the look above together: the second is told by one of these two errors.
                with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_checked(name))))
    except psycopg.OperationalError as error:
        raise Unavailable(
            f"The database server in {server.data_dir} is up but refuses a connection ({_first_line(str(error))}): "
            f"see {server.data_dir.with_name('server.log')}, then run this again."
        ) from error
    return server.url_of(name)


def stop_server(home: Path, *, shelter: Path = SHELTER) -> None:
    """Shut the server of `home` down, ending open sessions, and wait until it is gone. No error when there is none."""
    home = home.absolute().resolve()
    if not anchor_of(home).exists():
        return
    with hold_lock(home):
        place = find_place(home, shelter)
        pid = postmaster_of(place.account, place.data_dir)
        if pid is None:
            return
        for word, seconds in ((signal.SIGINT, _FAST_STOP_SECONDS), (signal.SIGQUIT, _FAST_STOP_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, word)
            if wait_until(lambda: not processes_in(place.account, place.data_dir), seconds):
                return
        raise Unavailable(
            f"The database server (process {pid}) does not stop: see {place.log_path}, and end it by hand."
        )


def server_status(home: Path, *, shelter: Path = SHELTER) -> ServerStatus:
    """Whether and where the server of `home` runs. Makes and starts nothing."""
    place = find_place(home.absolute().resolve(), shelter)
    pid = postmaster_of(place.account, place.data_dir)
    return ServerStatus(
        is_running=pid is not None,
        process_id=pid,
        data_dir=place.data_dir,
        data_version=place.data_major,
        log_path=place.log_path,
        runs_as_user=place.account.name,
        where_note=place.where_note,
    )


def _binaries_for(place: Place, shelter: Path, candidates: Sequence[Binaries]) -> Binaries:
    """The best binaries that the server's user can run, if need be a copy of the packaged ones."""

    def can_run(one: Binaries) -> bool:
        return not place.account.is_other or place.account.can("-x", Path(one.program("postgres")))

    usable = [one for one in candidates if one.packaged_in is not None or can_run(one)]
    chosen = choose_binaries(usable, place.data_major)
    return chosen if can_run(chosen) else copy_packaged(chosen, shelter)


def _note_on_copy(place: Place, binaries: Binaries, shelter: Path) -> str | None:
    if not binaries.bin_dir.is_relative_to(shelter):
        return None
    return (
        f"PostgreSQL does not run as root and the user {place.account.name} cannot enter the Python environment, "
        f"so a copy of the database's programs lies in {binaries.bin_dir}."
    )


# --- making and starting it; all of it under the lock ---


def _initialise(place: Place, binaries: Binaries) -> None:
    if place.data_dir.exists() and any(place.data_dir.iterdir()):
        raise NotConfigured(f"{place.data_dir} holds files but no database: move that folder away and start again.")
    for left_over in place.tree.glob("data.new-*"):  # an initdb that was killed half-way
        shutil.rmtree(left_over, ignore_errors=True)
    # A new name each time: the orphan of a killed call may still be writing, or tidying, under the old one.
    fresh = place.tree / f"data.new-{secrets.token_hex(4)}"
    make_private_folder(fresh, place.account)
    command = [binaries.program("initdb"), "-D", str(fresh), "-U", _SUPERUSER, "-E", "UTF8", "--locale=C.UTF-8"]
    done = place.account.run([*command, "--auth-local=trust", "--auth-host=reject"])
    if done.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise NotConfigured(
            f"PostgreSQL {binaries.version} could not make a database in {place.tree} ({_last_line(done.stderr)}): "
            "mend that, or set ONMODEL_DATABASE_URL to a server of your own."
        )
    fresh.rename(place.data_dir)


def _start(place: Place, binaries: Binaries) -> None:
    _clear_stale_pid(place)
    if (
        place.log_path.exists()
        and place.log_path.stat().st_size > _LONGEST_LOG_BYTES
        and postmaster_of(place.account, place.data_dir) is None
    ):
        os.truncate(place.log_path, 0)
    options = [word for key, value in _OPTIONS.items() for word in ("-c", f"{key}={value}")]
    server = [binaries.program("postgres"), "-D", str(place.data_dir), "-k", str(place.socket_dir), "-p", str(_PORT)]
    done = place.account.run(["sh", "-c", _DETACH, "sh", str(place.log_path), *server, *options])
    started = int(done.stdout)
    begun = time.monotonic()
    while (answer := _ask(place, binaries)) != _UP:
        waited = time.monotonic() - begun
        # A second server started beside one that is just coming up ends by itself, and the first answers soon.
        is_gone = not is_alive(started) and postmaster_of(place.account, place.data_dir) is None
        if is_gone or waited > (_RECOVERY_SECONDS if answer == _IN_RECOVERY else _START_SECONDS):
            raise Unavailable(
                f"The database server in {place.data_dir} did not start after {waited:.0f} s "
                f"({_last_line(_log_text(place))}): see {place.log_path}, then run this again."
            )
        time.sleep(0.02)


_UP, _IN_RECOVERY = 0, 1  # exit codes of pg_isready; 2 is down, 3 a wrong question


def _ask(place: Place, binaries: Binaries) -> int:
    command = [binaries.program("pg_isready"), "-q", "-h", str(place.socket_dir), "-p", str(_PORT), "-U", _SUPERUSER]
    return place.account.run([*command, "-d", "postgres", "-t", "3"]).returncode


def _clear_stale_pid(place: Place) -> None:
    """Remove the pid and socket files of a killed server once the last of its processes has let go of the data."""
    pid_file = place.data_dir / "postmaster.pid"
    if not pid_file.exists() or postmaster_of(place.account, place.data_dir) is not None:
        return
    if not wait_until(lambda: not processes_in(place.account, place.data_dir), _START_SECONDS):
        left = ", ".join(str(pid) for pid in sorted(processes_in(place.account, place.data_dir)))
        raise Unavailable(
            f"The database server was killed and its processes {left} still work in {place.data_dir}: "
            "end them and run this again."
        )
    for path in (pid_file, place.socket_dir / SOCKET_NAME, place.socket_dir / f"{SOCKET_NAME}.lock"):
        path.unlink(missing_ok=True)


# --- words ---


def _checked(database: str) -> str:
    if not _DATABASE_NAME.fullmatch(database):
        raise ValueError(f"{database!r} is no plain database name")
    return database


def _log_text(place: Place) -> str:
    try:
        return place.log_path.read_text(errors="replace")
    except OSError:
        return ""


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "nothing was said")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing was said")
