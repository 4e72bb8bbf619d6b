"""How long stored clips are, measured once on this machine: a digest's length never changes.

Reading a clip takes about a tenth of a second; a season has up to 75, and `onmodel status` asks for all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.whole_files import whole_file

if TYPE_CHECKING:
    from providers.wiring import Ports

FILE = "clip-lengths.json"


def clip_lengths(ports: Ports, sha256s: Sequence[str]) -> list[float]:
    """Seconds of each clip, by its digest. `BadInput` when one is not in the store. Free, safe to repeat.

    What was measured is remembered in the home; a memory that is lost, spoilt or cannot be written is measured again.
    """
    path = ports.settings.home / FILE
    known = _remembered(path)
    new = {sha256: _measure(ports, sha256) for sha256 in dict.fromkeys(sha256s) if sha256 not in known}
    if new:
        # Somebody else may have measured meanwhile: theirs is kept as far as it is there by now.
        with suppress(OSError):
            ports.settings.home.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as stream:
                stream.write(json.dumps({**_remembered(path), **new}).encode())
    return [new[sha256] if sha256 in new else known[sha256] for sha256 in sha256s]


def _measure(ports: Ports, sha256: str) -> float:
    return ports.media.probe_clip(ports.blobs.local_path(sha256)).duration_seconds


def _remembered(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        sha256: float(seconds)
        for sha256, seconds in found.items()
        if isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0
    }
