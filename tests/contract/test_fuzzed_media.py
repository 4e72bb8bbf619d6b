"""A sample of damaged clips, every container and codec: a result or one sentence, and never a harmed parent.

The two thousand are in tests/soak, under `make soak`.
"""

from __future__ import annotations

from pathlib import Path

from providers.media import FfmpegMediaTools
from providers.media_children import MediaChildren
from providers.media_limits import DecodingLimits
from tests.damaged_clips import KINDS
from tests.fuzzing import mishaps, try_damaged_clips

LATE_STREAM = 12794
"""An MPEG-TS whose damage makes another stream begin in its middle: PyAV's flush at the end raised IndexError."""

REOPENED = 9149
"""An MPEG-TS that cannot be sought and is opened again: reading the closed one's proportions crashed (SIGSEGV)."""

CHANGED_SIZE = 11185
"""Its picture changes size within a tenth of a second, so a burst could not be laid on top of itself."""


def test_damaged_clips_are_taken_or_refused_in_one_sentence(tmp_path: Path) -> None:
    children = MediaChildren(DecodingLimits(base_seconds=20))
    seeds = [*range(2 * len(KINDS)), LATE_STREAM, REOPENED, CHANGED_SIZE]
    outcomes = try_damaged_clips(FfmpegMediaTools("/bin/false", children), tmp_path, seeds)
    children.close()
    assert sum(outcomes.values()) == len(seeds)
    assert mishaps(outcomes) == {}
    assert 0 < outcomes["taken"] < len(seeds)
    assert len(outcomes) > 4, "the damage is of several kinds"
