"""Which of the people in a character's pictures is the character: groups by identity, then a verdict per picture.

Pure: it asks for similarities between -1 and 1, whatever measured them. Its thresholds were chosen with the metric
`appearance-v1` on drawn people (benchmarks/crossing.py, development pairs) and frozen. Nothing is guessed: what the
numbers do not settle is `doubtful`, with the reason, and waits for a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from heapq import nlargest
from itertools import combinations
from statistics import fmean, median

from domain.likeness_groups import group_by_likeness
from domain.pictures import Box
from domain.records import Record
from domain.rooms import near_room, room_for

SAME_PERSON = 0.35
"""Mean similarity from which two groups of looks are one person (average linkage). Of the development pairs the same
person in two clips has a median of 0.67, two people have 0.04."""

TWO_SHARE, STRICTER, STRICTEST = 0.1, 0.05, 0.75
"""Where two of a group stand side by side in this share of its pictures they are two people: it is grouped anew, this
much stricter, until they are apart."""

BEST_LOOKS = 3
"""A look is compared with the three most alike looks of a group, from other clips where there are any."""

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

ENOUGH_PICTURES = 3
"""A group of fewer pictures is nobody of the cast: a thing, a passer-by, two people seen as one."""

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


class SubjectSeen(Record):
    """Somebody in a picture; `is_judged` is False where the scorer abstained, `is_sure` where it may be a thing."""

    box: Box
    is_judged: bool = True
    is_sure: bool = True


class PictureSeen(Record):
    """A picture and its people. `source` is the clip (a still is its own); `is_confirmed`: a person or the manifest
    says that it shows the character."""

    source: str
    width: int
    height: int
    subjects: tuple[SubjectSeen, ...]
    is_confirmed: bool = False
    at_seconds: float | None = None


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


Place = tuple[int, int]
"""A subject by picture and number in it."""

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
    case = _Case(pictures, judged, alike)
    return WhoIsWho(
        sightings=tuple(case.sighting(number, smallest_side) for number in range(len(pictures))),
        people=len(case.rivals) + bool(case.character),
        doubt=case.doubt,
    )


class _Case:
    """What is known of the pictures: the judged subjects, how alike they are, who the character is and who is not."""

    def __init__(self, pictures: Sequence[PictureSeen], judged: list[Place], alike: list[list[float]]) -> None:
        self.pictures, self.judged, self.alike = pictures, judged, alike
        self.lengths = Counter(picture.source for picture in pictures)
        self.index_of = {place: index for index, place in enumerate(judged)}
        self.source = [pictures[number].source for number, _ in judged]
        self.is_sure = [pictures[number].subjects[index].is_sure for number, index in judged]
        everybody = group_by_likeness(alike, SAME_PERSON)
        parted = [self._joined(self._parted(group, SAME_PERSON)) for group in everybody]
        groups = [part for parts in parted for part in parts]
        self.lookalikes = [parts for parts in parted if len(parts) > 1]
        self.character, self.doubt = self._find_character(groups)
        own = self.own = frozenset(self.character)
        # A group of one clip that is mostly like the character is the character before that clip's place, unless the
        # two stand side by side.
        self.rivals = [
            group
            for group in groups
            if not own & set(group)
            and self._is_somebody(group)
            and (
                self._size(group)[0] > 1
                or self._typical(group, self.character) < RIGHT_FROM
                or self._pictures_of_two([*group, *self.character]) > 1
            )
        ]
        self.shared_sources = [{self.source[index] for index in group} for group in self.rivals]
        self.surely_in = [{self.source[index] for index in group if self.is_sure[index]} for group in self.rivals]
        self.usual = [self._typical(self.character, group) for group in self.rivals]

    def sighting(self, number: int, smallest_side: int) -> Sighting:
        """The verdict on one picture."""
        picture = self.pictures[number]
        scored = [
            (subject, *self._standing(self.index_of[number, subject]))
            for subject in range(len(picture.subjects))
            if (number, subject) in self.index_of
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
        if self._is_partly_another(self.index_of[number, subject]):
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

    def likeness(self, index: int, group: Sequence[int]) -> float | None:
        """Mean similarity to the most alike of a group, itself and its picture left out, other clips first."""
        number, source = self.judged[index][0], self.source[index]
        others = [other for other in group if self.judged[other][0] != number]
        elsewhere = [other for other in others if self.source[other] != source]
        values = nlargest(BEST_LOOKS, (self.alike[index][other] for other in elsewhere or others))
        return fmean(values) if values else None

    def _find_character(self, groups: list[list[int]]) -> tuple[list[int], str]:
        """The looks that are the character's for sure, and the doubt as a sentence."""
        confirmed = self._confirmed(groups)
        if confirmed:
            return self._group_of(confirmed, groups), ""
        if not groups:
            return [], ""
        if any(p.is_confirmed for p in self.pictures) and sum(map(self._is_somebody, groups)) > 1:
            return [], "Nobody is clearly seen in the pictures that say who is meant: confirm others with keep."
        ordered = sorted(groups, key=self._size, reverse=True)
        clips, pictures = self._size(ordered[0])
        for other in ordered[1:]:
            other_clips, other_pictures = self._size(other)
            is_alike = any(ordered[0] in parts and other in parts for parts in self.lookalikes)
            share = ALIKE_AS_OFTEN if is_alike else NEARLY_AS_OFTEN
            is_as_often = other_clips >= share * clips and other_pictures >= share * pictures
            if is_as_often and self._is_somebody(other):
                return ordered[0], (
                    f"Two people are about equally often in these clips ({pictures} and {other_pictures} pictures): "
                    "confirm one with keep, or give an image."
                )
        return ordered[0], ""

    def _parted(self, group: list[int], threshold: float) -> list[list[int]]:
        """The group, or where two of it often stand side by side in one picture, its parts at a stricter threshold."""
        if threshold > STRICTEST or self._pictures_of_two(group) < max(2, TWO_SHARE * self._size(group)[1]):
            return [group]
        stricter = threshold + STRICTER
        parts = group_by_likeness([[self.alike[one][other] for other in group] for one in group], stricter)
        return [smaller for part in parts for smaller in self._parted([group[k] for k in part], stricter)]

    def _joined(self, parts: list[list[int]]) -> list[list[int]]:
        """Parts put together again, the most alike first, as far as no two of them stand side by side."""
        while len(parts) > 1:
            pairs = [
                (fmean(self.alike[a][b] for a in one for b in other), i, j)
                for (i, one), (j, other) in combinations(enumerate(parts), 2)
                if self._pictures_of_two([*one, *other]) < max(2, TWO_SHARE * self._size([*one, *other])[1])
            ]
            mean, i, j = max(pairs, default=(-1.0, 0, 0))
            if mean < SAME_PERSON:
                break
            parts = [part for k, part in enumerate(parts) if k not in (i, j)] + [sorted(parts[i] + parts[j])]
        return sorted(parts, key=lambda part: (-len(part), part))

    def _pictures_of_two(self, group: Sequence[int]) -> int:
        """In how many pictures two of a group are there, apart."""
        boxes: dict[int, list[Box]] = {}
        for index in group:
            number, subject = self.judged[index]
            boxes.setdefault(number, []).append(self.pictures[number].subjects[subject].box)
        return sum(
            any(one.right <= other.left or other.right <= one.left for one, other in combinations(own, 2))
            for own in boxes.values()
        )

    def _group_of(self, confirmed: set[int], groups: list[list[int]]) -> list[int]:
        """The confirmed looks with their group; where that is hardly more than they are, with the most alike one."""
        group = max(groups, key=lambda group: (len(confirmed & set(group)), len(group)))
        own = sorted(confirmed | set(group))
        if self._size(set(own) - confirmed)[1] >= ENOUGH_PICTURES:
            return own
        others = [group for group in groups if not set(group) & set(own) and self._is_somebody(group)]
        ranked = sorted(((self._typical(group, own), group) for group in others), reverse=True)
        best, second = [value for value, _ in ranked[:2]] + [-1.0] * (2 - len(ranked[:2]))
        is_clear = best >= STRANGER_UNDER and best >= second + CLEAR_LEAD
        return sorted({*own, *ranked[0][1]}) if is_clear else own

    def _is_somebody(self, group: Sequence[int]) -> bool:
        return self._size(group)[1] >= ENOUGH_PICTURES and 2 * sum(self.is_sure[i] for i in group) >= len(group)

    def _typical(self, group: Sequence[int], other: Sequence[int]) -> float:
        """The median likeness of a group's looks to another group; -1 without any."""
        values = [value for index in group if (value := self.likeness(index, other)) is not None]
        return median(values) if values else -1.0

    def _standing(self, index: int) -> tuple[Verdict, float | None]:
        own = self.likeness(index, self.character)
        if own is None:  # the only look there is
            return (Verdict.RIGHT if index in self.character else Verdict.STRANGER), None
        nearest = max([-1.0, *(self.likeness(index, group) or -1.0 for group in self.rivals)])
        is_among = not self.rivals and index in self.character
        enough = SAME_PERSON if is_among else RIGHT_FROM if self.is_sure[index] else UNSURE_FROM
        lead = CLEAR_LEAD if self._is_shared(index) or index not in self.own else 0.0
        if own >= enough and own >= nearest + lead:
            return Verdict.RIGHT, own
        if own < STRANGER_UNDER or nearest >= own + CLEAR_LEAD:
            return Verdict.STRANGER, own
        return Verdict.DOUBTFUL, own

    def _is_shared(self, index: int) -> bool:
        """Whether somebody else is surely in the clip of this look."""
        return any(self.source[index] in sources for sources in self.surely_in)

    def _is_partly_another(self, index: int) -> bool:
        """Whether a look of the character is more like somebody else of this clip than the character's looks are."""
        for group, sources, usual in zip(self.rivals, self.shared_sources, self.usual, strict=True):
            if self.source[index] in sources and (self.likeness(index, group) or -1.0) > usual + PARTLY_ANOTHER:
                return True
        return False

    def _hides_somebody(self, number: int, box: Box) -> bool:
        """Whether somebody who is nowhere in this picture is on the way past the box, by where they are before and
        after."""
        picture = self.pictures[number]
        if picture.at_seconds is None:
            return False
        for group in self.rivals:
            seen = [index for index in group if self.source[index] == picture.source]
            if any(self.judged[index][0] == number for index in seen):
                continue
            places = [
                (at - picture.at_seconds, (own.left + own.right) / 2)
                for index in seen
                if (at := self.pictures[self.judged[index][0]].at_seconds) is not None
                and abs(at - picture.at_seconds) <= HIDDEN_SECONDS
                for own in (self.pictures[self.judged[index][0]].subjects[self.judged[index][1]].box,)
            ]
            before, after = (
                max((p for p in places if p[0] < 0), default=None),
                min((p for p in places if p[0] > 0), default=None),
            )
            if before and after:
                x = before[1] + (after[1] - before[1]) * -before[0] / (after[0] - before[0])
                if box.left <= x <= box.right:
                    return True
        return False

    def _is_other(self, place: Place, seen: SubjectSeen, box: Box) -> bool:
        """Whether this is another person than the one in the box: not a thing, and not the same one found twice."""
        index = self.index_of.get(place)
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
            if self.source[index] in sources:
                values.append(self.likeness(index, group) or -1.0)
        return max(values) >= SOMEBODY_FROM

    def _confirmed(self, groups: list[list[int]]) -> set[int]:
        """The confirmed pictures' subjects; of several in one picture the one most alike to the other confirmed ones,
        without any the one who is in most pictures."""
        pictures_of = {index: self._size(group)[1] for group in groups for index in group}
        sure: set[int] = set()
        several: list[list[int]] = []
        for number, picture in enumerate(self.pictures):
            if picture.is_confirmed:
                own = [self.index_of[number, k] for k in range(len(picture.subjects)) if (number, k) in self.index_of]
                if len(own) == 1:
                    sure.add(own[0])
                elif own:
                    several.append(own)
        for own in several:
            known = sorted(sure)
            sure.add(max(own, key=lambda k: (self.likeness(k, known) or 0.0, self.is_sure[k], pictures_of[k], -k)))
        return sure

    def _size(self, group: Collection[int]) -> tuple[int, int]:
        """In how many clips and pictures somebody is; one sight of several in a clip does not count."""
        numbers = {self.judged[index][0] for index in group}
        sources = Counter(self.pictures[number].source for number in numbers)
        return sum(count >= min(2, self.lengths[source]) for source, count in sources.items()), len(numbers)


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
