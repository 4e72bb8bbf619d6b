"""A clip's pictures against its model's limits, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from domain.errors import BadInput
from domain.jobs import BlobRef
from domain.registry import load_registry
from providers.ports import ImageFacts
from providers.vendor_ports import Element, VideoOrder
from tasks.picture_limits import check_pictures, pictures_of

if TYPE_CHECKING:
    from providers.wiring import Ports

REGISTRY = load_registry()
GOOD, SMALL = (1024, 576), (299, 400)


def picture(letter: str) -> BlobRef:
    return BlobRef(sha256=letter * 64, media_type="image/png", file_name=f"{letter}.png")


def ports(**sizes: tuple[int, int]) -> Ports:
    """Pictures of these sizes, by the letter of their digest; every other is a good one."""

    def probe_image(path: Path) -> ImageFacts:
        width, height = sizes.get(path.name, GOOD)
        return ImageFacts(format="PNG", width=width, height=height, size_bytes=1000)

    def local_path(sha256: str) -> Path:
        return Path(sha256[0])

    media, blobs = SimpleNamespace(probe_image=probe_image), SimpleNamespace(local_path=local_path)
    return cast("Ports", SimpleNamespace(media=media, blobs=blobs))


ORDER = VideoOrder(
    model_key="kling_o3_reference",
    prompt="@Element1",
    seconds=5,
    image=picture("a"),
    elements=(Element(frontal=picture("b"), references=(picture("c"), picture("b"))),),
    images=(picture("d"),),
)


def test_every_picture_of_an_order_is_looked_at_once() -> None:
    assert [ref.file_name for ref in pictures_of(ORDER)] == ["a.png", "b.png", "c.png", "d.png"]
    veo = VideoOrder(model_key="veo_31_reference", prompt="x", seconds=8, references=(picture("e"),))
    assert pictures_of(veo) == (picture("e"),)


def test_pictures_within_the_limits_pass() -> None:
    check_pictures(ports(), REGISTRY.model("kling_o3_reference"), ORDER)


@pytest.mark.parametrize("bad", ["a", "b", "c", "d"])
def test_one_picture_out_of_the_limits_is_named_whatever_it_was_given_as(bad: str) -> None:
    with pytest.raises(BadInput, match=rf"{bad}\.png has 299×400 pixels .* by kling_o3_reference"):
        check_pictures(ports(**{bad: SMALL}), REGISTRY.model("kling_o3_reference"), ORDER)


def test_a_model_that_states_no_limits_is_given_any_picture() -> None:
    order = VideoOrder(model_key="hailuo_23", prompt="x", seconds=6, image=picture("a"))
    check_pictures(ports(a=(2, 2)), REGISTRY.model("hailuo_23"), order)
