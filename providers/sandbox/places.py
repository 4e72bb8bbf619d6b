"""Names that the sandbox's parts and their clients share."""

from __future__ import annotations

import re

HANDOVER_HOST = "handover.onmodel.sandbox"
"""No vendor's: where a rehearsal's rented machines read and leave their files."""

RUNPOD_HOST = "api.runpod.io"
SERVERLESS_HOST = "api.runpod.ai"
RENTED_HOSTS = frozenset({RUNPOD_HOST, SERVERLESS_HOST, HANDOVER_HOST})
"""What an adapter of rented machines reaches in a rehearsal."""

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")


def plain_segment(text: str) -> bool:
    """Whether this is one plain segment of a path."""
    return _SEGMENT.fullmatch(text) is not None
