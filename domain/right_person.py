"""Which of the people in a character's pictures is the character: groups by identity, then a verdict per picture.

Pure: it asks for similarities between -1 and 1, whatever measured them. Its thresholds were chosen with the metric
`appearance-v1` on drawn people (benchmarks/crossing.py, development pairs) and frozen. Nothing is guessed: what the
numbers do not settle is `doubtful`, with the reason, and waits for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import combinations

from domain.people_seen import (
    ENOUGH_PICTURES,
    SAME_PERSON,
    PeopleSeen,
    PictureSeen,
    Place,
    SubjectSeen,
)
from domain.pictures import Box
from domain.records import Record
from domain.rooms import near_room, room_for

RIGHT_FROM = 0.45
STRANGER_UNDER = 0.30
"""Likeness to the character from which somebody is the character, and below which they are surely not."""

UNSURE_FROM = 0.60
"""The same for what may be a thing: a dark doorway has some likeness to a dark coat."""

CLEAR_LEAD = 0.12
"""How much more alike to the character than to anybody else of the clips somebody must be."""

NEARLY_AS_OFTEN = 0.85
"""Share of the most frequent person's clips and pictures from which another is about equally often there."""

ALIKE_AS_OFTEN = 0.4
"""The same share where the two look so much alike that they were first taken for one."""

SOMEBODY_FROM = 0.50
"""Likeness to one of the clips' people from which what may be a thing is that person after all."""

PARTLY_ANOTHER = 0.16
"""How much more like another person than the character's looks usually are a look must be to hold both."""

TWINS_FROM = 0.60
"""Typical likeness to somebody else of the clips from which nothing tells the two apart. Of the development pairs
the highest of people who could be told apart was 0.54."""

HIDDEN_SECONDS = 1.5
"""How long before and after a picture somebody may be seen for it to be said that they are in it, hidden."""

SMALLEST_SIDE = 320
"""Pixels that a cut-out must have on its short side (waifuc; curation_and_identity.md section 1)."""


class Verdict(StrEnum):
    """What a picture shows of the character."""

    RIGHT = "right"
    STRANGER = "stranger"
    DOUBTFUL = "doubtful"
    NOBODY = "nobody"
    CROWDED = "crowded"


class Sighting(Record):
    """The verdict on one picture (its index). Only `right` is kept; `doubtful` is shown to a person.

    `subject` is the index of who is or may be the character, `likeness` how alike (-1…1, None when nothing could be
    compared), `room` the part of the picture without anybody else: the whole picture when nobody else is in it.
    """

    picture: int
    subject: int | None
    verdict: Verdict
    likeness: float | None
    room: Box | None
    reason: str


class WhoIsWho(Record):
    """A sighting for each picture, in order. `doubt` is a sentence when nobody can say who the character is."""

    sightings: tuple[Sighting, ...]
    people: int
    """How many people were told apart, the character among them."""
    doubt: str = ""


Similarity = Callable[[Place, Place], float]


def who_is_who(
    pictures: Sequence[PictureSeen], similarity: Similarity, *, smallest_side: int = SMALLEST_SIDE
) -> WhoIsWho:
    """Decide for each picture whether it shows the character, and in which part of it nobody else does.

    The character is the group of the confirmed pictures' subjects, without any the largest group, by clips, then by
    pictures; when another is about as often there, all is doubtful. `similarity` is asked for judged subjects only,
    once for each pair (n²/2 for n subjects). Pure and deterministic; never raises.
    """
    judged = [
        (number, index)
        for number, picture in enumerate(pictures)
        for index, subject in enumerate(picture.subjects)
        if subject.is_judged
    ]
    alike = [[0.0] * len(judged) for _ in judged]
    for one, other in combinations(range(len(judged)), 2):
        alike[one][other] = alike[other][one] = similarity(judged[one], judged[other])
    case = _Case(PeopleSeen(pictures, judged, alike))
    return WhoIsWho(
        sightings=tuple(case.sighting(number, smallest_side) for number in range(len(pictures))),
        people=len(case.rivals) + bool(case.character),
        doubt=case.doubt,
    )


class _Case:
    """Who of the people seen the character is and who is not, and what follows for each picture."""

    def __init__(self, people: PeopleSeen) -> None:
        self.people = people
        self.character, self.doubt = self._find_character(people.groups)
        own = self.own = frozenset(self.character)
        self.with_character = {people.judged[index][0] for index in own}
        # A group of one clip that is mostly like the character is the character before that clip's place, unless the
        # two stand side by side.
        self.rivals = [
            group
            for group in people.groups
            if not own & set(group)
            and self.people.is_somebody(group)
            and (
                self.people.size(group)[0] > 1
                or self.people.typical(group, self.character) < RIGHT_FROM
                or self.people.pictures_of_two([*group, *self.character]) > 1
            )
        ]
        self.shared_sources = [{self.people.source[index] for index in group} for group in self.rivals]
        self.surely_in = [
            {self.people.source[index] for index in group if self.people.is_sure[index]} for group in self.rivals
        ]
        self.usual = [self.people.typical(self.character, group) for group in self.rivals]
        if not self.doubt and max(self.usual, default=-1.0) >= TWINS_FROM:
            self.doubt = (
                "Two people in these clips look too much alike to be told apart: say keep to those of the right one."
            )

    def sighting(self, number: int, smallest_side: int) -> Sighting:
        """The verdict on one picture."""
        picture = self.people.pictures[number]
        scored = [
            (subject, *self._standing(self.people.index_of[number, subject]))
            for subject in range(len(picture.subjects))
            if (number, subject) in self.people.index_of
        ]
        if not scored:
            reason = "nobody is clearly seen" if picture.subjects else "nobody stands out"
            return _sighting(number, Verdict.NOBODY, reason)
        subject, verdict, likeness = max(
            scored, key=lambda item: (_RANK[item[1]], picture.subjects[item[0]].is_sure, item[2] or -1.0, -item[0])
        )
        if self.doubt:
            return _sighting(number, Verdict.DOUBTFUL, self.doubt, subject, likeness)
        if verdict is Verdict.STRANGER:
            return _sighting(number, verdict, "somebody else", subject, likeness)
        if verdict is Verdict.DOUBTFUL:
            reason = f"only a little like the character ({likeness or 0:.2f})"
            return _sighting(number, verdict, reason, subject, likeness)
        if self._is_partly_another(self.people.index_of[number, subject]):
            reason = "looks partly like somebody else: perhaps two people, one before the other"
            return _sighting(number, Verdict.DOUBTFUL, reason, subject, likeness)
        box = picture.subjects[subject].box
        if self._hides_somebody(number, box):
            reason = "somebody else is there just before and just after, and must be before or behind the character"
            return _sighting(number, Verdict.CROWDED, reason, subject, likeness)
        others = [
            other.box
            for index, other in enumerate(picture.subjects)
            if index != subject and self._is_other((number, index), other, box)
        ]
        room = room_for(box, others, picture.width, picture.height, smallest_side)
        if room is None:
            reason = "somebody else stands too close to be cropped away"
            return _sighting(number, Verdict.CROWDED, reason, subject, likeness)
        if any(picture.source in sources for sources in self.shared_sources):
            room = near_room(box, room, smallest_side)
        return _sighting(number, Verdict.RIGHT, "", subject, likeness, room)

    def _find_character(self, groups: list[list[int]]) -> tuple[list[int], str]:
        """The looks that are the character's for sure, and the doubt as a sentence."""
        confirmed = self._confirmed(groups)
        if confirmed:
            return self._group_of(confirmed, groups), ""
        if not groups:
            return [], ""
        if any(p.is_confirmed for p in self.people.pictures) and sum(map(self.people.is_somebody, groups)) > 1:
            return [], "Nobody is clearly seen in the pictures that say who is meant: confirm others with keep."
        ordered = sorted(groups, key=self.people.size, reverse=True)
        clips, pictures = self.people.size(ordered[0])
        for other in ordered[1:]:
            other_clips, other_pictures = self.people.size(other)
            is_alike = self.people.are_lookalikes(ordered[0], other)
            share = ALIKE_AS_OFTEN if is_alike else NEARLY_AS_OFTEN
            is_as_often = other_clips >= share * clips and other_pictures >= share * pictures
            if is_as_often and self.people.is_somebody(other):
                return ordered[0], (
                    f"Two people are about equally often in these clips ({pictures} and {other_pictures} pictures): "
                    "confirm one with keep, or give an image."
                )
        return ordered[0], ""

    def _group_of(self, confirmed: set[int], groups: list[list[int]]) -> list[int]:
        """The confirmed looks with their group; where that is hardly more than they are, with the most alike one."""
        group = max(groups, key=lambda group: (len(confirmed & set(group)), len(group)))
        own = sorted(confirmed | set(group))
        clips, pictures = self.people.size(set(own) - confirmed)
        if pictures >= ENOUGH_PICTURES and clips > 1:
            return own
        others = [
            group
            for group in groups
            if not set(group) & set(own)
            and self.people.is_somebody(group)
            and self.people.pictures_of_two([*group, *own]) < 2
        ]
        ranked = sorted(((self.people.typical(group, own), group) for group in others), reverse=True)
        best, second = [value for value, _ in ranked[:2]] + [-1.0] * (2 - len(ranked[:2]))
        is_clear = best >= STRANGER_UNDER and best >= second + CLEAR_LEAD
        return sorted({*own, *ranked[0][1]}) if is_clear else own

    def _standing(self, index: int) -> tuple[Verdict, float | None]:
        own = self.people.likeness(index, self.character)
        if own is None:  # the only look there is
            return (Verdict.RIGHT if index in self.character else Verdict.STRANGER), None
        nearest = max([-1.0, *(self.people.likeness(index, group) or -1.0 for group in self.rivals)])
        is_among = not self.rivals and index in self.character
        enough = SAME_PERSON if is_among else RIGHT_FROM if self.people.is_sure[index] else UNSURE_FROM
        lead = CLEAR_LEAD if self._is_shared(index) or index not in self.own else 0.0
        if own >= enough and own >= nearest + lead:
            return Verdict.RIGHT, own
        if own < STRANGER_UNDER or nearest >= own + CLEAR_LEAD:
            return Verdict.STRANGER, own
        return Verdict.DOUBTFUL, own

    def _is_shared(self, index: int) -> bool:
        """Whether somebody else is surely in the clip of this look."""
        return any(self.people.source[index] in sources for sources in self.surely_in)

    def _is_partly_another(self, index: int) -> bool:
        """Whether a look of the character is more like somebody else of this clip than the character's looks are."""
        for group, sources, usual in zip(self.rivals, self.shared_sources, self.usual, strict=True):
            if (
                self.people.source[index] in sources
                and (self.people.likeness(index, group) or -1.0) > usual + PARTLY_ANOTHER
            ):
                return True
        return False

    def _hides_somebody(self, number: int, character: Box) -> bool:
        """Whether somebody who is nowhere in this picture passes the character, by where both are before and after."""
        picture = self.people.pictures[number]
        if picture.at_seconds is None:
            return False
        for group in self.rivals:
            seen = [
                index
                for index in group
                if self.people.source[index] == picture.source and self.people.judged[index][0] in self.with_character
            ]
            if any(self.people.judged[index][0] == number for index in group):
                continue
            places = [
                (at - picture.at_seconds, (box.left + box.right) / 2)
                for index in seen
                for at, box in ((self.people.second_of(index), self.people.box_of(index)),)
                if at is not None and abs(at - picture.at_seconds) <= HIDDEN_SECONDS
            ]
            before, after = (
                max((p for p in places if p[0] < 0), default=None),
                min((p for p in places if p[0] > 0), default=None),
            )
            if before and after:
                x = before[1] + (after[1] - before[1]) * -before[0] / (after[0] - before[0])
                if character.left <= x <= character.right:
                    return True
        return False

    def _is_other(self, place: Place, seen: SubjectSeen, box: Box) -> bool:
        """Whether this is another person than the one in the box: not a thing, and not the same one found twice."""
        index = self.people.index_of.get(place)
        if index is None:
            return seen.is_sure
        verdict, own = self._standing(index)
        is_before = seen.box.left < box.right and box.left < seen.box.right
        if verdict is Verdict.RIGHT and is_before:
            return False
        if seen.is_sure:
            return True
        # What may be a thing and overlaps the character is often a piece of wall with a piece of them: it is like them.
        # And it is nobody who is never surely in this clip.
        values = [-1.0 if is_before or own is None else own]
        for group, sources in zip(self.rivals, self.surely_in, strict=True):
            if self.people.source[index] in sources:
                values.append(self.people.likeness(index, group) or -1.0)
        return max(values) >= SOMEBODY_FROM

    def _confirmed(self, groups: list[list[int]]) -> set[int]:
        """The confirmed pictures' subjects; of several in one picture the one most alike to the other confirmed ones,
        without any the one who is in most pictures."""
        people = self.people
        pictures_of = {index: people.size(group)[1] for group in groups for index in group}
        sure: set[int] = set()
        several: list[list[int]] = []
        for number, picture in enumerate(self.people.pictures):
            if picture.is_confirmed:
                own = [
                    self.people.index_of[number, k]
                    for k in range(len(picture.subjects))
                    if (number, k) in self.people.index_of
                ]
                if len(own) == 1:
                    sure.add(own[0])
                elif own:
                    several.append(own)
        for own in several:
            known = sorted(sure)
            sure.add(
                max(
                    own,
                    key=lambda k: (people.likeness(k, known) or 0.0, people.is_sure[k], pictures_of[k], -k),
                )
            )
        return sure


_RANK = {Verdict.RIGHT: 2, Verdict.DOUBTFUL: 1, Verdict.STRANGER: 0}


def _sighting(
    number: int,
    verdict: Verdict,
    reason: str,
    subject: int | None = None,
    likeness: float | None = None,
    room: Box | None = None,
) -> Sighting:
    return Sighting(picture=number, subject=subject, verdict=verdict, likeness=likeness, room=room, reason=reason)
