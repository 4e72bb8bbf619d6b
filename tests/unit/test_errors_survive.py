"""Every error is one clear sentence with an exit code, and survives the way between two processes."""

from __future__ import annotations

import copy
import inspect
import itertools
import pickle

import pytest

from domain import errors
from domain.errors import EXIT_CODE_ORDER, OnModelError, RateLimited, worst_exit_code

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, OnModelError)]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling_with_its_message_and_its_job(kind: type[OnModelError], protocol: int) -> None:
    error = kind("Slot 6 was refused (“é”): write another prompt.")
    error.job_key = "abc"
    for same in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(same) is kind
        assert (str(same), same.message, same.job_key) == (str(error), error.message, "abc")
        assert same.exit_code == kind.exit_code


@pytest.mark.parametrize("seconds", [None, 0.0, 12.5])
def test_how_long_to_wait_survives_too(seconds: float | None) -> None:
    error = RateLimited("too many requests", seconds)
    error.job_key = "abc"
    same = pickle.loads(pickle.dumps(error))
    assert (same.retry_after_seconds, same.job_key, same.message) == (seconds, "abc", "too many requests")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("BadInput", 2),
        ("NotConfigured", 3),
        ("OverBudget", 4),
        ("OutOfCredit", 4),
        ("RateLimited", 5),
        ("Unavailable", 5),
        ("Rejected", 5),
        ("PromptRefused", 5),
        ("BadTrainingSet", 5),
        ("JobFailed", 5),
        ("ResultExpired", 6),
        ("SubmissionUnknown", 6),
        ("NeedsPerson", 6),
    ],
)
def test_an_error_ends_the_command_with_the_issues_code(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_what_may_be_retried_is_never_also_a_refusal_or_an_unknown() -> None:
    retryable = {kind for kind in ALL if issubclass(kind, errors.Retryable)}
    assert retryable == {errors.Retryable, errors.RateLimited, errors.Unavailable}
    assert not any(issubclass(kind, errors.Retryable) for kind in (errors.SubmissionUnknown, errors.OutOfCredit))


@pytest.mark.parametrize(
    ("codes", "worst"), [([], 0), ([0], 0), ([5], 5), ([6, 5], 6), ([5, 6, 4], 4), ([6, 6], 6), ([5, 4], 4)]
)
def test_of_several_codes_four_goes_before_six_before_five(codes: list[int], worst: int) -> None:
    assert all(worst_exit_code(list(order)) == worst for order in itertools.permutations(codes))


def test_the_order_names_every_code_that_can_meet_another() -> None:
    assert set(EXIT_CODE_ORDER) == {kind.exit_code for kind in ALL} - {1, 2, 3}
