"""Who is who in a character's pictures: groups, verdicts, doubts, and the part of a picture that shows one alone."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.likeness_groups import group_by_likeness
from domain.people_seen import PictureSeen, SubjectSeen
from domain.pictures import Box
from domain.right_person import (
    Verdict,
    WhoIsWho,
    who_is_who,
)
from domain.rooms import near_room, room_for

LEFT = Box(left=100, top=100, right=320, bottom=700)
RIGHT = Box(left=900, top=100, right=1120, bottom=700)
BESIDE_LEFT = Box(left=325, top=100, right=545, bottom=700)


def picture(
    source: str, *boxes: Box, unsure: Sequence[int] = (), unjudged: Sequence[int] = (), confirmed: bool = False
) -> PictureSeen:
    subjects = tuple(
        SubjectSeen(box=box, is_judged=k not in unjudged, is_sure=k not in unsure) for k, box in enumerate(boxes)
    )
    return PictureSeen(source=source, width=1280, height=720, subjects=subjects, is_confirmed=confirmed)


def judged(pictures: Sequence[PictureSeen], names: Sequence[str], likeness: dict[str, float] | None = None) -> WhoIsWho:
    """`names` has a letter for each subject of each picture; equal letters are 0.8 alike, others 0.0 or as given."""
    special = likeness or {}

    def similarity(one: tuple[int, int], other: tuple[int, int]) -> float:
        pair = "".join(sorted(names[one[0]][one[1]] + names[other[0]][other[1]]))
        return special.get(pair, 0.8 if pair[0] == pair[1] else 0.0)

    return who_is_who(pictures, similarity)


def verdicts(found: WhoIsWho) -> list[str]:
    return [sighting.verdict.value for sighting in found.sightings]


def test_one_character_alone_loses_no_picture() -> None:
    found = judged([picture(f"clip {k // 4}", LEFT) for k in range(12)], ["a"] * 12)
    assert verdicts(found) == ["right"] * 12
    assert found.people == 1
    assert found.sightings[0].room == Box(left=0, top=0, right=1280, bottom=720)


def test_a_stranger_among_the_pictures_is_thrown_out() -> None:
    found = judged([picture(f"clip {k // 4}", LEFT) for k in range(12)], ["a"] * 10 + ["b", "c"])
    assert verdicts(found) == ["right"] * 10 + ["stranger"] * 2


def test_the_character_is_who_is_in_most_clips_not_in_most_pictures() -> None:
    pictures = [picture(f"clip {k}", LEFT) for k in range(4)] + [picture("clip 9", LEFT) for _ in range(7)]
    assert verdicts(judged(pictures, ["a"] * 4 + ["b"] * 7)) == ["right"] * 4 + ["stranger"] * 7


def test_two_people_who_are_equally_often_there_are_left_to_a_person() -> None:
    pictures = [picture(f"clip {k // 3}", LEFT) for k in range(12)]
    found = judged(pictures, ["a"] * 6 + ["b"] * 6)
    assert set(verdicts(found)) == {"doubtful"}
    assert "confirm one with keep" in found.doubt
    assert found.sightings[0].reason == found.doubt


def test_one_confirmed_picture_settles_who_is_meant() -> None:
    pictures = [picture(f"clip {k // 3}", LEFT, confirmed=k == 7) for k in range(12)]
    found = judged(pictures, ["a"] * 6 + ["b"] * 6)
    assert found.doubt == ""
    assert verdicts(found) == ["stranger"] * 6 + ["right"] * 6


def test_a_confirmed_picture_in_another_manner_still_finds_its_person() -> None:
    pictures = [picture(f"clip {k // 3}", LEFT) for k in range(12)] + [picture("sketch", LEFT, confirmed=True)]
    names = ["a"] * 6 + ["b"] * 6 + ["s"]
    found = judged(pictures, names, {"bs": 0.34, "as": 0.1})
    assert verdicts(found)[:12] == ["stranger"] * 6 + ["right"] * 6


def test_a_picture_where_the_scorer_abstains_shows_nobody() -> None:
    pictures = [picture(f"clip {k}", LEFT, unjudged=[0] if k == 3 else []) for k in range(5)]
    found = judged([*pictures, picture("empty")], ["a"] * 5 + [""])
    assert verdicts(found) == ["right"] * 3 + ["nobody", "right", "nobody"]
    assert found.sightings[3].reason == "nobody is clearly seen"
    assert found.sightings[5].reason == "nobody stands out"


def test_who_stands_apart_is_cropped_to_and_who_stands_close_is_dropped() -> None:
    alone = [picture(f"clip {k}", LEFT) for k in range(5)]
    apart, close = picture("clip 5", LEFT, RIGHT), picture("clip 5", LEFT, BESIDE_LEFT)
    found = judged([*alone, apart, close], ["a"] * 5 + ["ab", "ab"])
    assert verdicts(found)[5:] == ["right", "crowded"]
    room = found.sightings[5].room
    assert room is not None
    assert room.right < RIGHT.left
    assert room.left <= LEFT.left
    assert found.sightings[6].room is None


def test_a_lamp_beside_the_character_is_nobody_but_somebody_of_this_clip_in_the_shade_is() -> None:
    alone = [picture(f"clip {k}", LEFT) for k in range(5)] + [picture(f"clip {k}", RIGHT) for k in range(3)]
    beside = picture("clip 7", LEFT, BESIDE_LEFT, unsure=[1])
    names = ["a"] * 5 + ["b"] * 3
    assert verdicts(judged([*alone, beside], [*names, "al"]))[-1] == "right"
    assert verdicts(judged([*alone, beside], [*names, "ab"]))[-1] == "right"
    before = picture("clip 7", RIGHT)
    assert verdicts(judged([*alone, before, beside], [*names, "b", "ab"]))[-1] == "crowded"


def test_a_find_that_may_be_a_thing_is_never_preferred_to_a_sure_one() -> None:
    alone = [picture(f"clip {k}", LEFT) for k in range(5)]
    wall_and_shoulder = Box(left=280, top=80, right=560, bottom=700)
    both = picture("clip 6", wall_and_shoulder, LEFT, unsure=[0])
    sightings = judged([*alone, both], ["a"] * 5 + ["ca"], {"ac": 0.9}).sightings
    assert (sightings[-1].subject, sightings[-1].verdict) == (1, Verdict.RIGHT)


def test_two_people_seen_as_one_are_doubtful() -> None:
    pictures = [picture(f"clip {k // 2}", LEFT) for k in range(8)] + [picture("clip 9", LEFT) for k in range(5)]
    names = ["a"] * 8 + ["b"] * 3 + ["m", "a"]
    found = judged(pictures, names, {"am": 0.6, "bm": 0.4})
    assert verdicts(found)[-2:] == ["doubtful", "right"]
    assert "partly like somebody else" in found.sightings[-2].reason


def test_somebody_a_little_like_the_character_is_doubtful_and_the_likeness_is_told() -> None:
    pictures = [picture(f"clip {k}", LEFT) for k in range(6)]
    found = judged(pictures, ["a"] * 5 + ["d"], {"ad": 0.33})
    assert found.sightings[-1].verdict is Verdict.DOUBTFUL
    assert found.sightings[-1].reason == "only a little like the character (0.33)"


def test_in_a_clip_with_others_only_the_near_surroundings_are_kept() -> None:
    alone = [picture(f"clip {k}", LEFT) for k in range(5)]
    shared = [picture("clip 9", RIGHT), picture("clip 9", RIGHT), picture("clip 9", RIGHT), picture("clip 9", LEFT)]
    found = judged([*alone, *shared], ["a"] * 5 + ["b"] * 3 + ["a"])
    room = found.sightings[-1].room
    assert room is not None
    assert room.right < 600
    assert min(room.width, room.height) >= 320


def test_a_room_under_the_smallest_side_is_none() -> None:
    wall = Box(left=420, top=100, right=700, bottom=700)
    assert room_for(LEFT, [wall], 1280, 720, 330) is None
    assert room_for(LEFT, [wall], 1280, 720, 320) is not None


def test_two_alike_people_who_stand_side_by_side_are_two() -> None:
    pictures = [picture(f"clip {k // 3}", LEFT) for k in range(9)] + [picture("clip 8", LEFT, RIGHT) for _ in range(4)]
    names = ["a"] * 9 + ["ab"] * 4
    found = judged(pictures, names, {"ab": 0.5})
    assert found.people == 2
    assert verdicts(found) == ["right"] * 13
    assert all(sighting.room is not None and sighting.room.right < 900 for sighting in found.sightings[9:])
    assert judged(pictures[:9], names[:9], {"ab": 0.5}).people == 1


def test_of_several_in_a_confirmed_picture_the_one_seen_most_is_meant() -> None:
    pictures = [picture(f"clip {k // 3}", LEFT) for k in range(6)] + [picture("still", RIGHT, LEFT, confirmed=True)]
    assert verdicts(judged(pictures, ["a"] * 6 + ["xa"]))[:6] == ["right"] * 6


def test_groups_follow_the_mean_likeness() -> None:
    alike = [[0.0, 0.9, 0.2], [0.9, 0.0, 0.5], [0.2, 0.5, 0.0]]
    assert group_by_likeness(alike, 0.36) == [[0, 1], [2]]
    assert group_by_likeness(alike, 0.34) == [[0, 1, 2]]


@settings(max_examples=20)
@given(st.lists(st.sampled_from("abc"), max_size=24))
def test_every_picture_has_one_sighting_and_equal_input_gives_equal_verdicts(names: list[str]) -> None:
    pictures = [picture(f"clip {k % 3}", LEFT) for k in range(len(names))]
    found = judged(pictures, names)
    assert [sighting.picture for sighting in found.sightings] == list(range(len(names)))
    assert found == judged(pictures, names)


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 280), st.integers(0, 500), st.integers(1, 220))
def test_surroundings_hold_the_subject_and_stay_in_the_room(left: int, width: int, top: int, height: int) -> None:
    subject = Box(left=left, top=top, right=left + width, bottom=top + height)
    room = Box(left=0, top=0, right=1280, bottom=720)
    near = near_room(subject, room, 320)
    assert near.left <= subject.left
    assert near.top <= subject.top
    assert near.right >= subject.right
    assert near.bottom >= subject.bottom
    assert room.left <= near.left < near.right <= room.right
    assert room.top <= near.top < near.bottom <= room.bottom


def test_who_passes_behind_the_character_is_known_by_where_they_are_before_and_after() -> None:
    alone = [picture(f"clip {k}", LEFT) for k in range(5)]
    walking = [Box(left=left, top=100, right=left + 200, bottom=700) for left in (700, 110, -300)]
    crossing = [
        picture("clip 9", LEFT, walking[0]).model_copy(update={"at_seconds": 1.0}),
        picture("clip 9", LEFT).model_copy(update={"at_seconds": 1.5}),
        picture("clip 9", LEFT, walking[2]).model_copy(update={"at_seconds": 2.0}),
    ]
    others = [picture(f"clip {k}", RIGHT) for k in range(6, 9)]
    found = judged([*alone, *others, *crossing], ["a"] * 5 + ["b"] * 3 + ["ab", "a", "ab"])
    assert found.sightings[-2].verdict is Verdict.CROWDED
    assert found.sightings[-2].reason.startswith("somebody else is there just before and just after")
    cut_between = [
        crossing[0].model_copy(update={"subjects": crossing[0].subjects[1:]}),
        crossing[1],
        crossing[2].model_copy(update={"subjects": crossing[2].subjects[1:]}),
    ]
    found = judged([*alone, *others, *cut_between], ["a"] * 5 + ["b"] * 3 + ["b", "a", "b"])
    assert found.sightings[-2].verdict is Verdict.RIGHT
    later = [one.model_copy(update={"at_seconds": 9.0 * k}) for k, one in enumerate(crossing)]
    found = judged([*alone, *others, *later], ["a"] * 5 + ["b"] * 3 + ["ab", "a", "ab"])
    assert found.sightings[-2].verdict is Verdict.RIGHT


def test_where_the_confirmed_pictures_show_nobody_two_people_are_not_guessed_between() -> None:
    often = [picture(f"clip {k}", LEFT) for k in range(6)]
    seldom = [picture(f"clip {k}", RIGHT) for k in range(3)]
    blank = picture("still", confirmed=True)
    found = judged([*often, *seldom, blank], ["a"] * 6 + ["b"] * 3 + [""])
    assert found.doubt.startswith("Nobody is clearly seen in the pictures that say who is meant")
    assert set(verdicts(found)[:9]) == {"doubtful"}
    assert verdicts(judged([*often, blank], ["a"] * 6 + [""]))[:6] == ["right"] * 6
