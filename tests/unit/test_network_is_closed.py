"""The tests' own walls: nothing leaves this machine, and nothing of the developer's environment comes in."""

from __future__ import annotations

import os
import socket

import pytest

pytestmark = pytest.mark.skipif("ONMODEL_LIVE_BUDGET_USD" in os.environ, reason="the live tier may go out")


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, ("192.0.2.1", 443)), (socket.AF_INET6, ("2001:db8::1", 443))]
)
def test_no_test_reaches_another_machine(family: socket.AddressFamily, address: tuple[str, int]) -> None:
    with socket.socket(family) as connection, pytest.raises(Exception, match="tests talk to this machine only"):
        connection.connect(address)


def test_a_test_reaches_its_own_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"x")


def test_the_environment_holds_no_keys_and_a_home_of_its_own() -> None:
    assert not [name for name in os.environ if name.startswith(("FAL_", "AWS_")) or name.lower().endswith("_proxy")]
    assert os.environ["ONMODEL_HOME"].startswith(os.environ["HOME"])
    assert "onmodel-tests-" in os.environ["PREFECT_HOME"]
