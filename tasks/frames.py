"""Frames: from a winning clip, the sharp, well-lit and distinct ones, spread over its shots.

What makes a frame good is judged in `domain/frame_rules.py`, while the clip is read (`MediaTools.harvest`).
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.clips import Clip, Frame
from domain.costs import free_step
from domain.frame_rules import RULES_VERSION, wanted_frames
from domain.jobs import Stage
from domain.looks import Look
from providers.wiring import open_ports

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.frames")

FEW_KEPT = 3


def harvest_clip(ports: Ports, clip_id: int) -> int:
    """Judge a clip's frames and keep the good ones; returns how many are kept.

    Safe to repeat: a clip is decoded once, whatever it gave, until the rules change. Memory does not grow with the
    clip: pictures come as files, one at a time. Free. `BadInput` when the clip cannot be read within its limits.
    """
    clip = ports.seasons.clip(clip_id)
    known = ports.cast.kept_count(clip_id, RULES_VERSION)
    if known is not None:
        _log_free(ports, clip)
        return known
    path = ports.blobs.local_path(clip.sha256)
    with tempfile.TemporaryDirectory(dir=ports.scratch(), prefix="harvest-") as folder:
        harvest = ports.media.harvest(path, Path(folder), wanted_frames(clip.duration_seconds))
        frames = [_frame(ports, clip, look, Path(folder)) for look in harvest.looks]
    if clip.last_frame_url is None:
        last = ports.blobs.put_bytes(ports.media.png_bytes(ports.media.last_frame(path)), "image/png")
        ports.seasons.set_last_frame(clip_id, ports.blobs.url(last))
    ports.cast.keep_harvest(clip_id, RULES_VERSION, harvest, frames)
    _log_free(ports, clip)
    kept = sum(frame.is_kept for frame in frames)
    log.info("%s: %d of %d frames kept%s", clip.source_name, kept, len(frames), why_so_few(harvest.looks))
    return kept


def _log_free(ports: Ports, clip: Clip) -> None:
    """Once per clip, also where the process died between the frames and this line."""
    step = free_step(clip.season_id, Stage.FRAMES, "onmodel", "done on this machine", f"frames:{clip.id}")
    ports.ledger.log_cost(step)


def why_so_few(looks: Sequence[Look]) -> str:
    """The commonest reason, where nothing or next to nothing of a clip was kept; '' where enough was."""
    kept = sum(look.is_kept for look in looks)
    if kept >= FEW_KEPT or kept == len(looks):
        return ""
    reason, count = Counter(look.reason.split(" (")[0] for look in looks if look.reason).most_common(1)[0]
    return f"; {count} are {reason}" if not reason.startswith("nearly") else f"; {count} are nearly alike"


def _frame(ports: Ports, clip: Clip, look: Look, folder: Path) -> Frame:
    """A look as it is stored: its picture and thumbnail in our store."""
    return Frame(
        clip_id=clip.id,
        at_seconds=look.measures.at_seconds,
        sha256=ports.blobs.put_file(folder / look.picture, "image/jpeg") if look.picture else None,
        width=look.width,
        height=look.height,
        sharpness=look.measures.sharpness,
        brightness=look.measures.brightness,
        hash64=look.measures.hash64,
        is_kept=look.is_kept,
        reason=look.reason,
        media_type="image/jpeg",
        thumbnail_sha256=ports.blobs.put_file(folder / look.thumbnail, "image/jpeg"),
        shot=look.shot,
        mark=look.mark,
    )


@task(name="harvest-clip", cache_policy=NO_CACHE)
def harvest_clip_task(clip_id: int) -> int:
    """Judge and keep a clip's frames."""
    return harvest_clip(open_ports(), clip_id)
