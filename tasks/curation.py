"""Curation: from all of a character's frames and stills, the training set and what is held out of it.

Order of work: gather (tasks/material.py) → who is in each picture (tasks/sightings.py) → leave out what fills no
bucket → near-duplicates → choose for variety → hold out (tasks/choosing.py) → captions → coverage. Every picture that
was considered is taken or left out with its reason; what is doubtful waits for a person's word.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import ConfigDict

from domain.captions import CAPTION_RULES_VERSION, Shown, fixed_caption, own_caption, write_caption
from domain.costs import free_step
from domain.coverage import Shown as ShownPicture
from domain.coverage import coverage
from domain.crops import TooSmall, plan_crop
from domain.dataset_manifests import generated_warning
from domain.errors import BadInput
from domain.jobs import Stage
from domain.pictures import JPEG_QUALITY, Box, CaptionMode, Framing, View, suffix_of
from domain.records import Record
from domain.right_person import Verdict
from domain.seasons import DEFAULT_MIN_IMAGES, Character
from domain.training_sets import (
    HELD_OUT_AIM,
    TRAINED_AIM,
    Coverage,
    CuratedSet,
    LeftOut,
    TrainingImage,
    held_out_count,
)
from providers.wiring import open_ports
from tasks.choosing import Choosable, choose, hold_out, outfits, without_twins
from tasks.material import Material, Picture, gather_material
from tasks.sightings import MOST_LOOKED_AT, Sighted, fair_share, sight

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.curation")

RULES_VERSION = 2
"""Raised whenever the rules of curation change, so that a set made by older ones is made anew."""

SAME_OUTFIT = 0.3
"""Mean likeness from which sightings of one person are called one outfit (benchmarks/choosing.py: of held-out pairs in
one outfit 71 % stay together, 22 % of those in two are joined). Crude: it helps to choose, and no caption names it."""


class Usable(Record):
    """A picture that may be trained on: its part without anybody else, and the subject in that part's pixels."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    sighted: Sighted
    room: Box
    subject: Box | None
    choosable: Choosable

    @property
    def picture(self) -> Picture:
        return self.sighted.picture


class Considered(Record):
    """What came of a character's material before anything is chosen: what may be trained on, and what may not."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    usable: tuple[Usable, ...]
    left_out: tuple[LeftOut, ...]
    sighted: tuple[Sighted, ...]
    considered_count: int
    doubt: str


def curate_training_set(ports: Ports, character_id: int) -> int:
    """Build the character's training set from its harvested clips and stills; returns its id.

    Safe to repeat: the same material and the same words of a person give the same set, stored once. Free. `BadInput`
    when there are too few images: then nothing has been spent on the character.
    """
    character = ports.cast.get(character_id)
    material = gather_material(ports, character)
    digest = _digest(ports, character, material.pictures)
    known = ports.cast.training_set_of(character_id, digest)
    if known is not None:
        _log_free(ports, character, known)
        return known
    considered = _considered(ports, character, material)
    usable = {one.picture.name: one for one in considered.usable}
    distinct = without_twins(one.choosable for one in considered.usable)
    if len(distinct.taken) < character.min_images:
        raise BadInput(_too_few(ports, character, considered, len(distinct.taken)))
    chosen = choose(distinct.taken, TRAINED_AIM + HELD_OUT_AIM)
    split = hold_out(chosen.taken, held_out_count(len(chosen.taken), character.min_images))
    numbered = enumerate([*split.trained, *split.held_out], 1)
    images = [_training_image(ports, character, usable[one.name], number) for number, one in numbered]
    trained, held_out = images[: len(split.trained)], images[len(split.trained) :]
    left_out = [
        *considered.left_out,
        *(_left_out(usable[one.name].picture, one.reason) for one in (*distinct.not_taken, *chosen.not_taken)),
    ]
    set_id = ports.cast.keep_training_set(
        CuratedSet(
            character_id=character_id,
            digest=digest,
            trained=tuple(trained),
            held_out=tuple(held_out),
            left_out=tuple(left_out),
            coverage=_coverage(considered, chosen.taken, left_out),
            warnings=tuple(_warnings(ports, character, considered, trained, held_out)),
        )
    )
    _log_free(ports, character, set_id)
    log.info("%s: %d images to train on, %d held out", character.name, len(trained), len(held_out))
    return set_id


def _log_free(ports: Ports, character: Character, set_id: int) -> None:
    """Once per set, also where the process died between the set and this line."""
    words = {CaptionMode.OWN: "a person's words where there are any", CaptionMode.FIXED: "one fixed sentence"}
    steps = [(Stage.TRAINING_SET, "done on this machine", f"training_set:{set_id}")]
    if character.captions is not CaptionMode.DESCRIBED:
        reason = words.get(character.captions, "written on this machine")
        steps.append((Stage.CAPTIONS, reason, f"captions:{set_id}"))
    for stage, reason, once_key in steps:
        step = free_step(character.season_id, stage, "onmodel", reason, once_key, character_id=character.id)
        ports.ledger.log_cost(step)


def consider(ports: Ports, character_id: int) -> Considered:
    """Look at all of the material and say of every picture whether it may be trained on, enough or not. Free.

    Stores nothing but cut pictures' originals, which a person asked for. Safe to repeat.
    """
    character = ports.cast.get(character_id)
    return _considered(ports, character, gather_material(ports, character))


def _considered(ports: Ports, character: Character, material: Material) -> Considered:
    pictures, beyond = fair_share(material.pictures, MOST_LOOKED_AT)
    sighted, doubt = sight(ports, character, pictures)
    left_out = list(material.left_out)
    left_out += [
        _left_out(p, f"not looked at: {MOST_LOOKED_AT} others came first, the sharpest of each clip") for p in beyond
    ]
    fit: list[tuple[Sighted, Box, Box | None]] = []
    for one in sighted:
        if not one.is_usable:
            is_doubtful = one.sighting.verdict is Verdict.DOUBTFUL
            left_out.append(_left_out(one.picture, one.sighting.reason, is_doubtful=is_doubtful))
            continue
        room = one.room
        subject = _within(one.subject.box, room) if one.subject is not None else None
        planned = plan_crop(room.width, room.height, subject)
        if isinstance(planned, TooSmall):
            left_out.append(_left_out(one.picture, _too_small(one, planned)))
        else:
            fit.append((one, room, subject))
    numbers = _outfit_numbers(ports, [one for one, _, _ in fit])
    return Considered(
        usable=tuple(
            Usable(sighted=one, room=room, subject=subject, choosable=_choosable(one, outfit))
            for (one, room, subject), outfit in zip(fit, numbers, strict=True)
        ),
        left_out=tuple(left_out),
        sighted=sighted,
        considered_count=len(material.pictures) + len(material.left_out),
        doubt=doubt,
    )


def _coverage(considered: Considered, chosen: Sequence[Choosable], left_out: Sequence[LeftOut]) -> Coverage:
    """What the set shows, and of what it lacks, which picture of this person that was left out would have it."""
    taken = {one.name for one in chosen}
    reasons = {one.name: one.reason for one in left_out}
    outfit_of = {one.picture.name: one.choosable.outfit for one in considered.usable}
    shown = [
        ShownPicture(
            name=one.picture.name,
            source=one.picture.source,
            at_seconds=one.picture.at_seconds,
            framing=one.subject.framing if one.subject else Framing.UNKNOWN,
            view=one.subject.view if one.subject else View.UNKNOWN,
            light=one.look.surroundings.light,
            outfit=outfit_of.get(one.picture.name, 0),
            origin=one.picture.origin,
            reason=reasons.get(one.picture.name, ""),
        )
        for one in considered.sighted
        if one.is_usable or one.sighting.verdict in (Verdict.CROWDED, Verdict.DOUBTFUL)
    ]
    return coverage([one for one in shown if one.name in taken], shown)


def _digest(ports: Ports, character: Character, pictures: Sequence[Picture]) -> str:
    """What a set is made of and by which rules: the same digest, the same set."""
    rules = (RULES_VERSION, CAPTION_RULES_VERSION, TRAINED_AIM, HELD_OUT_AIM)
    about = (character.trigger_word, character.min_images, character.kind, character.captions, character.rights)
    anchors = sorted(still.sha256 for still in ports.cast.stills(character.id, "reference"))
    each = sorted(f"{p.sha256} {p.name} {p.is_wanted} {p.origin} {p.caption}" for p in pictures)
    return hashlib.sha256("|".join([*map(str, rules), *map(str, about), *anchors, *each]).encode()).hexdigest()


def _choosable(one: Sighted, outfit: int) -> Choosable:
    picture = one.picture
    return Choosable(
        name=picture.name,
        source=picture.source,
        at_seconds=picture.at_seconds,
        sharpness=picture.sharpness,
        hash64=picture.hash64,
        layout=one.look.layout,
        framing=one.subject.framing if one.subject else Framing.UNKNOWN,
        view=one.subject.view if one.subject else View.UNKNOWN,
        light=one.look.surroundings.light,
        outfit=outfit,
        likeness=one.sighting.likeness,
        origin=picture.origin,
        is_confirmed=picture.is_wanted,
    )


def _outfit_numbers(ports: Ports, sighted: Sequence[Sighted]) -> list[int]:
    """The outfit of each, 0 the commonest and that of everybody whose look cannot be judged."""
    looks = {i: one.subject.appearance for i, one in enumerate(sighted) if one.subject is not None}
    judged = {i: look for i, look in looks.items() if look.vector is not None}
    alike = ports.scorer.similarities(list(judged.values()))
    found = dict(zip(judged, outfits(alike, SAME_OUTFIT), strict=True))
    return [found.get(i, 0) for i in range(len(sighted))]


def _training_image(ports: Ports, character: Character, usable: Usable, number: int) -> TrainingImage:
    """The picture as it goes into the set: cut to the part without anybody else, where somebody else was in it."""
    picture, one = usable.picture, usable.choosable
    sha256, media_type, made_from, cut = picture.sha256, picture.media_type, None, None
    if (usable.room.width, usable.room.height) != (picture.width, picture.height):
        whole = ports.media.load_image(ports.blobs.local_path(picture.sha256))
        part = whole[usable.room.top : usable.room.bottom, usable.room.left : usable.room.right]
        sha256, media_type = (
            ports.blobs.put_bytes(ports.media.jpeg_bytes(part, JPEG_QUALITY), "image/jpeg"),
            "image/jpeg",
        )
        made_from, cut = picture.sha256, usable.room
    return TrainingImage(
        sha256=sha256,
        file_name=f"{number:03d}{suffix_of(media_type)}",
        media_type=media_type,
        caption=_caption(character, usable),
        is_caption_own=_has_own_caption(character, picture),
        source=picture.source,
        at_seconds=picture.at_seconds,
        sharpness=picture.sharpness,
        width=usable.room.width,
        height=usable.room.height,
        name=picture.name,
        origin=picture.origin,
        subject=usable.subject,
        made_from=made_from,
        cut=cut,
        framing=one.framing,
        view=one.view,
        light=one.light,
        outfit=one.outfit,
        likeness=one.likeness,
        rights=picture.rights,
    )


def _has_own_caption(character: Character, picture: Picture) -> bool:
    return character.captions is CaptionMode.OWN and bool(picture.caption)


def _caption(character: Character, usable: Usable) -> str:
    if character.captions is CaptionMode.FIXED:
        return fixed_caption(character.trigger_word, character.kind)
    if _has_own_caption(character, usable.picture):
        return own_caption(usable.picture.caption, character.trigger_word)
    one = usable.choosable
    shown = Shown(surroundings=usable.sighted.look.surroundings, framing=one.framing, view=one.view)
    return write_caption(character.trigger_word, shown)


def _warnings(
    ports: Ports,
    character: Character,
    considered: Considered,
    trained: Sequence[TrainingImage],
    held_out: Sequence[TrainingImage],
) -> list[str]:
    """What the person who pays should know of the set."""
    warnings = []
    if character.min_images < DEFAULT_MIN_IMAGES:
        warnings.append(f"min_images was lowered to {character.min_images}: expect a weaker likeness.")
    if len(held_out) < 3:
        count = len(trained) + len(held_out)
        warnings.append(f"Only {len(held_out)} of {count} images could be held out: the identity judgement is weaker.")
    if generated := generated_warning([image.origin for image in trained]):
        warnings.append(generated)
    if doubtful := sum(one.is_doubtful for one in considered.left_out):
        warnings.append(
            f"{_pictures(doubtful)} may or may not show {character.name}: left out until you say keep or drop, with "
            f"{_command(ports, character)}"
        )
    reasons = Counter(one.reason for one in considered.left_out if not one.is_doubtful)
    for reason, what in _COUNTED.items():
        if reasons[reason]:
            warnings.append(f"Left out because {what}: {_pictures(reasons[reason])}.")
    return warnings


_COUNTED = {
    "somebody else": "somebody else is in it",
    "somebody else stands too close to be cropped away": "somebody else stands too close to be cropped away",
    "nobody stands out": "nobody stands out in it",
    "nobody is clearly seen": "nobody is clearly seen in it",
}
"""Reasons of domain/right_person.py that are worth a sentence in the report."""


def _too_few(ports: Ports, character: Character, considered: Considered, distinct: int) -> str:
    doubtful = sum(one.is_doubtful for one in considered.left_out)
    more = f" {considered.doubt}" if considered.doubt else ""
    if doubtful and not more:
        more = f" {_pictures(doubtful)} more are doubtful and wait for your word."
    return (
        f"{character.name}: {distinct} usable images of {considered.considered_count} found, at least "
        f"{character.min_images} are needed: give more or longer clips, or more images.{more} To see each with its "
        f"reason: {_command(ports, character)}"
    )


def _command(ports: Ports, character: Character) -> str:
    return f'onmodel dataset {ports.seasons.get(character.season_id).slug} "{character.name}"'


def _too_small(one: Sighted, planned: TooSmall) -> str:
    sentence = planned.sentence("it")
    return f"too small once somebody else is cut away: {sentence}" if one.room.width < one.picture.width else sentence


def _left_out(picture: Picture, reason: str, *, is_doubtful: bool = False) -> LeftOut:
    return LeftOut(
        name=picture.name,
        sha256=picture.sha256,
        source=picture.source,
        at_seconds=picture.at_seconds,
        reason=reason,
        is_doubtful=is_doubtful,
    )


def _within(box: Box, room: Box) -> Box:
    """A box of the whole picture in the pixels of a part of it."""
    return Box(
        left=max(box.left, room.left) - room.left,
        top=max(box.top, room.top) - room.top,
        right=min(box.right, room.right) - room.left,
        bottom=min(box.bottom, room.bottom) - room.top,
    )


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"


@task(name="curate-training-set", cache_policy=NO_CACHE)
def curate_training_set_task(character_id: int) -> int:
    """Build the character's training set."""
    return curate_training_set(open_ports(), character_id)
