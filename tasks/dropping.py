"""Dropping what nobody needs any more: weights of LoRAs that failed long ago, files nothing refers to, leftovers.

What is unsure is kept. When the list of what is referred to cannot be read whole, nothing is dropped at all.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from domain.errors import OnModelError
from domain.upkeep import BLOB_KEPT_FOR, LORA_KEPT_FOR, SCRATCH_KEPT_FOR, IdleLora, StepReport, UpkeepStep

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.upkeep")

MEGABYTE = 1_000_000
NAMED = 10
"""So many files are named in the report; of the rest it tells the number."""


def drop_leftovers(ports: Ports, *, is_dry_run: bool) -> StepReport:
    """Drop weights, files of our store and files of a moment whose time is over. Free, safe to repeat.

    Reads every row of the database, and lists the whole store.
    """
    did, problems = [], []
    for drop in (_drop_weights, _drop_blobs, _drop_scratch):
        try:
            did += drop(ports, is_dry_run=is_dry_run)
        except OnModelError as error:
            problems.append(error.message)
    waits = _notes_that_wait(ports)
    return StepReport(step=UpkeepStep.FILES, did=tuple(did), waits=tuple(waits), problems=tuple(problems))


# --- the weights of LoRAs that came to nothing ---


def _drop_weights(ports: Ports, *, is_dry_run: bool) -> list[str]:
    did = []
    for lora in ports.upkeep.idle_loras(LORA_KEPT_FOR):
        if not is_dry_run:
            # The row is marked only when the bytes are gone: what is interrupted in between is done again.
            ports.blobs.delete(lora.sha256)
            ports.upkeep.note_dropped(lora.id)
        did.append(_weights_line(lora, is_dry_run=is_dry_run))
    return did


def _weights_line(lora: IdleLora, *, is_dry_run: bool) -> str:
    done = "would be dropped" if is_dry_run else "are dropped, its row stays"
    return (
        f"The weights of LoRA {lora.id} ({lora.character_name}, {lora.base_model}, version {lora.version}), "
        f"{lora.status} for {LORA_KEPT_FOR.days} days and used by nothing, {done}."
    )


# --- files of our store that nothing refers to ---


def _drop_blobs(ports: Ports, *, is_dry_run: bool) -> list[str]:
    before = ports.clock.now() - BLOB_KEPT_FOR
    born_at = ports.upkeep.born_at()
    mark = ports.ledger.installation()
    if not is_dry_run:
        ports.blobs.share(mark)
    others = ports.blobs.sharers() - {mark}
    # First the store, then the references: a row written in between counts.
    old = set(ports.blobs.digests_older_than(before))
    forgotten = sorted(old - ports.upkeep.referenced_digests()) if old else []
    dropped, size_bytes = [], 0
    for sha256 in forgotten:
        stored_at = ports.blobs.stored_at(sha256)
        # Asked again right before: what was put meanwhile is wanted. And what is older than the database may be needed
        # by another one that shares the store, or by the one that this was restored from.
        if stored_at is None or stored_at >= before or stored_at < born_at:
            continue
        size_bytes += ports.blobs.size_bytes(sha256)
        if not is_dry_run and not others:
            ports.blobs.delete(sha256)
            log.info("dropped %s, which nothing refers to", sha256)
        dropped.append(sha256)
    if not dropped:
        return []
    if others:
        return [
            f"{len(dropped)} stored files that nothing here refers to are kept, because another database uses the "
            f"store too: {', '.join(sorted(others))}."
        ]
    done = "would be dropped" if is_dry_run else "dropped"
    names = ", ".join(f"{sha256[:12]}…" for sha256 in dropped[:NAMED]) + (", …" if len(dropped) > NAMED else "")
    return [
        f"{len(dropped)} stored files ({size_bytes / MEGABYTE:.1f} MB) that nothing has referred to for "
        f"{BLOB_KEPT_FOR.days} days, {done}: {names}"
    ]


# --- files of a moment ---


def _drop_scratch(ports: Ports, *, is_dry_run: bool) -> list[str]:
    before = ports.clock.now() - SCRATCH_KEPT_FOR
    left = [path for path in _entries(ports.settings.home / "scratch") if _newest(path) < before]
    left += [note for note in _entries(_notes_folder(ports)) if _newest(note) < before and _is_done_with(ports, note)]
    for path in left:
        if not is_dry_run:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
    if not left:
        return []
    return [f"{len(left)} leftovers of processes that were killed, {'would be removed' if is_dry_run else 'removed'}."]


def _entries(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from folder.iterdir()


def _newest(path: Path) -> datetime:
    """When it was last written to, a folder with everything in it; now where it cannot be told, so that it is kept."""
    times = []
    with suppress(OSError):
        times = [path.lstat().st_mtime]
        if path.is_dir() and not path.is_symlink():
            times += [inner.lstat().st_mtime for inner in path.rglob("*")]
        return datetime.fromtimestamp(max(times), UTC)
    return datetime.now(UTC)


# --- ids of accepted jobs that a machine could not store (tasks/insisting.py) ---


def _notes_folder(ports: Ports) -> Path:
    return ports.settings.home / "accepted"


def _is_done_with(ports: Ports, note: Path) -> bool:
    """Whether the ledger knows what a note says. A note that was never finished says nothing."""
    if note.suffix != ".json":
        return True
    try:
        job = ports.ledger.get(note.stem)
    except KeyError:
        return False
    return job.is_over or job.ids is not None


def _notes_that_wait(ports: Ports) -> list[str]:
    before = ports.clock.now() - SCRATCH_KEPT_FOR
    try:
        old = [note for note in _entries(_notes_folder(ports)) if _newest(note) < before]
        unknown = [note for note in old if not _is_done_with(ports, note)]
    except OnModelError:
        return []
    return [
        f"{note} holds the id of a job that a vendor accepted, and this database has no such job or lost it: see it, "
        "then remove it."
        for note in unknown
    ]
