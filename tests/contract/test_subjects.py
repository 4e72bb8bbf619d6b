"""The subject finder's contract: everybody of a picture by themselves, nothing said that was not seen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

from benchmarks.crossing_film import Planted, PlantedClip, Take, pictures_of
from domain.characters import CharacterKind
from domain.errors import BadInput
from domain.pictures import Box, Framing, Light, View
from providers.faces import FaceFinder
from providers.picture_words import surroundings_of
from providers.ports import RgbImage, Subject, SubjectFinder
from providers.subjects import ColourSubjectFinder, framing_of
from providers.vision import AppearanceScorer
from studio.demo.cast import CAST, draw_character

MEI, RUI = CAST["mei"], CAST["rui"]


@cache
def finder() -> SubjectFinder:
    return ColourSubjectFinder(AppearanceScorer())


@cache
def together() -> Planted:
    takes = (Take(RUI, (1050, 1050), yaw=30, is_walking=False), Take(MEI, (260, 260), yaw=30, is_walking=False))
    return next(pictures_of(PlantedClip("both", "rooftop", 0.2, takes), 0.2))


@cache
def portrait() -> RgbImage:
    return np.asarray(draw_character("dario", framing="bust", size=720))


def seen(image: RgbImage, kind: CharacterKind = CharacterKind.ILLUSTRATED) -> tuple[Subject, ...]:
    return finder().subjects(image, kind)


@cache
def people_together() -> tuple[Subject, ...]:
    return seen(together().image)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    common = max(0, width) * max(0, height)
    return common / (one.area + other.area - common)


def test_two_people_apart_are_found_each_by_themselves() -> None:
    people = [subject for subject in people_together() if subject.is_sure]
    assert len(people) == 2
    for truth in together().seen:
        assert max(overlap(truth.box, subject.box) for subject in people) > 0.5


def test_each_is_described_as_themselves() -> None:
    scorer = AppearanceScorer()
    for truth in together().seen:
        subject = max(people_together(), key=lambda subject: overlap(truth.box, subject.box))
        likeness = {
            name: scorer.similarity(subject.appearance, scorer.describe(np.asarray(draw_character(name))))
            for name in (MEI.name, RUI.name)
        }
        assert max(likeness, key=lambda name: likeness[name]) == truth.name


def test_an_empty_place_has_nobody_for_sure() -> None:
    empty = next(pictures_of(PlantedClip("empty", "rooftop", 0.2, ()), 0.2))
    assert not [subject for subject in seen(empty.image) if subject.is_sure]
    assert seen(np.full((360, 640, 3), 120, np.uint8)) == ()


def test_a_face_that_looks_at_us_is_found_and_says_the_view() -> None:
    (subject, *others) = seen(portrait(), CharacterKind.PERSON)
    assert not others
    assert subject.face is not None
    assert subject.view is View.FRONTAL
    assert subject.framing is Framing.BUST


def test_no_face_is_sought_on_a_thing_and_no_view_is_claimed() -> None:
    subjects = seen(portrait(), CharacterKind.OTHER)
    assert subjects
    assert all(subject.face is None and subject.view is View.UNKNOWN for subject in subjects)


def test_equal_pictures_give_equal_subjects() -> None:
    again = seen(together().image.copy())
    assert [subject.box for subject in again] == [subject.box for subject in people_together()]


def test_a_picture_too_small_has_nobody_and_a_wrong_array_is_refused() -> None:
    assert seen(np.zeros((40, 40, 3), np.uint8)) == ()
    with pytest.raises(BadInput, match="8-bit RGB"):
        seen(np.zeros((200, 200), np.uint8))


@pytest.mark.parametrize(
    ("box", "face_height", "breadth", "framing"),
    [
        (Box(left=400, top=100, right=650, bottom=690), None, 0.3, Framing.FULL),
        (Box(left=300, top=300, right=650, bottom=500), None, 0.3, Framing.UNKNOWN),
        (Box(left=300, top=100, right=700, bottom=720), None, 0.2, Framing.UNKNOWN),
        (Box(left=300, top=100, right=700, bottom=720), None, 0.4, Framing.BUST),
        (Box(left=200, top=60, right=1000, bottom=720), None, 0.6, Framing.CLOSE_UP),
        (Box(left=200, top=60, right=1000, bottom=720), 300, 0.4, Framing.CLOSE_UP),
        (Box(left=300, top=100, right=700, bottom=720), 150, 0.6, Framing.BUST),
        (Box(left=400, top=100, right=650, bottom=690), 80, 0.4, Framing.FULL),
        (Box(left=400, top=100, right=650, bottom=720), 80, 0.4, Framing.UNKNOWN),
    ],
)
def test_framing_is_told_by_the_head_or_the_shape(
    box: Box, face_height: int | None, breadth: float, framing: Framing
) -> None:
    face = None if face_height is None else Box(left=500, top=120, right=600, bottom=120 + face_height)
    assert framing_of(box, face, 720, breadth) is framing


@pytest.mark.parametrize(
    ("level", "light"),
    [(63, Light.NIGHT), (64, Light.DIM), (107, Light.DIM), (108, Light.SOFT), (165, Light.SOFT), (166, Light.BRIGHT)],
)
def test_light_changes_at_its_thresholds(level: int, light: Light) -> None:
    assert surroundings_of(np.full((40, 60, 3), level, np.uint8)).light is light


def test_several_threads_may_look_for_faces_at_once() -> None:
    # Of several sizes: two at once in one detector then crash the process.
    images = [
        np.asarray(draw_character("mei", "three_quarter", "calm", size, framing="bust")) for size in (280, 420, 560)
    ]
    finder = FaceFinder()
    alone = [finder.faces(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(finder.faces, images * 4)) == alone * 4
