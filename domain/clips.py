"""Clips that won, and the frames harvested from them."""

from __future__ import annotations

from domain.jobs import BlobRef
from domain.pictures import suffix_of
from domain.records import Record


class ClipFacts(Record):
    """What a clip is. Width and height are as shown (rotation and pixel aspect applied)."""

    duration_seconds: float
    width: int
    height: int
    frames_per_second: float
    video_codec: str
    has_audio: bool
    size_bytes: int


class Clip(Record):
    """A winning clip in our store. Width and height in pixels as shown."""

    id: int
    season_id: int
    sha256: str
    source_name: str
    duration_seconds: float
    width: int
    height: int
    frames_per_second: float
    has_audio: bool
    last_frame_url: str | None = None


class Frame(Record):
    """A frame of a clip with its measures; kept or dropped, always with the reason. Only kept ones have a picture.

    `id` is 0 until it is stored; people call the frame by it (`f12`). `shot` numbers the clip's shots from 0.
    """

    id: int = 0
    clip_id: int
    at_seconds: float
    sha256: str | None
    width: int
    height: int
    sharpness: float
    brightness: float
    hash64: int
    """dHash, unsigned."""
    is_kept: bool
    reason: str
    media_type: str = "image/png"
    thumbnail_sha256: str | None = None
    shot: int = 0
    mark: str = ""

    @property
    def name(self) -> str:
        return f"f{self.id}"


class StillImage(Record):
    """A picture a person gave for a character: to learn from (`training`) or as an original reference."""

    character_id: int
    role: str
    sha256: str
    source_name: str
    width: int
    height: int
    media_type: str
    caption: str = ""

    def ref(self) -> BlobRef:
        file_name = f"{self.role}{suffix_of(self.media_type)}"
        return BlobRef(sha256=self.sha256, media_type=self.media_type, file_name=file_name)
