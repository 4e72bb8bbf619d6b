"""What is made of a captioner's words: the trigger first, nothing of the face, never empty, never endless.

And the sandbox's captioner: honest, the same for the same picture, and labelled.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from domain.captions import (
    FEWEST_WORDS,
    LONGEST_DESCRIBED,
    Shown,
    Surroundings,
    cleaned_caption,
    likeness_words,
    says_trigger,
    write_caption,
)
from domain.pictures import Framing, Light
from providers.sandbox.engine.describing import describe_picture

TRIGGER = "MEIKOB_01"
AROUND = Surroundings(light=Light.DIM, tone="warm", above="navy", below="brown", left="teal", right="teal")
AUTOMATIC = write_caption(TRIGGER, Shown(surroundings=AROUND, framing=Framing.BUST))
LOOKS = "pale skin, freckled nose, green eyes and short black hair"


def cleaned(text: str) -> str:
    return cleaned_caption(text, TRIGGER, AUTOMATIC)


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        (
            "A woman with short black hair and green eyes stands on a pier at night, wearing a red scarf. The sky is "
            "dark blue.",
            "on a pier at night, wearing a red scarf. The sky is dark blue",
        ),
        (
            "Her hair, long and black, shines. She walks beside a harbour wall under a lamp, holding an umbrella.",
            "She walks beside a harbour wall under a lamp, holding an umbrella",
        ),
        (
            "A man in a purple suit stands before a door; curly-haired, bald. Two lamps light the room!",
            "A man in a purple suit stands before a door. Two lamps light the room",
        ),
        (
            "Two lamps, 3.5 metres apart, light a long wooden pier",
            "Two lamps, 3.5 metres apart, light a long wooden pier",
        ),
    ],
)
def test_clauses_about_face_skin_eyes_and_hair_go_and_the_others_stay(text: str, caption: str) -> None:
    assert cleaned(text) == f"{TRIGGER}, {caption}"


@pytest.mark.parametrize("text", ["", " \n\x00", LOOKS, f"{LOOKS}.", "x" * 5000, TRIGGER, "[trigger]"])
def test_where_nothing_is_left_the_automatic_caption_stands(text: str) -> None:
    assert cleaned(text) == AUTOMATIC


def test_a_few_words_are_followed_by_the_automatic_ones_and_enough_words_are_not() -> None:
    assert cleaned("On a pier at night.") == f"{TRIGGER}, On a pier at night, {AUTOMATIC.removeprefix(f'{TRIGGER}, ')}"
    assert cleaned("On a long wooden pier at night.") == f"{TRIGGER}, On a long wooden pier at night"


def test_the_trigger_word_and_what_stands_for_it_are_said_once_and_first() -> None:
    caption = cleaned(f"A portrait of {TRIGGER}, [trigger] or [name], on a long wooden pier in the rain")
    assert caption.startswith(f"{TRIGGER}, A portrait of")
    assert caption.count(TRIGGER) == 1
    assert "[" not in caption


def test_a_long_description_is_cut_between_clauses() -> None:
    caption = cleaned("a lamp on the quay, " * 200)
    assert LONGEST_DESCRIBED - 40 < len(caption) <= LONGEST_DESCRIBED + len(TRIGGER) + 2
    assert caption.endswith(("a lamp", "on the quay"))


WORDS = st.sampled_from(
    f"{LOOKS} her face, with her hair and a . pier (night) at — eyes; {TRIGGER} [trigger] ſkin".split(" ")
)


@given(st.one_of(st.text(max_size=400), st.lists(WORDS, max_size=40).map(" ".join)))
def test_whatever_a_captioner_says_becomes_a_usable_caption(text: str) -> None:
    caption = cleaned(text)
    assert caption.startswith(f"{TRIGGER}, ")
    assert says_trigger(caption, TRIGGER)
    assert len(caption.split()) >= FEWEST_WORDS
    assert likeness_words(caption, TRIGGER) == ()
    assert caption.isprintable()
    assert len(caption) <= LONGEST_DESCRIBED + len(TRIGGER) + len(AUTOMATIC) + 4


# --- the sandbox's captioner ---


def picture(path: Path, upper: str, lower: str, size: tuple[int, int] = (160, 120)) -> Path:
    image = Image.new("RGB", size, upper)
    image.paste(lower, (0, size[1] // 2, *size))
    image.save(path, "PNG")
    return path


def test_the_sandbox_says_what_is_there_and_that_it_is_the_sandbox(tmp_path: Path) -> None:
    night = picture(tmp_path / "night.png", "#101830", "#402010")
    said = describe_picture(night)
    assert said == describe_picture(night)
    assert said.startswith(
        "Sandbox description: a wide picture, very dark and flat, dark blue in its upper half and dark "
    )
    day = describe_picture(picture(tmp_path / "day.png", "#c0e8ff", "#f4f4f4", (90, 160)))
    assert day.startswith("Sandbox description: a tall picture, bright and flat, light ")
    assert "white in its lower half" in day
    assert likeness_words(said + day) == ()


def test_a_longer_description_says_more(tmp_path: Path) -> None:
    day = picture(tmp_path / "day.png", "#c0e8ff", "#209020", (120, 120))
    short, normal, long = (describe_picture(day, length=length) for length in ("short", "normal", "long"))
    assert normal.startswith(short)
    assert long == f"{normal} The upper half is the brighter one."
