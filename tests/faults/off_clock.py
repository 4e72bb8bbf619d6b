"""`python -m tests.faults.off_clock SECONDS run …`: the command `onmodel` on a machine whose clock is off so much."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from providers.wiring import SystemClock


class OffClock(SystemClock):
    """The machine's clock, and what it is off by."""

    off_by = timedelta(seconds=float(sys.argv.pop(1)))

    def now(self) -> datetime:
        return datetime.now(UTC) + self.off_by


def main() -> None:
    """Put the clock into this process's ports, and be the command."""
    from providers.wiring import open_ports
    from studio.cli import main as command

    open_ports().clock = OffClock()
    command()


if __name__ == "__main__":
    main()
