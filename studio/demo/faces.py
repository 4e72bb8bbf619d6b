"""Draws what a face says: eyes, brows, nose, mouth, cheeks and ears."""

from __future__ import annotations

import numpy as np

from studio.demo.designs import Beard, Hair
from studio.demo.ink import ellipse, line_of, mix, points, shadow_of, smooth, tube
from studio.demo.skulls import Head


def draw_ear(head: Head, theta: float) -> None:
    x = head.x_at(theta, 0.40) * (1.0 if head.yaw < 20 else 0.92)
    width = 0.045 + 0.05 * abs(np.sin(np.radians(head.yaw)))
    head.sheet.part(head.put(ellipse(x, 0.06, width, 0.105, 8 if theta > 0 else -8)), head.design.skin, shade=0.03)
    if head.yaw > 15:
        curl = smooth(points((x - 0.02, 0.10), (x + 0.03, 0.05), (x - 0.01, 0.0)), closed=False)
        head.sheet.stroke(head.put(curl), 0.02, shadow_of(head.design.skin))


def draw_cheeks(head: Head) -> None:
    design, sheet = head.design, head.sheet
    blush = mix(design.skin, (226, 70, 70), 0.55)
    for theta in (40.0, -40.0):
        if (share := head.facing(theta)) > 0.15:
            x = head.x_at(theta, 0.36)
            sheet.veil(head.put(ellipse(x, 0.185, 0.085 * share + 0.01, 0.055)), blush, 0.22 + 0.3 * head.face.cheek)
    if design.has_freckles:
        spot = mix(design.skin, (150, 70, 30), 0.5)
        for theta, y in ((-38, 0.14), (-30, 0.18), (-45, 0.19), (38, 0.14), (30, 0.18), (45, 0.19)):
            if head.facing(theta) > 0.2:
                sheet.flat(head.put(ellipse(head.x_at(theta, 0.37), y, 0.012, 0.012)), spot)


def draw_eye(head: Head, theta: float) -> None:
    design, face, sheet = head.design, head.face, head.sheet
    share = head.facing(theta)
    if share < 0.12:
        return
    x, y = head.x_at(theta, 0.385 if theta < 0 else 0.372), 0.03
    width = 0.098 * (0.25 + 0.75 * share) * design.eye_size
    height = 0.092 * design.eye_size * face.eye_open
    side = 1.0 if theta > 0 else -1.0
    lid = mix(line_of(design.skin), (20, 14, 30), 0.6)
    if face.eye_open < 0.15:
        sag = 0.035 if face.cheek < 0.5 else -0.045
        line = points(
            (x - width * 1.05, y),
            (x - width * 0.5, y + sag * 0.8),
            (x, y + sag),
            (x + width * 0.5, y + sag * 0.8),
            (x + width * 1.05, y),
        )
        sheet.stroke(head.put(smooth(line, closed=False)), 0.034, lid)
        return
    upper, lower = -height, height * (0.85 - 0.35 * face.cheek)
    eye = smooth(
        points(
            (x - width, y), (x - width * 0.62, y + upper * 0.82), (x, y + upper), (x + width * 0.62, y + upper * 0.82),
            (x + width, y), (x + width * 0.6, y + lower * 0.86), (x, y + lower), (x - width * 0.6, y + lower * 0.86),
        )
    )  # fmt: skip
    sheet.flat(head.put(eye), (252, 250, 244))
    gaze = x + width * 0.42 * face.gaze + width * 0.25 * np.sin(np.radians(head.yaw))
    iris = 0.066 * design.eye_size
    flat = 0.35 + 0.65 * share
    sheet.inside(
        head.put(eye),
        [
            (head.put(ellipse(x, y + upper * 1.05, width * 1.2, height * 0.55)), (205, 208, 224)),
            (head.put(ellipse(gaze, y, iris * flat, iris * 1.08)), shadow_of(design.eye_colour)),
            (head.put(ellipse(gaze, y + 0.014, iris * 0.82 * flat, iris * 0.78)), design.eye_colour),
            (head.put(ellipse(gaze, y, iris * 0.5 * flat, iris * 0.55)), (18, 14, 26)),
            (head.put(ellipse(gaze - 0.022 * flat, y - 0.026, 0.021 * flat, 0.023)), (255, 255, 255)),
        ],
    )
    half = len(eye) // 2
    sheet.stroke(head.put(eye[: half + 1]), 0.034 if design.has_lashes else 0.026, lid, taper=0.5)
    if design.has_lashes:
        outer = x + side * width
        for rise in (0.045, 0.015):
            lash = points(
                (outer - side * width * 0.1, y - height * 0.35 * rise / 0.045),
                (outer + side * 0.045 * share, y - rise - height * 0.3),
            )
            sheet.stroke(head.put(lash), 0.02, lid, taper=0.4)


def draw_brow(head: Head, theta: float) -> None:
    if (share := head.facing(theta)) < 0.12:
        return
    design, face = head.design, head.face
    x, side = head.x_at(theta, 0.37 if head.yaw > 15 else 0.385), 1.0 if theta > 0 else -1.0
    x -= 0.03 * (head.yaw > 62)
    y = -0.135 * (0.7 + 0.3 * design.eye_size) - 0.055 * face.brow_lift
    width = 0.115 * (0.25 + 0.75 * share)
    inner = np.array([x - side * width, y + 0.015 - 0.065 * face.brow_tilt])
    outer = np.array([x + side * width, y + 0.03 + 0.03 * face.brow_tilt])
    middle = (inner + outer) / 2 + (0, -0.035)
    colour = design.beard_colour if design.beard is not Beard.NONE else design.hair_colour
    if design.hair is Hair.BALD and design.beard is Beard.NONE:
        colour = line_of(design.skin)
    line = smooth(np.array([inner, middle, outer]), closed=False)
    head.sheet.flat(
        head.put(tube(line, [design.brow_width * 0.8, design.brow_width * 0.75, design.brow_width * 0.25])),
        mix(colour, (20, 14, 30), 0.4),
    )


def draw_nose(head: Head) -> None:
    design = head.design
    size = 0.055 + 0.075 * design.nose
    if head.yaw > 62:
        nostril = ellipse(head.x_at(0) + 0.01, 0.15, 0.022, 0.012, -15)
        head.sheet.flat(head.put(nostril), shadow_of(design.skin))
        return
    ahead = np.sin(np.radians(head.yaw))
    x = head.x_at(0)
    tip = x + 0.10 * ahead * (0.5 + design.nose)
    if design.nose > 0.7:
        head.sheet.part(head.put(ellipse(tip, 0.125, size * 0.72, size * 0.62)), design.skin, shade=0.035, line=0.0)
    line = points((x + 0.02 * ahead - 0.01, 0.06), (tip + size * 0.35, 0.135), (tip, 0.165), (tip - size * 0.45, 0.155))
    head.sheet.stroke(
        head.put(smooth(line[1 - (head.yaw > 20) :], closed=False)), 0.022, mix(line_of(design.skin), design.skin, 0.35)
    )


def draw_mouth(head: Head) -> None:
    face, sheet, skin = head.face, head.sheet, head.design.skin
    share = max(0.3, head.facing(0))
    x, y = head.x_at(2, 0.375), 0.285
    if head.yaw > 62:
        x -= 0.03
    width = 0.125 * face.mouth_width * (0.3 + 0.7 * share)
    ink = mix(line_of(skin), (90, 20, 30), 0.3)
    corner = -0.045 * face.smile
    if face.mouth_open < 0.08:
        line = points(
            (x - width, y + corner),
            (x - width * 0.45, y + 0.018 * face.smile),
            (x + width * 0.45, y + 0.018 * face.smile),
            (x + width, y + corner),
        )
        sheet.stroke(head.put(smooth(line, closed=False)), 0.026, ink)
        sheet.stroke(
            head.put(points((x - width * 0.3, y + 0.062), (x + width * 0.3, y + 0.062))), 0.015, shadow_of(skin)
        )
        return
    drop = 0.16 * face.mouth_open
    mouth = smooth(
        points(
            (x - width, y + corner),
            (x, y - 0.02 + corner * 0.3),
            (x + width, y + corner),
            (x + width * 0.62, y + drop * 0.78),
            (x, y + drop),
            (x - width * 0.62, y + drop * 0.78),
        )
    )
    sheet.part(head.put(mouth), (112, 24, 44), shade=0, line=0.013)
    sheet.inside(
        head.put(mouth),
        [
            (head.put(ellipse(x, y + drop * 1.05, width * 0.7, drop * 0.5)), (226, 96, 104)),
            (head.put(ellipse(x, y - 0.035 + corner * 0.4, width * 0.95, 0.055)), (253, 250, 242)),
        ],
    )
