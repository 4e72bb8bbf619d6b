"""What makes a set of pictures varied: the objective that choosing and holding out maximise (docs/decisions/0005)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from domain.pictures import Framing, Light, Origin, View
from domain.records import Record

if TYPE_CHECKING:
    from tasks.choosing import Choosable

FRAMING_SHARES = {Framing.CLOSE_UP: 0.33, Framing.BUST: 0.32, Framing.FULL: 0.30, Framing.UNKNOWN: 0.05}
"""About a third close, the rest medium and full (curation_and_identity.md section 1, which calls it a parameter)."""

VIEW_SHARES = {View.FRONTAL: 0.35, View.THREE_QUARTER: 0.35, View.PROFILE: 0.18, View.BACK: 0.07, View.UNKNOWN: 0.05}
"""Some profile and back (the same place); how many is our choice."""

LIGHT_SHARES = dict.fromkeys(Light, 0.25)

LAYOUT_WEIGHT = 2.0
KIND_WEIGHTS = {"framing": 1.0, "view": 1.0, "light": 0.6, "outfit": 0.6, "source": 0.6}
OWN_WEIGHT, SHARP_WEIGHT = 0.3, 0.05
"""For pictures that this project did not generate, and for sharp ones among those of their source: tie-breaks."""


class Kinds(Record):
    """One way to sort the pictures: the kind each belongs to, each kind's wanted share, and what that is worth."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind_of: NDArray[np.int64]
    shares: NDArray[np.float64]
    weight: float


class Objective:
    """Facility location over layouts, plus for each sort Σ √(share · count / size), plus each picture's own merit.

    For a fixed number of pictures the sum of roots is largest where the counts are in the wanted shares (Cauchy and
    Schwarz); all three are monotone and submodular, and so is the sum.
    """

    def __init__(
        self, likeness: NDArray[np.float32], kinds: list[Kinds], merit: NDArray[np.float64], size: int
    ) -> None:
        self._likeness = np.maximum(likeness.astype(np.float64), 0)
        self._kinds = kinds
        self._counts = [np.zeros(len(kind.shares)) for kind in kinds]
        self._merit = merit / size
        self._size = size
        self._shown = np.zeros(len(likeness))
        self.taken: set[int] = set()

    def best_of(self, free: list[int]) -> int:
        """The index in `free` that adds most; the first of equals."""
        gain = np.maximum(self._likeness[:, free] - self._shown[:, None], 0).mean(axis=0) * LAYOUT_WEIGHT
        gain += self._merit[free]
        for kind, counts in zip(self._kinds, self._counts, strict=True):
            step = np.sqrt(kind.shares / self._size) * (np.sqrt(counts + 1) - np.sqrt(counts)) * kind.weight
            gain += step[kind.kind_of[free]]
        return free[int(np.argmax(np.round(gain, 9)))]

    def take(self, index: int) -> None:
        """Count that picture in. Once each."""
        self.taken.add(index)
        self._shown = np.maximum(self._shown, self._likeness[:, index])
        for kind, counts in zip(self._kinds, self._counts, strict=True):
            counts[kind.kind_of[index]] += 1


def sort_into_kinds(pictures: Sequence[Choosable], wanted: dict[str, dict[Any, float]]) -> list[Kinds]:
    """For each sort named in `wanted`, which kind every picture is of."""
    sorts = []
    for name, shares in wanted.items():
        numbers = {kind: n for n, kind in enumerate(shares)}
        kind_of = np.array([numbers[getattr(picture, name)] for picture in pictures], np.int64)
        sorts.append(Kinds(kind_of=kind_of, shares=np.array(list(shares.values())), weight=KIND_WEIGHTS[name]))
    return sorts


def wanted_shares(pictures: Sequence[Choosable]) -> dict[str, dict[Any, float]]:
    """The set we would like: fixed shares of framings, views and lights, equal ones of outfits and sources."""
    return {
        "framing": dict(FRAMING_SHARES),
        "view": dict(VIEW_SHARES),
        "light": dict(LIGHT_SHARES),
        "outfit": _equal_shares(picture.outfit for picture in pictures),
        "source": _equal_shares(picture.source for picture in pictures),
    }


def _equal_shares(kinds: Iterable[Any]) -> dict[Any, float]:
    every = sorted(set(kinds))
    return dict.fromkeys(every, 1 / len(every))


def own_shares(pictures: Sequence[Choosable]) -> dict[str, dict[Any, float]]:
    """The shares that a set has."""
    return {
        name: {kind: n / len(pictures) for kind, n in sorted(Counter(getattr(p, name) for p in pictures).items())}
        for name in KIND_WEIGHTS
    }


def merits_of(pictures: Sequence[Choosable]) -> NDArray[np.float64]:
    """Small and never negative. Sharpness counts by rank within its source, the only place where it compares."""
    by_source: dict[str, list[float]] = {}
    for picture in pictures:
        by_source.setdefault(picture.source, []).append(picture.sharpness)
    return np.array(
        [
            OWN_WEIGHT * (p.origin is not Origin.GENERATED)
            + SHARP_WEIGHT * sum(s <= p.sharpness for s in by_source[p.source]) / len(by_source[p.source])
            for p in pictures
        ]
    )
