"""Which looks of a clip are kept, and why the others are not: numbers in, sentences out."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.frame_flaws import STILL_CHANGE, find_flaws
from domain.frame_rules import (
    DUPLICATE_BITS,
    EVERY_SECONDS,
    common_bars,
    hash_distance,
    judge_looks,
    stretches_to_decode,
    wanted_frames,
)
from domain.looks import Bars, LookMeasures

STREET = (120, 110, 100) * 16
CELLAR = (40, 60, 90) * 16


def look(at_seconds: float, **different: Any) -> LookMeasures:
    """A good frame of an ordinary moving shot, unlike every other one, with what a test wants different."""
    values: dict[str, Any] = {
        "at_seconds": at_seconds,
        "is_keyframe": True,
        "sharpness": 240.0,
        "softness": 0.2,
        "noise": 0.5,
        "brightness": 0.45,
        "contrast": 0.5,
        "hash64": random.Random(at_seconds).getrandbits(64),
        "signature": STREET,
        "change": 6.0,
        "bend": 1.0,
        "jump": 1.5,
    }
    return LookMeasures(**(values | different))


def moving_shot(count: int = 8, *, every: float = 1.0, start: float = 0.0, **different: Any) -> list[LookMeasures]:
    return [look(start + every * k, **different) for k in range(count)]


def with_one(different: dict[str, Any]) -> list[LookMeasures]:
    """Eight good looks, the fourth of which differs."""
    looks = moving_shot()
    return [*looks[:3], look(3.0, **different), *looks[4:]]


def reasons(looks: Sequence[LookMeasures], wanted: int = 16) -> list[str]:
    return [verdict.reason for verdict in judge_looks(looks, wanted, looks[-1].at_seconds + 1)]


# --- flaws, both sides of each ---


@pytest.mark.parametrize(
    ("different", "words"),
    [
        ({"softness": 0.62}, "blurred (edges 0.62 soft, at most 0.33 in this clip)"),
        ({"softness": 0.35}, "blurred (edges 0.35"),
        ({"sharpness": 50.0, "noise": 6.0}, "blurred (sharpness 50, this clip's sharp frames have about 240)"),
        ({"sharpness": 50.0, "softness": 0.36}, "blurred"),
        ({"brightness": 0.03, "contrast": 0.04}, "too dark (brightness 0.03, at least 0.05)"),
        ({"brightness": 0.09, "contrast": 0.1}, "too dark (brightness 0.09, this clip's frames have about 0.45)"),
        ({"brightness": 0.97, "contrast": 0.1}, "too bright"),
        ({"brightness": 0.9, "contrast": 0.1}, "too bright"),
        ({"contrast": 0.05}, "flat (contrast 0.05"),
        ({"brightness": 0.0, "contrast": 0.0}, "black"),
        ({"brightness": 1.0, "contrast": 0.0}, "white"),
        ({"brightness": 0.5, "contrast": 0.0}, "blank"),
        ({"noise": 20.0}, "noisy (noise of 20 grey levels, at most 12)"),
        ({"change": 12.0, "bend": 0.1}, "in a fade or dissolve"),
        ({"change": 30.0, "jump": 9.0}, "on a cut (the picture jumps 9 times its usual step)"),
    ],
)
def test_a_flawed_frame_is_dropped_with_the_number_seen(different: dict[str, Any], words: str) -> None:
    found = reasons(with_one(different))
    assert found[3].startswith(words)
    assert [reason for k, reason in enumerate(found) if k != 3] == [""] * 7


@pytest.mark.parametrize(
    ("what", "different"),
    [
        ("a face before a soft background", {"softness": 0.31, "sharpness": 60.0}),
        ("a plain wall", {"sharpness": 40.0}),
        ("film grain", {"noise": 5.0}),
        ("shade", {"brightness": 0.18, "contrast": 0.2}),
        ("a dark street with lamps", {"brightness": 0.09, "contrast": 0.4}),
        ("snow", {"brightness": 0.92, "contrast": 0.6}),
        ("mist", {"contrast": 0.2}),
        ("a slow camera", {"change": 2.0, "bend": 0.3}),
        ("fast motion", {"change": 25.0}),
        ("a shaking camera", {"jump": 2.8, "change": 20.0}),
        ("a jump nobody sees", {"jump": 6.0, "change": 1.0}),
    ],
)
def test_what_only_resembles_a_flaw_is_kept(what: str, different: dict[str, Any]) -> None:
    assert reasons(with_one(different)) == [""] * 8, what


@pytest.mark.parametrize(("softness", "is_blurred"), [(0.22, True), (0.17, False)])
def test_little_detail_is_blur_only_with_softer_edges(softness: float, is_blurred: bool) -> None:
    looks = moving_shot(softness=0.06)
    looks[3] = look(3.0, sharpness=60.0, softness=softness)
    assert reasons(looks)[3].startswith("blurred (sharpness 60") is is_blurred


def test_a_clip_that_is_dark_throughout_keeps_its_frames() -> None:
    assert set(reasons(moving_shot(brightness=0.07, contrast=0.14))) == {""}


def test_a_clip_nobody_can_see_loses_its_frames() -> None:
    assert all(reason.startswith("too dark") for reason in reasons(moving_shot(brightness=0.02, contrast=0.03)))


def test_a_clip_out_of_focus_throughout_loses_its_frames() -> None:
    assert all(reason.startswith("blurred") for reason in reasons(moving_shot(softness=0.7)))


def test_a_clip_that_is_a_little_soft_throughout_keeps_its_frames() -> None:
    assert set(reasons(moving_shot(softness=0.42))) == {""}


def frozen(at_seconds: float) -> LookMeasures:
    return look(at_seconds, change=0.01, bend=0.0, hash64=77)


def test_a_freeze_inside_a_moving_shot_is_dropped() -> None:
    looks = [*moving_shot(3), frozen(3), frozen(4), *moving_shot(3, start=5)]
    found = reasons(looks)
    assert found[3].startswith("frozen")
    assert found[4].startswith("frozen")
    assert found.count("") == 6


def test_a_pose_held_for_one_look_is_no_freeze() -> None:
    assert set(reasons([*moving_shot(3), frozen(3), *moving_shot(3, start=4)])) == {""}


def test_a_slide_keeps_one_frame() -> None:
    found = reasons([frozen(at) for at in range(4)])
    assert found.count("") == 1
    assert sum(reason.startswith("nearly the same as") for reason in found) == 3


def test_a_look_without_a_burst_is_never_called_frozen() -> None:
    alone = {"change": 0.0, "bend": 1.0, "hash64": 5}
    looks = [*moving_shot(3), look(3, **alone), look(4, **alone), *moving_shot(3, start=5)]
    assert find_flaws(looks) == [None] * 8
    assert STILL_CHANGE > 0


# --- shots ---


def test_a_step_of_colour_begins_a_new_shot() -> None:
    looks = [*moving_shot(3), *moving_shot(3, start=3, signature=CELLAR)]
    assert [verdict.shot for verdict in judge_looks(looks, 16, 6)] == [0, 0, 0, 1, 1, 1]


def test_a_look_within_a_dissolve_is_no_shot_of_its_own() -> None:
    mixed = look(3, change=12, bend=0.0, signature=(80, 85, 95) * 16)
    looks = [*moving_shot(3), mixed, *moving_shot(3, start=4, signature=CELLAR)]
    assert [verdict.shot for verdict in judge_looks(looks, 16, 7)] == [0, 0, 0, 0, 1, 1, 1]


# --- choosing ---


def test_the_sharpest_of_nearly_equal_frames_is_kept() -> None:
    looks = [look(0, hash64=0), look(1, hash64=0b11, sharpness=260), look(2, hash64=0b1111)]
    found = reasons(looks)
    assert found[1] == ""
    assert found[0] == "nearly the same as the frame at 1.0 s (2 of 64 bits differ)"
    assert found[2] == "nearly the same as the frame at 1.0 s (2 of 64 bits differ)"


@pytest.mark.parametrize(("bits", "kept"), [(DUPLICATE_BITS, 1), (DUPLICATE_BITS + 1, 2)])
def test_frames_are_nearly_the_same_up_to_eight_bits(bits: int, kept: int) -> None:
    assert reasons([look(0, hash64=0), look(1, hash64=(1 << bits) - 1)]).count("") == kept


def test_kept_frames_are_half_a_second_apart() -> None:
    looks = [look(0.0), look(0.4, sharpness=300), look(0.8), look(0.9)]
    assert reasons(looks) == [
        "less than 0.5 s from the frame kept at 0.4 s",
        "",
        "less than 0.5 s from the frame kept at 0.4 s",
        "",
    ]


def test_every_shot_gets_a_frame_before_any_gets_its_second() -> None:
    looks = [
        *moving_shot(6, sharpness=900),
        look(6, signature=CELLAR, sharpness=100),
        *moving_shot(6, start=7, sharpness=900),
    ]
    found = judge_looks(looks, 3, 13)
    assert {verdict.shot for verdict in found if not verdict.reason} == {0, 1, 2}


def test_frames_are_spread_over_the_time() -> None:
    looks = [*moving_shot(10, sharpness=900), *moving_shot(10, start=10, sharpness=200)]
    kept = [k for k, verdict in enumerate(judge_looks(looks, 4, 20)) if not verdict.reason]
    assert [k // 5 for k in kept] == [0, 1, 2, 3]


def test_the_surplus_is_told_so() -> None:
    found = reasons(moving_shot(30), wanted=5)
    assert found.count("") == 5
    assert found.count("the clip has enough: 5 frames spread over it are kept") == 25


def test_a_frame_without_text_is_preferred_to_one_with_it() -> None:
    looks = [look(0, text_share=0.03, sharpness=500, hash64=1), look(1, hash64=0)]
    assert reasons(looks)[1] == ""


def test_burnt_in_text_marks_a_kept_frame() -> None:
    looks = with_one({"text_share": 0.03})
    marks = [verdict.mark for verdict in judge_looks(looks, 16, 8)]
    assert marks[3] == "burnt-in text on about 3.0% of the picture"
    assert marks.count("") == 7


def test_a_logo_most_looks_show_marks_the_others_too() -> None:
    looks = [look(k, text_share=0.006 if k < 5 else 0.0) for k in range(8)]
    marks = [verdict.mark for verdict in judge_looks(looks, 16, 8)]
    assert marks[7] == "burnt-in text likely: 5 of the clip's 8 usable frames show it"


def test_a_clip_without_looks_has_no_verdicts() -> None:
    assert judge_looks([], 16, 0) == []
    assert stretches_to_decode([], 16, 0) == []
    assert common_bars([]) == Bars()


def test_one_look_is_kept_for_want_of_better() -> None:
    assert reasons([look(0)]) == [""]


looks_of_any_kind = st.lists(
    st.builds(
        look,
        st.floats(0, 60).map(lambda at: round(at, 2)),
        sharpness=st.floats(0, 1000),
        softness=st.floats(0, 1),
        hash64=st.integers(0, 2**12),
        signature=st.sampled_from([STREET, CELLAR]),
        change=st.floats(0, 50),
        bend=st.floats(0, 1),
        jump=st.sampled_from([1.0, 9.0]),
        text_share=st.sampled_from([0.0, 0.05]),
    ),
    max_size=12,
    unique_by=lambda one: one.at_seconds,
).map(lambda looks: sorted(looks, key=lambda one: one.at_seconds))


@settings(max_examples=25, deadline=None)
@given(looks_of_any_kind, st.integers(1, 20))
def test_whatever_the_looks_the_kept_are_few_apart_and_distinct(looks: list[LookMeasures], wanted: int) -> None:
    verdicts = judge_looks(looks, wanted, 60)
    assert len(verdicts) == len(looks)
    assert judge_looks(looks, wanted, 60) == verdicts
    kept = [one for one, verdict in zip(looks, verdicts, strict=True) if not verdict.reason]
    assert len(kept) <= wanted
    for k, one in enumerate(kept):
        for other in kept[k + 1 :]:
            assert other.at_seconds - one.at_seconds >= EVERY_SECONDS - 1e-6
            assert hash_distance(one.hash64, other.hash64) > DUPLICATE_BITS
    usable = sum(flaw is None for flaw in find_flaws(looks))
    assert (len(kept) > 0) == (usable > 0)


@settings(max_examples=25, deadline=None)
@given(looks_of_any_kind, st.integers(1, 20))
def test_whatever_the_looks_the_stretches_are_in_order_and_apart(looks: list[LookMeasures], wanted: int) -> None:
    stretches = stretches_to_decode(looks, wanted, 60)
    assert all(0 <= start < end <= 60 for start, end in stretches)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(stretches))


# --- bars ---


def with_bars(count: int, *, total: int = 10, **bars: int) -> list[LookMeasures]:
    return [look(k, bars=Bars(**bars) if k < count else Bars()) for k in range(total)]


def test_bars_that_the_looks_agree_on_are_cut() -> None:
    assert common_bars(with_bars(6, top=132, bottom=130)) == Bars(top=132, bottom=130)


def test_a_black_edge_in_a_few_looks_is_no_bar() -> None:
    assert common_bars(with_bars(4, top=132, bottom=130)) == Bars()


def test_a_black_edge_on_one_side_alone_is_no_bar() -> None:
    assert common_bars(with_bars(10, top=132)) == Bars()


def test_a_dark_scene_may_hide_one_of_two_bars() -> None:
    looks = [look(k, bars=Bars(top=132 if k < 3 else 0, bottom=132)) for k in range(10)]
    assert common_bars(looks) == Bars(top=132, bottom=132)


# --- where to decode further ---


def scenes(count: int, seconds: float = 5.0, gop_seconds: float = 2.0) -> list[LookMeasures]:
    """Keyframes of a clip of so many shots: one each 2 s, as an encoder with a GOP of 60 at 30 frames/s sets them."""
    looks = []
    for k in range(int(count * seconds / gop_seconds)):
        at = k * gop_seconds
        shade = 30 + 70 * (int(at / seconds) % 3)
        looks.append(look(at, signature=(shade, 120, 90) * 16, sharpness=200.0 + k))
    return looks


def test_an_ordinary_clip_needs_no_further_decoding() -> None:
    looks = scenes(12)
    assert len(looks) == 30
    assert stretches_to_decode(looks, 20, 60.0) == []


def test_a_blurred_frame_here_and_there_needs_none_either() -> None:
    looks = [one.model_copy(update={"softness": 0.6}) if k % 5 == 1 else one for k, one in enumerate(scenes(12))]
    assert stretches_to_decode(looks, 20, 60.0) == []


def test_a_long_stretch_without_a_look_is_decoded() -> None:
    looks = [one for one in moving_shot(40, every=1.5) if not 20 < one.at_seconds < 28]
    assert stretches_to_decode(looks, 10, 60.0) == [(19.5, 28.5)]


def test_a_shot_without_a_usable_look_is_decoded() -> None:
    looks = scenes(12)
    lost = [one.model_copy(update={"softness": 0.6}) if 10 <= one.at_seconds < 15 else one for one in looks]
    assert stretches_to_decode(lost, 12, 60.0) == [(8.0, 10.0), (10.0, 12.0), (12.0, 14.0), (14.0, 16.0)]


def test_a_black_shot_is_not_decoded_further() -> None:
    looks = [
        one.model_copy(update={"brightness": 0.0, "contrast": 0.0}) if 10 <= one.at_seconds < 15 else one
        for one in scenes(12)
    ]
    assert stretches_to_decode(looks, 12, 60.0) == []


def test_too_few_usable_looks_have_the_gaps_between_them_decoded_the_longest_first() -> None:
    looks = [look(0), look(2), look(4.5), look(5.2)]
    assert stretches_to_decode(looks, 16, 6.0) == [(0.0, 2.0), (2.0, 4.5)]
    assert stretches_to_decode(looks, 5, 6.0) == [(2.0, 4.5)]


def test_a_picture_that_stands_still_is_not_decoded_for_more_of_it() -> None:
    looks = [frozen(at) for at in (0, 2, 4)]
    assert stretches_to_decode(looks, 16, 4.0) == []


@pytest.mark.parametrize(("seconds", "frames"), [(0.2, 16), (60, 16), (100, 20), (300, 60), (3600, 60)])
def test_longer_clips_keep_more_frames_up_to_sixty(seconds: float, frames: int) -> None:
    assert wanted_frames(seconds) == frames
