"""Draws coats, suits, jumpers and dresses with their openings, buttons and collars."""

from __future__ import annotations

import numpy as np

from studio.demo.bodies import Body
from studio.demo.designs import Accessory, Garment
from studio.demo.ink import ellipse, light_of, line_of, mix, moved, points, shadow_of, smooth, tube


def draw_garment(body: Body) -> None:
    design = body.design
    outline = body.outline
    body.sheet.part(body.put(outline), body.coat, shade=0.13, gleam=0.0)
    match design.garment:
        case Garment.TRENCH:
            _draw_opening(body, 0.30 if body.outfit.is_open else 0.0, body.hem_y + 0.05)
            _draw_belt(body)
        case Garment.PEACOAT:
            _draw_opening(body, 0.22 if body.outfit.is_open else 0.0, body.hem_y + 0.05)
        case Garment.SUIT:
            _draw_opening(body, 0.30 if body.outfit.is_open else 0.15, body.shoulder_y + 0.78 * body.torso)
        case Garment.RAINCOAT:
            _draw_stripe(body, 0.86, 0.95)
            _draw_opening(body, 0.20 if body.outfit.is_open else 0.0, body.hem_y + 0.05)
        case Garment.JUMPER:
            for level in (0.42, 0.58):
                _draw_stripe(body, level, level + 0.08)
        case Garment.DRESS:
            _draw_stripe(body, 0.44, 0.50)
    _draw_details(body)


def draw_hood(body: Body) -> None:
    x = -0.12 * body.ahead
    hood = smooth(
        points(
            (x - 0.34, body.shoulder_y + 0.08),
            (x - 0.46, body.chin_y + 0.02),
            (x - 0.30, body.chin_y - 0.12),
            (x, body.chin_y - 0.02),
            (x + 0.30, body.chin_y - 0.12),
            (x + 0.46, body.chin_y + 0.02),
            (x + 0.34, body.shoulder_y + 0.08),
        )
    )
    body.sheet.part(body.put(hood), shadow_of(body.coat), shade=0.05)


def draw_collar(body: Body) -> None:
    design, y = body.design, body.shoulder_y
    match design.garment:
        case Garment.TRENCH | Garment.SUIT | Garment.PEACOAT:
            drop = 0.55 if design.garment is Garment.SUIT else 0.42
            for side in (-1.0, 1.0):
                if side > 0 and body.ahead > 0.8:
                    continue
                inner = body.front_x(y + drop, side * 0.05)
                collar = points(
                    (side * 0.17 * body.width + 0.03 * body.ahead, body.chin_y - 0.05),
                    (side * 0.36 * body.width, y + 0.02),
                    (body.front_x(y + drop * 0.5, side * 0.34), y + drop * 0.52),
                    (inner, y + drop),
                    (body.front_x(y, side * 0.10), y + 0.03),
                )
                body.sheet.part(body.put(collar), mix(body.coat, light_of(body.coat), 0.35), shade=0.035, line=0.016)
        case Garment.RAINCOAT:
            collar = smooth(
                points(
                    (-0.30, y - 0.03),
                    (0, y + 0.10),
                    (0.30, y - 0.03),
                    (0.24, y - 0.16),
                    (0, y - 0.06),
                    (-0.24, y - 0.16),
                )
            )
            body.sheet.part(
                body.put(moved(collar, 0.06 * body.ahead, 0)), mix(body.coat, light_of(body.coat), 0.4), shade=0.03
            )
        case Garment.JUMPER | Garment.DRESS:
            collar = smooth(
                points(
                    (-0.21, y - 0.10),
                    (0, y + 0.02),
                    (0.21, y - 0.10),
                    (0.20, y - 0.20),
                    (0, y - 0.12),
                    (-0.20, y - 0.20),
                )
            )
            body.sheet.part(body.put(moved(collar, 0.05 * body.ahead, 0)), design.trim_colour, shade=0.03)


def _draw_opening(body: Body, gap: float, bottom: float) -> None:
    """What is worn beneath, seen between the front edges; with no gap only the edge's line."""
    design, outline = body.design, body.outline
    top = body.chin_y + 0.02
    if gap <= 0:
        line = [(body.front_x(y), y) for y in np.linspace(body.shoulder_y + 0.3, body.hem_y + 0.03, 6)]
        body.sheet.stroke(body.put(np.array(line)), 0.022, line_of(body.coat), taper=0.8)
        return
    is_suit = design.garment is Garment.SUIT
    widths = [gap, gap * 0.92, gap * 0.5, 0.015] if is_suit else [gap * 0.8, gap * 0.85, gap, gap * 1.25]
    heights = np.linspace(top, bottom, 4)
    left = [(body.front_x(y, -w), y) for y, w in zip(heights, widths, strict=True)]
    right = [(body.front_x(y, w), y) for y, w in zip(heights, widths, strict=True)]
    shirt = np.array(left + right[::-1])
    frame = body.put(outline)
    belt_y = body.hip_y - 0.05
    trousers = points((-1.5, belt_y), (1.5, belt_y), (1.5, body.hem_y + 0.2), (-1.5, body.hem_y + 0.2))
    body.sheet.inside(frame, [(body.put(shirt), design.inner_colour)])
    tie = [
        (body.front_x(y, o), y)
        for o, y in (
            (-0.05, top + 0.14),
            (0.05, top + 0.14),
            (0.085, bottom - 0.2 if is_suit else belt_y - 0.1),
            (0, belt_y if not is_suit else bottom - 0.06),
            (-0.085, bottom - 0.2 if is_suit else belt_y - 0.1),
        )
    ]
    if design.garment in (Garment.TRENCH, Garment.SUIT):
        body.sheet.inside(frame, [(body.put(np.array(tie)), design.tie_colour)])
    if not is_suit:
        cut = body.put(trousers)
        body.sheet.inside(body.put(shirt), [(cut, shadow_of(design.legs_colour))])
    for edge in (left, right):
        body.sheet.stroke(body.put(np.array(edge)), 0.024, line_of(body.coat), taper=0.9)


def _draw_stripe(body: Body, top: float, bottom: float) -> None:
    """A band around the garment between two heights, given as shares of its length."""
    length = body.hem_y - body.shoulder_y
    y0, y1 = body.shoulder_y + top * length, body.shoulder_y + bottom * length
    band = smooth(points((-1.5, y0), (0, y0 + 0.06), (1.5, y0)), closed=False)
    under = smooth(points((1.5, y1), (0, y1 + 0.06), (-1.5, y1)), closed=False)
    body.sheet.inside(body.put(body.outline), [(body.put(np.concatenate([band, under])), body.design.trim_colour)])


def _draw_belt(body: Body) -> None:
    y = body.shoulder_y + 0.72 * body.torso
    outline = body.outline
    band = points((-1.5, y), (1.5, y), (1.5, y + 0.17), (-1.5, y + 0.17))
    body.sheet.inside(body.put(outline), [(body.put(band), shadow_of(body.coat))])
    x = body.front_x(y + 0.08, 0.02)
    buckle = points((x - 0.09, y - 0.02), (x + 0.09, y - 0.02), (x + 0.09, y + 0.19), (x - 0.09, y + 0.19))
    body.sheet.part(body.put(buckle), body.design.trim_colour, shade=0.03, line=0.012)
    end = smooth(points((x + 0.05, y + 0.1), (x + 0.16, y + 0.25), (x + 0.15 + body.pose.sway, y + 0.5)), closed=False)
    body.sheet.part(body.put(tube(end, [0.06, 0.065, 0.05])), shadow_of(body.coat), shade=0, line=0.012)


def _draw_details(body: Body) -> None:
    design = body.design
    match design.garment:
        case Garment.PEACOAT | Garment.TRENCH:
            rows = (0.38, 0.56) if design.garment is Garment.TRENCH else (0.34, 0.54, 0.74)
            for share in rows:
                y = body.shoulder_y + share * body.torso
                for offset in (0.17, -0.17):
                    spread = offset * (1.7 if body.outfit.is_open else 1.0)
                    if body.square > 0.5 or offset < 0:
                        body.sheet.part(
                            body.put(ellipse(body.front_x(y, spread), y, 0.042, 0.045)),
                            design.trim_colour,
                            shade=0.015,
                            line=0.01,
                        )
            _draw_pocket(body, 0.52)
        case Garment.RAINCOAT:
            for share in (0.22, 0.44, 0.66):
                y = body.shoulder_y + share * (body.hem_y - body.shoulder_y)
                x = body.front_x(y)
                toggle = tube(points((x - 0.09, y), (x + 0.09, y)), [0.03, 0.03])
                body.sheet.part(body.put(toggle), design.trim_colour, shade=0.012, line=0.01)
            _draw_pocket(body, 0.34)
        case Garment.SUIT:
            y = body.shoulder_y + 0.86 * body.torso
            body.sheet.part(
                body.put(ellipse(body.front_x(y, 0.04), y, 0.04, 0.043)),
                design.trim_colour,
                shade=0.015,
                line=0.01,
            )
            if Accessory.POCKET_SQUARE in design.accessories:
                x, y = body.front_x(body.shoulder_y + 0.36 * body.torso, 0.36), body.shoulder_y + 0.36 * body.torso
                square = points(
                    (x - 0.09, y + 0.08),
                    (x - 0.08, y - 0.03),
                    (x - 0.02, y - 0.11),
                    (x + 0.02, y - 0.02),
                    (x + 0.08, y - 0.08),
                    (x + 0.09, y + 0.08),
                )
                body.sheet.part(body.put(square), body.accessory_colour(), shade=0.025, line=0.012)
            _draw_pocket(body, 0.44)
        case Garment.JUMPER | Garment.DRESS:
            pass


def _draw_pocket(body: Body, offset: float) -> None:
    y = body.hip_y + 0.10
    for side in (1.0, -1.0):
        x = body.front_x(y, side * min(offset, 0.5) * body.design.hip / 0.62) - 0.3 * body.ahead
        if side > 0 and body.ahead > 0.3:
            continue
        flap = points((x - 0.12, y - 0.03), (x + 0.12, y - 0.03), (x + 0.12, y + 0.06), (x - 0.12, y + 0.06))
        body.sheet.part(body.put(flap), body.coat, shade=0.02, line=0.014)
