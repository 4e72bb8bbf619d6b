"""Harvesting a clip: which moments are looked at, what is written, and that the way of decoding changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageFilter

from domain.errors import BadInput
from domain.looks import Harvest
from providers.media_frames import last_frame
from providers.media_harvest import harvest_clip
from providers.ports import RgbImage
from tests.media_samples import drawn_frame, give_back_priority, is_red, make_clip, red_corner

RATE = 25


def views(count: int, *, every: int = 1, size: tuple[int, int] = (160, 120), seed: int = 5) -> list[RgbImage]:
    """So many frames, a picture of its own for every `every` of them: blocks and strokes, sharp and unlike."""
    width, height = size
    pictures = []
    for index in range(-(-count // every)):
        random = np.random.default_rng(seed * 1000 + index)
        coarse = Image.fromarray(random.integers(30, 226, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.NEAREST)
        fine = Image.fromarray(random.integers(0, 256, (height // 3, width // 3), np.uint8)).resize(size)
        pictures.append(np.asarray(Image.blend(coarse, fine.convert("RGB"), 0.4)))
    return [np.roll(pictures[index // every], index % every, axis=1) for index in range(count)]


def write_clip(
    path: Path,
    frames: Sequence[RgbImage],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    keyframe_every: int = RATE,
    times: Sequence[int] | None = None,
    has_b_frames: bool = True,
    tags: tuple[int, int, int] | None = None,
) -> Path:
    """Encode the frames at 25 a second, or at these times in milliseconds; `tags`: primaries, transfer, matrix."""
    options = {
        "libx264": {"preset": "ultrafast", "sc_threshold": "0", "bf": "2" if has_b_frames else "0", "qp": "12"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:scenecut=0"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
        "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
    }.get(codec, {})
    with av.open(str(path), "w") as container:
        stream: VideoStream = container.add_stream(codec, rate=RATE, options=options)  # type: ignore[assignment]
        stream.height, stream.width, _ = frames[0].shape
        stream.pix_fmt = pixel_format
        context = stream.codec_context
        context.gop_size = keyframe_every
        context.time_base = Fraction(1, 1000) if times else Fraction(1, RATE)
        if tags is not None:
            context.color_primaries, context.color_trc, context.colorspace = tags
        for index, picture in enumerate(frames):
            is_deep = picture.dtype == np.uint16
            frame = VideoFrame.from_ndarray(picture, format="rgb48le" if is_deep else "rgb24")
            if tags is not None:
                frame = frame.reformat(format=pixel_format, dst_colorspace=tags[2])
                frame.color_primaries, frame.color_trc = tags[:2]
            frame.pts = times[index] if times else index
            frame.time_base = context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    give_back_priority()
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def picture(folder: Path, name: str | None) -> RgbImage:
    assert name is not None
    with Image.open(folder / name) as opened:
        return np.asarray(opened.convert("RGB"))


def moments(harvest: Harvest) -> list[float]:
    return [look.measures.at_seconds for look in harvest.looks]


def test_kept_frames_are_half_a_second_apart_and_have_a_picture_and_every_look_a_thumbnail(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", views(75, every=5), keyframe_every=5)
    harvest = harvest_clip(clip, tmp_path / "out", 4)
    kept = [look for look in harvest.looks if look.is_kept]
    assert len(kept) == 4
    assert all(later - earlier >= 0.499 for earlier, later in pairwise(moments(harvest)))
    assert sorted(moments(harvest)) == moments(harvest)
    assert all((look.picture is not None) == look.is_kept for look in harvest.looks)
    assert set(files_of(tmp_path / "out")) == {
        *(look.thumbnail for look in harvest.looks),
        *(str(look.picture) for look in kept),
    }
    for look in kept:
        assert picture(tmp_path / "out", look.picture).shape == (look.height, look.width, 3) == (120, 160, 3)
        assert look.picture == f"f_{round(look.measures.at_seconds * 1000):09}.jpg"
    assert harvest.facts.video_codec == "h264"
    assert harvest.frame_count == 75


def test_the_kept_picture_is_the_frame_of_its_moment(tmp_path: Path) -> None:
    frames = views(75, every=5)
    harvest = harvest_clip(write_clip(tmp_path / "a.mp4", frames), tmp_path / "out", 20)
    for look in (look for look in harvest.looks if look.is_kept):
        drawn = frames[round(look.measures.at_seconds * RATE)].astype(int)
        assert np.abs(picture(tmp_path / "out", look.picture) - drawn).mean() < 12


def test_the_same_clip_gives_the_same_files_whatever_memory_holds(tmp_path: Path) -> None:
    """Without memory for decoded frames every kept one is decoded a second time."""
    clip = write_clip(tmp_path / "a.mp4", views(100, every=4), keyframe_every=30)
    first, again, frugal = (tmp_path / name for name in ("first", "again", "frugal"))
    told = [harvest_clip(clip, first, 8), harvest_clip(clip, again, 8), harvest_clip(clip, frugal, 8, held_bytes=0)]
    assert files_of(first) == files_of(again) == files_of(frugal)
    assert told[0] == told[1]
    assert told[0].looks == told[2].looks
    assert told[2].decoded_frames > told[0].decoded_frames


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx265", "yuv420p10le"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mp4", "libsvtav1", "yuv420p"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
    ],
)
def test_every_usual_codec_and_container_gives_frames(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    frames = views(40, every=8)
    clip = write_clip(tmp_path / name, frames, codec=codec, pixel_format=pixel_format, keyframe_every=16)
    harvest = harvest_clip(clip, tmp_path / "out", 3)
    kept = [look for look in harvest.looks if look.is_kept]
    assert len(kept) == 3
    for look in kept:
        drawn = frames[round(look.measures.at_seconds * RATE)].astype(int)
        assert np.abs(picture(tmp_path / "out", look.picture) - drawn).mean() < 25


def test_a_clip_of_one_frame_gives_that_frame(tmp_path: Path) -> None:
    harvest = harvest_clip(write_clip(tmp_path / "a.mp4", views(1)), tmp_path / "out", 20)
    assert [(look.is_kept, look.measures.at_seconds) for look in harvest.looks] == [(True, 0.0)]


def test_a_clip_of_a_fifth_of_a_second_gives_one_frame(tmp_path: Path) -> None:
    harvest = harvest_clip(write_clip(tmp_path / "a.webm", views(5), codec="libvpx-vp9"), tmp_path / "out", 20)
    assert [look.is_kept for look in harvest.looks] == [True]


def test_times_are_those_of_the_frames_where_the_rate_varies(tmp_path: Path) -> None:
    times = [0, 40, 700, 740, 780, 1500, 1510, 1520, 2900, 2940]
    clip = write_clip(tmp_path / "a.mkv", views(10), times=times, keyframe_every=5, has_b_frames=False)
    harvest = harvest_clip(clip, tmp_path / "out", 20)
    assert {round(at * 1000) for at in moments(harvest)} <= set(times)
    assert {0, 1500} <= {round(at * 1000) for at in moments(harvest)}
    assert all(later - earlier >= 0.499 for earlier, later in pairwise(moments(harvest)))


@pytest.mark.parametrize(("rotation", "corner"), [(90, "bottom left"), (180, "bottom right"), (270, "top right")])
def test_pictures_and_thumbnails_stand_the_right_way_up(tmp_path: Path, rotation: int, corner: str) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=0.5, rotation=rotation)
    [look] = harvest_clip(clip, tmp_path / "out", 1).looks[:1]
    assert look.is_kept
    assert red_corner(picture(tmp_path / "out", look.picture)) == corner
    assert red_corner(picture(tmp_path / "out", look.thumbnail)) == corner
    assert (look.width, look.height) == ((120, 160) if rotation != 180 else (160, 120))


def test_wide_pixels_are_stretched_in_both_files(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=0.5, pixel_aspect=Fraction(2, 1))
    [look] = harvest_clip(clip, tmp_path / "out", 1).looks[:1]
    assert (look.width, look.height) == (320, 120)
    assert picture(tmp_path / "out", look.picture).shape == (120, 320, 3)
    assert picture(tmp_path / "out", look.thumbnail).shape == (120, 320, 3)


def test_where_every_frame_is_a_keyframe_the_looks_stay_few(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", views(250, every=2), keyframe_every=1)
    harvest = harvest_clip(clip, tmp_path / "out", 2)
    assert 4 <= len(harvest.looks) <= 16
    assert max(moments(harvest)) > 7, "spread over the whole clip"
    assert harvest.decoded_frames < 60


def test_where_keyframes_are_few_the_frames_between_are_decoded(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", views(125, every=5), keyframe_every=500)
    harvest = harvest_clip(clip, tmp_path / "out", 8)
    assert sum(look.is_kept for look in harvest.looks) == 8
    assert sum(look.measures.is_keyframe for look in harvest.looks) == 1


def test_where_keyframes_are_enough_most_frames_are_never_decoded(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", views(150, every=25), keyframe_every=25)
    harvest = harvest_clip(clip, tmp_path / "out", 4)
    assert sum(look.is_kept for look in harvest.looks) == 4
    assert all(look.measures.is_keyframe for look in harvest.looks)
    assert harvest.decoded_frames <= 6 * 6


def test_a_clip_that_breaks_off_gives_what_there_is(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.ts", views(100, every=5), keyframe_every=20)
    broken = tmp_path / "broken.ts"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    harvest = harvest_clip(broken, tmp_path / "out", 10)
    assert any(look.is_kept for look in harvest.looks)
    assert 1.0 < max(moments(harvest)) < 3.2


def test_damage_in_the_middle_costs_only_what_it_hit(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.ts", views(100, every=5), keyframe_every=20)
    data = bytearray(whole.read_bytes())
    data[len(data) * 2 // 5 : len(data) // 2] = bytes(len(data) // 2 - len(data) * 2 // 5)
    whole.write_bytes(data)
    harvest = harvest_clip(whole, tmp_path / "out", 10)
    assert min(moments(harvest)) < 0.5
    assert max(moments(harvest)) > 3.0


def test_a_clip_of_which_nothing_decodes_is_refused_in_a_sentence(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.avi", views(20), codec="mjpeg", pixel_format="yuvj420p")
    data = bytearray(whole.read_bytes())
    at = data.index(b"movi")
    end = data.index(b"idx1")
    for place in range(at + 12, end, 3):
        data[place] ^= 0x5A
    whole.write_bytes(data)
    with pytest.raises(BadInput, match=r"a\.avi"):
        harvest_clip(whole, tmp_path / "out", 10)


def test_black_bars_are_cut_off_pictures_and_thumbnails(tmp_path: Path) -> None:
    frames = views(75, every=5)
    for frame in frames:
        frame[:20] = frame[-20:] = 0
    harvest = harvest_clip(write_clip(tmp_path / "a.mp4", frames, keyframe_every=15), tmp_path / "out", 3)
    look = next(look for look in harvest.looks if look.is_kept)
    assert look.width == 160
    assert 74 <= look.height <= 80
    for name in (look.picture, look.thumbnail):
        assert picture(tmp_path / "out", name).shape == (look.height, look.width, 3)
        assert picture(tmp_path / "out", name)[:2].mean() > 40


def test_a_blurred_keyframe_gives_way_to_a_sharp_frame_further_on(tmp_path: Path) -> None:
    frames = views(110, every=5)
    for index in range(50, 59):
        frames[index] = np.asarray(Image.fromarray(frames[index]).filter(ImageFilter.GaussianBlur(4)))
    harvest = harvest_clip(write_clip(tmp_path / "a.mp4", frames, keyframe_every=50), tmp_path / "out", 6)
    kept = [look.measures.at_seconds for look in harvest.looks if look.is_kept]
    assert 2.0 in moments(harvest)
    assert not any(2.0 <= at < 2.36 for at in kept)
    assert any(2.36 <= at < 4.0 for at in kept)


# --- high dynamic range ---

PQ, HLG, WIDE, WIDE_MATRIX = 16, 18, 9, 9


def hdr_clip(path: Path, colour: tuple[float, float, float], transfer: int) -> Path:
    """One flat colour, given as the signal of R, G and B, 0…1."""
    flat = np.broadcast_to(np.round(np.array(colour) * 65535).astype(np.uint16), (120, 160, 3))
    frames = [np.ascontiguousarray(flat)] * 3
    return write_clip(path, frames, codec="libx265", pixel_format="yuv420p10le", tags=(WIDE, transfer, WIDE_MATRIX))


def pq_signal(nits: float) -> float:
    """SMPTE ST 2084, written out once more for the test."""
    power = (nits / 10_000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


@pytest.mark.parametrize(
    ("nits", "grey"),
    [(0.0, 0), (203 * 0.18, 118), (203 * 0.36, 161), (1000.0, 255), (4000.0, 255)],
    ids=["black", "an 18 % grey", "a light grey under the knee", "the peak", "beyond the peak"],
)
def test_a_grey_in_pq_is_that_grey_on_the_screen(tmp_path: Path, nits: float, grey: int) -> None:
    shown = last_frame(hdr_clip(tmp_path / "a.mp4", (pq_signal(nits),) * 3, PQ))
    assert np.abs(shown.astype(int) - grey).max() <= 3


def test_the_red_of_an_ordinary_screen_in_pq_is_that_red(tmp_path: Path) -> None:
    """BT.709's red at 70 cd/m²: in BT.2020 it is 0.6274, 0.0691, 0.0164 (BT.2087), and under the knee."""
    signal = tuple(pq_signal(70 * part) for part in (0.6274, 0.0691, 0.0164))
    shown = last_frame(hdr_clip(tmp_path / "a.mp4", (signal[0], signal[1], signal[2]), PQ))
    assert np.abs(shown.reshape(-1, 3).astype(int) - (159, 0, 0)).max() <= 12


def test_a_grey_in_hlg_is_the_same_grey_as_in_pq(tmp_path: Path) -> None:
    """HLG's 38 % is 26 cd/m² on a screen of 1,000 (BT.2408-4 table 1: an 18 % grey card)."""
    shown = last_frame(hdr_clip(tmp_path / "a.mp4", (0.38, 0.38, 0.38), HLG))
    same = last_frame(hdr_clip(tmp_path / "b.mp4", (pq_signal(26.0),) * 3, PQ))
    assert abs(float(shown.mean()) - float(same.mean())) <= 3


def test_the_harvested_picture_of_an_hdr_clip_is_the_one_shown(tmp_path: Path) -> None:
    clip = hdr_clip(tmp_path / "a.mp4", (0.4, 0.5, 0.45), PQ)
    [look] = harvest_clip(clip, tmp_path / "out", 1).looks
    shown = last_frame(clip)
    for name in (look.thumbnail, *([look.picture] if look.picture else [])):
        assert np.abs(picture(tmp_path / "out", name).astype(int) - shown).max() <= 4


def test_an_ordinary_red_stays_as_it_was(tmp_path: Path) -> None:
    frames = [drawn_frame(0)] * 3
    assert is_red(last_frame(write_clip(tmp_path / "a.mp4", frames))[20, 20])
