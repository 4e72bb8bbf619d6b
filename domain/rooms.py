"""Rooms: the part of a picture that holds one person and nobody else. Pure geometry."""

from __future__ import annotations

from collections.abc import Sequence

from domain.pictures import Box

ARMS = 0.25
"""In heights of somebody: what is left free beside a found box, because swinging arms are often not in it."""

TOUCH = 0.05
"""In heights of somebody: nearer than this two people touch."""

NEAR = 0.33
"""In heights of the character: what stays around it in a clip in which others are, who may have been overlooked."""


def room_for(subject: Box, others: Sequence[Box], width: int, height: int, smallest_side: int) -> Box | None:
    """The largest part of the picture that holds the subject and nobody else, or None when they cannot be parted.

    Others are cut away at the side where they stand, with room for their arms; the short side must keep
    `smallest_side` pixels (or the whole picture's, where that is smaller).
    """
    left, top, right, bottom = 0, 0, width, height
    for other in others:
        arms, touch = round(ARMS * other.height), round(TOUCH * other.height)
        if other.right + touch <= subject.left:
            left = max(left, min(other.right + arms, subject.left))
        elif other.left - touch >= subject.right:
            right = min(right, max(other.left - arms, subject.right))
        elif other.bottom + touch <= subject.top:
            top = max(top, min(other.bottom + arms, subject.top))
        elif other.top - touch >= subject.bottom:
            bottom = min(bottom, max(other.top - arms, subject.bottom))
        else:
            return None
    if min(right - left, bottom - top) < min(smallest_side, width, height):
        return None
    return Box(left=left, top=top, right=right, bottom=bottom)


def near_room(subject: Box, room: Box, smallest_side: int) -> Box:
    """The part of a room near the subject: its height's third more on each side, never under `smallest_side`."""
    more = max(round(NEAR * subject.height), (smallest_side - min(subject.width, subject.height) + 1) // 2)
    box = Box(
        left=max(room.left, subject.left - more),
        top=max(room.top, subject.top - more),
        right=min(room.right, subject.right + more),
        bottom=min(room.bottom, subject.bottom + more),
    )
    short = min(smallest_side, room.width)
    if box.width < short:  # at an edge of the room: what is missing there is taken on the other side
        left = max(room.left, min(box.left, room.right - short))
        box = box.model_copy(update={"left": left, "right": max(box.right, left + short)})
    return box
