"""Two characters who cross paths, one pair of them that no threshold was chosen on; benchmarks/crossing.py has more."""

from __future__ import annotations

from benchmarks.crossing import is_clear, judge, outcome_of
from benchmarks.crossing_film import pictures_of, season_of
from domain.characters import CharacterKind
from domain.right_person import Verdict
from providers.subjects import ColourSubjectFinder
from providers.vision import AppearanceScorer
from studio.demo.cast import CAST

RIGHT, WRONG = CAST["mei"], CAST["tova"]


def test_no_kept_picture_shows_the_wrong_one_and_most_of_the_right_ones_are_kept() -> None:
    pictures = [picture for clip in season_of(RIGHT, WRONG, 100) for picture in pictures_of(clip, 1.0)]
    finder = ColourSubjectFinder(AppearanceScorer())
    people = [finder.subjects(picture.image, CharacterKind.ILLUSTRATED) for picture in pictures]
    found = judge(pictures, people, is_confirmed=True)
    outcomes = [
        outcome_of(picture, sighting, RIGHT.name) for picture, sighting in zip(pictures, found.sightings, strict=True)
    ]
    clear = sum(is_clear(picture, RIGHT.name) for picture in pictures)
    assert sum(sighting.verdict is Verdict.RIGHT for sighting in found.sightings) >= 12
    assert outcomes.count("wrong") == 0
    assert outcomes.count("lost") <= 0.15 * clear
