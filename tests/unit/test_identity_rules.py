"""Thresholds, paired comparison and the verdict: the gate opens for the character and for nobody else."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import BadInput
from domain.identity import (
    KNOWS_NOTHING,
    Calibration,
    calibrate_threshold,
    judge_lora,
    paired_bootstrap_lower95,
    score_against_references,
    share_interval,
)

SURE = Calibration(
    threshold=0.5, method="for the test", false_accept_rate=0.0, genuine_count=9, impostor_count=30, is_weak=False
)
WITH = [0.81, 0.74, 0.77, 0.69, 0.83]
WITHOUT = [0.12, 0.20, 0.05, 0.18, 0.11]

scores = st.floats(-1, 1, allow_nan=False)


def judged(with_scores: list[float], control: list[float], abstained: int = 0) -> tuple[bool, str]:
    verdict = judge_lora(with_scores, control, SURE, abstained, metric="appearance-v1")
    return verdict.is_passed, verdict.reason


def test_a_lora_that_draws_the_character_passes_and_says_by_how_much() -> None:
    verdict = judge_lora(WITH, WITHOUT, SURE, 1, metric="appearance-v1")
    assert verdict.is_passed
    assert "0.77 with the LoRA against 0.13 without" in verdict.reason
    assert "5 of 5 views" in verdict.reason


def test_a_verdict_carries_metric_threshold_calibration_counts_and_control() -> None:
    score = judge_lora(WITH, WITHOUT, SURE, 1, metric="appearance-v1").score
    assert (score.metric, score.threshold, score.calibrated_by) == ("appearance-v1", 0.5, "for the test")
    assert (score.judged, score.abstained) == (5, 1)
    assert score.mean_with_lora == pytest.approx(statistics.fmean(WITH))
    assert score.mean_control == pytest.approx(statistics.fmean(WITHOUT))
    assert score.delta == pytest.approx(statistics.fmean(WITH) - statistics.fmean(WITHOUT))
    assert 0 < score.lower95_of_delta < statistics.fmean(WITH) - statistics.fmean(WITHOUT)
    assert (score.share_above_threshold, score.control_share_above_threshold) == (1.0, 0.0)
    assert score.share_interval == pytest.approx((0.566, 1.0), abs=0.001)


def test_nothing_judged_never_passes() -> None:
    is_passed, reason = judged([], [], abstained=5)
    assert not is_passed
    assert "abstained on all 5 views" in reason


def test_two_judged_views_are_too_few_and_three_are_enough() -> None:
    assert not judged(WITH[:2], WITHOUT[:2], abstained=3)[0]
    assert judged(WITH[:3], WITHOUT[:3], abstained=2)[0]


def test_a_lora_no_better_than_its_control_fails_even_when_every_view_is_above_the_threshold() -> None:
    is_passed, reason = judged([0.8, 0.7, 0.75, 0.72, 0.78], [0.79, 0.73, 0.74, 0.75, 0.77])
    assert not is_passed
    assert "no sure difference" in reason


def test_a_lora_that_helps_but_stays_under_the_threshold_fails() -> None:
    is_passed, reason = judged([0.45, 0.40, 0.48, 0.41, 0.44], WITHOUT)
    assert not is_passed
    assert "only 0 of 5 views" in reason


def test_three_of_five_views_suffice_and_two_do_not() -> None:
    assert judged([0.8, 0.8, 0.8, 0.4, 0.4], WITHOUT)[0]
    assert not judged([0.8, 0.8, 0.4, 0.4, 0.4], WITHOUT)[0]


def test_a_weak_threshold_is_said_so_in_the_sentence() -> None:
    weak = calibrate_threshold([0.6, 0.7], [0.1, 0.2])
    assert "the threshold is weak" in judge_lora(WITH, WITHOUT, weak, 0, metric="m").reason
    assert "weak" not in judge_lora(WITH, WITHOUT, SURE, 0, metric="m").reason


def test_unpaired_scores_are_refused_with_one_sentence() -> None:
    with pytest.raises(BadInput, match="5 scores with the LoRA and 4 without are no pairs"):
        judged(WITH, WITHOUT[:4])


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1.5])
def test_a_score_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(BadInput, match="between -1 and 1"):
        judged([0.8, 0.7, wrong], WITHOUT[:3])


def test_one_bad_view_of_five_widens_the_bound_to_zero() -> None:
    clear = paired_bootstrap_lower95(WITH, WITHOUT)
    doubtful = paired_bootstrap_lower95([*WITH[:4], 0.0], [*WITHOUT[:4], 0.4])
    assert clear > 0.4
    assert doubtful < 0


def test_the_bound_knows_nothing_from_one_pair() -> None:
    assert paired_bootstrap_lower95([0.9], [0.1]) == KNOWS_NOTHING


@pytest.mark.parametrize("count", [3, 5])
def test_the_bound_is_seldom_above_the_truth(count: int) -> None:
    # Nominally 2.5 in 100; the plain percentile would be wrong 14 times at three pairs and 8 times at five.
    draw = random.Random(11)
    wrong = 0
    for _ in range(100):
        differences = [draw.gauss(0.2, 0.1) for _ in range(count)]
        wrong += paired_bootstrap_lower95(differences, [0.0] * count, seed=draw.randrange(10**6)) > 0.2
    assert wrong <= 7


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(scores, scores), min_size=5, max_size=12), st.integers(0, 99))
def test_the_bound_lies_between_the_worst_difference_and_the_mean(pairs: list[tuple[float, float]], seed: int) -> None:
    with_scores, without = [a for a, _ in pairs], [b for _, b in pairs]
    differences = [a - b for a, b in pairs]
    bound = paired_bootstrap_lower95(with_scores, without, seed)
    assert bound == paired_bootstrap_lower95(with_scores, without, seed)
    assert min(differences) - 1e-9 <= bound <= statistics.fmean(differences) + 1e-9


def test_well_parted_scores_get_the_middle_and_no_false_accepts() -> None:
    found = calibrate_threshold([0.7, 0.72, 0.74, 0.8, 0.9], [0.0, 0.1, 0.2, 0.3] * 3)
    assert found.threshold == pytest.approx((0.708 + 0.3) / 2)
    assert found.false_accept_rate == 0
    assert not found.is_weak
    assert found.method == "midway between 5 pictures of the character and 12 of others"


def test_overlapping_scores_keep_nineteen_of_twenty_others_out_and_are_weak() -> None:
    found = calibrate_threshold([0.3, 0.4, 0.5, 0.6, 0.7], [i / 100 for i in range(60)])
    assert found.false_accept_rate <= 0.05
    assert found.is_weak


@pytest.mark.parametrize(("genuine", "impostor"), [(4, 10), (5, 9), (5, 0), (0, 10)])
def test_few_pictures_make_a_weak_threshold(genuine: int, impostor: int) -> None:
    assert calibrate_threshold([0.8] * genuine, [0.1] * impostor).is_weak
    assert not calibrate_threshold([0.8] * 5, [0.1] * 10).is_weak


def test_no_scores_at_all_cannot_be_calibrated() -> None:
    with pytest.raises(BadInput, match="no scores to calibrate"):
        calibrate_threshold([], [])


@given(st.lists(scores, max_size=20), st.lists(scores, max_size=20))
def test_a_calibration_is_honest_about_its_false_accepts(genuine: list[float], impostor: list[float]) -> None:
    if not genuine and not impostor:
        return
    found = calibrate_threshold(genuine, impostor)
    assert -1 <= found.threshold <= 1
    if impostor:
        assert found.false_accept_rate == sum(s >= found.threshold for s in impostor) / len(impostor)
    assert found.is_weak or found.false_accept_rate <= 0.05


def test_a_picture_is_scored_by_its_best_three_references() -> None:
    assert score_against_references([0.1, 0.9, 0.8, -0.5, 0.7]) == pytest.approx(0.8)
    assert score_against_references([0.4]) == 0.4
    with pytest.raises(BadInput, match="no reference"):
        score_against_references([])


def test_a_share_of_nothing_is_anywhere_between_none_and_all() -> None:
    assert share_interval(0, 0) == (0.0, 1.0)
    assert share_interval(5, 10) == pytest.approx((0.237, 0.763), abs=0.001)
