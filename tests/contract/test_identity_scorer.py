"""The scorer's contract: alike for one character in unlike shots, unlike for others, silent where it cannot see."""

from __future__ import annotations

import dataclasses
import threading
from functools import cache

import numpy as np
import pytest

from benchmarks.drawn_people import Shot, design, picture, random_shot
from domain.errors import BadInput
from domain.identity import score_against_references
from providers.ports import Appearance, IdentityScorer, RgbImage
from providers.vision import AppearanceScorer

CAST = tuple(range(7000, 7006))
"""Designs that no constant was chosen on."""

PLAIN = Shot(
    size=(480, 480),
    framing="full",
    view="front",
    scene="city",
    scene_seed=5,
    place=0.5,
    height=0.85,
    arms=(0.2, 0.2),
    stride=0.1,
    gain=1.0,
    tint=(1.0, 1.0, 1.0),
    shade=1.0,
    is_open=False,
    blur=0.0,
    quality=95,
)


@cache
def scorer() -> IdentityScorer:
    return AppearanceScorer()


@cache
def shots_of(number: int) -> tuple[Appearance, ...]:
    looks = []
    for shot in range(8):
        bystander = design(number + 90) if shot % 3 == 2 else None
        looks.append(
            scorer().describe(picture(design(number), random_shot(number * 50 + shot, size=(640, 360)), bystander))
        )
    return tuple(look for look in looks if look.vector is not None)


def likeness(one: RgbImage, other: RgbImage) -> float:
    return scorer().similarity(scorer().describe(one), scorer().describe(other))


def plain(number: int, **changes: object) -> RgbImage:
    return picture(design(number), dataclasses.replace(PLAIN, **changes))  # type: ignore[arg-type]


@cache
def plain_looks() -> tuple[Appearance, ...]:
    return tuple(scorer().describe(plain(number)) for number in CAST)


def own_and_others(looks: list[Appearance]) -> tuple[list[float], list[float]]:
    """Likeness of each look to its own character's plain picture, and to those of the rest of the cast."""
    own: list[float] = []
    others: list[float] = []
    for position, look in enumerate(looks):
        for known, plain_look in enumerate(plain_looks()):
            (own if known == position else others).append(scorer().similarity(look, plain_look))
    return own, others


def test_it_names_its_metric_with_a_version() -> None:
    assert scorer().metric == "appearance-v1"


def test_a_description_is_a_unit_vector_and_the_same_every_time() -> None:
    first, again = scorer().describe(plain(7000)), AppearanceScorer().describe(plain(7000))
    assert first.vector is not None
    assert again.vector is not None
    assert first.vector.dtype == np.float32
    assert np.linalg.norm(first.vector) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(first.vector, again.vector)


def test_a_picture_is_fully_like_itself_and_likeness_is_symmetric() -> None:
    one, other = scorer().describe(plain(7000)), scorer().describe(plain(7001))
    assert scorer().similarity(one, one) == pytest.approx(1, abs=1e-5)
    assert scorer().similarity(one, other) == pytest.approx(scorer().similarity(other, one), abs=1e-6)


def test_mirroring_changes_next_to_nothing() -> None:
    image = plain(7002, arms=(1.1, 0.0), place=0.45)
    assert likeness(image, np.ascontiguousarray(image[:, ::-1])) > 0.97


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 0.55, "place": 0.6},
        {"scene": "plain", "scene_seed": 99},
        {"gain": 0.65},
        {"tint": (1.08, 1.0, 0.92)},
        {"arms": (1.2, 1.9), "stride": 0.45},
        {"is_open": True, "shade": 0.92},
        {"view": "right"},
        {"size": (854, 480)},
    ],
    ids=["size", "background", "light", "tint", "pose", "outfit", "turn", "format"],
)
def test_one_character_stays_herself_under_change(changes: dict[str, object]) -> None:
    changed = [scorer().describe(plain(number, **changes)) for number in CAST]
    kept, others = own_and_others(changed)
    assert np.median(kept) > max(0.5, float(np.quantile(others, 0.9)))


def test_a_full_figure_and_a_bust_of_one_character_are_more_alike_than_busts_of_others() -> None:
    own, others = own_and_others([scorer().describe(plain(number, framing="bust")) for number in CAST])
    assert np.median(own) > np.quantile(others, 0.9)


def test_unseen_characters_are_told_apart_by_their_references() -> None:
    genuine: list[float] = []
    impostor: list[float] = []
    for number in CAST:
        references = shots_of(number)[:5]
        for other in CAST:
            for look in shots_of(other)[5:]:
                score = score_against_references([scorer().similarity(look, known) for known in references])
                (genuine if other == number else impostor).append(score)
    wins = np.mean([[mine > theirs for theirs in impostor] for mine in genuine])
    assert wins > 0.93
    assert np.mean(genuine) - np.mean(impostor) > 0.4


def test_a_bystander_at_the_side_is_not_the_subject() -> None:
    alone = scorer().describe(plain(7003))
    accompanied = scorer().describe(picture(design(7003), PLAIN, design(7004)))
    bystander = scorer().describe(plain(7004))
    assert scorer().similarity(alone, accompanied) > scorer().similarity(accompanied, bystander) + 0.2


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.full((512, 512, 3), 128, np.uint8), "blank"),
        (np.zeros((512, 512, 3), np.uint8), "too dark"),
        (np.full((40, 300, 3), 90, np.uint8), "only 300×40 px"),
    ],
)
def test_it_abstains_with_a_reason_where_there_is_nothing_to_see(image: RgbImage, why: str) -> None:
    look = scorer().describe(image)
    assert look.vector is None
    assert why in str(look.abstained_because)


def test_it_abstains_on_a_dark_and_on_a_blurred_picture_and_judges_them_before() -> None:
    assert scorer().describe(plain(7000, gain=0.5)).vector is not None
    assert "too dark" in str(scorer().describe(plain(7000, gain=0.06)).abstained_because)
    assert scorer().describe(plain(7000, blur=1.2)).vector is not None
    assert "too blurred" in str(scorer().describe(plain(7000, blur=16.0)).abstained_because)


def test_it_abstains_on_a_tiny_subject_and_judges_a_larger_one() -> None:
    far = scorer().describe(plain(7005, scene="plain", height=0.1))
    assert far.vector is None
    assert "fills only" in str(far.abstained_because)
    assert scorer().describe(plain(7005, scene="plain", height=0.4)).vector is not None


def test_a_picture_where_nothing_stands_out_is_looked_at_in_the_middle() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::16] = 200
    stripes[:, 1::16] = 200
    stripes[:, 2::16] = 200
    assert scorer().describe(stripes).vector is not None


def test_an_abstention_cannot_be_compared() -> None:
    with pytest.raises(BadInput, match="blank"):
        likeness(plain(7000), np.full((256, 256, 3), 200, np.uint8))


def test_a_vector_of_another_metric_cannot_be_compared() -> None:
    with pytest.raises(BadInput, match="none of appearance-v1"):
        scorer().similarity(scorer().describe(plain(7000)), Appearance(vector=np.ones(512, np.float32)))


def test_an_array_that_is_no_picture_is_refused() -> None:
    with pytest.raises(BadInput, match="give 8-bit RGB"):
        scorer().describe(np.zeros((64, 64), np.uint8))


@pytest.mark.parametrize("size", [(64, 64), (65, 2000), (2000, 64), (101, 333)])
def test_noise_of_any_size_is_described_or_abstained_from_without_a_crash(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    look = scorer().describe(noise)
    assert (look.vector is None) == (look.abstained_because is not None)


def test_two_threads_share_one_scorer() -> None:
    image = plain(7001)
    found: list[Appearance] = []
    threads = [threading.Thread(target=lambda: found.append(scorer().describe(image))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [scorer().similarity(found[0], look) for look in found] == pytest.approx([1.0] * 3)
