"""Looks: the moments of a clip that were looked at, what was measured there, and what came of each."""

from __future__ import annotations

from domain.clips import ClipFacts
from domain.records import Record


class Bars(Record):
    """Pixels of letterbox or pillarbox at each edge of the picture as shown; all 0 where there are none."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


class LookMeasures(Record):
    """What is measured of one look, on the picture without its bars, reduced to 480 px width.

    A look is a frame and, where they could be decoded, the few that follow it within 0.2 s (the burst).
    """

    at_seconds: float
    is_keyframe: bool
    sharpness: float
    """Tiled, contrast-normalised, denoised Laplacian (see providers/media_measures.py). Compare within one clip."""
    softness: float
    """0 (crisp) … 1 (soft), by blurring once more; survives darkness. See `blur_of`."""
    noise: float
    """Standard deviation of the noise, in grey levels of 255."""
    brightness: float
    """Mean luma, 0…1."""
    contrast: float
    """95 % minus 5 % quantile of luma, 0…1."""
    hash64: int
    """dHash, unsigned."""
    signature: tuple[int, ...]
    """A tiny picture (4×4 of R, G, B, 0…255) for finding shots."""
    change: float
    """Mean change of luma from the first to the last frame of the burst, in grey levels; 0 where there is no burst."""
    bend: float
    """How little that change is a straight line in time: near 0 in a fade or dissolve, about 1 in ordinary motion."""
    jump: float
    """The largest step between neighbours of the burst, divided by the median of the other steps; 1 without a burst."""
    bars: Bars = Bars()
    text_share: float = 0.0
    """Share of the picture's area that looks like burnt-in text (subtitles, logos)."""


class Look(Record):
    """One look with its verdict. `picture` and `thumbnail` are names of JPEG files in the harvest's folder."""

    measures: LookMeasures
    shot: int
    reason: str
    """'' for a kept frame, else why it was dropped."""
    mark: str = ""
    """What a person should know of a kept frame, such as burnt-in text."""
    width: int
    height: int
    picture: str | None = None
    thumbnail: str

    @property
    def is_kept(self) -> bool:
        return not self.reason


class Harvest(Record):
    """What a clip gave: every look in order of time, the kept ones with their picture in full resolution."""

    facts: ClipFacts
    looks: tuple[Look, ...]
    decoded_frames: int
    """How many frames were decoded for it, of how many the clip has: the saving."""
    frame_count: int
