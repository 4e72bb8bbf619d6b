"""The rules a clip's looks are judged by: pure, numbers in, sentences out. Measured in docs/curation.md.

Order: flaws of each look (`domain/frame_flaws.py`) → shots → one for each shot, one for each stretch of time, then the
sharpest, no two of them nearly the same or closer than half a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from domain.frame_flaws import Flaw, find_flaws, find_shots
from domain.looks import Bars, LookMeasures
from domain.records import Record

RULES_VERSION = 3
"""Raised whenever these rules or their measures change: clips harvested by older ones are then harvested anew."""

EVERY_SECONDS = 0.5
"""Kept frames of one clip are at least this far apart (waifuc, curation_and_identity.md section 1)."""

DUPLICATE_BITS = 8
"""dHash distance of 64 up to which two frames are nearly the same (LoRA Dataset Studio)."""

TEXT_SHARE = 0.004
"""Share of the picture under burnt-in text from which a frame is marked; a small corner logo covers 0.005."""

TEXT_AGREES = 0.5
"""Share of a clip's usable looks with such text that marks all of its frames: a logo that one look hid is there too."""

LONGEST_GAP_SECONDS = 3.0
NEW_EVERY_SECONDS = 5.0
"""In how much further film one more distinct picture is expected: a shot's usual length, as on the film of
benchmarks/frames.py. With more hope only a few places are decoded, and scenes between them are missed."""

_WORTH_DECODING_SECONDS = 1.0
_BARS_AGREE, _BARS_HINT = 0.5, 0.25
_SMALLER_BAR = 0.33


class Verdict(Record):
    """What came of a look: '' as reason means kept."""

    shot: int
    reason: str
    mark: str = ""


def hash_distance(one: int, other: int) -> int:
    """In how many of 64 bits two dHashes differ."""
    return (one ^ other).bit_count()


def wanted_frames(duration_seconds: float) -> int:
    """How many frames of a clip are kept: 16, one per 5 s of a long clip up to 60, so that none drowns the others."""
    return max(16, min(60, round(duration_seconds / 5)))


def judge_looks(looks: Sequence[LookMeasures], wanted: int, duration_seconds: float) -> list[Verdict]:
    """A verdict for each look (in order of time), at most `wanted` of them kept. Pure and deterministic."""
    flaws = find_flaws(looks)
    shots = find_shots(looks, flaws)
    usable = [i for i, flaw in enumerate(flaws) if flaw is None]
    chosen = _choose(looks, shots, usable, wanted, duration_seconds)
    marks = _marks(looks, usable)
    verdicts = []
    for i, (flaw, shot) in enumerate(zip(flaws, shots, strict=True)):
        is_kept = i in chosen
        reason = "" if is_kept else flaw.reason if flaw is not None else _why_not(i, looks, chosen, wanted)
        verdicts.append(Verdict(shot=shot, reason=reason, mark=marks[i] if is_kept else ""))
    return verdicts


def common_bars(looks: Sequence[LookMeasures]) -> Bars:
    """The bars to cut off every picture of the clip, in pixels as shown; 0 at an edge where the looks do not agree.

    One look's black edge may be a night sky; bars are what half of the looks show alike, at both sides of the picture,
    or a quarter of them where the other side is sure (a dark scene hides the edge).
    """
    left, right = _pair([look.bars.left for look in looks], [look.bars.right for look in looks])
    top, bottom = _pair([look.bars.top for look in looks], [look.bars.bottom for look in looks])
    return Bars(left=left, top=top, right=right, bottom=bottom)


def stretches_to_decode(
    looks: Sequence[LookMeasures], wanted: int, duration_seconds: float
) -> list[tuple[float, float]]:
    """Where keyframes alone do not do: stretches (from, to in seconds) that deserve every frame decoded.

    Those without any look for long, shots without a usable one, and, when fewer than `wanted` distinct ones are
    usable in all, the stretches between looks. Empty when what there is is enough. Sorted, without overlap.
    """
    if not looks or wanted < 1:
        return []
    flaws = find_flaws(looks)
    shots = find_shots(looks, flaws)
    usable = [i for i, flaw in enumerate(flaws) if flaw is None]
    times = [look.at_seconds for look in looks]
    gaps = list(zip(times, [*times[1:], max(duration_seconds, times[-1])], strict=True))
    if times[0] > 0:
        gaps.insert(0, (0.0, times[0]))
    longest = max(LONGEST_GAP_SECONDS, duration_seconds / (3 * wanted))
    found = {gap for gap in gaps if gap[1] - gap[0] > longest}
    found |= _around_lost_shots(times, flaws, shots, gaps)
    lacking = wanted - len(_choose(looks, shots, usable, wanted, duration_seconds))
    lacking -= sum(int((end - start) / EVERY_SECONDS) for start, end in found)
    # The longest first; of those about as long, scattered over the clip, for what lies far apart differs most.
    for start, end in sorted(_scattered(gaps), key=lambda gap: round(gap[0] - gap[1])):
        if lacking <= 0 or end - start <= _WORTH_DECODING_SECONDS:
            break
        if (start, end) in found or _is_one_picture(looks, start, end):
            continue
        found.add((start, end))
        lacking -= max(1, int((end - start) / NEW_EVERY_SECONDS))
    return sorted(found)


def _choose(
    looks: Sequence[LookMeasures], shots: Sequence[int], usable: Sequence[int], wanted: int, duration_seconds: float
) -> set[int]:
    best_first = sorted(usable, key=lambda i: (looks[i].text_share >= TEXT_SHARE, -looks[i].sharpness, i))
    chosen: set[int] = set()

    def is_new(i: int) -> bool:
        return all(
            abs(looks[i].at_seconds - looks[k].at_seconds) >= EVERY_SECONDS - 1e-6
            and hash_distance(looks[i].hash64, looks[k].hash64) > DUPLICATE_BITS
            for k in chosen
        )

    def take_one_for_each(group_of: Callable[[int], int]) -> None:
        served = {group_of(k) for k in chosen}
        for group in _spread({group_of(i) for i in best_first} - served, wanted - len(chosen)):
            found = next((i for i in best_first if group_of(i) == group and is_new(i)), None)
            if found is not None:
                chosen.add(found)

    bucket_seconds = max(duration_seconds, EVERY_SECONDS) / max(1, wanted)
    take_one_for_each(lambda i: shots[i])
    take_one_for_each(lambda i: int(looks[i].at_seconds / bucket_seconds))
    for i in best_first:
        if len(chosen) >= wanted:
            break
        if i not in chosen and is_new(i):
            chosen.add(i)
    return chosen


def _spread(groups: Iterable[int], count: int) -> list[int]:
    """At most `count` of the groups, evenly over their order."""
    ordered = sorted(groups)
    if count >= len(ordered):
        return ordered
    return [ordered[(2 * k + 1) * len(ordered) // (2 * count)] for k in range(max(0, count))]


def _scattered(gaps: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The gaps in another order: the middle one, then the middle ones of both halves, and so on."""
    ordered: list[tuple[float, float]] = []
    parts = [(0, len(gaps))]
    while parts:
        halves = []
        for start, end in parts:
            if start < end:
                middle = (start + end) // 2
                ordered.append(gaps[middle])
                halves += [(start, middle), (middle + 1, end)]
        parts = halves
    return ordered


def _why_not(i: int, looks: Sequence[LookMeasures], chosen: set[int], wanted: int) -> str:
    look = looks[i]
    twins = [(hash_distance(look.hash64, looks[k].hash64), k) for k in sorted(chosen)]
    if twins and (nearest := min(twins))[0] <= DUPLICATE_BITS:
        at = looks[nearest[1]].at_seconds
        return f"nearly the same as the frame at {at:.1f} s ({nearest[0]} of 64 bits differ)"
    for k in sorted(chosen):
        if abs(look.at_seconds - looks[k].at_seconds) < EVERY_SECONDS - 1e-6:
            return f"less than {EVERY_SECONDS} s from the frame kept at {looks[k].at_seconds:.1f} s"
    return f"the clip has enough: {wanted} frames spread over it are kept"


def _marks(looks: Sequence[LookMeasures], usable: Sequence[int]) -> list[str]:
    with_text = [i for i in usable if looks[i].text_share >= TEXT_SHARE]
    is_everywhere = len(usable) > 1 and len(with_text) >= TEXT_AGREES * len(usable)
    marks = []
    for look in looks:
        if look.text_share >= TEXT_SHARE:
            marks.append(f"burnt-in text on about {look.text_share:.1%} of the picture")
        elif is_everywhere:
            marks.append(f"burnt-in text likely: {len(with_text)} of the clip's {len(usable)} usable frames show it")
        else:
            marks.append("")
    return marks


def _pair(one: Sequence[int], other: Sequence[int]) -> tuple[int, int]:
    (first, first_share), (second, second_share) = _agreed(one), _agreed(other)
    weaker, stronger = sorted((first_share, second_share))
    if stronger < _BARS_AGREE or weaker < _BARS_HINT or min(first, second) < _SMALLER_BAR * max(first, second):
        return 0, 0
    return first, second


def _agreed(sizes: Sequence[int]) -> tuple[int, float]:
    """The size that most looks with a bar agree on, within 1 in 20 and at least 4 px, and their share of all looks."""
    best, count = 0, 0
    for size in sorted({size for size in sizes if size > 0}):
        alike = [other for other in sizes if other > 0 and abs(other - size) <= max(4, size // 20)]
        if len(alike) > count:
            best, count = max(alike), len(alike)
    return best, count / max(1, len(sizes))


def _around_lost_shots(
    times: Sequence[float],
    flaws: Sequence[Flaw | None],
    shots: Sequence[int],
    gaps: Sequence[tuple[float, float]],
) -> set[tuple[float, float]]:
    """The gaps around the looks of shots that have no usable look, unless all of them are hopeless for their light."""
    found: set[tuple[float, float]] = set()
    for shot in set(shots):
        members = [i for i, s in enumerate(shots) if s == shot]
        lost = [flaw for i in members if (flaw := flaws[i]) is not None]
        if len(lost) == len(members) and any(flaw.may_pass for flaw in lost):
            first, last = times[members[0]], times[members[-1]]
            found |= {gap for gap in gaps if gap[1] >= first and gap[0] <= last and gap[1] > gap[0]}
    return found


def _is_one_picture(looks: Sequence[LookMeasures], start: float, end: float) -> bool:
    """Whether the looks at both ends are nearly the same, so that what lies between is more of it."""
    ends = [look for look in looks if look.at_seconds in (start, end)]
    return len(ends) == 2 and hash_distance(ends[0].hash64, ends[1].hash64) <= DUPLICATE_BITS
