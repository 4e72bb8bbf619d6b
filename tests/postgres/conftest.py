"""Homes for servers that a test starts, kills and stops as it likes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.postgres.embedded import stop_server
from tests.postgres_fixtures import open_folder


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
    stop_server(home, shelter=own_shelter)
