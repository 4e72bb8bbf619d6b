"""Choosing the set: without twins, as varied as the material allows, some held out. Pure functions over records.

What is maximised, and why, is docs/decisions/0005; what it does on drawn pictures, benchmarks/choosing.py. Pictures
may come in any order: the answer is the same (`outfits` alone minds it). All is free and safe to repeat.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from domain.frame_rules import DUPLICATE_BITS, hash_distance
from domain.likeness_groups import group_by_likeness
from domain.pictures import Framing, Light, Origin, View
from domain.records import Record
from domain.training_sets import HELD_OUT_AIM
from tasks.variety import Objective, merits_of, own_shares, sort_into_kinds, wanted_shares

SAME_LAYOUT = 0.90
"""Likeness of two layouts under which they are not one picture, whatever else."""

LARGEST_CHANGE = 0.5
"""Twins' layouts differ by no more than this in any cell (squared distance, 1 = a cell's mean share of the length).
A raised arm changes a few cells much and the likeness of the whole little. Chosen, as the two below, on the development
pictures of benchmarks/choosing.py; table in docs/decisions/0005."""

LARGEST_CHANGE_BY_HASH = 0.6
"""… where the hashes agree too. A hash alone calls nine tenths of other views before one background the same."""

LARGEST_CHANGE_THOUGH_NAMED = 0.25
"""… where both views, or both framings, are known and differ."""

LEAK_LAYOUT = 0.85
LEAK_SECONDS = 1.0
"""Two pictures of one clip within a second and this alike are one moment: one of them trained gives the other away."""

LARGEST_SHARE = 1 / 3
"""Of the set, from one source, as long as others have something to give (curation_and_identity.md section 1)."""

ENOUGH = 15 + HELD_OUT_AIM
"""15 trained are the low end of the aim (curation_and_identity.md section 1). With fewer, the cap per source yields."""


class Choosable(Record):
    """A picture that may be chosen. `name` is unique, `layout` what `Ports.layout` says of it (10 × 64 × n)."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    source: str
    at_seconds: float | None = None
    sharpness: float
    hash64: int
    layout: NDArray[np.float32]
    framing: Framing = Framing.UNKNOWN
    view: View = View.UNKNOWN
    light: Light = Light.SOFT
    outfit: int = 0
    likeness: float | None = None
    origin: Origin = Origin.CLIP
    is_confirmed: bool = False
    """A person said keep: it is always in."""


class NotTaken(Record):
    """A picture that was not taken, and why."""

    name: str
    reason: str


class Selection(Record):
    """The pictures taken, the most useful first, and the others with their reasons, by name."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    taken: tuple[Choosable, ...]
    not_taken: tuple[NotTaken, ...] = ()


class Split(Record):
    """A set in two: to train on, and held out. Both in order of source and time."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    trained: tuple[Choosable, ...]
    held_out: tuple[Choosable, ...]


def layout_likeness(pictures: Sequence[Choosable]) -> NDArray[np.float32]:
    """n × n, symmetric: 1 for the same picture, also cropped a little; about 0 for unrelated ones.

    The best of whole against whole and whole against crop, either way round. Rounded, so that it is the same on every
    machine. 0.5 s for 900 pictures on one core.
    """
    if not pictures:
        return np.zeros((0, 0), np.float32)
    layouts = np.stack([picture.layout.reshape(len(picture.layout), -1) for picture in pictures])
    wholes, crops = layouts[:, 0], layouts.reshape(-1, layouts.shape[2])
    one_way = np.concatenate(
        [
            (wholes[start : start + 64] @ crops.T).reshape(-1, len(pictures), layouts.shape[1]).max(axis=2)
            for start in range(0, len(pictures), 64)
        ]
    )
    both: NDArray[np.float32] = np.round(np.clip(np.maximum(one_way, one_way.T), -1, 1), 4)
    return both


def without_twins(pictures: Iterable[Choosable]) -> Selection:
    """One of every group of near-duplicates: what a person confirmed, then stills, then the sharpest.

    Twins agree in every part of their layout, a little less closely where their hashes agree (`DUPLICATE_BITS`), and
    more closely where they are known to show different views or framings. All confirmed ones stay.
    """
    ordered = sorted(pictures, key=lambda p: (not p.is_confirmed, _ORIGIN_ORDER[p.origin], -p.sharpness, *_place(p)))
    likeness = layout_likeness(ordered)
    kept: list[int] = []
    dropped: list[NotTaken] = []
    for i, picture in enumerate(ordered):
        twin = next((k for k in kept if _are_twins(picture, ordered[k], float(likeness[i, k]))), None)
        if twin is None or picture.is_confirmed:
            kept.append(i)
        else:
            dropped.append(NotTaken(name=picture.name, reason=f"nearly the same picture as {ordered[twin].name}"))
    return Selection(taken=tuple(ordered[i] for i in kept), not_taken=tuple(sorted(dropped, key=lambda d: d.name)))


def choose(pictures: Iterable[Choosable], count: int) -> Selection:
    """At most `count` pictures that together show the most; all confirmed ones, even where they are more.

    Greedy on a monotone submodular objective (docs/decisions/0005): without the cap per source its value is at least
    1 - 1/e of the best possible (Nemhauser, Wolsey and Fisher, Mathematical Programming 14, 1978), with it at least
    half (Fisher, Nemhauser and Wolsey, Mathematical Programming Study 8, 1978). The cap yields, one picture at a time,
    while fewer than `ENOUGH` are in. About 1 s for 900 pictures.
    """
    ordered = sorted(pictures, key=_place)
    if not ordered:
        return Selection(taken=())
    kinds = sort_into_kinds(ordered, wanted_shares(ordered))
    merit = merits_of(ordered)
    objective = Objective(layout_likeness(ordered), kinds, merit, max(count, 1))
    taken = [i for i, picture in enumerate(ordered) if picture.is_confirmed]
    for i in taken:
        objective.take(i)
    sources = Counter(picture.source for picture in ordered)
    cap = max(math.ceil(count * LARGEST_SHARE), math.ceil(count / len(sources)))
    of_source = Counter(ordered[i].source for i in taken)
    while len(taken) < count:
        left = [i for i in range(len(ordered)) if i not in objective.taken]
        free = [i for i in left if of_source[ordered[i].source] < cap]
        if not free and left and len(taken) < ENOUGH:
            cap += 1
            continue
        if not free:
            break
        best = objective.best_of(free)
        objective.take(best)
        taken.append(best)
        of_source[ordered[best].source] += 1
    is_full = len(taken) >= count
    not_taken = [
        NotTaken(
            name=picture.name,
            reason=f"the set is full: the {len(taken)} chosen show more that is new"
            if is_full and of_source[picture.source] < cap
            else f"{picture.source} has its share: {of_source[picture.source]} of {len(taken)} pictures",
        )
        for i, picture in enumerate(ordered)
        if i not in objective.taken
    ]
    return Selection(
        taken=tuple(ordered[i] for i in taken), not_taken=tuple(sorted(not_taken, key=lambda left: left.name))
    )


def hold_out(chosen: Iterable[Choosable], count: int) -> Split:
    """Hold `count` pictures out that resemble the set, or fewer where fewer can be spared.

    Spread over framing, view, light, outfit and source in the set's own shares, by the objective of `choose`. Never
    the only picture of a framing, view, light or outfit; never one that looks alike (`LEAK_LAYOUT`) to another of the
    set within a second of the same clip, for then the trainer would have seen it all the same. What a person
    confirmed, and what this project generated, only when nothing else is left.
    """
    ordered = sorted(chosen, key=_place)
    likeness = layout_likeness(ordered)
    objective = Objective(
        likeness, sort_into_kinds(ordered, own_shares(ordered)), np.zeros(len(ordered)), max(count, 1)
    )
    remaining = {name: Counter(getattr(p, name) for p in ordered) for name in _NEVER_THE_ONLY_ONE}
    safe = [i for i in range(len(ordered)) if not _leaks(ordered, likeness, i)]
    for tier in _spared_first(ordered, safe):
        while len(objective.taken) < count:
            free = [
                i
                for i in tier
                if i not in objective.taken
                and all(remaining[name][getattr(ordered[i], name)] > 1 for name in _NEVER_THE_ONLY_ONE)
            ]
            if not free:
                break
            best = objective.best_of(free)
            objective.take(best)
            for name in _NEVER_THE_ONLY_ONE:
                remaining[name][getattr(ordered[best], name)] -= 1
    return Split(
        trained=tuple(p for i, p in enumerate(ordered) if i not in objective.taken),
        held_out=tuple(p for i, p in enumerate(ordered) if i in objective.taken),
    )


def outfits(likeness: NDArray[np.float32], alike: float) -> tuple[int, ...]:
    """For each of n sightings of one person the number of the outfit, 0 the commonest; `likeness` is n × n.

    Groups are merged while the mean likeness across two of them is at least `alike` (average linkage). Crude: one
    outfit near and far may be called two (figures in docs/decisions/0005).
    """
    groups = group_by_likeness(likeness.tolist(), alike)
    number = {i: n for n, group in enumerate(groups) for i in group}
    return tuple(number[i] for i in range(len(likeness)))


# --- what is a twin, and what leaks ---

_ORIGIN_ORDER = {Origin.STILL: 0, Origin.CLIP: 1, Origin.GENERATED: 2}
_NEVER_THE_ONLY_ONE = ("framing", "view", "light", "outfit")


def _place(picture: Choosable) -> tuple[str, float, str]:
    return picture.source, -1.0 if picture.at_seconds is None else picture.at_seconds, picture.name


def _are_twins(one: Choosable, other: Choosable, likeness: float) -> bool:
    if likeness < SAME_LAYOUT:
        return False
    change = _largest_change(one.layout, other.layout)
    if _is_named_apart(one, other):
        return change <= LARGEST_CHANGE_THOUGH_NAMED
    agree = hash_distance(one.hash64, other.hash64) <= DUPLICATE_BITS
    return change <= (LARGEST_CHANGE_BY_HASH if agree else LARGEST_CHANGE)


def _largest_change(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Of all cells, between the two that are most alike of whole against whole and whole against crop."""
    forth = np.einsum("cn,kcn->k", one[0], other)
    back = np.einsum("kcn,cn->k", one, other[0])
    apart = one[0] - other[forth.argmax()] if forth.max() >= back.max() else one[back.argmax()] - other[0]
    return float((apart**2).sum(axis=1).max()) * len(apart)


def _is_named_apart(one: Choosable, other: Choosable) -> bool:
    views, framings = {one.view, other.view}, {one.framing, other.framing}
    return (len(views) == 2 and View.UNKNOWN not in views) or (len(framings) == 2 and Framing.UNKNOWN not in framings)


def _leaks(pictures: Sequence[Choosable], likeness: NDArray[np.float32], index: int) -> bool:
    here = pictures[index]
    return any(
        other.source == here.source
        and other.at_seconds is not None
        and here.at_seconds is not None
        and abs(other.at_seconds - here.at_seconds) <= LEAK_SECONDS
        and likeness[index, k] >= LEAK_LAYOUT
        for k, other in enumerate(pictures)
        if k != index
    )


def _spared_first(pictures: Sequence[Choosable], safe: list[int]) -> list[list[int]]:
    """Who may be held out before whom: ordinary pictures, then confirmed ones, then generated ones."""
    generated = [i for i in safe if pictures[i].origin is Origin.GENERATED]
    own = [i for i in safe if pictures[i].origin is not Origin.GENERATED]
    return [
        [i for i in own if not pictures[i].is_confirmed],
        [i for i in own if pictures[i].is_confirmed],
        generated,
    ]
