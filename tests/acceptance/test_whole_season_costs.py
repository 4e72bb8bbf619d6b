"""What a season was forecast to cost against what it logged, and how its costs are shown."""

from __future__ import annotations

import contextlib
import csv
import inspect
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from domain.forecasts import SLOTS_AT_ONCE
from domain.jobs import Stage
from domain.spending import Grouping
from tests.acceptance.season_homes import Harbor, Studio

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

COLUMNS = 80


def told(*arguments: str) -> str:
    from studio.cli import run_command

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run_command(list(arguments)) == 0
    return out.getvalue()


def document(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told(*arguments, "--json"))
    return found


def test_the_forecast_of_a_manifest_is_what_its_run_has_logged(harbor: Harbor, untouched: Studio) -> None:
    before = untouched.posts()
    fresh = untouched.write("harbor-to-be", harbor.cast, harbor.slots)  # harbor's own file may have been edited since
    forecast = document("forecast", str(fresh))
    entries = untouched.ports.ledger.costs(untouched.ports.seasons.by_slug("harbor").id)
    assert Decimal(forecast["to_come_usd"]) == sum(entry.forecast_usd for entry in entries) > 0
    foreseen = {row["key"]: Decimal(row["to_come_usd"]) for row in forecast["by"]["slot"] if row["key"].isdecimal()}
    logged = {
        number: sum(entry.forecast_usd for entry in entries if entry.slot_number == int(number)) for number in foreseen
    }
    assert foreseen == logged
    assert set(foreseen) == {"2", "3", "4", "6", "7"}
    assert any("Rui: the given LoRA file is broken" in note for note in forecast["notes"])
    assert untouched.posts() == before


def test_a_stored_season_has_the_forecast_of_its_manifest_until_it_is_begun(harbor: Harbor, untouched: Studio) -> None:
    fresh = untouched.write("harbor-to-be", harbor.cast, harbor.slots)
    untouched.store(fresh)
    of_manifest, of_season = document("forecast", str(fresh)), document("forecast", "harbor-to-be")
    assert of_season["purchases"] == of_manifest["purchases"]
    assert of_season["likely_seconds"] == of_manifest["likely_seconds"] > 0
    assert of_season["bought_usd"] == "0"


def test_of_a_finished_season_nothing_is_left_to_buy(harbor: Harbor, untouched: Studio) -> None:
    assert harbor.first.exit_code == 0
    forecast = document("forecast", "harbor")
    assert forecast["purchases"] == []
    assert forecast["is_within_budget"] is True
    assert Decimal(forecast["bought_usd"]) == Decimal(harbor.first.document["total_cost_usd"])
    assert "Nothing is left to buy." in told("forecast", "harbor")


def test_every_stage_a_season_went_through_is_in_its_costs_once_for_each_thing(
    harbor: Harbor, untouched: Studio
) -> None:
    assert harbor.again.exit_code == 0
    entries = untouched.ports.ledger.costs(untouched.ports.seasons.by_slug("harbor").id)
    # Nobody in it is learned from a clip, so no frames were looked for; models are probed by command alone.
    assert {entry.stage for entry in entries} == set(Stage) - {Stage.FRAMES, Stage.MODEL_PROBE}
    assert len({entry.once_key for entry in entries}) == len(entries)
    assert all(entry.purpose for entry in entries)
    given = [entry for entry in entries if entry.api_name == "given"]
    assert [(entry.stage, entry.amount_usd) for entry in given] == [(Stage.LORA_TRAINING, Decimal(0))]


@pytest.mark.parametrize("by", [grouping.value for grouping in Grouping])
def test_costs_and_forecasts_fit_a_terminal_in_every_grouping(by: str, harbor: Harbor, untouched: Studio) -> None:
    total = Decimal(harbor.first.document["total_cost_usd"])
    fresh = untouched.write("harbor-to-be", harbor.cast, harbor.slots)
    for words in (["costs", "harbor"], ["forecast", "harbor"], ["forecast", str(fresh)]):
        table = told(*words, "--by", by).partition("\n\n")[0]
        assert max(len(line) for line in table.splitlines()) <= COLUMNS
    rows = list(csv.DictReader(io.StringIO(told("costs", "harbor", "--by", by, "--csv"))))
    assert sum(Decimal(row["amount_usd"]) for row in rows) == total
    assert sum(Decimal(row["amount_usd"]) for row in document("costs", "harbor")["by"][by]) == total


def test_an_accepted_second_is_a_rendered_one_and_everything_spent_is_shared_among_them(
    harbor: Harbor, untouched: Studio, tmp_path: Path
) -> None:
    status = document("status", "harbor")
    total, seconds = Decimal(status["total_cost_usd"]), Decimal(str(status["accepted_seconds"]))
    won = Decimal(1)
    assert status["accepted_clips"] == 5
    assert float(seconds + won) == pytest.approx(harbor.first.document["video_seconds"], abs=0.5)
    assert abs(Decimal(status["usd_per_accepted_second"]) - total / seconds) < Decimal("0.001")
    headline = f"Cost per accepted second of video: {total / seconds:.3f} USD"
    assert headline in told("costs", "harbor")
    assert headline in told("status", "harbor")
    told("report", "harbor", "--out", str(tmp_path / "report"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Per accepted second" in page
    assert "5 rendered clips" in page


def test_a_season_without_a_rendered_clip_says_so_instead_of_a_figure(studio: Studio) -> None:
    slots = [{"number": 1, "prompt": "@Dario nods", "video_model": "kling_o1_reference", "seconds": 3}]
    studio.store(studio.write("unmade", [studio.untrained("dario")], slots))
    assert document("status", "unmade")["usd_per_accepted_second"] is None
    assert "none yet, because no slot has a rendered clip" in told("costs", "unmade")


def test_the_forecast_films_as_many_slots_at_once_as_the_flow_does(studio: Studio) -> None:
    from flows.render_season import render_season

    assert inspect.signature(render_season.fn).parameters["slots_at_once"].default == SLOTS_AT_ONCE
