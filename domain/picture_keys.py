"""Under which key a person's word about a picture is filed: where it was taken from, so it survives a new harvest."""

from __future__ import annotations


def key_of_frame(clip_id: int, at_seconds: float) -> str:
    """`clip:<id>@<seconds>`, to the millisecond."""
    return f"clip:{clip_id}@{at_seconds:.3f}"


def key_of_still(sha256: str) -> str:
    """`still:<sha256>`."""
    return f"still:{sha256}"
