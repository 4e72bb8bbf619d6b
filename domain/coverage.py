"""What a set shows and what it never shows, in sentences that say which clip might have it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from domain.pictures import Framing, Light, Origin, View
from domain.records import Record
from domain.training_sets import Coverage

FRAMING_WORDS = {Framing.CLOSE_UP: "close-up", Framing.BUST: "bust", Framing.FULL: "full figure"}
LIGHT_WORDS = {Light.NIGHT: "night", Light.DIM: "dim", Light.SOFT: "soft", Light.BRIGHT: "bright"}
SIDE_VIEWS = frozenset({View.PROFILE, View.BACK})
MOSTLY = 0.5
"""Of the set: with more of it unknown, nothing is said to be missing, because nobody knows."""


class Shown(Record):
    """What one considered picture shows, in the set or not; `reason` says why it is not (as `LeftOut.reason`)."""

    name: str = ""
    source: str
    at_seconds: float | None = None
    framing: Framing = Framing.UNKNOWN
    view: View = View.UNKNOWN
    light: Light = Light.SOFT
    outfit: int = 0
    origin: Origin = Origin.CLIP
    reason: str = ""


def coverage(chosen: Sequence[Shown], all_considered: Iterable[Shown]) -> Coverage:
    """Counts over the `chosen` (trained and held out), and what they never show of what matters.

    What matters: close-up, bust, full figure; frontal, three-quarter, profile or back; more than one light; more than
    one outfit (curation_and_identity.md section 1). For each, the picture left out that has it is named, so pass as
    `all_considered` those of this person only; the chosen may be among them. An empty set has no gaps.
    """
    left_out = sorted((s for s in all_considered if s.reason), key=lambda s: (s.source, s.at_seconds or 0.0, s.name))
    gaps: list[str] = []
    if chosen:
        gaps += _framing_gaps(chosen, left_out)
        gaps += _view_gaps(chosen, left_out)
        gaps += _sameness_gaps(chosen, left_out)
    return Coverage(
        framings=_counts(Framing, Counter(shown.framing for shown in chosen)),
        views=_counts(View, Counter(shown.view for shown in chosen)),
        lights=_counts(Light, Counter(shown.light for shown in chosen)),
        outfits=len({shown.outfit for shown in chosen}),
        gaps=tuple(gaps),
    )


def _counts(kinds: Iterable[str], counted: Counter[str]) -> dict[str, int]:
    return {str(kind): counted[kind] for kind in kinds if counted[kind]}


def _framing_gaps(chosen: Sequence[Shown], left_out: Sequence[Shown]) -> list[str]:
    unknown = sum(shown.framing is Framing.UNKNOWN for shown in chosen)
    gaps = [_unknown("framing", unknown, len(chosen))] if unknown else []
    if unknown > MOSTLY * len(chosen):
        return gaps
    missing = [framing for framing in FRAMING_WORDS if all(shown.framing is not framing for shown in chosen)]
    return gaps + [_gap(f"no {FRAMING_WORDS[f]}", [s for s in left_out if s.framing is f]) for f in missing]


def _view_gaps(chosen: Sequence[Shown], left_out: Sequence[Shown]) -> list[str]:
    unknown = sum(shown.view is View.UNKNOWN for shown in chosen)
    gaps = [_unknown("view", unknown, len(chosen))] if unknown else []
    if unknown > MOSTLY * len(chosen):
        return gaps
    present = {shown.view for shown in chosen}
    if View.FRONTAL not in present:
        gaps.append(_gap("no frontal view", [s for s in left_out if s.view is View.FRONTAL]))
    if View.THREE_QUARTER not in present:
        gaps.append(_gap("no three-quarter view", [s for s in left_out if s.view is View.THREE_QUARTER]))
    if not SIDE_VIEWS & present:
        gaps.append(_gap("no profile or back", [s for s in left_out if s.view in SIDE_VIEWS]))
    return gaps


def _sameness_gaps(chosen: Sequence[Shown], left_out: Sequence[Shown]) -> list[str]:
    gaps = []
    lights, worn = {shown.light for shown in chosen}, {shown.outfit for shown in chosen}
    if len(chosen) > 1 and len(lights) == 1:
        only = f"one light only ({LIGHT_WORDS[next(iter(lights))]})"
        gaps.append(_gap(only, [s for s in left_out if s.light not in lights], "another"))
    if len(chosen) > 1 and len(worn) == 1:
        only = "one outfit only, which is then learned as part of the person"
        gaps.append(_gap(only, [s for s in left_out if s.outfit not in worn], "another"))
    return gaps


def _unknown(what: str, unknown: int, total: int) -> str:
    return f"the {what} is unknown for {unknown} of {total} pictures"


def _gap(missing: str, found: Sequence[Shown], one: str = "one") -> str:
    """The gap, and the first picture left out that would fill it."""
    if not found:
        return f"{missing}; none of the clips shows {one}: give one or an image"
    first = found[0]
    where = "" if first.at_seconds is None else f" at {first.at_seconds:.1f} s"
    more = f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""
    return f"{missing}: {first.source} shows {one}{where}, left out because: {first.reason}{more}"
