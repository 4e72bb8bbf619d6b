"""`appearance-v1`: how alike two pictures' subjects look, by colours and where on the body they are.

What it is: it finds the subject (providers/subject.py), evens out light and half of a colour cast, and describes which
colours stand how high on the subject. Mirroring changes nothing, place, size and background little; a full figure
and a close-up are compared by their common upper part. Silhouette and edge histograms were tried on the development
designs and left out: alone they told people apart hardly better than chance (AUC 0.58), and added nothing.

What it is not: it is not a face recogniser and knows nothing of faces. Twins in equal clothes are one to it, and
one person in wholly different clothes is two; faces come with a later issue. It was built on drawn people; on live
action treat it as a measure of costume and hair. Measured by benchmarks/identity_dev.py, a picture against six
references of a character: AUC 0.978 on the development designs, 0.972 and 0.987 on two dozen drawn after freezing.
A threshold belongs to a character and its references: calibrate it (domain/identity.py), never take it from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domain.errors import BadInput
from providers.ports import Appearance, RgbImage
from providers.subject import Floats, Mask, centre_ellipse, find_subject, lab_of, lab_of_linear, linear_of

WORKING_SIDE = 192
"""Longest side in px that everything is measured at."""

SMALLEST_SIDE = 64
SMALLEST_SUBJECT_SHARE = 0.01
"""Of the frame's area; a standing figure of this size is about a quarter of a wide frame's height."""

DARK_LUMA = 0.12
"""95 % quantile of luma (0..1) below which a picture is too dark: nothing in it is lit."""

BLANK_SPREAD = 1.0
"""Standard deviation of CIE lightness and chroma together (0..100) below which there is nothing to see."""

BLUR_LIMIT = 0.55
"""See `blur_of`. Crisp drawings reach 0.3, a Gaussian of σ = 2 % of the frame height is above it 19 times in 20."""

ROWS = 16
CROPS = (16, 11, 7, 5)
"""How many of a figure's rows, from the top, may be all that a closer picture shows."""

CROP_COST = 0.05
ROW_GROUPS = 4
PLACE_WEIGHT = 0.7
"""Share of the likeness that asks for the colours at the right height; the rest takes them anywhere."""

UNRELATED = 0.4
"""Raw likeness of two unrelated drawn people (mean over the development designs); it is shown as 0."""

_COLOUR_REACH = 8.0
_LIGHTNESS_WEIGHT = 0.7
_TINT_REMOVED = 0.25
_HIGHLIGHT = 0.55


class AppearanceScorer:
    """An `IdentityScorer`. Building one costs about 30 ms and 7 MB; keep it. Safe to share between threads."""

    metric = "appearance-v1"

    def __init__(self) -> None:
        self._anchors = _anchor_colours()
        self._share_of_anchor = _anchor_table(self._anchors)
        self._weight = 1 + np.hypot(self._anchors[:, 1], self._anchors[:, 2]) / 30

    def describe(self, image: RgbImage) -> Appearance:
        """A vector of 16 rows × 53 colours (unit length), or the reason for abstaining. About 15 ms at 1024 px.

        `BadInput` for an array that is not height × width × 3 of 8-bit values.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise BadInput(f"A picture of type {image.dtype} and shape {image.shape} cannot be judged: give 8-bit RGB.")
        if min(image.shape[:2]) < SMALLEST_SIDE:
            size = f"{image.shape[1]}×{image.shape[0]}"
            return _abstained(f"the picture is only {size} px, {SMALLEST_SIDE} are needed")
        small = _reduced(image)
        lab = lab_of(small)
        if reason := _unfit(small, lab):
            return _abstained(reason)
        subject = find_subject(lab)
        if subject is None:
            subject = centre_ellipse(*lab.shape[:2])
        elif subject.mean() < SMALLEST_SUBJECT_SHARE:
            return _abstained(f"the subject fills only {subject.mean():.1%} of the picture")
        rows = self._rows(small, subject)
        return Appearance(vector=(rows / np.linalg.norm(rows)).astype(np.float32).ravel())

    def describe_subject(self, image: RgbImage, subject: Mask) -> Appearance:
        """As `describe`, of the subject whose pixels are given (any size of the image's shape), the others left out.

        What lies around it, half its size on each side, stands for the light. The description is comparable with
        those of `describe`. About 5 ms at 1280 × 720; abstains and refuses as `describe`.
        """
        if min(image.shape[:2]) < SMALLEST_SIDE:
            return _abstained(f"the picture is only {image.shape[1]}×{image.shape[0]} px, {SMALLEST_SIDE} are needed")
        if subject.mean() < SMALLEST_SUBJECT_SHARE:
            return _abstained(f"the subject fills only {subject.mean():.1%} of the picture")
        (top, bottom), (left, right) = _span(np.asarray(subject.any(axis=1))), _span(np.asarray(subject.any(axis=0)))
        down, across = image.shape[0] / subject.shape[0], image.shape[1] / subject.shape[1]
        part = image[round(top * down) : round(bottom * down), round(left * across) : round(right * across)]
        mask = subject[top:bottom, left:right]
        small = _reduced(np.ascontiguousarray(part))
        if min(small.shape[:2]) < SMALLEST_SIDE // 4:
            return _abstained(f"the subject is only {part.shape[1]}×{part.shape[0]} px")
        if reason := _unfit(small, lab_of(small)):
            return _abstained(reason)
        fitted = Image.fromarray(mask).resize((small.shape[1], small.shape[0]), Image.Resampling.NEAREST)
        rows = self._rows(small, np.asarray(fitted))
        return Appearance(vector=(rows / np.linalg.norm(rows)).astype(np.float32).ravel())

    def similarity(self, a: Appearance, b: Appearance) -> float:
        """1 for the same picture, about 0 for unrelated people, symmetric. `BadInput` when one has no vector."""
        first, second = self._unpacked(a), self._unpacked(b)
        best = -1.0
        for cut, keep in enumerate(CROPS):
            likeness = self._likeness(first[:ROWS], second[:keep])
            if cut:
                likeness = max(likeness, self._likeness(first[:keep], second[:ROWS]))
            best = max(best, likeness - CROP_COST * cut)
        return float(np.clip((best - UNRELATED) / (1 - UNRELATED), -1, 1))

    def similarities(self, looks: Sequence[Appearance]) -> Floats:
        """`similarity` of each with each, n × n, in one go: 0.2 s for 1,000 looks, where pairs would take minutes.

        The same numbers but for rounding: a likeness is a dot product once every crop of each look is put in form.
        """
        if not looks:
            return np.zeros((0, 0), np.float32)
        every = [self._unpacked(look) for look in looks]
        whole, *parts = (np.stack([self._formed(rows[:keep]) for rows in every]) for keep in CROPS)
        best = whole @ whole.T
        for cut, part in enumerate(parts, 1):
            one_way = whole @ part.T
            best = np.maximum(best, np.maximum(one_way, one_way.T) - CROP_COST * cut)
        alike: Floats = np.clip((best - UNRELATED) / (1 - UNRELATED), -1, 1).astype(np.float32)
        return alike

    def _formed(self, rows: Floats) -> NDArray[np.float64]:
        """One vector for a figure's upper rows; the dot product of two is their `_likeness`."""
        groups = np.sqrt(_grouped(rows).astype(np.float64) * self._weight)
        groups /= np.maximum(np.linalg.norm(groups, axis=1, keepdims=True), 1e-12)
        anywhere = np.sqrt(rows.sum(axis=0).astype(np.float64) * self._weight)
        anywhere /= max(float(np.linalg.norm(anywhere)), 1e-12)
        parts = (np.sqrt(1 - PLACE_WEIGHT) * anywhere, np.sqrt(PLACE_WEIGHT / ROW_GROUPS) * groups.ravel())
        return np.concatenate(parts)

    def _rows(self, small: RgbImage, subject: Mask) -> Floats:
        pixels = _evenly_lit(small, subject)[subject].astype(np.int64) >> 3
        code = pixels[:, 0] * 1024 + pixels[:, 1] * 32 + pixels[:, 2]
        height_of = np.nonzero(subject)[0]
        top, bottom = int(height_of[0]), int(height_of[-1]) + 1
        row_of = (height_of - top) * ROWS // (bottom - top)
        rows = np.zeros((ROWS, len(self._anchors)), np.float32)
        for row in range(ROWS):
            rows[row] = self._share_of_anchor[code[row_of == row]].sum(axis=0)
        return rows

    def _unpacked(self, appearance: Appearance) -> Floats:
        if appearance.vector is None:
            raise BadInput(f"A picture without a description cannot be compared: {appearance.abstained_because}.")
        if appearance.vector.size != ROWS * len(self._anchors):
            raise BadInput(
                f"A description of {appearance.vector.size} numbers is none of {self.metric}: describe it again."
            )
        return appearance.vector.reshape(ROWS, -1)

    def _likeness(self, first: Floats, second: Floats) -> float:
        """0..1: colours anywhere, and colours by height in four groups of rows."""
        anywhere = self._overlap(first.sum(axis=0, keepdims=True), second.sum(axis=0, keepdims=True))
        by_place = self._overlap(_grouped(first), _grouped(second))
        return (1 - PLACE_WEIGHT) * anywhere + PLACE_WEIGHT * by_place

    def _overlap(self, first: Floats, second: Floats) -> float:
        """Mean over groups of the Bhattacharyya coefficient, strong colours counting more than greys."""
        p, q = np.sqrt(first * self._weight), np.sqrt(second * self._weight)
        sizes = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
        return float(((p * q).sum(axis=1) / np.maximum(sizes, 1e-12)).mean())


def blur_of(grey: NDArray[np.floating]) -> float:
    """0 (crisp) … 1 (soft): how little of its edges a picture loses when blurred once more, in the worse direction.

    Whatever the contrast, edges that are soft already stay as they are. Only steps of a fifth of the strongest count,
    so that a smooth sky is not called blurred. After F. Crete et al., The Blur Effect, SPIE 6492, 2007; window 9 px.
    """
    scores = []
    for values in (grey, grey.T):
        padded = np.pad(values, ((0, 0), (5, 4)), mode="edge").cumsum(axis=1)
        smooth = (padded[:, 9:] - padded[:, :-9]) / 9
        steps, steps_left = np.abs(np.diff(values, axis=1)), np.abs(np.diff(smooth, axis=1))
        steps = np.where(steps > 0.2 * np.quantile(steps, 0.995), steps, 0)
        if total := float(steps.sum()):
            scores.append(1 - float(np.maximum(0, steps - steps_left).sum()) / total)
    return max(scores, default=1.0)


def _reduced(image: RgbImage) -> RgbImage:
    scale = WORKING_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    reduced: RgbImage = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    return reduced


def _span(is_there: NDArray[np.bool_]) -> tuple[int, int]:
    """From half the length before the first to half the length after the last, inside the array."""
    places = np.flatnonzero(is_there)
    first, last = int(places[0]), int(places[-1]) + 1
    room = (last - first) // 2
    return max(0, first - room), min(len(is_there), last + room)


def _unfit(small: RgbImage, lab: Floats) -> str | None:
    luma = small.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    if float(np.quantile(luma, 0.95)) < DARK_LUMA:
        return "the picture is too dark"
    if float(np.sqrt(lab.reshape(-1, 3).var(axis=0).sum())) < BLANK_SPREAD:
        return "the picture is blank"
    if blur_of(luma) > BLUR_LIMIT:
        return "the picture is too blurred"
    return None


def _abstained(reason: str) -> Appearance:
    return Appearance(vector=None, abstained_because=reason)


def _grouped(rows: Floats) -> Floats:
    """Any number of rows as four groups of equal height, a row that lies across an edge being split."""
    edges = np.linspace(0, len(rows), ROW_GROUPS + 1)
    sums = np.concatenate([np.zeros((1, rows.shape[1]), np.float32), rows.cumsum(axis=0)])
    whole = edges.astype(np.int64)
    part = (edges - whole)[:, None].astype(np.float32)
    at_edges = sums[whole] * (1 - part) + sums[np.minimum(whole + 1, len(rows))] * part
    return np.maximum(np.diff(at_edges, axis=0), 0)


def _evenly_lit(small: RgbImage, subject: Mask) -> RgbImage:
    """The picture with the subject's highlights at one level and a quarter (in logarithm) of its cast taken out.

    Taking the whole cast out, as if every picture were grey on average, would take a red coat's red with it.
    """
    linear = linear_of(small)
    luminance = linear[subject] @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    gain = np.clip(_HIGHLIGHT / max(float(np.quantile(luminance, 0.9)), 1e-3), 0.5, 4)
    mean = linear.reshape(-1, 3).mean(axis=0)
    balance = np.clip(mean.mean() / np.maximum(mean, 1e-3), 0.5, 2) ** _TINT_REMOVED
    lit = np.clip(linear * gain * balance, 0, 1)
    curved = np.where(lit <= 0.0031308, lit * 12.92, 1.055 * lit ** (1 / 2.4) - 0.055)
    even: RgbImage = (curved * 255).astype(np.uint8)
    return even


def _anchor_colours() -> Floats:
    """53 Lab colours: five greys, and twelve hues at two lightnesses for each of two chromas."""
    colours: list[tuple[float, float, float]] = [(lightness, 0.0, 0.0) for lightness in (8, 30, 52, 75, 95)]
    for lightness, chroma in ((35, 30), (60, 30), (45, 62), (72, 62)):
        for step in range(12):
            hue = 2 * np.pi * step / 12
            colours.append((lightness, chroma * np.cos(hue), chroma * np.sin(hue)))
    return np.array(colours, np.float32)


def _anchor_table(anchors: Floats) -> Floats:
    """For each of 32³ colours (5 bits a channel, r·1024 + g·32 + b) its shares of the anchors, adding up to 1."""
    levels = (np.arange(32) * 8 + 4).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    scale = np.array([_LIGHTNESS_WEIGHT, 1, 1], np.float32)
    colours, targets = lab_of_linear(linear_of(cube)) * scale, anchors * scale
    squared = (colours**2).sum(axis=1)[:, None] + (targets**2).sum(axis=1) - 2 * colours @ targets.T
    closeness: Any = np.exp(-(squared - squared.min(axis=1, keepdims=True)) / (2 * _COLOUR_REACH**2))
    shares: Floats = (closeness / closeness.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
