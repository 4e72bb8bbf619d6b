"""Runs one cell of the matrix: a worker process goes through the door, the fault strikes, and then it is counted."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from providers.postgres.embedded import ensure_server, server_status, stop_server
from providers.postgres.processes import is_alive, wait_until
from providers.settings import Settings
from tests.faults.comfyui_stand import ComfyUiStand
from tests.faults.counting import CellPorts, Count, count_cell
from tests.faults.fal_stand import FalStand
from tests.faults.matrix import Cell, Fault, Point, Step, VendorName
from tests.faults.replicate_stand import ReplicateStand
from tests.faults.runpod_stand import RunPodStand
from tests.faults.stands import Stand
from tests.faults.worker import Ended, Go, Halted, Shift, Waits, work
from tests.ports_for_tests import new_database, store_season
from tests.postgres_fixtures import open_folder

BUDGET_USD = Decimal("4.50")
"""Room for two attempts at 2.00, and not for three."""

STARTS = 6
"""How often a person, or `maintain`, starts it again at most."""

PATIENCE_SECONDS = 60.0
SHORT_READ_SECONDS = 0.3
ENDLESS_POLL_SECONDS = 60.0
PRELOADED = ["tests.faults.worker", "providers.postgres.migrate", "providers.postgres.models", "providers.media"]
DAY = timedelta(days=1)

_numbers = itertools.count(1)


def _open_stand(vendor: VendorName, folder: Path) -> Stand:
    """The stand-in of a vendor, not yet entered."""
    match vendor:
        case VendorName.FAL:
            return FalStand(folder)
        case VendorName.COMFYUI:
            return ComfyUiStand()
        case VendorName.RUNPOD:
            return RunPodStand(folder)
        case VendorName.REPLICATE:
            return ReplicateStand(folder)


class Grounds:
    """What the cells of one test process share: tables, a server of Postgres to be killed, and the vendors."""

    def __init__(self, server_url: str, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._stands: dict[VendorName, Stand] = {}
        self._mortal: Path | None = None
        self._shared_url = stack.enter_context(new_database(server_url))
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)

    def stand(self, vendor: VendorName) -> Stand:
        """The vendor's stand-in, opened at the first call."""
        if vendor not in self._stands:
            folder = self.folder / vendor
            folder.mkdir()
            self._stands[vendor] = self._stack.enter_context(_open_stand(vendor, folder))
        return self._stands[vendor]

    def settings(self, fault: Fault, storage: Path) -> Settings:
        """A home, and the tables: those of an embedded server of our own where that will be killed."""
        storage_url = storage.as_uri()
        if fault is not Fault.DATABASE:
            return Settings(home=self.folder, database_url=SecretStr(self._shared_url), storage_url=storage_url)
        if self._mortal is None:
            self._mortal = self._stack.enter_context(_mortal_home())
        ensure_server(self._mortal)
        return Settings(home=self._mortal, storage_url=storage_url)


@contextmanager
def open_grounds(server_url: str) -> Iterator[Grounds]:
    """Grounds for cells, taken away at the end. `server_url` is where a database may be made."""
    folder = open_folder()
    try:
        with ExitStack() as stack:
            yield Grounds(server_url, folder, stack)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _mortal_home() -> Iterator[Path]:
    root = open_folder()
    home = root / "home"
    home.mkdir(mode=0o711)
    yield home
    stop_server(home)
    shutil.rmtree(root)


def run_cell(grounds: Grounds, cell: Cell) -> Count:
    """Drive a cell to its end and count. Takes well under a second, or two where Postgres is killed."""
    began = time.monotonic()
    storage = grounds.folder / f"store-{next(_numbers)}"
    storage.mkdir()
    run = _Run(grounds, cell, storage)
    try:
        count = run.drive()
    finally:
        run.close()
        shutil.rmtree(storage)
    return count.model_copy(update={"seconds": time.monotonic() - began})


class _Run:
    """One cell at work."""

    def __init__(self, grounds: Grounds, cell: Cell, storage: Path) -> None:
        self._grounds, self._cell = grounds, cell
        self._stand = grounds.stand(cell.vendor)
        self._stand.begin()
        self._settings = grounds.settings(cell.fault, storage)
        self._workers: list[Worker] = []
        with self._ports() as ports:
            self._season_id = store_season(ports, f"faults-{os.getpid()}-{next(_numbers)}", budget_usd=str(BUDGET_USD))
            with ports.database.transaction() as db:
                db.execute("DELETE FROM vendor_circuits")
            self._order = self._stand.order(self._season_id, ports.blobs)

    def _ports(self) -> CellPorts:
        return CellPorts(self._settings, self._stand)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def drive(self) -> Count:
        first = self._start(halt_at=self._cell.point)
        if not first.halts():
            return self._counted(first.ended(), ["it never came to the point where the fault strikes"])
        ended = self._strike(first)
        for _ in range(STARTS):
            if ended is not None and ended.exit_code in (0, 1, 6):
                break
            ended = self._start().ended()
        assert ended is not None
        has_struck = self._stand.has_struck() or not self._cell.must_strike
        return self._counted(ended, [] if has_struck else ["the fault was armed and did not strike"])

    def _counted(self, ended: Ended, problems: list[str]) -> Count:
        with self._ports() as ports:
            return count_cell(ports, self._stand, self._season_id, ended, problems)

    def _strike(self, first: Worker) -> Ended | None:
        """Make the fault; how the worker ended, None where it was killed."""
        cell = self._cell
        match cell.fault:
            case Fault.KILL:
                first.kill()
                return None
            case Fault.STOP:
                first.signal(signal.SIGSTOP)
                second = self._start()
                second.waits_or_ends()
                first.go()
                first.signal(signal.SIGCONT)
                told = (first.ended(), second.ended())
                return max(told, key=lambda ended: ended.exit_code)
            case Fault.DATABASE:
                kill_database(self._settings.home)
                if cell.step is Step.AFTER_POST:
                    self._stand.hide_jobs()
                first.go()
            case Fault.CLOCK_AHEAD:
                first.go(DAY)
            case Fault.CLOCK_BACK:
                first.go(-DAY)
            case _ if cell.step is Step.SETTLEMENT:
                # Settling asks the vendor nothing: it is broken off, and whoever takes it up meets the fault.
                first.kill()
                self._stand.strike(cell.step, cell.fault)
                return None
            case _:
                self._stand.strike(cell.step, cell.fault)
                first.go()
        return first.ended()

    def _start(self, halt_at: Point | None = None) -> Worker:
        is_silent = self._cell.fault in (Fault.STALL, Fault.ENDLESS)
        url = self._settings.database_url
        shift = Shift(
            home=self._settings.home,
            database_url=url.get_secret_value() if url else None,
            storage_url=self._settings.storage_url,
            vendor=self._cell.vendor,
            vendor_url=self._stand.url,
            order=self._order,
            halt_at=halt_at,
            poll_seconds=ENDLESS_POLL_SECONDS if self._cell.fault is Fault.ENDLESS else self._stand.poll_seconds,
            **({"read_seconds": SHORT_READ_SECONDS} if is_silent else {}),
        )
        self._workers.append(Worker(self._grounds.context, shift))
        return self._workers[-1]


class Worker:
    """A worker process, as its parent has it in hand."""

    def __init__(self, context: Any, shift: Shift) -> None:
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(shift, theirs))
        self._process.start()
        theirs.close()
        self._ended: Ended | None = None

    def halts(self) -> bool:
        """Whether it comes to its point; False when it ends before."""
        return isinstance(self._receive(), Halted)

    def waits_or_ends(self) -> None:
        """Return when it is over, or stands before another process that has the job."""
        self._receive()

    def go(self, jump: timedelta = timedelta()) -> None:
        self._line.send(Go(jump=jump))

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.join(PATIENCE_SECONDS)

    def ended(self) -> Ended:
        """How it ended; waits for it."""
        while self._ended is None:
            self._receive()
        self._process.join(PATIENCE_SECONDS)
        return self._ended

    def close(self) -> None:
        if self._process.is_alive():
            self.kill()
        self._line.close()
        self._process.close()

    def _receive(self) -> Halted | Waits | Ended:
        if self._ended is not None:
            return self._ended
        assert self._line.poll(PATIENCE_SECONDS), "the worker says nothing"
        word: Halted | Waits | Ended = self._line.recv()
        if isinstance(word, Ended):
            self._ended = word
        return word


def kill_database(home: Path) -> None:
    """SIGKILL to a home's Postgres, the postmaster first and then each of its children."""
    postmaster = server_status(home).process_id
    assert postmaster is not None
    children = [int(pid) for pid in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()]
    for pid in (postmaster, *children):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    assert wait_until(lambda: not any(is_alive(pid) for pid in (postmaster, *children)), PATIENCE_SECONDS)
