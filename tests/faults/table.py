"""`make faults`: run every cell and the whole runs, print the table, write docs/faults.md; fail if one differs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.drive import BUDGET_USD, Count
from tests.faults.matrix import RUNPOD_LATER, Cell, Fault, VendorName, cells, steps_of
from tests.faults.stands import CEILING_USD

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
FOLDER_VARIABLE = "ONMODEL_TEST_FAULTS"
COLUMNS = 3
ROW_WIDTH, CELL_WIDTH = 23, 24
WHOLE = "whole-run-"
DIFFERS, MISSING, NO_CELL = "!", "not run", "-"

INTRODUCTION = f"""# What happens when it dies: the fault matrix

Written by `make faults`, never by hand. Each cell is one job through the door for money (`tasks/jobs.py`) in a
process of its own, on a real PostgreSQL, with a real adapter over HTTP to a stand-in of the vendor. The fault strikes
once, exactly at the step; then the same work is started again until it is done or exits 6, and counted:

    how it ended, then  jobs the vendor accepted / results lost / cents over budget / pods left

The budget is {BUDGET_USD} USD and an attempt reserves {CEILING_USD}. Beside these numbers every cell checks that each
move of the ledger was a legal one, that what was spent is what was logged, that nothing stays reserved once all is
over, and that the armed fault really struck.

- Faults of the process strike at its worst moment of the step: before the POST the row is marked and nothing has left;
  after it the vendor has answered and its id is not stored; half of a file is here; the files are kept and not settled.
- All other faults are the vendor's answer to the request of that step. Before the POST that is the upload of a file
  (RunPod, which takes none: the ping of a vendor that was down). After it, the vendor has taken the job, except for
  429, and its answer is spoiled. Settling asks the vendor nothing: it is broken off by SIGKILL, and whoever takes it up
  meets the fault. A fault that no answer of the step can have (an expired address while polling) is armed there and
  meets the next request that can.
"""


def main() -> int:
    """Run, print, write; 0 when every cell is as expected."""
    with tempfile.TemporaryDirectory(prefix="onmodel-faults-") as folder:
        environment = {**os.environ, FOLDER_VARIABLE: folder}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "--dist",
            "worksteal",
            "tests/faults",
            *sys.argv[1:],
        ]
        ended = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        counts = {path.stem: Count.model_validate_json(path.read_text()) for path in Path(folder).glob("*.json")}
    text = page(counts)
    sys.stdout.write(text[text.index("## fal") :])
    PAGE.write_text(f"{text}\nLast run: {datetime.now(UTC):%Y-%m-%d}\n")
    return ended.returncode


def page(counts: dict[str, Count]) -> str:
    """The whole document but for its date."""
    parts = [INTRODUCTION]
    for vendor in VendorName:
        parts.append(f"## {vendor}\n")
        parts += [f"```text\n{block}\n```\n" for block in _blocks(vendor, counts)]
        if vendor is VendorName.RUNPOD:
            parts.append(f"{RUNPOD_LATER}\n")
    parts.append(_reasons())
    parts.append(_whole_runs(counts))
    return "\n".join(parts)


def shown(cell: Cell, counts: dict[str, Count]) -> str:
    """A cell in the table; one that differs from what is expected carries a "!"."""
    if cell.not_run_because:
        return NO_CELL
    count = counts.get(cell.name)
    if count is None:
        return MISSING
    return str(count) if count.is_as(cell) else f"{DIFFERS} {count}"


def _blocks(vendor: VendorName, counts: dict[str, Count]) -> list[str]:
    steps = steps_of(vendor)
    by_place = {(cell.fault, cell.step): cell for cell in cells() if cell.vendor is vendor}
    blocks = []
    for first in range(0, len(steps), COLUMNS):
        columns = steps[first : first + COLUMNS]
        lines = [_line("", [str(step) for step in columns])]
        lines += [_line(fault, [shown(by_place[fault, step], counts) for step in columns]) for fault in Fault]
        blocks.append("\n".join(lines))
    return blocks


def _line(row: str, words: Sequence[str]) -> str:
    return (row.ljust(ROW_WIDTH) + "".join(word.ljust(CELL_WIDTH) for word in words[:-1]) + words[-1]).rstrip()


def _reasons() -> str:
    why: dict[str, list[str]] = defaultdict(list)
    for cell in cells():
        reason = cell.not_run_because and f"Not run: {cell.not_run_because}"
        if not reason and cell.expected.reason:
            reason = f"{cell.expected}: {cell.expected.reason}"
        if reason:
            why[reason].append(f"{cell.vendor}, {cell.fault}, {cell.step}")
    lines = ['## Where it is not "done 1", and why\n']
    for reason, places in why.items():
        lines += [f"- {reason}", *(f"  - {place}" for place in places)]
    return "\n".join(lines) + "\n"


def _whole_runs(counts: dict[str, Count]) -> str:
    found = sorted((name.removeprefix(WHOLE), count) for name, count in counts.items() if name.startswith(WHOLE))
    lines = [_line(name.replace("_", " "), [str(count)]) for name, count in found]
    body = "\n".join(lines) or MISSING
    return f"## Whole runs of `onmodel run`\n\n```text\n{body}\n```\n"


if __name__ == "__main__":
    sys.exit(main())
