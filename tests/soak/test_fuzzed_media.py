"""Two thousand damaged clips: no hang, no crash, one sentence each. ONMODEL_TEST_FUZZED chooses how many."""

from __future__ import annotations

import os
from pathlib import Path

from providers.media import FfmpegMediaTools
from providers.media_children import MediaChildren
from providers.media_limits import DecodingLimits
from tests.fuzzing import mishaps, try_damaged_clips


def test_two_thousand_damaged_clips_are_taken_or_refused_in_one_sentence(tmp_path: Path) -> None:
    count = int(os.environ.get("ONMODEL_TEST_FUZZED", "2000"))
    children = MediaChildren(DecodingLimits(base_seconds=20))
    outcomes = try_damaged_clips(FfmpegMediaTools("/bin/false", children), tmp_path, range(count))
    children.close()
    print(*(f"{number:6} {said}" for said, number in outcomes.most_common()), sep="\n")  # noqa: T201 - read with -s
    assert sum(outcomes.values()) == count
    assert mishaps(outcomes) == {}
    assert outcomes["taken"] > count / 4
    assert len(outcomes) > 10
