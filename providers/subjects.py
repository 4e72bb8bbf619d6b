"""Who is in a picture: every figure found by its colours, joined with the faces found, each described by itself.

Two faces in one figure part it between them; a face that no figure holds makes one, with the body below it. Framing
and view are said only where there is evidence. Measured by benchmarks/subjects.py and benchmarks/crossing.py.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image

from domain.characters import CharacterKind
from domain.errors import BadInput
from domain.pictures import Box, Framing, View
from providers.faces import Face, FaceFinder
from providers.figures import WORKING_WIDTH, Figure, find_figures
from providers.ports import RgbImage, Subject
from providers.subject import Mask, lab_of
from providers.vision import AppearanceScorer

SMALLEST_SIDE = 64
BODY_WIDTH, BODY_HEIGHT, ABOVE_FACE = 1.6, 6.5, 0.45
"""In faces: how far a body reaches to each side of a face's middle, how far below it, and the hair above it."""

HEAD_IN_FACES = 1.4
"""A head's height in heights of the detector's face box, which goes from the brows to the chin."""

CLOSE_UP_HEAD = 0.45
BUST_HEAD = 0.2
"""Share of the picture's height that a head fills, from which it is a close-up or a bust (benchmarks/subjects.py)."""

FULL_SLENDER = 0.72
"""A standing figure is narrower than this, in heights, and its feet are inside the picture."""

CLOSE_UP_BROAD, BUST_BROAD = 0.53, 0.25
"""Mean breadth, in heights, of a cut-off figure between a tenth and two fifths of its height: there a close-up has the
head, a bust the head above narrower or equal shoulders. On the development designs 0.6 and 0.42 in the mean."""

SURE_FROM = 0.0
"""Log-odds from which a figure without a face is surely somebody."""


class ColourSubjectFinder:
    """A `SubjectFinder`: figures by colour, faces by dlib. Keep it; safe to share between threads."""

    def __init__(self, scorer: AppearanceScorer) -> None:
        self._scorer = scorer
        self._faces = FaceFinder()

    def subjects(self, image: RgbImage, kind: CharacterKind) -> tuple[Subject, ...]:
        """Everybody who can be told apart, the most prominent (largest) first; empty when nobody stands out.

        Boxes in the picture's pixels. About 0.14 s of one core. Faces are not sought for kind
        `other` (an animal, a thing). `BadInput` for an array that is not height × width × 3 of 8-bit values.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise BadInput(f"A picture of type {image.dtype} and shape {image.shape} cannot be judged: give 8-bit RGB.")
        if min(image.shape[:2]) < SMALLEST_SIDE:
            return ()
        faces = [] if kind is CharacterKind.OTHER else self._faces.faces(image)
        small = _reduced(image)
        people = _with_faces(find_figures(lab_of(small)), faces, image, small)
        found = [self._subject(image, figure, face) for figure, face in people]
        return tuple(sorted(found, key=lambda subject: (-subject.box.area, subject.box.left, subject.box.top)))

    def _subject(self, image: RgbImage, figure: Figure, face: Face | None) -> Subject:
        box = _box_of(figure, image)
        return Subject(
            box=box,
            face=face.box if face else None,
            framing=framing_of(box, face.box if face else None, image.shape[0], _breadth_of_head(figure)),
            view=face.view if face else View.UNKNOWN,
            appearance=self._scorer.describe_subject(image, figure.mask),
            is_sure=face is not None or figure.odds >= SURE_FROM,
        )


def framing_of(box: Box, face: Box | None, picture_height: int, breadth: float) -> Framing:
    """How much of somebody is in the picture: by the size of the head where a face is known, else by the shape.

    Without a face: feet inside the picture and slender is a full figure; one cut off by the lower edge is a close-up
    or a bust by its `breadth` in heights where the head is.
    """
    is_cut = box.bottom >= 0.985 * picture_height
    if face is not None:
        head = HEAD_IN_FACES * face.height / picture_height
        if head >= CLOSE_UP_HEAD:
            return Framing.CLOSE_UP
        return Framing.BUST if head >= BUST_HEAD and is_cut else Framing.UNKNOWN if is_cut else Framing.FULL
    if not is_cut:
        return Framing.FULL if box.width <= FULL_SLENDER * box.height else Framing.UNKNOWN
    if breadth >= CLOSE_UP_BROAD:
        return Framing.CLOSE_UP
    return Framing.BUST if breadth >= BUST_BROAD else Framing.UNKNOWN


def _breadth_of_head(figure: Figure) -> float:
    left, top, right, bottom = figure.extent
    tall = bottom - top
    rows = figure.mask[top + tall // 10 : top + max(tall // 10 + 1, 2 * tall // 5), left:right]
    return float(rows.sum(axis=1).mean()) / tall


def _with_faces(
    figures: list[Figure], faces: list[Face], image: RgbImage, small: RgbImage
) -> list[tuple[Figure, Face | None]]:
    """Every figure with its face; figures with several faces parted, faces without a figure given a body."""
    scale = small.shape[0] / image.shape[0]
    owned: list[list[Face]] = [[] for _ in figures]
    people: list[tuple[Figure, Face | None]] = []
    for face in faces:
        x, y = _middle(face) * scale, (face.box.top + face.box.bottom) / 2 * scale
        near = slice(max(0, round(y) - 2), round(y) + 3), slice(max(0, round(x) - 2), round(x) + 3)
        holders = [index for index, figure in enumerate(figures) if figure.mask[near].any()]
        if holders:
            owned[holders[0]].append(face)
        else:
            people.append((Figure(_body_below(face.box, scale, small), SURE_FROM), face))
    for figure, own in zip(figures, owned, strict=True):
        if len(own) < 2:
            people.append((figure, own[0] if own else None))
            continue
        ordered = sorted(own, key=_middle)
        edges = [0.0, *((_middle(a) + _middle(b)) / 2 * scale for a, b in pairwise(ordered)), float(small.shape[1])]
        for face, (left, right) in zip(ordered, pairwise(edges), strict=True):
            part = figure.mask.copy()
            part[:, : round(left)] = False
            part[:, round(right) :] = False
            people.append((Figure(part, figure.odds), face))
    # A face at the very edge has no body below it, and a face beside its figure no part of it.
    return [(figure, face) for figure, face in people if figure.mask.any()]


def _middle(face: Face) -> float:
    return (face.box.left + face.box.right) / 2


def _body_below(face: Box, scale: float, small: RgbImage) -> Mask:
    """The ellipse where a body is, below a face."""
    height, width = small.shape[:2]
    size = face.height * scale
    top, bottom = face.top * scale - ABOVE_FACE * size, face.top * scale + BODY_HEIGHT * size
    middle = (face.left + face.right) / 2 * scale
    down = (np.arange(height) + 0.5 - (top + bottom) / 2) / ((bottom - top) / 2)
    across = (np.arange(width) + 0.5 - middle) / (BODY_WIDTH * size)
    return np.asarray(down[:, None] ** 2 + across[None, :] ** 2 <= 1)


def _reduced(image: RgbImage) -> RgbImage:
    scale = min(1.0, WORKING_WIDTH / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    reduced: RgbImage = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    return reduced


def _box_of(figure: Figure, image: RgbImage) -> Box:
    left, top, right, bottom = figure.extent
    across, down = image.shape[1] / figure.mask.shape[1], image.shape[0] / figure.mask.shape[0]
    return Box(
        left=round(left * across), top=round(top * down), right=round(right * across), bottom=round(bottom * down)
    )
