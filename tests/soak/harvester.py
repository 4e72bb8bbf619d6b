"""A process of its own that harvests clips one after the other and says what it does: `HOME DATABASE_URL CLIP_ID…`.

Prints a line of JSON for each clip once it is finished, with what was decoded for it and the memory held then.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from domain.looks import Harvest
from providers.media import FfmpegMediaTools, find_ffmpeg
from providers.media_children import MediaChildren
from tasks.frames import harvest_clip
from tests.ports_for_tests import PortsForTests, settings_for_tests


class CountingTools(FfmpegMediaTools):
    """The real tools; they remember how often they harvested, and which processes did the decoding."""

    def __init__(self) -> None:
        self.children = MediaChildren()
        super().__init__(find_ffmpeg(), self.children)
        self.harvests = 0

    def harvest(self, path: Path, folder: Path, wanted: int) -> Harvest:
        self.harvests += 1
        return super().harvest(path, folder, wanted)


def held_bytes(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(home: str, database_url: str, *clip_ids: str) -> None:
    ports = PortsForTests(settings_for_tests(Path(home), database_url), {})
    tools = CountingTools()
    ports.__dict__["media"] = tools
    for clip_id in map(int, clip_ids):
        before = tools.harvests
        kept = harvest_clip(ports, clip_id)
        children = tools.children.process_ids()
        line = {
            "clip_id": clip_id,
            "kept": kept,
            "harvests": tools.harvests - before,
            "own_bytes": held_bytes(os.getpid()),
            "child_bytes": {child: held_bytes(child) for child in children},
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    ports.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
