"""Vendors whose every POST stands still until a test says what becomes of it, and the processes that wait in them."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from queue import Queue
from typing import NamedTuple

from domain.errors import RateLimited, Rejected, SubmissionUnknown
from domain.jobs import VendorJobIds, VendorRequest
from domain.submissions import Finding, LookUp, Submission
from tasks.jobs import submit_job
from tests.acceptance.standin_vendor import PROVES_ABSENCE, StandinVendor
from tests.ports_for_tests import HandClock, PortsForTests

WORDS = ("accept", "accept", "refuse", "reject", "lost", "lost and taken", "killed", "killed and taken")
"""What becomes of a POST."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing under it is ours to catch."""


@dataclass
class World:
    """What the vendors really have, and how often they were asked to take it."""

    posts: Counter[str] = field(default_factory=Counter)
    taken: dict[str, list[int]] = field(default_factory=dict)
    too_late: set[tuple[str, int]] = field(default_factory=set)
    is_shy: bool = False
    """Its list cannot be read, so that looking up settles nothing."""

    def take(self, sent: Submission) -> VendorJobIds:
        self.taken.setdefault(sent.job_key, []).append(sent.number)
        return self.ids(sent)

    def ids(self, sent: Submission) -> VendorJobIds:
        return VendorJobIds(request_id=f"{sent.job_key}-{sent.number}")


class Told(NamedTuple):
    """What a process's thread has come to: a POST that waits for its answer, or its end."""

    sent: Submission | None
    error: BaseException | None = None


class SlowVendor(StandinVendor):
    """Takes what the world takes; each POST waits for its process's next answer."""

    def __init__(self, name: str, process: Process) -> None:
        super().__init__(name=name, absence=PROVES_ABSENCE)
        self._process = process

    def submit(self, request: VendorRequest, submission: Submission) -> VendorJobIds:
        world = self._process.world
        world.posts[submission.job_key] += 1
        self._process.told.put(Told(submission))
        answer = self._process.answers.get(timeout=30)
        if answer in ("accept", "lost and taken", "killed and taken"):
            ids = world.take(submission)
        match answer:
            case "accept":
                return ids
            case "refuse":
                raise RateLimited("429")
            case "reject":
                raise Rejected("422")
            case "lost" | "lost and taken":
                raise SubmissionUnknown("reset")
        raise Killed

    def look_up(self, request: VendorRequest, submission: Submission, known_ids: frozenset[str]) -> LookUp:
        world = self._process.world
        if world.is_shy:
            return LookUp(finding=Finding.UNCLEAR, detail="its list cannot be read")
        if submission.number in world.taken.get(submission.job_key, []):
            return LookUp(finding=Finding.FOUND, detail="there", ids=world.ids(submission))
        # Looks begin when the POST's own deadline is over: what has not arrived by then never will.
        world.too_late.add((submission.job_key, submission.number))
        return LookUp(finding=Finding.ABSENT, detail="not there")


class Process:
    """A worker: its own connections, and at most one job under way."""

    def __init__(self, shared: PortsForTests, clock: HandClock) -> None:
        self.told: Queue[Told] = Queue()
        self.answers: Queue[str] = Queue()
        self.world = World()
        vendors = {name: SlowVendor(name, self) for name in ("first", "second")}
        self.ports = PortsForTests(shared.settings, vendors, clock)
        self.sent: Submission | None = None
        self._thread: threading.Thread | None = None

    def begin(self, key: str) -> BaseException | None:
        self._thread = threading.Thread(target=self._submit, args=(key,), daemon=True)
        self._thread.start()
        return self._wait()

    def answer(self, word: str) -> BaseException | None:
        self.answers.put(word)
        return self._wait()

    def _wait(self) -> BaseException | None:
        """How it came out; None while it is in a POST too. Breakers are another test's affair: none ever opens here."""
        told = self.told.get(timeout=30)
        self.sent = told.sent
        with self.ports.database.transaction() as db:
            db.execute("DELETE FROM vendor_circuits")
        if told.sent is None and self._thread is not None:
            self._thread.join(30)
        return told.error

    def _submit(self, key: str) -> None:
        try:
            submit_job(self.ports, key)
        except BaseException as error:  # noqa: BLE001 (handed to the machine, which knows what to expect)
            self.told.put(Told(None, error))
        else:
            self.told.put(Told(None))
