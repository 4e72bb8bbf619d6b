"""The ledger as a plain model: jobs and budgets in dictionaries, beside a world that knows what the vendors have."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from domain.errors import OverBudget, SubmissionUnknown
from domain.jobs import JobOrder, JobState
from tasks.lost_answers import MOST_RESENDS
from tests.postgres.slow_vendors import World

FREE = Decimal(0)


@dataclass
class Bill:
    """A budget of the model."""

    limit: Decimal
    reserved: Decimal = FREE
    spent: Decimal = FREE
    overrun: Decimal = FREE

    def is_passed(self) -> bool:
        return self.reserved + self.spent > self.limit or self.overrun > 0


@dataclass
class Job:
    """A job of the model; `bills` are the budgets it was reserved against."""

    order: JobOrder
    attempt: int
    bills: tuple[Bill, ...]
    state: JobState = JobState.PLANNED
    posts: int = 0
    billed: Decimal | None = None
    is_refused: bool = False
    moved_to: str | None = None
    resends: int = 0
    """How often it was planned again after its answer was lost."""


@dataclass
class Books:
    """The plain model: every job, the season's budget and Mei's, and what the door must do with them."""

    world: World
    season: Bill
    mei: Bill
    jobs: dict[str, Job] = field(default_factory=dict)

    def latest(self, work_key: str) -> str | None:
        """The newest attempt at a work."""
        found = [key for key, job in self.jobs.items() if job.order.work_key == work_key]
        return max(found, key=lambda key: self.jobs[key].attempt) if found else None

    def current(self, work_key: str) -> str | None:
        """The same, at whichever vendor the work is by now."""
        key = self.latest(work_key)
        while key is not None and (moved := self.jobs[key].moved_to) is not None:
            key = self.latest(self.jobs[moved].order.work_key)
        return key

    def failures(self, work_key: str) -> int:
        """How often a work has failed."""
        return sum(
            job.order.work_key == work_key and job.state in (JobState.FAILED, JobState.EXPIRED)
            for job in self.jobs.values()
        )

    def reserve(self, order: JobOrder, attempt: int) -> str | None:
        """A new job with its ceiling held in every budget it falls under; None when one is short."""
        bills = (self.season, self.mei) if order.character_id else (self.season,)
        if any(bill.reserved + bill.spent + order.ceiling_usd > bill.limit for bill in bills):
            return None
        for bill in bills:
            bill.reserved += order.ceiling_usd
        key = order.job_key(attempt)
        self.jobs[key] = Job(order, attempt, bills)
        return key

    def settle(self, job: Job, state: JobState, billed: Decimal) -> None:
        """A job's end: its hold released, its bill counted."""
        job.state, job.billed = state, billed
        for bill in job.bills:
            bill.reserved -= job.order.ceiling_usd
            bill.spent += billed
            if billed or state is not JobState.CANCELLED:  # one that was never sent is not settled, only let go
                bill.overrun = max(bill.overrun, bill.spent - bill.limit)

    def sends(self, job: Job) -> type[BaseException] | None:
        """A planned job at the door: it is in its POST, or a budget is passed."""
        if any(bill.is_passed() for bill in job.bills):
            job.state = JobState.PLANNED
            return OverBudget
        job.state = JobState.SUBMITTING
        job.posts += 1
        return None

    def lost(self, key: str) -> type[BaseException] | None:
        """A lost job at the door: adopted, sent again, or left to a person."""
        job = self.jobs[key]
        if self.world.is_shy:
            job.state = JobState.SUBMISSION_UNKNOWN
            return SubmissionUnknown
        if job.posts in self.world.taken.get(key, []):
            job.state = JobState.SUBMITTED
            return None
        if job.resends >= MOST_RESENDS:
            job.state = JobState.SUBMISSION_UNKNOWN
            return SubmissionUnknown
        job.resends += 1
        return self.sends(job)
