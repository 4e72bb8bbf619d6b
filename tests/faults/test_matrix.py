"""Every cell of the fault matrix, really run. `make faults` runs them with the whole runs and writes docs/faults.md."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.drive import Grounds, run_cell
from tests.faults.matrix import Cell, cells


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in cells() if not cell.not_run_because])
def test_a_fault_at_a_step_ends_as_it_must(grounds: Grounds, cell: Cell) -> None:
    count = run_cell(grounds, cell)
    folder = os.environ.get("ONMODEL_TEST_FAULTS")
    if folder:
        (Path(folder) / f"{cell.name}.json").write_text(count.model_dump_json())
    assert count.is_as(cell), f"{count} instead of {cell.expected}: {count.problems} {count.told}"
