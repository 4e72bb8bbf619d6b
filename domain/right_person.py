"""Which of the people in a character's pictures is the character: groups by identity, then a verdict per picture.

Pure: it asks for similarities between -1 and 1, whatever measured them. Its thresholds were chosen with the metric
`appearance-v1` on drawn people (benchmarks/crossing.py, development pairs) and frozen. Nothing is guessed: what the
numbers do not settle is `doubtful`, with the reason, and waits for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import combinations
from statistics import fmean, median

from domain.pictures import Box
from domain.records import Record

SAME_PERSON = 0.35
"""Mean similarity from which two groups of looks are one person (average linkage). Of the development pairs the same
person in two clips has a median of 0.67, two people have 0.04."""

BEST_LOOKS = 3
"""A look is compared with the three most alike looks of a group, from other clips where there are any."""

RIGHT_FROM = 0.45
STRANGER_UNDER = 0.30
"""Likeness to the character from which somebody is the character, and below which they are surely not."""

CLEAR_LEAD = 0.05
"""How much more alike to the character than to anybody else of the clips somebody must be."""

NEARLY_AS_OFTEN = 0.85
"""Share of the most frequent person's clips and pictures from which another is about equally often there."""

SOMEBODY_FROM = 0.40
"""Likeness to one of the clips' people from which what may be a thing is that person after all."""

PARTLY_ANOTHER = 0.21
"""How much more like another person than the character's looks usually are a look must be to hold both."""

ENOUGH_PICTURES = 3
"""A group of fewer pictures is nobody of the cast: a thing, a passer-by, two people seen as one."""

ARMS = 0.25
"""In heights of somebody: what is left free beside a found box, because swinging arms are often not in it."""

TOUCH = 0.05
"""In heights of somebody: nearer than this two people touch."""

NEAR = 0.33
"""In heights of the character: what stays around it in a clip in which others are, who may have been overlooked."""

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
    groups = group_by_likeness(alike, SAME_PERSON)
    case = _Case(pictures, judged, alike, groups)
    character, doubt = case.find_character()
    rivals = case.rivals_of(character)
    sightings = tuple(case.sighting(number, character, rivals, doubt, smallest_side) for number in range(len(pictures)))
    return WhoIsWho(sightings=sightings, people=len(rivals) + bool(character), doubt=doubt)


def group_by_likeness(alike: Sequence[Sequence[float]], threshold: float) -> list[list[int]]:
    """Average linkage: the two most alike groups are joined while their mean similarity reaches the threshold.

    `alike` is square and symmetric; its diagonal is not read. Groups of indices, the largest first. n² steps and
    memory for n looks (nearest-neighbour chains: F. Murtagh, A Survey of Recent Advances in Hierarchical Clustering
    Algorithms, The Computer Journal 26(4), 1983; average linkage is reducible, so the result is the greedy one).
    """
    rows = {
        index: {other: value for other, value in enumerate(row) if other != index} for index, row in enumerate(alike)
    }
    groups = {index: [index] for index in rows}
    done: list[list[int]] = []
    chain: list[int] = []
    while groups:
        if not chain:
            chain.append(min(groups))
        last = chain[-1]
        row = rows[last]
        before = chain[-2] if len(chain) > 1 else None
        nearest = max(row, key=lambda other: (row[other], other == before, -other), default=None)
        if nearest is None or row[nearest] < threshold:
            # Its nearest is too far, and joining others never brings it nearer than its nearest: it stays as it is.
            done.append(groups.pop(last))
            for other in rows.pop(last):
                del rows[other][last]
            chain.pop()
        elif nearest == before:
            _join(groups, rows, last, nearest)
            del chain[-2:]
        else:
            chain.append(nearest)
    return sorted((sorted(group) for group in done), key=lambda group: (-len(group), group))


def _join(groups: dict[int, list[int]], rows: dict[int, dict[int, float]], kept: int, gone: int) -> None:
    """Make two groups one under the first's name; similarities become means over all pairs (Lance and Williams)."""
    of_kept, of_gone = len(groups[kept]), len(groups[gone])
    groups[kept] += groups.pop(gone)
    former = rows.pop(gone)
    del rows[kept][gone]
    for other in rows[kept]:
        mean = (of_kept * rows[kept][other] + of_gone * former[other]) / (of_kept + of_gone)
        rows[kept][other] = rows[other][kept] = mean
        del rows[other][gone]


def room_for(subject: Box, others: Sequence[Box], width: int, height: int, smallest_side: int) -> Box | None:
    """The largest part of the picture that holds the subject and nobody else, or None when they cannot be parted.

    Others are cut away at the side where they stand, with room for their arms; the short side must keep
    `smallest_side` pixels (or the whole picture's, where that is smaller).
    """
    left, top, right, bottom = 0, 0, width, height
    for other in others:
        arms, touch = round(ARMS * other.height), round(TOUCH * other.height)
        if other.right + touch <= subject.left:
            left = max(left, min(other.right + arms, subject.left))
        elif other.left - touch >= subject.right:
            right = min(right, max(other.left - arms, subject.right))
        elif other.bottom + touch <= subject.top:
            top = max(top, min(other.bottom + arms, subject.top))
        elif other.top - touch >= subject.bottom:
            bottom = min(bottom, max(other.top - arms, subject.bottom))
        else:
            return None
    if min(right - left, bottom - top) < min(smallest_side, width, height):
        return None
    return Box(left=left, top=top, right=right, bottom=bottom)


def surroundings_of(subject: Box, room: Box, smallest_side: int) -> Box:
    """The part of a room near the subject: its height's third more on each side, never under `smallest_side`."""
    more = max(round(NEAR * subject.height), (smallest_side - min(subject.width, subject.height) + 1) // 2)
    box = Box(
        left=max(room.left, subject.left - more),
        top=max(room.top, subject.top - more),
        right=min(room.right, subject.right + more),
        bottom=min(room.bottom, subject.bottom + more),
    )
    short = min(smallest_side, room.width)
    if box.width < short:  # at an edge of the room: what is missing there is taken on the other side
        left = max(room.left, min(box.left, room.right - short))
        box = box.model_copy(update={"left": left, "right": max(box.right, left + short)})
    return box


class _Case:
    """What is known of the pictures: the judged subjects, how alike they are, and their groups."""

    def __init__(
        self,
        pictures: Sequence[PictureSeen],
        judged: list[Place],
        alike: list[list[float]],
        groups: list[list[int]],
    ) -> None:
        self.pictures, self.judged, self.alike = pictures, judged, alike
        self.groups = groups
        self.index_of = {place: index for index, place in enumerate(judged)}
        self.source = [pictures[number].source for number, _ in judged]
        self.is_sure = [pictures[number].subjects[index].is_sure for number, index in judged]

    def find_character(self) -> tuple[list[int], str]:
        """The looks that are the character's for sure, and the doubt as a sentence."""
        confirmed = self._confirmed()
        if confirmed:
            group = max(self.groups, key=lambda group: (len(confirmed & set(group)), len(group)))
            return sorted(confirmed | set(group)), ""
        if not self.groups:
            return [], ""
        ordered = sorted(self.groups, key=self._size, reverse=True)
        clips, pictures = self._size(ordered[0])
        for other in ordered[1:]:
            other_clips, other_pictures = self._size(other)
            is_as_often = other_clips >= NEARLY_AS_OFTEN * clips and other_pictures >= NEARLY_AS_OFTEN * pictures
            if is_as_often and self._is_somebody(other):
                return ordered[0], (
                    f"Two people are about equally often in these clips ({pictures} and {other_pictures} pictures): "
                    "confirm one with keep, or give an image."
                )
        return ordered[0], ""

    def rivals_of(self, character: list[int]) -> list[list[int]]:
        """Everybody else who is there often enough, and surely enough, to be a person of the clips.

        A group of one clip that is mostly like the character is the character before that clip's place.
        """
        own = set(character)
        return [
            group
            for group in self.groups
            if not own & set(group)
            and self._is_somebody(group)
            and (self._size(group)[0] > 1 or self._typical(group, character) < RIGHT_FROM)
        ]

    def _is_somebody(self, group: Sequence[int]) -> bool:
        return self._size(group)[1] >= ENOUGH_PICTURES and 2 * sum(self.is_sure[i] for i in group) >= len(group)

    def _typical(self, group: Sequence[int], other: Sequence[int]) -> float:
        """The median likeness of a group's looks to another group; -1 without any."""
        values = [value for index in group if (value := self.likeness(index, other)) is not None]
        return median(values) if values else -1.0

    def likeness(self, index: int, group: Sequence[int]) -> float | None:
        """Mean similarity to the most alike of a group, itself and its picture left out, other clips first."""
        number, source = self.judged[index][0], self.source[index]
        others = [other for other in group if self.judged[other][0] != number]
        elsewhere = [other for other in others if self.source[other] != source]
        values = sorted((self.alike[index][other] for other in elsewhere or others), reverse=True)
        return fmean(values[:BEST_LOOKS]) if values else None

    def sighting(
        self, number: int, character: list[int], rivals: list[list[int]], doubt: str, smallest_side: int
    ) -> Sighting:
        """The verdict on one picture."""
        picture = self.pictures[number]
        scored = [
            (subject, *self._standing(self.index_of[number, subject], character, rivals))
            for subject in range(len(picture.subjects))
            if (number, subject) in self.index_of
        ]
        if not scored:
            reason = "nobody is clearly seen" if picture.subjects else "nobody stands out"
            return _sighting(number, Verdict.NOBODY, reason)
        subject, verdict, likeness = max(scored, key=lambda item: (_RANK[item[1]], item[2] or -1.0, -item[0]))
        if doubt:
            return _sighting(number, Verdict.DOUBTFUL, doubt, subject, likeness)
        if verdict is Verdict.STRANGER:
            return _sighting(number, verdict, "somebody else", subject, likeness)
        if verdict is Verdict.DOUBTFUL:
            reason = f"only a little like the character ({likeness or 0:.2f})"
            return _sighting(number, verdict, reason, subject, likeness)
        if self._is_partly_another(self.index_of[number, subject], character, rivals):
            reason = "looks partly like somebody else: perhaps two people, one before the other"
            return _sighting(number, Verdict.DOUBTFUL, reason, subject, likeness)
        own_box = picture.subjects[subject].box
        others = [
            other.box
            for index, other in enumerate(picture.subjects)
            if index != subject and self._is_other((number, index), other, own_box, character, rivals)
        ]
        room = room_for(own_box, others, picture.width, picture.height, smallest_side)
        if room is None:
            reason = "somebody else stands too close to be cropped away"
            return _sighting(number, Verdict.CROWDED, reason, subject, likeness)
        if picture.source in self._shared_sources(rivals):
            room = surroundings_of(own_box, room, smallest_side)
        return _sighting(number, Verdict.RIGHT, "", subject, likeness, room)

    def _is_partly_another(self, index: int, character: list[int], rivals: list[list[int]]) -> bool:
        """Whether a look of the character is more like somebody else of this clip than the character's looks are."""
        for group in rivals:
            if any(self.source[other] == self.source[index] for other in group):
                own = self.likeness(index, group)
                if own is not None and own > self._typical(character, group) + PARTLY_ANOTHER:
                    return True
        return False

    def _shared_sources(self, rivals: list[list[int]]) -> set[str]:
        """The clips in which somebody else is."""
        return {self.source[index] for group in rivals for index in group}

    def _is_other(
        self, place: Place, seen: SubjectSeen, own_box: Box, character: list[int], rivals: list[list[int]]
    ) -> bool:
        """Whether this is another person than the one in `own_box`: not a thing, and not the same one found twice."""
        index = self.index_of.get(place)
        if index is None:
            return seen.is_sure
        verdict, own = self._standing(index, character, rivals)
        if verdict is Verdict.RIGHT and seen.box.left < own_box.right and own_box.left < seen.box.right:
            return False
        if seen.is_sure:
            return True
        return max([own or -1.0, *(self.likeness(index, group) or -1.0 for group in rivals)]) >= SOMEBODY_FROM

    def _standing(self, index: int, character: list[int], rivals: list[list[int]]) -> tuple[Verdict, float | None]:
        own = self.likeness(index, character)
        if own is None:  # the only look there is
            return (Verdict.RIGHT if index in character else Verdict.STRANGER), None
        nearest = max((value for group in rivals if (value := self.likeness(index, group)) is not None), default=-1.0)
        if own >= RIGHT_FROM and own >= nearest + CLEAR_LEAD:
            return Verdict.RIGHT, own
        if own < STRANGER_UNDER or nearest >= own + CLEAR_LEAD:
            return Verdict.STRANGER, own
        return Verdict.DOUBTFUL, own

    def _confirmed(self) -> set[int]:
        """The confirmed pictures' subjects; of several in one picture the one most alike to the other pictures'."""
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
            sure.add(max(own, key=lambda index: (self.likeness(index, sorted(sure)) or 0.0, -index)))
        return sure

    def _size(self, group: Sequence[int]) -> tuple[int, int]:
        """In how many clips and in how many pictures somebody is."""
        return len({self.source[index] for index in group}), len({self.judged[index][0] for index in group})


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
