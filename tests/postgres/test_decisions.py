"""What a person said of a picture: kept by its place, one last word each, and each character by itself."""

from __future__ import annotations

import psycopg
import pytest

from domain.picture_keys import key_of_frame, key_of_still
from domain.pictures import Decision
from tests.ports_for_tests import PortsForTests, store_season

FRAME = key_of_frame(7, 3.5)
STILL = key_of_still("ab" * 32)


@pytest.fixture
def mei(ports: PortsForTests) -> int:
    return ports.cast.of_season(store_season(ports, "harbor"))[0].id


def test_a_picture_is_filed_under_its_place_to_the_millisecond() -> None:
    assert FRAME == "clip:7@3.500"
    assert key_of_frame(7, 3.50049) == FRAME
    assert key_of_frame(7, 3.501) != FRAME
    assert key_of_still("ab" * 32) == "still:" + "ab" * 32


def test_the_last_word_on_a_picture_counts(ports: PortsForTests, mei: int) -> None:
    assert ports.decisions.decisions(mei) == {}
    for decision in (Decision.KEEP, Decision.KEEP, Decision.DROP):
        ports.decisions.decide(mei, FRAME, decision, "ana")
    ports.decisions.decide(mei, STILL, Decision.KEEP, "ana")
    assert ports.decisions.decisions(mei) == {FRAME: Decision.DROP, STILL: Decision.KEEP}


def test_a_picture_can_be_left_to_the_rules_again(ports: PortsForTests, mei: int) -> None:
    ports.decisions.decide(mei, FRAME, Decision.KEEP, "ana")
    for _ in range(2):
        ports.decisions.undecide(mei, FRAME)
    assert ports.decisions.decisions(mei) == {}


def test_a_word_about_one_character_says_nothing_of_another(ports: PortsForTests, mei: int) -> None:
    other = ports.cast.of_season(store_season(ports, "pier"))[0].id
    ports.decisions.decide(mei, FRAME, Decision.DROP, "ana")
    assert ports.decisions.decisions(other) == {}


def test_a_word_about_nobody_is_refused_by_the_table(ports: PortsForTests) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        ports.decisions.decide(10_000, FRAME, Decision.KEEP, "ana")
