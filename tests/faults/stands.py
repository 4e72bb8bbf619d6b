"""The vendors that the matrix buys from: each a stand-in over real HTTP that can be told what its next answers meet.

`strike(step, fault)` arms a fault for the next request of that step; for a settlement, which asks the vendor nothing,
that of the process that takes it up. Counts are since `begin()`.
"""

from __future__ import annotations

from decimal import Decimal
from types import TracebackType
from typing import Protocol

from domain.jobs import JobOrder, Operation, Stage, VendorRequest
from providers.ports import BlobStore
from tasks.results import FETCH_AFTER_SECONDS
from tests.faults.matrix import Fault, Step, VendorName

ESTIMATE_USD, CEILING_USD = Decimal(1), Decimal(2)
ODD_STATUS = 599
"""A status that no standard and no vendor knows."""

FREE_REPEATS = 2
"""How often in a row a free request meets its fault."""

FETCHES = len(FETCH_AFTER_SECONDS)
REPEATS_OF_SILENCE = 3


class Stand(Protocol):
    """A vendor's stand-in as the matrix uses it; a context manager."""

    vendor: VendorName
    url: str
    poll_seconds: float

    def begin(self) -> None:
        """Forget every fault, and count from here."""

    def order(self, season_id: int, blobs: BlobStore) -> JobOrder:
        """Work of the usual kind for the season."""

    def strike(self, step: Step, fault: Fault) -> None:
        """Arm the fault."""

    def hide_jobs(self) -> None:
        """Show no job to a look-up any more, where the vendor's list may lag: what we were told is all there is."""

    def has_struck(self) -> bool:
        """Whether every request that was to meet the fault has met it."""

    def accepted(self) -> int:
        """Jobs taken since `begin`."""

    def served(self) -> frozenset[str]:
        """SHA-256s of the files that the jobs taken since `begin` made."""

    def __enter__(self) -> Stand: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def paid_order(season_id: int, request: VendorRequest, operation: Operation, stage: Stage) -> JobOrder:
    """An order of the usual price for slot 1."""
    return JobOrder(
        season_id=season_id,
        slot_number=1,
        stage=stage,
        operation=operation,
        api_name=f"{request.vendor}_{operation}",
        model_key=f"{request.vendor}_{operation}",
        request=request,
        estimate_usd=ESTIMATE_USD,
        ceiling_usd=CEILING_USD,
    )


def after_settling(fault: Fault) -> Step:
    """Which request of the process that finishes a settlement meets the fault."""
    match fault:
        case Fault.EXPIRED | Fault.TRUNCATED:
            return Step.DOWNLOAD
        case Fault.MALFORMED:
            return Step.COMPLETION
        case _:
            return Step.POLLING
