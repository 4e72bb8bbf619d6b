"""When a paid submit that was definitely refused is sent again, by the class of its error. The one table of it.

| error | again? | after |
| --- | --- | --- |
| RateLimited | yes | what the vendor asked for (`Retry-After`, header or body), else as Unavailable |
| Unavailable | yes | 1, 2, 4 … seconds up to a minute, each shortened at random by up to half |
| Rejected (a 4xx about the request) | never | |
| OutOfCredit (402, 403) | not by itself | the vendor's circuit opens; see `domain/circuits.py` |
| NotConfigured, SubmissionUnknown | never | a person; a look-up |

Polls and downloads are free, and repeated by Prefect's task (`tasks/jobs.py`, `POLL_RETRIES`).
"""

from __future__ import annotations

from datetime import datetime

from domain.errors import OnModelError, RateLimited, Retryable

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
LONGEST_ASKED_SECONDS = 900.0
"""More than a quarter of an hour is not waited for in one go, whatever a vendor asks: it is asked again then."""

PATIENCE_SECONDS = 1800.0
"""How long one run goes on sending a job that is refused for now; afterwards it stays planned for the next run."""


def wait_before_again(error: OnModelError, refusals: int, chance: float) -> float | None:
    """Seconds to wait before the same submit is sent again; None when it is not worth repeating.

    `refusals` counts from 1, `chance` is drawn from 0 to 1: two that were refused together do not come back together.
    """
    if not isinstance(error, Retryable):
        return None
    if isinstance(error, RateLimited) and error.retry_after_seconds is not None:
        asked = min(max(error.retry_after_seconds, 0.0), LONGEST_ASKED_SECONDS)
        return asked + chance * min(1.0, 0.1 * asked)
    backoff: float = min(FIRST_WAIT_SECONDS * 2 ** min(refusals - 1, 16), LONGEST_WAIT_SECONDS)
    return backoff * (1.0 - 0.5 * chance)


def is_due(not_before: datetime | None, now: datetime) -> bool:
    """Whether a postponed job may be sent. A time further off than any we set means that a clock has jumped."""
    if not_before is None or not_before <= now:
        return True
    return (not_before - now).total_seconds() > 2 * LONGEST_ASKED_SECONDS
