"""The fixtures of the tests on real tables, with homes for servers that a test starts, kills and stops as it likes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.postgres.embedded import ensure_server, server_status
from providers.postgres.processes import is_alive, wait_until
from tests.postgres.door_orders import open_with, shared
from tests.postgres.import_material import bare, bare_database, material, ports, write
from tests.postgres_fixtures import open_folder

__all__ = ["bare", "bare_database", "material", "open_with", "ports", "shared", "write"]


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder of this test alone that other users may pass."""
    folder = open_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def own_shelter(own_folder: Path) -> Path:
    """Stands for /var/lib/onmodel."""
    return own_folder / "shelter"


@pytest.fixture
def own_home(own_folder: Path, own_shelter: Path) -> Iterator[Path]:
    """A home without a server; whatever server it has in the end is stopped."""
    home = own_folder / "home"
    yield home
    end_server(home, own_shelter)


def end_server(home: Path, shelter: Path) -> None:
    """Stop without the tidying that makes a clean stop slow; the data are thrown away next."""
    pid = server_status(home, shelter=shelter).process_id
    if pid is not None:
        os.kill(pid, signal.SIGQUIT)
        assert wait_until(lambda: not is_alive(pid), 20)


@pytest.fixture
def mortal_home(postgres_home: Path) -> Iterator[Path]:
    """The session's home, whose server a test may stop and kill; it is brought back for the next test."""
    ensure_server(postgres_home)
    yield postgres_home
    postgres_home.chmod(0o711)
    ensure_server(postgres_home)
