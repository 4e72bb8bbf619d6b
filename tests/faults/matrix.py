"""The fault matrix: at which steps of a paid job which faults strike, and how each cell must end.

A cell ends "done" (a further start of the same command, as often as needed, brings the result) or at "exit 6" (a
person decides). What is expected stands here beforehand; where it is not "done, one job accepted", with its reason.
"""

from __future__ import annotations

from enum import StrEnum

from domain.records import Record


class VendorName(StrEnum):
    """fal and Replicate cannot prove that they have no job of ours; ComfyUI and RunPod can."""

    FAL = "fal"
    COMFYUI = "comfyui"
    RUNPOD = "runpod"
    REPLICATE = "replicate"


class Step(StrEnum):
    """The columns."""

    BEFORE_POST = "before the POST"
    AFTER_POST = "after it, no id stored"
    POLLING = "polling"
    COMPLETION = "completion"
    DOWNLOAD = "download"
    SETTLEMENT = "settlement"


class Fault(StrEnum):
    """The rows."""

    KILL = "SIGKILL of the worker"
    STOP = "SIGSTOP of the worker"
    DATABASE = "SIGKILL of Postgres"
    DROP = "dropped after accept"
    STALL = "read timeout"
    RATE_LIMIT = "429 with a body"
    ERROR = "500"
    GATEWAY = "502 from a proxy"
    MALFORMED = "malformed JSON"
    VANISHED = "job vanished"
    EXPIRED = "result URL expired"
    TRUNCATED = "truncated file"
    ENDLESS = "status never ends"
    UNKNOWN = "unknown new status"
    CLOCK_AHEAD = "clock jumps +1 day"
    CLOCK_BACK = "clock jumps -1 day"


class Point(StrEnum):
    """Where a worker halts, tells, and waits for a word."""

    ASKING = "about to ask the vendor the first thing, before the POST"
    CLAIMED = "the row is marked, the POST has not left"
    ANSWERED = "the vendor answered, its id is not stored"
    LOOKING = "about to look at the job"
    COMPLETED = "the vendor calls it done, its output is not asked for"
    FETCHING = "about to fetch a file"
    HALFWAY = "half of a file is here"
    KEEPING = "the files are in our store, and no row says so"
    SETTLING = "the files are noted, the job is not settled"


OF_THE_PROCESS = frozenset(
    {Fault.KILL, Fault.STOP, Fault.DATABASE, Fault.CLOCK_AHEAD, Fault.CLOCK_BACK},
)
"""Faults on our side; all others are an answer of the vendor's to the request of that step."""

_PROCESS_POINT = {
    Step.BEFORE_POST: Point.CLAIMED,
    Step.AFTER_POST: Point.ANSWERED,
    Step.POLLING: Point.LOOKING,
    Step.COMPLETION: Point.COMPLETED,
    Step.DOWNLOAD: Point.HALFWAY,
    Step.SETTLEMENT: Point.SETTLING,
}
_ANSWER_POINT = _PROCESS_POINT | {
    Step.BEFORE_POST: Point.ASKING,
    Step.AFTER_POST: Point.CLAIMED,
    Step.DOWNLOAD: Point.FETCHING,
    Step.SETTLEMENT: Point.KEEPING,
}
OF_THE_JOB = frozenset({Fault.VANISHED, Fault.EXPIRED, Fault.ENDLESS, Fault.UNKNOWN})
"""What becomes of a job at its vendor. Once its files are noted nobody asks, and it must not matter."""


class Ending(Record):
    """How a cell must end: "done" or "exit 6", and how many jobs the vendor took; `reason` where it is unusual."""

    how: str = "done"
    accepted: int = 1
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.how} {self.accepted}"


class Cell(Record):
    """One fault at one step at one vendor; `not_run_because` where there is no such thing."""

    vendor: VendorName
    step: Step
    fault: Fault
    expected: Ending
    not_run_because: str = ""

    @property
    def point(self) -> Point:
        """Where the worker halts for the fault to be made."""
        return (_ANSWER_POINT if self.must_strike else _PROCESS_POINT)[self.step]

    @property
    def must_strike(self) -> bool:
        """Whether a request must meet the fault; False for our own, and where the very point is that none is made."""
        return self.fault not in OF_THE_PROCESS and not (self.step is Step.SETTLEMENT and self.fault in OF_THE_JOB)

    @property
    def name(self) -> str:
        """For a test's id."""
        return f"{self.vendor}-{self.step.name.lower()}-{self.fault.name.lower()}"


_NO_PROOF = "fal's list can show a job and not prove that there is none: a person looks"
_NEVER_ARRIVED = Ending(how="exit 6", accepted=0, reason=_NO_PROOF)
_NOT_LISTED = Ending(how="exit 6", reason=f"the answer is lost and the list does not show the job; {_NO_PROOF}")


_NO_PROOF_THERE = "Replicate's list can show a job and not prove that there is none: a person looks"


def _asks(reason: str) -> Ending:
    return Ending(how="exit 6", reason=f"{reason}: it may have been paid, so only a person's word buys it again")


def _again(reason: str) -> Ending:
    return Ending(accepted=2, reason=f"{reason}: that proves it dead, and it is sent again")


_FORGOTTEN = _asks("three looks, or three at the result's own address, say that the vendor has no such job")
_POD_GONE = _asks("the pod is gone, and so is what it left in our store, whoever took them away")
_FILE_GONE = _asks("its file is gone at every address the vendor gives")
_STOPPED = _asks("stopped after its time limit, and the vendor says so")
_WORD_STAYS = Ending(
    how="exit 6", reason="its history ends in a word nobody knows and stays so, and nothing can stop it: a person looks"
)

_ENDINGS: dict[VendorName, dict[tuple[Fault, Step], Ending]] = {
    VendorName.FAL: {
        (Fault.KILL, Step.BEFORE_POST): _NEVER_ARRIVED,
        (Fault.VANISHED, Step.AFTER_POST): _NOT_LISTED,
        (Fault.VANISHED, Step.POLLING): _FORGOTTEN,
        (Fault.VANISHED, Step.COMPLETION): _FORGOTTEN,
        (Fault.VANISHED, Step.DOWNLOAD): _FILE_GONE,
        (Fault.ENDLESS, Step.AFTER_POST): _STOPPED,
    },
    VendorName.COMFYUI: {
        (Fault.VANISHED, Step.AFTER_POST): _again(
            "taken, then its answer was lost, and a restart forgot it: neither queue nor history has it"
        ),
        (Fault.VANISHED, Step.POLLING): _FORGOTTEN,
        (Fault.VANISHED, Step.COMPLETION): _FORGOTTEN,
        (Fault.VANISHED, Step.DOWNLOAD): _FILE_GONE,
        (Fault.ENDLESS, Step.AFTER_POST): _STOPPED,
        (Fault.ENDLESS, Step.POLLING): _STOPPED,
        (Fault.ENDLESS, Step.COMPLETION): _STOPPED,
        (Fault.UNKNOWN, Step.AFTER_POST): _WORD_STAYS,
        (Fault.UNKNOWN, Step.POLLING): _WORD_STAYS,
    },
    VendorName.RUNPOD: {
        (Fault.VANISHED, Step.AFTER_POST): _again(
            "made, then its answer was lost and the pod was gone: no list of pods has its name"
        ),
        (Fault.VANISHED, Step.POLLING): _POD_GONE,
        (Fault.VANISHED, Step.COMPLETION): _POD_GONE,
        (Fault.VANISHED, Step.DOWNLOAD): _POD_GONE,
        (Fault.ENDLESS, Step.POLLING): _STOPPED,
        (Fault.ENDLESS, Step.COMPLETION): _STOPPED,
    },
    VendorName.REPLICATE: {
        (Fault.KILL, Step.BEFORE_POST): Ending(how="exit 6", accepted=0, reason=_NO_PROOF_THERE),
        (Fault.VANISHED, Step.AFTER_POST): Ending(
            how="exit 6", reason=f"the answer is lost and the list does not show the job; {_NO_PROOF_THERE}"
        ),
        (Fault.VANISHED, Step.POLLING): _FORGOTTEN,
        (Fault.VANISHED, Step.COMPLETION): _FORGOTTEN,
        (Fault.VANISHED, Step.DOWNLOAD): _FILE_GONE,
        (Fault.ENDLESS, Step.AFTER_POST): _STOPPED,
    },
}

_STEPS = {
    VendorName.FAL: tuple(Step),
    VendorName.COMFYUI: tuple(Step),
    VendorName.REPLICATE: tuple(Step),
    VendorName.RUNPOD: tuple(Step),
}


def cells() -> tuple[Cell, ...]:
    """Every cell, vendor by vendor and row by row."""
    return tuple(_cell(vendor, step, fault) for vendor in VendorName for fault in Fault for step in _STEPS[vendor])


def steps_of(vendor: VendorName) -> tuple[Step, ...]:
    """The columns of a vendor's table."""
    return _STEPS[vendor]


def _cell(vendor: VendorName, step: Step, fault: Fault) -> Cell:
    return Cell(
        vendor=vendor,
        step=step,
        fault=fault,
        expected=_ENDINGS[vendor].get((fault, step), Ending()),
    )
