"""The contact sheet of a character's training set: what waits for a word, then trained, held out, left out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domain.dataset_manifests import time_code
from domain.pictures import Decision, Framing, Light, Origin, View
from domain.records import Record
from domain.seasons import Character
from domain.training_sets import LeftOut, TrainingImage
from tasks.contact_sheet import (
    ContactSheet,
    SheetFigure,
    SheetGroup,
    SheetPart,
    SheetPicture,
    write_contact_sheet,
)

if TYPE_CHECKING:
    from providers.wiring import Ports
    from tasks.curation import Usable

SHEET = "contact-sheet.html"


class Verdicts(Record):
    """What came of every picture of a character. `sentence` says why there is no set, where there is none."""

    trained: tuple[TrainingImage, ...] = ()
    held_out: tuple[TrainingImage, ...] = ()
    usable: tuple[SheetPicture, ...] = ()
    """Pictures that would do, where there are too few of them to make a set."""
    left_out: tuple[LeftOut, ...] = ()
    gaps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    sentence: str = ""

    @property
    def doubtful(self) -> tuple[LeftOut, ...]:
        return tuple(one for one in self.left_out if one.is_doubtful)


def write_dataset_sheet(
    ports: Ports, character: Character, decided: dict[str, Decision], verdicts: Verdicts, trainer: str, folder: Path
) -> Path:
    """Write the sheet into the folder; returns its path. Safe to repeat. `decided`: a person's word, by name."""
    shown = {one.name for one in (*verdicts.trained, *verdicts.held_out)}
    shown |= {one.name for one in verdicts.usable} | {one.name for one in verdicts.left_out}
    unfit = _unfit_frames(ports, character, shown, decided)
    out = [one for one in verdicts.left_out if not one.is_doubtful]
    parts = (
        SheetPart(
            title="Your word is needed",
            note="Whether this is the character could not be told for sure. These wait outside until you say.",
            pictures=tuple(_left_out(one, decided) for one in verdicts.doubtful),
            is_pressing=True,
        ),
        SheetPart(
            title="Usable, but too few",
            note="Of pictures that are nearly the same only one counts.",
            pictures=verdicts.usable,
        ),
        SheetPart(title="Trained", pictures=tuple(_image(one, decided) for one in verdicts.trained)),
        SheetPart(
            title="Held out",
            note="The trainer never sees these: the finished LoRA is measured against them.",
            pictures=tuple(_image(one, decided) for one in verdicts.held_out),
        ),
        SheetPart(title="Left out", pictures=tuple(_left_out(one, decided) for one in out), is_folded=True),
        SheetPart(title="Dropped when the clips were looked through", pictures=tuple(unfit), is_folded=True),
    )
    slug = ports.seasons.get(character.season_id).slug
    sheet = ContactSheet(
        title=character.name,
        byline=f"{slug} · training set for {trainer}",
        figures=(
            SheetFigure(label="Trained", value=str(len(verdicts.trained)), small="pictures the LoRA learns from"),
            SheetFigure(label="Held out", value=str(len(verdicts.held_out)), small="to measure it against"),
            SheetFigure(label="Waiting", value=str(len(verdicts.doubtful)), small="for your word"),
            SheetFigure(label="Left out", value=str(len(out) + len(unfit)), small="each with its reason"),
        ),
        groups=(SheetGroup(title="The pictures", parts=parts),),
        warnings=((verdicts.sentence, *verdicts.warnings) if verdicts.sentence else verdicts.warnings),
        gaps=verdicts.gaps,
        commands=_commands(slug, character.name),
    )
    path = folder / SHEET
    write_contact_sheet(sheet, path, ports.blobs.read)
    return path


def usable_picture(usable: Usable) -> SheetPicture:
    """A picture that would do, where there are too few to make a set."""
    picture, one = usable.picture, usable.choosable
    return SheetPicture(
        name=picture.name,
        picture=picture.sha256,
        place=_place(picture.source, picture.at_seconds),
        facts=_facts(one.framing, one.view, one.light, one.outfit, one.likeness, usable.room.width, usable.room.height),
        mark="made by this project itself" if picture.origin is Origin.GENERATED else "",
        decision=Decision.KEEP if picture.is_wanted else None,
    )


def facts_of(image: TrainingImage) -> tuple[str, ...]:
    """What is known of a picture, in words; nothing for what could not be told."""
    return _facts(image.framing, image.view, image.light, image.outfit, image.likeness, image.width, image.height)


def _facts(
    framing: Framing, view: View, light: Light, outfit: int, likeness: float | None, width: int, height: int
) -> tuple[str, ...]:
    facts = (
        _spoken(framing),
        _spoken(view),
        f"{light.value} light",
        f"outfit {outfit + 1}" if outfit else "",
        "" if likeness is None else f"likeness {likeness:.2f}",
        f"{width} × {height}",
    )
    return tuple(fact for fact in facts if fact)


def _spoken(word: Framing | View) -> str:
    return "" if word.value == "unknown" else word.value.replace("_", "-")


def _place(source: str, at_seconds: float | None) -> str:
    return source if at_seconds is None else f"{source} · {time_code(at_seconds)}"


def _image(image: TrainingImage, decided: dict[str, Decision]) -> SheetPicture:
    marks = (
        "made by this project itself" if image.origin is Origin.GENERATED else "",
        "cut to leave somebody else out" if image.made_from else "",
    )
    return SheetPicture(
        name=image.name or image.file_name,
        picture=image.sha256,
        place=_place(image.source, image.at_seconds),
        facts=facts_of(image),
        mark=", ".join(mark for mark in marks if mark),
        caption=image.caption,
        decision=decided.get(image.name),
    )


def _left_out(one: LeftOut, decided: dict[str, Decision]) -> SheetPicture:
    return SheetPicture(
        name=one.name,
        picture=one.sha256,
        place=_place(one.source, one.at_seconds),
        reason="" if decided.get(one.name) is Decision.DROP else one.reason,
        decision=decided.get(one.name),
    )


def _unfit_frames(
    ports: Ports, character: Character, shown: set[str], decided: dict[str, Decision]
) -> Sequence[SheetPicture]:
    """Frames that never came into question: blurred, dark, twins of others."""
    return [
        SheetPicture(
            name=frame.name,
            picture=frame.thumbnail_sha256 or frame.sha256,
            place=_place(clip.source_name, frame.at_seconds),
            reason=frame.reason,
            decision=decided.get(frame.name),
        )
        for clip in ports.cast.clips(character.id)
        for frame in ports.cast.frames(clip.id)
        if not frame.is_kept and frame.name not in shown
    ]


def _commands(slug: str, name: str) -> tuple[tuple[str, str], ...]:
    command = f"onmodel dataset {slug} {quoted(name)}"
    return (
        (f"{command} --keep NAME", "takes the picture, whatever the rules say of it"),
        (f"{command} --drop NAME", "leaves it out"),
        (f"{command} --undecide NAME", "leaves it to the rules again"),
    )


def quoted(name: str) -> str:
    """A name as a shell takes it in one piece."""
    return shlex.quote(name)
