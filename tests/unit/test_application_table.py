"""The issue's application table, row by row: which route a character takes, and what follows when a way fails."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.applications import (
    RETRIES,
    STILL_BACKOFF_SECONDS,
    CharacterAtRender,
    CharacterRoute,
    LoraAtRender,
    Route,
    VideoModelTakes,
    can_show,
    choose_route,
    choose_routes,
    group_by_base,
    next_route,
)
from domain.characters import LoraStatus
from domain.jobs import BlobRef
from domain.registry import load_registry
from tasks.slot_stills import model_takes

FLUX, WAN, WAN_I2V = "flux-1-dev", "wan-22-t2v-a14b", "wan-22-i2v-a14b"
NOT_READY = [status for status in LoraStatus if status is not LoraStatus.READY]


def picture(name: str) -> BlobRef:
    return BlobRef(sha256=name.ljust(64, "0"), media_type="image/png", file_name=f"{name}.png")


def lora(
    lora_id: int = 1, base: str = FLUX, status: LoraStatus = LoraStatus.READY, *, has_file: bool = True
) -> LoraAtRender:
    return LoraAtRender(
        lora_id=lora_id,
        base_model=base,
        trigger_word=f"WORD_{lora_id:02d}",
        status=status,
        file=picture(f"lora{lora_id}") if has_file else None,
        still_model="flux_lora" if base == FLUX else None,
    )


def character(
    *loras: LoraAtRender, who: int = 1, wanted: bool = True, pinned: bool = False, face: str | None = None
) -> CharacterAtRender:
    return CharacterAtRender(
        character_id=who,
        name=f"Character {who}",
        description="red scarf",
        lora_scale=0.8,
        is_lora_wanted=wanted,
        loras=loras,
        pinned_frontal=picture("front") if pinned else None,
        originals=(picture("sheet"),),
        face_model=face,
    )


def model(key: str) -> VideoModelTakes:
    return model_takes(load_registry().model(key))


ELEMENTS, FIRST_FRAME, WAN_LORA = "kling_o1_reference", "kling_v25_turbo", "wan_22_t2v_lora"
OWNERS_FIVE = ["kling_v21", "kling_v25_turbo", "hailuo_23", "wan_25_i2v", "veo_31"]


# --- the rows ---


@pytest.mark.parametrize("status", list(LoraStatus))
@pytest.mark.parametrize("wanted", [True, False])
def test_row_1_a_pinned_character_goes_as_elements_whatever_its_lora(status: LoraStatus, wanted: bool) -> None:
    route = choose_route(character(lora(status=status), pinned=True, wanted=wanted), model(ELEMENTS))
    assert (route.route, route.severity) == (Route.ELEMENTS, "")
    assert choose_route(character(pinned=True), model(ELEMENTS)).route is Route.ELEMENTS


@pytest.mark.parametrize("key", [*OWNERS_FIVE, WAN_LORA])
def test_row_1_does_not_hold_for_a_model_without_elements(key: str) -> None:
    assert choose_route(character(lora(), pinned=True), model(key)).route is not Route.ELEMENTS


def test_row_1_does_not_hold_for_a_character_that_is_not_pinned() -> None:
    assert choose_route(character(lora()), model(ELEMENTS)).route is Route.PREPROCESSED


def test_row_2_a_ready_lora_of_the_models_base_goes_in_directly() -> None:
    route = choose_route(character(lora(7, WAN)), model(WAN_LORA))
    assert (route.route, route.lora_id, route.severity) == (Route.DIRECT, 7, "")


@pytest.mark.parametrize("base", [FLUX, WAN_I2V])
def test_row_2_does_not_hold_for_another_base(base: str) -> None:
    assert choose_route(character(lora(7, base)), model(WAN_LORA)).route is not Route.DIRECT


@pytest.mark.parametrize("key", [*OWNERS_FIVE, ELEMENTS])
def test_row_3_a_ready_lora_becomes_a_still_where_the_model_takes_none(key: str) -> None:
    route = choose_route(character(lora(3)), model(key))
    assert (route.route, route.lora_id, route.severity) == (Route.PREPROCESSED, 3, "")


def test_row_3_of_two_ready_loras_the_one_that_a_still_model_draws_is_taken() -> None:
    assert choose_route(character(lora(1, WAN), lora(2, FLUX)), model(FIRST_FRAME)).lora_id == 2


def test_row_3_a_model_that_can_show_nobody_is_not_the_one_that_films() -> None:
    asked = model(WAN_LORA)
    cast = [character(lora(1, FLUX))]
    assert not can_show(asked, choose_routes(cast, asked))
    default = model(load_registry().default_video_model)
    routes = choose_routes(cast, default)
    assert can_show(default, routes)
    assert [route.route for route in routes] == [Route.PREPROCESSED]


def test_row_3_a_model_that_shows_one_of_two_films_them_and_the_other_is_in_words() -> None:
    asked = model(WAN_LORA)
    routes = choose_routes([character(lora(1, FLUX), who=1), character(lora(2, WAN), who=2)], asked)
    assert can_show(asked, routes)
    assert [route.route for route in routes] == [Route.ORIGINALS, Route.DIRECT]
    assert "nor pictures" in routes[0].reason


def test_a_slot_without_characters_is_filmed_by_whatever_model_it_names() -> None:
    assert can_show(model(WAN_LORA), choose_routes([], model(WAN_LORA)))


@pytest.mark.parametrize("key", [*OWNERS_FIVE, ELEMENTS])
def test_row_4_a_ready_lora_without_a_still_model_gives_originals_with_the_reason(key: str) -> None:
    route = choose_route(character(lora(1, WAN)), model(key))
    assert route.route is Route.ORIGINALS
    assert f"no still model draws with a LoRA of {WAN}" in route.reason
    assert key in route.reason


@pytest.mark.parametrize("key", [*OWNERS_FIVE, ELEMENTS, WAN_LORA])
@pytest.mark.parametrize("base", [FLUX, WAN])
def test_row_5_a_missing_or_damaged_file_gives_originals_and_an_error(key: str, base: str) -> None:
    route = choose_route(character(lora(1, base, has_file=False)), model(key))
    assert (route.route, route.severity) == (Route.ORIGINALS, "error")
    assert "missing or damaged" in route.reason


def test_row_5_does_not_hold_while_another_lora_of_the_character_is_whole() -> None:
    assert choose_route(character(lora(1, WAN, has_file=False), lora(2)), model(FIRST_FRAME)).lora_id == 2


@pytest.mark.parametrize("status", NOT_READY)
@pytest.mark.parametrize("key", [*OWNERS_FIVE, ELEMENTS, WAN_LORA])
def test_row_6_a_lora_that_is_not_ready_gives_originals_and_a_warning(status: LoraStatus, key: str) -> None:
    route = choose_route(character(lora(1, WAN, status)), model(key))
    assert (route.route, route.severity) == (Route.ORIGINALS, "warning")
    assert status.value in route.reason


def test_row_6_does_not_hold_while_another_lora_of_the_character_is_ready() -> None:
    training = lora(1, WAN, LoraStatus.TRAINING)
    assert choose_route(character(training, lora(2)), model(FIRST_FRAME)).route is Route.PREPROCESSED


@pytest.mark.parametrize("key", [*OWNERS_FIVE, ELEMENTS, WAN_LORA])
def test_row_7_no_lora_or_one_switched_off_gives_originals_without_a_warning(key: str) -> None:
    for nobody in (character(), character(lora(1, WAN), lora(2), wanted=False)):
        route = choose_route(nobody, model(key))
        assert (route.route, route.severity, route.lora_id) == (Route.ORIGINALS, "", None)


# --- the last column ---


def fallen(route: Route, who: CharacterAtRender, lora_id: int | None = 1) -> list[Route]:
    """Every route after this one, to the end."""
    seen = []
    now: CharacterRoute | None = CharacterRoute(
        character_id=who.character_id, name=who.name, route=route, lora_id=lora_id, reason="asked"
    )
    while now is not None:
        seen.append(now.route)
        now = next_route(now, who, "it failed")
    return seen


@pytest.mark.parametrize(
    ("route", "base", "way"),
    [
        (Route.ELEMENTS, FLUX, [Route.ELEMENTS, Route.ORIGINALS]),
        (Route.DIRECT, FLUX, [Route.DIRECT, Route.PREPROCESSED, Route.ORIGINALS]),
        (Route.DIRECT, WAN, [Route.DIRECT, Route.ORIGINALS]),
        (Route.PREPROCESSED, FLUX, [Route.PREPROCESSED, Route.ORIGINALS]),
        (Route.ORIGINALS, FLUX, [Route.ORIGINALS]),
    ],
)
def test_a_way_that_failed_leads_down_the_table_to_its_end(route: Route, base: str, way: list[Route]) -> None:
    assert fallen(route, character(lora(1, base))) == way


def test_a_fall_back_says_why_and_warns() -> None:
    start = choose_route(character(lora()), model(FIRST_FRAME))
    following = next_route(start, character(lora()), "the still was refused")
    assert following is not None
    assert (following.reason, following.severity) == ("preprocessed failed: the still was refused", "warning")


def test_the_retries_and_waits_are_those_of_the_table() -> None:
    assert RETRIES == {
        Route.ELEMENTS: 3,
        Route.DIRECT: 1,
        Route.PREPROCESSED: 3,
        Route.FACE_STILL: 3,
        Route.ORIGINALS: 1,
    }
    assert STILL_BACKOFF_SECONDS == (2.0, 4.0, 8.0)
    assert len(STILL_BACKOFF_SECONDS) == RETRIES[Route.PREPROCESSED]


@pytest.mark.parametrize("key", ["ltx_23_i2v_lora", "h3_i2v_lora"])
def test_a_model_that_needs_a_lora_films_nobody_without_one_whatever_pictures_it_takes(key: str) -> None:
    asked = model(key)
    assert asked.has_pictures
    assert not can_show(asked, [])
    assert not can_show(asked, choose_routes([character(lora(1, FLUX)), character(who=2)], asked))
    assert asked.lora_base is not None
    assert can_show(asked, choose_routes([character(lora(1, asked.lora_base)), character(who=2)], asked))


# --- a face without a LoRA, before the originals ---

FACE = "flux_2_edit"


@pytest.mark.parametrize(
    ("someone", "severity"),
    [
        (character(face=FACE), ""),
        (character(lora(), wanted=False, face=FACE), ""),
        (character(lora(status=LoraStatus.TRAINING), face=FACE), "warning"),
        (character(lora(status=LoraStatus.FAILED), face=FACE), "warning"),
        (character(lora(has_file=False), face=FACE), "error"),
        (character(lora(1, WAN_I2V), face=FACE), ""),
    ],
)
@pytest.mark.parametrize("key", [FIRST_FRAME, ELEMENTS])
def test_a_face_still_goes_before_the_originals_where_one_is_named(
    someone: CharacterAtRender, severity: str, key: str
) -> None:
    route = choose_route(someone, model(key))
    assert (route.route, route.severity) == (Route.FACE_STILL, severity)
    assert FACE in route.reason
    unnamed = choose_route(someone.model_copy(update={"face_model": None}), model(key))
    assert (unnamed.route, unnamed.severity) == (Route.ORIGINALS, severity)


def test_a_face_still_never_takes_the_place_of_a_lora_or_a_pin() -> None:
    assert choose_route(character(lora(), face=FACE), model(FIRST_FRAME)).route is Route.PREPROCESSED
    assert choose_route(character(lora(1, WAN), face=FACE), model(WAN_LORA)).route is Route.DIRECT
    assert choose_route(character(pinned=True, face=FACE), model(ELEMENTS)).route is Route.ELEMENTS


def test_nobody_gets_a_face_still_without_a_picture_or_where_no_picture_can_be_shown() -> None:
    without = character(face=FACE).model_copy(update={"originals": ()})
    assert choose_route(without, model(FIRST_FRAME)).route is Route.ORIGINALS
    assert choose_route(character(face=FACE), model(WAN_LORA)).route is Route.ORIGINALS


def test_a_lora_that_fails_falls_to_the_face_and_from_there_to_the_originals() -> None:
    someone = character(lora(), face=FACE)
    still = choose_route(someone, model(FIRST_FRAME))
    face = next_route(still, someone, "no luck")
    assert face is not None
    assert (face.route, face.severity, face.reason) == (Route.FACE_STILL, "warning", "preprocessed failed: no luck")
    last = next_route(face, someone, "no face")
    assert last is not None
    assert last.route is Route.ORIGINALS
    plain = next_route(still, character(lora()), "no luck")
    assert plain is not None
    assert plain.route is Route.ORIGINALS


# --- several characters ---


def test_each_character_of_a_slot_has_its_own_route() -> None:
    cast = [
        character(lora(1), who=1, pinned=True),
        character(lora(2), who=2),
        character(lora(3, WAN), who=3),
        character(lora(4, status=LoraStatus.TRAINING), who=4),
        character(who=5),
    ]
    routes = choose_routes(cast, model(ELEMENTS))
    assert [route.route for route in routes] == [
        Route.ELEMENTS,
        Route.PREPROCESSED,
        Route.ORIGINALS,
        Route.ORIGINALS,
        Route.ORIGINALS,
    ]
    assert [route.character_id for route in routes] == [1, 2, 3, 4, 5]


def test_loras_go_in_directly_up_to_the_models_limit_and_no_further() -> None:
    three = model(WAN_LORA).model_copy(update={"max_loras": 3})
    cast = [character(lora(n, WAN), who=n) for n in range(1, 6)]
    routes = choose_routes(cast, three)
    assert [route.route for route in routes] == [Route.DIRECT] * 3 + [Route.ORIGINALS] * 2
    assert routes[3].severity == "warning"
    assert "takes 3 LoRAs at once" in routes[3].reason
    assert all(route.route is Route.DIRECT for route in choose_routes(cast, model(WAN_LORA)))


def test_who_finds_no_room_becomes_a_still_where_the_model_shows_pictures() -> None:
    both = VideoModelTakes(key="both", has_elements=False, has_image=True, lora_base=FLUX, max_loras=1)
    routes = choose_routes([character(lora(n), who=n) for n in (1, 2)], both)
    assert [route.route for route in routes] == [Route.DIRECT, Route.PREPROCESSED]
    assert routes[1].lora_id == 2


def test_loras_of_one_base_go_into_one_still_and_other_bases_into_their_own() -> None:
    cast = [
        character(lora(1), who=1),
        character(lora(2, "sdxl"), who=2),
        character(lora(3), who=3),
        character(who=4),
    ]
    routes = [
        CharacterRoute(character_id=n, name="", route=Route.PREPROCESSED, lora_id=n, reason="") for n in (1, 2, 3)
    ]
    routes.append(CharacterRoute(character_id=4, name="", route=Route.ORIGINALS, reason=""))
    groups = [[route.character_id for route in group] for group in group_by_base(routes, cast)]
    assert groups == [[1, 3], [2]]


@settings(deadline=None)
@given(count=st.integers(0, 9), most=st.integers(1, 5))
def test_a_still_never_holds_more_loras_than_its_model_takes(count: int, most: int) -> None:
    cast = [character(lora(n), who=n) for n in range(1, count + 1)]
    routes = choose_routes(cast, model(FIRST_FRAME))
    groups = group_by_base(routes, cast, {FLUX: most})
    assert all(1 <= len(group) <= most for group in groups)
    assert [route for group in groups for route in group] == list(routes)


STATES = [(status, has_file) for status, has_file in product(LoraStatus, (True, False))]
characters = st.builds(
    lambda picks, wanted, pinned: character(
        *(lora(i + 1, base, *state[:1], has_file=state[1]) for i, (base, state) in enumerate(picks)),
        wanted=wanted,
        pinned=pinned,
    ),
    st.lists(st.tuples(st.sampled_from([FLUX, WAN]), st.sampled_from(STATES)), max_size=2, unique_by=lambda p: p[0]),
    st.booleans(),
    st.booleans(),
)


@settings(deadline=None)
@given(
    casts=st.lists(characters, min_size=1, max_size=4),
    key=st.sampled_from([ELEMENTS, FIRST_FRAME, WAN_LORA]),
    fails=st.integers(0, 3),
)
def test_one_that_falls_back_never_takes_anothers_route_away(
    casts: list[CharacterAtRender], key: str, fails: int
) -> None:
    cast = [one.model_copy(update={"character_id": i + 1}) for i, one in enumerate(casts)]
    routes = choose_routes(cast, model(key))
    # Nobody's first route depends on the others while there is no limit …
    assert list(routes) == [choose_route(one, model(key)) for one in cast]
    # … and a step of one changes that one alone.
    who = fails % len(cast)
    after = list(routes)
    after[who] = next_route(routes[who], cast[who], "it failed") or routes[who]
    assert [route for i, route in enumerate(after) if i != who] == [r for i, r in enumerate(routes) if i != who]


@settings(deadline=None)
@given(who=characters, key=st.sampled_from([ELEMENTS, FIRST_FRAME, WAN_LORA]))
def test_every_character_gets_a_route_that_can_be_gone_and_a_reason(who: CharacterAtRender, key: str) -> None:
    takes = model(key)
    route = choose_route(who, takes)
    used = next((one for one in who.loras if one.lora_id == route.lora_id), None)
    assert route.reason
    match route.route:
        case Route.ELEMENTS:
            assert takes.has_elements
            assert who.pinned_frontal is not None
        case Route.DIRECT:
            assert used is not None
            assert used.file is not None
            assert used.status is LoraStatus.READY
            assert used.base_model == takes.lora_base
        case Route.PREPROCESSED:
            assert used is not None
            assert used.file is not None
            assert used.status is LoraStatus.READY
            assert used.still_model is not None
            assert takes.has_pictures
        case Route.ORIGINALS:
            pass
    assert len(fallen(route.route, who, route.lora_id)) <= 3
