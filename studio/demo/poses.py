"""How people stand, walk, run, wave and look, as poses over a phase of 0 to 1."""

from __future__ import annotations

import numpy as np

from studio.demo.designs import Pose

VIEWS: dict[str, float] = {"front": 0.0, "three_quarter": 40.0, "profile": 85.0}
"""The named views as yaw in degrees."""


def _wave(phase: float, shift: float = 0.0) -> float:
    return float(np.sin(2 * np.pi * (phase + shift)))


def stand(yaw: float, phase: float = 0.0) -> Pose:
    """At ease; the phase breathes."""
    breath = _wave(phase)
    square = float(np.cos(np.radians(yaw)))
    return Pose(
        yaw=yaw,
        head_yaw=yaw,
        near_arm=(-14 * square - 3 + breath, -8 * square + 9 * (1 - square)),
        far_arm=(14 * square + 3 - breath, 8 * square + 12 * (1 - square)),
        near_leg=(-4 * square - 2, -1),
        far_leg=(4 * square + 3, 1),
        sway=0.03 * breath,
    )


def on_hip(yaw: float, phase: float = 0.0) -> Pose:
    """One hand on the hip, weight on one leg."""
    return stand(yaw, phase).model_copy(update={"near_arm": (-48.0, 42.0), "lean": -1.5, "head_tilt": -4.0})


def pockets(yaw: float, phase: float = 0.0) -> Pose:
    """Hands in the coat, shoulders a little forward."""
    return stand(yaw, phase).model_copy(update={"near_arm": (-24.0, 22.0), "far_arm": (24.0, -18.0), "head_tilt": 2.0})


def wave(yaw: float, phase: float = 0.0) -> Pose:
    """A raised, swinging hand."""
    return stand(yaw, phase).model_copy(
        update={
            "far_arm": (112.0 + 4 * _wave(phase), 168.0 + 20 * _wave(phase)),
            "has_open_hand": True,
            "head_tilt": 4.0,
        }
    )


def point(yaw: float, phase: float = 0.0) -> Pose:
    """An arm stretched out to the right of the picture."""
    return stand(yaw, phase).model_copy(
        update={"far_arm": (84.0 + 3 * _wave(phase), 94.0), "lean": 3.0, "head_yaw": min(85.0, yaw + 25)}
    )


def cheer(yaw: float, phase: float = 0.0) -> Pose:
    """Both arms up, hopping."""
    hop = max(0.0, _wave(phase))
    return stand(yaw, phase).model_copy(
        update={
            "near_arm": (-130.0, -165.0 - 10 * hop),
            "far_arm": (130.0, 165.0 + 10 * hop),
            "near_leg": (-8.0 - 8 * hop, -2.0 + 6 * hop),
            "far_leg": (8.0 + 8 * hop, 2.0 - 6 * hop),
            "has_open_hand": True,
            "bob": 0.22 * hop,
        }
    )


def think(yaw: float, phase: float = 0.0) -> Pose:
    """A hand at the chin."""
    return stand(yaw, phase).model_copy(update={"near_arm": (12.0, 148.0), "far_arm": (-8.0, -66.0), "head_tilt": -5.0})


def walk(yaw: float, phase: float) -> Pose:
    """One full cycle of two steps per phase."""
    swing, lift = _wave(phase), np.cos(2 * np.pi * phase)
    near, far = 27 * swing, -27 * swing
    return Pose(
        yaw=yaw,
        head_yaw=yaw,
        near_leg=(near, near - 12 - 26 * max(0.0, float(-lift)) if lift < 0 else near - 8),
        far_leg=(far, far - 12 - 26 * max(0.0, float(lift)) if lift > 0 else far - 8),
        near_arm=(-30 * swing, -30 * swing + 18),
        far_arm=(30 * swing, 30 * swing + 18),
        lean=3.0,
        bob=0.04 * abs(float(lift)),
        sway=-0.05 - 0.04 * swing,
        head_tilt=1.5 * swing,
    )


def run(yaw: float, phase: float) -> Pose:
    """Running, with both feet off the ground twice per cycle."""
    swing, lift = _wave(phase), np.cos(2 * np.pi * phase)
    near, far = 46 * swing + 8, -46 * swing + 8
    return Pose(
        yaw=yaw,
        head_yaw=yaw,
        near_leg=(near, near - 25 - 55 * max(0.0, float(-lift))),
        far_leg=(far, far - 25 - 55 * max(0.0, float(lift))),
        near_arm=(-52 * swing, -52 * swing + 82),
        far_arm=(52 * swing, 52 * swing + 82),
        lean=11.0,
        bob=0.14 * abs(swing),
        sway=-0.16 - 0.06 * float(lift),
    )
