"""What every test stands on: a home of its own, no keys, no proxies, and no way out of this machine.

The live tier (ONMODEL_LIVE_BUDGET_USD is set) keeps its keys and its way out.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["tests.postgres_fixtures"]

_CLOSED_EVENTS = frozenset({"socket.connect", "socket.sendto"})
_CREDENTIALS = ("FAL_", "AWS_", "RUNPOD_", "REPLICATE_")
_LEAKS = ("ONMODEL_", "PREFECT_", "PG")
_KEPT = ("ONMODEL_TEST_", "ONMODEL_LIVE_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_OWN_ROOT = pytest.StashKey[Path]()


class NetworkIsClosed(Exception):
    """A test tried to leave the machine."""


def pytest_configure(config: pytest.Config) -> None:
    # Before collection, because packages read the environment when they are imported.
    root = Path(tempfile.mkdtemp(prefix="onmodel-tests-", dir="/tmp"))
    root.chmod(0o711)  # the embedded server's user must be able to pass when the tests run as root
    config.stash[_OWN_ROOT] = root
    is_live = bool(os.environ.get("ONMODEL_LIVE_BUDGET_USD"))
    for name in list(os.environ):
        is_leak = name.startswith(_LEAKS) and not name.startswith(_KEPT)
        is_secret = not is_live and (name.startswith(_CREDENTIALS) or name.upper() in _PROXIES)
        if is_leak or is_secret:
            del os.environ[name]
    for name, folder in {"HOME": "home", "ONMODEL_HOME": "home/.onmodel", "PREFECT_HOME": "prefect"}.items():
        (root / folder).mkdir(mode=0o711, parents=True, exist_ok=True)
        os.environ[name] = str(root / folder)
    if not is_live:
        # An audit hook sees every connect of this process, asyncio's and the libraries' too, and stays to the end.
        sys.addaudithook(_stay_on_this_machine)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_OWN_ROOT], ignore_errors=True)


def _stay_on_this_machine(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _CLOSED_EVENTS:
        return
    connection, address = arguments
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = str(address[0])
    if host != "localhost" and not _is_loopback(host):
        raise NetworkIsClosed(f"A test tried to reach {host}: tests talk to this machine only.")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
