"""Where things are on a head: its outline at any yaw, and points on the ellipsoid that all features lie on.

A point at angle `theta` around the head (0 is the nose, 90 the far ear) appears at x = radius * sin(theta + yaw),
so that one description serves every view from front (0) to profile (85 degrees).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from studio.demo.designs import Design, Face, Outfit
from studio.demo.ink import Colour, Points, Sheet, mix, points, smooth

_FRONT: Final = points(
    (0, -0.50), (0.25, -0.455), (0.385, -0.27), (0.405, -0.08), (0.40, 0.08), (0.375, 0.20), (0.32, 0.31), (0.25, 0.39),
    (0.14, 0.47), (0, 0.50), (-0.14, 0.47), (-0.29, 0.345), (-0.385, 0.16), (-0.405, -0.12), (-0.27, -0.44),
)  # fmt: skip
_QUARTER: Final = points(
    (0, -0.50), (0.25, -0.45), (0.375, -0.28), (0.362, -0.09), (0.392, 0.06), (0.37, 0.18), (0.325, 0.29),
    (0.285, 0.38), (0.215, 0.465), (0.10, 0.50), (-0.06, 0.46), (-0.24, 0.34),
    (-0.37, 0.13), (-0.425, -0.14), (-0.28, -0.43),
)  # fmt: skip
_PROFILE: Final = points(
    (0, -0.50), (0.24, -0.44), (0.37, -0.26), (0.375, -0.06), (0.47, 0.12), (0.385, 0.175), (0.40, 0.26), (0.355, 0.33),
    (0.35, 0.43), (0.23, 0.495), (0.05, 0.455), (-0.11, 0.37), (-0.32, 0.16), (-0.43, -0.13), (-0.29, -0.42),
)  # fmt: skip
_RADIUS: Final = 0.40


def _between(front: Points, quarter: Points, profile: Points, yaw: float) -> Points:
    if yaw <= 40:
        return front + (quarter - front) * (yaw / 40)
    return quarter + (profile - quarter) * min(1.0, (yaw - 40) / 45)


class Head:
    """One head to draw: the sheet, whose it is, and the point and angle it is placed at."""

    def __init__(
        self, sheet: Sheet, design: Design, outfit: Outfit, face: Face, yaw: float, at: tuple[float, float], tilt: float
    ) -> None:
        self.sheet, self.design, self.outfit, self.face, self.yaw = sheet, design, outfit, face, yaw
        self._feature_yaw = float(np.interp(yaw, [0, 40, 85], [0, 31, 82]))
        self._at = np.array(at)
        c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
        self._turn = np.array([[c, s], [-s, c]])
        nose = 0.6 + 0.8 * design.nose
        profile = _PROFILE.copy()
        profile[4, 0] = 0.375 + (profile[4, 0] - 0.375) * nose
        self.skull = self._wide(smooth(_between(_FRONT, _QUARTER, profile, yaw)))

    def put(self, p: Points) -> Points:
        """Head coordinates (centre of the head, one head high) to the sheet's."""
        placed: Points = (p - (0, 0.5)) @ self._turn + self._at
        return placed

    def x_at(self, theta: float, radius: float = _RADIUS) -> float:
        """Where the meridian `theta` (degrees) stands in this view."""
        return float(radius * self.design.head_width * np.sin(np.radians(theta + self._feature_yaw)))

    def facing(self, theta: float) -> float:
        """How squarely the meridian faces us: 1 fully, 0 or less hidden."""
        return float(np.cos(np.radians(theta + self._feature_yaw)))

    def _wide(self, p: Points) -> Points:
        return p * (self.design.head_width, 1.0)


def band_around(head: Head, top: float, bottom: float, radius: float, bow: float) -> Points:
    """A ribbon around the visible half of the head; `bow` curves it downwards in the middle."""
    phi = np.radians(np.linspace(-90, 90, 19))
    x = radius * head.design.head_width * np.sin(phi)
    upper = np.stack([x, top + bow * np.cos(phi)], axis=1)
    lower = np.stack([x[::-1], bottom + bow * np.cos(phi[::-1])], axis=1)
    return np.concatenate([upper, lower])


def accessory_colour(head: Head) -> Colour:
    fade = head.outfit.fade
    return mix(head.design.accessory_colour, (255, 246, 232) if fade > 0 else (30, 18, 50), 0.28 * abs(fade))
