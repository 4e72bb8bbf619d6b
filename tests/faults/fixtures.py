"""The grounds that the cells of the fault matrix run on, as a fixture for every folder that runs some."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.drive import Grounds, open_grounds


@pytest.fixture(scope="session")
def grounds(server_url: str) -> Iterator[Grounds]:
    """Shared by all cells of a test process."""
    with open_grounds(server_url) as found:
        yield found
