"""Frames: from a winning clip, the sharp, well-lit and distinct ones, spread over its length.

Thresholds: a frame every 0.5 s at most (waifuc, curation_and_identity.md section 1); blur is judged within one clip,
because no sharpness scale holds across clips (embedded_parts.md section 4); near-duplicates by dHash distance ≤ 8 of 64
(LoRA Dataset Studio), the sharpest of each group kept.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.clips import Clip, Frame
from domain.costs import free_step
from domain.jobs import Stage
from domain.training_sets import EVERY_SECONDS, KEPT_PER_CLIP
from providers.wiring import open_ports

if TYPE_CHECKING:
    from providers.ports import SampledFrame
    from providers.wiring import Ports

log = logging.getLogger("onmodel.frames")

LONGEST_SAMPLED_SECONDS = 120.0
BLUR_SHARE_OF_MEDIAN = 0.35
DARKEST, BRIGHTEST = 0.10, 0.96
DUPLICATE_BITS = 8
FEW_KEPT = 3


def harvest_clip(ports: Ports, clip_id: int) -> int:
    """Judge a clip's frames and keep the good ones; returns how many are kept.

    Safe to repeat: a clip is decoded once, its frames stay in the database. Free.
    """
    clip = ports.seasons.clip(clip_id)
    known = ports.cast.frames(clip_id)
    if known:
        return sum(frame.is_kept for frame in known)
    path = ports.blobs.local_path(clip.sha256)
    step = max(EVERY_SECONDS, clip.duration_seconds / (LONGEST_SAMPLED_SECONDS / EVERY_SECONDS))
    samples = list(ports.media.sample_frames(path, step))
    reasons = judge_samples(samples)
    frames = [_frame(ports, clip, sample, reason) for sample, reason in zip(samples, reasons, strict=True)]
    ports.cast.keep_frames(frames)
    if clip.last_frame_url is None:
        last = ports.blobs.put_bytes(ports.media.png_bytes(ports.media.last_frame(path)), "image/png")
        ports.seasons.set_last_frame(clip_id, ports.blobs.url(last))
    ports.ledger.log_cost(
        free_step(clip.season_id, Stage.FRAMES, "onmodel", "done on this machine", f"frames:{clip_id}")
    )
    kept = sum(frame.is_kept for frame in frames)
    log.info("%s: %d of %d frames kept%s", clip.source_name, kept, len(frames), _why_so_few(kept, reasons))
    return kept


def _why_so_few(kept: int, reasons: list[str]) -> str:
    """The commonest reason, where nothing or next to nothing of a clip was kept."""
    if kept >= FEW_KEPT or kept == len(reasons):
        return ""
    reason, count = Counter(reason.split(" (")[0] for reason in reasons if reason).most_common(1)[0]
    return f"; {count} are {reason}" if not reason.startswith("nearly") else f"; {count} are nearly alike"


def judge_samples(samples: Sequence[SampledFrame]) -> list[str]:
    """For each frame '' when it is kept, or why it is dropped. Pure; frames in order of time."""
    if not samples:
        return []
    typical = median(sample.sharpness for sample in samples)
    reasons = [_flaw(sample, typical) for sample in samples]
    order = sorted((i for i, reason in enumerate(reasons) if not reason), key=lambda i: -samples[i].sharpness)
    chosen: list[int] = []
    for i in order:
        twin = next((k for k in chosen if (samples[i].hash64 ^ samples[k].hash64).bit_count() <= DUPLICATE_BITS), None)
        if twin is not None:
            reasons[i] = f"nearly the same as the frame at {samples[twin].at_seconds:.1f} s"
        else:
            chosen.append(i)
    for i in _surplus(chosen, len(samples)):
        reasons[i] = f"the clip has enough: {KEPT_PER_CLIP} frames spread over it are kept"
    return reasons


def _flaw(sample: SampledFrame, typical_sharpness: float) -> str:
    if sample.brightness < DARKEST:
        return f"too dark (brightness {sample.brightness:.2f}, at least {DARKEST:.2f})"
    if sample.brightness > BRIGHTEST:
        return f"too bright (brightness {sample.brightness:.2f}, at most {BRIGHTEST:.2f})"
    if sample.sharpness < BLUR_SHARE_OF_MEDIAN * typical_sharpness:
        return f"blurred (sharpness {sample.sharpness:.0f}, the clip's median is {typical_sharpness:.0f})"
    return ""


def _surplus(chosen: list[int], count: int) -> list[int]:
    """Of the chosen, those beyond the quota when each stretch of the clip gets its share."""
    if len(chosen) <= KEPT_PER_CLIP:
        return []
    buckets: dict[int, list[int]] = {}
    for i in chosen:
        buckets.setdefault(i * KEPT_PER_CLIP // count, []).append(i)
    ranked = [i for rank in range(count) for bucket in sorted(buckets) for i in buckets[bucket][rank : rank + 1]]
    return ranked[KEPT_PER_CLIP:]


def _frame(ports: Ports, clip: Clip, sample: SampledFrame, reason: str) -> Frame:
    height, width = sample.image.shape[:2]
    sha256 = None if reason else ports.blobs.put_bytes(ports.media.png_bytes(sample.image), "image/png")
    signed = sample.hash64 - (1 << 64) if sample.hash64 >= 1 << 63 else sample.hash64
    return Frame(
        clip_id=clip.id,
        at_seconds=sample.at_seconds,
        sha256=sha256,
        width=width,
        height=height,
        sharpness=sample.sharpness,
        brightness=sample.brightness,
        hash64=signed,
        is_kept=not reason,
        reason=reason,
    )


@task(name="harvest-clip", cache_policy=NO_CACHE)
def harvest_clip_task(clip_id: int) -> int:
    """Judge and keep a clip's frames."""
    return harvest_clip(open_ports(), clip_id)
