"""Which vendor does a season's work, and where a rehearsal puts the sandbox in its place."""

from __future__ import annotations

from typing import Literal

from domain.seasons import Season

SANDBOX = "sandbox"
SANDBOX_SPEAKS_AS = "fal"
"""The season's default vendor `sandbox` speaks fal's protocol, so it has fal's models."""

Work = Literal["train", "image", "video"]
WORKS: tuple[Work, ...] = ("train", "image", "video")


def vendor_for(season: Season, work: Work) -> str:
    """The first vendor of the manifest for this kind of work; the sandbox when the season is a rehearsal."""
    chosen: tuple[str, ...] = getattr(season.vendor, work)
    return SANDBOX if season.is_simulated else chosen[0]


def catalogue_of(vendor: str) -> str:
    """Whose models a vendor has."""
    return SANDBOX_SPEAKS_AS if vendor == SANDBOX else vendor
