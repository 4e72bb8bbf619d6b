"""Damaged clips put through the media tools: what each came to, held to what may come of one."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from domain.errors import BadInput
from providers.media import FfmpegMediaTools
from tests.damaged_clips import damage, make_originals

MISHAPS = ("made the decoder", "was being decoded when", "took longer", "processor time", "of memory", "it led to")
"""Words of the sentences that say that a clip brought a decoding process down, or something nobody thought of."""


def try_damaged_clips(tools: FfmpegMediaTools, folder: Path, seeds: Iterable[int]) -> Counter[str]:
    """Harvest, or probe and read, a damaged clip for each seed; how often each outcome came, numbers left out.

    Fails on whatever is neither a result nor one good sentence. Two clips at a time.
    """
    originals = make_originals(folder)
    whole = [path.read_bytes() for path in originals]

    def try_one(seed: int) -> str:
        kind = seed % len(originals)
        clip = folder / f"{seed}-{originals[kind].name}"
        clip.write_bytes(damage(whole[kind], seed))
        harvest = folder / f"{seed}-harvest"
        try:
            if seed % 2:
                assert tools.harvest(clip, harvest, 4).looks
            else:
                assert tools.probe_clip(clip).width > 0
                assert tools.last_frame(clip).size > 0
        except BadInput as error:
            return _checked(error.message, clip)
        finally:
            shutil.rmtree(harvest, ignore_errors=True)
        clip.unlink()
        return "taken"

    with ThreadPoolExecutor(2) as threads:
        return Counter(threads.map(try_one, seeds))


def mishaps(outcomes: Counter[str]) -> dict[str, int]:
    """Of the outcomes those that are no judgement on the clip but an accident with it."""
    return {said: count for said, count in outcomes.items() if any(words in said for words in MISHAPS)}


def _checked(message: str, clip: Path) -> str:
    """The sentence without name and numbers; fails where it is not one good sentence."""
    assert message.startswith(f"{clip} "), message
    rest = message.removeprefix(f"{clip} ")
    assert rest.endswith("."), message
    assert "\n" not in rest, message
    assert not re.search(r"Traceback|Errno|0x|None\b", rest), message
    if not any(words in rest for words in MISHAPS):
        clip.unlink()  # what brought a decoder down stays, to be looked at
    return re.sub(r"\d[\d.,]*", "N", rest)
