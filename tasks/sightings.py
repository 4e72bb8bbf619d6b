"""Sightings: who is in each picture of a character's material, and in which part of it nobody else is.

A picture is looked at once per process; who is who is decided over all of them together (domain/right_person.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import ConfigDict

from domain.characters import CharacterKind
from domain.clips import StillImage
from domain.people_seen import PictureSeen, SubjectSeen
from domain.pictures import Box
from domain.records import Record
from domain.right_person import Sighting, Verdict, WhoIsWho, who_is_who
from domain.seasons import Character
from providers.ports import PictureLook, Subject
from tasks.material import Picture

if TYPE_CHECKING:
    from providers.wiring import Ports

MOST_LOOKED_AT = 300
"""Pictures of one character, shared fairly between its clips. A set takes 24; looking at one costs about 0.25 s."""


class Sighted(Record):
    """A picture with what is in it and the verdict on it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    picture: Picture
    look: PictureLook
    sighting: Sighting

    @property
    def subject(self) -> Subject | None:
        """The one who is, or may be, the character."""
        return None if self.sighting.subject is None else self.look.subjects[self.sighting.subject]

    @property
    def is_usable(self) -> bool:
        """Whether the rules let it be trained on; a person's keep stands above them."""
        return self.picture.is_wanted or self.sighting.verdict is Verdict.RIGHT

    @property
    def room(self) -> Box:
        """The part of the picture without anybody else; the whole where nobody else can be cut away or is there."""
        whole = Box(left=0, top=0, right=self.picture.width, bottom=self.picture.height)
        return self.sighting.room or whole


def sight(ports: Ports, character: Character, pictures: Sequence[Picture]) -> tuple[tuple[Sighted, ...], str]:
    """Every picture with its verdict, in the order given; and the doubt, when nobody can say who the character is.

    The character's reference pictures and given stills say which of the people is meant. Where nobody stands out
    a given still counts as it is, and so does anything of kind `other`, whose subjects colour alone seldom finds.
    Free; about 0.25 s a picture that was not looked at before.
    """
    looks = [ports.look_at(picture.sha256, character.kind) for picture in pictures]
    known = {picture.sha256 for picture in pictures}
    anchors = [still for still in ports.cast.stills(character.id, "reference") if still.sha256 not in known]
    anchor_looks = [ports.look_at(still.sha256, character.kind) for still in anchors]
    every_look = [*looks, *anchor_looks]
    seen = [
        _seen(p.source if p.at_seconds is not None else p.sha256, p, look, p.is_confirmed, p.at_seconds)
        for p, look in zip(pictures, looks, strict=True)
    ]
    seen += [_seen(still.sha256, still, look, True, None) for still, look in zip(anchors, anchor_looks, strict=True)]
    who = _who(ports, seen, every_look)
    sighted = tuple(
        Sighted(picture=picture, look=look, sighting=_lenient(sighting, picture, character.kind))
        for picture, look, sighting in zip(pictures, looks, who.sightings[: len(pictures)], strict=True)
    )
    return sighted, who.doubt


def fair_share(pictures: Sequence[Picture], most: int) -> tuple[list[Picture], list[Picture]]:
    """The first `most` when every source gives its next sharpest in turn, a person's choices first; and the others."""
    by_source: dict[str, list[Picture]] = {}
    for picture in sorted(pictures, key=lambda p: (not p.is_wanted, p.at_seconds is not None, -p.sharpness, p.sha256)):
        by_source.setdefault(picture.source if picture.at_seconds is not None else "", []).append(picture)
    longest = max(map(len, by_source.values()), default=0)
    turns = [p for turn in range(longest) for source in sorted(by_source) for p in by_source[source][turn : turn + 1]]
    taken = {picture.name for picture in turns[:most]}
    return [p for p in pictures if p.name in taken], [p for p in pictures if p.name not in taken]


def _seen(
    source: str, size: Picture | StillImage, look: PictureLook, is_confirmed: bool, at_seconds: float | None
) -> PictureSeen:
    return PictureSeen(
        source=source,
        width=size.width,
        height=size.height,
        subjects=tuple(
            SubjectSeen(box=subject.box, is_judged=subject.appearance.vector is not None, is_sure=subject.is_sure)
            for subject in look.subjects
        ),
        is_confirmed=is_confirmed,
        at_seconds=at_seconds,
    )


def _who(ports: Ports, seen: Sequence[PictureSeen], looks: Sequence[PictureLook]) -> WhoIsWho:
    places = [
        (number, index)
        for number, look in enumerate(looks)
        for index, subject in enumerate(look.subjects)
        if subject.appearance.vector is not None
    ]
    alike = ports.scorer.similarities([looks[number].subjects[index].appearance for number, index in places])
    row_of = {place: row for row, place in enumerate(places)}
    return who_is_who(seen, lambda one, other: float(alike[row_of[one], row_of[other]]))


def _lenient(sighting: Sighting, picture: Picture, kind: CharacterKind) -> Sighting:
    """A given picture in which nobody stands out, or one of a thing, is taken as it is; a given one that looks like
    somebody else waits for a person instead of being thrown away."""
    whole = Box(left=0, top=0, right=picture.width, bottom=picture.height)
    if sighting.verdict is Verdict.NOBODY and (picture.is_confirmed or kind is CharacterKind.OTHER):
        return sighting.model_copy(update={"verdict": Verdict.RIGHT, "room": whole, "reason": ""})
    if sighting.verdict is Verdict.STRANGER and picture.is_confirmed:
        reason = "you gave it as this character, but it looks like somebody else"
        return sighting.model_copy(update={"verdict": Verdict.DOUBTFUL, "reason": reason})
    return sighting
