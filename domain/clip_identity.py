"""Is the character in this clip? The judgement of a rendered clip's frames against a calibrated threshold."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from domain.identity import (
    KNOWS_NOTHING,
    SHARE_THAT_MUST_PASS,
    Calibration,
    IdentityScore,
    IdentityVerdict,
    share_interval,
)

FEWEST_FRAMES = 3


def judge_clip(
    scores: Sequence[float], calibration: Calibration, abstained: int, *, metric: str, control: float | None
) -> IdentityVerdict:
    """Whether enough of the judged frames reach the threshold. Pure.

    `control` is what the same scorer gave this character's views without its LoRA, None where there was no LoRA to
    leave out. Frames of one clip are no independent pairs, so no bound of a difference is claimed for them.
    """
    judged = len(scores)
    passing = sum(score >= calibration.threshold for score in scores)
    share = passing / judged if judged else 0.0
    mean = fmean(scores) if scores else None
    is_passed = judged >= FEWEST_FRAMES and share >= SHARE_THAT_MUST_PASS
    score = IdentityScore(
        metric=metric,
        threshold=calibration.threshold,
        calibrated_by=calibration.method,
        is_weak=calibration.is_weak,
        judged=judged,
        abstained=abstained,
        mean_with_lora=mean,
        mean_control=control if judged else None,
        delta=mean - control if mean is not None and control is not None else None,
        lower95_of_delta=KNOWS_NOTHING,
        share_above_threshold=share,
        share_interval=share_interval(passing, judged),
        control_share_above_threshold=float(control is not None and control >= calibration.threshold),
    )
    if mean is None:
        reason = f"Nothing could be judged: the scorer abstained on all {abstained} frames."
    else:
        verb = "On-model" if is_passed else "Off-model"
        reason = f"{verb}: {passing} of {judged} frames reach the threshold of {calibration.threshold:.2f}."
    return IdentityVerdict(is_passed=is_passed, reason=reason, score=score)
