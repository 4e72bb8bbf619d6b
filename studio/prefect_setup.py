"""Prefect's settings for a run on this machine, put in place before Prefect is imported."""

from __future__ import annotations

import os
from pathlib import Path

RECORDER = "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER"


def prepare_prefect(home: Path, api_url: str | None) -> None:
    """Our defaults, each only where the person has not set it. Without an API address a temporary server is used.

    The recorder's batch size keeps a short run's task rows from being lost at exit (prefect.md section 2).
    """
    defaults = {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        f"{RECORDER}_BATCH_SIZE": "100",
        f"{RECORDER}_READ_BATCH_SIZE": "100",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "onmodel",
        "PREFECT_CLI_PROMPT": "false",
    }
    if api_url is None:
        defaults["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "true"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
