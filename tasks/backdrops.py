"""A first frame that shows nobody, for judging LoRAs of models that film a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from domain.jobs import BlobRef

if TYPE_CHECKING:
    from providers.wiring import Ports

SIDE_PX = 1024
LIGHT, DARK = 196, 164
"""Grey from top to bottom: not so flat that it seems a broken picture, and nothing to mistake for anyone."""


def empty_backdrop(ports: Ports) -> BlobRef:
    """A plain grey studio wall, always the same bytes, in the store: 1024×1024. Free, safe to repeat.

    A model that films a picture would show whoever is in it, with a LoRA and without: what the LoRA itself can do is
    seen only where nobody was there before.
    """
    shade = np.linspace(LIGHT, DARK, SIDE_PX).round().astype(np.uint8)
    image = np.repeat(np.repeat(shade[:, None, None], SIDE_PX, axis=1), 3, axis=2)
    sha256 = ports.blobs.put_bytes(ports.media.png_bytes(image), "image/png")
    return BlobRef(sha256=sha256, media_type="image/png", file_name="backdrop.png")
