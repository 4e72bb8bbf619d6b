"""A real PostgreSQL for the tests: the embedded one, or the server that ONMODEL_TEST_DATABASE_URL names."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from providers.postgres.embedded import ensure_server, stop_server


@pytest.fixture(scope="session")
def postgres_home() -> Iterator[Path]:
    """An ONMODEL_HOME for the whole session, short enough for a socket, whose server is stopped at the end."""
    root = open_folder()
    home = root / "home"
    home.mkdir(mode=0o711)
    yield home
    stop_server(home)
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """Address of a database on the test server from which others may be created."""
    given = os.environ.get("ONMODEL_TEST_DATABASE_URL")
    if given:
        return given
    home: Path = request.getfixturevalue("postgres_home")
    return ensure_server(home).url


@pytest.fixture
def empty_database(server_url: str) -> Iterator[str]:
    """Address of a new, empty database of this test alone; dropped afterwards, whoever still holds it."""
    name = f"om_test_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def open_folder() -> Path:
    """A new folder with a short path that other users may pass (pytest's own are closed to the server's user)."""
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    folder.chmod(0o711)
    return folder
