"""The sandbox's captioner: says of a picture what plain numbers show of it, light, colours and where they are.

There is no vision model here, and it does not pretend to one: it names no person and no thing. Every description
begins by saying that it is the sandbox's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from providers.sandbox.engine.picture import load_rgb

LABEL = "Sandbox description"
_LONGEST_SIDE = 240  # px; more says nothing more of a picture as a whole
_HUES = (
    (15, "red"),
    (45, "orange"),
    (70, "yellow"),
    (165, "green"),
    (200, "turquoise"),
    (260, "blue"),
    (300, "violet"),
    (345, "pink"),
    (361, "red"),
)
"""Degrees of the colour circle up to which a hue has this name; ours, by the names people give them."""


def describe_picture(path: Path, *, length: str = "normal") -> str:
    """A description: `short` is one sentence, `normal` two, `long` three. Deterministic.

    Raises as `load_rgb` for what is no picture.
    """
    image: NDArray[np.float32] = np.divide(load_rgb(path, _LONGEST_SIDE), 255, dtype=np.float32)
    height, width = image.shape[:2]
    luma = image @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    shape = "wide" if width > 1.1 * height else "tall" if height > 1.1 * width else "square"
    half, third = height // 2, max(1, width // 3)
    sentences = [
        f"{LABEL}: a {shape} picture, {_brightness(float(luma.mean()))} and {_contrast(float(luma.std()))}, "
        f"{_colour(image[:half])} in its upper half and {_colour(image[half:])} in its lower half.",
        f"The left of it is {_colour(image[:, :third])}, the middle {_colour(image[:, third:-third])}, "
        f"the right {_colour(image[:, -third:])}.",
        f"The {'upper' if luma[:half].mean() >= luma[half:].mean() else 'lower'} half is the brighter one.",
    ]
    return " ".join(sentences[: {"short": 1, "normal": 2}.get(length, 3)])


def _brightness(mean: float) -> str:
    return "very dark" if mean < 0.2 else "dark" if mean < 0.4 else "evenly lit" if mean < 0.65 else "bright"


def _contrast(spread: float) -> str:
    return "flat" if spread < 0.08 else "of medium contrast" if spread < 0.22 else "of strong contrast"


def _colour(part: NDArray[np.float32]) -> str:
    """The name of a part's mean colour, with how light it is."""
    red, green, blue = (float(value) for value in part.reshape(-1, 3).mean(axis=0))
    highest, lowest = max(red, green, blue), min(red, green, blue)
    lightness = (highest + lowest) / 2
    if highest - lowest < 0.08:
        return "black" if lightness < 0.12 else "white" if lightness > 0.9 else f"{_lightness(lightness)}grey"
    spread = highest - lowest
    if highest == red:
        hue = 60 * (((green - blue) / spread) % 6)
    elif highest == green:
        hue = 60 * ((blue - red) / spread + 2)
    else:
        hue = 60 * ((red - green) / spread + 4)
    return _lightness(lightness) + next(name for limit, name in _HUES if hue < limit)


def _lightness(value: float) -> str:
    return "dark " if value < 0.33 else "light " if value > 0.67 else ""
