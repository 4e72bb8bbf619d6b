"""Names of pods, their deadlines, and the rules by which the reaper keeps or deletes them."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import BadInput
from domain.jobs import JobState, Operation, ProviderJob, Stage, VendorJobIds, VendorRequest
from domain.pods import DEFAULT_HARD_STOP, GRACE, PodVerdict, hard_stop, judge_pods, key_parts, pod_name, read_pod_name
from domain.records import Record
from domain.submissions import Submission

KEY = "0123456789abcdef0123" + "f" * 20
ORDERED = datetime(2026, 3, 1, 12, 0, 0, 987_654, tzinfo=UTC)


class Rented(Record):
    pod_id: str = "pod1"
    name: str


def submission(number: int = 1, sent_at: datetime = ORDERED) -> Submission:
    return Submission(installation="0a1b2c3d", job_key=KEY, number=number, sent_at=sent_at, url_of={})


def job_in(state: JobState, *, pod_id: str | None = None, post_count: int = 1, **arguments: Any) -> ProviderJob:
    return ProviderJob.model_construct(
        key=KEY,
        stage=Stage.LORA_TRAINING,
        operation=Operation.TRAIN_LORA,
        request=VendorRequest(vendor="runpod", endpoint="pods", arguments=arguments),
        state=state,
        ids=VendorJobIds(request_id=pod_id) if pod_id else None,
        post_count=post_count,
    )


def judged(
    job: ProviderJob | None, *, age: timedelta = timedelta(hours=1), number: int = 1, pod_id: str = "pod1"
) -> PodVerdict:
    pod = Rented(pod_id=pod_id, name=pod_name(submission(number)))
    jobs = {KEY[:20]: job} if job else {}
    (verdict,) = judge_pods([pod], jobs, ORDERED.replace(microsecond=0) + age, installation="0a1b2c3d")
    return verdict


# --- names ---


@given(
    key=st.text("0123456789abcdef", min_size=40, max_size=40),
    number=st.integers(1, 999_999),
    sent_at=st.timedeltas(timedelta(0), timedelta(days=60_000)).map(
        lambda span: datetime(2002, 1, 1, tzinfo=UTC) + span
    ),
)
def test_a_name_says_when_it_was_ordered_for_which_job_and_by_which_post(
    key: str, number: int, sent_at: datetime
) -> None:
    name = pod_name(Submission(installation="0a1b2c3d", job_key=key, number=number, sent_at=sent_at, url_of={}))
    read = read_pod_name(name)
    assert read is not None
    assert (read.key_part, read.number) == (key[:20], number)
    assert timedelta(0) <= sent_at - read.ordered_at < timedelta(seconds=1)
    assert len(name) <= 191
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-")


def test_two_posts_of_one_job_have_two_names() -> None:
    assert pod_name(submission(1)) != pod_name(submission(2))
    assert key_parts([Rented(name=pod_name(submission(n))) for n in (1, 2)]) == (KEY[:20],)


STRANGE = [
    "onmodel",
    "onmodel-",
    f"onmodel-17723664-{KEY[:20]}-1",
    f"onmodel-1772366400-{KEY[:19]}-1",
    f"onmodel-1772366400-{KEY[:20]}-0",
    f"onmodel-1772366400-{KEY[:20]}-1\n",
    f"onmodel-1772366400-{KEY[:20]}-1-copy",
    f"onmodel-1772366400-{KEY[:20].upper()}-1",
    f"onmodel-１772366400-{KEY[:20]}-1",
]


@pytest.mark.parametrize("name", [*STRANGE, f"my-onmodel-1772366400-{KEY[:20]}-1"])
def test_a_name_that_is_not_quite_ours_is_not_read(name: str) -> None:
    assert read_pod_name(name) is None
    assert key_parts([Rented(name=name)]) == ()


@given(st.text(max_size=60))
def test_no_name_breaks_the_reading(name: str) -> None:
    assert read_pod_name(f"onmodel-{name}") is None or name.count("-") == 2


# --- deadlines ---


@pytest.mark.parametrize("seconds", [1, 0.5, 3600, 7 * 24 * 3600])
def test_a_hard_stop_is_what_the_request_says(seconds: float) -> None:
    assert hard_stop({"hard_stop_seconds": seconds}) == timedelta(seconds=seconds)


def test_a_request_that_says_nothing_gets_six_hours() -> None:
    assert hard_stop({}) == DEFAULT_HARD_STOP == timedelta(hours=6)


@pytest.mark.parametrize("seconds", [0, -1, "60", None, True, float("nan"), float("inf"), 7 * 24 * 3600 + 1, [1]])
def test_what_is_no_hard_stop_is_refused(seconds: object) -> None:
    with pytest.raises(BadInput, match="number of seconds"):
        hard_stop({"hard_stop_seconds": seconds})


# --- verdicts ---


def test_pods_of_others_are_not_judged() -> None:
    assert (
        judge_pods([Rented(name=name) for name in ("", "training", "Onmodel-1")], {}, ORDERED, installation="0a1b2c3d")
        == ()
    )


@pytest.mark.parametrize("name", STRANGE[1:])
def test_a_pod_whose_age_cannot_be_read_is_kept(name: str) -> None:
    (verdict,) = judge_pods([Rented(name=name)], {}, ORDERED + timedelta(days=99), installation="0a1b2c3d")
    assert not verdict.is_to_delete
    assert "no age" in verdict.reason


def test_a_pod_from_the_future_is_kept_and_told() -> None:
    verdict = judged(None, age=timedelta(seconds=-1))
    assert not verdict.is_to_delete
    assert "check the clocks" in verdict.reason


@pytest.mark.parametrize("job", [None, job_in(JobState.FAILED), job_in(JobState.SUBMITTING)])
def test_a_young_pod_is_left_alone(job: ProviderJob | None) -> None:
    assert not judged(job, age=timedelta(0)).is_to_delete
    assert not judged(job, age=GRACE - timedelta(seconds=1)).is_to_delete


def test_a_pod_without_a_row_goes_when_it_is_no_longer_young() -> None:
    verdict = judged(None, age=GRACE)
    assert verdict.is_to_delete
    assert "no job" in verdict.reason
    assert not verdict.ends_job


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED])
def test_a_pod_whose_job_is_over_goes(state: JobState) -> None:
    verdict = judged(job_in(state, pod_id="pod1"), age=GRACE)
    assert verdict.is_to_delete
    assert state in verdict.reason
    assert not verdict.ends_job


@pytest.mark.parametrize(
    ("state", "pod_id"),
    [
        (JobState.SUBMITTING, None),
        (JobState.SUBMISSION_UNKNOWN, None),
        (JobState.SUBMITTED, "pod1"),
        (JobState.RUNNING, "pod1"),
    ],
)
def test_a_living_job_keeps_its_pod_up_to_its_hard_stop_and_no_longer(state: JobState, pod_id: str | None) -> None:
    job = job_in(state, pod_id=pod_id, hard_stop_seconds=7200)
    kept = judged(job, age=timedelta(seconds=7200))
    assert not kept.is_to_delete
    assert kept.job_key == KEY
    gone = judged(job, age=timedelta(seconds=7201))
    assert gone.is_to_delete
    assert gone.ends_job
    assert "past its hard stop of 2 h" in gone.reason


def test_a_hard_stop_that_cannot_be_read_counts_as_the_usual_one() -> None:
    job = job_in(JobState.RUNNING, pod_id="pod1", hard_stop_seconds="soon")
    assert not judged(job, age=DEFAULT_HARD_STOP).is_to_delete
    assert judged(job, age=DEFAULT_HARD_STOP + timedelta(seconds=1)).ends_job


def test_a_job_that_is_planned_again_has_no_use_for_the_pod_of_its_last_post() -> None:
    verdict = judged(job_in(JobState.PLANNED))
    assert verdict.is_to_delete
    assert not verdict.ends_job


def test_of_two_pods_of_a_job_the_one_it_does_not_run_on_goes_and_the_job_lives() -> None:
    job = job_in(JobState.RUNNING, pod_id="pod1")
    assert not judged(job).is_to_delete
    second = judged(job, pod_id="pod2", age=timedelta(days=1))
    assert second.is_to_delete
    assert not second.ends_job
    assert "runs on the pod pod1" in second.reason


def test_the_pod_of_an_earlier_post_goes_and_that_of_the_last_stays() -> None:
    job = job_in(JobState.SUBMISSION_UNKNOWN, post_count=2)
    assert judged(job, number=1).is_to_delete
    assert not judged(job, number=1).ends_job
    assert not judged(job, number=2).is_to_delete


def test_a_job_may_run_on_the_pod_of_an_earlier_post_that_a_person_adopted() -> None:
    assert not judged(job_in(JobState.RUNNING, pod_id="pod1", post_count=2), number=1).is_to_delete


def test_a_pod_that_another_onmodel_rented_is_kept_whatever_our_ledger_says() -> None:
    pod = Rented(name=pod_name(submission()))
    (verdict,) = judge_pods([pod], {}, ORDERED + timedelta(days=99), installation="ffffffff")
    assert not verdict.is_to_delete
    assert "Another OnModel" in verdict.reason
