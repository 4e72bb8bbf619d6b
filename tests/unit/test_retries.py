"""When a refused submit is sent again: the one table of it, for every class of error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import (
    BadTrainingSet,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    OverBudget,
    PromptRefused,
    RateLimited,
    Rejected,
    SubmissionUnknown,
    Unavailable,
)
from domain.retries import (
    FIRST_WAIT_SECONDS,
    LONGEST_ASKED_SECONDS,
    LONGEST_WAIT_SECONDS,
    is_due,
    wait_before_again,
)

refusals = st.integers(1, 10_000)
chances = st.floats(0, 1)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "kind", [Rejected, PromptRefused, BadTrainingSet, OutOfCredit, NotConfigured, SubmissionUnknown, OverBudget]
)
@given(refusals=refusals, chance=chances)
def test_what_is_not_worth_repeating_never_is(kind: type[OnModelError], refusals: int, chance: float) -> None:
    assert wait_before_again(kind("422"), refusals, chance) is None


@given(refusals, chances)
def test_an_outage_is_waited_for_ever_longer_up_to_a_minute(refusals: int, chance: float) -> None:
    wait = wait_before_again(Unavailable("503"), refusals, chance)
    assert wait is not None
    assert FIRST_WAIT_SECONDS / 2 <= wait <= LONGEST_WAIT_SECONDS
    longest = wait_before_again(Unavailable("503"), refusals, 0.0)
    assert longest is not None
    assert longest / 2 <= wait <= longest
    following = wait_before_again(Unavailable("503"), refusals + 1, 0.0)
    assert following is not None
    assert following >= longest


def test_the_first_waits_are_one_two_and_four_seconds() -> None:
    assert [wait_before_again(Unavailable("503"), n, 0.0) for n in (1, 2, 3, 7, 8)] == [1.0, 2.0, 4.0, 60.0, 60.0]


@given(refusals, chances, st.floats(-1e9, 1e9) | st.just(float("inf")))
def test_what_a_vendor_asks_for_is_honoured_up_to_a_quarter_of_an_hour(
    refusals: int, chance: float, asked: float
) -> None:
    wait = wait_before_again(RateLimited("429", asked), refusals, chance)
    assert wait is not None
    honoured = min(max(asked, 0.0), LONGEST_ASKED_SECONDS)
    assert honoured <= wait <= honoured + 1.0


@given(refusals, chances)
def test_a_rate_limit_without_a_time_is_waited_for_like_an_outage(refusals: int, chance: float) -> None:
    assert wait_before_again(RateLimited("429"), refusals, chance) == wait_before_again(
        Unavailable("503"), refusals, chance
    )


def test_a_job_is_due_at_its_time_and_not_before() -> None:
    assert is_due(None, NOW)
    assert is_due(NOW, NOW)
    assert is_due(NOW - timedelta(days=400), NOW)
    assert not is_due(NOW + timedelta(milliseconds=1), NOW)
    assert not is_due(NOW + timedelta(seconds=LONGEST_ASKED_SECONDS), NOW)


def test_a_time_further_off_than_any_we_set_means_that_a_clock_has_jumped() -> None:
    limit = timedelta(seconds=2 * LONGEST_ASKED_SECONDS)
    assert not is_due(NOW + limit, NOW)
    assert is_due(NOW + limit + timedelta(milliseconds=1), NOW)
