"""What a job's input asks for, whichever endpoint's words it is in: a still's size, a clip's length, rate and shape."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

from providers.sandbox.schemas import IMAGE_SIZES, Endpoint

CLASSES = {"480p": 480, "580p": 580, "720p": 720, "768p": 768, "1080p": 1080, "2k": 1440, "4k": 2160}
"""Shorter sides in pixels, of the resolutions' names in small letters."""
USUAL_HEIGHT = 720
KONTEXT_PIXELS = 1024 * 1024
"""What a model draws that is asked for a shape alone."""


def still_size(values: Mapping[str, Any], fallback_aspect: float = 1.0) -> tuple[int, int]:
    """Width and height in pixels, from a preset, two sides or a shape; where nothing is said, `fallback_aspect`."""
    size = values.get("image_size")
    if isinstance(size, str):
        return IMAGE_SIZES[size]
    if isinstance(size, Mapping):
        return int(size["width"]), int(size["height"])
    if "width" in values:
        return int(values["width"]), int(values["height"])
    aspect = aspect_of(values.get("aspect_ratio")) or fallback_aspect
    return round(sqrt(KONTEXT_PIXELS * aspect) / 16) * 16, round(sqrt(KONTEXT_PIXELS / aspect) / 16) * 16


def picture_format(values: Mapping[str, Any]) -> str:
    """`jpeg`, `png` or `webp`; an endpoint without a field for it makes JPEGs."""
    return str(values.get("output_format") or values.get("image_format") or "jpeg")


def clip_rate(endpoint: Endpoint, values: Mapping[str, Any]) -> int:
    """Frames per second that are drawn, before any are put between them."""
    return int(values.get("frames_per_second") or values.get("fps") or endpoint.work["frames_per_second"])


def clip_seconds(endpoint: Endpoint, values: Mapping[str, Any]) -> float:
    """How long a clip is, as its input asks for it: in seconds, or by its frames."""
    if "num_frames" in values:
        return float(values["num_frames"]) / clip_rate(endpoint, values)
    return float(endpoint.work.get("seconds") or str(values["duration"]).removesuffix("s"))


def shown_rate(endpoint: Endpoint, values: Mapping[str, Any]) -> int:
    """Frames per second of the clip: more than are drawn where Wan 2.2 puts others between them (reference 2.4)."""
    rate = clip_rate(endpoint, values)
    if values.get("adjust_fps_for_interpolation") and values.get("interpolator_model") != "none":
        rate *= int(values["num_interpolated_frames"]) + 1
    return rate


def clip_size(endpoint: Endpoint, values: Mapping[str, Any], picture_aspect: float | None) -> tuple[float, int]:
    """Shape (width ÷ height) and shorter side in pixels. A clip that is told no shape takes its picture's."""
    size = values.get("video_size")
    if isinstance(size, str) and size in IMAGE_SIZES:
        width, height = IMAGE_SIZES[size]
        return width / height, min(width, height)
    if isinstance(size, Mapping):
        return size["width"] / size["height"], min(size["width"], size["height"])
    aspect = aspect_of(values.get("aspect_ratio")) or picture_aspect or 16 / 9
    named = CLASSES.get(str(values.get("resolution")).lower(), USUAL_HEIGHT)
    return aspect, int(endpoint.work.get("height") or named)


def aspect_of(text: object) -> float | None:
    """ "16:9" → 1.78; None for `auto`, `adaptive` and the like."""
    wide, colon, high = str(text or "").partition(":")
    return float(wide) / float(high) if colon and wide.isdigit() and high.isdigit() and int(high) else None
