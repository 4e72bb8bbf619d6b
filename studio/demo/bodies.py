"""Where things are on a body: proportions, limbs in a pose, the outline of the garment at any yaw."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from studio.demo.designs import Design, Face, Outfit, Pose
from studio.demo.ink import Colour, Points, Sheet, mix, smooth


class Body:
    """One person to draw: the sheet, who it is, and every length in heads."""

    def __init__(self, sheet: Sheet, design: Design, outfit: Outfit, face: Face, pose: Pose) -> None:
        self.sheet, self.design, self.outfit, self.face, self.pose = sheet, design, outfit, face, pose
        self.ahead = float(np.sin(np.radians(pose.yaw)))
        self.square = float(np.cos(np.radians(pose.yaw)))
        self.width = float(np.hypot(self.square, 0.66 * self.ahead))
        self.leg = 0.44 * design.heads_tall
        self.hip_y = -self.leg
        self.chin_y = -(design.heads_tall - 1.0)
        self.shoulder_y = self.chin_y + 0.17
        self.torso = self.hip_y - self.shoulder_y
        self.hem_y = self.hip_y + self.leg * design.hem
        self.coat = mix(design.garment_colour, (255, 240, 220), 0.08) if outfit.fade > 0.5 else design.garment_colour
        self.legs = {side: self._leg_points(side) for side in ("near", "far")}
        lowest = max(float(line[-1, 1]) for line in self.legs.values())
        self.root = np.array([0.0, -lowest - pose.bob])
        c, s = np.cos(np.radians(pose.lean)), np.sin(np.radians(pose.lean))
        self._turn = np.array([[c, s], [-s, c]])

    def put(self, p: Points) -> Points:
        """Upright body to the sheet: leaned about the hips, lifted so that the lower foot stands on the ground."""
        hips = np.array([0.0, self.hip_y])
        placed: Points = (p - hips) @ self._turn + hips + self.root
        return placed

    def accessory_colour(self) -> Colour:
        fade = self.outfit.fade
        return mix(self.design.accessory_colour, (255, 232, 214) if fade > 0 else (40, 10, 50), 0.26 * abs(fade))

    def front_x(self, y: float, offset: float = 0.0) -> float:
        """Where the garment's front middle (plus an offset as seen from the front) stands at height y."""
        right, left = self.sides
        rim_right = float(np.interp(y, right[:, 1], right[:, 0]))
        rim_left = float(np.interp(y, left[:, 1], left[:, 0]))
        half = (rim_right - rim_left) / 2
        x = (rim_right + rim_left) / 2 + half * 0.86 * self.ahead + offset * max(0.16, self.square)
        return min(max(x, rim_left + 0.06), rim_right - 0.06)

    @cached_property
    def outline(self) -> Points:
        right, left = self.sides
        middle = (right[-1] + left[-1]) / 2 + (0, 0.06)
        hem = smooth(
            np.array(
                [
                    right[-1],
                    (right[-1] + middle) / 2 + (0, 0.025),
                    middle,
                    (left[-1] + middle) / 2 + (0, 0.025),
                    left[-1],
                ]
            ),
            closed=False,
        )
        return np.concatenate([right, hem[1:-1], left[::-1]])

    @cached_property
    def sides(self) -> tuple[Points, Points]:
        """Right and left edge of the garment from neck to hem."""
        design = self.design
        knees = [float(line[1, 0]) for line in self.legs.values()]
        reach = 0.62 * design.hem
        stride_right, stride_left = max(0.0, max(knees)) * reach, min(0.0, min(knees)) * reach
        hem = design.hip * design.flare * (1 + 0.35 * design.hem)
        sway = self.pose.sway
        chest_y, waist_y = self.shoulder_y + 0.36 * self.torso, self.shoulder_y + 0.70 * self.torso
        front = design.belly * (0.25 + 0.9 * self.ahead)
        back = design.belly * 0.25 * self.square
        y = [
            self.chin_y + 0.06,
            self.shoulder_y - 0.035,
            self.shoulder_y + 0.10,
            chest_y,
            waist_y,
            self.hip_y,
            self.hem_y,
        ]
        w = [0.15, design.shoulder * 0.72, design.shoulder, design.shoulder * 0.90, design.waist, design.hip, hem]
        x = np.array(w) * self.width
        right = np.stack(
            [x + np.array([0, 0, 0, front * 0.6, front, front * 0.5, stride_right + 0.4 * sway]), y], axis=1
        )
        left = np.stack([-x - np.array([0, 0, 0, back * 0.6, back, back * 0.5, -stride_left - 0.7 * sway]), y], axis=1)
        return smooth(right, closed=False), smooth(left, closed=False)

    def _leg_points(self, side: str) -> Points:
        pose, design = self.pose, self.design
        thigh, shin = pose.near_leg if side == "near" else pose.far_leg
        sign = -1.0 if side == "near" else 1.0
        hip = np.array([sign * design.hip * 0.48 * (0.25 + 0.75 * self.square), self.hip_y])
        half = self.leg / 2
        knee = hip + half * np.array([np.sin(np.radians(thigh)), np.cos(np.radians(thigh))])
        ankle = knee + half * np.array([np.sin(np.radians(shin)), np.cos(np.radians(shin))])
        return np.array([hip, knee, ankle])
