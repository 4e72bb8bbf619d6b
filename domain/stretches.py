"""Stretches: which seconds of a clip a video trainer gets, and at what size. Pure geometry of time."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, sqrt

from domain.records import Record

MOST_SHARED = 0.5
"""Two training clips that share more than this of the shorter one are nearly one clip twice. Ours."""

_ALMOST = 1e-6
"""Of a frame: decimal seconds of a clip exactly long enough must not lose it one."""


class FrameRule(Record):
    """What clips a video trainer takes: `frames_multiple` × N + `frames_offset` frames at `fps`, sides in steps.

    Wan and HunyuanVideo take 4 × N + 1 (musubi, runpod_trainers.md 3.1), MiniMax H3 17 × N + 5, LTX 8 × N + 1
    (fal.md 2.3). `side_multiple` 16 is what the 8 × spatial compression and 2 × 2 patches of those models ask.
    """

    frames_multiple: int
    frames_offset: int
    min_frames: int
    max_frames: int
    fps: int
    side_multiple: int = 16
    max_pixels: int = 1280 * 720

    def frames_within(self, available: int) -> int | None:
        """The longest count of the rule that is no more than `available`; None when even the shortest is."""
        most = min(available, self.max_frames)
        count = (most - self.frames_offset) // self.frames_multiple * self.frames_multiple + self.frames_offset
        return count if count >= self.min_frames else None

    @property
    def shortest_seconds(self) -> float:
        """How long a clip must be at least."""
        count = next(n for n in range(self.min_frames, self.max_frames + 1) if self.frames_within(n) == n)
        return count / self.fps


class Stretch(Record):
    """Cut so many frames at `fps` from `from_seconds` on, reduced to cover width × height and cropped to it."""

    from_seconds: float
    frames: int
    fps: int
    width: int
    height: int

    @property
    def until_seconds(self) -> float:
        return self.from_seconds + self.frames / self.fps

    def shares(self, other: Stretch) -> float:
        """How much of the shorter of the two is in the other, 0…1."""
        common = min(self.until_seconds, other.until_seconds) - max(self.from_seconds, other.from_seconds)
        shorter = min(self.frames / self.fps, other.frames / other.fps)
        return max(0.0, common / shorter)


class TooShort(Record):
    """A shot that is shorter than the trainer's shortest clip."""

    seconds: float
    needs_seconds: float
    fps: int

    def sentence(self, what: str) -> str:
        """Why nothing is cut around `what` (such as `slot-01.mp4 at 3.5 s`)."""
        return (
            f"{what} stands in a shot of {self.seconds:.2f} s; the trainer needs {self.needs_seconds:.2f} s at "
            f"{self.fps} frames per second without a cut: give a longer clip."
        )


def plan_stretch(
    rule: FrameRule, at_seconds: float, span: tuple[float, float], width: int, height: int
) -> Stretch | TooShort:
    """The stretch around a moment inside `span` (the shot, in seconds), as long as the rule allows.

    width × height is the clip as shown; the stretch's size is never larger, its sides are multiples of the rule's.
    """
    start, end = span
    frames = rule.frames_within(floor((end - start) * rule.fps + _ALMOST))
    if frames is None:
        return TooShort(seconds=max(0.0, end - start), needs_seconds=rule.shortest_seconds, fps=rule.fps)
    seconds = frames / rule.fps
    first = max(start, min(at_seconds - seconds / 2, end - seconds))
    scale = min(1.0, sqrt(rule.max_pixels / (width * height)))
    step = rule.side_multiple
    return Stretch(
        from_seconds=round(max(0.0, first), 3),
        frames=frames,
        fps=rule.fps,
        width=max(step, floor(width * scale + _ALMOST) // step * step),
        height=max(step, floor(height * scale + _ALMOST) // step * step),
    )


def span_of_shot(looks: Sequence[tuple[float, int]], at_seconds: float, duration_seconds: float) -> tuple[float, float]:
    """From when until when the shot of a moment surely lasts, from the clip's looks as (seconds, number of the shot).

    Where a neighbour shot was looked at, the cut lies somewhere between, so only what lies between the shot's own looks
    is sure. Without looks it is the whole clip.
    """
    ordered = sorted(looks)
    if not ordered:
        return 0.0, duration_seconds
    here = min(ordered, key=lambda look: abs(look[0] - at_seconds))[1]
    own = [at for at, shot in ordered if shot == here]
    start = own[0] if any(at < own[0] for at, shot in ordered if shot != here) else 0.0
    end = own[-1] if any(at > own[-1] for at, shot in ordered if shot != here) else duration_seconds
    return start, end
