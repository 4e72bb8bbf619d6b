"""The folder that `onmodel frames` fills: which pictures in it are ours, from where, and what a person said of them.

`frames.json` is its memory. A picture is written or taken away only while the folder's memory and the bytes on disk
agree that it is ours; whatever else lies there is never touched.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from domain.clips import ClipFacts
from domain.looks import LookMeasures
from domain.pictures import Decision
from domain.records import Record
from studio.own_files import memory_in, replace_files, save_memory

MEMORY = "frames.json"
SHEET = "contact-sheet.html"
_LONGEST_LABEL = 40


class FrameEntry(Record):
    """A moment of a clip and what came of it. `file` and its `sha256` are there for kept ones only.

    `reason` is the rules' own, '' where they keep it, whatever a person said; `measures` is None for a moment that
    a person named and nobody had looked at.
    """

    name: str
    at_seconds: float
    is_kept: bool
    reason: str
    mark: str
    decision: Decision | None
    file: str | None
    sha256: str | None
    width: int
    height: int
    shot: int
    measures: LookMeasures | None


class ClipEntry(Record):
    """A clip that was harvested into the folder. `source` is its path seen from the folder."""

    name: str
    source: str
    sha256: str
    facts: ClipFacts
    decoded_frames: int
    frame_count: int
    decisions: dict[str, Decision]
    """What a person said, by the moment in seconds with three decimals."""
    frames: tuple[FrameEntry, ...]

    @property
    def kept_count(self) -> int:
        return sum(frame.is_kept for frame in self.frames)


class FolderMemory(Record):
    """All of `frames.json`."""

    made_by: Literal["onmodel frames"] = "onmodel frames"
    schema_version: Literal[1] = 1
    rules_version: int
    clips: tuple[ClipEntry, ...] = ()

    def clip(self, name: str) -> ClipEntry | None:
        return next((clip for clip in self.clips if clip.name == name), None)

    def with_clip(self, entry: ClipEntry) -> FolderMemory:
        """The entry in the place of the one of its name, or at the end."""
        if self.clip(entry.name) is None:
            return self.model_copy(update={"clips": (*self.clips, entry)})
        clips = tuple(entry if clip.name == entry.name else clip for clip in self.clips)
        return self.model_copy(update={"clips": clips})


class NamedClip(Record):
    """A clip of this command under the name that its pictures bear."""

    name: str
    path: Path
    source: str


def read_memory(folder: Path, rules_version: int) -> FolderMemory:
    """What is known of the folder, which need not exist; `BadInput` where it holds other things and nothing of ours."""
    memory = memory_in(folder, MEMORY, FolderMemory, "onmodel frames")
    if memory is None:
        return FolderMemory(rules_version=rules_version)
    return memory.model_copy(update={"rules_version": rules_version})


def name_clips(paths: Iterable[Path], folder: Path, memory: FolderMemory) -> list[NamedClip]:
    """Each clip once, under the name it had here before, or its stem with a number where that is taken."""
    named: dict[str, NamedClip] = {}
    known = {clip.source: clip.name for clip in memory.clips}
    taken = {clip.name.casefold() for clip in memory.clips}
    for path in paths:
        source = os.fsencode(os.path.relpath(path, folder)).decode("utf-8", "replace")
        if source in named:
            continue
        name = known.get(source) or _free_label(label_of(path), taken)
        taken.add(name.casefold())
        named[source] = NamedClip(name=name, path=path, source=source)
    return list(named.values())


def label_of(path: Path) -> str:
    """The file's stem as letters, digits, dots and dashes, so that it can be typed, listed with commas and printed."""
    stem = unicodedata.normalize("NFC", path.stem)
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:_LONGEST_LABEL].strip("-.") or "clip"


def picture_name(label: str, at_seconds: float) -> str:
    """`slot-01-00m03.500s.jpg`."""
    milliseconds = round(at_seconds * 1000)
    return f"{label}-{milliseconds // 60_000:02d}m{milliseconds // 1000 % 60:02d}.{milliseconds % 1000:03d}s.jpg"


def place_clip(folder: Path, memory: FolderMemory, entry: ClipEntry, pictures: dict[str, Path]) -> FolderMemory:
    """Bring the clip's kept pictures into the folder and take away those it no longer keeps; returns the new memory.

    `pictures` says where each lies now, by its file name in the folder. Errors and repeating as `replace_files`.
    """
    before = memory.clip(entry.name)
    ours = {frame.file: frame.sha256 for frame in before.frames if frame.file and frame.sha256} if before else {}
    after = memory.with_clip(entry)
    replace_files(folder, ours, pictures, lambda: save_memory(folder, MEMORY, after))
    return after


def names_in(lists: Sequence[str]) -> list[str]:
    """The names of an option given once or more, each time perhaps several with commas between them."""
    return [name for one in lists for name in (part.strip() for part in one.split(",")) if name]


def _free_label(label: str, taken: set[str]) -> str:
    number, free = 1, label
    while free.casefold() in taken:
        number += 1
        free = f"{label}-{number}"
    return free
