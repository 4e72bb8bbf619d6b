"""`onmodel frames`: the best pictures of any clips into a folder, with a contact sheet that a person can overrule.

It needs no season, no database and no Prefect. What a person said is remembered in the folder (`frames.json`).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domain.clips import ClipFacts
from domain.errors import BadInput
from domain.frame_rules import RULES_VERSION, common_bars, wanted_frames
from domain.looks import Harvest, Look
from domain.pictures import JPEG_QUALITY, Decision
from domain.records import Record
from studio.folders import usable_folder
from studio.frames_folder import (
    SHEET,
    ClipEntry,
    FolderMemory,
    FrameEntry,
    NamedClip,
    name_clips,
    names_in,
    picture_name,
    place_clip,
    read_memory,
)
from studio.frames_sheet import write_frames_sheet
from studio.own_files import digest_of, workbench
from studio.telling import complain, end_progress, print_json, print_table, say, tell_progress

if TYPE_CHECKING:
    from providers.ports import MediaTools

log = logging.getLogger("onmodel.frames_by_hand")

MOST_FRAMES = 1000
_NOT_LOOKED_AT = "nobody had looked at this moment"


class Wishes(Record):
    """What a person says of one clip's moments, by seconds; None takes back what was said before."""

    by_seconds: dict[float, Decision | None]


class Taken(Record):
    """A clip that was harvested in this command, with its pictures still outside the folder."""

    clip: NamedClip
    sha256: str
    folder: Path
    harvest: Harvest
    decisions: dict[str, Decision]

    def thumbnails(self) -> dict[str, Path]:
        """Where the small picture of each look lies, by the frame's name."""
        return {
            f"{self.clip.name}@{look.measures.at_seconds:.3f}": self.folder / look.thumbnail
            for look in self.harvest.looks
        }


class Outcome(Record):
    """What a command did: the folder's memory, the clips it did, and a sentence for each that it could not read."""

    memory: FolderMemory
    done: tuple[str, ...]
    errors: tuple[str, ...]


def pick_frames(
    clips: Sequence[Path],
    folder: Path,
    *,
    count: int | None,
    keep: Sequence[str],
    drop: Sequence[str],
    undecide: Sequence[str],
    as_json: bool,
) -> int:
    """Harvest the clips into the folder and print what came of each.

    Exit 0; 2 when a clip could not be read (the others are done all the same, each bad one gets its sentence) or when
    the command itself makes no sense (then nothing was written). Free, and safe to repeat: the same clips give the
    same pictures, and what a person said is kept.
    """
    from providers.wiring import open_ports

    if not clips:
        raise BadInput("onmodel frames needs at least one clip. See: onmodel frames --help")
    if count is not None and not 1 <= count <= MOST_FRAMES:
        raise BadInput(f"--count {count} is not possible: give a number from 1 to {MOST_FRAMES}.")
    usable_folder(folder)
    if not as_json:
        tell_progress()
    outcome = harvest_into(
        open_ports().media, clips, folder, count=count, wishes=wishes_of(keep=keep, drop=drop, undecide=undecide)
    )
    end_progress()
    if as_json:
        print_json(_document(outcome, folder))
    elif outcome.done:
        _tell(outcome, folder)
    for error in outcome.errors:
        complain(error)
    return BadInput.exit_code if outcome.errors else 0


def wishes_of(*, keep: Sequence[str], drop: Sequence[str], undecide: Sequence[str]) -> dict[str, Wishes]:
    """What the three options say, by clip. `BadInput` for what is no name of a frame, and for one said twice."""
    said: dict[str, dict[float, Decision | None]] = {}
    for names, decision in ((keep, Decision.KEEP), (drop, Decision.DROP), (undecide, None)):
        for name in names_in(names):
            match = re.fullmatch(r"(.+)@(\d{1,6}(?:\.\d{1,3})?)", name)
            if match is None:
                raise BadInput(
                    f"{name!r} names no frame: write the clip's name and the second as the contact sheet has them, "
                    f"such as slot-01@3.500."
                )
            moments = said.setdefault(match[1], {})
            if float(match[2]) in moments:
                raise BadInput(f"{name} is named twice among --keep, --drop and --undecide: say one thing of it.")
            moments[float(match[2])] = decision
    return {name: Wishes(by_seconds=moments) for name, moments in said.items()}


def harvest_into(
    media: MediaTools, clips: Sequence[Path], folder: Path, *, count: int | None, wishes: dict[str, Wishes]
) -> Outcome:
    """Harvest every clip, bring its pictures into the folder, and write the contact sheet.

    Clips that a wish names come first, and all wishes are checked before the first picture is written.
    """
    memory = read_memory(folder, RULES_VERSION)
    named = name_clips(clips, folder, memory)
    _check_clips_of(wishes, named)
    errors: list[str] = []
    good = [clip for clip in named if _can_be_read(media, clip, errors, must=clip.name in wishes)]
    if not good:
        return Outcome(memory=memory, done=(), errors=tuple(errors))
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    done: list[str] = []
    try:
        with workbench(folder) as bench:
            thumbnails: dict[str, Path] = {}
            wished = {
                clip.name: _taken(media, clip, bench, count, memory, wishes[clip.name])
                for clip in good
                if clip.name in wishes
            }
            for clip in good:
                try:
                    taken = wished.get(clip.name) or _taken(media, clip, bench, count, memory, None)
                    entry, pictures = judged(media, taken)
                    memory = place_clip(folder, memory, entry, pictures)
                except BadInput as error:
                    errors.append(error.message)
                    continue
                done.append(clip.name)
                thumbnails.update(taken.thumbnails())
                log.info("%s: %d of %d frames kept", clip.name, entry.kept_count, len(entry.frames))
            if done:
                write_frames_sheet(folder, memory, thumbnails)
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
    return Outcome(memory=memory, done=tuple(done), errors=tuple(errors))


def decisions_after(
    harvest: Harvest, clip: NamedClip, said: dict[str, Decision], wishes: Wishes
) -> dict[str, Decision]:
    """What holds now: what was said before, and then this command's words.

    `BadInput` for a moment that the clip does not have, or where there is nothing to drop or to take back.
    """
    decisions = dict(said)
    for seconds, decision in wishes.by_seconds.items():
        if seconds > harvest.facts.duration_seconds:
            raise BadInput(f"{clip.name} has no second {seconds:g}: it is {harvest.facts.duration_seconds:.2f} s long.")
        nearest = nearest_look(harvest, seconds)
        is_there = nearest is not None and abs(nearest.measures.at_seconds - seconds) < _close_to(harvest.facts)
        key = f"{nearest.measures.at_seconds if nearest is not None and is_there else seconds:.3f}"
        if not is_there and decision is not Decision.KEEP and key not in decisions:
            hint = f": the nearest is {clip.name}@{nearest.measures.at_seconds:.3f}" if nearest is not None else ""
            raise BadInput(f"There is no frame {clip.name}@{seconds:.3f}{hint}.")
        if decision is None:
            decisions.pop(key, None)
        else:
            decisions[key] = decision
    return decisions


def judged(media: MediaTools, taken: Taken) -> tuple[ClipEntry, dict[str, Path]]:
    """The clip's entry, and where each kept picture lies now, by its name in the folder.

    A frame that the rules dropped and a person keeps is fetched from the clip in full size, the bars cut off.
    """
    pictures: dict[str, Path] = {}
    frames: list[FrameEntry] = []
    decisions = taken.decisions
    moments = {f"{look.measures.at_seconds:.3f}": look for look in taken.harvest.looks}
    extra = [key for key, decision in decisions.items() if decision is Decision.KEEP and key not in moments]
    for key in sorted([*moments, *extra], key=float):
        look, decision = moments.get(key), decisions.get(key)
        is_kept = decision is Decision.KEEP or (decision is None and look is not None and look.is_kept)
        width, height = (look.width, look.height) if look is not None else (0, 0)
        file = sha256 = None
        if is_kept:
            file = picture_name(taken.clip.name, float(key))
            if look is not None and look.picture is not None:
                pictures[file] = taken.folder / look.picture
            else:
                pictures[file] = taken.folder / f"fetched-{key}.jpg"
                width, height = _fetch(media, taken, float(key), pictures[file])
            sha256 = digest_of(pictures[file])
        frames.append(
            FrameEntry(
                name=f"{taken.clip.name}@{key}",
                at_seconds=float(key),
                is_kept=is_kept,
                reason=_NOT_LOOKED_AT if look is None else look.reason,
                mark="" if look is None else look.mark,
                decision=decision,
                file=file,
                sha256=sha256,
                width=width,
                height=height,
                shot=_shot_at(taken.harvest, float(key)),
                measures=None if look is None else look.measures,
            )
        )
    entry = ClipEntry(
        name=taken.clip.name,
        source=taken.clip.source,
        sha256=taken.sha256,
        facts=taken.harvest.facts,
        decoded_frames=taken.harvest.decoded_frames,
        frame_count=taken.harvest.frame_count,
        decisions=decisions,
        frames=tuple(frames),
    )
    return entry, pictures


def _check_clips_of(wishes: dict[str, Wishes], named: list[NamedClip]) -> None:
    names = [clip.name for clip in named]
    for name in wishes:
        if name not in names:
            raise BadInput(f"No clip of this command is called {name!r}; there are: {', '.join(names)}.")


def _can_be_read(media: MediaTools, clip: NamedClip, errors: list[str], *, must: bool) -> bool:
    try:
        media.probe_clip(clip.path)
    except BadInput as error:
        if must:
            raise
        errors.append(error.message)
        return False
    return True


def _taken(
    media: MediaTools, clip: NamedClip, bench: Path, count: int | None, memory: FolderMemory, wishes: Wishes | None
) -> Taken:
    folder = bench / clip.name
    folder.mkdir()
    sha256 = digest_of(clip.path)
    wanted = count or wanted_frames(media.probe_clip(clip.path).duration_seconds)
    harvest = media.harvest(clip.path, folder, wanted)
    before = memory.clip(clip.name)
    said = dict(before.decisions) if before is not None and before.sha256 == sha256 else {}
    if before is not None and before.decisions and not said:
        log.warning("%s is another film than before: what was said of its frames no longer holds", clip.name)
    decisions = decisions_after(harvest, clip, said, wishes or Wishes(by_seconds={}))
    return Taken(clip=clip, sha256=sha256, folder=folder, harvest=harvest, decisions=decisions)


def nearest_look(harvest: Harvest, seconds: float) -> Look | None:
    """The look nearest to a moment; None where there is none at all."""
    return min(harvest.looks, key=lambda look: abs(look.measures.at_seconds - seconds), default=None)


def _close_to(facts: ClipFacts) -> float:
    """How near a moment must be to be the same frame, in seconds: under half a frame."""
    return max(0.5 / max(facts.frames_per_second, 1.0), 0.001)


def _shot_at(harvest: Harvest, seconds: float) -> int:
    look = nearest_look(harvest, seconds)
    return 0 if look is None else look.shot


def _fetch(media: MediaTools, taken: Taken, seconds: float, out: Path) -> tuple[int, int]:
    [image] = media.frames_at(taken.clip.path, [seconds])
    bars = common_bars([look.measures for look in taken.harvest.looks])
    height, width = image.shape[:2]
    image = image[bars.top : height - bars.bottom, bars.left : width - bars.right]
    out.write_bytes(media.jpeg_bytes(image, JPEG_QUALITY))
    return image.shape[1], image.shape[0]


# --- what is printed ---


def kind_of_reason(reason: str) -> str:
    """A reason without what is particular to one frame, so that equal ones can be counted."""
    if reason.startswith("nearly the same"):
        return "nearly the same as another"
    return re.split(r"[(:\d]", reason, maxsplit=1)[0].strip() or reason


def commonest_reason(frames: Sequence[FrameEntry]) -> str:
    """The reason why most of the frames that were left out were, with how many; '' when all are kept."""
    reasons = Counter(
        "dropped by you" if frame.decision is Decision.DROP else kind_of_reason(frame.reason)
        for frame in frames
        if not frame.is_kept
    )
    return "{} ({})".format(*reasons.most_common(1)[0]) if reasons else ""


def _tell(outcome: Outcome, folder: Path) -> None:
    clips = [clip for clip in outcome.memory.clips if clip.name in outcome.done]
    rows = [
        [
            clip.name,
            f"{clip.facts.duration_seconds:.1f} s",
            str(len(clip.frames)),
            str(clip.kept_count),
            commonest_reason(clip.frames),
        ]
        for clip in clips
    ]
    print_table("Frames", ["clip", "length", "looked at", "kept", "left out mostly"], rows, right=(1, 2, 3))
    say()
    say(f"Pictures:       {folder}")
    say(f"Contact sheet:  {folder / SHEET}")
    say("Overrule it by the same command with --drop NAME or --keep NAME; the names stand on the sheet.")


def _document(outcome: Outcome, folder: Path) -> dict[str, Any]:
    clips = [clip for clip in outcome.memory.clips if clip.name in outcome.done]
    return {
        "exit_code": BadInput.exit_code if outcome.errors else 0,
        "folder": str(folder.absolute()),
        "contact_sheet": str((folder / SHEET).absolute()) if clips else None,
        "clips": [clip.model_dump(mode="json") for clip in clips],
        "errors": list(outcome.errors),
    }
