"""What the set never shows, and which clip might have it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.coverage import Shown, coverage
from domain.pictures import Framing, Light, View


def shown(**known: Any) -> Shown:
    return Shown.model_validate({"source": "slot-01.mp4", "at_seconds": 1.0, "view": View.FRONTAL} | known)


WHOLE = [
    shown(framing=Framing.CLOSE_UP, light=Light.NIGHT),
    shown(framing=Framing.BUST, view=View.THREE_QUARTER, outfit=1),
    shown(framing=Framing.FULL, view=View.PROFILE),
]


def without(part: str, kind: object, instead: object) -> list[Shown]:
    return [s.model_copy(update={part: instead}) if getattr(s, part) == kind else s for s in WHOLE]


def test_a_set_that_shows_everything_has_no_gap() -> None:
    found = coverage(WHOLE, WHOLE)
    assert found.gaps == ()
    assert found.framings == {"close_up": 1, "bust": 1, "full": 1}
    assert found.views == {"frontal": 1, "three_quarter": 1, "profile": 1}
    assert found.lights == {"night": 1, "soft": 2}
    assert found.outfits == 2


def test_an_empty_set_has_nothing_to_say() -> None:
    assert coverage([], WHOLE).gaps == ()


def test_a_gap_names_the_clip_that_has_it_and_why_it_was_left_out() -> None:
    profile = shown(source="slot-07.mp4", at_seconds=3.5, view=View.PROFILE, reason="blurred")
    gaps = coverage(without("view", View.PROFILE, View.FRONTAL), [profile, *WHOLE[:2]]).gaps
    assert gaps == ("no profile or back: slot-07.mp4 shows one at 3.5 s, left out because: blurred",)


def test_several_pictures_that_would_fill_a_gap_are_counted_and_the_first_named() -> None:
    later = shown(source="slot-07.mp4", at_seconds=9.0, view=View.BACK, reason="too dark")
    sooner = shown(source="slot-07.mp4", at_seconds=2.0, view=View.PROFILE, reason="blurred")
    gaps = coverage(without("view", View.PROFILE, View.FRONTAL), [later, sooner]).gaps
    assert gaps == (
        "no profile or back: slot-07.mp4 shows one at 2.0 s, left out because: blurred (and 1 more like it)",
    )


def test_a_gap_that_no_clip_can_fill_asks_for_one() -> None:
    gaps = coverage(without("framing", Framing.FULL, Framing.BUST), WHOLE[:2]).gaps
    assert gaps == ("no full figure; none of the clips shows one: give one or an image",)


def test_a_still_that_was_left_out_is_named_without_a_time() -> None:
    still = shown(source="tova.png", at_seconds=None, framing=Framing.CLOSE_UP, reason="only 300×300 pixels")
    gaps = coverage(without("framing", Framing.CLOSE_UP, Framing.BUST), [still]).gaps
    assert gaps == ("no close-up: tova.png shows one, left out because: only 300×300 pixels",)


def test_the_back_counts_as_a_side() -> None:
    assert coverage(without("view", View.PROFILE, View.BACK), []).gaps == ()


def test_one_light_and_one_outfit_are_gaps() -> None:
    same = [s.model_copy(update={"light": Light.DIM, "outfit": 0}) for s in WHOLE]
    bright = shown(source="slot-03.mp4", at_seconds=4.0, light=Light.BRIGHT, reason="the set is full")
    assert coverage(same, [bright]).gaps == (
        "one light only (dim): slot-03.mp4 shows another at 4.0 s, left out because: the set is full",
        "one outfit only, which is then learned as part of the person; none of the clips shows another: give one or an "
        "image",
    )


def test_a_single_picture_is_not_blamed_for_one_light() -> None:
    assert not [gap for gap in coverage(WHOLE[:1], []).gaps if "only" in gap]


def test_unknown_views_are_said_to_be_unknown_and_not_missing() -> None:
    unknown = [s.model_copy(update={"view": View.UNKNOWN}) for s in WHOLE]
    assert coverage(unknown, []).gaps == ("the view is unknown for 3 of 3 pictures",)


def test_a_few_unknown_views_do_not_hide_a_gap() -> None:
    some = [*without("view", View.PROFILE, View.UNKNOWN), shown(framing=Framing.BUST)]
    assert coverage(some, []).gaps == (
        "the view is unknown for 1 of 4 pictures",
        "no profile or back; none of the clips shows one: give one or an image",
    )


@settings(deadline=None, max_examples=40)
@given(
    kinds=st.lists(st.tuples(st.sampled_from(Framing), st.sampled_from(View), st.sampled_from(Light)), max_size=12),
    chosen_count=st.integers(0, 12),
    turn=st.integers(0, 11),
)
def test_order_changes_nothing_and_every_picture_is_counted(
    kinds: list[tuple[Framing, View, Light]], chosen_count: int, turn: int
) -> None:
    every = [
        shown(name=f"f{n}", framing=framing, view=view, light=light, reason="" if n < chosen_count else "blurred")
        for n, (framing, view, light) in enumerate(kinds)
    ]
    chosen = every[:chosen_count]
    found = coverage(chosen, every)
    assert found == coverage(chosen[::-1], [*every[turn:], *every[:turn]])
    assert sum(found.framings.values()) == sum(found.views.values()) == sum(found.lights.values()) == len(chosen)
