"""Who is in a character's pictures: the looks of everybody seen, grouped to people. Pure; used by right_person.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from heapq import nlargest
from itertools import combinations
from statistics import fmean, median

from domain.likeness_groups import group_by_likeness
from domain.pictures import Box
from domain.records import Record

SAME_PERSON = 0.35
"""Mean similarity from which two groups of looks are one person (average linkage). Of the development pairs the same
person in two clips has a median of 0.67, two people have 0.04."""

TWO_SHARE, STRICTER, STRICTEST = 0.1, 0.05, 0.75
"""Where two of a group stand side by side in this share of its pictures they are two people: it is grouped anew, this
much stricter, until they are apart."""

BEST_LOOKS = 3
"""A look is compared with the three most alike looks of a group, from other clips where there are any."""

ENOUGH_PICTURES = 3
"""A group of fewer pictures is nobody of the cast: a thing, a passer-by, two people seen as one."""

ROUNDS = 2
STAYS = 0.05
"""How often looks move to the group they are most like, and how much more alike it must be than their own."""


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


Place = tuple[int, int]
"""A subject by picture and number in it."""


class PeopleSeen:
    """The judged looks by index, how alike they are, and the groups of looks that are one person each.

    `judged` names each look's place, `groups` are lists of indices, the largest first, `lookalikes` lists of groups
    that were first taken for one person and stand side by side.
    """

    def __init__(self, pictures: Sequence[PictureSeen], judged: list[Place], alike: list[list[float]]) -> None:
        self.pictures, self.judged, self.alike = pictures, judged, alike
        self.lengths = Counter(picture.source for picture in pictures)
        self.index_of = {place: index for index, place in enumerate(judged)}
        self.source = [pictures[number].source for number, _ in judged]
        self.is_sure = [pictures[number].subjects[index].is_sure for number, index in judged]
        everybody = group_by_likeness(alike, SAME_PERSON)
        parted = [self._joined(self._parted(group, SAME_PERSON)) for group in everybody]
        self.groups = self._settled([part for parts in parted for part in parts])
        self.lookalikes = [[set(part) for part in parts] for parts in parted if len(parts) > 1]

    def are_lookalikes(self, one: Sequence[int], other: Sequence[int]) -> bool:
        """Whether most of two groups came out of one that was parted."""
        return any(
            any(2 * len(part & set(one)) > len(one) for part in parts)
            and any(2 * len(part & set(other)) > len(other) for part in parts)
            for parts in self.lookalikes
        )

    def likeness(self, index: int, group: Sequence[int]) -> float | None:
        """Mean similarity to the most alike of a group, itself and its picture left out, other clips first."""
        number, source = self.judged[index][0], self.source[index]
        others = [other for other in group if self.judged[other][0] != number]
        elsewhere = [other for other in others if self.source[other] != source]
        values = nlargest(BEST_LOOKS, (self.alike[index][other] for other in elsewhere or others))
        return fmean(values) if values else None

    def typical(self, group: Sequence[int], other: Sequence[int]) -> float:
        """The median likeness of a group's looks to another group; -1 without any."""
        values = [value for index in group if (value := self.likeness(index, other)) is not None]
        return median(values) if values else -1.0

    def is_somebody(self, group: Sequence[int]) -> bool:
        """Whether a group is a person: seen often enough, and surely or in several clips, as no thing is."""
        clips, pictures = self.size(group)
        return pictures >= ENOUGH_PICTURES and (clips > 1 or 2 * sum(self.is_sure[i] for i in group) >= len(group))

    def size(self, group: Collection[int]) -> tuple[int, int]:
        """In how many clips and pictures somebody is; one sight of several in a clip does not count."""
        numbers = {self.judged[index][0] for index in group}
        sources = Counter(self.pictures[number].source for number in numbers)
        return sum(count >= min(2, self.lengths[source]) for source, count in sources.items()), len(numbers)

    def box_of(self, index: int) -> Box:
        """Where the look's subject is in its picture."""
        number, subject = self.judged[index]
        return self.pictures[number].subjects[subject].box

    def second_of(self, index: int) -> float | None:
        """The moment of the look's picture in its clip."""
        return self.pictures[self.judged[index][0]].at_seconds

    def pictures_of_two(self, group: Sequence[int]) -> int:
        """In how many pictures two of a group are there, apart."""
        boxes: dict[int, list[Box]] = {}
        for index in group:
            number, subject = self.judged[index]
            boxes.setdefault(number, []).append(self.pictures[number].subjects[subject].box)
        return sum(
            any(one.right <= other.left or other.right <= one.left for one, other in combinations(own, 2))
            for own in boxes.values()
        )

    def _settled(self, groups: list[list[int]]) -> list[list[int]]:
        """The groups after each look has gone to the large group it is most like; small groups stay as they are."""
        large = [group for group in groups if self.size(group)[1] >= ENOUGH_PICTURES]
        small = [group for group in groups if self.size(group)[1] < ENOUGH_PICTURES]
        for _ in range(ROUNDS):
            moved: list[list[int]] = [[] for _ in large]
            for home, group in enumerate(large):
                for index in group:
                    likeness = [self.likeness(index, other) or -1.0 for other in large]
                    best = max(range(len(large)), key=likeness.__getitem__)
                    moved[best if likeness[best] > likeness[home] + STAYS else home].append(index)
            large = [sorted(group) for group in moved if group]
        return sorted([*large, *small], key=lambda group: (-len(group), group))

    def _parted(self, group: list[int], threshold: float) -> list[list[int]]:
        """The group, or where two of it often stand side by side in one picture, its parts at a stricter threshold."""
        if threshold > STRICTEST or self.pictures_of_two(group) < max(2, TWO_SHARE * self.size(group)[1]):
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
                if self.pictures_of_two([*one, *other]) < max(2, TWO_SHARE * self.size([*one, *other])[1])
            ]
            mean, i, j = max(pairs, default=(-1.0, 0, 0))
            if mean < SAME_PERSON:
                break
            parts = [part for k, part in enumerate(parts) if k not in (i, j)] + [sorted(parts[i] + parts[j])]
        return sorted(parts, key=lambda part: (-len(part), part))
