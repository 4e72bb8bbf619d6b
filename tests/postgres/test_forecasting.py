"""Forecasts and costs on real tables: what is bought leaves the forecast, the ledger's own figures replace assumed
ones, and a season's total is the sum of its entries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from domain.characters import LoraStatus
from domain.costs import CostEntry, free_step, job_cost
from domain.expectations import load_expectations
from domain.forecasts import Forecast
from domain.jobs import JobOrder, Operation, Stage, VendorJobIds, VendorRequest
from domain.spending import Grouping
from providers.wiring import SystemClock
from studio.spending import cost_groups, groups_csv
from tasks.clip_lengths import FILE, clip_lengths
from tasks.reporting import costs_csv
from tasks.season_forecast import forecast_season
from tests.media_samples import make_clip
from tests.ports_for_tests import PortsForTests, store_season

names = (f"forecast-{n}" for n in itertools.count(1))
once = (f"thing-{n}" for n in itertools.count(1))

MEI = {"name": "Mei", "trigger_word": "MEIKOB_01"}
SLOTS = [
    {"number": 5, "prompt": "@Mei waits", "video_model": "kling_v25_turbo", "seconds": 5},
    {"number": 6, "prompt": "@Mei runs", "video_model": "kling_o1_reference", "seconds": 4},
]


@pytest.fixture
def today(shared: PortsForTests) -> Iterator[PortsForTests]:
    """The shared tables, with the machine's own clock: the ledger dates its jobs by the database's."""
    ports = PortsForTests(shared.settings, {}, SystemClock())
    yield ports
    ports.close()


def season(ports: PortsForTests, **fields: Any) -> int:
    return store_season(ports, next(names), **{"characters": [MEI], "slots": SLOTS, **fields})


def paid(ports: PortsForTests, season_id: int, stage: Stage, usd: str, **fields: Any) -> None:
    ports.ledger.log_cost(
        CostEntry(
            **{
                "season_id": season_id,
                "stage": stage,
                "api_name": "flux_lora",
                "amount_usd": Decimal(usd),
                "forecast_usd": Decimal(usd),
                "purpose": "a test",
                "once_key": next(once),
                **fields,
            }
        )
    )


def jobs_ahead(forecast: Forecast) -> dict[str, int]:
    return {row.key: row.jobs_to_come for row in forecast.rows(Grouping.STAGE)}


def test_a_fresh_season_has_everything_ahead_at_list_prices(shared: PortsForTests) -> None:
    ahead = forecast_season(shared, season(shared))
    assert jobs_ahead(ahead) == {
        "lora_training": 1,
        "identity_check": 10,
        "references": 6,
        "lora_application": 1,
        "video": 2,
    }
    assert ahead.to_come_usd == Decimal("2.00") + 17 * Decimal("0.035") + Decimal("0.35") + 4 * Decimal("0.112")
    assert ahead.bought_usd == 0
    assert ahead.budget_sentence.startswith("It fits: ")


def test_under_review_the_slots_do_not_count_on_a_pin_nobody_has_given(shared: PortsForTests) -> None:
    assert jobs_ahead(forecast_season(shared, season(shared, review=True)))["lora_application"] == 2
    assert jobs_ahead(forecast_season(shared, season(shared, review=False)))["lora_application"] == 1


def test_without_a_lora_only_the_slots_are_ahead(shared: PortsForTests) -> None:
    ahead = forecast_season(shared, season(shared, characters=[{**MEI, "lora": "none"}]))
    assert jobs_ahead(ahead) == {"video": 2}


def test_what_was_bought_is_not_ahead_any_more(shared: PortsForTests) -> None:
    season_id = season(shared)
    mei = shared.cast.named(season_id, "Mei")
    lora = shared.loras.create(
        mei, "flux-1-dev", trainer="fal_flux_lora_fast", training_set_id=None, images_count=12, created_by="onmodel"
    )
    assert jobs_ahead(forecast_season(shared, season_id))["lora_training"] == 1
    shared.loras.set_status(lora.id, LoraStatus.TRAINING)
    shared.loras.set_status(lora.id, LoraStatus.VALIDATING)
    paid(shared, season_id, Stage.LORA_TRAINING, "2.00", character_id=mei.id)
    for _ in range(3):
        paid(shared, season_id, Stage.IDENTITY_CHECK, "0.035", character_id=mei.id)
    ahead = forecast_season(shared, season_id)
    assert jobs_ahead(ahead) == {"identity_check": 7, "references": 6, "lora_application": 1, "video": 2}
    assert ahead.bought_usd == ahead.bought_forecast_usd == Decimal("2.105")
    shared.loras.set_status(lora.id, LoraStatus.FAILED, "not alike")
    given_up = forecast_season(shared, season_id)
    assert jobs_ahead(given_up) == {"video": 2}


def test_what_is_reserved_for_jobs_under_way_is_not_counted_twice(today: PortsForTests) -> None:
    season_id = season(today, budget_usd="3.50")
    before = forecast_season(today, season_id)
    today.ledger.plan(order_of(season_id, 5, model_key="kling_v25_turbo", is_simulated=True), 1)
    assert today.ledger.budget(season_id)[1] == Decimal("0.42")
    assert forecast_season(today, season_id).budget_sentence == before.budget_sentence


def test_a_characters_own_budget_that_is_too_small_is_told_and_one_that_holds_is_not(shared: PortsForTests) -> None:
    season_id = season(shared)
    shared.budgets.set_character(shared.cast.named(season_id, "Mei").id, limit_usd=Decimal("1.00"))
    (note,) = forecast_season(shared, season_id).notes
    assert note.startswith("the budget of the character Mei has 1.00 of 1.00 USD free, and 2.60 are to come")
    shared.budgets.set_character(shared.cast.named(season_id, "Mei").id, limit_usd=Decimal("5.00"))
    assert forecast_season(shared, season_id).notes == ()


def test_three_real_jobs_of_a_model_replace_what_was_assumed_of_it_and_simulated_ones_do_not(
    today: PortsForTests,
) -> None:
    season_id = season(today)
    for number in range(3):
        finished_job(today, season_id, number, model_key="kling_v25_turbo", is_simulated=False)
        finished_job(today, season_id, number, model_key="kling_o1_reference", is_simulated=True)
    used = {duration.model_key: duration for duration in forecast_season(today, season_id).durations_used}
    assert used["kling_v25_turbo"].confidence == "measured"
    assert used["kling_v25_turbo"].seconds < 60
    assert used["kling_o1_reference"] == load_expectations().duration("kling_o1_reference")


def finished_job(ports: PortsForTests, season_id: int, number: int, *, model_key: str, is_simulated: bool) -> None:
    job = ports.ledger.plan(order_of(season_id, number, model_key=model_key, is_simulated=is_simulated), 1)
    assert ports.ledger.claim(job.key, ports.clock.now(), {})
    ports.ledger.submitted(job.key, VendorJobIds(request_id=f"r-{job.key[:8]}"))
    ports.ledger.succeed(job.key, (), None, job_cost(job, Decimal("0.35"), "a clip"))


def order_of(season_id: int, number: int, *, model_key: str, is_simulated: bool) -> JobOrder:
    return JobOrder(
        season_id=season_id,
        slot_number=number,
        stage=Stage.VIDEO,
        operation=Operation.MAKE_VIDEO,
        api_name=model_key,
        model_key=model_key,
        request=VendorRequest(vendor="fal", endpoint=model_key, arguments={"n": number}),
        estimate_usd=Decimal("0.35"),
        ceiling_usd=Decimal("0.42"),
        is_simulated=is_simulated,
    )


def test_the_seasons_total_is_the_sum_of_its_entries_and_of_every_grouping(shared: PortsForTests) -> None:
    season_id = season(shared)
    for usd in ("2.00", "0.035", "0.0001", "-0.50"):
        paid(shared, season_id, Stage.VIDEO, usd, slot_number=5)
    shared.ledger.log_cost(free_step(season_id, Stage.ASSEMBLY, "ffmpeg", "done on this machine", next(once)))
    with shared.database.connection() as db:
        row = db.execute("SELECT total_cost FROM season_costs WHERE season_id = %s", (season_id,)).fetchone()
    total = sum(entry.amount_usd for entry in shared.ledger.costs(season_id))
    assert row == (total,) == (Decimal("1.5351"),)
    for by in Grouping:
        assert sum(group.amount_usd for group in cost_groups(shared, season_id, by)) == total


def test_no_name_in_a_cost_table_is_run_by_a_spreadsheet(shared: PortsForTests) -> None:
    season_id = season(shared)
    paid(shared, season_id, Stage.VIDEO, "0.5", api_name="=HYPERLINK(1)", purpose="+cmd", slot_number=5)
    table = groups_csv(cost_groups(shared, season_id, Grouping.API), Grouping.API)
    assert table.splitlines()[1] == "'=HYPERLINK(1),1,0.5000,0.5000,0.0000"
    assert ",'=HYPERLINK(1),,5,0.5000,0.5000,no,'+cmd" in costs_csv(shared, season_id)


def test_a_clip_is_measured_once_and_a_spoilt_memory_is_measured_again(shared: PortsForTests, tmp_path: Path) -> None:
    sha256 = shared.blobs.put_file(make_clip(tmp_path / "clip.mp4", seconds=1), "video/mp4")
    memory = shared.settings.home / FILE
    (first,) = clip_lengths(shared, [sha256])
    assert first == pytest.approx(1.0, abs=0.1)
    memory.write_text(memory.read_text().replace(str(first), "7.5"))
    assert clip_lengths(shared, [sha256, sha256]) == [7.5, 7.5]
    for length in ('"long"', "NaN", "-1", "null"):
        memory.write_text(f'{{"{sha256}": {length}}}')
        assert clip_lengths(shared, [sha256]) == [first]
    for spoilt in ("", "[1]", "{"):
        memory.write_text(spoilt)
        assert clip_lengths(shared, [sha256]) == [first]
