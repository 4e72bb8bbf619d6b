"""Where pictures are cut for training: never enlarged, the subject whole, exactly the bucket's shape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.crops import (
    MAX_ASPECT,
    RESOLUTIONS,
    STEP,
    TINY_SHARE,
    CropPlan,
    TooSmall,
    buckets_of,
    plan_crop,
)
from domain.pictures import Box


def box(left: int, top: int, width: int, height: int) -> Box:
    return Box(left=left, top=top, right=left + width, bottom=top + height)


def planned(width: int, height: int, subject: Box | None = None, *keep_out: Box) -> CropPlan:
    plan = plan_crop(width, height, subject, keep_out)
    assert isinstance(plan, CropPlan)
    return plan


def holds(outer: Box, inner: Box) -> bool:
    return (
        outer.left <= inner.left
        and outer.top <= inner.top
        and outer.right >= inner.right
        and outer.bottom >= inner.bottom
    )


@st.composite
def pictures(draw: st.DrawFn) -> tuple[int, int, Box]:
    """A size, and a subject somewhere in it."""
    width, height = draw(st.integers(200, 4200)), draw(st.integers(200, 4200))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return width, height, box(left, top, draw(st.integers(1, width - left)), draw(st.integers(1, height - top)))


@given(pictures())
def test_a_crop_lies_in_the_picture_has_its_buckets_shape_and_enlarges_nothing(picture: tuple[int, int, Box]) -> None:
    width, height, subject = picture
    plan = plan_crop(width, height, subject)
    if isinstance(plan, CropPlan):
        assert holds(box(0, 0, width, height), plan.box)
        assert plan.box.width * plan.height == plan.box.height * plan.width
        assert plan.scale == plan.width / plan.box.width <= 1
        assert (plan.width, plan.height) in {(b.width, b.height) for b in buckets_of(plan.resolution)}


@given(pictures())
def test_a_subject_that_fits_is_whole_and_one_that_does_not_keeps_its_head(picture: tuple[int, int, Box]) -> None:
    width, height, subject = picture
    plan = plan_crop(width, height, subject)
    if isinstance(plan, CropPlan):
        does_fit = subject.width <= plan.box.width and subject.height <= plan.box.height
        assert holds(plan.box, subject) == does_fit == plan.is_subject_whole
        assert plan.box.top <= subject.top < plan.box.bottom


@given(pictures())
def test_only_what_fills_no_bucket_of_its_shape_is_too_small(picture: tuple[int, int, Box]) -> None:
    width, height, subject = picture
    plan = plan_crop(width, height, subject)
    if isinstance(plan, TooSmall):
        assert plan.needs_width > width or plan.needs_height > height
    else:
        assert plan.box.width * plan.box.height >= plan.width * plan.height


@given(pictures(), st.lists(st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.05, 0.6)), max_size=3))
def test_keeping_others_out_never_cuts_the_subject_nor_enlarges_and_says_when_it_cannot(
    picture: tuple[int, int, Box], places: list[tuple[float, float, float]]
) -> None:
    width, height, subject = picture
    others = [
        box(int(x * width), int(y * height), int(size * width) + 1, int(size * height) + 1) for x, y, size in places
    ]
    plan, alone = plan_crop(width, height, subject, others), plan_crop(width, height, subject)
    assert isinstance(plan, TooSmall) == isinstance(alone, TooSmall)
    if isinstance(plan, CropPlan):
        assert holds(box(0, 0, width, height), plan.box)
        assert plan.box.width * plan.height == plan.box.height * plan.width
        assert plan.scale <= 1
        assert isinstance(alone, CropPlan)
        assert plan.is_subject_whole == holds(plan.box, subject)
        assert plan.is_subject_whole or not alone.is_subject_whole
        touched = [
            other
            for other in others
            if max(other.left, plan.box.left) < min(other.right, plan.box.right)
            and max(other.top, plan.box.top) < min(other.bottom, plan.box.bottom)
        ]
        assert plan.has_keep_out == bool(touched)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_buckets_stay_within_their_area_in_steps_of_64(resolution: int) -> None:
    buckets = buckets_of(resolution)
    assert (resolution, resolution) in {(b.width, b.height) for b in buckets}
    for bucket in buckets:
        assert bucket.width % STEP == bucket.height % STEP == 0
        assert bucket.width * bucket.height <= resolution**2 < bucket.width * (bucket.height + STEP)
        assert max(bucket.width, bucket.height) <= MAX_ASPECT * min(bucket.width, bucket.height)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((1920, 1080), (1344, 768)),
        ((1280, 720), (1024, 576)),
        ((960, 540), (640, 384)),
        ((1080, 1920), (768, 1344)),
        ((1024, 1024), (1024, 1024)),
        ((1023, 1023), (768, 768)),
        ((4000, 3000), (1152, 896)),
    ],
)
def test_a_picture_goes_to_the_largest_bucket_it_fills(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    plan = planned(*size)
    assert (plan.width, plan.height) == bucket


def test_as_much_of_the_picture_is_kept_as_the_shape_allows() -> None:
    plan = planned(1920, 1080)
    assert (plan.box.height, plan.box.width) == (1080, 1890)
    assert plan.box.left == 15


def test_a_picture_too_small_is_refused_with_its_size_and_one_just_large_enough_is_not() -> None:
    small = plan_crop(480, 270)
    assert isinstance(small, TooSmall)
    assert small.sentence("slot-01.mp4 at 3.5 s") == (
        "slot-01.mp4 at 3.5 s is 480×270; the smallest bucket needs 512×512 pixels of area, 640×384 in its shape, "
        "and nothing is enlarged: give it larger or leave it out."
    )
    assert isinstance(plan_crop(511, 512), TooSmall)
    assert planned(512, 512).scale == 1


def test_a_trainer_with_larger_buckets_alone_refuses_what_another_takes() -> None:
    assert isinstance(plan_crop(960, 540, resolutions=(1024,)), TooSmall)
    assert isinstance(plan_crop(960, 540, resolutions=(512, 1024)), CropPlan)


def test_the_subject_comes_to_the_middle_as_far_as_the_picture_goes() -> None:
    square = planned(1920, 1100, box(100, 200, 300, 800))
    assert square.box.left == 0
    tall = planned(1080, 2400, box(300, 1500, 400, 800))
    assert abs((tall.box.top + tall.box.bottom) / 2 - 1900) <= 1 or tall.box.bottom == 2400


def test_a_subject_higher_than_the_crop_keeps_its_head() -> None:
    plan = planned(600, 2400, box(100, 300, 400, 2000))
    assert not plan.is_subject_whole
    assert 0 < 300 - plan.box.top < 0.05 * plan.box.height


def test_a_tiny_subject_in_a_wide_frame_is_cropped_closer_and_an_ordinary_one_is_not() -> None:
    wide = planned(3840, 2160, box(1800, 900, 200, 500))
    assert wide.is_closer
    assert 500 / wide.box.height >= TINY_SHARE
    assert wide.scale <= 1
    ordinary = planned(3840, 2160, box(1800, 400, 500, 1300))
    assert not ordinary.is_closer
    assert ordinary.box.height > 2100


def test_a_closer_crop_ends_where_it_would_have_to_be_enlarged() -> None:
    plan = planned(1280, 720, box(600, 300, 20, 60))
    assert plan.is_closer
    assert (plan.resolution, plan.scale) == (512, 1)


def test_somebody_else_at_the_side_is_left_out_of_the_crop() -> None:
    other = box(1500, 200, 300, 800)
    plan = planned(1920, 1080, box(300, 100, 400, 900), other)
    assert plan.box.right <= other.left
    assert not plan.has_keep_out


def test_text_across_the_subject_stays_and_is_said() -> None:
    plan = planned(1920, 1080, box(700, 100, 500, 980), box(400, 900, 1100, 100))
    assert plan.has_keep_out
    assert plan.is_subject_whole
