"""Upkeep: what `maintain` tidies up, for how long things are kept, and the report of what it did."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from domain.errors import JobFailed, NeedsPerson, worst_exit_code
from domain.records import Record

UNWATCHED_AFTER = timedelta(minutes=10)
"""A job in flight that nobody looked at for so long is an orphan: a living run looks at least every 40 seconds, and no
POST may take so long."""

LORA_KEPT_FOR = timedelta(days=90)
"""Weights of a LoRA that failed or was archived, which nothing uses."""

BLOB_KEPT_FOR = timedelta(days=14)
"""Files of our store that nothing in the database refers to: longer than any run takes from a file to its row."""

SCRATCH_KEPT_FOR = timedelta(days=1)
"""Files of a moment, left behind by processes that were killed."""


class UpkeepStep(StrEnum):
    """What is tidied, in this order."""

    VENDORS = "vendors"
    JOBS = "jobs"
    RUNS = "runs"
    PODS = "rented machines"
    FILES = "files"


class StepReport(Record):
    """What one step did, or in a dry run would do: a line each.

    `waits` are sentences about what a person must see to, `problems` about what could not be done this time.
    """

    step: UpkeepStep
    did: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class MaintenanceReport(Record):
    """What one pass of `maintain` did. `is_busy`: another pass was at work, so that this one did nothing."""

    is_dry_run: bool
    started_at: datetime
    steps: tuple[StepReport, ...] = ()
    is_busy: bool = False

    @property
    def exit_code(self) -> int:
        """6 when something waits for a person, else 5 when a step failed, else 0."""
        codes = [NeedsPerson.exit_code for step in self.steps if step.waits]
        codes += [JobFailed.exit_code for step in self.steps if step.problems]
        return worst_exit_code(codes)

    @property
    def is_quiet(self) -> bool:
        """Whether there was nothing to do and nothing to say."""
        return not any(step.did or step.waits or step.problems for step in self.steps)


class IdleLora(Record):
    """A LoRA that failed or was archived, with weights that nothing uses any more."""

    id: int
    character_name: str
    base_model: str
    version: int
    status: str
    sha256: str
