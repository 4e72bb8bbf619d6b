"""Draws a head, from ear to hat, in the order in which things lie on each other."""

from __future__ import annotations

from studio.demo.designs import Accessory, Beard
from studio.demo.faces import draw_brow, draw_cheeks, draw_ear, draw_eye, draw_mouth, draw_nose
from studio.demo.hair import draw_beard, draw_hair, draw_moustache
from studio.demo.headwear import draw_beanie, draw_fedora, draw_glasses, draw_goggles, draw_headphones
from studio.demo.skulls import Head


def draw_head(head: Head) -> None:
    """Skull to hat, in order."""
    design, sheet = head.design, head.sheet
    far_ear = head.facing(90)
    if far_ear > -0.15:
        draw_ear(head, 90)
    sheet.part(head.put(head.skull), design.skin, shade=0.085)
    draw_cheeks(head)
    if design.beard in (Beard.FULL, Beard.GOATEE):
        draw_beard(head)
    draw_nose(head)
    draw_mouth(head)
    if design.beard in (Beard.FULL, Beard.MOUSTACHE):
        draw_moustache(head)
    for theta in (24.0, -24.0):
        draw_eye(head, theta)
    draw_ear(head, -90)
    draw_hair(head)
    for theta in (24.0, -24.0):
        draw_brow(head, theta)
    if Accessory.GLASSES in design.accessories:
        draw_glasses(head)
    if Accessory.GOGGLES in design.accessories:
        draw_goggles(head)
    if Accessory.BEANIE in design.accessories:
        draw_beanie(head)
    if Accessory.HEADPHONES in design.accessories:
        draw_headphones(head)
    if Accessory.FEDORA in design.accessories:
        draw_fedora(head)
