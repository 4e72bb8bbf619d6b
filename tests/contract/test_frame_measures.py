"""What is measured of a frame, on pictures drawn here: each measure sees its own flaw and nothing else's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from domain.looks import Bars, LookMeasures
from providers.media_measures import measure_look, noise_of, softness_of
from providers.media_overlays import find_bars
from providers.ports import RgbImage

WIDTH, HEIGHT = 480, 270
Grey = NDArray[np.uint8]


@pytest.fixture(scope="module")
def street() -> RgbImage:
    """Soft clouds of colour with a few hundred hard-edged shapes before them."""
    rng = np.random.default_rng(11)
    cells = rng.integers(40, 200, (8, 14, 3), dtype=np.uint8)
    picture = Image.fromarray(cells).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(160):
        x, y, size = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), rng.uniform(4, 30)
        corners = [(x + size * np.cos(a), y + size * np.sin(a)) for a in np.sort(rng.uniform(0, 6.28, 5))]
        pen.polygon(corners, fill=tuple(int(v) for v in rng.integers(10, 245, 3)))
    return np.asarray(picture)


def grey_of(image: RgbImage) -> Grey:
    return np.asarray(Image.fromarray(image).convert("L"))


def softened(image: RgbImage, radius: float) -> RgbImage:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def grained(image: RgbImage, deviation: float) -> RgbImage:
    noise = np.random.default_rng(3).normal(0, deviation, (*image.shape[:2], 1))
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def tiny(image: RgbImage) -> Grey:
    return np.asarray(Image.fromarray(image).convert("L").resize((96, 54), Image.Resampling.BOX))


def looked_at(image: RgbImage, burst: Sequence[RgbImage] = (), *, scale: int = 4) -> LookMeasures:
    size = (image.shape[1] * scale, image.shape[0] * scale)
    return measure_look(image, [tiny(one) for one in burst], at_seconds=1.5, is_keyframe=True, shown_size=size)


def panned(image: RgbImage, pixels_each: float, count: int = 6) -> list[RgbImage]:
    return [np.roll(image, round(pixels_each * k), axis=1) for k in range(count)]


# --- sharpness, softness, noise ---


def test_blur_takes_sharpness_away_and_darkness_does_not(street: RgbImage) -> None:
    sharp = looked_at(street).sharpness
    assert looked_at(softened(street, 3)).sharpness < 0.1 * sharp
    assert looked_at((street * 0.2).astype(np.uint8)).sharpness > 0.7 * sharp


def test_noise_does_not_pass_as_sharpness(street: RgbImage) -> None:
    sharp, blurred = looked_at(street).sharpness, softened(street, 4)
    assert looked_at(grained(blurred, 12)).sharpness < 0.25 * sharp
    assert looked_at(grained(street, 12)).sharpness == pytest.approx(sharp, rel=0.3)


def test_a_sharp_face_before_a_soft_background_is_sharp(street: RgbImage) -> None:
    picture = softened(street, 8).copy()
    picture[90:230, 180:300] = street[90:230, 180:300]
    assert looked_at(picture).softness < 0.25
    assert looked_at(softened(street, 8)).softness > 0.5


@pytest.mark.parametrize("radius", [0.5, 1, 2, 4])
def test_a_softer_picture_is_called_softer(street: RgbImage, radius: float) -> None:
    assert softness_of(grey_of(softened(street, radius))) > softness_of(grey_of(softened(street, radius / 2))) + 0.02


def test_softness_sees_blur_in_one_direction_and_survives_darkness(street: RgbImage) -> None:
    swept = np.mean([np.roll(street, k, axis=1) for k in range(14)], axis=0).astype(np.uint8)
    assert softness_of(grey_of(street)) < 0.3
    assert softness_of(grey_of((street * 0.25).astype(np.uint8))) < 0.35
    assert softness_of(grey_of(swept)) > 0.5


@pytest.mark.parametrize("deviation", [4.0, 12.0, 25.0])
def test_noise_is_measured_in_grey_levels(street: RgbImage, deviation: float) -> None:
    assert noise_of(grey_of(grained(street, deviation))) == pytest.approx(deviation, rel=0.25)


def test_fine_texture_is_not_called_noise(street: RgbImage) -> None:
    assert noise_of(grey_of(street)) < 3


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 200), (480, 4), (16, 16), (31, 470)])
def test_pictures_of_any_size_are_measured(width: int, height: int) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = looked_at(picture, [picture, picture])
    assert found.sharpness >= 0
    assert 0 <= found.softness <= 1
    assert len(found.signature) == 48


def test_an_even_picture_has_no_sharpness_and_no_contrast() -> None:
    found = looked_at(np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
    assert (found.sharpness, found.contrast, found.noise) == (0, 0, 0)
    assert found.brightness == pytest.approx(9 / 255)


def test_a_picture_that_is_bright_and_flat_is_told_in_numbers() -> None:
    rising = np.linspace(235, 255, WIDTH).astype(np.uint8)
    found = looked_at(np.repeat(np.tile(rising, (HEIGHT, 1))[:, :, None], 3, axis=2))
    assert found.brightness > 0.95
    assert found.contrast == pytest.approx(18 / 255, abs=0.01)


# --- what the burst tells ---


def test_without_a_burst_nothing_is_said_of_motion(street: RgbImage) -> None:
    found = looked_at(street, [street])
    assert (found.change, found.bend, found.jump) == (0, 1, 1)


def test_a_repeated_frame_does_not_change(street: RgbImage) -> None:
    found = looked_at(street, [street] * 6)
    assert (found.change, found.bend) == (0, 0)


@pytest.mark.parametrize("level", [0, 255])
def test_a_fade_is_straight(street: RgbImage, level: int) -> None:
    burst = [(street * (1 - 0.05 * k) + level * 0.05 * k).astype(np.uint8) for k in range(6)]
    found = looked_at(street, burst)
    assert found.bend < 0.3
    assert found.change > 8


def test_a_dissolve_of_moving_shots_is_straight(street: RgbImage) -> None:
    other = np.ascontiguousarray(255 - street[::-1, ::-1])
    burst = [
        (np.roll(street, k, axis=1) * (0.8 - 0.08 * k) + np.roll(other, -k, axis=1) * (0.2 + 0.08 * k)).astype(np.uint8)
        for k in range(6)
    ]
    assert looked_at(burst[0], burst).bend < 0.6


@pytest.mark.parametrize("pixels_each", [1, 3, 8, 20])
def test_a_camera_slow_or_fast_is_not_straight(street: RgbImage, pixels_each: int) -> None:
    found = looked_at(street, panned(street, pixels_each))
    assert found.bend > 0.85
    assert found.jump < 2


def test_a_blended_cut_jumps(street: RgbImage) -> None:
    other = np.ascontiguousarray(street[::-1])
    blend = ((street.astype(np.uint16) + other) // 2).astype(np.uint8)
    found = looked_at(blend, [blend, *panned(other, 1, 5)])
    assert found.jump > 4
    assert found.change > 8


# --- bars and text ---


def boxed(picture: RgbImage, rows: int, columns: int = 0, level: int = 0) -> RgbImage:
    frame = np.full_like(picture, level)
    frame[rows : HEIGHT - rows, columns : WIDTH - columns] = picture[rows : HEIGHT - rows, columns : WIDTH - columns]
    return frame


@pytest.mark.parametrize(("rows", "columns", "level"), [(33, 0, 0), (33, 0, 16), (0, 60, 0), (20, 40, 3)])
def test_bars_are_found_and_told_in_pixels_as_shown(street: RgbImage, rows: int, columns: int, level: int) -> None:
    bars = looked_at(boxed(street, rows, columns, level)).bars
    for found, true in ((bars.top, rows), (bars.bottom, rows), (bars.left, columns), (bars.right, columns)):
        assert 4 * true <= found <= (4 * (true + 2) if true else 0)


def test_what_is_measured_leaves_the_bars_out(street: RgbImage) -> None:
    assert looked_at(boxed(street, 33)).brightness == pytest.approx(looked_at(street[34:-34]).brightness, abs=0.01)


def test_a_subtitle_in_the_bar_hides_it_not(street: RgbImage) -> None:
    picture = Image.fromarray(boxed(street, 36))
    written(picture, "Meet me at the pier before dawn!", y=HEIGHT - 30)
    assert find_bars(grey_of(np.asarray(picture))).bottom == pytest.approx(36, abs=2)
    assert looked_at(np.asarray(picture)).text_share == 0


def test_a_night_sky_over_uneven_roofs_is_no_bar(street: RgbImage) -> None:
    picture = street.copy()
    for k, roof in enumerate(np.random.default_rng(2).integers(40, 120, 16)):
        picture[:roof, 30 * k : 30 * k + 30] = 3
    assert find_bars(grey_of(picture)) == Bars()


def test_a_ceiling_that_gets_dark_slowly_is_no_bar(street: RgbImage) -> None:
    light = np.clip((np.arange(HEIGHT) - 20) / 130, 0, 1)[:, None, None]
    assert find_bars(grey_of((street * light).astype(np.uint8))) == Bars()


def test_a_black_picture_has_no_bars() -> None:
    assert find_bars(np.zeros((HEIGHT, WIDTH), np.uint8)) == Bars()


def written(picture: Image.Image, words: str, y: int, x: int | None = None, size: int = 18) -> None:
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=size)
    left = (WIDTH - pen.textlength(words, font=font)) / 2 if x is None else x
    pen.text((left, y), words, font=font, fill=(250, 250, 246), stroke_width=1, stroke_fill=(0, 0, 0))


def test_a_subtitle_is_found_and_a_row_of_lamps_is_not(street: RgbImage) -> None:
    calm = softened(street, 2)
    with_words, with_lamps = Image.fromarray(calm), Image.fromarray(calm)
    written(with_words, "Nobody leaves Neon Harbor twice.", y=HEIGHT - 34)
    pen = ImageDraw.Draw(with_lamps)
    for x in range(100, 380, 14):
        pen.rectangle((x, HEIGHT - 30, x + 6, HEIGHT - 22), fill=(255, 236, 170))
    assert looked_at(np.asarray(with_words)).text_share > 0.01
    assert looked_at(np.asarray(with_lamps)).text_share == 0
    assert looked_at(calm).text_share == 0


def test_words_in_a_corner_are_a_logo_only_when_they_stand_still_before_what_moves(street: RgbImage) -> None:
    def with_logo(background: RgbImage) -> RgbImage:
        picture = Image.fromarray(background)
        written(picture, "HARBOR 6", y=12, x=370)
        return np.asarray(picture)

    backgrounds = panned(softened(street, 2), 5)
    burnt_in = [with_logo(one) for one in backgrounds]
    on_a_wall = panned(with_logo(backgrounds[0]), 5)
    assert looked_at(burnt_in[0], burnt_in).text_share > 0.004
    assert looked_at(on_a_wall[0], on_a_wall).text_share == 0
