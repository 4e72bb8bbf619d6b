"""Frames out of a clip at given moments, or the last one, always as a player shows them."""

from __future__ import annotations

import contextlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from domain.errors import BadInput
from providers.media_probe import (
    decoded_frames,
    free_decoders,
    open_clip,
    scan_packets,
    seek,
    undecodable,
    video_stream,
)
from providers.media_shown import Screen
from providers.ports import RgbImage

_SAME_MOMENT = 0.002
"""Seconds within which two timestamps are one: WebM rounds its own to a millisecond."""

_WORTH_A_SEEK = 0.25
"""A jump shorter than this is cheaper decoded through than sought."""


def frames_at(path: Path, times: Sequence[float]) -> list[RgbImage]:
    """The pictures on screen at these seconds, in the order asked; before the start the first, past the end the last.

    Repeatable. `BadInput` as `probe_clip`. All results are held in memory at once.
    """
    found: dict[int, RgbImage] = {}
    with ClipReader(path) as reader:
        for place in sorted(range(len(times)), key=times.__getitem__):
            found[place] = reader.shown(reader.on_screen(times[place]))
    return [found[place] for place in range(len(times))]


def last_frame(path: Path) -> RgbImage:
    """The last picture that decodes. `BadInput` as `probe_clip`."""
    return frames_at(path, [math.inf])[0]


class ClipReader:
    """A clip opened for reading frames, each moment asked for later than the one before. Use it as a context."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_clip(path) as container:
            self._scan = scan_packets(container, video_stream(container, path), path)
        self._can_seek = True
        self._closing = contextlib.ExitStack()
        self._container: InputContainer
        self._stream: VideoStream
        self._open()

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()
        del self._frames, self._showing, self._ahead, self._screen, self._stream, self._container
        free_decoders()

    def on_screen(self, seconds: float) -> VideoFrame:
        """The frame a player shows at this moment."""
        self._approach(seconds)
        while self._ahead is not None and (self._showing is None or self._ahead[0] <= seconds + _SAME_MOMENT):
            self._step()
        if self._showing is None:
            raise self.undecodable()
        return self._showing[1]

    def shown(self, frame: VideoFrame) -> RgbImage:
        """The frame as a player shows it: right colours, aspect and way up, 8 bits, contiguous."""
        return self._screen.picture(frame)

    def undecodable(self) -> BadInput:
        """The error for a clip whose packets are there and whose frames are not."""
        return undecodable(self._path)

    def _open(self) -> None:
        self._closing.close()
        self._container = self._closing.enter_context(open_clip(self._path))
        self._stream = video_stream(self._container, self._path)
        self._screen = Screen(self._stream, self._path)
        self._restart()

    def _restart(self) -> None:
        """Take frames from where the container stands now; the one before is not known."""
        self._frames = decoded_frames(self._container, self._stream)
        self._showing: tuple[float, VideoFrame] | None = None
        self._ahead: tuple[float, VideoFrame] | None = None
        self._count = 0
        self._step()

    def _step(self) -> None:
        if self._ahead is not None:
            self._showing = self._ahead
        frame = next(self._frames, None)
        self._ahead = None if frame is None else (self._moment(frame), frame)
        self._count += 1

    def _moment(self, frame: VideoFrame) -> float:
        base = self._stream.time_base
        if frame.pts is None or base is None:
            return self._count / float(self._stream.average_rate or 25)
        return float((frame.pts - self._scan.start_pts) * base)

    def _approach(self, seconds: float) -> None:
        """Jump forward to the last keyframe before this moment where that saves decoding."""
        here = self._ahead or self._showing
        keys = self._scan.keyframe_seconds
        place = bisect_right(keys, seconds + _SAME_MOMENT) - 1
        if not self._can_seek or here is None or place < 0 or keys[place] <= here[0] + _WORTH_A_SEEK:
            return
        with contextlib.suppress(av.FFmpegError):
            seek(self._container, self._stream, self._scan, keys[place])
            self._restart()
            if self._ahead is not None and self._ahead[0] <= seconds + _SAME_MOMENT:
                return
        # This container cannot seek, or what lies there is damaged: from here on, every frame in turn.
        self._can_seek = False
        self._open()
