"""Faces by dlib's histogram-of-gradients detector: where a face is, and which of its five parts saw it.

The detector is part of the library (Boost licence) and needs no weights of its own. It was trained on photographs of
faces that look into the camera or a little past it; profiles it does not see, and of drawn faces only some
(measured by benchmarks/subjects.py). Its parts, in order: frontal, turned left, turned right, and frontal turned by
about 30 degrees in the plane, left and right.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from domain.pictures import Box, View
from providers.ports import RgbImage

WORKING_SIDE = 768
"""Longest side in pixels that is searched; the smallest face it sees there is 80 px (dlib), a ninth of 720 lines."""

SURE_FROM = 0.0
"""The detector's own threshold."""

_VIEWS = (View.FRONTAL, View.THREE_QUARTER, View.THREE_QUARTER, View.FRONTAL, View.FRONTAL)


@dataclass(frozen=True, slots=True)
class Face:
    """A face in the picture's pixels; `score` is the detector's margin, 0 and up."""

    box: Box
    view: View
    score: float


class FaceFinder:
    """Finds faces that look at us or nearly. Opening it costs about 0.1 s once. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def faces(self, image: RgbImage) -> list[Face]:
        """Every face, the surest first; about 30 ms at 768 px. Deterministic."""
        scale = min(1.0, WORKING_SIDE / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) if scale < 1 else image
        # The detector keeps its pyramid between calls and lets go of the interpreter: two at once crash the process.
        with self._lock:
            found, scores, parts = self._detector.run(np.ascontiguousarray(small), 0, SURE_FROM)
        faces = [
            Face(_box(place, scale, image), _VIEWS[int(part)], float(score))
            for place, score, part in zip(found, scores, parts, strict=True)
        ]
        return sorted(faces, key=lambda face: (-face.score, face.box.left, face.box.top))

    @cached_property
    def _detector(self) -> Any:
        import dlib

        return dlib.get_frontal_face_detector()


def _box(place: Any, scale: float, image: RgbImage) -> Box:
    height, width = image.shape[:2]
    left, top = (max(0, round(side / scale)) for side in (place.left(), place.top()))
    return Box(
        left=min(left, width - 1),
        top=min(top, height - 1),
        right=min(width, round((place.right() + 1) / scale)),
        bottom=min(height, round((place.bottom() + 1) / scale)),
    )
