"""Names, kinds and trigger words of characters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.characters import TRIGGER_WORD, make_trigger_word, name_problem


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Mei Kobayashi", "MEIKOB_01"),
        ("Kael", "KAEL_01"),
        ("Mei", "MEI_01"),
        ("Zoë Müller", "ZOEMUL_01"),
        ("Alexandria", "ALEXAN_01"),
        ("Jean-Luc Picard", "JEALUC_01"),
        ("O’Brien", "OBRIEN_01"),
        ("R2 Delta", "RDEL_01"),
    ],
)
def test_a_trigger_word_is_made_from_the_name(name: str, word: str) -> None:
    assert make_trigger_word(name) == word


@pytest.mark.parametrize("name", ["三浦", "Ольга", "Bo", "A B", "मीरा"])
def test_a_name_with_too_few_latin_letters_still_gets_a_word_always_the_same(name: str) -> None:
    word = make_trigger_word(name)
    assert word.startswith("CHR")
    assert word == make_trigger_word(name)
    assert TRIGGER_WORD.fullmatch(word)


def test_a_word_that_is_taken_is_counted_up_whatever_its_case() -> None:
    assert make_trigger_word("Mei Kobayashi", {"meikob_01", "MEIKOB_02"}) == "MEIKOB_03"
    hundred = {f"MEIKOB_{n:02d}" for n in range(1, 100)}
    assert make_trigger_word("Mei Kobayashi", hundred) == "MEIKOB_100"


@settings(deadline=None)
@given(st.lists(st.from_regex(r"[A-Za-zé三][a-zA-Z三 .-]{0,10}[a-z三]", fullmatch=True), max_size=12))
def test_made_words_are_always_valid_and_never_equal(names: list[str]) -> None:
    taken: list[str] = []
    for name in names:
        taken.append(make_trigger_word(name, taken))
    assert len({word.casefold() for word in taken}) == len(taken)
    assert all(TRIGGER_WORD.fullmatch(word) for word in taken)


@settings(deadline=None)
@given(st.text(max_size=100))
def test_a_name_that_passes_can_stand_in_a_prompt_a_page_and_a_file_name(name: str) -> None:
    problem = name_problem(name)
    if problem is None:
        assert not set(name) & set("/\\\"'`<>{}[]@;:$%&\0\n\r\t")
        assert ".." not in name
        assert 0 < len(name) <= 80
    else:
        assert problem.startswith(("is ", "holds ", "has "))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../Mei", "holds '/'"),
        ("a..b", "holds '..'"),
        ("Mei'--", 'holds "\'"'),
        ("Mei; DROP TABLE slots", "holds ';'"),
        (" Mei", "begins or ends with a space"),
        ("", "is empty"),
        ("7", "has no letter in it"),
        ("x" * 81, "is 81 characters long; write at most 80"),
    ],
)
def test_a_refused_name_says_what_was_seen_and_what_to_write(name: str, words: str) -> None:
    assert words in str(name_problem(name))
