"""The port `MediaTools` on real encoded clips and pictures: what they are, their frames and their measures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domain.frame_rules import hash_distance
from providers.media import FfmpegMediaTools, find_ffmpeg
from providers.ports import MediaTools, RgbImage, SeasonClip
from tests.media_samples import drawn_frame, make_clip, red_corner, shade


@pytest.fixture(scope="module")
def tools() -> FfmpegMediaTools:
    made = FfmpegMediaTools(find_ffmpeg())
    port: MediaTools = made  # the type checker holds the adapter to the port here
    assert port is made
    return made


# --- probing ---


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "expected"),
    [
        ("a.mp4", "libx264", "yuv420p", "h264"),
        ("a.mov", "libx264", "yuv422p10le", "h264"),
        ("a.webm", "libvpx-vp9", "yuv420p", "vp9"),
        ("a.mkv", "libx265", "yuv420p10le", "hevc"),
        ("a.avi", "mpeg4", "yuv420p", "mpeg4"),
        ("a.ts", "libx264", "yuv420p", "h264"),
        ("prores.mov", "prores_ks", "yuv422p10le", "prores"),
    ],
)
@pytest.mark.parametrize("has_sound", [True, False])
def test_a_clip_of_any_usual_kind_is_described_and_harvested(
    tools: FfmpegMediaTools,
    tmp_path: Path,
    name: str,
    codec: str,
    pixel_format: str,
    expected: str,
    has_sound: bool,
) -> None:
    path = make_clip(tmp_path / name, codec=codec, pixel_format=pixel_format, has_sound=has_sound)
    facts = tools.probe_clip(path)
    assert facts.video_codec == expected
    assert facts.has_audio is has_sound
    assert (facts.width, facts.height) == (160, 120)
    assert facts.frames_per_second == pytest.approx(25, abs=0.01)
    assert facts.duration_seconds == pytest.approx(1.0, abs=0.041)
    assert facts.size_bytes == path.stat().st_size
    looks = tools.harvest(path, tmp_path / "harvest", 4).looks
    kept = [tools.load_image(tmp_path / "harvest" / look.picture) for look in looks if look.picture]
    assert {red_corner(image) for image in kept} == {"top left"}
    assert red_corner(tools.last_frame(path)) == "top left"


@pytest.mark.parametrize("rate", ["24", "25", "30", "30000/1001", "60"])
def test_the_frame_rate_and_length_are_what_was_encoded(tools: FfmpegMediaTools, tmp_path: Path, rate: str) -> None:
    facts = tools.probe_clip(make_clip(tmp_path / "a.mp4", rate=rate))
    assert facts.frames_per_second == pytest.approx(float(Fraction(rate)), abs=0.001)
    assert facts.duration_seconds == pytest.approx(float(round(Fraction(rate)) / Fraction(rate)), abs=0.001)


@pytest.mark.parametrize("size", [(161, 121), (34, 90), (320, 66)])
def test_odd_sizes_keep_every_pixel(tools: FfmpegMediaTools, tmp_path: Path, size: tuple[int, int]) -> None:
    path = make_clip(tmp_path / "a.mp4", size=size, pixel_format="yuv444p")
    facts = tools.probe_clip(path)
    assert (facts.width, facts.height) == size
    assert tools.last_frame(path).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    ("rotation", "corner", "size"),
    [(90, "bottom left", (120, 160)), (-90, "top right", (120, 160)), (180, "bottom right", (160, 120))],
)
def test_a_turned_phone_clip_is_seen_the_right_way_up(
    tools: FfmpegMediaTools, tmp_path: Path, rotation: int, corner: str, size: tuple[int, int]
) -> None:
    path = make_clip(tmp_path / "a.mov", rotation=rotation)
    facts = tools.probe_clip(path)
    assert (facts.width, facts.height) == size
    (first,) = tools.frames_at(path, [0])
    assert first.shape == (size[1], size[0], 3)
    assert red_corner(first) == corner
    season = tmp_path / "season.mp4"
    tools.assemble([SeasonClip(slot_number=1, path=path)], season, width=size[0], height=size[1], frames_per_second=25)
    assert red_corner(tools.last_frame(season)) == corner


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(4, 3), (213, 120)), (Fraction(1, 2), (160, 240))])
def test_pixels_that_are_not_square_are_shown_square(
    tools: FfmpegMediaTools, tmp_path: Path, aspect: Fraction, size: tuple[int, int]
) -> None:
    path = make_clip(tmp_path / "a.mp4", pixel_aspect=aspect)
    facts = tools.probe_clip(path)
    assert (facts.width, facts.height) == size
    assert tools.last_frame(path).shape == (size[1], size[0], 3)


def test_a_name_like_an_option_or_an_address_is_only_a_name(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    for name in ("-i.mp4", "http:a.mp4", "it's a 100% \"clip\";'.mp4", "%03d.mp4", "naïve 猫.mp4"):
        path = make_clip(tmp_path / "plain.mp4").rename(tmp_path / name)
        assert tools.probe_clip(path).width == 160
        facts = tools.assemble(
            [SeasonClip(slot_number=1, path=path)], tmp_path / f"out {name}", width=64, height=48, frames_per_second=5
        )
        assert facts.width == 64


# --- frames ---


@pytest.mark.parametrize("keyframe_every", [1, 6, 250])
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.ts", "libx264")])
def test_the_frame_at_a_moment_is_the_one_on_screen(
    tools: FfmpegMediaTools, tmp_path: Path, name: str, codec: str, keyframe_every: int
) -> None:
    path = make_clip(
        tmp_path / name, seconds=1, codec=codec, keyframe_every=keyframe_every, is_shaded=True, size=(64, 64)
    )
    times = [0.9, 0.0, 0.5, 0.5, 0.139, -3.0, 77.0]
    seen = [float(image.mean()) for image in tools.frames_at(path, times)]
    expected = [shade(index) for index in (22, 0, 12, 12, 3, 0, 24)]
    assert seen == pytest.approx(expected, abs=3.5)


def test_the_last_frame_is_the_last_that_was_encoded(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", seconds=1, is_shaded=True)
    assert tools.last_frame(path).mean() == pytest.approx(shade(24), abs=3.5)


def test_a_clip_of_one_frame_has_a_first_and_a_last_frame(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", seconds=0.01)
    assert tools.probe_clip(path).duration_seconds == pytest.approx(0.04, abs=0.001)
    assert len(tools.harvest(path, tmp_path / "harvest", 4).looks) == 1
    assert np.array_equal(tools.last_frame(path), tools.frames_at(path, [0])[0])


# --- measures ---


def photo(seed: int = 1) -> RgbImage:
    """Something with detail at every scale, as a photograph has it."""
    random = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(random.integers(0, 256, (3 * 2**n, 4 * 2**n), dtype=np.uint8)).resize(
                (640, 480), Image.Resampling.BICUBIC
            ),
            dtype=np.float64,
        )
        / 1.3**n
        for n in range(8)
    ]
    total = np.sum(layers, axis=0)
    grey = np.clip(128 + 50 * (total - total.mean()) / total.std(), 0, 255).astype(np.uint8)
    return np.stack([grey] * 3, axis=2)


def blurred(image: RgbImage, factor: int) -> RgbImage:
    picture = Image.fromarray(image)
    small = picture.resize((picture.width // factor, picture.height // factor), Image.Resampling.BOX)
    return np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC))


def test_blur_lowers_sharpness_and_darkness_does_not(tools: FfmpegMediaTools) -> None:
    sharp = photo()
    dark = (sharp * 0.35).astype(np.uint8)
    sharpness = tools.measure_image(sharp).sharpness
    assert tools.measure_image(blurred(sharp, 4)).sharpness < sharpness / 3
    assert tools.measure_image(blurred(sharp, 8)).sharpness < tools.measure_image(blurred(sharp, 4)).sharpness
    assert tools.measure_image(dark).sharpness == pytest.approx(sharpness, rel=0.25)


def test_a_sharp_face_before_a_soft_background_is_sharp(tools: FfmpegMediaTools) -> None:
    sharp, soft = photo(), blurred(photo(), 8)
    mixed = soft.copy()
    mixed[120:360, 160:480] = sharp[120:360, 160:480]
    assert tools.measure_image(mixed).sharpness > 0.6 * tools.measure_image(sharp).sharpness
    assert tools.measure_image(mixed).sharpness > 3 * tools.measure_image(soft).sharpness


def test_an_empty_picture_is_not_sharp_however_dark(tools: FfmpegMediaTools) -> None:
    for level in (0, 128, 255):
        frame = tools.measure_image(np.full((48, 64, 3), level, np.uint8))
        assert frame.sharpness == 0
        assert frame.brightness == pytest.approx(level / 255)
    assert tools.measure_image(np.zeros((1, 1, 3), np.uint8)).sharpness == 0


def test_the_hash_is_near_for_a_reencoded_picture_and_far_for_another(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    image = photo()
    tools.encode_jpeg(image, tmp_path / "again.jpg", quality=40)
    again = tools.load_image(tmp_path / "again.jpg")
    one = tools.measure_image(image).hash64
    assert 0 <= one < 2**64
    assert hash_distance(one, tools.measure_image(again).hash64) <= 8
    assert hash_distance(one, tools.measure_image(photo(seed=5)).hash64) > 8


# --- pictures ---


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.webp", "WEBP"), ("odd.name", "PNG")]
)
def test_a_picture_is_read_by_its_content_not_its_name(
    tools: FfmpegMediaTools, tmp_path: Path, name: str, kind: str
) -> None:
    path = tmp_path / name
    Image.fromarray(drawn_frame(0)).save(path, kind)
    facts = tools.probe_image(path)
    assert (facts.format, facts.width, facts.height, facts.size_bytes) == (kind, 160, 120, path.stat().st_size)
    assert tools.load_image(path).shape == (120, 160, 3)
    assert red_corner(tools.load_image(path)) == "top left"
    assert tools.image_size(path) == (160, 120)


@pytest.mark.parametrize(
    ("orientation", "corner", "size"),
    [
        (1, "top left", (160, 120)),
        (2, "top right", (160, 120)),
        (3, "bottom right", (160, 120)),
        (4, "bottom left", (160, 120)),
        (5, "top left", (120, 160)),
        (6, "top right", (120, 160)),
        (7, "bottom right", (120, 160)),
        (8, "bottom left", (120, 160)),
        (99, "top left", (160, 120)),
    ],
)
def test_the_cameras_note_on_orientation_is_followed(
    tools: FfmpegMediaTools, tmp_path: Path, orientation: int, corner: str, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(drawn_frame(0)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert red_corner(tools.load_image(tmp_path / "a.jpg")) == corner
    assert tools.image_size(tmp_path / "a.jpg") == size


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_laid_on_white(tools: FfmpegMediaTools, tmp_path: Path, kind: str) -> None:
    layer = np.zeros((40, 40, 4), np.uint8)
    layer[:20] = (0, 0, 200, 255)
    layer[20:, 20:] = (0, 0, 0, 128)
    Image.fromarray(layer).save(tmp_path / "a", kind, lossless=True)
    image = tools.load_image(tmp_path / "a")
    assert image[5, 5].tolist() == [0, 0, 200]
    assert image[30, 5].tolist() == [255, 255, 255]
    assert image[30, 30].tolist() == [127, 127, 127]


def test_palette_grey_and_cmyk_pictures_become_rgb(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    picture = Image.fromarray(drawn_frame(0))
    picture.quantize(16).save(tmp_path / "palette.png")
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    picture.convert("L").save(tmp_path / "grey.png")
    Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) * 257).save(tmp_path / "deep.png")
    assert red_corner(tools.load_image(tmp_path / "palette.png")) == "top left"
    assert red_corner(tools.load_image(tmp_path / "cmyk.jpg")) == "top left"
    assert np.array_equal(tools.load_image(tmp_path / "grey.png"), tools.load_image(tmp_path / "deep.png"))


def test_pictures_written_are_read_back_and_equal_pictures_give_equal_bytes(
    tools: FfmpegMediaTools, tmp_path: Path
) -> None:
    image = drawn_frame(3)
    tools.encode_png(image, tmp_path / "new" / "a.png")
    assert np.array_equal(tools.load_image(tmp_path / "new" / "a.png"), image)
    assert tools.png_bytes(image) == tools.png_bytes(image.copy()) == (tmp_path / "new" / "a.png").read_bytes()
    tools.encode_jpeg(image, tmp_path / "a.jpg", quality=95)
    assert tools.jpeg_bytes(image, 95) == (tmp_path / "a.jpg").read_bytes()
    assert np.abs(tools.load_image(tmp_path / "a.jpg").astype(int) - image).mean() < 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "new"]
