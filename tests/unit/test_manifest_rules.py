"""What a season manifest may say: every rule from both sides, on values; files and lines are test_manifest_errors'."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from domain.budgets import AtLimit
from domain.registry import load_registry
from domain.seasons import MAX_SLOTS, SeasonManifest

MEI = {"name": "Mei Kobayashi", "clips": ["clips/a.mp4"]}


def season(**fields: Any) -> SeasonManifest:
    return SeasonManifest.model_validate({"season": "neon-harbor", "budget_usd": 60, **fields})


def problem(**fields: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        season(**fields)
    return " ".join(error["msg"] for error in refused.value.errors())


def slot(**fields: Any) -> dict[str, Any]:
    return {"number": 1, "prompt": "rain on the pier", **fields}


def test_the_shortest_manifest_has_the_defaults_of_the_issue() -> None:
    manifest = season(characters=[MEI], slots=[slot()])
    mei = manifest.characters[0]
    assert (mei.base_models, mei.lora, mei.lora_scale, mei.min_images) == (("flux-1-dev",), "auto", 0.8, 10)
    assert manifest.vendor.train == manifest.vendor.image == manifest.vendor.video == ("sandbox",)
    assert not manifest.review
    assert not manifest.sandbox


@pytest.mark.parametrize("number", [1, MAX_SLOTS])
def test_a_slot_number_from_1_to_75_is_taken(number: int) -> None:
    assert season(slots=[slot(number=number)]).slots[0].number == number


@pytest.mark.parametrize("number", [0, 76, -1, True, 1.5, "six"])
def test_a_slot_number_that_is_none_is_refused(number: object) -> None:
    assert problem(slots=[slot(number=number)])


def test_two_slots_of_one_number_are_refused() -> None:
    assert "slot 4 is there twice" in problem(slots=[slot(number=4), slot(number=4)])


@pytest.mark.parametrize("budget", ["0.01", 60, 1_000_000])
def test_a_budget_above_zero_is_taken_to_the_cent(budget: object) -> None:
    assert season(budget_usd=budget).budget_usd == Decimal(str(budget))


@pytest.mark.parametrize("budget", [0, -1, "0.001", 1_000_001, True, float("nan"), float("inf"), "much", None])
def test_a_budget_that_makes_no_sense_is_refused(budget: object) -> None:
    assert problem(budget_usd=budget)


@pytest.mark.parametrize("budget", ["0.01", 5, 1_000_000, None])
def test_a_character_may_have_a_budget_of_its_own(budget: object) -> None:
    (mei,) = season(characters=[{**MEI, "budget_usd": budget}]).characters
    assert mei.budget_usd == (None if budget is None else Decimal(str(budget)))


@pytest.mark.parametrize("budget", [0, -1, "0.001", 1_000_001, True, "12,50"])
def test_a_characters_budget_that_makes_no_sense_is_refused(budget: object) -> None:
    assert problem(characters=[{**MEI, "budget_usd": budget}])


def test_at_the_limit_a_season_stops_unless_it_says_ask() -> None:
    assert (season().at_limit, season(at_limit="ask").at_limit) == (AtLimit.STOP, AtLimit.ASK)
    assert "'stop' or 'ask'" in problem(at_limit="go on")


def test_a_season_without_a_budget_is_refused() -> None:
    with pytest.raises(ValidationError, match="budget_usd"):
        SeasonManifest.model_validate({"season": "neon-harbor"})


@pytest.mark.parametrize("slug", ["a", "neon-harbor", "2", "a" * 63])
def test_a_slug_is_taken(slug: str) -> None:
    assert season(season=slug).season == slug


@pytest.mark.parametrize(
    "slug", ["", "Neon", "neon harbor", "-neon", "../neon", "neon\n", "a" * 64, "né", "a'b", "a;b"]
)
def test_what_is_no_slug_is_refused_for_season_and_owner(slug: str) -> None:
    assert "is no slug" in problem(season=slug)
    assert "is no slug" in problem(owner=slug)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Lisbon", "Asia/Tokyo"])
def test_a_time_zone_is_taken(zone: str) -> None:
    assert season(time_zone=zone).time_zone == zone


@pytest.mark.parametrize("zone", ["", "Lisbon", "Europe", "../UTC", "/etc/passwd", "UTC\0"])
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    assert "is no time zone" in problem(time_zone=zone)


@pytest.mark.parametrize(
    "name",
    ["Mei", "Mei Kobayashi", "Jean-Luc", "Dr. No", "O’Brien", "Zoë", "三浦", "Ольга", "मीरा", "R2", "x" * 80, "Nguyễn"],
)
def test_a_name_in_any_script_is_taken(name: str) -> None:
    assert season(characters=[{"name": name}]).characters[0].name == name


@pytest.mark.parametrize(
    "name",
    [
        "../Mei",
        "Mei/../../etc",
        "..",
        "a..b",
        "Mei'; DROP TABLE seasons; --",
        'Mei "the fish"',
        "O'Brien",
        "Mei\nKobayashi",
        "Mei\0",
        "Mei\\x",
        "<b>Mei</b>",
        "{Mei}",
        "@Mei",
        " Mei",
        "Mei ",
        "",
        "   ",
        "42",
        "- -",
        "x" * 81,
        "Mei\u202eik",
    ],
)
def test_a_name_that_could_do_harm_is_refused(name: str) -> None:
    assert problem(characters=[{"name": name}])


def test_two_characters_of_one_name_are_refused_whatever_their_case() -> None:
    assert "declared twice" in problem(characters=[{"name": "Mei"}, {"name": "MEI"}])
    assert "declared twice" in problem(characters=[{"name": "Zoe\u0308"}, {"name": "zo\u00eb"}])


def test_a_name_is_the_same_however_its_accent_was_typed() -> None:
    manifest = season(characters=[{"name": "Zoe\u0308"}], slots=[slot(prompt="@Zo\u00eb waves")])
    assert manifest.characters[0].name == "Zo\u00eb"
    assert manifest.cast_of(manifest.slots[0]) == ("Zo\u00eb",)


def test_two_characters_with_one_trigger_word_are_refused() -> None:
    twins = [{"name": "Mei", "trigger_word": "MEIKOB_01"}, {"name": "Rui", "trigger_word": "meikob_01"}]
    assert "'Mei' and 'Rui' share the trigger word" in problem(characters=twins)
    twins[1]["trigger_word"] = "RUIFER_01"
    assert len(season(characters=twins).characters) == 2


@pytest.mark.parametrize("word", ["KAEL_7", "MEIKOB_01", "a23456", "A" * 32])
def test_a_trigger_word_is_taken(word: str) -> None:
    assert season(characters=[{"name": "Mei", "trigger_word": word}]).characters[0].trigger_word == word


@pytest.mark.parametrize("word", ["KAEL7", "7KAELX", "_KAEL7", "KAEL-07", "KAEL 07", "KÆL_007", "A" * 33, "KAEL_07\n"])
def test_what_is_no_trigger_word_is_refused(word: str) -> None:
    assert "is no trigger word" in problem(characters=[{"name": "Mei", "trigger_word": word}])


def test_a_base_model_of_the_registry_is_taken_and_another_is_refused() -> None:
    for base in load_registry().base_models:
        assert season(characters=[{"name": "Mei", "base_models": [base.key]}])
    assert "is no base model; write one of" in problem(characters=[{"name": "Mei", "base_models": ["flux-9"]}])
    assert "twice" in problem(characters=[{"name": "Mei", "base_models": ["flux-1-dev", "flux-1-dev"]}])


def test_every_video_model_is_taken_and_another_kind_or_an_unknown_one_is_refused() -> None:
    for model in load_registry().video_models():
        assert season(slots=[slot(video_model=model.key)]).slots[0].video_model == model.key
    for wrong in ("kling_v99", "flux_lora", "", "kling_v21 "):
        assert "is no video model; write one of" in problem(slots=[slot(video_model=wrong)])


@pytest.mark.parametrize(
    "vendor",
    [
        *("sandbox", "fal", "replicate", "runpod", "comfyui", "local"),
        *({"train": "fal"}, {"image": ["fal", "sandbox"], "video": "fal"}, {"train": ["runpod", "fal"]}),
    ],
)
def test_every_vendor_is_taken_for_all_works_and_for_single_ones(vendor: Any) -> None:
    choice = season(vendor=vendor).vendor
    if isinstance(vendor, str):
        assert choice.train == choice.image == choice.video == (vendor,)
    else:
        for work in ("train", "image", "video"):
            named = vendor.get(work, "sandbox")
            assert getattr(choice, work) == ((named,) if isinstance(named, str) else tuple(named))


@pytest.mark.parametrize("vendor", ["", "openai", "FAL", {"train": "openai"}, {"train": ["fal", "openai"]}])
def test_an_unknown_vendor_is_refused_with_the_known_ones(vendor: object) -> None:
    assert "is no vendor; write one of sandbox, fal" in problem(vendor=vendor)


@pytest.mark.parametrize("vendor", [{"train": 5}, {"train": None}, {"train": []}, {"train": [1]}, [], None, 7])
def test_a_vendor_that_is_no_name_at_all_is_refused_without_a_crash(vendor: object) -> None:
    assert problem(vendor=vendor)


def test_a_kind_of_work_that_nobody_knows_is_refused() -> None:
    assert problem(vendor={"trian": "fal"})


def test_a_slot_is_won_or_wanted_and_never_both_or_neither() -> None:
    assert season(slots=[{"number": 1, "video": "clips/a.mp4"}])
    assert season(slots=[slot()])
    assert "not both" in problem(slots=[{"number": 1}])
    assert "not both" in problem(slots=[slot(video="clips/a.mp4")])


@pytest.mark.parametrize("prompt", ["", "  ", "\n", "rain\0", "rain\x1b[31m", "\ud800"])
def test_a_prompt_that_says_nothing_or_holds_control_characters_is_refused(prompt: str) -> None:
    assert problem(slots=[slot(prompt=prompt)])


def test_a_prompt_may_have_several_lines_and_any_script() -> None:
    assert season(slots=[slot(prompt="rain on the pier,\n\tthen 雨 🌧")])


def test_a_prompt_that_names_nobody_declared_is_refused_and_an_address_is_no_name() -> None:
    assert "names '@Rui', who is not in characters; declared are Mei Kobayashi" in problem(
        characters=[MEI], slots=[slot(prompt="@Rui waits")]
    )
    assert season(characters=[MEI], slots=[slot(prompt="a sign reads mail@harbor.example")])


@pytest.mark.parametrize("seconds", [0.5, 5, 60])
def test_a_length_up_to_a_minute_is_taken(seconds: float) -> None:
    assert season(slots=[slot(seconds=seconds)]).slots[0].seconds == seconds


@pytest.mark.parametrize("seconds", [0, -5, 61, float("nan"), float("inf"), True, "long"])
def test_a_length_that_makes_no_sense_is_refused(seconds: object) -> None:
    assert problem(slots=[slot(seconds=seconds)])


@pytest.mark.parametrize(
    "fields",
    [
        {"lora_scale": 0},
        {"lora_scale": 4.1},
        {"lora_scale": float("nan")},
        {"min_images": 0},
        {"min_images": 101},
        {"training": {"steps": 0}},
        {"training": {"steps": True}},
        {"training": {"learning_rate": 0}},
        {"training": {"learning_rate": float("nan")}},
        {"training": {"rank": 0}},
        {"training": {"epochs": 3}},
        {"kind": "robot"},
        {"clips": "clips/a.mp4"},
        {"clips": [""]},
        {"images": ["art\0.png"]},
        {"lora": True},
        {"lora": ""},
        {"colour": "red"},
    ],
)
def test_a_character_field_out_of_its_range_is_refused(fields: dict[str, Any]) -> None:
    assert problem(characters=[{**MEI, **fields}])


@pytest.mark.parametrize(
    ("written", "read"), [("auto", "auto"), ("none", "none"), (12, "12"), ("12", "12"), ("art/x.safetensors",) * 2]
)
def test_a_lora_is_auto_none_an_id_or_a_place(written: object, read: str) -> None:
    assert season(characters=[{**MEI, "lora": written}]).characters[0].lora == read


def test_trigger_words_are_made_once_and_never_equal_one_that_was_given() -> None:
    manifest = season(
        characters=[{"name": "Mei Kobayashi"}, {"name": "Rui", "trigger_word": "meikob_01"}, {"name": "Mei Kobe"}]
    ).with_trigger_words()
    words = [character.trigger_word for character in manifest.characters]
    assert words == ["MEIKOB_02", "meikob_01", "MEIKOB_03"]
    assert manifest.with_trigger_words() == manifest


def test_gaps_are_the_numbers_that_nobody_fills() -> None:
    assert season(slots=[slot(number=2), slot(number=5)]).gaps() == (1, 3, 4)
    assert season(slots=[slot(number=1), slot(number=2)]).gaps() == ()
    assert season().gaps() == ()


def test_two_manifests_that_mean_the_same_are_equal() -> None:
    assert season(budget_usd="60.00", vendor="fal") == season(
        budget_usd=60, vendor={"train": ["fal"], "image": "fal", "video": "fal"}
    )
