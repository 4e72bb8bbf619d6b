"""How the command line speaks: progress and complaints on stderr, results on stdout."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

SCHEMA_VERSION = 1


def complain(message: str) -> None:
    """Errors for people, each sentence on its own line on stderr."""
    console = Console(stderr=True, highlight=False)
    for line in message.splitlines():
        console.print(Text("onmodel: ", style="bold red") + Text(line), soft_wrap=True)


def keep_traceback() -> Path:
    """Write the current exception's traceback to a file to send to us."""
    with tempfile.NamedTemporaryFile("w", prefix="onmodel-bug-", suffix=".txt", delete=False) as file:
        file.write(traceback.format_exc())
    return Path(file.name)


def print_json(document: dict[str, Any]) -> None:
    """The one JSON document of a command."""
    json.dump({"schema_version": SCHEMA_VERSION, **document}, sys.stdout, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write("\n")


def print_table(title: str, columns: list[str], rows: list[list[str]], *, right: tuple[int, ...] = ()) -> None:
    """A table on stdout; columns in `right` are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def say(line: str = "") -> None:
    """A line of the result on stdout."""
    Console(highlight=False).print(Text(line), soft_wrap=True)


class ProgressLines(logging.Handler):
    """Our log as lines with the time since the command began, warnings in colour."""

    _STYLES = ((logging.ERROR, "red"), (logging.WARNING, "yellow"))

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._console = Console(stderr=True, highlight=False)
        self._began = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        seconds = int(time.monotonic() - self._began)
        style = next((style for level, style in self._STYLES if record.levelno >= level), "")
        line = Text(f"{seconds // 60:3d}:{seconds % 60:02d}  ", style="dim") + Text(record.getMessage(), style=style)
        self._console.print(line)


def tell_progress() -> None:
    """Show our own log on stderr from now on."""
    logger = logging.getLogger("onmodel")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not any(isinstance(handler, ProgressLines) for handler in logger.handlers):
        logger.addHandler(ProgressLines())
