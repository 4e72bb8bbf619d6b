"""Jobs in no vendor's words: what the stand-ins hand to the engine reaches it, files, faces, LoRAs and all."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from providers.sandbox.runner import carry_out
from providers.sandbox.schemas import check_input, load_catalogue
from tests.contract.sandbox_fixtures import png, training_zip
from tests.contract.sandbox_stand_in_engine import write_lora

ENGINE = "tests.contract.sandbox_stand_in_engine"
STILL = {"prompt": "MEI_01 on the pier", "width": 64, "height": 64, "seed": 7}


def in_line(data: bytes) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(data).decode()


def weights(folder: Path, base: str, expert: str | None = None) -> str:
    write_lora(folder / "weights", base, expert)
    return in_line((folder / "weights").read_bytes())


def work(folder: Path, endpoint: str, given: dict[str, Any], *ignored: str) -> dict[str, Any]:
    """What the runner answers; `made` is what the stand-in engine wrote of the order into the first file."""
    values, issues = check_input(load_catalogue().endpoints[endpoint], given)
    assert issues == []
    order = {
        "endpoint": endpoint,
        "input": values,
        "ignored": ignored,
        "is_flagged": False,
        "max_video_height": 64,
        "folder": str(folder),
        "shelf": str(folder / "shelf"),
    }
    answer = carry_out(order, ENGINE, lambda _line: None)
    if "done" in answer and endpoint != "neutral/train":
        text = Path(answer["files"][0]["path"]).read_text()
        answer["made"] = json.JSONDecoder().raw_decode(text)[0]
    return answer


@pytest.fixture
def face() -> str:
    return in_line(png(256, 256))


def test_faces_reach_the_painter_and_an_ignored_parameter_does_not(tmp_path: Path, face: str) -> None:
    order = {**STILL, "base_model": "sdxl", "faces": [face, face]}
    assert work(tmp_path, "neutral/still", order)["made"]["faces"] == 2
    assert work(tmp_path, "neutral/still", order, "faces")["made"]["faces"] == 0


def test_one_file_given_to_one_expert_works_by_half_and_the_experts_own_wholly(tmp_path: Path) -> None:
    base = "wan-22-t2v-a14b"
    single, high = weights(tmp_path, base), weights(tmp_path, base, "high")
    order = {**STILL, "base_model": base}
    for path, transformer, strength in (
        (single, None, 0.8),
        (single, "high", 0.4),
        (high, "high", 0.8),
        (high, "low", 0.4),
    ):
        entry = {"path": path, "scale": 0.8} | ({"transformer": transformer} if transformer else {})
        assert work(tmp_path, "neutral/still", {**order, "loras": [entry]})["made"]["loras"] == [strength]


@pytest.mark.parametrize(("trained", "model", "is_taken"), [
    ("wan-22-t2v-a14b", "wan-22-i2v-a14b", True),
    ("z-image", "z-image-turbo", True),
    ("wan-21-i2v-14b", "wan-22-i2v-a14b", False),
    ("sdxl", "sd-15", False),
    ("flux-2-klein-4b", "flux-1-dev", False),
])  # fmt: skip
def test_a_lora_of_another_base_is_refused_where_a_server_could_tell(
    tmp_path: Path, trained: str, model: str, is_taken: bool
) -> None:
    order = {**STILL, "base_model": model, "loras": [{"path": weights(tmp_path, trained)}]}
    answer = work(tmp_path, "neutral/still", order)
    assert ("done" in answer) == is_taken
    if not is_taken:
        assert trained in answer["failed"]["error"]
        assert model in answer["failed"]["error"]


def test_a_first_frame_is_filmed_with_its_loras(tmp_path: Path, face: str) -> None:
    base = "wan-21-i2v-14b"
    order = {**STILL, "base_model": base, "seconds": 1, "image": face, "loras": [{"path": weights(tmp_path, base)}]}
    made = work(tmp_path, "neutral/video", order)["made"]
    assert (made["base"], len(made["loras"])) == (base, 1)
    assert "image" in made


def test_a_training_in_a_trainers_spelling_for_one_expert(tmp_path: Path) -> None:
    order = {
        "archive": in_line(training_zip()),
        "base_model": "wan-22-t2v-a14b",
        "steps": 5,
        "style": "comfy",
        "expert": "low",
    }
    lora = Path(work(tmp_path, "neutral/train", order)["files"][0]["path"])
    assert b'"sandbox_expert": "low"' in lora.read_bytes()
