"""Names in prompts: the longest declared name wins, whatever its case, script and punctuation."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.prompts import (
    find_mentions,
    in_words,
    mentioned_names,
    rewrite_prompt,
    unknown_mentions,
    with_trigger,
)

CAST = ["Mei", "Mei Kobayashi", "Rui", "Dr. No", "Jean-Luc", "O’Brien", "Zoë", "三浦", "R2"]


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("@Mei Kobayashi runs", ("Mei Kobayashi",)),
        ("@Mei runs", ("Mei",)),
        ("@mei kobayashi runs", ("Mei Kobayashi",)),
        ("@MEI", ("Mei",)),
        ("@Mei Kobayashis boat", ("Mei",)),
        ("@Mei, @Rui and @mei", ("Mei", "Rui")),
        ("(@Rui)", ("Rui",)),
        ("@Rui's boat, @Rui’s net", ("Rui",)),
        ("@Rui.", ("Rui",)),
        ("@Dr. No smiles", ("Dr. No",)),
        ("@dr. no.", ("Dr. No",)),
        ("@Jean-Luc", ("Jean-Luc",)),
        ("@O’Brien waits", ("O’Brien",)),
        ("@zoë", ("Zoë",)),
        ("@三浦は走る", ()),
        ("@三浦 は走る", ("三浦",)),
        ("雨の中@三浦、走る", ("三浦",)),
        ("@@Mei", ("Mei",)),
        ("@Mei@Rui", ("Mei",)),
        ("@R2\n@rui", ("R2", "Rui")),
        ("mail@Mei.example", ()),
        ("@Meike", ()),
        ("@Mei_x", ()),
        ("@Mei2", ()),
        ("@ Mei", ()),
        ("Mei", ()),
        ("", ()),
    ],
)
def test_a_mention_is_found_as_a_person_means_it(prompt: str, names: tuple[str, ...]) -> None:
    assert mentioned_names(prompt, CAST) == names


def test_the_longest_declared_name_wins_in_whatever_order_they_are_declared() -> None:
    for names in (["Mei", "Mei Lin", "Mei Lin Wu"], ["Mei Lin Wu", "Mei Lin", "Mei"]):
        assert mentioned_names("@Mei Lin Wu and @Mei Lin and @Mei", names) == ("Mei Lin Wu", "Mei Lin", "Mei")


@pytest.mark.parametrize("prompt", ["@Mİa", "@MİA", "@mıa", "@Mi\u0307a"])
def test_letters_that_only_some_alphabets_take_for_the_same_name_nobody_and_break_nothing(prompt: str) -> None:
    assert find_mentions(prompt, ["Mia"]) == []
    assert len(unknown_mentions(prompt, ["Mia"])) == 1


def test_a_name_does_not_end_inside_a_letter() -> None:
    assert find_mentions("@Jose\u0301 runs", ["Jose"]) == []
    assert mentioned_names("@राम", ["राम"]) == ("राम",)
    assert find_mentions("@रामा", ["राम"]) == []


def test_an_unknown_name_is_told_and_an_address_is_not() -> None:
    assert unknown_mentions("@Tova meets @Mei and @Jean-Paul", CAST) == ["@Tova", "@Jean-Paul"]
    assert unknown_mentions("write to studio@harbor.example", CAST) == []
    assert unknown_mentions("5 @ 3, @, @!", CAST) == []
    assert unknown_mentions("@Tova", []) == ["@Tova"]


def test_a_mention_knows_where_it_stands() -> None:
    (mention,) = find_mentions("see @mei kobayashi!", CAST)
    assert "see @mei kobayashi!"[mention.start : mention.end] == "@mei kobayashi"
    assert mention.name == "Mei Kobayashi"


def test_a_prompt_is_rewritten_for_each_kind_of_model() -> None:
    prompt = "@Mei Kobayashi hands @Rui’s net to @mei kobayashi"
    assert rewrite_prompt(prompt, {"Mei Kobayashi": "@Element1", "Rui": "RUIFER_01"}) == (
        "@Element1 hands RUIFER_01’s net to @Element1"
    )
    assert rewrite_prompt("no one is here, a@b", {"Mei": "x"}) == "no one is here, a@b"
    assert rewrite_prompt("@Mei", {}) == "@Mei"


def test_what_replaces_a_name_is_never_read_as_a_name_again() -> None:
    assert rewrite_prompt("@Mei and @Rui", {"Mei": "@Rui", "Rui": r"\1 @Mei"}) == r"@Rui and \1 @Mei"


def test_a_character_is_put_in_words_or_by_its_trigger() -> None:
    assert in_words("Mei", "red scarf") == "Mei (red scarf)"
    assert in_words("Mei", "") == "Mei"
    assert with_trigger("MEIKOB_01", "red scarf") == "MEIKOB_01, red scarf,"
    assert with_trigger("MEIKOB_01", "") == "MEIKOB_01"


names = st.lists(st.text("abAB İıſK.-’é ", min_size=1, max_size=6).map(str.strip).filter(bool), max_size=5)


@settings(deadline=None)
@given(st.text("@abABİıſKé.-’ \n", max_size=40), names)
def test_any_prompt_is_read_without_a_crash_and_rewriting_leaves_the_rest_alone(prompt: str, cast: list[str]) -> None:
    mentions = find_mentions(prompt, cast)
    assert all(mention.name in cast for mention in mentions)
    assert all(a.end <= b.start for a, b in pairwise(mentions))
    same = rewrite_prompt(prompt, {name: f"<{name}>" for name in cast})
    kept = prompt
    for mention in reversed(mentions):
        kept = kept[: mention.start] + f"<{mention.name}>" + kept[mention.end :]
    assert same == kept
    unknown_mentions(prompt, cast)
