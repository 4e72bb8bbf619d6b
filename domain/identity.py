"""When a LoRA has learned its character: calibrating a threshold, comparing with the control, and the verdict.

Everything here works on similarities between -1 and 1, whatever measured them. No score leaves this file without
its metric, its threshold and how that was found, how many pictures were judged, and the same score without the LoRA.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

from domain.errors import BadInput
from domain.records import Record

BEST_REFERENCES = 3
"""A picture is compared with the best few references: they show several views, and one view is enough to be her."""

SHARE_THAT_MUST_PASS = 0.6
"""Three of the five standard views. The other two may be views that the threshold's own pictures did not show."""

MIN_JUDGED_PAIRS = 3
"""Below three pairs the interval is wider than any difference worth having."""

MIN_GENUINE_SCORES = 5
MIN_IMPOSTOR_SCORES = 10
"""Below these a threshold is called weak: with 10 impostors and none accepted, up to 26 % could still get through
(95 %, 1 - 0.05^(1/10))."""

GENUINE_LOSS = 0.10
TOLERATED_FALSE_ACCEPTS = 0.05
FEWEST_TO_RESAMPLE = 5
RESAMPLES = 10_000
KNOWS_NOTHING = -2.0
"""The lowest difference two similarities can have: the bound when there is nothing to resample."""

_STUDENT_T_975 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
"""97.5 % quantiles of Student's t for 1 to 14 degrees of freedom (any table); beyond, 1.96 + 2.4/df is within 0.01."""


class Calibration(Record):
    """A threshold with its pedigree; `is_weak` when a person should not lean on it, `method` says why."""

    threshold: float
    method: str
    false_accept_rate: float
    genuine_count: int
    impostor_count: int
    is_weak: bool


class IdentityScore(Record):
    """One measured likeness, complete with its control. Means are over the judged pairs, None when there are none."""

    metric: str
    threshold: float
    calibrated_by: str
    is_weak: bool
    judged: int
    abstained: int
    mean_with_lora: float | None
    mean_control: float | None
    delta: float | None
    lower95_of_delta: float
    share_above_threshold: float
    share_interval: tuple[float, float]
    control_share_above_threshold: float


class IdentityVerdict(Record):
    """Whether the LoRA draws the character, the sentence for a person, and the numbers behind it."""

    is_passed: bool
    reason: str
    score: IdentityScore


def score_against_references(similarities: Sequence[float]) -> float:
    """Likeness of one picture to a set of references: the mean of the best three (fewer when there are fewer).

    Calibration and judgement must both score this way, against a set that does not hold the picture itself.
    `BadInput` without any similarity.
    """
    if not similarities:
        raise BadInput("There is no reference to compare the picture with: give at least one that can be judged.")
    return fmean(sorted(similarities, reverse=True)[:BEST_REFERENCES])


def paired_bootstrap_lower95(with_scores: Sequence[float], without_scores: Sequence[float], seed: int = 0) -> float:
    """Lower end of the 95 % interval of mean(with - without), pairs being the same view, prompt and seed.

    A percentile bootstrap is too sure of itself on five views, so its percentile is moved outwards to
    Φ(-√(n/(n-1))·t₉₇.₅,ₙ₋₁), the "expanded percentile" interval (T. Hesterberg, What Teachers Should Know About the
    Bootstrap, 2015, section 4). Below five pairs there are too few resamples for any percentile and Student's t bound
    stands in. Of 1000 simulated sets the truth lay above the bound in 96.5 % with 5 pairs, 96.9 % with 8, 96.1 % with
    20 (nominal 97.5 %). Deterministic for a seed. `KNOWS_NOTHING` below two pairs; `BadInput` when the scores are not
    pairs or not finite.
    """
    differences = [with_score - without for with_score, without in _pairs(with_scores, without_scores)]
    count = len(differences)
    if count < 2:
        return KNOWS_NOTHING
    freedom = count - 1
    quantile = _STUDENT_T_975[freedom - 1] if freedom <= len(_STUDENT_T_975) else 1.96 + 2.4 / freedom
    if count < FEWEST_TO_RESAMPLE:
        return max(KNOWS_NOTHING, fmean(differences) - quantile * stdev(differences) / math.sqrt(count))
    percentile = NormalDist().cdf(-math.sqrt(count / freedom) * quantile)
    draw = random.Random(seed)  # noqa: S311 - statistics, not secrets
    means = sorted(fmean(draw.choices(differences, k=count)) for _ in range(RESAMPLES))
    return means[int(percentile * RESAMPLES)]


def calibrate_threshold(genuine: Sequence[float], impostor: Sequence[float]) -> Calibration:
    """Where to draw the line between scores of the character and scores of others, each at best seen as evidence.

    Genuine scores come from held-out pictures of the character, impostor scores from pictures of others, both scored
    by `score_against_references` on the same references. Rule: let G be the 10 % quantile of the genuine scores and I
    the highest impostor score (from 100 on, the 99 % quantile). Apart (G > I): the middle between them. Overlapping:
    the 95 % quantile of the impostors, so that at most one in twenty passes, and weak. Only one kind of score: G, or I
    and a tenth of the room above it, and weak. `BadInput` when there is no score at all or one is not finite.
    """
    _refuse_unfit([*genuine, *impostor])
    if not genuine and not impostor:
        raise BadInput("There are no scores to calibrate a threshold with: judge at least one held-out picture.")
    counts = f"{len(genuine)} pictures of the character and {len(impostor)} of others"
    is_weak = len(genuine) < MIN_GENUINE_SCORES or len(impostor) < MIN_IMPOSTOR_SCORES
    if not impostor:
        threshold, how = _quantile(genuine, GENUINE_LOSS), "the lower edge of"
    elif not genuine:
        top = max(impostor)
        threshold, how = top + 0.1 * (1 - top), "just above the most alike of"
    else:
        edge = _quantile(genuine, GENUINE_LOSS)
        top = max(impostor) if len(impostor) < 100 else _quantile(impostor, 0.99)
        if edge > top:
            threshold, how = (edge + top) / 2, "midway between"
        else:
            threshold, how = _quantile(impostor, 1 - TOLERATED_FALSE_ACCEPTS), "above 95 % of the others among"
            is_weak = True
    accepted = sum(score >= threshold for score in impostor) / len(impostor) if impostor else 1.0
    if accepted > TOLERATED_FALSE_ACCEPTS:
        is_weak = True
    return Calibration(
        threshold=threshold,
        method=f"{how} {counts}{' (weak)' if is_weak else ''}",
        false_accept_rate=accepted,
        genuine_count=len(genuine),
        impostor_count=len(impostor),
        is_weak=is_weak,
    )


def judge_lora(
    with_scores: Sequence[float],
    control_scores: Sequence[float],
    calibration: Calibration,
    abstained: int,
    *,
    metric: str,
    seed: int = 0,
) -> IdentityVerdict:
    """Has the LoRA learned the character? Both sequences hold the judged views only, pair by pair.

    Passes when at least three pairs were judged, the lower 95 % bound of (with - without) is above zero, and at least
    60 % of the views with the LoRA reach the threshold. A view on which the scorer abstained, with or without the
    LoRA, belongs into `abstained` and counts for nothing. Pure; errors as `paired_bootstrap_lower95`.
    """
    pairs = _pairs(with_scores, control_scores)
    judged = len(pairs)
    passing = sum(score >= calibration.threshold for score, _ in pairs)
    control_passing = sum(score >= calibration.threshold for _, score in pairs)
    lower = paired_bootstrap_lower95(with_scores, control_scores, seed)
    mean_with = fmean(with_scores) if pairs else None
    mean_control = fmean(control_scores) if pairs else None
    score = IdentityScore(
        metric=metric,
        threshold=calibration.threshold,
        calibrated_by=calibration.method,
        is_weak=calibration.is_weak,
        judged=judged,
        abstained=abstained,
        mean_with_lora=mean_with,
        mean_control=mean_control,
        delta=mean_with - mean_control if mean_with is not None and mean_control is not None else None,
        lower95_of_delta=lower,
        share_above_threshold=passing / judged if judged else 0.0,
        share_interval=share_interval(passing, judged),
        control_share_above_threshold=control_passing / judged if judged else 0.0,
    )
    is_enough = judged >= MIN_JUDGED_PAIRS
    is_passed = is_enough and lower > 0 and score.share_above_threshold >= SHARE_THAT_MUST_PASS
    return IdentityVerdict(is_passed=is_passed, reason=_reason(score, passing), score=score)


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % Wilson interval of a share; (0, 1) when nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    z2 = 1.96**2
    share = hits / count
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def _reason(score: IdentityScore, passing: int) -> str:
    if score.delta is None:
        return f"Nothing could be judged: the scorer abstained on all {score.abstained} views."
    if score.judged < MIN_JUDGED_PAIRS:
        return (
            f"Only {score.judged} views could be judged, {MIN_JUDGED_PAIRS} are needed ({score.abstained} abstained)."
        )
    likeness = f"{score.mean_with_lora:.2f} with the LoRA against {score.mean_control:.2f} without"
    views = f"{passing} of {score.judged} views reach the threshold of {score.threshold:.2f}"
    weak = "; the threshold is weak" if score.is_weak else ""
    if score.lower95_of_delta <= 0:
        return f"The LoRA makes no sure difference: {likeness}, lower bound {score.lower95_of_delta:+.2f}{weak}."
    if score.share_above_threshold < SHARE_THAT_MUST_PASS:
        return f"The LoRA helps but not enough: {likeness}, only {views}{weak}."
    return f"The LoRA draws the character: {likeness}, at least {score.lower95_of_delta:+.2f}, and {views}{weak}."


def _pairs(first: Sequence[float], second: Sequence[float]) -> list[tuple[float, float]]:
    if len(first) != len(second):
        raise BadInput(
            f"{len(first)} scores with the LoRA and {len(second)} without are no pairs: judge the same views twice."
        )
    _refuse_unfit([*first, *second])
    return list(zip(first, second, strict=True))


def _refuse_unfit(scores: Sequence[float]) -> None:
    for score in scores:
        if not -1.001 <= score <= 1.001:
            raise BadInput(f"An identity score is {score}: it must lie between -1 and 1.")


def _quantile(values: Sequence[float], share: float) -> float:
    """Linear between the neighbours, as most statistics packages do by default."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
