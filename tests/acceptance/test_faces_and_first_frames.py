"""A face kept without a LoRA, and a LoRA of a model that films a first frame: each from the manifest to its clip."""

from __future__ import annotations

import pytest

from domain.jobs import Stage
from tests.acceptance.season_art import train_by_hand
from tests.acceptance.season_homes import Entry, Studio

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

FACE_STILLS = "fal-ai/flux-2/lora/edit"
FACES: list[Entry] = [
    {"number": 1, "prompt": "@Dario tips his hat", "video_model": "kling_v21", "seconds": 5},
    {"number": 2, "prompt": "@Dario looks up", "video_model": "kling_o1_reference", "seconds": 3},
]


def test_a_character_without_a_lora_is_drawn_by_its_face_and_falls_back_to_its_pictures(studio: Studio) -> None:
    manifest = studio.write("faces", [studio.untrained("dario")], FACES, face_still="flux_2_edit")
    with studio.faults(f"job:fail=500@{FACE_STILLS}#2-5"):
        run = studio.run(manifest)
    assert run.exit_code == 0, run.told
    assert sorted([run.routes(1)["Dario"], run.routes(2)["Dario"]]) == ["face_still", "originals"]
    stills = studio.jobs(manifest, Stage.LORA_APPLICATION)
    drawn = [job for job in stills if job.file("image") is not None]
    assert len(drawn) == 1
    assert drawn[0].api_name == "face_still"
    assert drawn[0].request.arguments["image_urls"], "his pictures go along"
    assert "loras" not in drawn[0].request.arguments
    page = (studio.out(manifest) / "report.html").read_text("utf-8")
    assert "face still" in page


def test_a_lora_of_a_model_that_films_a_first_frame_is_proven_where_nobody_was_before(studio: Studio) -> None:
    base = "wan-22-i2v-a14b"
    given = train_by_hand(studio.art, "mei", studio.folder / "mei-i2v.safetensors", base=base, steps=300)
    mei = studio.learned("mei", base=base, lora=str(given))
    slots: list[Entry] = [{"number": 1, "prompt": "@Mei waves", "video_model": "wan_22_i2v_lora", "seconds": 2}]
    manifest = studio.write("first-frame", [mei], slots)
    run = studio.run(manifest)
    assert run.exit_code == 0, run.told
    assert run.lora("Mei")["status"] == "ready", run.lora("Mei")["reason"]
    views = studio.jobs(manifest, Stage.IDENTITY_CHECK)
    firsts = {job.request.arguments["image_url"]["$blob"]["file_name"] for job in views}
    assert firsts == {"backdrop.png"}
    assert run.routes(1) == {"Mei": "direct"}
    (clip,) = studio.jobs(manifest, Stage.VIDEO)
    assert clip.request.arguments["loras"]
    assert clip.request.arguments["image_url"]["$blob"]["file_name"] != "backdrop.png"
