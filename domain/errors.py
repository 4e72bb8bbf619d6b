"""Every way OnModel can fail, arranged by what to do about it.

    OnModelError
    ├── BadInput            exit 2   a file, field or argument is wrong: the person mends it
    ├── NotConfigured       exit 3   a key, a package or a server is missing
    ├── OverBudget          exit 4   the season's own limit would be passed
    ├── OutOfCredit         exit 4   the vendor's account is locked or empty: stop asking it
    ├── Retryable           exit 5   the same call may go through later
    │   ├── RateLimited              … after `retry_after_seconds`
    │   └── Unavailable              … when the vendor is back
    ├── Rejected            exit 5   the vendor said no to this request: asking again is useless
    │   ├── PromptRefused
    │   └── BadTrainingSet
    ├── JobFailed           exit 5   the vendor took the job and it ended without a result
    ├── SubmissionUnknown   exit 6   the answer to a paid submit was lost: never sent again on a guess
    └── NeedsPerson         exit 6   something waits for a person's decision
        ├── AsksForBudget            … about a budget that would be passed, where its owner said "ask"
        ├── ResultExpired            … whether to buy again what was accepted and can no longer be had
        └── Overdue                  … whether to buy again what was stopped because it took too long

A message says what, which, what was seen and what to do now. Every error survives pickling, because
Prefect carries them between processes.
"""

from __future__ import annotations

from decimal import Decimal


class OnModelError(Exception):
    """Base of all our errors; `exit_code` is what the command line ends with."""

    exit_code = 1
    job_key: str = ""
    """The job it happened to, where there was one."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadInput(OnModelError):
    """Something a person wrote or gave is wrong. Nothing was stored and nothing was spent."""

    exit_code = 2


class NotConfigured(OnModelError):
    """A key, a package or a server that this needs is missing."""

    exit_code = 3


class OverBudget(OnModelError):
    """Reserving this job's ceiling would pass a budget, so it was not submitted."""

    exit_code = 4


class OutOfCredit(OnModelError):
    """The vendor's account is locked or without balance. Never retried: a person must see to it."""

    exit_code = 4


class Retryable(OnModelError):
    """The call did no harm and may be made again."""

    exit_code = 5


class RateLimited(Retryable):
    """The vendor refused for now, definitely and before doing anything."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message, self.retry_after_seconds), self.__dict__)


class Unavailable(Retryable):
    """The vendor could not be reached, or answered that it is down, before it took anything."""


class Rejected(OnModelError):
    """The vendor refused this very request (a 4xx that will not change by asking again)."""

    exit_code = 5


class PromptRefused(Rejected):
    """The vendor's safety check refused the prompt or the picture."""


class BadTrainingSet(Rejected):
    """The training data was refused, by the vendor or by our own checks before paying."""


class JobFailed(OnModelError):
    """The vendor accepted the job and it ended without a usable result.

    `billed_usd` is what it cost all the same, where the vendor's own figures tell; None where they do not.
    """

    exit_code = 5

    def __init__(self, message: str, billed_usd: Decimal | None = None) -> None:
        super().__init__(message)
        self.billed_usd = billed_usd

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message, self.billed_usd), self.__dict__)


class SubmissionUnknown(OnModelError):
    """The request went out and no answer came back: the job may exist. It waits for a person."""

    exit_code = 6


class NeedsPerson(OnModelError):
    """The run did what it could; the rest waits for a person."""

    exit_code = 6


class AsksForBudget(NeedsPerson):
    """A job would pass a budget whose owner wants to be asked: it was not submitted, the rest goes on."""


class ResultExpired(NeedsPerson):
    """The vendor took the job, and neither it nor its file can be had any more: it may have been paid."""


class Overdue(NeedsPerson):
    """The job took longer than its kind may and was stopped at its vendor: it may have been paid."""


EXIT_CODE_ORDER = (4, 6, 5)
"""Which exit code wins when several apply (issue: 4 before 6 before 5)."""


def worst_exit_code(codes: list[int]) -> int:
    """The one exit code a run ends with: 1, 2, 3 and 130 are raised at once and never get here."""
    for code in EXIT_CODE_ORDER:
        if code in codes:
            return code
    return 0
