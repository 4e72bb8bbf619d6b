"""What a clip is: opens an untrusted video safely, finds its frames' places, and proves that it decodes.

A clip may come from anywhere, so only plain container formats are opened (a playlist could point at
other files), every picture is bounded in size before it is decoded, and every loop is bounded in length.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from domain.errors import BadInput
from domain.records import Record
from providers.media_first_bytes import AGAIN, first_bytes, refuse_a_picture, what_it_is
from providers.ports import ClipFacts

MAX_SIDE_PIXELS = 8192
"""Widest or highest clip taken: 8K and a little. More is a damaged header or an attack on memory."""

MAX_FRAMES = 1_000_000
"""About nine hours at 30 frames a second. A clip to learn from is seconds or minutes long."""

MAX_SECONDS = 24 * 3600
"""A clip that says it lasts longer than a day has a damaged clock."""

CONTAINER_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts"
"""The formats opened, in ffmpeg's own words; never playlists (HLS, concat), which name other files."""

_MAX_BAD_PACKETS_IN_A_ROW = 300
_PLACES_TO_PROVE = 6
_USEFUL_SHARE = 0.5


class PacketScan(Record):
    """Where the frames of a clip lie, read from its packets without decoding them.

    Times are seconds from the first shown frame; `start_pts` is that frame's timestamp in the stream's own
    units. `frame_count` leaves out packets that are holes (zeros, as a broken download leaves them).
    `end_seconds` is where the picture ends, `held_seconds` where the last track of any kind does;
    `sound_index` is the first sound track that holds something ffmpeg knows, None for a silent clip.
    """

    start_pts: int
    keyframe_seconds: tuple[float, ...]
    frame_count: int
    end_seconds: float
    held_seconds: float
    sound_index: int | None


class Geometry(Record):
    """How stored pixels become shown pixels: stretched to `width`×`height`, then turned, then mirrored."""

    width: int
    height: int
    is_transposed: bool
    is_mirrored: bool
    is_flipped: bool

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as a player shows them."""
        return (self.height, self.width) if self.is_transposed else (self.width, self.height)


def probe_clip(path: Path) -> ClipFacts:
    """What a clip is; `BadInput` with one sentence for anything of which not at least half can be decoded.

    Free of side effects. Decodes the first frame and a few more spread over the clip, not the whole.
    The duration is what the packets hold, not what the header claims.
    """
    try:
        return _probe(path)
    finally:
        free_decoders()


@contextmanager
def open_clip(path: Path) -> Iterator[InputContainer]:
    """The clip's container, open for the length of a `with`; `BadInput` says what the file is instead."""
    head = first_bytes(path)
    refuse_a_picture(path, head)
    try:
        container = av.open(
            f"file:{path.absolute()}",
            container_options={"format_whitelist": CONTAINER_FORMATS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadInput(f"{path} {what_it_is(head)}") from error
    try:
        yield container
    finally:
        container.close()


def free_decoders() -> None:
    """Give back the memory of clips just closed; to be called where no variable holds them any more.

    PyAV's container and streams hold one another, and with them the decoder's pictures: 9 MB for each 1080p
    clip read (measured), until the collector happens to run. Its young generations are enough, and quick.
    """
    gc.collect(1)


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The moving picture of an opened clip, ready to decode on all cores; cover art does not count."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        seen = "only sound" if container.streams.audio else "no picture and no sound"
        raise BadInput(f"{path} holds {seen}; give a clip with a video track.")
    stream = max(streams, key=lambda s: (_pixels(s), -s.index))
    if getattr(stream, "codec_context", None) is None:
        raise BadInput(f"{path} holds video in a codec that ffmpeg does not know; convert it to H.264 in an MP4.")
    if stream.metadata.get("alpha_mode") == "1":
        # The transparency of a WebM is a second stream that this decoder leaves out: what it hides would be shown.
        raise BadInput(f"{path} is a WebM with transparency, which is not read here; export it on a background.")
    _check_size(stream.codec_context.width, stream.codec_context.height, path)
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(MAX_SIDE_PIXELS * MAX_SIDE_PIXELS)}
    return stream


def scan_packets(container: InputContainer, stream: VideoStream, path: Path) -> PacketScan:
    """Read every packet once, decoding nothing (about 38,000 frames a second, embedded_parts.md §3).

    `BadInput` when there is no frame at all or an absurd number of them. A file that breaks off ends there.
    """
    times: list[tuple[int, int, bool]] = []
    may_be_zeros = stream.codec_context.name == "rawvideo"
    holes = 0
    other_end = 0.0
    known_sounds = {s.index for s in container.streams.audio if getattr(s, "codec_context", None) is not None}
    heard: set[int] = set()
    for packet in read_packets(container):
        if packet.size == 0:
            continue
        if packet.has_sidedata("encryption_info"):
            raise BadInput(f"{path} is encrypted (DRM), so nothing of it can be seen; give a copy that is not.")
        if packet.stream_index != stream.index:
            other_end = max(other_end, _end_seconds(packet))
            heard |= known_sounds & {packet.stream_index}
            continue
        if not may_be_zeros and not any(memoryview(packet)[:64]):
            holes += 1
            continue
        at = packet.pts if packet.pts is not None else packet.dts
        if at is None:
            at = _guessed_pts(stream, len(times))
        if not packet.is_discard or packet.is_keyframe:
            times.append((at, packet.duration or 0, packet.is_keyframe and not packet.is_corrupt))
        if len(times) > MAX_FRAMES:
            raise BadInput(f"{path} has more than {MAX_FRAMES:,} frames; cut it into shorter clips.")
    if not times:
        seen = "is nothing but zeros inside" if holes else "has no frames"
        raise BadInput(f"{path} {seen}; {AGAIN}.")
    base = stream.time_base or Fraction(1, 1000)
    start = stream.start_time if stream.start_time is not None else min(at for at, _, _ in times)
    last_at, last_duration, _ = max(times)
    frame_pts = last_duration or _guessed_pts(stream, 1)
    end_seconds = float(max(last_at + frame_pts - start, frame_pts) * base)
    if end_seconds > MAX_SECONDS:
        raise BadInput(f"{path} says that it lasts {end_seconds / 3600:,.0f} hours, as a damaged clip does; {AGAIN}.")
    return PacketScan(
        start_pts=start,
        keyframe_seconds=tuple(sorted({float((at - start) * base) for at, _, is_key in times if is_key})),
        frame_count=len(times),
        end_seconds=end_seconds,
        held_seconds=max(end_seconds, other_end),
        sound_index=min(heard, default=None),
    )


def read_packets(container: InputContainer, stream: VideoStream | None = None) -> Iterator[av.Packet[Any]]:
    """Packets from where the container stands, of one stream or of all; ends where the file ends or breaks off."""
    packets: Iterator[av.Packet[Any]] = container.demux(*([] if stream is None else [stream]))
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError, IndexError):
            # IndexError: PyAV's flush at the end trips over streams that an MPEG-TS began in its middle. Its
            # "out of memory" ends the reading too: here it comes of an absurd length in a header, which is damage.
            return
        yield packet


def decoded_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Frames from where the container stands, in order of showing, passing over packets that do not decode."""
    bad_in_a_row = 0
    for packet in read_packets(container, stream):
        try:
            frames = packet.decode()
        except MemoryError:
            raise  # av's own is an FFmpegError too, but says nothing bad about the clip
        except av.FFmpegError:
            bad_in_a_row += 1
            if bad_in_a_row >= _MAX_BAD_PACKETS_IN_A_ROW:
                return
            continue
        for frame in frames:
            bad_in_a_row = 0
            if isinstance(frame, VideoFrame):
                yield frame


def undecodable(path: Path) -> BadInput:
    """The error for a clip whose packets are there and whose frames are not."""
    return BadInput(f"{path} has no frame that can be decoded; {AGAIN}.")


def seek(container: InputContainer, stream: VideoStream, scan: PacketScan, seconds: float) -> None:
    """Stand at the last keyframe at or before a time; `av.FFmpegError` where the container cannot."""
    base = stream.time_base or Fraction(1, 1000)
    container.seek(scan.start_pts + math.floor(Fraction(seconds) / base + Fraction(1, 2)), stream=stream)


def checked_geometry(stream: VideoStream, frame: VideoFrame, path: Path) -> Geometry:
    """How this clip is shown: sample aspect and display matrix applied; `BadInput` when that is absurdly large.

    The matrix maps stored (x, y) to shown (a·x + c·y, b·x + d·y); only quarter turns and mirrors are kept,
    as players do (ISO/IEC 14496-12, `tkhd`).
    """
    width, height = frame.width, frame.height
    aspect = stream.sample_aspect_ratio
    if aspect is not None and aspect > 1:
        width = round(width * aspect)
    elif aspect is not None and 0 < aspect < 1:
        height = round(height / aspect)
    _check_size(width, height, path)
    a, b, c, d = 1, 0, 0, 1
    side_data: Any = frame.side_data  # PyAV's stubs give it another type than it has
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(data), dtype=np.int32)[:5]
            a, b, _, c, d = (int(value) for value in matrix)
    is_transposed = abs(b) > abs(a)
    return Geometry(
        width=width,
        height=height,
        is_transposed=is_transposed,
        is_mirrored=(c if is_transposed else a) < 0,
        is_flipped=(b if is_transposed else d) < 0,
    )


def clip_facts(stream: VideoStream, scan: PacketScan, shown_size: tuple[int, int], path: Path) -> ClipFacts:
    """What is known of a clip whose packets were read and of which a frame was decoded; nothing is read again."""
    width, height = shown_size
    return ClipFacts(
        duration_seconds=round(scan.end_seconds, 6),
        width=width,
        height=height,
        frames_per_second=_frames_per_second(stream, scan),
        video_codec=_codec(stream),
        has_audio=scan.sound_index is not None,
        size_bytes=path.stat().st_size,
    )


def _probe(path: Path) -> ClipFacts:
    with open_clip(path) as container:
        stream = video_stream(container, path)
        claimed_seconds = 0.0 if container.duration is None else container.duration / 1_000_000
        scan = scan_packets(container, stream, path)
    if scan.held_seconds < claimed_seconds * _USEFUL_SHARE:
        raise BadInput(
            f"{path} is cut short: it promises {claimed_seconds:.1f} s and holds {scan.held_seconds:.1f} s; {AGAIN}."
        )
    with open_clip(path) as container:
        stream = video_stream(container, path)
        first = next(decoded_frames(container, stream), None)
        if first is None:
            raise BadInput(f"{path} holds {_codec(stream)} video, but no frame of it can be decoded; {AGAIN}.")
        _prove_that_it_decodes(container, stream, scan, path)
        return clip_facts(stream, scan, checked_geometry(stream, first, path).shown_size, path)


def _prove_that_it_decodes(container: InputContainer, stream: VideoStream, scan: PacketScan, path: Path) -> None:
    """Look into a few places spread over the clip; where there is one keyframe only, its first frame was enough."""
    step = scan.end_seconds / _PLACES_TO_PROVE
    base = stream.time_base or Fraction(1, 1000)
    good = 1  # the first frame was decoded already
    for place in range(1, _PLACES_TO_PROVE):
        try:
            seek(container, stream, scan, place * step)
        except av.FFmpegError:
            return  # a container that cannot seek is read from start to end later
        found = next(decoded_frames(container, stream), None)
        if found is not None and found.pts is not None:
            good += float((found.pts - scan.start_pts) * base) <= (place + 1) * step
    if good < _PLACES_TO_PROVE * _USEFUL_SHARE and not _decodes_when_read_through(scan, path):
        raise BadInput(f"{path} is damaged: {good} of {_PLACES_TO_PROVE} places looked at can be decoded; {AGAIN}.")


def _decodes_when_read_through(scan: PacketScan, path: Path) -> bool:
    """Whether at least half the frames come out sound when the clip is read from its start.

    For a clip that failed by seeking: in a short MPEG-TS ffmpeg's seeks land seconds late (0.6 s, found by our own
    soak), and only reading tells that from damage. As dear as decoding the clip.
    """
    with open_clip(path) as container:
        stream = video_stream(container, path)
        sound = sum(not frame.is_corrupt for frame in decoded_frames(container, stream))
    return sound >= scan.frame_count * _USEFUL_SHARE


def _check_size(width: int, height: int, path: Path) -> None:
    if width < 1 or height < 1:
        raise BadInput(f"{path} says its picture is {width}×{height} pixels, so it has no frames; {AGAIN}.")
    if max(width, height) > MAX_SIDE_PIXELS:
        raise BadInput(
            f"{path} is {width}×{height} pixels; scale it down to at most {MAX_SIDE_PIXELS} on its longer side."
        )


def _pixels(stream: VideoStream) -> int:
    context = getattr(stream, "codec_context", None)
    return 0 if context is None else int(context.width * context.height)


def _codec(stream: VideoStream) -> str:
    return str(stream.codec_context.codec.canonical_name)


def _end_seconds(packet: av.Packet[Any]) -> float:
    if packet.pts is None or packet.time_base is None:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def _guessed_pts(stream: VideoStream, frames: int) -> int:
    """How many timestamp units so many frames last, going by the declared rate."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return round(frames / rate / (stream.time_base or Fraction(1, 1000)))


def _frames_per_second(stream: VideoStream, scan: PacketScan) -> float:
    rate = stream.average_rate or stream.guessed_rate
    if rate is not None and 0 < rate <= 1000:
        return round(float(rate), 4)
    return round(scan.frame_count / scan.end_seconds, 4)
