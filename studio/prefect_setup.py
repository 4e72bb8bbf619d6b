"""Prefect's settings for a run on this machine, put in place before Prefect is imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RECORDER = "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER"

DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",  # the client's own telemetry, and its notice at the first import
    f"{RECORDER}_BATCH_SIZE": "100",
    f"{RECORDER}_READ_BATCH_SIZE": "100",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "onmodel",
    "PREFECT_CLI_PROMPT": "false",
}
"""Ours wherever Prefect runs. The recorder's batch size keeps a short run's task rows from being lost at exit
(prefect.md section 2)."""

LAST_WORDS_SECONDS = 10.0


def set_defaults(home: Path) -> None:
    """Our settings, each only where the person has none of their own. To be called before Prefect is imported."""
    for name, value in {**DEFAULTS, "PREFECT_HOME": str(home / "prefect"), "PREFECT_LOGGING_LEVEL": "CRITICAL"}.items():
        os.environ.setdefault(name, value)


@contextmanager
def prefect_for_a_run(home: Path, api_url: str | None) -> Iterator[None]:
    """Prefect ready to run a flow in this process: at `api_url`, or at a temporary server that ends with the run.

    `NotConfigured` when the temporary server does not come up.
    """
    set_defaults(home)
    if api_url is not None:
        yield
        return
    from studio.temporary_server import TemporaryServer

    server = TemporaryServer(home)
    try:
        # Prefect reads its settings when it is imported, which takes as long as the server's start.
        os.environ["PREFECT_API_URL"] = server.api_url
        import prefect  # noqa: F401

        server.wait_until_ready()
        try:
            yield
        finally:
            _send_what_is_left()
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        server.stop()


def _send_what_is_left() -> None:
    """The run's last events and log lines, while there is a server to take them.

    Left to Prefect's own exit they would look for the stopped server for a minute (measured with 3.8.8).
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=LAST_WORDS_SECONDS, at_exit=False)
