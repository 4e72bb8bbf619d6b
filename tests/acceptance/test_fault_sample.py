"""A sample of the fault matrix: each fault at fal and at one other vendor, at its worst step. All: `make faults`."""

from __future__ import annotations

import pytest

from tests.faults import fixtures
from tests.faults.drive import Grounds, run_cell
from tests.faults.matrix import Cell, Fault, Step, VendorName, cells

grounds = fixtures.grounds

WORST = {
    Fault.KILL: Step.BEFORE_POST,
    Fault.DATABASE: Step.AFTER_POST,
    Fault.EXPIRED: Step.DOWNLOAD,
    Fault.TRUNCATED: Step.DOWNLOAD,
    Fault.ENDLESS: Step.POLLING,
    Fault.UNKNOWN: Step.POLLING,
    Fault.CLOCK_AHEAD: Step.SETTLEMENT,
}
"""Every other fault hurts most between the POST and the stored id."""

OTHERS = [vendor for vendor in VendorName if vendor is not VendorName.FAL]


def sample() -> list[Cell]:
    """Two cells for each fault: at fal, and at the vendor whose turn it is."""
    return [cell for cell in _worst_cells() if cell.vendor is VendorName.FAL or cell.vendor is _turn(cell.fault)]


def _worst_cells() -> list[Cell]:
    at_worst = (cell for cell in cells() if cell.step is WORST.get(cell.fault, Step.AFTER_POST))
    return [cell for cell in at_worst if not cell.not_run_because]


def _turn(fault: Fault) -> VendorName:
    """The other vendors take the faults by turns; one that cannot have a fault leaves it to the next."""
    there = [vendor for vendor in OTHERS if any((c.vendor, c.fault) == (vendor, fault) for c in _worst_cells())]
    return there[list(Fault).index(fault) % len(there)] if there else VendorName.FAL


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in sample()])
def test_a_fault_at_its_worst_step_ends_as_it_must(grounds: Grounds, cell: Cell) -> None:
    count = run_cell(grounds, cell)
    assert count.is_as(cell), f"{count} instead of {cell.expected}: {count.problems} {count.told}"


def test_every_fault_is_in_the_sample_and_so_is_every_vendor() -> None:
    assert {cell.fault for cell in sample()} == set(Fault)
    assert {cell.vendor for cell in sample()} == set(VendorName)
    assert len(sample()) > len(Fault), "fal's and another's"
