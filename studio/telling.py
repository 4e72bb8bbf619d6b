"""How the command line speaks: progress and complaints on stderr, results on stdout.

On a terminal, sentences break between words and a clock ticks under the last line of progress; in a file or a pipe
each message is one plain line.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

SCHEMA_VERSION = 1
CLOCK_WIDTH = 8
TICK_SECONDS = 1.0
NARROWEST = 40


class _Voice(Console):
    """A console that leaves a closed pipe to `studio/outcome.py`; rich itself would exit with 1."""

    def on_broken_pipe(self) -> None:
        """Called while the error is being handled: raise it on."""
        raise


def complain(message: str) -> None:
    """Errors for people, each sentence on its own line on stderr."""
    end_progress()
    console = _console(sys.stderr)
    for line in message.splitlines():
        for number, part in enumerate(_wrapped(line, console, indent=len("onmodel: "))):
            lead = "onmodel: " if number == 0 else "         "
            console.print(Text.assemble((lead, "bold red"), part), soft_wrap=True)


def keep_traceback() -> Path:
    """Write the current exception's traceback to a file to send to us."""
    with tempfile.NamedTemporaryFile("w", prefix="onmodel-bug-", suffix=".txt", delete=False) as file:
        file.write(traceback.format_exc())
    return Path(file.name)


def print_json(document: dict[str, Any]) -> None:
    """The one JSON document of a command."""
    end_progress()
    json.dump({"schema_version": SCHEMA_VERSION, **document}, sys.stdout, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_table(title: str, columns: list[str], rows: list[list[str]], *, right: tuple[int, ...] = ()) -> None:
    """A table on stdout; columns in `right` are numbers."""
    end_progress()
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = _console(sys.stdout)
    if not console.is_terminal:
        console.width = 200  # a file has no edge to break at
    with console.capture() as written:
        console.print(table)
    for line in written.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def say(line: str = "", *, hang: int = 0) -> None:
    """A line of the result on stdout; on a terminal it breaks between words, never within a path.

    What follows a break begins `hang` columns in.
    """
    end_progress()
    console = _console(sys.stdout)
    for part in _wrapped(line, console, hang=hang):
        console.print(Text(part), soft_wrap=True)


class ProgressLines(logging.Handler):
    """Our log as lines with the time since the command began, warnings in colour; on a terminal with a clock below."""

    _STYLES = ((logging.ERROR, "red"), (logging.WARNING, "yellow"))

    def __init__(self, stream: IO[str] | None = None) -> None:
        super().__init__(logging.INFO)
        self._console = _console(stream or sys.stderr)
        self._began = time.monotonic()
        self._is_over = threading.Event()
        if self._console.is_terminal:
            threading.Thread(target=self._tick, name="onmodel-clock", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record. Called under the handler's lock."""
        style = next((style for level, style in self._STYLES if record.levelno >= level), "")
        parts = _wrapped(record.getMessage(), self._console, indent=CLOCK_WIDTH)
        self._wipe()
        for number, part in enumerate(parts):
            lead = self._time() if number == 0 else " " * CLOCK_WIDTH
            self._console.print(Text.assemble((lead, "dim"), (part, style)), soft_wrap=True)

    def close(self) -> None:
        """Stop the clock and leave the cursor at the start of an empty line. Safe to repeat."""
        self.acquire()
        try:
            if not self._is_over.is_set():
                self._is_over.set()
                self._wipe()
        finally:
            self.release()
        super().close()

    def _tick(self) -> None:
        while not self._is_over.wait(TICK_SECONDS):
            self.acquire()
            try:
                if not self._is_over.is_set():
                    self._wipe()
                    self._console.file.write(self._time() + "…")
                    self._console.file.flush()
            finally:
                self.release()

    def _wipe(self) -> None:
        if self._console.is_terminal:
            self._console.file.write("\r\x1b[2K")
            self._console.file.flush()

    def _time(self) -> str:
        seconds = int(time.monotonic() - self._began)
        return f"{seconds // 60:3d}:{seconds % 60:02d}  "


def tell_progress() -> None:
    """Show our own log on stderr from now on, until the first result, complaint, or `end_progress`."""
    logger = logging.getLogger("onmodel")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not _progress_of(logger):
        logger.addHandler(logging.NullHandler())  # what is said after the end goes nowhere, not raw to stderr
        logger.addHandler(ProgressLines())


def end_progress() -> None:
    """Stop the clock, if one ticks; the log is shown no more. Safe to repeat."""
    logger = logging.getLogger("onmodel")
    for handler in _progress_of(logger):
        logger.removeHandler(handler)
        handler.close()


def _progress_of(logger: logging.Logger) -> list[ProgressLines]:
    return [handler for handler in logger.handlers if isinstance(handler, ProgressLines)]


def _console(stream: IO[str]) -> Console:
    return _Voice(file=stream, highlight=False, markup=False, emoji=False)


def _wrapped(line: str, console: Console, *, indent: int = 0, hang: int = 0) -> list[str]:
    """The line broken between words to fit a terminal. A long path stays whole, so that it can be copied."""
    room = console.width - indent
    if not console.is_terminal or len(line) <= room or room < NARROWEST:
        return [line]
    lead = " " * hang
    return textwrap.wrap(line, room, subsequent_indent=lead, break_long_words=False, break_on_hyphens=False)
