"""Two readers side by side over the places of one clip, and the decoded frames that are held for later."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from providers.media_looks import Decoding, Place, PlaceReader
from providers.media_probe import PacketScan

_WORKERS = 2
"""Machines that run clips have two cores and more; a third reader would need a third decoder's memory."""

_ALONE_SHARE = 0.6
"""Where one place holds more of the seconds to decode than this, two threads on it beat a second reader."""

_LONG_SECONDS = 1.0
_LARGE_FRAME_PIXELS = 3840 * 2160
"""From here on one reader only: two decoders of so large pictures would pass the memory allowed."""

Item = TypeVar("Item")


class Crew:
    """The readers of one clip. Use it as a context, from one thread."""

    def __init__(self, path: Path, scan: PacketScan) -> None:
        self.scan = scan
        self._path = path
        self._is_sparse = True
        self._closing = contextlib.ExitStack()
        self._readers: dict[tuple[int, Decoding], PlaceReader] = {}

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readers.clear()
        self._closing.close()

    @property
    def stream(self) -> VideoStream:
        """The clip's stream, for its facts."""
        return self._reader(0).stream

    @property
    def decoded_frames(self) -> int:
        """How many frames came out of decoders so far."""
        return sum(reader.decoded_frames for reader in self._readers.values())

    def decode_densely(self) -> None:
        """From now on decode the frames too that no other needs."""
        self._is_sparse = False

    def each(self, items: Sequence[Item], work: Callable[[PlaceReader, Item], None]) -> None:
        """Do the work for every item, two at a time, each with a reader that nobody else uses meanwhile.

        A place that cannot be sought is passed over. The first error in order of time ends it and is raised.
        """
        places = [item for item in items if isinstance(item, Place)]
        if _is_one_long(places):
            reader = self._reader(0, threads=_WORKERS)
            for item in items:
                _do(work, reader, item)
            return
        left = deque(items)

        def take_turns(worker: int) -> None:
            reader = self._readers[worker, self._decoding()]
            while True:
                try:
                    item = left.popleft()
                except IndexError:
                    return
                try:
                    _do(work, reader, item)
                except BaseException:
                    left.clear()
                    raise

        workers = range(min(_WORKERS, len(items), self._most_readers()))
        for worker in workers:
            self._reader(worker)
        if len(workers) < 2:
            for worker in workers:
                take_turns(worker)
            return
        with ThreadPoolExecutor(len(workers)) as pool:
            for done in [pool.submit(take_turns, worker) for worker in workers]:
                done.result()

    def _decoding(self, threads: int = 1) -> Decoding:
        return Decoding(is_sparse=self._is_sparse, threads=threads)

    def _reader(self, worker: int, threads: int = 1) -> PlaceReader:
        key = (worker, self._decoding(threads))
        if key not in self._readers:
            self._readers[key] = self._closing.enter_context(PlaceReader(self._path, self.scan, key[1]))
        return self._readers[key]

    def _most_readers(self) -> int:
        context = self._reader(0).stream.codec_context
        return _WORKERS if context.width * context.height < _LARGE_FRAME_PIXELS else 1


class HeldFrames:
    """Decoded frames by their moment, as many as fit into a number of bytes; the least sharp go first."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._frames: dict[float, tuple[float, int, VideoFrame]] = {}
        self._lock = threading.Lock()

    def __contains__(self, at_seconds: float) -> bool:
        return at_seconds in self._frames

    def offer(self, at_seconds: float, frame: VideoFrame, sharpness: float) -> None:
        """Hold the frame, and let go of less sharp ones, or of this one, until all fit."""
        size = sum(plane.buffer_size for plane in frame.planes)
        with self._lock:
            self._frames[at_seconds] = (sharpness, size, frame)
            self._left -= size
            while self._left < 0:
                self._drop(min(self._frames, key=lambda at: (self._frames[at][0], at)))

    def keep_only(self, moments: Iterable[float]) -> None:
        """Let go of every frame but these."""
        with self._lock:
            for at in set(self._frames).difference(moments):
                self._drop(at)

    def take(self, at_seconds: float) -> VideoFrame:
        """The frame, which is then no longer held."""
        with self._lock:
            return self._drop(at_seconds)

    def _drop(self, at_seconds: float) -> VideoFrame:
        _, size, frame = self._frames.pop(at_seconds)
        self._left += size
        return frame


def _do(work: Callable[[PlaceReader, Item], None], reader: PlaceReader, item: Item) -> None:
    try:
        work(reader, item)
    except MemoryError:
        raise
    except av.FFmpegError:
        return  # a place that cannot be sought in this container


def _is_one_long(places: Sequence[Place]) -> bool:
    seconds = [place.until - (place.start or 0.0) for place in places]
    return bool(seconds) and max(seconds) > _LONG_SECONDS and max(seconds) > _ALONE_SHARE * sum(seconds)
