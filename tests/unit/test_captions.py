"""What captions say and what they must never say, trainer by trainer."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.captions import (
    FEWEST_WORDS,
    LONGEST_OWN,
    CaptionStyle,
    Shown,
    Surroundings,
    TriggerRule,
    caption_for_trainer,
    caption_warnings,
    fixed_caption,
    likeness_words,
    own_caption,
    says_trigger,
    write_caption,
)
from domain.characters import CharacterKind
from domain.pictures import Framing, Light, View

TRIGGER = "MEIKOB_01"


def shown(
    framing: Framing = Framing.BUST,
    view: View = View.PROFILE,
    light: Light = Light.DIM,
    right: str = "teal",
) -> Shown:
    around = Surroundings(light=light, tone="warm", above="navy", below="brown", left="teal", right=right)
    return Shown(surroundings=around, framing=framing, view=view)


EVERYTHING = [shown(*one) for one in product(Framing, View, Light)]


@pytest.mark.parametrize("style", CaptionStyle)
def test_every_automatic_caption_begins_with_the_trigger_and_says_enough_but_never_the_face(
    style: CaptionStyle,
) -> None:
    for one in EVERYTHING:
        caption = write_caption(TRIGGER, one, style)
        assert caption.startswith(f"{TRIGGER}, ")
        assert len(caption.split()) >= FEWEST_WORDS
        assert likeness_words(caption, TRIGGER) == ()


@pytest.mark.parametrize("style", CaptionStyle)
def test_pictures_that_differ_in_framing_view_or_light_have_different_captions(style: CaptionStyle) -> None:
    captions = [write_caption(TRIGGER, one, style) for one in EVERYTHING]
    assert len(set(captions)) == len(captions)


def test_prose_and_tags_say_the_same() -> None:
    assert write_caption(TRIGGER, shown()) == (
        "MEIKOB_01, a picture from the waist up from the side, in dim light with warm tones, navy above, brown below "
        "and a background of teal"
    )
    assert write_caption(TRIGGER, shown(), CaptionStyle.TAGS) == (
        "MEIKOB_01, upper body, from side, dim light, warm tones, navy above, brown below, teal background"
    )


def test_two_sides_of_different_colours_are_both_named() -> None:
    assert write_caption(TRIGGER, shown(right="grey")).endswith("brown below, teal on the left and grey on the right")
    tags = write_caption(TRIGGER, shown(right="grey"), CaptionStyle.TAGS)
    assert tags.endswith("brown below, teal on the left, grey on the right")


@pytest.mark.parametrize("kind", CharacterKind)
def test_a_fixed_caption_says_enough_too(kind: CharacterKind) -> None:
    caption = fixed_caption(TRIGGER, kind)
    assert caption.startswith(TRIGGER)
    assert len(caption.split()) >= FEWEST_WORDS
    assert likeness_words(caption) == ()


def test_own_words_are_kept_and_the_trigger_is_put_first_only_where_it_is_missing() -> None:
    assert own_caption("standing on a pier\nat night", TRIGGER) == f"{TRIGGER}, standing on a pier at night"
    assert own_caption(f"on a pier, {TRIGGER} waits", TRIGGER) == f"on a pier, {TRIGGER} waits"
    assert own_caption("[trigger] waits on a pier", TRIGGER) == f"{TRIGGER} waits on a pier"
    assert own_caption("MEIKOB_012 waits", TRIGGER) == f"{TRIGGER}, MEIKOB_012 waits"


def test_a_caption_file_of_nothing_is_no_caption() -> None:
    assert own_caption(" \n\t", TRIGGER) == ""


@given(st.text())
def test_whatever_a_caption_file_holds_becomes_one_printable_line_of_bounded_length(text: str) -> None:
    caption = own_caption(text, TRIGGER)
    assert caption.isprintable()
    assert len(caption) <= LONGEST_OWN * 4 + len(TRIGGER) + 2
    assert caption == "" or says_trigger(caption, TRIGGER)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (TriggerRule.WORD, "MEIKOB_01, on a pier; MEIKOB_01 waits"),
        (TriggerRule.PLACEHOLDER, "[trigger], on a pier; [trigger] waits"),
        (TriggerRule.PREPENDED, "on a pier; MEIKOB_01 waits"),
    ],
)
def test_each_trainer_gets_the_trigger_as_it_reads_it(rule: TriggerRule, wanted: str) -> None:
    assert caption_for_trainer("MEIKOB_01, on a pier; MEIKOB_01 waits", TRIGGER, rule) == wanted


def test_a_trainer_that_reads_captions_only_never_gets_one_without_the_trigger() -> None:
    assert caption_for_trainer("on a pier", TRIGGER, TriggerRule.WORD) == "MEIKOB_01, on a pier"


def test_captions_alike_are_flagged_with_all_names_and_different_ones_are_not() -> None:
    one, other = write_caption(TRIGGER, shown()), write_caption(TRIGGER, shown(view=View.BACK))
    assert caption_warnings([("f1", one), ("f2", other)], TRIGGER) == ()
    (said,) = caption_warnings([("f1", one), ("f2", other), ("s1", one.upper() + "."), ("s2", one)], TRIGGER)
    assert said.startswith("f1, s1 and s2 have the same caption")


def test_fixed_captions_are_alike_on_purpose() -> None:
    fixed = fixed_caption(TRIGGER, CharacterKind.PERSON)
    assert caption_warnings([("f1", fixed), ("f2", fixed)], TRIGGER, is_fixed=True) == ()


def test_own_words_about_the_face_are_flagged_by_name() -> None:
    (said,) = caption_warnings([("s1", f"{TRIGGER} with red hair and green eyes on a long pier")], TRIGGER)
    assert "The caption of s1 says hair, eyes" in said


def test_a_trigger_word_that_sounds_like_hair_is_no_description() -> None:
    assert caption_warnings([("s1", "Hair_01 on a pier in the rain under an umbrella")], "Hair_01") == ()


def test_a_caption_of_few_words_is_flagged() -> None:
    (said,) = caption_warnings([("s1", f"{TRIGGER} on a pier")], TRIGGER)
    assert "has 4 words" in said
