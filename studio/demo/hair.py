"""Draws hair: the cap around the head, what hangs behind, beards and moustaches."""

from __future__ import annotations

from typing import Final

import numpy as np

from studio.demo.designs import Beard, Hair
from studio.demo.ink import Points, ellipse, light_of, mix, points, shadow_of, smooth, tube
from studio.demo.skulls import Head


def draw_back_hair(head: Head) -> None:
    """What hangs behind neck and shoulders; drawn before the body."""
    design, colour = head.design, shadow_of(head.design.hair_colour)
    x = np.linspace(-1, 1, 15)
    match design.hair:
        case Hair.LONG:
            bottom = 0.98 + 0.05 * np.cos(x * 9)
        case Hair.BOB:
            bottom = 0.40 + 0.03 * np.cos(x * 3)
        case Hair.CURLS:
            bottom = 0.34 + 0.05 * np.abs(np.sin(x * 7))
        case Hair.PONYTAIL:
            if head.yaw < 15:
                return
            swing = np.sin(np.radians(head.yaw))
            line = smooth(
                points((-0.2, -0.3), (-0.45 * swing, -0.25), (-0.68 * swing, 0.1), (-0.62 * swing, 0.55)), closed=False
            )
            head.sheet.part(head.put(tube(line, [0.10, 0.15, 0.16, 0.03])), design.hair_colour)
            return
        case _:
            return
    shift = -0.10 * np.sin(np.radians(head.yaw))
    width = 0.47 * design.head_width
    narrow = np.where(x > 0, 1 - 0.45 * np.sin(np.radians(head.yaw)), 1.0)
    lower = np.stack([x * width * narrow + shift, bottom], axis=1)
    upper = points(
        (width * 0.97 * narrow[-1] + shift, 0.0),
        (width * 0.5, -0.4),
        (-width * 0.5, -0.4),
        (-width * 0.97 + shift * 0.4, -0.1),
        (-width + shift, 0.1),
    )
    head.sheet.part(head.put(np.concatenate([lower, smooth(upper, closed=False)])), colour, shade=0.04)


def draw_moustache(head: Head) -> None:
    design = head.design
    share = max(0.22, head.facing(0))
    x = head.x_at(2, 0.385)
    is_grand = design.beard is Beard.MOUSTACHE
    reach = (0.27 if is_grand else 0.16) * (0.35 + 0.65 * share)
    for side in (1.0, -1.0):
        length = reach * (1.0 if side < 0 or head.yaw < 20 else 0.55 if head.yaw < 62 else 0.12)
        line = points(
            (x - side * 0.012, 0.205),
            (x + side * length * 0.5, 0.235),
            (x + side * length * 0.85, 0.225),
            (x + side * length, 0.16 if is_grand else 0.255),
        )
        widths = [0.035, 0.055, 0.034, 0.006] if is_grand else [0.028, 0.045, 0.03, 0.012]
        head.sheet.part(
            head.put(tube(smooth(line, closed=False), widths)), design.beard_colour, shade=0.022, line=0.009
        )


def draw_beard(head: Head) -> None:
    design = head.design
    is_goatee = design.beard is Beard.GOATEE
    ear = head.x_at(-90) - 0.02
    outline = head.skull
    below = np.where(outline[:, 0] > 0.12, 0.02 + 0.18 * min(1.0, head.yaw / 40), 0.02)
    keep = outline[(outline[:, 1] > (0.30 if is_goatee else below)) & (outline[:, 0] > ear)]
    if is_goatee:
        middle = head.x_at(0, 0.36)
        keep = keep[np.abs(keep[:, 0] - middle) < 0.17]
    if len(keep) < 4:
        return
    start = int(np.argmax(np.hypot(*np.diff(np.concatenate([keep, keep[:1]]), axis=0).T)))
    keep = np.roll(keep, -(start + 1), axis=0)
    centre = np.array([head.x_at(0, 0.18), 0.12])
    grown = centre + (keep - centre) * (1.10, 1.16)
    wave = 0.012 * np.sin(np.arange(len(grown)) * 1.3)
    grown = grown + np.stack([np.zeros(len(grown)), wave], axis=1)
    thetas = np.array([-90, -64, -45, -30, -22, 0, 22, 30, 45, 64, 90.0])
    heights = np.array([0.02, 0.16, 0.24, 0.235, 0.24, 0.225, 0.24, 0.235, 0.24, 0.16, 0.02])
    if is_goatee:
        thetas, heights = thetas[3:8], np.full(5, 0.36)
    shown = [(head.x_at(t, 0.39), h) for t, h in zip(thetas, heights, strict=True) if head.facing(t) > 0.02]
    upper = np.array(shown)
    if np.hypot(*(upper[0] - grown[-1])) > np.hypot(*(upper[-1] - grown[-1])):
        upper = upper[::-1]
    head.sheet.part(head.put(np.concatenate([grown, upper])), design.beard_colour, shade=0.06, line=0.014)
    for dx in (-0.09, 0.0, 0.09):
        x = head.x_at(0, 0.3) + dx
        head.sheet.stroke(head.put(points((x, 0.43), (x * 0.97, 0.53))), 0.016, shadow_of(design.beard_colour))


def _hairline(hair: Hair, theta: Points) -> Points:
    """Lower edge of the hair (y in heads) at each angle around the head, -180 to 180."""
    t = np.abs(theta)
    strand = np.abs(((theta + 540) % 13) / 6.5 - 1)
    match hair:
        case Hair.BOB:
            return np.interp(t, [0, 40, 52, 58, 75, 180], [-0.15, -0.13, -0.02, 0.33, 0.38, 0.38]) + 0.035 * strand * (
                t < 50
            )
        case Hair.BUN:
            return np.interp(
                t, [0, 40, 62, 70, 80, 100, 180], [-0.27, -0.19, -0.05, 0.14, 0.02, 0.1, 0.2]
            ) + 0.04 * strand * (t < 60)
        case Hair.LONG:
            side = np.interp(
                theta, [-180, -62, -50, -30, 20, 45, 58, 180], [0.8, 0.8, 0.25, -0.28, -0.33, -0.05, 0.8, 0.8]
            )
            return np.asarray(side)
        case Hair.CURLS:
            return np.interp(t, [0, 45, 65, 80, 180], [-0.22, -0.16, 0.0, 0.2, 0.28]) + 0.07 * np.abs(
                np.sin(np.radians(theta * 6))
            )
        case Hair.MOHAWK:
            return np.interp(t, [0, 15, 22, 180], [-0.30, -0.33, -0.46, -0.46])
        case Hair.PONYTAIL:
            return np.interp(t, [0, 45, 70, 85, 120, 180], [-0.30, -0.22, -0.06, 0.05, 0.0, 0.1])
        case Hair.CROP | Hair.BALD:
            return np.interp(
                t, [0, 45, 62, 78, 84, 96, 110, 180], [-0.29, -0.24, -0.16, 0.08, 0.08, -0.06, 0.18, 0.24]
            ) + 0.02 * strand * (t < 60)


_VOLUME: Final = {
    Hair.BOB: 0.055,
    Hair.BUN: 0.04,
    Hair.LONG: 0.06,
    Hair.CURLS: 0.10,
    Hair.CROP: 0.03,
    Hair.PONYTAIL: 0.03,
}


def draw_hair(head: Head) -> None:
    design, sheet = head.design, head.sheet
    ahead = float(np.sin(np.radians(head.yaw)))
    if design.hair is Hair.BALD:
        sheet.veil(head.put(ellipse(-0.14 + 0.08 * ahead, -0.36, 0.12, 0.055, -24)), light_of(design.skin), 0.75)
        return
    if design.hair is Hair.MOHAWK:
        crest = smooth(
            points(
                (0.16 + 0.2 * ahead, -0.36),
                (0.10 + 0.42 * ahead, -0.62),
                (0.02, -0.76),
                (-0.10 - 0.36 * ahead, -0.64),
                (-0.16 - 0.28 * ahead, -0.30),
                (0, -0.40),
            )
        )
        sheet.part(head.put(crest), design.hair_colour, gleam=0.02)
        return
    if design.hair is Hair.BUN:
        bun = -0.26 * ahead
        sheet.part(head.put(ellipse(bun, -0.60, 0.185, 0.165)), design.hair_colour, gleam=0.025)
        swirl = smooth(points((bun - 0.1, -0.6), (bun, -0.68), (bun + 0.08, -0.62), (bun + 0.03, -0.55)), closed=False)
        sheet.stroke(head.put(swirl), 0.022, shadow_of(design.hair_colour))
    volume = _VOLUME.get(design.hair, 0.03)
    phi = np.linspace(-90, 90, 61)
    wide = (0.405 + volume) * design.head_width
    edge = _hairline(design.hair, (phi - head.yaw) * (1 - 0.22 * ahead))
    x = wide * np.sin(np.radians(phi))
    x = np.where(x > 0, x * (1 - 0.09 * ahead), x * (1 + 0.05 * ahead)) * (1 - 0.16 * np.maximum(0, edge))
    if design.hair in (Hair.CROP, Hair.BUN, Hair.PONYTAIL):
        nape = head.skull[(head.skull[:, 0] < 0) & (head.skull[:, 1] > -0.2)][::-1]
        x = np.maximum(x, np.interp(edge, nape[:, 1], nape[:, 0]) - 0.02)
    lower = np.stack([x, edge], axis=1)
    arc = np.radians(np.linspace(0, 180, 31))
    bumps = 0.035 * np.abs(np.sin(arc * 5)) if design.hair is Hair.CURLS else 0.0
    side = np.cos(arc)
    outer_x = (wide + bumps) * np.sign(side) * np.abs(side) ** 0.9
    outer_x = np.where(outer_x > 0, outer_x * (1 - 0.09 * ahead), outer_x * (1 + 0.05 * ahead))
    upper = np.stack([outer_x, -0.06 - (0.455 + volume + bumps) * np.sin(arc) ** 0.92], axis=1)
    sheet.part(head.put(np.concatenate([lower, upper])), design.hair_colour, shade=0.07, gleam=0.0)
    shine = smooth(
        points((-0.27, -0.30), (-0.13, -0.385), (0.05, -0.40), (0.05, -0.36), (-0.11, -0.34), (-0.24, -0.25))
    )
    sheet.veil(head.put(shine), light_of(mix(design.hair_colour, (150, 170, 230), 0.25)), 0.75)
