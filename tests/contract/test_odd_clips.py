"""Unusual clips, honest ones and others: each is read as a player shows it, or refused with its reason.

Rotation, pixel aspect, 10 bits, sound and broken tails stand in test_media_tools.py and test_bad_media.py.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from domain.errors import BadInput
from providers.media import FfmpegMediaTools, find_ffmpeg
from providers.ports import RgbImage
from tests.media_samples import drawn_frame, make_clip, red_corner, shade


@pytest.fixture(scope="module")
def tools() -> FfmpegMediaTools:
    return FfmpegMediaTools(find_ffmpeg())


def encode(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    input_format: str = "rgb24",
    pixel_format: str = "yuv420p",
    moments: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """These pictures as a clip, 25 in a second unless `moments` (in 25ths of a second) says otherwise."""
    with av.open(str(path), "w") as container:
        stream: VideoStream = container.add_stream(codec, rate=25, options=options or {})  # type: ignore[assignment]
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixel_format
        for place, image in enumerate(images):
            frame = VideoFrame.from_ndarray(image, format=input_format)
            frame.pts = place if moments is None else moments[place]
            frame.time_base = Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def refusal(tools: FfmpegMediaTools, path: Path, folder: Path) -> str:
    """The one sentence with which a clip is refused, by probing and by harvesting alike."""
    messages = set()
    for read in (lambda: tools.probe_clip(path), lambda: tools.harvest(path, folder / "harvest", 4)):
        with pytest.raises(BadInput) as caught:
            read()
        messages.add(caught.value.message)
    (message,) = messages
    assert message.startswith(f"{path} ")
    assert message.endswith(".")
    assert "\n" not in message
    return message


def half_clear(index: int) -> np.ndarray:
    """The pattern, opaque on the left, clear on the right."""
    image = np.dstack([drawn_frame(index), np.full((120, 160), 255, np.uint8)])
    image[:, 80:, 3] = 0
    return image


@pytest.mark.parametrize(("codec", "pixel_format"), [("prores_ks", "yuva444p10le"), ("png", "rgba"), ("qtrle", "argb")])
def test_what_is_transparent_is_shown_on_white(
    tools: FfmpegMediaTools, tmp_path: Path, codec: str, pixel_format: str
) -> None:
    profile = {"profile": "4"} if codec == "prores_ks" else {}
    path = encode(
        tmp_path / "a.mov", [half_clear(i) for i in range(3)], codec=codec, input_format="rgba",
        pixel_format=pixel_format, options=profile,
    )  # fmt: skip
    image = tools.last_frame(path)
    assert red_corner(image) == "top left"
    assert image[:, 100:].min() >= 250


def test_a_webm_with_transparency_is_refused_and_its_opaque_twin_is_taken(
    tools: FfmpegMediaTools, tmp_path: Path
) -> None:
    program = [find_ffmpeg(), "-v", "error", "-f", "lavfi", "-i", "testsrc=s=64x48:r=25:d=0.2", "-c:v", "libvpx-vp9"]
    for name, pixel_format in (("clear.webm", "yuva420p"), ("opaque.webm", "yuv420p")):
        subprocess.run([*program, "-pix_fmt", pixel_format, str(tmp_path / name)], check=True)
    assert "transparency" in refusal(tools, tmp_path / "clear.webm", tmp_path)
    assert tools.probe_clip(tmp_path / "opaque.webm").width == 64


def test_an_encrypted_clip_is_refused_as_that(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "open.mp4", seconds=0.4)
    key = ["-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "76" * 16, "-encryption_kid", "a7" * 16]
    locked = tmp_path / "locked.mp4"
    subprocess.run([find_ffmpeg(), "-v", "error", "-i", str(clip), "-c", "copy", *key, str(locked)], check=True)
    assert "is encrypted (DRM)" in refusal(tools, locked, tmp_path)
    assert tools.probe_clip(clip).width == 160


def test_an_interlaced_frame_is_shown_without_combs(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    def bar(left: int) -> RgbImage:
        image = np.zeros((96, 160, 3), np.uint8)
        image[:, left : left + 20] = 255
        return image

    woven = []
    for index in range(4):
        image = bar(20 + 20 * index)
        image[1::2] = bar(60 + 20 * index)[1::2]
        woven.append(image)
    as_it_is = encode(tmp_path / "progressive.mp4", woven, options={"crf": "5"})
    said = encode(
        tmp_path / "interlaced.mp4", woven, options={"crf": "5", "flags": "+ildct+ilme", "x264-params": "tff=1"}
    )

    def combing(path: Path) -> float:
        rows = tools.frames_at(path, [0.0])[0][8:88, :, 0].astype(int)
        return float(np.abs(np.diff(rows, axis=0)).mean())

    assert combing(as_it_is) > 30
    assert combing(said) < 3
    assert tools.frames_at(said, [0.0])[0][48, 30].min() > 200
    assert tools.frames_at(said, [0.0])[0][48, 70].max() < 60


def test_a_clip_whose_frames_come_unevenly_is_read_by_its_own_clock(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    moments = [0, 1, 2, 20, 21, 45]
    images = [np.full((48, 64, 3), shade(3 * index), np.uint8) for index in range(len(moments))]
    path = encode(tmp_path / "a.mp4", images, moments=moments)
    assert tools.probe_clip(path).duration_seconds == pytest.approx(46 / 25, abs=0.041)
    seen = [float(image.mean()) for image in tools.frames_at(path, [0.5, 0.79, 0.81, 1.5, 1.79, 1.81])]
    assert seen == pytest.approx([shade(3 * index) for index in (2, 2, 3, 4, 4, 5)], abs=6)


def test_a_stream_that_changes_its_size_is_harvested(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    large, small = make_clip(tmp_path / "large.ts"), make_clip(tmp_path / "small.ts", size=(96, 96))
    both = tmp_path / "both.ts"
    both.write_bytes(large.read_bytes() + small.read_bytes())
    assert tools.harvest(both, tmp_path / "harvest", 4).looks
    assert tools.last_frame(both).shape in ((96, 96, 3), (120, 160, 3))


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "BMP", "TIFF"])
def test_a_picture_of_any_kind_is_refused_as_a_picture(tools: FfmpegMediaTools, tmp_path: Path, kind: str) -> None:
    Image.fromarray(drawn_frame(0)).save(tmp_path / "a.mp4", kind)
    assert "picture, not a video; list it under images" in refusal(tools, tmp_path / "a.mp4", tmp_path)


def test_a_header_that_promises_for_ever_is_not_believed(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    data = make_clip(tmp_path / "whole.mp4", seconds=0.4).read_bytes()

    def changed(box: bytes, offset: int, numbers: tuple[int, ...]) -> Path:
        broken = bytearray(data)
        struct.pack_into(f">{len(numbers)}I", broken, broken.index(box) + 4 + offset, *numbers)
        path = tmp_path / "a.mp4"
        path.write_bytes(broken)
        return path

    # A length in the header alone does no harm: the packets say how long the clip is.
    assert tools.probe_clip(changed(b"mdhd", 16, (0xFFFFFFF0,))).duration_seconds == pytest.approx(0.4, abs=0.05)
    assert "hours, as a damaged clip does" in refusal(tools, changed(b"stts", 8, (10, 0x7FFFFFFF)), tmp_path)
    assert "damaged" in refusal(tools, changed(b"stsz", 8, (0x0FFFFFFF,)), tmp_path)


@pytest.mark.parametrize("keyframe_every", [5, 12])
def test_a_short_clip_that_seeks_badly_is_read_through_before_it_is_judged(
    tools: FfmpegMediaTools, tmp_path: Path, keyframe_every: int
) -> None:
    path = make_clip(tmp_path / "a.ts", seconds=0.6, size=(104, 64), keyframe_every=keyframe_every)
    assert tools.probe_clip(path).duration_seconds == pytest.approx(0.6)
