"""Running commands in the tests' own process, on the tables and files of ports that a test holds."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from providers.vendor_ports import Vendor
from providers.wiring import Ports, open_ports
from studio.cli import run_command


class Told(NamedTuple):
    """How a command ended: its exit code, what it wrote to stdout, what it told on stderr."""

    exit_code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


def onmodel(*arguments: str) -> Told:
    """Run a command; `open_ports()` must be on the tables of the test (`commands_on`)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(list(arguments))
    return Told(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def commands_on(ports: Ports, vendor: Vendor | None = None) -> Iterator[None]:
    """Commands of this process work on these ports' home and database, with this vendor for the sandbox."""
    assert ports.settings.database_url is not None
    before = dict(os.environ)
    os.environ.update(
        ONMODEL_HOME=str(ports.settings.home),
        ONMODEL_DATABASE_URL=ports.settings.database_url.get_secret_value(),
        ONMODEL_STORAGE_URL=ports.settings.storage_url,
    )
    open_ports.cache_clear()
    opened = open_ports()
    opened.clock = ports.clock
    if vendor is not None:
        opened._vendors[vendor.vendor] = vendor
    try:
        yield
    finally:
        opened.close()
        open_ports.cache_clear()
        os.environ.clear()
        os.environ.update(before)
