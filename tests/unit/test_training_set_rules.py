"""How many pictures are trained and how many held out, and which training options a trainer takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from domain.errors import BadInput
from domain.imports import SeasonImport
from domain.registry import load_registry
from domain.training_sets import (
    FULL_HOLD_OUT_FROM,
    HELD_OUT_AIM,
    NO_HOLD_OUT_UNDER,
    held_out_count,
)
from providers.settings import Settings
from tasks.importing import import_season
from tests.ports_for_tests import PortsForTests


@pytest.mark.parametrize(
    ("total", "least", "held"),
    [
        (0, 4, 0),
        (5, 4, 0),
        (5, 1, 0),
        (6, 4, 1),
        (6, 6, 0),
        (9, 4, 1),
        (10, 10, 0),
        (11, 10, 1),
        (12, 4, 2),
        (12, 10, 2),
        (13, 4, 4),
        (13, 10, 3),
        (14, 10, 4),
        (24, 10, 4),
        (100, 10, 4),
    ],
)
def test_so_many_are_held_out(total: int, least: int, held: int) -> None:
    assert held_out_count(total, least) == held


@settings(deadline=None)
@given(total=st.integers(0, 300), least=st.integers(1, 100))
def test_held_out_pictures_never_leave_too_few_to_train_on(total: int, least: int) -> None:
    held = held_out_count(total, least)
    assert 0 <= held <= 5
    assert held <= total
    if held:
        assert total - held >= least
        assert total >= NO_HOLD_OUT_UNDER


@settings(deadline=None)
@given(total=st.integers(FULL_HOLD_OUT_FROM, 300), least=st.integers(1, 10))
def test_with_thirteen_or_more_three_to_five_are_held_out(total: int, least: int) -> None:
    assert 3 <= held_out_count(total, least) <= 5
    assert held_out_count(total, least) <= HELD_OUT_AIM


@settings(deadline=None)
@given(total=st.integers(0, FULL_HOLD_OUT_FROM - 1), least=st.integers(1, 10))
def test_with_fewer_than_thirteen_fewer_are_held_out(total: int, least: int) -> None:
    assert held_out_count(total, least) < 3


@settings(deadline=None)
@given(total=st.integers(0, 200), least=st.integers(1, 50))
def test_one_more_picture_never_holds_fewer_out(total: int, least: int) -> None:
    assert held_out_count(total, least) <= held_out_count(total + 1, least)


# --- what a trainer takes ---


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "art").mkdir()
    for number in range(12):
        Image.new("RGB", (640, 640), (number * 20, 90, 90)).save(tmp_path / "art" / f"{number}.png")
    yield tmp_path


class NoDatabase:
    """The mark of a database that is not there."""

    def installation(self) -> str:
        return "0a1b2c3d"


class SeasonsInMemory:
    """Takes what passed every check."""

    def __init__(self) -> None:
        self.stored: list[SeasonImport] = []

    def store(self, season: SeasonImport) -> int:
        self.stored.append(season)
        return len(self.stored)


def refused(folder: Path, **fields: Any) -> str:
    """The complaint about a season with one character; '' when there is none."""
    mei = {"name": "Mei", "images": [f"art/{number}.png" for number in range(12)], **fields}
    path = folder / "season.yaml"
    path.write_text(yaml.safe_dump({"season": "a", "budget_usd": 5, "characters": [mei]}, sort_keys=False))
    ports = PortsForTests(Settings.from_environ({"HOME": str(folder)}), {})
    ports.__dict__.update(seasons=SeasonsInMemory(), ledger=NoDatabase())
    try:
        import_season(ports, path)
    except BadInput as error:
        return error.message
    return ""


FLUX, WAN = "flux-1-dev", "wan-22-t2v-a14b"


@pytest.mark.parametrize(
    ("base", "training"),
    [(FLUX, {"steps": 1}), (FLUX, {"steps": 10_000}), (WAN, {"steps": 100}), (WAN, {"learning_rate": 1e-6})],
)
def test_an_option_within_the_trainers_range_is_taken(folder: Path, base: str, training: dict[str, Any]) -> None:
    assert refused(folder, base_models=[base], training=training) == ""


@pytest.mark.parametrize(
    ("base", "training", "words"),
    [
        (FLUX, {"rank": 16}, "characters[0].training.rank: FLUX LoRA fast training has no rank field"),
        (FLUX, {"learning_rate": 1e-4}, "characters[0].training.learning_rate: FLUX LoRA fast training has no"),
        (WAN, {"rank": 16}, "characters[0].training.rank: fal's Wan 2.2 trainer has no rank field"),
        (FLUX, {"steps": 10_001}, "characters[0].training.steps: is 10001; fal_flux_lora_fast takes 1 to 10000."),
        (WAN, {"steps": 99}, "characters[0].training.steps: is 99; fal_wan_22_t2v_a14b takes 100 to 20000."),
        (WAN, {"learning_rate": 1e-7}, "characters[0].training.learning_rate: is 1e-07;"),
    ],
)
def test_an_option_the_trainer_does_not_take_is_refused_with_the_trainers_reason(
    folder: Path, base: str, training: dict[str, Any], words: str
) -> None:
    said = refused(folder, base_models=[base], training=training)
    assert words in said
    assert said.startswith(f"{folder / 'season.yaml'}, line ")
    assert len(said.splitlines()) == 1


def test_with_two_bases_every_trainer_is_asked(folder: Path) -> None:
    said = refused(folder, base_models=[FLUX, WAN], training={"learning_rate": 1e-4})
    assert len(said.splitlines()) == 1
    assert "FLUX" in said


@pytest.mark.parametrize("base", [entry.key for entry in load_registry().base_models if entry.no_trainer])
def test_a_base_that_nothing_trains_is_refused_with_the_reason_and_the_others(folder: Path, base: str) -> None:
    said = refused(folder, base_models=[base])
    assert f"No LoRA can be trained on {base} at fal: {load_registry().base_model(base).no_trainer}" in said
    assert FLUX in said


def test_min_images_may_go_down_to_the_trainers_own_floor_and_no_further(folder: Path) -> None:
    assert refused(folder, min_images=4) == ""
    assert "needs at least 4 images" in refused(folder, min_images=3)


def test_fewer_images_than_are_needed_are_refused_before_anything_is_spent(folder: Path) -> None:
    few = [f"art/{number}.png" for number in range(9)]
    assert "at most 9 usable images" in refused(folder, images=few)
    assert refused(folder, images=few, min_images=9) == ""
