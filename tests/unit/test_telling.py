"""How the command line speaks: plain lines in a file, broken between words on a terminal, one JSON document."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from domain.errors import BadInput, JobFailed, NotConfigured, OnModelError, OutOfCredit, OverBudget, SubmissionUnknown
from studio.folders import usable_folder
from studio.outcome import exit_code_of
from studio.telling import ProgressLines, complain, end_progress, print_json, print_table, say, tell_progress

STYLES = re.compile(r"\x1b\[[0-9;]*m")
LONG = "A sentence that is longer than eighty columns, so that a terminal of that width has to break it somewhere."
PATH = "/a/path/" + "that-must-stay-whole-/" * 6


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@contextmanager
def speaking_to(stream: io.StringIO) -> Iterator[None]:
    """Both of this process's outputs go to one stream."""
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = stream
    try:
        yield
    finally:
        end_progress()
        sys.stdout, sys.stderr = before


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 80 columns without colours."""
    for name, value in {"COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def test_in_a_file_every_message_is_one_line() -> None:
    stream = io.StringIO()
    with speaking_to(stream):
        say(LONG)
        complain(LONG + "\n" + PATH)
    assert stream.getvalue().splitlines() == [LONG, f"onmodel: {LONG}", f"onmodel: {PATH}"]


def test_on_a_terminal_sentences_break_between_words(narrow: Terminal) -> None:
    with speaking_to(narrow):
        say(LONG, hang=4)
        complain(LONG)
    lines = STYLES.sub("", narrow.getvalue()).splitlines()
    assert len(lines) == 4
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith("    ")
    assert lines[2].startswith("onmodel: A sentence")
    assert lines[3].startswith("         ")
    assert " ".join(" ".join(lines[:2]).split()) == LONG


def test_a_path_stays_whole_on_a_terminal_so_that_it_can_be_copied(narrow: Terminal) -> None:
    with speaking_to(narrow):
        say(f"Report: {PATH}")
    assert PATH in narrow.getvalue()


@pytest.mark.parametrize("markup", ["[bold]no[/bold]", ":smile:", "[red", "\\[x]"])
def test_markup_in_a_message_is_only_text(markup: str) -> None:
    stream = io.StringIO()
    with speaking_to(stream):
        say(markup)
        complain(markup)
        print_table("title", ["column"], [[markup]])
    assert stream.getvalue().count(markup) == 3


def test_json_has_its_schema_version_first_and_keeps_letters() -> None:
    stream = io.StringIO()
    with speaking_to(stream):
        print_json({"season": "été", "path": Path("a")})
    assert json.loads(stream.getvalue()) == {"schema_version": 1, "season": "été", "path": "a"}
    assert stream.getvalue().startswith('{\n  "schema_version": 1,')
    assert "été" in stream.getvalue()


def test_progress_in_a_file_is_plain_lines_with_the_time() -> None:
    stream = io.StringIO()
    with speaking_to(stream):
        tell_progress()
        tell_progress()
        logging.getLogger("onmodel.anything").info("%d frames kept", 7)
        logging.getLogger("onmodel.anything").debug("not told")
        end_progress()
        logging.getLogger("onmodel.anything").warning("told to nobody")
    assert stream.getvalue() == "  0:00  7 frames kept\n"


def test_a_clock_ticks_under_the_progress_on_a_terminal_and_is_wiped_in_the_end() -> None:
    ticks = Ticking()
    with speaking_to(ticks):
        tell_progress()
        logging.getLogger("onmodel").info("working")
        assert ticks.has_ticked.wait(10)
        say("The result.")
    text = STYLES.sub("", ticks.getvalue())
    assert "  0:00  working\n" in text
    assert text.endswith("…\r\x1b[2KThe result.\n")


class Ticking(Terminal):
    """A terminal that notices the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.has_ticked = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if text.endswith("…"):
            self.has_ticked.set()
        return written


def test_a_long_progress_line_hangs_under_its_own_beginning(narrow: Terminal) -> None:
    handler = ProgressLines(narrow)
    handler.emit(logging.LogRecord("onmodel", logging.INFO, __file__, 1, LONG, None, None))
    handler.close()
    first, second, *_ = STYLES.sub("", narrow.getvalue()).replace("\r\x1b[2K", "").splitlines()
    assert len(first) <= 80
    assert second.startswith("        ")


# --- how commands end ---


def raised(error: BaseException, *, as_json: bool = False) -> tuple[int, str, str]:
    def call() -> int:
        raise error

    out, err = io.StringIO(), io.StringIO()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        code = exit_code_of(call, as_json=as_json)
    finally:
        sys.stdout, sys.stderr = before
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("It is so."), 2),
        (NotConfigured("It is so."), 3),
        (OverBudget("It is so."), 4),
        (OutOfCredit("It is so."), 4),
        (JobFailed("It is so."), 5),
        (SubmissionUnknown("It is so."), 6),
        (OnModelError("It is so."), 1),
    ],
)
def test_every_error_ends_with_its_sentence_and_its_code(error: OnModelError, code: int) -> None:
    assert raised(error) == (code, "", "onmodel: It is so.\n")
    ended, out, _ = raised(error, as_json=True)
    assert (ended, json.loads(out)) == (code, {"schema_version": 1, "exit_code": code, "errors": ["It is so."]})


def test_a_bug_is_one_line_and_keeps_its_traceback_in_a_file() -> None:
    code, out, err = raised(RuntimeError("first line\nsecond line"))
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "RuntimeError: first line" in err
    kept = Path(err.rsplit("send us ", 1)[1].strip().rstrip("."))
    assert "second line" in kept.read_text()
    kept.unlink()


def test_ctrl_c_is_130_and_says_nothing_twice() -> None:
    assert raised(KeyboardInterrupt()) == (130, "", "")


def test_a_full_disk_is_the_machines_fault() -> None:
    code, _, err = raised(OSError(28, "No space left on device", "/a/file"))
    assert (code, err.startswith("onmodel: No space left on device (/a/file): ")) == (3, True)


def test_any_other_os_error_is_our_bug() -> None:
    code, _, err = raised(OSError(9, "Bad file descriptor"))
    assert code == 1
    Path(err.rsplit("send us ", 1)[1].strip().rstrip(".")).unlink()


# --- where results go ---


def test_a_folder_that_is_not_there_yet_is_fine_and_is_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deeper"
    assert usable_folder(folder) == folder
    assert not folder.parent.exists()


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_way_of_the_results_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="file is no folder"):
        usable_folder(tmp_path / "file" / below)
