"""A sample of the fault matrix: each fault at each vendor, at its worst step. All of it: `make faults`."""

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
"""Every other fault hurts most between the POST and the stored id; so do all of them at RunPod, which goes no further
yet."""


def sample() -> list[Cell]:
    """One cell for each fault and vendor."""
    return [cell for cell in cells() if cell.step is _worst(cell) and not cell.not_run_because]


def _worst(cell: Cell) -> Step:
    step = WORST.get(cell.fault, Step.AFTER_POST)
    is_later = cell.vendor is VendorName.RUNPOD and step is not Step.BEFORE_POST
    return Step.AFTER_POST if is_later else step


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in sample()])
def test_a_fault_at_its_worst_step_ends_as_it_must(grounds: Grounds, cell: Cell) -> None:
    count = run_cell(grounds, cell)
    assert count.is_as(cell), f"{count} instead of {cell.expected}: {count.problems} {count.told}"


def test_every_fault_is_in_the_sample_at_every_vendor_that_can_have_it() -> None:
    there = {(cell.vendor, cell.fault) for cell in sample()}
    nowhere = {(cell.vendor, cell.fault) for cell in cells() if cell.not_run_because}
    assert there | nowhere == {(vendor, fault) for vendor in VendorName for fault in Fault}
