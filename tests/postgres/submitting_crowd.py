"""Fifty workers at once: `python -m tests.postgres.submitting_crowd URL HOME SEASON_ID COUNT one|each`.

Imports everything once and forks, so that a crowd of real processes costs one start. Each has connections and a vendor
of its own; they begin together, and each writes one line: the key, its end, its POSTs.
"""

from __future__ import annotations

import os
import sys
from decimal import Decimal
from pathlib import Path

from domain.errors import OnModelError
from domain.jobs import VendorState
from providers.postgres.database import Database
from providers.wiring import SystemClock
from tasks.jobs import await_job, plan_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import PortsForTests, settings_for_tests
from tests.postgres.door_orders import order_in

PRICE_USD = Decimal("0.35")


def main(url: str, home: str, season_id: int, count: int, what: str) -> int:
    """0 when every process said its line."""
    may_begin, open_gate = os.pipe()
    said, say = os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            os.close(open_gate)
            _work(url, Path(home), season_id, number if what == "each" else 0, may_begin, say)
        children.append(child)
    os.close(say)
    with os.fdopen(said) as lines:
        ready = sum(lines.readline() == "ready\n" for _ in children)
        os.close(open_gate)
        sys.stdout.write(lines.read())
    ends = [os.waitpid(child, 0)[1] for child in children]
    return 0 if ready == count and not any(ends) else 1


def _work(url: str, home: Path, season_id: int, work: int, may_begin: int, say: int) -> None:
    status = 1
    try:
        vendor = StandinVendor(billed_usd=PRICE_USD, states=(VendorState.DONE,))
        ports = PortsForTests(settings_for_tests(home, url), {"sandbox": vendor}, SystemClock())
        order = order_in(ports, season_id, usd=str(PRICE_USD), prompt=f"shot {work}")
        ports.__dict__["database"] = Database.open(url)  # its tables are there: fifty need not look for migrations
        os.write(say, b"ready\n")
        os.read(may_begin, 1)
        key = "none"
        try:
            key = plan_job(ports, order)
            submit_job(ports, key)
            await_job(ports, key)
            end = str(ports.ledger.get(key).state)
        except OnModelError as error:
            end = type(error).__name__
        os.write(say, f"{key} {end} {len(vendor.posts)}\n".encode())
        ports.close()
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]))
