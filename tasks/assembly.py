"""Assembly: every slot's clip in order, brought to one size and rate, and the gaps named."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.costs import free_step
from domain.jobs import Stage
from providers.ports import SeasonClip
from providers.wiring import open_ports
from tasks.season_facts import clips_of_season

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.assembly")

SEASON_WIDTH, SEASON_HEIGHT, SEASON_RATE = 1280, 720, 24


def assemble_season(ports: Ports, season_id: int) -> str | None:
    """Assemble the season's video; its SHA-256, or None when no slot has a clip. Safe to repeat. Free."""
    clips = clips_of_season(ports, season_id)
    is_complete = not _unfinished(ports, season_id)
    if not clips:
        ports.seasons.finish(season_id, video_sha256=None, video_seconds=None, is_complete=is_complete)
        return None
    with tempfile.TemporaryDirectory(dir=ports.scratch()) as folder:
        out = Path(folder) / "season.mp4"
        facts = ports.media.assemble(
            [SeasonClip(slot_number=clip.slot_number, path=ports.blobs.local_path(clip.sha256)) for clip in clips],
            out,
            width=SEASON_WIDTH,
            height=SEASON_HEIGHT,
            frames_per_second=SEASON_RATE,
        )
        sha256 = ports.blobs.put_file(out, "video/mp4")
    ports.ledger.log_cost(
        free_step(season_id, Stage.ASSEMBLY, "ffmpeg", "done on this machine", f"assembly:{season_id}:{sha256}")
    )
    ports.seasons.finish(season_id, video_sha256=sha256, video_seconds=facts.duration_seconds, is_complete=is_complete)
    log.info("season assembled: %d clips, %.1f s", len(clips), facts.duration_seconds)
    return sha256


def _unfinished(ports: Ports, season_id: int) -> list[int]:
    """Slots that were to be rendered and have no clip."""
    have = {clip.slot_number for clip in clips_of_season(ports, season_id)}
    return [slot.number for slot in ports.seasons.slots(season_id) if slot.number not in have]


@task(name="assemble-season", cache_policy=NO_CACHE)
def assemble_season_task(season_id: int) -> str | None:
    """Bring the season's clips together."""
    return assemble_season(open_ports(), season_id)
