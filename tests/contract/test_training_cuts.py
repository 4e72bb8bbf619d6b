"""Pictures and clips cut for training: exact sizes and counts, equal bytes for equal input, nothing enlarged."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from domain.captions import Surroundings
from domain.crops import CropPlan, plan_crop
from domain.errors import BadInput
from domain.looks import Bars
from domain.pictures import Box, Light
from domain.recipes import WAN_FRAMES
from domain.stretches import Stretch, plan_stretch
from providers.media import find_ffmpeg
from providers.ports import RgbImage, TrainingCuts
from providers.training_cuts import LocalTrainingCuts
from tests.media_samples import drawn_frame, make_clip, red_corner


@pytest.fixture(scope="module")
def cuts() -> TrainingCuts:
    return LocalTrainingCuts(find_ffmpeg())


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 24 frames per second, with sound; brighter from frame to frame."""
    path = tmp_path_factory.mktemp("clips") / "won.mp4"
    return make_clip(path, seconds=1.25, rate="24", has_sound=True, is_shaded=True)


def stretch_of(at_seconds: float, seconds: float = 1.25, size: tuple[int, int] = (160, 120)) -> Stretch:
    stretch = plan_stretch(WAN_FRAMES, at_seconds, (0.0, seconds), *size)
    assert isinstance(stretch, Stretch)
    return stretch


def pictures_of(path: Path) -> list[RgbImage]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_training_clip_has_exactly_its_frames_size_and_rate_and_no_sound(
    cuts: TrainingCuts, clip: Path, tmp_path: Path
) -> None:
    stretch = stretch_of(0.6)
    cuts.cut_clip(clip, (160, 120), stretch, tmp_path / "cut.mp4")
    with av.open(str(tmp_path / "cut.mp4")) as container:
        (stream,) = container.streams
        assert (stream.type, stream.codec_context.name) == ("video", "h264")
        assert container.streams.video[0].average_rate == 16
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    pictures = pictures_of(tmp_path / "cut.mp4")
    assert len(pictures) == stretch.frames == 17
    assert {picture.shape for picture in pictures} == {(112, 160, 3)}


def test_a_training_clip_shows_the_seconds_it_was_asked_for(cuts: TrainingCuts, clip: Path, tmp_path: Path) -> None:
    stretch = Stretch(from_seconds=0.125, frames=17, fps=16, width=160, height=112)
    cuts.cut_clip(clip, (160, 120), stretch, tmp_path / "cut.mp4")
    shades = [float(picture.mean()) for picture in pictures_of(tmp_path / "cut.mp4")]
    expected = [16 + 8 * 24 * (0.125 + number / 16) for number in range(17)]
    assert np.allclose(shades, expected, atol=10)
    assert sorted(shades) == shades


def test_equal_stretches_give_equal_bytes(cuts: TrainingCuts, clip: Path, tmp_path: Path) -> None:
    for name in ("one.mp4", "two.mp4"):
        cuts.cut_clip(clip, (160, 120), stretch_of(0.6), tmp_path / name)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.mp4", "two.mp4"]


def test_bars_are_cut_off_before_anything_else(cuts: TrainingCuts, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "barred.mp4", seconds=1.25, rate="16")
    bars = Bars(left=80)
    cuts.cut_clip(source, (160, 120), stretch_of(0.6, size=(80, 120)), tmp_path / "cut.mp4", bars)
    picture = pictures_of(tmp_path / "cut.mp4")[0]
    assert picture.shape == (112, 80, 3)
    assert red_corner(picture) == ""


def test_a_turned_clip_is_cut_the_right_way_up(cuts: TrainingCuts, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "turned.mp4", seconds=1.25, rate="16", rotation=-90)
    cuts.cut_clip(source, (120, 160), stretch_of(0.6, size=(120, 160)), tmp_path / "cut.mp4")
    picture = pictures_of(tmp_path / "cut.mp4")[0]
    assert picture.shape == (160, 112, 3)
    assert red_corner(picture) == "top right"


def test_a_clip_that_ends_early_is_refused_and_leaves_nothing(cuts: TrainingCuts, clip: Path, tmp_path: Path) -> None:
    late = Stretch(from_seconds=1.0, frames=17, fps=16, width=160, height=112)
    with pytest.raises(BadInput, match=r"gives \d of 17 frames from 1\.00 s on"):
        cuts.cut_clip(clip, (160, 120), late, tmp_path / "cut.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_clip_is_refused_with_a_sentence(cuts: TrainingCuts, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no film")
    with pytest.raises(BadInput, match=r"No training clip can be cut out of .*text\.mp4"):
        cuts.cut_clip(tmp_path / "text.mp4", (160, 120), stretch_of(0.6), tmp_path / "cut.mp4")


def test_a_crop_is_the_planned_part_at_the_planned_size(cuts: TrainingCuts) -> None:
    image = drawn_frame(3, 1280, 800)
    plan = plan_crop(1280, 800, Box(left=700, top=420, right=900, bottom=780))
    assert isinstance(plan, CropPlan)
    cropped = cuts.crop(image, plan)
    assert cropped.shape == (plan.height, plan.width, 3)
    assert cropped.dtype == np.uint8
    means = [
        part.reshape(-1, 3).mean(axis=0)
        for part in (cropped, image[plan.box.top : plan.box.bottom, plan.box.left : plan.box.right])
    ]
    assert np.allclose(*means, atol=1)


def test_a_crop_at_its_own_size_changes_no_pixel(cuts: TrainingCuts) -> None:
    image = drawn_frame(3, 520, 512)
    plan = plan_crop(520, 512)
    assert isinstance(plan, CropPlan)
    assert np.array_equal(cuts.crop(image, plan), image[:, 4:516])


def test_a_crop_outside_its_picture_is_refused(cuts: TrainingCuts) -> None:
    plan = plan_crop(1280, 800)
    assert isinstance(plan, CropPlan)
    with pytest.raises(BadInput, match="lie in a picture of 640×480"):
        cuts.crop(drawn_frame(3, 640, 480), plan)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        (
            (20, 20, 25),
            Surroundings(light=Light.NIGHT, tone="neutral", above="black", below="black", left="black", right="black"),
        ),
        (
            (215, 195, 160),
            Surroundings(light=Light.BRIGHT, tone="warm", above="beige", below="beige", left="beige", right="beige"),
        ),
        (
            (50, 80, 170),
            Surroundings(light=Light.DIM, tone="cool", above="blue", below="blue", left="blue", right="blue"),
        ),
        (
            (128, 128, 128),
            Surroundings(light=Light.SOFT, tone="neutral", above="grey", below="grey", left="grey", right="grey"),
        ),
    ],
)
def test_light_tone_and_colours_are_named(
    cuts: TrainingCuts, colour: tuple[int, int, int], expected: Surroundings
) -> None:
    assert cuts.surroundings(np.full((90, 160, 3), colour, dtype=np.uint8)) == expected


def test_the_four_edges_are_told_apart(cuts: TrainingCuts) -> None:
    image = np.full((120, 160, 3), (128, 128, 128), dtype=np.uint8)
    image[:, :20], image[:, -20:] = (70, 140, 70), (190, 40, 40)
    image[:12], image[-12:] = (50, 80, 170), (110, 75, 50)
    around = cuts.surroundings(image)
    assert (around.above, around.below, around.left, around.right) == ("blue", "brown", "green", "red")
