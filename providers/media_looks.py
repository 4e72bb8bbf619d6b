"""Looks into a clip: stands at a keyframe, decodes no more than what is asked for, and reduces it for measuring.

Everything here is about decoding little. A look takes a frame and a burst, tiny grey pictures of it and of what
follows within 0.2 s. Frames that no other is made from (half of H.264's and HEVC's) are never decoded, nor are the
packets of other looks. One reader decodes on one core; two of them side by side fill two cores better than a decoder
with two threads, whose second thread always works on a frame that nobody asked for.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from pydantic import ConfigDict

from domain.frame_rules import EVERY_SECONDS
from domain.records import Record
from providers.media_probe import PacketScan, free_decoders, open_clip, read_packets, seek, video_stream
from providers.media_shown import Screen

BURST_SECONDS = 0.2
"""How far a burst reaches: the shortest fades and dissolves are three times that long."""

BURST_PICTURES = 7
TINY_SIDE = 96
MEASURED_WIDTH = 480

SAME_MOMENT = 0.002
"""Seconds within which two timestamps are one: WebM rounds its own to a millisecond."""

_MAX_BAD_PACKETS_IN_A_ROW = 300
_INTRA_STEP_SECONDS = 0.048


class Decoding(Record):
    """How a clip is decoded. `is_sparse`: leave out frames that no other needs; `threads`: of one decoder.

    `is_rough`: smooth no block edges but in pictures that stand alone, such as keyframes: for bursts, which are made
    tiny anyway (6 % less to do, measured on H.264 at 15 Mbit/s).
    """

    is_sparse: bool = True
    is_rough: bool = False
    threads: int = 1


class Place(Record):
    """A run of decoding from a keyframe on, with the stretches in which looks are taken.

    `start` is the keyframe's second, None for the beginning of the file. Of each stretch (from, to) the first frame
    in it is looked at, then one every `step_seconds`; a stretch of no length is one moment.
    """

    start: float | None
    stretches: tuple[tuple[float, float], ...]
    step_seconds: float = EVERY_SECONDS
    has_bursts: bool = True

    @property
    def until(self) -> float:
        """The last second of which a frame may be needed."""
        return self.stretches[-1][1] + (BURST_SECONDS if self.has_bursts else 0.0) + SAME_MOMENT


class RawLook(Record):
    """A frame that was looked at, still as decoded, and its burst."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    at_seconds: float
    frame: Any
    burst: tuple[NDArray[np.uint8], ...]


class PlaceReader:
    """A clip opened for looking into places, in any order. Use it as a context, in one thread."""

    def __init__(self, path: Path, scan: PacketScan, decoding: Decoding) -> None:
        self._path = path
        self._scan = scan
        self._decoding = decoding
        self._is_all_intra = len(scan.keyframe_seconds) == scan.frame_count
        self._closing = contextlib.ExitStack()
        self._container: InputContainer
        self._stream: VideoStream
        self._has_read = False
        self.decoded_frames = 0
        self._open()

    def __enter__(self) -> PlaceReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()
        del self._stream, self._container, self.screen
        free_decoders()

    @property
    def stream(self) -> VideoStream:
        """The stream that is read, for its facts."""
        return self._stream

    def looks(self, place: Place) -> Iterator[RawLook]:
        """The looks of a place in order of time; none where nothing decodes. Deterministic, whoever reads it.

        A look is yielded when its burst is complete. `av.FFmpegError` where this container cannot seek.
        """
        wanted = _Raster(place)
        taken: _Taken | None = None
        for at, frame in self._frames(place):
            if taken is not None and at > taken.at_seconds + BURST_SECONDS + SAME_MOMENT:
                yield taken.as_look()
                taken = None
            if taken is None and wanted.takes(at):
                taken = _Taken(at, frame)
                if not place.has_bursts:
                    yield taken.as_look()
                    taken = None
            if taken is not None and taken.wants_grey(at):
                taken.add_grey(at, self.screen.tiny_grey(frame, TINY_SIDE))
        if taken is not None:
            yield taken.as_look()

    def _open(self) -> None:
        self._closing.close()
        self._container = self._closing.enter_context(open_clip(self._path))
        self._stream = video_stream(self._container, self._path)
        context = self._stream.codec_context
        context.thread_count = self._decoding.threads
        context.thread_type = "AUTO" if self._decoding.threads > 1 else "NONE"
        # Set before the decoder opens: dav1d looks at it then and never again.
        context.skip_frame = "NONREF" if self._decoding.is_sparse else "DEFAULT"
        if self._decoding.is_rough:
            context.options = {**context.options, "skip_loop_filter": "nointra"}
        self.screen = Screen(self._stream, self._path)  # a closed container's stream is memory given back
        self._has_read = False

    def _frames(self, place: Place) -> Iterator[tuple[float, VideoFrame]]:
        """Sound frames from the place's keyframe to its end, with their moments; packets after it are not read."""
        self._stand_at(place.start)
        start = -np.inf if place.start is None else place.start - SAME_MOMENT
        has_begun = place.start is None
        bad_in_a_row = 0
        fed_at = -np.inf
        left = self._frames_expected(place)
        for packet in read_packets(self._container, self._stream):
            at = self._moment(packet.pts if packet.pts is not None else packet.dts)
            has_begun = has_begun or at is None or (packet.is_keyframe and at >= start)
            if not has_begun or (self._is_all_intra and at is not None and not _is_needed(place, at, fed_at)):
                continue
            sent = self._moment(packet.dts)
            # No frame is shown before it is sent: what is sent after the end is shown after it.
            if left <= 0 or (sent is not None and sent > place.until) or bad_in_a_row > _MAX_BAD_PACKETS_IN_A_ROW:
                break
            fed_at = fed_at if at is None else at
            left -= at is not None and at <= place.until
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except av.FFmpegError:
                bad_in_a_row += 1
                continue
            bad_in_a_row = 0
            yield from self._sound(frames, start)
        yield from self._sound(self._rest(), start)

    def _rest(self) -> list[VideoFrame]:
        """The frames that the decoder has still in it."""
        try:
            return list(self._stream.codec_context.decode(None))
        except MemoryError:
            raise
        except av.FFmpegError:
            return []  # the file's end has emptied it already

    def _frames_expected(self, place: Place) -> float:
        """How many frames a keyframe and its burst are at the clip's rate: when so many were sent, it is complete."""
        if place.start is None or place.stretches != ((place.start, place.start),) or self._is_all_intra:
            return np.inf
        return int((place.until - place.start) * float(self._stream.average_rate or 25)) + 1

    def _sound(self, frames: Sequence[VideoFrame], start: float) -> Iterator[tuple[float, VideoFrame]]:
        for frame in frames:
            self.decoded_frames += 1
            at = self._moment(frame.pts if frame.pts is not None else frame.dts)
            if at is None:
                at = (self.decoded_frames - 1) / float(self._stream.average_rate or 25)
            if at >= start and not frame.is_corrupt:
                yield at, frame

    def _stand_at(self, start: float | None) -> None:
        if start is not None:
            seek(self._container, self._stream, self._scan, start)
        elif self._has_read:
            self._open()
        self._has_read = True

    def _moment(self, timestamp: int | None) -> float | None:
        base = self._stream.time_base
        return None if timestamp is None or base is None else float((timestamp - self._scan.start_pts) * base)


class _Raster:
    """Says of each frame of a place, in order of time, whether it is looked at."""

    def __init__(self, place: Place) -> None:
        self._stretches = deque(place.stretches)
        self._step = place.step_seconds
        self._earliest = -np.inf

    def takes(self, at: float) -> bool:
        while self._stretches and at > self._stretches[0][1] + SAME_MOMENT:
            self._stretches.popleft()
        if not self._stretches or at < max(self._stretches[0][0], self._earliest) - SAME_MOMENT:
            return False
        self._earliest = at + self._step
        return True


class _Taken:
    """A look that is being taken: its burst grows."""

    def __init__(self, at: float, frame: VideoFrame) -> None:
        self.at_seconds = at
        self._frame = frame
        self._greys: list[NDArray[np.uint8]] = []
        self._last_grey = -np.inf

    def wants_grey(self, at: float) -> bool:
        return at >= self._last_grey + BURST_SECONDS / BURST_PICTURES - SAME_MOMENT

    def add_grey(self, at: float, grey: NDArray[np.uint8]) -> None:
        if not self._greys or grey.shape == self._greys[0].shape:  # a stream may change its size at any frame
            self._greys.append(grey)
        self._last_grey = at

    def as_look(self) -> RawLook:
        return RawLook(at_seconds=self.at_seconds, frame=self._frame, burst=tuple(self._greys))


def _is_needed(place: Place, at: float, fed_at: float) -> bool:
    """Where every frame stands alone, only looks and a few of each burst are fed."""
    if not any(start - SAME_MOMENT <= at <= end + BURST_SECONDS for start, end in place.stretches):
        return False
    return at >= fed_at + _INTRA_STEP_SECONDS or any(abs(at - start) <= SAME_MOMENT for start, _ in place.stretches)
