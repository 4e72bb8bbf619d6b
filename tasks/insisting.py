"""Writing down what happened at a vendor although the database is away: again and again, and meanwhile on paper.

Between a vendor's answer and its row nothing may be forgotten. While the database does not answer, the ids of an
accepted job also lie in a small file of this machine, from where the next process takes them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from domain.errors import Unavailable
from domain.jobs import VendorJobIds

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.jobs")

INSIST_SECONDS = 120.0
"""A database that restarts is back in seconds; one that is away for longer finds the file when it is back."""

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0


def insist(ports: Ports, write: Callable[[], None]) -> None:
    """Call `write`, which must be safe to repeat, until the database takes it; `Unavailable` after two minutes."""
    waited, pause = 0.0, FIRST_PAUSE_SECONDS
    while True:
        try:
            write()
            return
        except Unavailable:
            if waited >= INSIST_SECONDS:
                raise
        ports.clock.sleep(pause)
        waited += pause
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def store_accepted(ports: Ports, key: str, vendor: str, ids: VendorJobIds) -> None:
    """Commit the ids of a job that the vendor took; they are never forgotten while this machine's disk lives."""
    note = _note(ports, key)
    try:
        ports.ledger.submitted(key, ids)
        return
    except Unavailable:
        _write_note(note, ids)
    except Exception:
        _write_note(note, ids)
        _cry_out(key, vendor, ids, note)
        raise
    try:
        insist(ports, lambda: ports.ledger.submitted(key, ids))
    except Exception:
        _cry_out(key, vendor, ids, note)
        raise
    note.unlink(missing_ok=True)


def take_up_note(ports: Ports, key: str) -> bool:
    """Store the ids that an earlier process of this machine could not; False when there are none. Safe to repeat."""
    note = _note(ports, key)
    try:
        ids = VendorJobIds.model_validate_json(note.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    ports.ledger.submitted(key, ids, f"request {ids.request_id}, from {note.name}")
    note.unlink(missing_ok=True)
    return True


def _note(ports: Ports, key: str) -> Path:
    return ports.settings.home / "accepted" / f"{key}.json"


def _write_note(note: Path, ids: VendorJobIds) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        fresh = note.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(ids.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(note)
    except OSError as error:
        log.critical("%s could not be written either: %s", note, error)


def _cry_out(key: str, vendor: str, ids: VendorJobIds, note: Path) -> None:
    log.critical(
        "%s: %s accepted request %s, which could not be stored; it stands in %s", key, vendor, ids.request_id, note
    )
