"""Which vendor does a season's work, and where a rehearsal puts the sandbox in its place."""

from __future__ import annotations

from typing import Literal

from domain.seasons import Season

SANDBOX = "sandbox"
SANDBOX_SPEAKS_AS = "fal"
"""The season's default vendor `sandbox` speaks fal's protocol, so it has fal's models."""

Work = Literal["train", "image", "video"]
WORKS: tuple[Work, ...] = ("train", "image", "video")


def vendors_for(season: Season, work: Work) -> tuple[str, ...]:
    """The vendors of the manifest for this kind of work, each once, in order of preference; a rehearsal has only the
    sandbox."""
    chosen: tuple[str, ...] = getattr(season.vendor, work)
    return (SANDBOX,) if season.is_simulated else tuple(dict.fromkeys(chosen))


def vendor_for(season: Season, work: Work) -> str:
    """The vendor that is asked first."""
    return vendors_for(season, work)[0]


def catalogue_of(vendor: str) -> str:
    """Whose models a vendor has."""
    return SANDBOX_SPEAKS_AS if vendor == SANDBOX else vendor
