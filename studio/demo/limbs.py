"""Draws legs, boots, arms and hands."""

from __future__ import annotations

import numpy as np

from studio.demo.bodies import Body
from studio.demo.designs import Garment
from studio.demo.ink import Points, ellipse, light_of, mix, moved, points, shadow_of, smooth, tube


def draw_leg(body: Body, side: str) -> None:
    design = body.design
    joints = body.legs[side] + body.root
    colour = design.legs_colour if side == "near" or body.pose.yaw < 20 else shadow_of(design.legs_colour)
    shoe = (
        design.shoe_colour
        if side == "near" or body.pose.yaw < 20
        else mix(design.shoe_colour, shadow_of(design.shoe_colour), 0.6)
    )
    line = smooth(joints, closed=False)
    thick = design.hip * 0.42
    body.sheet.part(tube(line, [thick, thick * 0.82, thick * 0.66]), colour, shade=0.06)
    ankle, knee = joints[2], joints[1]
    up = (knee - ankle) / np.hypot(*(knee - ankle))
    top = ankle + up * design.boot_height
    shaft = tube(np.linspace(top, ankle, 5), [thick * 0.86, thick * 0.78])
    sole = np.degrees(np.arctan2(up[0], -up[1])) * 0.75
    sign = -1.0 if side == "near" else 1.0
    toe = 0.17 * body.ahead + 0.05 * sign * body.square
    length = 0.15 + 0.10 * abs(body.ahead)
    foot = smooth(
        points(
            (-0.14, -0.10),
            (toe, -0.13),
            (toe + length * 0.8, -0.05),
            (toe + length * 0.85, 0.035),
            (0, 0.05),
            (-0.15, 0.045),
        )
    )
    if body.square > 0.9:
        ball = points((-0.15, -0.1), (0, -0.15), (0.15, -0.1), (0.17, 0.02), (0.1, 0.06), (-0.1, 0.06), (-0.17, 0.02))
        foot = moved(smooth(ball), 0.05 * sign, 0)
    c, s = np.cos(np.radians(sole)), np.sin(np.radians(sole))
    foot = foot @ np.array([[c, s], [-s, c]]) + ankle + (0, -0.03)
    body.sheet.part(foot, shoe, shade=0.035)
    body.sheet.part(shaft, shoe, shade=0.05)
    body.sheet.flat(
        tube(np.linspace(top - up * 0.05, top + up * 0.01, 3), [thick * 0.84, thick * 0.84])[[0, 1, 2, -3, -2, -1]],
        light_of(shoe),
    )


def draw_arm(body: Body, side: str) -> None:
    design, pose = body.design, body.pose
    upper, fore = pose.near_arm if side == "near" else pose.far_arm
    sign = -1.0 if side == "near" else 1.0
    shoulder = np.array(
        [
            sign * (design.shoulder - 0.12) * body.square * (1.0 if body.square > 0.9 else 0.9),
            body.shoulder_y + 0.15,
        ]
    )
    if side == "near":
        shoulder += (0.02 * body.ahead, 0.02)
    half = (body.torso + 0.42) / 2
    elbow = shoulder + half * np.array([np.sin(np.radians(upper)), np.cos(np.radians(upper))])
    wrist = elbow + half * np.array([np.sin(np.radians(fore)), np.cos(np.radians(fore))])
    is_far = side == "far" and pose.yaw > 20
    sleeve = mix(body.coat, shadow_of(body.coat), 0.55) if is_far else body.coat
    thick = 0.155 if design.shoulder > 0.55 else 0.135
    direction = (wrist - elbow) / np.hypot(*(wrist - elbow))
    _draw_hand(body, wrist, direction, sign, is_open=pose.has_open_hand and side == "far")
    line = smooth(np.array([shoulder, elbow + 0.02 * (shoulder - elbow), wrist]), closed=False)
    body.sheet.part(body.put(tube(line, [thick * 1.08, thick, thick * 0.88], has_round_start=True)), sleeve, shade=0.06)
    cuff = np.array([wrist - direction * 0.13, wrist - direction * 0.02])
    cuff_colour = design.trim_colour if design.garment in (Garment.RAINCOAT, Garment.JUMPER) else shadow_of(sleeve)
    body.sheet.part(
        body.put(tube(cuff, [thick * 0.95, thick * 0.95])[[0, 1, -2, -1]]), cuff_colour, shade=0.03, line=0.012
    )


def _draw_hand(body: Body, wrist: Points, direction: Points, sign: float, *, is_open: bool) -> None:
    skin = body.design.skin
    across = np.array([-direction[1], direction[0]]) * sign
    palm = wrist + direction * 0.10
    if is_open:
        for spread, length in ((-0.105, 0.25), (-0.038, 0.31), (0.035, 0.31), (0.10, 0.26)):
            root = palm + across * spread
            body.sheet.part(
                body.put(tube(np.array([root, root + direction * length + across * spread * 0.7]), [0.046, 0.042])),
                skin,
                shade=0.012,
                line=0.012,
            )
    thumb = np.array([palm + across * -0.06, palm + across * -0.19 + direction * 0.10])
    body.sheet.part(body.put(tube(thumb, [0.058, 0.046])), skin, shade=0.012, line=0.012)
    turn = float(np.degrees(np.arctan2(direction[1], direction[0])))
    body.sheet.part(body.put(ellipse(palm[0], palm[1], 0.175, 0.135, turn)), skin, shade=0.03, line=0.014)
