"""From a decoded frame to the picture a player shows: colours, light, transparency, proportions, way up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from providers.media_hdr import WIDE_PRIMARIES, is_plain, srgb_of, transfer_of
from providers.media_probe import Geometry, checked_geometry
from providers.ports import RgbImage

_UNTAGGED_HD_HEIGHT = 720
_UNSPECIFIED = 2


class Screen:
    """What shows the frames of one clip. Keeps its scalers between frames, so each thread takes one of its own."""

    def __init__(self, stream: VideoStream, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._geometry: Geometry | None = None
        self._stored_size = (0, 0)
        self._full = VideoReformatter()
        self._reduced = VideoReformatter()
        self._tiny = VideoReformatter()

    def size(self, frame: VideoFrame) -> tuple[int, int]:
        """Width and height of the picture as shown, in pixels."""
        return self._geometry_of(frame).shown_size

    def picture(self, frame: VideoFrame) -> RgbImage:
        """The frame in its full size as a player shows it, in sRGB, transparency laid on white; contiguous.

        About 5 ms for 1920×1080; high dynamic range (see `media_hdr`) costs some dozen times that.
        """
        geometry = self._geometry_of(frame)
        return self._turned(frame, self._full, geometry.width, geometry.height, Interpolation.BILINEAR)

    def reduced(self, frame: VideoFrame, most_width: int) -> RgbImage:
        """The same picture, averaged down to at most `most_width` pixels across; never enlarged."""
        geometry = self._geometry_of(frame)
        shown_width, _ = geometry.shown_size
        share = min(1.0, most_width / shown_width)
        width, height = (max(1, round(side * share)) for side in (geometry.width, geometry.height))
        return self._turned(frame, self._reduced, width, height, Interpolation.AREA)

    def tiny_grey(self, frame: VideoFrame, longest_side: int) -> NDArray[np.uint8]:
        """Only how light and dark lie, as stored (not turned): enough to see what changes from frame to frame."""
        share = min(1.0, longest_side / max(frame.width, frame.height))
        width, height = (max(1, round(side * share)) for side in (frame.width, frame.height))
        grey = self._tiny.reformat(
            frame, width=width, height=height, format="gray", interpolation=Interpolation.AREA, threads=1
        )
        return np.array(grey.to_ndarray(), dtype=np.uint8)

    def _geometry_of(self, frame: VideoFrame) -> Geometry:
        if self._geometry is None or (frame.width, frame.height) != self._stored_size:
            self._geometry = checked_geometry(self._stream, frame, self._path)
            self._stored_size = (frame.width, frame.height)
        return self._geometry

    def _turned(
        self, frame: VideoFrame, scaler: VideoReformatter, width: int, height: int, interpolation: Interpolation
    ) -> RgbImage:
        # Untagged high definition is shown as BT.709 by every player; swscale alone would assume BT.601.
        is_untagged_hd = frame.colorspace == _UNSPECIFIED and frame.height >= _UNTAGGED_HD_HEIGHT
        has_alpha = any(part.is_alpha for part in frame.format.components)
        is_deep = not has_alpha and not is_plain(frame)
        if frame.interlaced_frame and not has_alpha and not is_deep:
            whole: NDArray[Any] = frame.to_ndarray(
                format="rgb24", src_colorspace=Colorspace.ITU709 if is_untagged_hd else None
            )
            shown, is_untagged_hd = VideoFrame.from_ndarray(_first_field(whole), format="rgb24"), False
        else:
            shown = frame
        scaled = scaler.reformat(
            shown,
            width=width,
            height=height,
            format="rgba" if has_alpha else "rgb48le" if is_deep else "rgb24",
            src_colorspace=Colorspace.ITU709 if is_untagged_hd else None,
            interpolation=interpolation,
            threads=1,
        )
        pixels: NDArray[Any] = scaled.to_ndarray()
        if has_alpha:
            pixels = _on_white(pixels)
        elif is_deep:
            pixels = srgb_of(pixels, transfer_of(frame), is_wide=int(frame.color_primaries) == WIDE_PRIMARIES)
        geometry = self._geometry_of(frame)
        if geometry.is_transposed:
            pixels = pixels.transpose(1, 0, 2)
        if geometry.is_mirrored:
            pixels = pixels[:, ::-1]
        if geometry.is_flipped:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels, dtype=np.uint8)


def _first_field(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of two moments woven line by line the first, its missing lines drawn from their neighbours: no combs at edges.

    A picture that only says that it is interlaced loses half of its height's detail by it.
    """
    field = pixels[::2].astype(np.uint16)
    below = np.concatenate([field[1:], field[-1:]])
    unwoven = np.repeat(field, 2, axis=0)
    unwoven[1::2] = (field + below + 1) // 2
    return unwoven[: pixels.shape[0]].astype(np.uint8)


def _on_white(pixels: NDArray[np.uint8]) -> RgbImage:
    """Straight alpha laid on white, as stills are (see `media_pictures.load_image`)."""
    cover = pixels[:, :, 3:].astype(np.uint16)
    laid = pixels[:, :, :3] * cover + (255 - cover) * 255
    return np.asarray((laid + 127) // 255, dtype=np.uint8)
