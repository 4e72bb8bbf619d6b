"""What a person sees of `onmodel`: quick help, sentences that fit a terminal, one JSON document, and Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from domain.errors import BadInput
from providers.sandbox.launcher import control, ensure_sandbox, find_sandbox
from tests.command_runs import ROOT, Machine, own_machine
from tests.media_samples import drawn_frame

HEAVY = ["prefect", "numpy", "av", "psycopg", "boto3", "httpx", "pydantic", "fal_client", "PIL", "yaml", "jinja2"]
COMMANDS = ["demo", "run", "season", "status", "costs", "report", "pin", "doctor", "serve", "sandbox", "stop"]
COLUMNS = 80
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
SEASON = """\
season: little
budget_usd: 10
characters:
  - {name: Ana, lora: none, references: [ana.png, bo.png]}
slots:
  - {number: 1, prompt: "@Ana walks"}
  - {number: 3, prompt: "@Ana sits"}
"""


@pytest.fixture(scope="module")
def machine(server_url: str) -> Iterator[Machine]:
    """A machine whose season is imported and not yet run; its sandbox makes small videos."""
    with own_machine(server_url) as machine:
        for number, name in enumerate(("ana", "bo")):
            Image.fromarray(drawn_frame(9 * number, 640, 640)).save(machine.folder / f"{name}.png")
        ended = machine.onmodel("season", "import", machine.write(SEASON))
        assert ended.exit_code == 0, ended.err
        yield machine


# --- help and usage ---


def test_the_help_answers_without_any_heavy_package() -> None:
    code = (
        "import sys, studio.cli; code = studio.cli.run_command(['--help']); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert "Usage: onmodel COMMAND" in done.stdout


@pytest.mark.parametrize("command", ["", *COMMANDS, "season import"])
def test_every_help_fits_a_terminal_and_tells_what_the_command_does(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.cli import run_command

    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    assert run_command([*command.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(len(line.rstrip()) for line in out.splitlines()) <= COLUMNS
    if not command:
        assert all(f"│ {name} " in out for name in COMMANDS)
        first_column = [line for line in out.splitlines() if line.startswith("│  ")]
        assert first_column == [], "each command is told in one line"
        assert "Exit codes:" in out


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("rnu", 'Unknown command "rnu". Did you mean "run"? See: onmodel --help'),
        ("--jsno", 'Unknown command "--jsno". See: onmodel --help'),
        ("run", "onmodel run needs a value for FILE. See: onmodel run --help"),
        ("run a b", "onmodel run does not take 'b'. See: onmodel run --help"),
        ("run a --out", "onmodel run needs a value for --out. See: onmodel run --help"),
        ("run a --ouf b", "Unknown option: --ouf. Did you mean --out? See: onmodel run --help"),
        ("season imprt a", 'Unknown command "imprt". Did you mean "import"? See: onmodel season --help'),
        ("serve --port x", 'Invalid value for --port: unable to convert "x" into int. See: onmodel serve --help'),
    ],
)
def test_wrong_usage_ends_with_one_sentence_and_exit_2(
    typed: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from studio.cli import run_command

    assert run_command(typed.split()) == BadInput.exit_code
    assert capsys.readouterr() == ("", f"onmodel: {sentence}\n")


def test_a_wrong_command_with_json_still_prints_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    from studio.cli import run_command

    assert run_command(["run", "no-such-file.yaml", "--json"]) == 2
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["schema_version"] == 1
    assert document["exit_code"] == 2
    assert [f"onmodel: {sentence}" for sentence in document["errors"]] == err.splitlines()


# --- looking at a season ---


def test_status_costs_and_doctor_print_one_document_each_and_nothing_else(machine: Machine) -> None:
    for command in (["status", "little"], ["costs", "little"], ["report", "little", "--out", "again"], ["doctor"]):
        ended = machine.onmodel(*command, "--json")
        assert (ended.exit_code, ended.err) == (0, ""), command
        assert ended.document["schema_version"] == 1
    status = machine.onmodel("status", "little", "--json").document
    assert [slot["state"] for slot in status["slots"]] == ["planned", "planned"]
    assert status["gaps"] == [1, 2, 3]
    assert (machine.folder / "again" / "report.html").is_file()


def test_a_reader_that_has_seen_enough_is_no_error(machine: Machine) -> None:
    process = machine.start("status", "little")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 0


def test_a_full_disk_is_no_bug_of_ours(machine: Machine) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "studio.cli", "status", "little"],
            cwd=machine.folder,
            env=machine.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr.startswith("onmodel: No space left on device")


# --- a whole run on a terminal, with Ctrl-C in the middle ---


class Terminal:
    """A command on a terminal of 80 columns, as a person has it; `seen` is all it has shown so far."""

    def __init__(self, machine: Machine, *arguments: str | Path) -> None:
        self._ours, theirs = pty.openpty()
        # Whoever opens a terminal as the first of a session is ruled by it: then Ctrl-C reaches the whole of it.
        opened = 'tty=$1; shift; exec "$@" <"$tty" >"$tty" 2>&1'
        command = [sys.executable, "-m", "studio.cli", *map(str, arguments)]
        self.process = subprocess.Popen(
            ["sh", "-c", opened, "sh", os.ttyname(theirs), *command],
            cwd=machine.folder,
            env=machine.environment(COLUMNS=str(COLUMNS), TERM="xterm"),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._theirs = theirs
        self._bytes = b""

    @property
    def seen(self) -> str:
        return self._bytes.decode("utf-8", "replace")

    @property
    def lines(self) -> list[str]:
        """What stands on the screen in the end: escapes and wiped lines taken out."""
        rows = self.seen.replace("\r\n", "\n").split("\n")
        return [ESCAPES.sub("", row.rsplit("\r\x1b[2K", 1)[-1]).rstrip() for row in rows]

    def read_until(self, words: str, seconds: float = 180.0) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < deadline, self.seen
            assert self._read(1.0) or self.process.poll() is None, self.seen

    def press_ctrl_c(self) -> None:
        os.write(self._ours, b"\x03")

    def finish(self, seconds: float = 180.0) -> int:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None or self._read(0.1):
            assert time.monotonic() < deadline, self.seen
            self._read(0.1)
        os.close(self._ours)
        os.close(self._theirs)
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # Linux says EIO when the last program has left the terminal
            return False
        self._bytes += data
        return bool(data)


def _processes_of(machine: Machine, words: str) -> list[int]:
    """Processes of this machine's home whose command line holds the words."""
    found = []
    mine = f"ONMODEL_HOME={machine.home}".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_named = entry.name.isdigit() and words.encode() in (entry / "cmdline").read_bytes().replace(b"\0", b" ")
            if is_named and mine in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def test_ctrl_c_ends_a_run_at_once_and_the_same_command_finishes_it_without_paying_twice(machine: Machine) -> None:
    ensure_sandbox(machine.home, latency="2", more_arguments=("--max-video-height", "240"))
    first = Terminal(machine, "run", "season.yaml")
    first.read_until("slot 3, Ana")
    pressed = time.monotonic()
    first.press_ctrl_c()
    assert first.finish() == 130
    assert time.monotonic() - pressed < 15
    assert first.lines[-2:] == ["onmodel: Interrupted. Nothing is lost: the same command goes on where it was.", ""]
    assert "Traceback" not in first.seen
    assert "Prefect" not in first.seen
    _wait_until_none(machine, "studio.temporary_server")

    second = Terminal(machine, "run", "season.yaml")
    second.read_until("slot 3 is rendered")
    assert len(_processes_of(machine, "studio.temporary_server")) == 1
    assert not _processes_of(machine, "uvicorn"), "Prefect has started a server of its own"
    assert second.finish() == 0, second.seen
    assert max(len(line) for line in second.lines) <= COLUMNS
    assert "Season:  onmodel-out/little/season.mp4" in second.lines
    assert "Cost: 1.12 of 10.00 USD. A rehearsal at list prices: no money was spent." in second.lines
    assert any(re.fullmatch(r"Done in \d+ s\.", line) for line in second.lines)
    assert "Prefect" not in second.seen
    found = find_sandbox(machine.home)
    assert found is not None
    assert sum(control(found.url, "GET", "counters")["accepted"].values()) == 2
    _wait_until_none(machine, "studio.temporary_server")

    again = machine.onmodel("run", "season.yaml", "--json")
    assert (again.exit_code, again.err) == (0, ""), "nothing is left to do, so nothing is told"
    assert [slot["state"] for slot in again.document["slots"]] == ["done", "done"]
    assert sum(control(found.url, "GET", "counters")["accepted"].values()) == 2


def test_a_killed_run_leaves_no_server_behind(machine: Machine) -> None:
    process = machine.start("run", machine.write(SEASON.replace("season: little", "season: killed"), "killed.yaml"))
    deadline = time.monotonic() + 60
    while not _processes_of(machine, "studio.temporary_server"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        threading.Event().wait(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    _wait_until_none(machine, "studio.temporary_server")


def _wait_until_none(machine: Machine, words: str) -> None:
    deadline = time.monotonic() + 40
    while _processes_of(machine, words):
        assert time.monotonic() < deadline, f"{words} is still there"
        threading.Event().wait(0.05)
