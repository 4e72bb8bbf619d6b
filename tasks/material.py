"""Material: every picture of a character that could be trained on, before anybody has looked at who is in it.

That is the frames kept by the harvest, the stills a person gave, and what a person said of either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.clips import Clip, Frame, StillImage
from domain.picture_keys import key_of_frame, key_of_still
from domain.pictures import JPEG_QUALITY, Decision, Origin
from domain.records import Record
from domain.seasons import Character
from domain.training_sets import SMALLEST_SIDE, LeftOut

if TYPE_CHECKING:
    from providers.wiring import Ports


class Picture(Record):
    """One picture of the material. `is_confirmed`: a person said, or gave it as, a picture of this character."""

    name: str
    sha256: str
    media_type: str
    source: str
    at_seconds: float | None
    width: int
    height: int
    sharpness: float
    hash64: int
    origin: Origin
    is_wanted: bool
    """A person said keep: it is taken whatever the rules say."""
    is_confirmed: bool
    caption: str
    rights: str


class Material(Record):
    """The pictures to choose from, and those that are out before any choice."""

    pictures: tuple[Picture, ...]
    left_out: tuple[LeftOut, ...]


def gather_material(ports: Ports, character: Character) -> Material:
    """The character's pictures. Reads a picture out of a clip only where a person wants a frame that was dropped.

    Equal bytes count once. Safe to repeat. Free.
    """
    decisions = ports.decisions.decisions(character.id)
    clips = ports.cast.clips(character.id)
    stills = ports.cast.stills(character.id, "training")
    made_here = ports.cast.made_here([clip.sha256 for clip in clips] + [still.sha256 for still in stills])
    pictures: list[Picture] = []
    left_out: list[LeftOut] = []
    for clip in clips:
        for frame in ports.cast.frames(clip.id):
            decision = decisions.get(key_of_frame(clip.id, frame.at_seconds))
            if decision is Decision.DROP:
                left_out.append(_out(frame, clip, "you dropped it"))
            elif frame.is_kept or decision is Decision.KEEP:
                pictures.append(_of_frame(ports, character, frame, clip, decision, clip.sha256 in made_here))
    for number, still in enumerate(stills, 1):
        decision = decisions.get(key_of_still(still.sha256))
        name = f"s{number}"
        if decision is Decision.DROP:
            reason = "you dropped it"
        elif min(still.width, still.height) < SMALLEST_SIDE:
            reason = f"too small ({still.width}×{still.height}; its shorter side needs {SMALLEST_SIDE} pixels)"
        else:
            pictures.append(_of_still(ports, character, still, name, decision, still.sha256 in made_here))
            continue
        left_out.append(
            LeftOut(name=name, sha256=still.sha256, source=still.source_name, at_seconds=None, reason=reason)
        )
    return Material(
        pictures=tuple({picture.sha256: picture for picture in reversed(pictures)}.values())[::-1],
        left_out=tuple(left_out),
    )


def _of_frame(
    ports: Ports, character: Character, frame: Frame, clip: Clip, decision: Decision | None, is_made_here: bool
) -> Picture:
    sha256, media_type, width, height = frame.sha256, frame.media_type, frame.width, frame.height
    if sha256 is None:
        sha256, width, height = _picture_of_dropped(ports, frame, clip)
        media_type = "image/jpeg"
    return Picture(
        name=frame.name,
        sha256=sha256,
        media_type=media_type,
        source=clip.source_name,
        at_seconds=frame.at_seconds,
        width=width,
        height=height,
        sharpness=frame.sharpness,
        hash64=frame.hash64,
        origin=Origin.GENERATED if is_made_here else Origin.CLIP,
        is_wanted=decision is Decision.KEEP,
        is_confirmed=decision is Decision.KEEP,
        caption="",
        rights=character.rights or "a winning clip of this season; its rights were not stated",
    )


def _of_still(
    ports: Ports, character: Character, still: StillImage, name: str, decision: Decision | None, is_made_here: bool
) -> Picture:
    measured = ports.media.measure_image(ports.media.load_image(ports.blobs.local_path(still.sha256)))
    return Picture(
        name=name,
        sha256=still.sha256,
        media_type=still.media_type,
        source=still.source_name,
        at_seconds=None,
        width=still.width,
        height=still.height,
        sharpness=measured.sharpness,
        hash64=measured.hash64,
        origin=Origin.GENERATED if is_made_here else Origin.STILL,
        is_wanted=decision is Decision.KEEP,
        is_confirmed=True,
        caption=still.caption,
        rights=character.rights or "given in the manifest; its rights were not stated",
    )


def _picture_of_dropped(ports: Ports, frame: Frame, clip: Clip) -> tuple[str, int, int]:
    """The full picture of a frame that the harvest dropped, read from the clip once and kept."""
    (image,) = ports.media.frames_at(ports.blobs.local_path(clip.sha256), [frame.at_seconds])
    bars = ports.cast.bars(clip.id)
    height, width, _ = image.shape
    image = image[bars.top : height - bars.bottom, bars.left : width - bars.right]
    sha256 = ports.blobs.put_bytes(ports.media.jpeg_bytes(image, JPEG_QUALITY), "image/jpeg")
    ports.cast.set_frame_picture(frame.id, sha256, "image/jpeg", image.shape[1], image.shape[0])
    return sha256, image.shape[1], image.shape[0]


def _out(frame: Frame, clip: Clip, reason: str) -> LeftOut:
    return LeftOut(
        name=frame.name,
        sha256=frame.sha256 or frame.thumbnail_sha256,
        source=clip.source_name,
        at_seconds=frame.at_seconds,
        reason=reason,
    )
