"""The best frames of a clip, from as little decoding as will do: keyframes first, more only where they run short."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from domain.clips import ClipFacts
from domain.frame_rules import Verdict, common_bars, judge_looks, stretches_to_decode
from domain.looks import Bars, Harvest, Look, LookMeasures
from domain.pictures import JPEG_QUALITY
from domain.records import Record
from providers.media_crew import Crew, HeldFrames
from providers.media_looks import MEASURED_WIDTH, Place, PlaceReader, RawLook
from providers.media_measures import measure_look
from providers.media_pictures import jpeg_bytes
from providers.media_places import (
    FindPlaces,
    Stretch,
    further_places,
    keyframe_places,
    keyframes_passed_over,
    places_again,
    whole_clip,
    without,
)
from providers.media_probe import clip_facts, free_decoders, open_clip, scan_packets, undecodable, video_stream
from providers.ports import RgbImage

HELD_BYTES = 100_000_000
"""Decoded frames kept for the pictures, so that the chosen ones need no second decoding: 32 of 1080p, 8 of 4K."""

_ROUNDS = 4
"""Of decoding further, each where nothing was decoded yet: what one finds may be blurred or alike."""

_FEWEST_IN_BURST = 3
_THUMBNAIL_WIDTH = 320
_THUMBNAIL_QUALITY = 80


def harvest_clip(path: Path, folder: Path, wanted: int, *, held_bytes: int = HELD_BYTES) -> Harvest:
    """The at most `wanted` best frames of a clip; writes their pictures and a thumbnail of every look into `folder`.

    Pictures are JPEG of quality 95 without chroma subsampling, as a player shows them, black bars cut off; they are
    named after their moment in milliseconds (`f_000012345.jpg`, thumbnails `t_…`), and equal clips give equal files.
    Two threads; memory does not grow with the clip's length. `held_bytes` only trades memory for time.
    `BadInput` as `probe_clip` for what is no clip, and where nothing decodes; of a damaged clip, what decodes counts.
    """
    with open_clip(path) as container:
        scan = scan_packets(container, video_stream(container, path), path)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with Crew(path, scan) as crew:
            return _Harvesting(crew, path, folder, wanted, held_bytes).run()
    finally:
        free_decoders()


class _Seen(Record):
    """A look as measured, the size of its whole picture as shown, and the keyframe from which it was decoded."""

    measures: LookMeasures
    shown_size: tuple[int, int]
    start: float | None
    burst_pictures: int

    @property
    def at_seconds(self) -> float:
        return self.measures.at_seconds


class _Harvesting:
    """One clip being harvested by a crew."""

    def __init__(self, crew: Crew, path: Path, folder: Path, wanted: int, held_bytes: int) -> None:
        self._crew = crew
        self._path = path
        self._folder = folder
        self._wanted = wanted
        self._scan = crew.scan
        self._held = HeldFrames(held_bytes, self._scan.end_seconds / max(1, wanted))
        self._seen: list[_Seen] = []
        self._combed: list[Stretch] = []
        """Where every frame was decoded already: the gaps between its looks hold nothing worth a second time."""

    def run(self) -> Harvest:
        self._look_into_keyframes()
        self._look_into(self._short_of(keyframes_passed_over), is_rough=True)
        for _ in range(_ROUNDS):
            places = self._short_of(further_places)
            if not places:
                break
            self._look_into(places)
            self._combed += [stretch for place in places for stretch in place.stretches]
        verdicts = judge_looks(self._measures(), self._wanted, self._scan.end_seconds)
        bars = common_bars(self._measures())
        self._write_pictures([s for s, verdict in zip(self._seen, verdicts, strict=True) if not verdict.reason], bars)
        self._cut_thumbnails(bars)
        return Harvest(
            facts=self._facts(),
            looks=tuple(_judged(seen, verdict, bars) for seen, verdict in zip(self._seen, verdicts, strict=True)),
            decoded_frames=self._crew.decoded_frames,
            frame_count=self._scan.frame_count,
        )

    def _short_of(self, find_places: FindPlaces) -> list[Place]:
        """Places in the stretches where what was seen so far does not do."""
        stretches = stretches_to_decode(self._measures(), self._wanted, self._scan.end_seconds)
        left = [part for stretch in stretches for part in without(stretch, self._combed)]
        return find_places(self._scan, left, [seen.at_seconds for seen in self._seen], self._wanted)

    def _facts(self) -> ClipFacts:
        return clip_facts(self._crew.stream, self._scan, self._seen[0].shown_size, self._path)

    def _measures(self) -> list[LookMeasures]:
        return [seen.measures for seen in self._seen]

    def _look_into_keyframes(self) -> None:
        """The first round. Where keyframes cannot be sought, or none of them decodes, the clip is read through."""
        places = keyframe_places(self._scan, self._wanted)
        if places:
            self._look_into(places[:1], is_rough=True)
            if self._seen and self._seen[0].burst_pictures < _FEWEST_IN_BURST <= self._scan.frame_count:
                # Hardly any frame of a burst would remain: so few are needed by others in this clip.
                self._crew.decode_densely()
                self._seen.clear()
            self._look_into(places if not self._seen else places[1:], is_rough=True)
        if not self._seen:
            self._look_into([whole_clip(self._scan, self._wanted)])
        if not self._seen:
            raise undecodable(self._path)

    def _look_into(self, places: Sequence[Place], *, is_rough: bool = False) -> None:
        found: list[_Seen] = []

        def look_into(reader: PlaceReader, place: Place) -> None:
            looks = [self._measured(reader, place, raw) for raw in reader.looks(place)]
            found.extend(looks)

        self._crew.each(places, look_into, is_rough=is_rough)
        self._seen = sorted([*self._seen, *found], key=lambda seen: seen.at_seconds)

    def _measured(self, reader: PlaceReader, place: Place, raw: RawLook) -> _Seen:
        small = reader.screen.reduced(raw.frame, MEASURED_WIDTH)
        shown_size = reader.screen.size(raw.frame)
        measures = measure_look(
            small,
            raw.burst,
            at_seconds=round(raw.at_seconds, 6),
            is_keyframe=bool(raw.frame.key_frame),
            shown_size=shown_size,
        )
        (self._folder / _thumbnail_name(measures)).write_bytes(_thumbnail(small))
        self._held.offer(measures.at_seconds, raw.frame, measures.sharpness)
        return _Seen(measures=measures, shown_size=shown_size, start=place.start, burst_pictures=len(raw.burst))

    def _write_pictures(self, kept: Sequence[_Seen], bars: Bars) -> None:
        """The full pictures: of frames still held at once, of the others after decoding them again."""

        def write_held(reader: PlaceReader, seen: _Seen) -> None:
            frame = self._held.take(seen.at_seconds)
            self._write_picture(reader.screen.picture(frame), seen.measures, bars)

        def write_again(reader: PlaceReader, place: Place) -> None:
            for raw in reader.looks(place):
                self._write_picture(reader.screen.picture(raw.frame), wanted[round(raw.at_seconds, 6)], bars)

        self._held.keep_only([seen.at_seconds for seen in kept])
        again = [seen for seen in kept if seen.at_seconds not in self._held]
        wanted = {seen.at_seconds: seen.measures for seen in again}
        self._crew.each([seen for seen in kept if seen.at_seconds in self._held], write_held)
        self._crew.each(places_again([(seen.start, seen.at_seconds) for seen in again]), write_again)

    def _write_picture(self, picture: RgbImage, measures: LookMeasures, bars: Bars) -> None:
        cut = np.ascontiguousarray(_without(picture, bars))
        (self._folder / _picture_name(measures)).write_bytes(jpeg_bytes(cut, JPEG_QUALITY, is_optimized=False))

    def _cut_thumbnails(self, bars: Bars) -> None:
        if bars == Bars():
            return
        for seen in self._seen:
            file = self._folder / _thumbnail_name(seen.measures)
            with Image.open(file) as opened:
                whole = np.asarray(opened.convert("RGB"))
            share = whole.shape[1] / seen.shown_size[0]
            file.write_bytes(_thumbnail(np.ascontiguousarray(_without(whole, _scaled(bars, share)))))


def _judged(seen: _Seen, verdict: Verdict, bars: Bars) -> Look:
    width, height = seen.shown_size
    return Look(
        measures=seen.measures,
        shot=verdict.shot,
        reason=verdict.reason,
        mark=verdict.mark,
        width=width - bars.left - bars.right,
        height=height - bars.top - bars.bottom,
        picture=None if verdict.reason else _picture_name(seen.measures),
        thumbnail=_thumbnail_name(seen.measures),
    )


def _picture_name(measures: LookMeasures) -> str:
    return f"f_{round(measures.at_seconds * 1000):09}.jpg"


def _thumbnail_name(measures: LookMeasures) -> str:
    return f"t_{round(measures.at_seconds * 1000):09}.jpg"


def _without(picture: RgbImage, bars: Bars) -> RgbImage:
    height, width, _ = picture.shape
    return picture[bars.top : height - bars.bottom, bars.left : width - bars.right]


def _scaled(bars: Bars, share: float) -> Bars:
    return Bars(
        left=round(bars.left * share),
        top=round(bars.top * share),
        right=round(bars.right * share),
        bottom=round(bars.bottom * share),
    )


def _thumbnail(small: RgbImage) -> bytes:
    picture = Image.fromarray(small)
    if picture.width > _THUMBNAIL_WIDTH:
        height = max(1, round(picture.height * _THUMBNAIL_WIDTH / picture.width))
        picture = picture.resize((_THUMBNAIL_WIDTH, height), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_THUMBNAIL_QUALITY)
    return file.getvalue()
