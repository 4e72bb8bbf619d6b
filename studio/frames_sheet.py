"""The contact sheet of a folder of frames: each clip with what was kept of it, and what was left, folded."""

from __future__ import annotations

from pathlib import Path

from domain.dataset_manifests import time_code
from domain.errors import BadInput
from studio.frames_folder import SHEET, ClipEntry, FolderMemory, FrameEntry
from tasks.contact_sheet import (
    ContactSheet,
    SheetFigure,
    SheetGroup,
    SheetPart,
    SheetPicture,
    write_contact_sheet,
)


def write_frames_sheet(folder: Path, memory: FolderMemory, thumbnails: dict[str, Path]) -> Path:
    """Write the contact sheet of everything in the folder; returns its path. Safe to repeat.

    `thumbnails` gives small pictures by the frames' names; a kept frame without one is shown by its own picture, a
    dropped one of an earlier command not at all.
    """

    frames = [frame for clip in memory.clips for frame in clip.frames]
    files = {frame.name: folder / frame.file for frame in frames if frame.file}
    kept = sum(clip.kept_count for clip in memory.clips)
    decoded = sum(clip.decoded_frames for clip in memory.clips)
    total = sum(clip.frame_count for clip in memory.clips)
    decided = sum(len(clip.decisions) for clip in memory.clips)
    clips = memory.clips
    sheet = ContactSheet(
        title=clips[0].name if len(clips) == 1 else f"Frames of {len(clips)} clips",
        byline="The sharp, lit and different pictures, and why the others were left.",
        figures=(
            SheetFigure(label="Kept", value=str(kept), small=f"of {len(frames)} moments looked at"),
            SheetFigure(
                label="Clips",
                value=str(len(clips)),
                small=f"{sum(clip.facts.duration_seconds for clip in clips):.1f} s in all",
            ),
            SheetFigure(label="Decoded", value=str(decoded), small=f"frames of {total}"),
            SheetFigure(label="Your word", value=str(decided), small="frames you decided on yourself"),
        ),
        groups=tuple(_sheet_group(clip) for clip in clips),
        commands=(
            ("--drop NAME", "takes a picture out; so: the same command again with, say, --drop " + _example(memory)),
            ("--keep NAME", "takes a frame that was left, in full size; any other second of the clip will do too"),
            ("--undecide NAME", "leaves it to the rules again"),
        ),
    )

    def thumb(name: str) -> bytes:
        path = thumbnails.get(name) or files.get(name)
        if path is None:
            raise BadInput(f"There is no picture of {name}.")
        return path.read_bytes()

    write_contact_sheet(sheet, folder / SHEET, thumb)
    return folder / SHEET


def _example(memory: FolderMemory) -> str:
    names = [frame.name for clip in memory.clips for frame in clip.frames]
    return names[0] if names else "slot-01@3.500"


def _sheet_group(clip: ClipEntry) -> SheetGroup:
    def pictures(is_kept: bool) -> tuple[SheetPicture, ...]:
        return tuple(
            SheetPicture(
                name=frame.name,
                picture=frame.name,
                place=f"{time_code(frame.at_seconds)} · {frame.width} × {frame.height}" if frame.width else "",
                reason="" if is_kept else frame.reason,
                mark=_mark(frame) if is_kept else "",
                decision=frame.decision,
            )
            for frame in clip.frames
            if frame.is_kept is is_kept
        )

    facts = clip.facts
    return SheetGroup(
        title=clip.name,
        facts=(
            clip.source,
            f"{facts.duration_seconds:.1f} s",
            f"{facts.width} × {facts.height}",
            f"{facts.frames_per_second:.4g} frames a second",
            facts.video_codec,
        ),
        parts=(
            SheetPart(title="Kept", pictures=pictures(True)),
            SheetPart(title="Left out", pictures=pictures(False), is_folded=True),
        ),
    )


def _mark(frame: FrameEntry) -> str:
    if frame.measures is None:
        return frame.reason
    if frame.reason:
        return f"the rules would leave it out: {frame.reason}"
    return frame.mark
