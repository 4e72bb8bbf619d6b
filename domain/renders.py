"""A slot's render: what was resolved for it, which routes it took, and how it ended."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from domain.applications import CharacterAtRender, CharacterRoute
from domain.jobs import BlobRef
from domain.records import Record


class RenderState(StrEnum):
    """State of a row in `renders`; equal to the SQL type `render_state`."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    WAITING = "waiting"


class SlotPlan(Record):
    """A slot's resolved plan, stored at its first render: a changed default never buys the slot again."""

    prompt: str
    video_model: str
    seconds: float
    aspect_ratio: str
    seed: int
    cast: tuple[CharacterAtRender, ...]
    routes: tuple[CharacterRoute, ...]
    scene_references: tuple[BlobRef, ...] = ()


class Slot(Record):
    """A slot of the season: already won, or to be rendered."""

    id: int
    season_id: int
    number: int
    prompt: str | None
    winning_clip_id: int | None
    entry: dict[str, Any]
    entry_sha256: str
    plan: SlotPlan | None = None


class Render(Record):
    """A row of `renders`."""

    id: int
    season_id: int
    slot_id: int
    slot_number: int
    state: RenderState
    video_model: str
    routes: tuple[CharacterRoute, ...]
    still_sha256: str | None
    clip_sha256: str | None
    job_key: str | None
    notes: tuple[str, ...]
    reason: str
    exit_code: int
    created_at: datetime
    finished_at: datetime | None
