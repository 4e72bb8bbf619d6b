"""One POST of a job, and how a job whose answer was lost is looked for at its vendor."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from domain.jobs import ProviderJob, VendorJobIds
from domain.records import Record


class Submission(Record):
    """One POST of a job: everything a vendor is told besides the request, kept so that the job can be found again.

    `installation` is our database's own mark (8 hex digits): two databases with the same season have the same keys.
    `number` counts the POSTs of this key from 1: a definite refusal is followed by another, a lost answer is not.
    `sent_at` is our clock just before the POST; `url_of` maps each file's SHA-256 to the address that was sent.
    """

    installation: str
    job_key: str
    number: int
    sent_at: datetime
    url_of: dict[str, str]

    @property
    def mark(self) -> str:
        """A name nobody else gives a job: for vendors that take a name or an id of ours. Letters, digits, hyphens."""
        return f"{self.installation}-{self.job_key[:20]}-{self.number}"


def last_submission(job: ProviderJob) -> Submission:
    """The last POST of a job that was sent at least once."""
    assert job.submitting_at is not None, f"job {job.key} was never sent"
    return Submission(
        installation=job.installation,
        job_key=job.key,
        number=job.post_count,
        sent_at=job.submitting_at,
        url_of=job.sent_urls,
    )


class Finding(StrEnum):
    """What a look-up found out about a job whose answer was lost."""

    FOUND = "found"
    ABSENT = "absent"
    UNCLEAR = "unclear"


class LookUp(Record):
    """Answer of one look-up. `ids` are there when it was found; `detail` is one sentence for a person.

    `candidates` are the vendor's ids of jobs that may be ours but cannot be told apart.
    """

    finding: Finding
    detail: str
    ids: VendorJobIds | None = None
    candidates: tuple[str, ...] = ()


class AbsenceRule(Record):
    """Whether a vendor can prove that it does not have a job, and how many looks that takes.

    `looks` in a row, `seconds_apart`, the first not before `after_seconds` from the POST (its own deadline, so that a
    request still on its way has arrived). `reason` says why it can, or why it cannot.
    """

    can_prove: bool
    reason: str
    looks: int = 0
    after_seconds: float = 0.0
    seconds_apart: float = 0.0


class Choice(StrEnum):
    """What a person decides about a job whose answer was lost."""

    ADOPT = "adopt"
    RESUBMIT = "resubmit"
    ABANDON = "abandon"
