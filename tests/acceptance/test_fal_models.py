"""A LoRA in two files, from its trainer to its clips, and a character in every kind of field that fal's models have."""

from __future__ import annotations

import pytest

from domain.jobs import Stage
from tests.acceptance.season_homes import Entry, Studio

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SLOTS: list[Entry] = [
    {"number": 1, "prompt": "@Mei runs", "video_model": "wan_22_t2v_lora", "seconds": 1},
    {"number": 2, "prompt": "@Mei nods", "video_model": "kling_v3_pro", "seconds": 3},
    {"number": 3, "prompt": "@Mei waves", "video_model": "veo_31_reference", "seconds": 8},
]


def test_both_files_of_a_wan_lora_are_kept_proven_and_used_each_for_its_own_expert(studio: Studio) -> None:
    training = {"trainer": "fal_wan_22_image", "steps": 200}
    manifest = studio.write("pair", [studio.learned("mei", base="wan-22-t2v-a14b", training=training)], SLOTS)
    run = studio.run(manifest)
    assert run.exit_code == 0, run.told
    (trained,) = studio.jobs(manifest, Stage.LORA_TRAINING)
    low, high = trained.file("lora"), trained.file("lora_high_noise")
    assert low is not None
    assert high is not None
    assert low.sha256 != high.sha256
    assert run.lora("Mei")["status"] == "ready", run.lora("Mei")["reason"]
    by_model = {job.model_key: job.request for job in studio.jobs(manifest, Stage.VIDEO)}
    entries = by_model["wan_22_t2v_lora"].arguments["loras"]
    assert [(entry["transformer"], entry["path"]["$blob"]["sha256"]) for entry in entries] == [
        ("low", low.sha256),
        ("high", high.sha256),
    ]
    assert run.routes(1) == {"Mei": "direct"}
    kling = by_model["kling_v3_pro"].arguments
    assert set(kling) >= {"start_image_url", "elements"}
    assert kling["prompt"] == "@Element1 nods"
    assert by_model["veo_31_reference"].arguments["image_urls"]
