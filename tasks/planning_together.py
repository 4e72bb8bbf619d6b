"""Jobs that are of use only together: all of them are planned, or none holds money back from other work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from domain.errors import AsksForBudget, OverBudget
from domain.jobs import JobOrder
from tasks.jobs import current_job, plan_job

if TYPE_CHECKING:
    from providers.wiring import Ports

WHY = "not sent: the work it belongs to does not fit into the budget as a whole"


def plan_together(ports: Ports, orders: Iterable[JobOrder], *, max_attempts: int) -> list[str]:
    """The keys of the jobs that do this work, in its order, as `plan_job` finds or plans each. Safe to repeat.

    `OverBudget` or `AsksForBudget` when one does not fit: what was newly reserved for the others is then released, so
    that it is free for work that fits. What was there before stays. Costs nothing.
    """
    keys: list[str] = []
    planned: list[str] = []
    try:
        for order in orders:
            before = current_job(ports, order.work_key)
            key = plan_job(ports, order, max_attempts=max_attempts)
            if before is None or before.key != key:
                planned.append(key)
            keys.append(key)
    except (OverBudget, AsksForBudget):
        for key in planned:
            ports.ledger.cancel_planned(key, WHY)
        raise
    return keys
