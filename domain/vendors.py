"""Which vendor does a season's work, and where a rehearsal puts the sandbox in its place."""

from __future__ import annotations

from typing import Literal

from domain.seasons import Season

SANDBOX = "sandbox"
SANDBOX_SPEAKS_AS = "fal"
"""The season's default vendor `sandbox` speaks fal's protocol, so it has fal's models."""

STAND_INS = {
    SANDBOX: SANDBOX_SPEAKS_AS,
    "sandbox-replicate": "replicate",
    "sandbox-runpod": "runpod",
    "sandbox-comfyui": "comfyui",
    "sandbox-local": "local",
}
"""The sandbox's parts, each in one vendor's words, and whose."""

Work = Literal["train", "image", "video"]
WORKS: tuple[Work, ...] = ("train", "image", "video")


def vendors_for(season: Season, work: Work) -> tuple[str, ...]:
    """The vendors of the manifest for this kind of work, each once, in order of preference; in a rehearsal the
    sandbox's stand-ins for them."""
    chosen: tuple[str, ...] = getattr(season.vendor, work)
    return tuple(dict.fromkeys(stand_in_of(vendor) if season.is_simulated else vendor for vendor in chosen))


def vendor_for(season: Season, work: Work) -> str:
    """The vendor that is asked first."""
    return vendors_for(season, work)[0]


def catalogue_of(vendor: str) -> str:
    """Whose models a vendor has."""
    return STAND_INS.get(vendor, vendor)


def catalogues_for(season: Season, work: Work) -> tuple[str, ...]:
    """Whose models the season's vendors for this work have, in order of preference."""
    return tuple(dict.fromkeys(catalogue_of(vendor) for vendor in vendors_for(season, work)))


def is_stand_in(vendor: str) -> bool:
    """Whether this is a part of the sandbox, where nothing costs."""
    return vendor in STAND_INS


def stand_in_of(vendor: str) -> str:
    """The part of the sandbox that plays this vendor; itself for what is one already."""
    return next((name for name, played in STAND_INS.items() if vendor in (name, played)), vendor)
