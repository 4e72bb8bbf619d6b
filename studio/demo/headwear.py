"""Draws what is worn on a head: goggles, glasses, beanie, headphones, fedora."""

from __future__ import annotations

import numpy as np

from studio.demo.ink import ellipse, line_of, points, shadow_of, smooth
from studio.demo.skulls import Head, accessory_colour, band_around


def draw_goggles(head: Head) -> None:
    colour = accessory_colour(head)
    head.sheet.part(head.put(band_around(head, -0.29, -0.22, 0.452, -0.03)), (70, 50, 46), shade=0.02, line=0.01)
    for theta in (24.0, -24.0):
        if (share := head.facing(theta)) > 0.1:
            x, wide = head.x_at(theta, 0.42), 0.145 * (0.3 + 0.7 * share)
            head.sheet.part(head.put(ellipse(x, -0.285, wide, 0.14)), colour, shade=0.035)
            lens = ellipse(x, -0.285, wide * 0.70, 0.098)
            head.sheet.part(head.put(lens), (92, 196, 214), shade=0.03, line=0.008)
            glint = points(
                (x - wide * 0.45, -0.25), (x - wide * 0.05, -0.36), (x + wide * 0.2, -0.36), (x - wide * 0.2, -0.22)
            )
            head.sheet.inside(head.put(lens), [(head.put(glint), (214, 246, 250))])


def draw_glasses(head: Head) -> None:
    colour = accessory_colour(head)
    centres = []
    for theta in (24.0, -24.0):
        if (share := head.facing(theta)) > 0.12:
            x, wide = head.x_at(theta, 0.40), 0.145 * (0.3 + 0.7 * share)
            head.sheet.veil(head.put(ellipse(x, 0.03, wide, 0.135)), (220, 240, 255), 0.25)
            ring = ellipse(x, 0.03, wide, 0.135)
            head.sheet.stroke(head.put(np.concatenate([ring, ring[:2]])), 0.03, colour, taper=1.0)
            centres.append((x, wide))
    if len(centres) == 2:
        (right, wide_r), (left, wide_l) = centres
        head.sheet.stroke(head.put(points((left + wide_l, 0.02), (right - wide_r, 0.02))), 0.03, colour, taper=1.0)
    left, wide_l = centres[-1]
    head.sheet.stroke(head.put(points((left - wide_l, 0.02), (head.x_at(-90), 0.0))), 0.026, colour, taper=1.0)


def draw_beanie(head: Head) -> None:
    colour = accessory_colour(head)
    dome = smooth(
        points((0.46, -0.22), (0.44, -0.45), (0.22, -0.66), (0, -0.70), (-0.24, -0.66), (-0.45, -0.45), (-0.47, -0.22)),
        closed=False,
    )
    head.sheet.part(head.put(dome * (head.design.head_width, 1)), colour, gleam=0.03)
    head.sheet.part(head.put(band_around(head, -0.36, -0.19, 0.485, -0.02)), shadow_of(colour), shade=0.04)


def draw_headphones(head: Head) -> None:
    colour = accessory_colour(head)
    arch = smooth(
        points((-0.44, 0.0), (-0.44, -0.35), (-0.2, -0.58), (0.1, -0.6), (0.36, -0.44), (0.45, -0.2), (0.44, 0.0)),
        closed=False,
    )
    if head.yaw > 30:
        arch = smooth(points((head.x_at(-90), 0.0), (head.x_at(-90) - 0.03, -0.35), (0, -0.6)), closed=False)
    head.sheet.stroke(head.put(arch), 0.06, (52, 52, 62), taper=0.8)
    for theta in (90.0, -90.0):
        if head.facing(theta) > -0.2:
            wide = 0.07 + 0.06 * abs(np.sin(np.radians(head.yaw)))
            head.sheet.part(head.put(ellipse(head.x_at(theta, 0.44), 0.05, wide, 0.15)), colour, shade=0.04)


def draw_fedora(head: Head) -> None:
    colour = head.design.accessory_colour
    ahead = float(np.sin(np.radians(head.yaw)))
    brim = smooth(
        points(
            (-0.66, -0.27),
            (-0.42, -0.37),
            (0, -0.41),
            (0.42, -0.37),
            (0.66 + 0.06 * ahead, -0.25),
            (0.36 + 0.05 * ahead, -0.17),
            (0, -0.155),
            (-0.38, -0.19),
        )
    )
    crown = smooth(
        points(
            (-0.43, -0.31),
            (-0.41, -0.52),
            (-0.32, -0.76),
            (-0.14, -0.83),
            (0.0 + 0.04 * ahead, -0.77),
            (0.16, -0.83),
            (0.33, -0.74),
            (0.40, -0.52),
            (0.43, -0.31),
            (0.2, -0.26),
            (-0.2, -0.26),
        )
    )
    head.sheet.veil(head.put(band_around(head, -0.25, -0.10, 0.40, 0.03)), shadow_of(head.design.skin), 0.4)
    head.sheet.part(head.put(brim), shadow_of(colour), shade=0.05)
    head.sheet.part(head.put(crown), colour, shade=0.11, gleam=0.03)
    ribbon = points(
        (-0.432, -0.33),
        (-0.418, -0.45),
        (-0.2, -0.40),
        (0, -0.385),
        (0.2, -0.40),
        (0.413, -0.45),
        (0.432, -0.33),
        (0.2, -0.275),
        (-0.2, -0.275),
    )
    head.sheet.inside(head.put(crown), [(head.put(smooth(ribbon)), line_of(colour))])
    dent = smooth(points((-0.1, -0.80), (0.0 + 0.04 * ahead, -0.70), (0.10, -0.79)), closed=False)
    head.sheet.stroke(head.put(dent), 0.025, line_of(colour))
