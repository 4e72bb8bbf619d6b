"""The process that takes one job through the door, as a run does, and halts where it is told, for a fault to strike.

Its ledger, its vendor and its HTTP are the product's own; around them stand points at which it tells its parent where
it is and waits for a word. Its clock moves on by itself while it sleeps, so that no wait costs time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from pydantic import SecretStr

from domain.costs import CostEntry
from domain.errors import JobFailed, OnModelError, Retryable
from domain.jobs import (
    JobOrder,
    JobOutput,
    JobStatus,
    KeptFile,
    OutputFile,
    ProviderJob,
    VendorJobIds,
    VendorRequest,
)
from domain.records import Record
from domain.registry import load_registry
from domain.submissions import Submission
from providers.comfyui.vendor import ComfyUiVendor
from providers.fal.vendor import FalVendor
from providers.postgres.ledger import Ledger
from providers.replicate.vendor import ReplicateVendor
from providers.runpod.vendor import RunPodVendor
from providers.sandbox.handover import SandboxHandover
from providers.sandbox.places import HANDOVER_HOST, RENTED_HOSTS
from providers.sandbox.replicate_wire import REPLICATE_HOSTS
from providers.sandbox.transport import SandboxTransport
from providers.settings import Settings
from providers.vendor_ports import JobVendor, Ping, PodHost
from providers.wiring import Ports, SystemClock
from tasks.jobs import POLL_RETRY_SECONDS, plan_again, plan_job, submit_job
from tasks.results import await_job
from tests.faults.matrix import Point, VendorName

ATTEMPTS = 2
"""As for a training: one that is known dead is bought once more."""

REAL_NAP_SECONDS = 0.004
WAITS_TO_TELL = 8


class Shift(Record):
    """What a worker is to do: one order at one vendor, at which point to halt, and how long to wait for an answer."""

    home: Path
    database_url: str | None
    storage_url: str
    vendor: VendorName
    vendor_url: str
    order: JobOrder
    halt_at: Point | None = None
    poll_seconds: float
    read_seconds: float = 20.0


class Halted(Record):
    """It stands at the point where it was to halt."""


class Waits(Record):
    """Another process has the job, and it has looked for a while."""


class Ended(Record):
    """It is over: 0 when the job is done, else the exit code and the sentence of the error."""

    exit_code: int
    told: str = ""


class Go(Record):
    """Carry on; first let the clock jump."""

    jump: timedelta = timedelta()


def work(shift: Shift, line: Connection) -> None:
    """The life of a worker process. What it logs goes to `worker.log` beside its home."""
    logging.basicConfig(filename=shift.home / "worker.log", level=logging.INFO, force=True)
    ports = WorkerPorts(shift, line)
    try:
        buy(ports, shift.order)
        ended = Ended(exit_code=0)
    except OnModelError as error:
        ended = Ended(exit_code=error.exit_code, told=f"{type(error).__name__}: {error.message}")
    except BaseException as error:
        logging.exception("a worker broke")
        ended = Ended(exit_code=1, told=f"{type(error).__name__}: {error}")
    line.send(ended)
    line.close()
    ports.close()


def buy(ports: WorkerPorts, order: JobOrder) -> None:
    """What `flows.running.buy` does, without Prefect: the same calls, the same retries, the same second attempt."""
    key = plan_job(ports, order, max_attempts=ATTEMPTS)
    while True:
        try:
            ports.clock.is_submitting = True
            submit_job(ports, key)
            ports.clock.is_submitting = False
            _await(ports, key)
            return
        except JobFailed:
            following = plan_again(ports, key, max_attempts=ATTEMPTS)
            if following is None:
                raise
            key = following


def _await(ports: WorkerPorts, key: str) -> None:
    for wait in POLL_RETRY_SECONDS:
        try:
            await_job(ports, key)
            return
        except Retryable:
            ports.clock.sleep(wait)
    await_job(ports, key)


class FastClock(SystemClock):
    """The machine's clock, moved on at once by whatever is slept, and let jump by a day."""

    def __init__(self, tell_waiting: Callable[[], None]) -> None:
        self.is_submitting = False
        self._ahead = timedelta()
        self._naps = 0
        self._tell_waiting = tell_waiting

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def sleep(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)
        threading.Event().wait(min(seconds, REAL_NAP_SECONDS))
        self._naps += self.is_submitting
        if self._naps == WAITS_TO_TELL:
            self._tell_waiting()

    def jump(self, by: timedelta) -> None:
        self._ahead += by


class WorkerPorts(Ports):
    """The product's ports over the cell's tables and store, with one vendor at its stand-in's address."""

    clock: FastClock

    def __init__(self, shift: Shift, line: Connection) -> None:
        url = SecretStr(shift.database_url) if shift.database_url else None
        super().__init__(Settings(home=shift.home, database_url=url, storage_url=shift.storage_url))
        self.clock = FastClock(lambda: line.send(Waits()) if shift.halt_at is None else None)
        self._shift = shift
        self._halt = Halt(shift.halt_at, line, self.clock)
        self._http = httpx.Client(
            transport=Hurried(_way_to(shift), shift.read_seconds), timeout=shift.read_seconds, trust_env=False
        )
        self._watched = WatchedVendor(_adapter(shift, self._http), self._halt)

    def job_vendor(self, name: str) -> Any:
        assert name == self._shift.vendor, name
        return self._watched

    def pod_hosts(self) -> tuple[PodHost, ...]:
        return ()

    def poll_seconds(self, job: ProviderJob) -> float:
        return self._shift.poll_seconds

    @cached_property
    def ledger(self) -> Ledger:
        return WatchedLedger(self.database, self._halt)

    def close(self) -> None:
        super().close()
        self._http.close()


class Halt:
    """Tells the parent that a point is reached, once, and waits for its word."""

    def __init__(self, at: Point | None, line: Connection, clock: FastClock) -> None:
        self._at, self._line, self._clock = at, line, clock

    def __call__(self, point: Point) -> None:
        if point is self._at:
            self._at = None
            self._line.send(Halted())
            word: Go = self._line.recv()
            self._clock.jump(word.jump)


class WatchedLedger(Ledger):
    """The ledger, with points just before what was kept is noted, and before the job is settled."""

    def __init__(self, database: Any, halt: Halt) -> None:
        super().__init__(database)
        self._halt = halt

    def keep(
        self, key: str, files: tuple[KeptFile, ...], seed: int | None, billed_usd: Decimal, *, text: str | None = None
    ) -> None:
        self._halt(Point.KEEPING)
        super().keep(key, files, seed, billed_usd, text=text)

    def succeed(
        self, key: str, files: tuple[KeptFile, ...], seed: int | None, entry: CostEntry, *, text: str | None = None
    ) -> None:
        self._halt(Point.SETTLING)
        super().succeed(key, files, seed, entry, text=text)


class WatchedVendor:
    """A vendor's adapter, with a point before and after each of its requests."""

    def __init__(self, vendor: JobVendor, halt: Halt) -> None:
        self._vendor, self._halt = vendor, halt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vendor, name)

    def ping(self) -> Ping:
        self._halt(Point.ASKING)
        return self._vendor.ping()

    def upload(self, path: Path, ref: Any) -> str:
        self._halt(Point.ASKING)
        return self._vendor.upload(path, ref)

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        self._halt(Point.CLAIMED)
        ids = self._vendor.submit(request, submission)
        self._halt(Point.ANSWERED)
        return ids

    def status(self, request: VendorRequest, ids: VendorJobIds) -> JobStatus:
        self._halt(Point.LOOKING)
        return self._vendor.status(request, ids)

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        self._halt(Point.COMPLETED)
        return self._vendor.output(request, ids)

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        self._halt(Point.FETCHING)
        self._vendor.download(file, _HaltHalfway(into, self._halt))  # type: ignore[arg-type]


class _HaltHalfway:
    """A file that is written half, halts, and is written on."""

    def __init__(self, into: BinaryIO, halt: Halt) -> None:
        self._into, self._halt = into, halt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._into, name)

    def write(self, data: bytes) -> int:
        half = len(data) // 2
        self._into.write(data[:half])
        self._into.flush()
        self._halt(Point.HALFWAY)
        return half + self._into.write(data[half:])


class Hurried(httpx.BaseTransport):
    """No request waits longer than this for an answer, whatever its caller asked for."""

    def __init__(self, inner: httpx.BaseTransport, read_seconds: float) -> None:
        self._inner, self._read_seconds = inner, read_seconds

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        limits = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {**limits, "read": self._read_seconds}
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


def _way_to(shift: Shift) -> httpx.BaseTransport:
    if shift.vendor is VendorName.FAL:
        return SandboxTransport(shift.vendor_url)
    if shift.vendor is VendorName.REPLICATE:
        return SandboxTransport(shift.vendor_url, hosts=REPLICATE_HOSTS | {HANDOVER_HOST})
    if shift.vendor is VendorName.RUNPOD:
        return SandboxTransport(shift.vendor_url, hosts=RENTED_HOSTS)
    return httpx.HTTPTransport(trust_env=False, verify=False)


def _adapter(shift: Shift, http: httpx.Client) -> JobVendor:
    match shift.vendor:
        case VendorName.FAL:
            return FalVendor(http, SecretStr("test"), load_registry())
        case VendorName.COMFYUI:
            return ComfyUiVendor(http, shift.vendor_url)
        case VendorName.RUNPOD:
            handover, clock = SandboxHandover(http), SystemClock()
            return RunPodVendor(http, SecretStr("test"), load_registry(), handover=handover, clock=clock)
        case VendorName.REPLICATE:
            return ReplicateVendor(
                http,
                SecretStr("test"),
                load_registry(),
                handover=SandboxHandover(http),
                destination="sandbox/loras",
                clock=SystemClock(),
            )
