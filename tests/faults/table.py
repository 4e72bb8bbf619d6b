"""`make faults`: run every cell and the whole runs, print the table, write docs/faults.md; fail if one differs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.counting import Count
from tests.faults.drive import BUDGET_USD
from tests.faults.matrix import Cell, Fault, VendorName, cells, steps_of
from tests.faults.stands import CEILING_USD

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
FOLDER_VARIABLE = "ONMODEL_TEST_FAULTS"
COLUMNS = 3
WIDTH = 80
GAP = "  "
WHOLE = "whole-run-"
DIFFERS, MISSING, NO_CELL = "!", "not run", "-"

INTRODUCTION = f"""# What happens when it dies: the fault matrix

Written by `make faults`, never by hand. Each cell is one job through the door
for money (`tasks/jobs.py`) in a process of its own, on a real PostgreSQL, with
a real adapter over HTTP to a stand-in of the vendor. The fault strikes exactly
at the step; then the same work is started again until it is done or exits 6
(a person decides), and it is counted:

    how it ended, then
    jobs the vendor accepted / results lost / cents over budget / pods left

The budget is {BUDGET_USD} USD and an attempt reserves {CEILING_USD}; one that failed for certain
is followed by a second. Beside these numbers every cell checks that every
move of the ledger was a legal one, that exactly one job has succeeded and is
settled when it is done, that what was spent is what was logged, that nothing
stays reserved once all is over, that exit 6 says how to decide, and that the
fault really struck.

- Faults of ours (SIGKILL, SIGSTOP, Postgres, the clock) strike at the worst
  moment of the step. Before the POST: the row is marked and nothing has left.
  After it: the vendor has answered and its id is not stored. At the download:
  half of a file is here. At the settlement: the files are noted and the job
  is not settled. When Postgres dies after the POST, fal's list is empty too.
- SIGSTOP: a second worker comes while the first stands still, and then the
  first goes on.
- All other faults are the vendor's answer to the request of that step. Before
  the POST that is the upload of a file (RunPod takes none: there it is put
  where its pod will read it). After it the vendor has taken the job, except
  for the 429, and its answer is spoiled. RunPod's pods are played: they leave
  their files at the second look, and what a worker does is tested elsewhere.
  Its completion is the deletion of the pod, its download is from our own store.
- A fault that no answer of a step can carry meets the nearest request that
  can: an address that expires while polling is met by the download.
- Settling asks the vendor nothing. It is broken off by SIGKILL before the kept
  files are noted, and whoever takes it up meets the fault. What becomes of the
  job itself (vanished, expired, without end, in an unknown state) happens after
  they are noted, and must not matter.
- "Job vanished" and "status never ends" mean for good. The file that expires is
  there again under a new address, one that vanished is not.
"""

WHOLE_RUNS = """\
The command itself, with Prefect, the embedded Postgres and the sandbox in a
process of its own: a season of one character and one slot, so that one video
is bought. It is started again until it ends with 0 or 6. No halting points
here: the run is struck while the sandbox keeps it waiting at that step, or
while its settlement waits for a row that the test holds.
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
    missing = [cell.name for cell in cells() if not cell.not_run_because and cell.name not in counts]
    if missing:
        sys.stdout.write(f"{PAGE} stays as it was: {len(missing)} cells did not run.\n")
        return ended.returncode or 1
    PAGE.write_text(f"{text}\nLast run: {datetime.now(UTC):%Y-%m-%d}\n")
    return ended.returncode


def page(counts: dict[str, Count]) -> str:
    """The whole document but for its date."""
    parts = [INTRODUCTION]
    for vendor in VendorName:
        parts.append(f"## {vendor}\n")
        parts += [f"```text\n{block}\n```\n" for block in _blocks(vendor, counts)]
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
    return [
        _aligned(
            [
                ["", *(str(step) for step in columns)],
                *([str(fault), *(shown(by_place[fault, step], counts) for step in columns)] for fault in Fault),
            ]
        )
        for columns in (steps[first : first + COLUMNS] for first in range(0, len(steps), COLUMNS))
    ]


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        GAP.join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _reasons() -> str:
    why: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells():
        reason = cell.not_run_because and f"Not run: {cell.not_run_because}."
        if not reason and cell.expected.reason:
            reason = f"{cell.expected}: {cell.expected.reason}."
        if reason:
            why[reason].append(cell)
    lines = ['## Where it is not "done 1", and why\n']
    for reason, places in why.items():
        lines.append(_item("- ", reason))
        by_row: dict[tuple[VendorName, Fault], list[str]] = defaultdict(list)
        for cell in places:
            by_row[cell.vendor, cell.fault].append(cell.step)
        lines += [_item("  - ", f"{vendor}, {fault}: {', '.join(steps)}") for (vendor, fault), steps in by_row.items()]
    return "\n".join(lines) + "\n"


def _item(mark: str, text: str) -> str:
    return textwrap.fill(mark + text, WIDTH, subsequent_indent=" " * len(mark))


def _whole_runs(counts: dict[str, Count]) -> str:
    found = sorted((name, count) for name, count in counts.items() if name.startswith(WHOLE))
    body = _aligned([[name[len(WHOLE) + 3 :].replace("_", " "), str(count)] for name, count in found]) or MISSING
    return f"## Whole runs of `onmodel run`\n\n{WHOLE_RUNS}\n```text\n{body}\n```\n"


if __name__ == "__main__":
    sys.exit(main())
