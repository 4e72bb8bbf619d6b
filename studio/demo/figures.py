"""Draws a whole person on a sheet: legs, garment, arms, scarf and head, in a pose."""

from __future__ import annotations

import numpy as np

from studio.demo.bodies import Body
from studio.demo.designs import Accessory, Design, Face, Garment, Outfit, Pose
from studio.demo.garments import draw_collar, draw_garment, draw_hood
from studio.demo.hair import draw_back_hair
from studio.demo.heads import draw_head
from studio.demo.ink import Sheet, light_of, moved, points, shadow_of, smooth, tube
from studio.demo.limbs import draw_arm, draw_leg
from studio.demo.skulls import Head


def draw_figure(
    sheet: Sheet, design: Design, *, outfit: Outfit | None = None, face: Face | None = None, pose: Pose | None = None
) -> None:
    """Draw a person on the sheet, in heads: the ground at y = 0, the crown at -`heads_tall`, the feet around x = 0."""
    body = Body(sheet, design, outfit or Outfit(), face or Face(), pose or Pose())
    design, pose = body.design, body.pose
    head_at = body.put(points((0.07 * body.ahead, body.chin_y)))[0]
    head = Head(
        body.sheet,
        design,
        body.outfit,
        body.face,
        pose.head_yaw,
        (head_at[0], head_at[1]),
        pose.head_tilt + pose.lean * 0.5,
    )
    is_turned = pose.yaw > 20
    if is_turned:
        draw_arm(body, "far")
    if design.garment is Garment.RAINCOAT:
        draw_hood(body)
    draw_back_hair(head)
    draw_leg(body, "far")
    draw_leg(body, "near")
    _draw_neck(body)
    draw_garment(body)
    if not is_turned:
        draw_arm(body, "far")
    if Accessory.BAG in design.accessories:
        _draw_bag(body)
    draw_arm(body, "near")
    draw_collar(body)
    if Accessory.SCARF in design.accessories:
        _draw_scarf(body)
    draw_head(head)


def _draw_neck(body: Body) -> None:
    x = 0.04 * body.ahead
    neck = points(
        (x - 0.14, body.chin_y - 0.22),
        (x + 0.14, body.chin_y - 0.22),
        (x + 0.16, body.shoulder_y + 0.06),
        (x - 0.16, body.shoulder_y + 0.06),
    )
    body.sheet.part(body.put(neck), shadow_of(body.design.skin), shade=0)


def _draw_scarf(body: Body) -> None:
    colour, y = body.accessory_colour(), body.shoulder_y
    x, sway = 0.06 * body.ahead, body.pose.sway
    for offset, ends in ((-0.10, 0.62), (0.04, 0.78)):
        start = x - 0.20 * body.square - 0.22 * body.ahead + offset
        tail = smooth(
            points(
                (start, y + 0.02),
                (start - 0.05 - 0.4 * sway, y + ends * 0.45),
                (start - 0.02 - 1.5 * sway, y + ends - 0.5 * abs(sway)),
            ),
            closed=False,
        )
        strip = tube(tail, [0.10, 0.115, 0.125])
        body.sheet.part(body.put(strip), colour if offset > 0 else shadow_of(colour), shade=0.05)
        end = tail[-1]
        for k in (-0.07, 0.0, 0.07):
            fringe = np.array([moved(end, k, 0.08), moved(end, k - 0.2 * sway, 0.19)])
            body.sheet.stroke(body.put(fringe), 0.03, shadow_of(colour))
    wrap = smooth(
        points(
            (x - 0.37, y - 0.06),
            (x - 0.30, y - 0.22),
            (x, y - 0.13),
            (x + 0.30, y - 0.22),
            (x + 0.37, y - 0.06),
            (x + 0.24, y + 0.13),
            (x, y + 0.20),
            (x - 0.24, y + 0.13),
        )
    )
    body.sheet.part(body.put(wrap), colour, shade=0.07)
    for dy in (0.0, 0.085):
        fold = smooth(
            points((x - 0.30, y - 0.11 + dy), (x - 0.05, y + 0.02 + dy), (x + 0.28, y - 0.09 + dy)), closed=False
        )
        body.sheet.stroke(body.put(fold), 0.022, shadow_of(colour))


def _draw_bag(body: Body) -> None:
    colour, y = body.accessory_colour(), body.hip_y
    strap = smooth(
        points((0.30 * body.square, body.shoulder_y), (0.0, body.shoulder_y + 0.5 * body.torso), (-0.42, y + 0.02)),
        closed=False,
    )
    body.sheet.stroke(body.put(strap), 0.07, shadow_of(colour), taper=1.0)
    x = -0.46 * body.width
    bag = points((x - 0.26, y - 0.02), (x + 0.22, y - 0.02), (x + 0.24, y + 0.40), (x - 0.28, y + 0.40))
    body.sheet.part(body.put(bag), colour, shade=0.07)
    body.sheet.part(
        body.put(points((x - 0.28, y - 0.04), (x + 0.24, y - 0.04), (x + 0.2, y + 0.16), (x - 0.24, y + 0.16))),
        light_of(colour),
        shade=0.03,
    )
