"""Where in a clip to look: its keyframes, and further moments where those do not do. Pure: numbers in, places out."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from domain.frame_rules import EVERY_SECONDS, LONGEST_GAP_SECONDS
from providers.media_looks import SAME_MOMENT, Place
from providers.media_probe import PacketScan

KEYFRAMES_PER_WANTED = 2
"""So many keyframes for every picture wanted are looked into at first; the others only where these do not do."""

LOOKS_PER_WANTED = 6
"""At most so many looks for every picture wanted, in each round: what bounds the time a long clip takes."""

Stretch = tuple[float, float]
FindPlaces = Callable[[PacketScan, Sequence[Stretch], Sequence[float], int], list[Place]]


def keyframe_places(scan: PacketScan, wanted: int) -> list[Place]:
    """One place for every keyframe, at least 0.5 s apart; where there are too many, evenly spread over the clip.

    In a long clip they are more, so close that no gap between them counts as unseen (`LONGEST_GAP_SECONDS`).
    """
    close = math.ceil(2 * scan.end_seconds / LONGEST_GAP_SECONDS)
    most = min(_most_looks(wanted), max(KEYFRAMES_PER_WANTED * max(1, wanted), close))
    return [_keyframe(at) for at in _spread(_spaced(scan.keyframe_seconds), most, scan.end_seconds)]


def keyframes_passed_over(
    scan: PacketScan, stretches: Sequence[Stretch], seen: Sequence[float], wanted: int
) -> list[Place]:
    """One place for every keyframe in the stretches that lies 0.5 s and more from every look already taken."""
    free = [part for stretch in stretches for part in _free_of(stretch, seen)]
    inside = [at for at in scan.keyframe_seconds if any(start <= at <= end for start, end in free)]
    return [_keyframe(at) for at in _spread(_spaced(inside), _most_looks(wanted), scan.end_seconds)]


def further_places(scan: PacketScan, stretches: Sequence[Stretch], seen: Sequence[float], wanted: int) -> list[Place]:
    """Places that look every 0.5 s into the given stretches, at least so far from every look already taken.

    One place for each keyframe from which must be decoded, so that two readers can share them.
    """
    inside = [(max(0.0, start), min(scan.end_seconds, end)) for start, end in stretches]
    length = sum(max(0.0, end - start) for start, end in inside)
    step = max(EVERY_SECONDS, length / _most_looks(wanted))
    pieces: dict[float | None, list[Stretch]] = {}
    for stretch in inside:
        for free in _free_of(stretch, seen):
            for piece in _split_at_keyframes(free, scan.keyframe_seconds, step):
                pieces.setdefault(_keyframe_before(piece[0], scan.keyframe_seconds), []).append(piece)
    return [Place(start=start, stretches=tuple(sorted(found)), step_seconds=step) for start, found in pieces.items()]


def without(stretch: Stretch, others: Sequence[Stretch]) -> Iterator[Stretch]:
    """What is left of a stretch where it overlaps none of the others, pieces under 0.5 s left out."""
    start, end = stretch
    for other_start, other_end in sorted(others):
        if other_start - start >= EVERY_SECONDS:
            yield start, min(end, other_start)
        start = max(start, other_end)
    if end - start >= EVERY_SECONDS:
        yield start, end


def whole_clip(scan: PacketScan, wanted: int) -> Place:
    """The clip from its first packet to its last, for where nothing can be sought."""
    step = max(EVERY_SECONDS, scan.end_seconds / _most_looks(wanted))
    return Place(start=None, stretches=((0.0, scan.end_seconds),), step_seconds=step)


def places_again(looks: Sequence[tuple[float | None, float]]) -> list[Place]:
    """Places that give single frames once more: each by its keyframe and its own moment."""
    moments: dict[float | None, list[float]] = {}
    for start, at in looks:
        moments.setdefault(start, []).append(at)
    return [
        Place(start=start, stretches=tuple((at, at) for at in sorted(found)), step_seconds=0.0, has_bursts=False)
        for start, found in moments.items()
    ]


def _keyframe(at: float) -> Place:
    return Place(start=at, stretches=((at, at),))


def _spaced(moments: Sequence[float]) -> list[float]:
    """Those of the clip's own time that are 0.5 s and more after the last one taken."""
    spaced: list[float] = []
    for at in moments:
        if at >= -SAME_MOMENT and (not spaced or at >= spaced[-1] + EVERY_SECONDS - SAME_MOMENT):
            spaced.append(at)
    return spaced


def _most_looks(wanted: int) -> int:
    return LOOKS_PER_WANTED * max(1, wanted)


def _spread(moments: Sequence[float], most: int, end_seconds: float) -> Iterator[float]:
    """At most `most` of the moments: the first in each of as many equal parts of the clip."""
    if len(moments) <= most:
        yield from moments
        return
    part = -1
    for at in moments:
        this_part = int(at / max(end_seconds, SAME_MOMENT) * most)
        if this_part > part:
            part = this_part
            yield at


def _free_of(stretch: Stretch, seen: Sequence[float]) -> Iterator[Stretch]:
    """What is left of a stretch 0.5 s and more from every moment seen."""
    start, end = stretch
    for at in sorted(seen):
        if at + EVERY_SECONDS <= start or at - EVERY_SECONDS >= end:
            continue
        if at - EVERY_SECONDS >= start:
            yield start, at - EVERY_SECONDS
        start = at + EVERY_SECONDS
    if start <= end:
        yield start, end


def _split_at_keyframes(stretch: Stretch, keys: Sequence[float], step: float) -> Iterator[Stretch]:
    """The stretch in parts, each between two keyframes; the looks of one keep their distance from the next one's."""
    start, end = stretch
    while True:
        place = bisect_right(keys, start + SAME_MOMENT)
        if place >= len(keys) or keys[place] > end:
            yield start, end
            return
        next_start = start + math.ceil((keys[place] - start) / step) * step
        last = min(keys[place] - SAME_MOMENT, next_start - EVERY_SECONDS)
        if last >= start:
            yield start, last
        if next_start > end:
            return
        start = next_start


def _keyframe_before(at: float, keys: Sequence[float]) -> float | None:
    place = bisect_right(keys, at + SAME_MOMENT) - 1
    return keys[place] if place >= 0 else None
