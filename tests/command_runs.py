"""Running the real command `onmodel` in a process of its own, on a home and a database that a test can look into."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from providers.sandbox.launcher import stop_sandbox
from tests.postgres_fixtures import open_folder

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS = 120.0


class Ended(NamedTuple):
    """How a command ended."""

    exit_code: int
    out: str
    err: str

    @property
    def sentences(self) -> list[str]:
        """What it complained of, a sentence each, without the name in front."""
        return [line.removeprefix("onmodel: ") for line in self.err.splitlines() if line.startswith("onmodel: ")]

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout; fails when there is more or less."""
        found: dict[str, Any] = json.loads(self.out)
        return found


@contextmanager
def own_machine(server_url: str) -> Iterator[Machine]:
    """A machine with a new folder and a new database; its sandbox is stopped and both are taken away in the end."""
    folder, name = open_folder(), f"om_test_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as db:
        db.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    machine = Machine(folder, urlsplit(server_url)._replace(path=f"/{name}").geturl())
    try:
        yield machine
    finally:
        stop_sandbox(machine.home)
        with psycopg.connect(server_url, autocommit=True) as db:
            db.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        shutil.rmtree(folder)


class Machine:
    """A folder to work in, with its own ONMODEL_HOME and its own database on the tests' server."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder, self.database_url = folder, database_url
        self.home = folder / "home"
        self.home.mkdir(mode=0o711, exist_ok=True)

    def environment(self, **more: str) -> dict[str, str]:
        mine = {"ONMODEL_HOME": str(self.home), "ONMODEL_DATABASE_URL": self.database_url, "PYTHONPATH": str(ROOT)}
        # Another test's Prefect server is not ours to use.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return {**inherited, **mine, **more}

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """The command in a session of its own, so that a signal to it reaches nobody else."""
        return subprocess.Popen(
            [sys.executable, "-m", "studio.cli", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def onmodel(self, *arguments: str | Path, **environment: str) -> Ended:
        """Run a command to its end."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return Ended(process.returncode, out, err)

    def write(self, text: str, name: str = "season.yaml") -> Path:
        """A manifest in the folder; its name as a person would type it there."""
        (self.folder / name).write_text(text, "utf-8")
        return Path(name)

    def traces(self) -> dict[str, int]:
        """Rows of every table and files of the store: what a command that was refused must leave as they were."""
        with psycopg.connect(self.database_url) as db:
            names = [
                str(name)
                for (name,) in db.execute(
                    "SELECT table_name FROM information_schema.tables "
                    "WHERE table_schema = 'onmodel' AND table_type = 'BASE TABLE'"
                )
            ]
            counts = {}
            for name in names:
                row = db.execute(sql.SQL("SELECT count(*) FROM onmodel.{}").format(sql.Identifier(name))).fetchone()
                counts[name] = int(row[0]) if row else 0
        stored = [path for path in (self.home / "blobs").rglob("*") if path.is_file()]
        return {**counts, "files in the store": len(stored)}
