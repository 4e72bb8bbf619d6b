"""Which pictures make the set: twins dropped, variety taken, some held out, whatever order the pictures come in."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from domain.errors import BadInput
from domain.pictures import Framing, Light, Origin, View
from domain.training_sets import held_out_count
from providers.picture_layout import LayoutDescriber
from studio.demo import poses
from studio.demo.cast import draw_character
from tasks.choosing import (
    Choosable,
    Selection,
    choose,
    hold_out,
    layout_likeness,
    outfits,
    without_twins,
)

FRAMINGS = (Framing.CLOSE_UP, Framing.BUST, Framing.FULL)
describer = LayoutDescriber()


def layout_of(seed: int, near: int | None = None, away: float = 0.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A made-up layout; with `near`, that one with a little of its own mixed in."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(1, 64, 11)).astype(np.float32)
    if near is not None:
        values = layout_of(near) + away * values / np.linalg.norm(values)
    return (values / np.linalg.norm(values)).astype(np.float32)


def made_up(number: int, **known: Any) -> Choosable:
    facts = {"name": f"f{number}", "source": "a.mp4", "at_seconds": number * 0.7, "sharpness": 100.0}
    facts |= {"hash64": random.Random(number).getrandbits(64), "layout": layout_of(number)}
    return Choosable.model_validate(facts | known)


def seen(name: str, picture: Image.Image, **known: Any) -> Choosable:
    """A picture as the real describer sees it; the hash says nothing."""
    facts = {"name": name, "source": "a.mp4", "sharpness": 1.0, "hash64": sum(map(ord, name)) ** 7 % 2**64}
    return Choosable.model_validate(facts | {"layout": describer.describe(np.asarray(picture))} | known)


def scene(background: str = "#4060a0", framing: str = "bust", pose: int = 0) -> Image.Image:
    person = draw_character(
        "mei", size=180, framing=framing, pose=(poses.stand, poses.cheer)[pose](0.0), background=None
    )
    canvas = Image.new("RGB", (320, 180), background)
    canvas.paste("#d0c090", (200, 40, 300, 180))
    canvas.paste(person, (60, 0), person)
    return canvas


def names(pictures: Sequence[Choosable]) -> list[str]:
    return [picture.name for picture in pictures]


def reasons(selection: Selection) -> dict[str, str]:
    return {left.name: left.reason for left in selection.not_taken}


# --- the description of a picture ---


def test_a_layout_has_unit_length_and_is_the_same_again() -> None:
    first = describer.describe(np.asarray(scene()))
    assert first.shape == (10, 64, 11)
    assert np.allclose((first**2).sum(axis=(1, 2)), 1, atol=1e-5)
    assert np.array_equal(first, describer.describe(np.asarray(scene())))


def test_a_blank_picture_has_a_layout_without_complaint() -> None:
    assert np.isfinite(describer.describe(np.zeros((90, 160, 3), np.uint8))).all()


@pytest.mark.parametrize("shape", [(90, 160), (90, 160, 4), (0, 160, 3)])
def test_what_is_no_picture_has_no_layout(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="has no layout: give 8-bit RGB"):
        describer.describe(np.zeros(shape, np.uint8))


# --- twins ---


def edited(picture: Image.Image, edit: str) -> Image.Image:
    match edit:
        case "darker":
            return ImageEnhance.Brightness(picture).enhance(0.7)
        case "smaller":
            return picture.resize((160, 90))
        case _:
            return picture.crop((0, 18, 288, 180))


@pytest.mark.parametrize("edit", ["darker", "smaller", "cropped"])
def test_the_same_picture_is_found_again_though_its_hash_differs(edit: str) -> None:
    pair = [seen("a", scene(), sharpness=2.0), seen("b", edited(scene(), edit))]
    assert reasons(without_twins(pair)) == {"b": "nearly the same picture as a"}


@pytest.mark.parametrize("other", [scene(framing="full"), scene("#207030", framing="close_up"), scene(pose=1)])
def test_another_framing_place_or_pose_is_no_twin(other: Image.Image) -> None:
    assert not without_twins([seen("a", scene()), seen("b", other)]).not_taken


def one_cell_apart(change: float, **known: Any) -> list[Choosable]:
    """Two pictures that differ in one of 64 cells, by that much."""
    other = layout_of(1)
    other[0, 10] += (change / 64 / 11) ** 0.5
    return [made_up(1, sharpness=9.0), made_up(2, layout=other, **known)]


def test_a_change_in_one_part_of_the_picture_is_enough_to_keep_both() -> None:
    assert without_twins(one_cell_apart(0.45)).not_taken
    assert not without_twins(one_cell_apart(0.55)).not_taken


def test_an_agreeing_hash_makes_a_twin_of_what_is_nearly_one() -> None:
    hash64 = made_up(1).hash64 ^ 0b11111111
    assert without_twins(one_cell_apart(0.55, hash64=hash64)).not_taken
    assert not without_twins(one_cell_apart(0.55, hash64=hash64 ^ 1 << 60)).not_taken
    assert not without_twins(one_cell_apart(0.65, hash64=hash64)).not_taken


def test_an_agreeing_hash_alone_makes_no_twin() -> None:
    assert not without_twins([made_up(1), made_up(2, hash64=made_up(1).hash64)]).not_taken


def test_views_known_to_differ_need_more_to_be_twins() -> None:
    def pair(change: float, first: View, second: View) -> Selection:
        one, other = one_cell_apart(change)
        return without_twins([one.model_copy(update={"view": first}), other.model_copy(update={"view": second})])

    assert not pair(0.30, View.FRONTAL, View.PROFILE).not_taken
    assert pair(0.20, View.FRONTAL, View.PROFILE).not_taken
    assert pair(0.30, View.FRONTAL, View.FRONTAL).not_taken
    assert pair(0.30, View.FRONTAL, View.UNKNOWN).not_taken


def test_the_sharpest_of_a_group_is_kept_and_a_still_before_any_frame() -> None:
    group = [made_up(n, layout=layout_of(n, near=1, away=0.02), sharpness=float(n)) for n in (2, 3, 4)]
    assert names(without_twins(group).taken) == ["f4"]
    still = group[0].model_copy(update={"origin": Origin.STILL})
    assert names(without_twins([still, *group[1:]]).taken) == ["f2"]


def test_what_a_person_confirmed_is_kept_and_drops_its_sharper_twin() -> None:
    group = [made_up(n, layout=layout_of(n, near=1, away=0.02), sharpness=float(n)) for n in (2, 3, 4)]
    kept = [picture.model_copy(update={"is_confirmed": picture.name != "f4"}) for picture in group]
    assert sorted(names(without_twins(kept).taken)) == ["f2", "f3"]


# --- choosing ---


def skewed(count: int, seed: int = 0) -> list[Choosable]:
    """Mostly full and frontal, in one light, half of it from one clip."""
    draw = random.Random(seed)
    return [
        made_up(
            n,
            framing=draw.choices(FRAMINGS, (1, 2, 7))[0],
            view=draw.choices(list(View)[:3], (7, 2, 1))[0],
            light=draw.choices(list(Light), (1, 1, 7, 1))[0],
            source=draw.choices(("a.mp4", "b.mp4", "c.mp4", "d.mp4"), (5, 3, 1, 1))[0],
            outfit=int(draw.random() < 0.2),
            sharpness=draw.uniform(50, 150),
        )
        for n in range(count)
    ]


POOL = skewed(120)


def test_a_skewed_pool_gives_a_balanced_set() -> None:
    chosen = choose(POOL, 24).taken
    assert len(chosen) == 24
    framings = Counter(picture.framing for picture in chosen)
    assert all(6 <= framings[framing] <= 10 for framing in FRAMINGS), framings
    assert Counter(picture.view for picture in chosen)[View.PROFILE] >= 3
    assert len({picture.light for picture in chosen}) >= 3
    assert {picture.outfit for picture in chosen} == {0, 1}
    assert max(Counter(picture.source for picture in chosen).values()) <= 8


def test_everything_that_is_not_taken_has_its_reason() -> None:
    selection = choose(POOL, 24)
    assert {*names(selection.taken), *reasons(selection)} == set(names(POOL))
    said = set(reasons(selection).values())
    assert "the set is full: the 24 chosen show more that is new" in said


def test_a_clip_that_has_its_share_says_so() -> None:
    pool = [made_up(n, source="long.mp4") for n in range(40)]
    pool += [made_up(100 + n, source=f"{n % 3}.mp4") for n in range(12)]
    selection = choose(pool, 24)
    assert len(selection.taken) == 20
    assert (
        reasons(selection)["f0" if "f0" in reasons(selection) else "f1"] == "long.mp4 has its share: 8 of 20 pictures"
    )


def test_the_share_of_a_clip_yields_rather_than_leave_too_few() -> None:
    pool = [made_up(n, source="long.mp4") for n in range(40)] + [made_up(100 + n, source="short.mp4") for n in range(2)]
    assert Counter(picture.source for picture in choose(pool, 24).taken) == {"long.mp4": 17, "short.mp4": 2}


def test_one_clip_alone_gives_the_whole_set() -> None:
    assert len(choose([made_up(n) for n in range(40)], 24).taken) == 24


def test_a_pool_of_one_kind_is_told_apart_by_layout_alone() -> None:
    pool = [made_up(n, layout=layout_of(n, near=1 + n % 4, away=0.4), sharpness=200.0 - n) for n in range(10, 50)]
    first_four = choose(pool, 4).taken
    assert {int(picture.name[1:]) % 4 for picture in first_four} == {0, 1, 2, 3}


def test_between_equals_the_sharper_one_of_a_clip_is_taken() -> None:
    pool = [made_up(n, layout=layout_of(0), sharpness=float(n)) for n in range(5)]
    assert names(choose(pool, 2).taken) == ["f4", "f3"]


def test_generated_pictures_come_last_among_equals() -> None:
    pool = [made_up(n, layout=layout_of(0), origin=Origin.GENERATED, sharpness=300.0) for n in range(3)]
    pool += [made_up(n, layout=layout_of(0)) for n in range(3, 6)]
    assert sorted(names(choose(pool, 3).taken)) == ["f3", "f4", "f5"]


def test_fewer_than_wanted_are_all_taken() -> None:
    assert sorted(names(choose(POOL[:7], 24).taken)) == sorted(names(POOL[:7]))
    assert choose([], 24).taken == ()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), count=st.integers(0, 30))
def test_the_order_of_the_pictures_changes_nothing(seed: int, size: int, count: int) -> None:
    pool = skewed(size, seed)
    mixed = random.Random(seed + 1).sample(pool, size)
    once, again = choose(pool, count), choose(mixed, count)
    assert names(once.taken) == names(again.taken)
    assert once.not_taken == again.not_taken
    parted, parted_again = hold_out(once.taken, 4), hold_out(reversed(again.taken), 4)
    assert names(parted.held_out) == names(parted_again.held_out)
    assert names(without_twins(pool).taken) == names(without_twins(mixed).taken)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), confirmed=st.integers(0, 40), count=st.integers(0, 24))
def test_the_confirmed_are_always_in_and_the_rest_fills_up(seed: int, size: int, confirmed: int, count: int) -> None:
    pool = [p.model_copy(update={"is_confirmed": n < confirmed}) for n, p in enumerate(skewed(size, seed))]
    chosen = choose(pool, count).taken
    wanted = {picture.name for picture in pool if picture.is_confirmed}
    assert wanted <= set(names(chosen))
    assert len(chosen) == len(set(names(chosen))) <= max(count, len(wanted))
    assert len(chosen) >= min(count, size, 15)


def test_more_wanted_never_loses_what_fewer_had_where_no_share_is_reached() -> None:
    pool = [made_up(n, source=f"{n}.png") for n in range(12)]
    sets = [set(names(choose(pool, count).taken)) for count in range(13)]
    assert [len(chosen) for chosen in sets] == list(range(13))


# --- holding out ---


def test_the_held_out_resemble_the_set() -> None:
    chosen = choose(skewed(200, 3), 24).taken
    split = hold_out(chosen, 4)
    assert len(split.held_out) == 4
    assert len(split.trained) == 20
    assert len({picture.framing for picture in split.held_out}) == 3
    assert len({picture.source for picture in split.held_out}) >= 3


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 30))
def test_nothing_is_lost_and_no_kind_loses_its_only_picture(seed: int, size: int) -> None:
    pool = skewed(size, seed)
    split = hold_out(pool, held_out_count(size, 4))
    assert sorted(names([*split.trained, *split.held_out])) == sorted(names(pool))
    assert len(split.held_out) <= held_out_count(size, 4)
    for part in ("framing", "view", "light", "outfit"):
        assert {getattr(p, part) for p in split.trained} == {getattr(p, part) for p in pool}


def test_a_set_in_which_every_picture_is_the_only_one_of_its_kind_holds_none_out() -> None:
    pool = [
        made_up(n, framing=framing, view=view) for n, (framing, view) in enumerate(zip(FRAMINGS, View, strict=False))
    ]
    assert hold_out(pool, 2).held_out == ()


def moment(seconds_apart: float, away: float) -> list[Choosable]:
    """Six pictures in pairs of one moment each."""
    return [
        made_up(
            n,
            at_seconds=n // 2 * 10.0 + n % 2 * seconds_apart,
            layout=layout_of(n, near=100 + n // 2, away=away),
        )
        for n in range(6)
    ]


def test_a_moment_that_is_trained_is_not_held_out() -> None:
    assert hold_out(moment(0.8, 0.3), 2).held_out == ()


@pytest.mark.parametrize(("seconds_apart", "away"), [(1.2, 0.3), (0.8, 1.5)])
def test_another_moment_or_another_look_may_be_held_out(seconds_apart: float, away: float) -> None:
    assert len(hold_out(moment(seconds_apart, away), 2).held_out) == 2


def test_the_same_moment_of_two_clips_is_two_moments() -> None:
    two = [p.model_copy(update={"source": f"{n % 2}.mp4"}) for n, p in enumerate(moment(0.8, 0.3))]
    assert len(hold_out(two, 2).held_out) == 2


def test_confirmed_and_generated_pictures_are_held_out_last() -> None:
    pool = [made_up(n, is_confirmed=n < 3, origin=Origin.GENERATED if n > 4 else Origin.CLIP) for n in range(8)]
    assert names(hold_out(pool, 2).held_out) == ["f3", "f4"]
    assert set(names(hold_out(pool, 5).held_out)) == {"f0", "f1", "f2", "f3", "f4"}
    assert len(hold_out(pool, 7).held_out) == 7


# --- outfits, likeness ---


def test_outfits_are_joined_while_alike_on_average_and_numbered_by_how_common_they_are() -> None:
    colours = np.array([1.0, 5.0, 5.1, 5.2, 1.1, 9.0])
    likeness = (1 - np.abs(colours[:, None] - colours)).astype(np.float32)
    assert outfits(likeness, 0.5) == (1, 0, 0, 0, 1, 2)
    assert outfits(likeness, 0.95) == (0, 1, 2, 3, 4, 5)
    assert outfits(likeness, -9.0) == (0,) * 6
    assert outfits(likeness[:1, :1], 0.5) == (0,)
    assert outfits(likeness[:0, :0], 0.5) == ()


def test_likeness_is_symmetric_and_one_for_itself() -> None:
    likeness = layout_likeness(POOL[:20])
    assert np.array_equal(likeness, likeness.T)
    assert np.allclose(np.diag(likeness), 1, atol=1e-3)
    assert all(likeness[i, j] < 0.9 for i, j in pairwise(range(20)))
