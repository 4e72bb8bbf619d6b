"""The circuit breakers of the vendors, shared by all processes: who saw what becomes a row, changed under its lock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from domain.circuits import Circuit, CircuitState
from providers.postgres.rows import Table, one

_COLUMNS = "vendor, state, cause, reason, failures, openings, opened_at, probe_after"


class CircuitTable(Table):
    """`vendor_circuits`; a vendor without a row is closed: all is well."""

    def get(self, vendor: str) -> Circuit:
        """How it stands."""
        row = self._one(f"SELECT {_COLUMNS} FROM vendor_circuits WHERE vendor = %s", (vendor,))
        return Circuit.model_validate(row) if row else Circuit(vendor=vendor)

    def all(self) -> list[Circuit]:
        """Every vendor that ever had trouble."""
        rows = self._all(f"SELECT {_COLUMNS} FROM vendor_circuits ORDER BY vendor", ())
        return [Circuit.model_validate(row) for row in rows]

    def change(self, vendor: str, step: Callable[[Circuit], Circuit]) -> tuple[Circuit, Circuit]:
        """Take a step under the row's lock: (before, after). Written only when it changes something."""
        with self._database.transaction() as db:
            db.execute(
                "INSERT INTO vendor_circuits (vendor, state) VALUES (%s, 'closed') ON CONFLICT (vendor) DO NOTHING",
                (vendor,),
            )
            row = one(db, f"SELECT {_COLUMNS} FROM vendor_circuits WHERE vendor = %s FOR UPDATE", (vendor,))
            before = Circuit.model_validate(row)
            after = step(before)
            if after != before:
                db.execute(
                    """UPDATE vendor_circuits SET state = %(state)s, cause = %(cause)s, reason = %(reason)s,
                       failures = %(failures)s, openings = %(openings)s, opened_at = %(opened_at)s,
                       probe_after = %(probe_after)s, changed_at = now() WHERE vendor = %(vendor)s""",
                    after.model_dump(),
                )
        return before, after

    def start_probe(self, vendor: str, now: datetime) -> bool:
        """Whether this process is the one that tries the vendor now; the others wait for what becomes of it."""
        before, after = self.change(vendor, lambda circuit: circuit.probing(now) if circuit.may_probe(now) else circuit)
        return before != after and after.state is CircuitState.HALF_OPEN
