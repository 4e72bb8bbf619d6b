"""`TrainingCuts` on this machine: Pillow reduces pictures, ffmpeg cuts clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from domain.captions import Surroundings
from domain.crops import CropPlan
from domain.errors import BadInput
from domain.looks import Bars
from domain.stretches import Stretch
from providers.media_cuts import cut_training_clip
from providers.picture_words import surroundings_of
from providers.ports import RgbImage


class LocalTrainingCuts:
    """See the port `TrainingCuts`. Holds nothing but the path of the ffmpeg program, so it is safe to share."""

    def __init__(self, ffmpeg: str) -> None:
        self._ffmpeg = ffmpeg

    def crop(self, image: RgbImage, plan: CropPlan) -> RgbImage:
        """The planned part at the planned size, by Lanczos over every pixel of it. About 30 ms from 1920×1080."""
        height, width, _ = image.shape
        box = plan.box
        if not (0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height) or plan.scale > 1:
            raise BadInput(
                f"The crop {box.left}, {box.top} to {box.right}, {box.bottom} at {plan.width}×{plan.height} does not "
                f"lie in a picture of {width}×{height}: plan it anew for this picture."
            )
        part = np.ascontiguousarray(image[box.top : box.bottom, box.left : box.right])
        if (plan.width, plan.height) == (box.width, box.height):
            return part
        reduced = Image.fromarray(part).resize((plan.width, plan.height), Image.Resampling.LANCZOS)
        return np.asarray(reduced, dtype=np.uint8)

    def cut_clip(
        self, path: Path, shown_size: tuple[int, int], stretch: Stretch, out: Path, bars: Bars | None = None
    ) -> None:
        cut_training_clip(self._ffmpeg, path, shown_size, stretch, out, bars)

    def surroundings(self, image: RgbImage) -> Surroundings:
        return surroundings_of(image)
