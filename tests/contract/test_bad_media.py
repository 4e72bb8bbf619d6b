"""Clips and pictures that are not what they say: each is refused in one sentence, and its sound twin is taken."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domain.errors import BadInput
from providers.media import FfmpegMediaTools, find_ffmpeg
from tests.media_samples import drawn_frame, make_clip, make_sound


@pytest.fixture(scope="module")
def tools() -> FfmpegMediaTools:
    return FfmpegMediaTools(find_ffmpeg())


def refusal(tools: FfmpegMediaTools, path: Path) -> str:
    """The one sentence with which a clip is refused, wherever it is used."""
    with pytest.raises(BadInput) as caught:
        tools.probe_clip(path)
    message = caught.value.message
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert "\n" not in message
    assert ". " not in message.replace(str(path), ""), "one sentence"
    assert "Errno" not in message
    return message


def picture_refusal(tools: FfmpegMediaTools, path: Path) -> str:
    messages = set()
    for read in (tools.probe_image, tools.load_image):
        with pytest.raises(BadInput) as caught:
            read(path)
        messages.add(caught.value.message)
    (message,) = messages
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message
    return message


# --- clips ---


def test_a_clip_that_is_not_there_is_refused(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    assert "is not there" in refusal(tools, tmp_path / "none.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "none.mp4")
    assert "is not there" in refusal(tools, tmp_path / "dangling.mp4")
    assert "cannot be read" in refusal(tools, tmp_path / ("x" * 300 + ".mp4"))


def test_a_folder_is_refused(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    assert "is a folder" in refusal(tools, tmp_path)


def test_a_pipe_is_refused_without_waiting_on_it(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not an ordinary file" in refusal(tools, tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "pipe.png")
    assert "not an ordinary file" in picture_refusal(tools, tmp_path / "pipe.png")


def test_an_empty_file_is_refused(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert "is empty (0 bytes)" in refusal(tools, tmp_path / "a.mp4")


def test_a_text_file_named_mp4_is_refused(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("This is my favourite clip.\n")
    assert "is text, not a video" in refusal(tools, tmp_path / "a.mp4")


def test_a_file_of_zeros_or_noise_is_refused(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    (tmp_path / "zeros.mp4").write_bytes(bytes(5000))
    assert "nothing but zeros" in refusal(tools, tmp_path / "zeros.mp4")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(5000))
    assert "not a video that can be read" in refusal(tools, tmp_path / "noise.mp4")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_a_picture_named_mp4_is_refused_as_a_picture(tools: FfmpegMediaTools, tmp_path: Path, kind: str) -> None:
    Image.fromarray(drawn_frame(0)).save(tmp_path / "a.mp4", kind)
    assert f"is a {kind} picture" in refusal(tools, tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:{clip}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{clip}'\n",
    ],
)
def test_a_playlist_that_points_at_another_file_is_refused(tools: FfmpegMediaTools, tmp_path: Path, text: str) -> None:
    clip = make_clip(tmp_path / "real.mp4")
    for name in ("a.mp4", "a.m3u8", "a.ffconcat"):
        (tmp_path / name).write_text(text.format(clip=clip))
        assert "is text" in refusal(tools, tmp_path / name)


def test_a_clip_without_its_index_is_refused_as_cut_short(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    data = make_clip(tmp_path / "whole.mp4").read_bytes()
    tools.probe_clip(tmp_path / "whole.mp4")
    (tmp_path / "cut.mp4").write_bytes(data[: data.index(b"moov") - 4])
    assert "index (moov) is missing" in refusal(tools, tmp_path / "cut.mp4")


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9")])
@pytest.mark.parametrize("has_sound", [True, False])
def test_a_clip_that_lost_its_tail_is_taken_and_one_that_lost_most_is_not(
    tools: FfmpegMediaTools, tmp_path: Path, name: str, codec: str, has_sound: bool
) -> None:
    whole = make_clip(
        tmp_path / name, codec=codec, seconds=2, has_noise=True, keyframe_every=5, is_index_first=name == "a.mp4",
        has_sound=has_sound, size=(64, 48),
    )  # fmt: skip
    data = whole.read_bytes()
    start = data.index(b"mdat") if name == "a.mp4" else 0
    kept = tmp_path / f"kept-{name}"
    kept.write_bytes(data[: start + int((len(data) - start) * 0.8)])
    facts = tools.probe_clip(kept)
    assert 1.1 < facts.duration_seconds < 2.0
    assert tools.last_frame(kept).shape == (48, 64, 3)
    assert tools.harvest(kept, tmp_path / "harvest", 4).looks[-1].measures.at_seconds > 0.5
    lost = tmp_path / f"lost-{name}"
    lost.write_bytes(data[: start + int((len(data) - start) * 0.3)])
    assert "is cut short: it promises 2.0 s and holds 0." in refusal(tools, lost)


def test_a_clip_whose_frames_are_zeros_is_refused(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    data = bytearray(make_clip(tmp_path / "whole.mp4", is_index_first=True, has_noise=True).read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    (tmp_path / "a.mp4").write_bytes(data)
    assert "nothing but zeros inside" in refusal(tools, tmp_path / "a.mp4")


def test_a_clip_whose_frames_are_noise_is_refused(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    data = bytearray(make_clip(tmp_path / "whole.mp4", is_index_first=True).read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = b"\xff" * (len(data) - start)
    (tmp_path / "a.mp4").write_bytes(data)
    assert "no frame of it can be decoded" in refusal(tools, tmp_path / "a.mp4")
    with pytest.raises(BadInput, match="no frame that can be decoded"):
        tools.harvest(tmp_path / "a.mp4", tmp_path / "harvest", 4)
    with pytest.raises(BadInput, match="no frame that can be decoded"):
        tools.last_frame(tmp_path / "a.mp4")


@pytest.mark.parametrize(("bad_share", "is_taken"), [(0.3, True), (0.8, False)])
def test_a_clip_is_taken_while_most_of_it_decodes(
    tools: FfmpegMediaTools, tmp_path: Path, bad_share: float, is_taken: bool
) -> None:
    whole = make_clip(tmp_path / "a.mp4", seconds=2, keyframe_every=5, is_index_first=True, has_noise=True)
    data = bytearray(whole.read_bytes())
    start = data.index(b"mdat") + 4
    first_bad = int(start + (len(data) - start) * (1 - bad_share))
    data[first_bad:] = b"\xff" * (len(data) - first_bad)
    whole.write_bytes(data)
    if is_taken:
        assert tools.probe_clip(whole).width == 160
        assert tools.last_frame(whole).shape == (120, 160, 3)
    else:
        assert "places looked at can be decoded" in refusal(tools, whole)


def test_a_clip_with_sound_only_is_refused(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    assert "holds only sound" in refusal(tools, make_sound(tmp_path / "a.mp4"))


def test_a_clip_with_no_frames_is_refused(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    ftyp = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"isom")
    mvhd = struct.pack(">I4s", 108, b"mvhd") + bytes(12) + struct.pack(">II", 1000, 0) + bytes(80)
    (tmp_path / "a.mp4").write_bytes(ftyp + struct.pack(">I4s", 8 + len(mvhd), b"moov") + mvhd)
    assert "no picture and no sound" in refusal(tools, tmp_path / "a.mp4")


def test_a_clip_wider_than_8192_pixels_is_refused_and_one_just_as_wide_is_taken(
    tools: FfmpegMediaTools, tmp_path: Path
) -> None:
    assert tools.probe_clip(make_clip(tmp_path / "wide.mp4", size=(8192, 16), seconds=0.04)).width == 8192
    assert "8208×16 pixels" in refusal(tools, make_clip(tmp_path / "wider.mp4", size=(8208, 16), seconds=0.04))


def test_reading_checks_the_clip_itself(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no clip")
    with pytest.raises(BadInput, match="is text"):
        tools.harvest(tmp_path / "a.mp4", tmp_path / "harvest", 4)
    with pytest.raises(BadInput, match="is text"):
        tools.frames_at(tmp_path / "a.mp4", [0.0])
    with pytest.raises(BadInput, match="is not there"):
        tools.last_frame(tmp_path / "none.mp4")


# --- pictures ---


def png_claiming(width: int, height: int) -> bytes:
    """A tiny file whose header claims a large picture; its pixels are missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def webp_claiming(width: int, height: int) -> bytes:
    body = struct.pack("<I", 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


@pytest.mark.parametrize(
    ("data", "seen"),
    [(png_claiming(40_000, 40_000), "40,000×40,000"), (webp_claiming(16_000, 16_000), "16,000×16,000")],
)
def test_a_bomb_is_refused_from_its_header_without_being_decoded(
    tools: FfmpegMediaTools, tmp_path: Path, data: bytes, seen: str
) -> None:
    (tmp_path / "bomb").write_bytes(data)
    tracemalloc.start()
    try:
        message = picture_refusal(tools, tmp_path / "bomb")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen in message
    assert peak < 1_000_000


def test_a_jpeg_bomb_is_refused_and_50_million_pixels_are_taken(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    Image.new("L", (10_000, 5_000)).save(tmp_path / "large.jpg", quality=10)
    assert tools.image_size(tmp_path / "large.jpg") == (10_000, 5_000)
    data = bytearray((tmp_path / "large.jpg").read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    (tmp_path / "bomb.jpg").write_bytes(data)
    assert "60,000×60,000" in picture_refusal(tools, tmp_path / "bomb.jpg")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_formats_are_refused_by_name(tools: FfmpegMediaTools, tmp_path: Path, kind: str) -> None:
    Image.fromarray(drawn_frame(0)).save(tmp_path / "a.png", kind)
    assert picture_refusal(tools, tmp_path / "a.png").startswith(f"Format not supported: {kind} (")


def test_what_is_no_picture_at_all_is_refused(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    assert picture_refusal(tools, tmp_path / "text.png").startswith("Format not supported: unknown")
    make_clip(tmp_path / "clip.mp4").rename(tmp_path / "clip.png")
    assert picture_refusal(tools, tmp_path / "clip.png").startswith("Format not supported: a video")
    (tmp_path / "empty.png").touch()
    assert "is empty" in picture_refusal(tools, tmp_path / "empty.png")
    assert "is not there" in picture_refusal(tools, tmp_path / "none.png")
    assert "is a folder" in picture_refusal(tools, tmp_path)


def test_a_person_may_give_10_mb_and_a_vendor_may_return_100(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(drawn_frame(0)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(10 * 1024 * 1024 - len(whole)))
    assert tools.probe_image(path).size_bytes == 10 * 1024 * 1024
    path.write_bytes(whole + bytes(10 * 1024 * 1024 - len(whole) + 1))
    with pytest.raises(BadInput, match="at most 10 MB"):
        tools.probe_image(path)
    assert tools.load_image(path).shape == drawn_frame(0).shape
    path.write_bytes(whole + bytes(100 * 1024 * 1024 - len(whole) + 1))
    with pytest.raises(BadInput, match="at most 100 MB"):
        tools.load_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.01])
def test_a_truncated_picture_is_refused(tools: FfmpegMediaTools, tmp_path: Path, kind: str, share: float) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole", kind)
    data = (tmp_path / "whole").read_bytes()
    tools.load_image(tmp_path / "whole")
    (tmp_path / "cut").write_bytes(data[: max(16, int(len(data) * share))])
    assert "cut short or damaged" in picture_refusal(tools, tmp_path / "cut")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on damaged EXIF, which is what is made here
def test_damage_anywhere_in_a_picture_raises_nothing_but_bad_input(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a"
    for kind in ("PNG", "JPEG", "WEBP"):
        Image.fromarray(drawn_frame(0, 40, 30)).save(path, kind, exif=exif)
        whole = path.read_bytes()
        for _ in range(150):
            data = bytearray(whole)
            for place in random.integers(8, min(len(data), 300), 3):
                data[place] = random.integers(0, 256)
            path.write_bytes(data)
            try:
                assert tools.load_image(path).dtype == np.uint8
            except BadInput as error:
                assert "\n" not in error.message


@pytest.mark.parametrize(("side", "is_small"), [(511, True), (512, False)])
def test_a_small_picture_is_read_all_the_same(
    tools: FfmpegMediaTools, tmp_path: Path, side: int, is_small: bool
) -> None:
    Image.new("RGB", (side, side)).save(tmp_path / "a.png")
    facts = tools.probe_image(tmp_path / "a.png")
    assert (min(facts.width, facts.height) < 512) is is_small
