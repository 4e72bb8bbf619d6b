"""How well `appearance-v1` tells drawn people apart: `python -m benchmarks.identity_dev [--fresh SEED]`.

The scorer's constants were chosen on designs 0-15 (`development`) and then frozen; `fresh` are designs that no choice
has seen, by default 1000-1011. Beside the easy numbers it prints the hard case: people who share the character's
palette of skin or hair, and every third picture with a bystander in it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.drawn_people import design, picture, random_shot
from domain.identity import calibrate_threshold, judge_lora, score_against_references
from providers.ports import Appearance
from providers.vision import AppearanceScorer

SHOTS = 12
REFERENCES = 6


def main() -> None:
    """Print both sets' distributions, AUCs and what the calibrated gate lets through."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", type=int, default=1000, metavar="SEED", help="first of 12 unseen designs")
    first = parser.parse_args().fresh
    scorer = AppearanceScorer()
    measure(scorer, "development", list(range(16)), 0)
    measure(scorer, "fresh", list(range(first, first + 12)), first * 1000)


def measure(scorer: AppearanceScorer, name: str, designs: list[int], shots_from: int) -> None:
    """Describe every design's shots, then compare pairs, galleries, gates and controls."""
    looks, abstained, seconds = _looks(scorer, designs, shots_from)
    same, other = _pairs(scorer, looks)
    print(f"\n{name}: {len(designs)} designs × {SHOTS} shots, {abstained} abstained, {seconds * 1000:.0f} ms a picture")  # noqa: T201
    _show("pairs", same, other)
    genuine, impostor = _gallery_scores(scorer, looks)
    _show(f"against {REFERENCES} references", genuine, impostor)
    accepted: list[bool] = []
    refused: list[bool] = []
    learned = unlearned = 0
    for index in range(len(looks)):
        others, held_out = _one_against_all(scorer, looks, index)
        # Calibrated as a season would: a few held-out pictures against the cast; judged on pictures not used for that.
        gate = calibrate_threshold(held_out[:3], others[::2])
        accepted += [score >= gate.threshold for score in held_out[3:]]
        refused += [score < gate.threshold for score in others[1::2]]
        views = held_out[-5:]
        learned += judge_lora(views, others[1 : 1 + 2 * len(views) : 2], gate, 0, metric=scorer.metric).is_passed
        wrong, control = others[1:11:2], others[11:21:2]
        unlearned += judge_lora(wrong, control, gate, 0, metric=scorer.metric).is_passed
    print(  # noqa: T201
        f"  calibrated gate: {np.mean(accepted):.1%} of her own accepted, {np.mean(refused):.1%} of others' refused"
        f"\n  LoRA gate: {learned} faithful and {unlearned} unfaithful of {len(looks)} sets each passed"
    )


def area_under_curve(higher: NDArray[np.float64], lower: NDArray[np.float64]) -> float:
    """Chance that a score of the first kind is above one of the second, ties counting half."""
    below = np.searchsorted(np.sort(lower), higher, side="left")
    upto = np.searchsorted(np.sort(lower), higher, side="right")
    return float((below + upto).mean() / 2 / len(lower))


def _looks(scorer: AppearanceScorer, designs: list[int], shots_from: int) -> tuple[list[list[Appearance]], int, float]:
    looks: list[list[Appearance]] = []
    abstained, seconds = 0, 0.0
    for number in designs:
        mine = []
        for shot in range(SHOTS):
            bystander = design(number + 500_000) if shot % 3 == 2 else None
            image = picture(design(number), random_shot(shots_from + number * 100 + shot), bystander)
            started = time.perf_counter()
            look = scorer.describe(image)
            seconds += time.perf_counter() - started
            abstained += look.vector is None
            if look.vector is not None:
                mine.append(look)
        looks.append(mine)
    return looks, abstained, seconds / (len(designs) * SHOTS)


def _pairs(scorer: AppearanceScorer, looks: list[list[Appearance]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    flat = [(index, look) for index, mine in enumerate(looks) for look in mine]
    same: list[float] = []
    other: list[float] = []
    for position, (who, look) in enumerate(flat):
        for whom, another in flat[position + 1 :]:
            (same if who == whom else other).append(scorer.similarity(look, another))
    return np.array(same), np.array(other)


def _one_against_all(
    scorer: AppearanceScorer, looks: list[list[Appearance]], index: int
) -> tuple[list[float], list[float]]:
    """Scores against the references of design `index`: of everybody else, and of her own held-out pictures."""
    references, held_out = looks[index][:REFERENCES], looks[index][REFERENCES:]

    def score(look: Appearance) -> float:
        return score_against_references([scorer.similarity(look, known) for known in references])

    others = [
        score(look)
        for place in range(SHOTS)
        for mine in looks
        if mine is not looks[index]
        for look in mine[place : place + 1]
    ]
    return others, [score(look) for look in held_out]


def _gallery_scores(
    scorer: AppearanceScorer, looks: list[list[Appearance]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    genuine: list[float] = []
    impostor: list[float] = []
    for index in range(len(looks)):
        others, held_out = _one_against_all(scorer, looks, index)
        genuine += held_out
        impostor += others
    return np.array(genuine), np.array(impostor)


def _show(what: str, same: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    quantiles = (0.05, 0.5, 0.95)
    print(  # noqa: T201
        f"  {what}: AUC {area_under_curve(same, other):.4f}"
        f" · same 5/50/95 % {np.round(np.quantile(same, quantiles), 2)}"
        f" · different {np.round(np.quantile(other, quantiles), 2)}"
        f" · {np.mean(same > np.quantile(other, 0.95)):.1%} of same above 95 % of different"
    )


if __name__ == "__main__":
    main()
