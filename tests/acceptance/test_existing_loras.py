"""LoRAs that somebody already has, and LoRAs that were trained too little: what is believed, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.jobs import Stage
from tests.acceptance.season_art import train_by_hand
from tests.acceptance.season_homes import TRAINERS, Entry, Studio

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SLOT: Entry = {"number": 1, "prompt": "@Mei nods", "video_model": "kling_o1_reference", "seconds": 3}


def test_a_good_lora_from_outside_is_proven_and_used_without_training(studio: Studio, tmp_path: Path) -> None:
    given = train_by_hand(studio.art, "mei", tmp_path / "mei.safetensors")
    manifest = studio.write("given", [studio.learned("mei", lora=str(given))], [SLOT])
    before = studio.posts(TRAINERS)
    used = studio.run(manifest)
    assert used.exit_code == 0, used.told
    assert used.lora("Mei")["status"] == "ready"
    assert used.routes(1) == {"Mei": "elements"}
    assert studio.posts(TRAINERS) == before
    assert studio.jobs(manifest, Stage.LORA_TRAINING) == []


def test_files_that_are_no_lora_of_their_base_fail_and_the_originals_are_used(studio: Studio, tmp_path: Path) -> None:
    other_base = train_by_hand(studio.art, "mei", tmp_path / "wan.safetensors", base="wan-22-t2v-a14b")
    short = tmp_path / "short.safetensors"
    short.write_bytes(train_by_hand(studio.art, "mei", tmp_path / "whole.safetensors").read_bytes()[:-1000])
    text = tmp_path / "text.safetensors"
    text.write_text("not a safetensors file")
    files = {"Ana": other_base, "Bea": short, "Cleo": text}
    cast = [
        studio.learned("mei", name=name, trigger_word=f"{name.upper()}_TRIGGER", lora=str(file))
        for name, file in files.items()
    ]
    slot = SLOT | {"prompt": "@Ana, @Bea and @Cleo nod"}
    manifest = studio.write("bad-files", cast, [slot])
    refused = studio.run(manifest)
    assert refused.exit_code == 0, refused.told
    reasons = {name: refused.lora(name)["reason"] for name in files}
    assert {refused.lora(name)["status"] for name in files} == {"failed"}
    assert reasons["Ana"].startswith("the LoRA file is wrong base")
    assert reasons["Bea"].startswith("the LoRA file is broken")
    assert reasons["Cleo"].startswith("the LoRA file is broken")
    assert refused.routes(1) == dict.fromkeys(files, "originals")
    assert {job.stage for job in studio.jobs(manifest)} == {Stage.VIDEO}


def test_a_lora_that_nothing_can_be_compared_with_is_not_believed(studio: Studio, tmp_path: Path) -> None:
    given = train_by_hand(studio.art, "mei", tmp_path / "mei.safetensors")
    alone = studio.learned("mei", lora=str(given), images=[])
    manifest = studio.write("incomparable", [alone], [SLOT])
    unjudged = studio.run(manifest)
    assert unjudged.exit_code == 0, unjudged.told
    assert "give at least two images or references of Mei" in unjudged.lora("Mei")["reason"]
    assert unjudged.routes(1) == {"Mei": "originals"}
    assert studio.jobs(manifest, Stage.IDENTITY_CHECK) == []


def test_a_training_too_short_is_repeated_with_more_steps_and_then_given_up(studio: Studio) -> None:
    manifest = studio.write("hasty", [studio.learned("mei", steps=3)], [SLOT])
    hasty = studio.run(manifest)
    assert hasty.exit_code == 0, hasty.told
    first, second = studio.jobs(manifest, Stage.LORA_TRAINING)
    assert (first.request.arguments["steps"], second.request.arguments["steps"]) == (3, 5)
    assert hasty.lora("Mei")["status"] == "failed"
    assert "with the LoRA against" in hasty.lora("Mei")["reason"]  # judged on its views, not for its file
    assert hasty.routes(1) == {"Mei": "originals"}
