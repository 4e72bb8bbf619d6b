"""What a person said of a picture: kept by its place, one last word each, and each character by itself."""

from __future__ import annotations

import psycopg
import pytest

from domain.errors import BadInput
from domain.picture_keys import key_of_frame, key_of_still
from domain.pictures import Decision
from studio.dataset_names import file_decisions, names_of
from tasks.frames import harvest_clip
from tasks.importing import import_season
from tests.ports_for_tests import PortsForTests, store_season
from tests.postgres.import_material import Write

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


# --- names that a person types ---


@pytest.fixture
def season_id(ports: PortsForTests, write: Write) -> int:
    return import_season(ports, write(slots=[]))


def test_a_frame_is_called_by_its_number_and_a_still_by_its_place(ports: PortsForTests, season_id: int) -> None:
    character = ports.cast.of_season(season_id)[0]
    [clip] = ports.cast.clips(character.id)
    harvest_clip(ports, clip.id)
    names = names_of(ports, character)
    frames = ports.cast.frames(clip.id)
    [still] = ports.cast.stills(character.id, "training")
    assert frames
    assert names.keys == {
        **{frame.name: key_of_frame(clip.id, frame.at_seconds) for frame in frames},
        "s1": key_of_still(still.sha256),
    }
    file_decisions(ports, character, names, keep=[frames[0].name], drop=["s1"], undecide=[])
    file_decisions(ports, character, names, keep=[], drop=[], undecide=["s1"])
    assert names.decided(ports.decisions.decisions(character.id)) == {frames[0].name: Decision.KEEP}


def test_one_wrong_name_among_good_ones_stores_none(ports: PortsForTests, season_id: int) -> None:
    character = ports.cast.of_season(season_id)[0]
    names = names_of(ports, character)
    with pytest.raises(BadInput, match=r"has no picture 'f1'; there are: s1\."):
        file_decisions(ports, character, names, keep=["s1"], drop=["f1"], undecide=[])
    with pytest.raises(BadInput, match="s1 is named twice"):
        file_decisions(ports, character, names, keep=["s1"], drop=["s1"], undecide=[])
    assert ports.decisions.decisions(character.id) == {}
