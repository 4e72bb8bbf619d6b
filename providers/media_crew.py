"""Two readers side by side over the places of one clip, and the decoded frames that are held for later."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
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
    """The readers of one clip, two at most, all of them decoding alike. Use it as a context, from one thread."""

    def __init__(self, path: Path, scan: PacketScan) -> None:
        self.scan = scan
        self._path = path
        self._is_sparse = True
        self._closing = contextlib.ExitStack()
        self._decoding = Decoding()
        self._readers: list[PlaceReader] = []
        self._decoded_before = 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dismiss()

    @property
    def stream(self) -> VideoStream:
        """The clip's stream, for its facts."""
        return self._hired(1, self._decoding)[0].stream

    @property
    def decoded_frames(self) -> int:
        """How many frames came out of decoders so far."""
        return self._decoded_before + sum(reader.decoded_frames for reader in self._readers)

    def decode_densely(self) -> None:
        """From now on decode the frames too that no other needs."""
        self._is_sparse = False

    def each(self, items: Sequence[Item], work: Callable[[PlaceReader, Item], None], *, is_rough: bool = False) -> None:
        """Do the work for every item, two at a time, each with a reader that nobody else uses meanwhile.

        A place that cannot be sought is passed over. The first error ends it and is raised. `is_rough` as in
        `Decoding`: only for places of which no frame but the keyframe becomes a picture.
        """
        if not items:
            return
        is_one_long = _is_one_long([item for item in items if isinstance(item, Place)])
        threads = _WORKERS if is_one_long else 1
        decoding = Decoding(is_sparse=self._is_sparse, is_rough=is_rough, threads=threads)
        left = deque(items)

        def take_turns(reader: PlaceReader) -> None:
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

        readers = self._hired(1 if is_one_long else min(_WORKERS, len(items)), decoding)
        if len(readers) == 1:
            take_turns(readers[0])
            return
        with ThreadPoolExecutor(len(readers)) as pool:
            for done in [pool.submit(take_turns, reader) for reader in readers]:
                done.result()

    def _hired(self, count: int, decoding: Decoding) -> list[PlaceReader]:
        """So many readers; fewer of a very large picture. Those that decode otherwise are dismissed first."""
        if decoding != self._decoding:
            self._dismiss()
            self._decoding = decoding
        while len(self._readers) < count and not self._is_large():
            self._readers.append(self._closing.enter_context(PlaceReader(self._path, self.scan, decoding)))
        return self._readers[:count]

    def _is_large(self) -> bool:
        contexts = [reader.stream.codec_context for reader in self._readers]
        return any(context.width * context.height >= _LARGE_FRAME_PIXELS for context in contexts)

    def _dismiss(self) -> None:
        self._decoded_before = self.decoded_frames
        self._readers.clear()
        self._closing.close()


class HeldFrames:
    """Decoded frames by their moment, as many as fit into a number of bytes.

    What is chosen in the end is spread over the clip, so are they: where most of a stretch of `spread_seconds` are
    held, the least sharp of it goes first.
    """

    def __init__(self, most_bytes: int, spread_seconds: float) -> None:
        self._left = most_bytes
        self._spread_seconds = max(spread_seconds, 0.001)
        self._frames: dict[float, tuple[float, int, VideoFrame]] = {}
        self._lock = threading.Lock()

    def __contains__(self, at_seconds: float) -> bool:
        return at_seconds in self._frames

    def offer(self, at_seconds: float, frame: VideoFrame, sharpness: float) -> None:
        """Hold the frame, and let go of less sharp ones, or of this one, until all fit."""
        size = sum(plane.buffer_size for plane in frame.planes)
        with self._lock:
            if at_seconds in self._frames:
                return
            self._frames[at_seconds] = (sharpness, size, frame)
            self._left -= size
            while self._left < 0:
                self._drop(self._least())

    def keep_only(self, moments: Iterable[float]) -> None:
        """Let go of every frame but these."""
        with self._lock:
            for at in set(self._frames).difference(moments):
                self._drop(at)

    def take(self, at_seconds: float) -> VideoFrame:
        """The frame, which is then no longer held."""
        with self._lock:
            return self._drop(at_seconds)

    def _least(self) -> float:
        held = Counter(int(at / self._spread_seconds) for at in self._frames)
        return min(self._frames, key=lambda at: (-held[int(at / self._spread_seconds)], self._frames[at][0], at))

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
