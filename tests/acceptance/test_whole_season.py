"""`onmodel run season.yaml` from nothing to the folder with the season, and what running it again does and leaves."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

import av
import pytest

from domain.registry import Registry
from domain.renders import RenderState
from providers.wiring import Ports
from tasks.application import start_render
from tasks.rendering import plan_slot_video
from tests.acceptance.season_homes import Harbor, Studio

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


def folder_of(harbor: Harbor) -> Path:
    return Path(harbor.first.document["folder"])


def seconds_of(path: Path) -> float:
    """Length of a clip, by decoding every frame of it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        assert stream.average_rate is not None
        return float(frames / stream.average_rate)


def test_the_season_ends_well_although_one_lora_failed(harbor: Harbor) -> None:
    assert harbor.first.exit_code == 0, harbor.first.told
    assert {slot["state"] for slot in harbor.first.document["slots"]} == {"won", "done"}
    assert harbor.first.document["is_simulated"] is True


def test_the_film_plays_and_is_as_long_as_its_clips(harbor: Harbor) -> None:
    folder = folder_of(harbor)
    clips = sorted((folder / "clips").glob("slot-*.mp4"))
    assert [clip.stem for clip in clips] == [f"slot-{number:02d}" for number in (1, 2, 3, 4, 6, 7)]
    length = seconds_of(folder / "season.mp4")
    assert length == pytest.approx(sum(map(seconds_of, clips)), abs=0.1 * len(clips))
    assert length == pytest.approx(harbor.first.document["video_seconds"], abs=0.1)


def test_the_cost_table_adds_up_to_the_seasons_cost(harbor: Harbor) -> None:
    with (folder_of(harbor) / "costs.csv").open() as file:
        rows = list(csv.DictReader(file))
    total = Decimal(harbor.first.document["total_cost_usd"])
    assert sum(Decimal(row["amount_usd"]) for row in rows) == total > 0
    assert Decimal(harbor.first.document["reserved_usd"]) == 0
    assert {"lora_training", "identity_check", "references", "lora_application", "video", "assembly"} <= {
        row["stage"] for row in rows
    }


def test_the_report_is_there_and_names_the_gap(harbor: Harbor) -> None:
    page = (folder_of(harbor) / "report.html").read_text()
    assert harbor.first.document["gaps"] == [5]
    assert all(name in page for name in ("Mei", "Tova", "Dario", "Rui", "season.mp4"))


def test_every_character_takes_the_route_of_the_table(harbor: Harbor) -> None:
    run = harbor.first
    assert run.routes(2) == {"Mei": "elements", "Dario": "originals"}
    assert run.routes(3) == {"Mei": "preprocessed"}
    assert run.routes(4) == {"Tova": "direct"}
    assert run.routes(6) == {"Tova": "preprocessed"}
    assert run.routes(7) == {"Rui": "originals"}


def test_a_route_without_the_lora_says_why(harbor: Harbor) -> None:
    reasons = {
        slot["number"]: slot["routes"][-1]["reason"] for slot in harbor.first.document["slots"] if slot["routes"]
    }
    assert reasons[2] == "its LoRA is switched off"
    assert reasons[6] == "veo_31 takes no LoRA of wan-22-t2v-a14b: a still with it"
    assert reasons[7] == "its LoRA is failed, not ready"


def test_a_lora_trained_for_zero_steps_is_caught_by_the_file_check(harbor: Harbor) -> None:
    rui = harbor.first.lora("Rui")
    assert rui["status"] == "failed"
    assert rui["reason"].startswith("the LoRA file is broken")


def test_a_trained_character_is_proven_and_one_for_stills_is_pinned(harbor: Harbor) -> None:
    for name in ("Mei", "Tova"):
        assert harbor.first.lora(name)["status"] == "ready"
        assert "views reach the threshold" in harbor.first.lora(name)["reason"]
    pinned = {one["name"]: one["is_pinned"] for one in harbor.first.document["characters"]}
    assert pinned == {"Mei": True, "Tova": True, "Dario": False, "Rui": False}


def test_running_it_again_asks_no_vendor_for_anything(harbor: Harbor) -> None:
    assert harbor.again.exit_code == 0, harbor.again.told
    assert harbor.posts_after_again == harbor.posts_after_first > 0
    assert harbor.again.document == harbor.first.document


def test_running_it_again_does_not_even_load_prefect(harbor: Harbor) -> None:
    imported = {line.rpartition("|")[2].strip() for line in harbor.again.told.splitlines()}
    assert "studio.season_run" in imported
    assert not {name for name in imported if name.partition(".")[0] in ("prefect", "flows")}


def test_an_edited_prompt_buys_that_slot_again_and_no_other(studio: Studio) -> None:
    slots = [
        {"number": number, "prompt": "@Dario nods", "video_model": "kling_o1_reference", "seconds": 3}
        for number in (1, 2)
    ]
    manifest = studio.write("edited", [studio.untrained("dario")], slots)
    assert studio.run(manifest).exit_code == 0
    bought = studio.posts()
    slots[1]["prompt"] = "@Dario shakes his head"
    edited = studio.run(studio.write("edited", [studio.untrained("dario")], slots))
    assert edited.exit_code == 0
    assert studio.posts() == bought + 1
    assert len(studio.jobs(manifest)) == 3
    assert "shakes his head" in str(studio.jobs(manifest)[-1].request.arguments["prompt"])


class OtherDefaultModel(Ports):
    """The same house after its default video model was changed."""

    @property
    def registry(self) -> Registry:
        return super().registry.model_copy(update={"default_video_model": "kling_v21"})


def test_a_changed_default_model_buys_no_rendered_slot_again(studio: Studio, harbor: Harbor) -> None:
    season = studio.ports.seasons.by_slug("harbor")
    later = OtherDefaultModel(studio.ports.settings)
    try:
        render_id = start_render(later, season.id, 7)
        render = later.renders.get(render_id)
        assert (render.state, render.video_model) == (RenderState.DONE, harbor.first.slot(7)["video_model"])
        assert plan_slot_video(later, render_id, max_attempts=1) == render.job_key
    finally:
        later.close()
