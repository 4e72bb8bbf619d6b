"""Forecasts and spending as pure rules: sums, retakes, side by side, assumed against measured, groups, safe tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from domain.costs import CostEntry
from domain.expectations import (
    JOBS_FOR_A_DURATION,
    JOBS_FOR_A_SHARE,
    Expectations,
    ShareKind,
    load_expectations,
)
from domain.forecasts import Forecast, Purchase
from domain.jobs import JobState, Operation, ProviderJob, Stage, VendorRequest
from domain.money import load_prices
from domain.registry import load_registry
from domain.reports import SeasonReport
from domain.spending import NO_SLOT, TO_COME, WHOLE_SEASON, AcceptedVideo, Grouping, group_costs, zone_of
from tasks.safe_csv import safe_cell

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
keys = (f"{n:040x}" for n in count(1))


def training(character: str = "Mei", **fields: Any) -> Purchase:
    return Purchase(
        **{
            "stage": Stage.LORA_TRAINING,
            "operation": Operation.TRAIN_LORA,
            "api_name": "fal_flux_lora_fast",
            "model_key": "fal_flux_lora_fast",
            "character": character,
            "base_model": "flux-1-dev",
            "estimate_usd": Decimal(2),
            "units": 1000,
            "again_usd": Decimal("3.175"),
            "again_longer": 1.5,
            **fields,
        }
    )


def views(character: str = "Mei", **fields: Any) -> Purchase:
    return Purchase(
        **{
            "stage": Stage.IDENTITY_CHECK,
            "operation": Operation.MAKE_STILL,
            "api_name": "flux_lora",
            "model_key": "flux_lora",
            "character": character,
            "base_model": "flux-1-dev",
            "count": 10,
            "estimate_usd": Decimal("0.035"),
            **fields,
        }
    )


def video(slot_number: int, **fields: Any) -> Purchase:
    return Purchase(
        **{
            "stage": Stage.VIDEO,
            "operation": Operation.MAKE_VIDEO,
            "api_name": "kling_v21",
            "model_key": "kling_v21",
            "slot_number": slot_number,
            "estimate_usd": Decimal("0.28"),
            "again_usd": Decimal("0.28"),
            "units": 5,
            **fields,
        }
    )


def forecast(*purchases: Purchase, budget_usd: str = "60", expectations: Expectations | None = None) -> Forecast:
    return Forecast(
        season="harbor",
        is_simulated=True,
        budget_usd=Decimal(budget_usd),
        free_usd=Decimal(budget_usd),
        purchases=purchases,
        expectations=expectations or load_expectations(),
    )


def job(operation: Operation = Operation.MAKE_VIDEO, *, seconds: float = 60, **fields: Any) -> ProviderJob:
    """A real job that succeeded, unless the fields say otherwise."""
    return ProviderJob(
        **{
            "key": next(keys),
            "work_key": "work",
            "attempt": 1,
            "season_id": 1,
            "slot_number": 5,
            "character_id": None,
            "stage": Stage.VIDEO,
            "operation": operation,
            "api_name": "kling_v21",
            "model_key": "kling_v21",
            "request": VendorRequest(vendor="fal", endpoint="x", arguments={}),
            "state": JobState.SUCCEEDED,
            "not_before": None,
            "ids": None,
            "files": (),
            "seed": None,
            "error_class": None,
            "error_message": None,
            "estimate_usd": Decimal("0.28"),
            "ceiling_usd": Decimal("0.34"),
            "billed_usd": Decimal("0.28"),
            "is_simulated": False,
            "submitted_at": NOON,
            "created_at": NOON,
            "heartbeat_at": None,
            "finished_at": NOON + timedelta(seconds=seconds),
            "waited_seconds": seconds,
            "cancel_requested_at": None,
            "post_count": 1,
            "submitting_at": NOON,
            "sent_urls": {},
            "fallbacks": (),
            "moved_to": None,
            "installation": "0a1b2c3d",
            **fields,
        }
    )


# --- sums ---


def test_a_forecast_is_the_sum_of_its_purchases_however_it_is_grouped() -> None:
    whole = forecast(training(), views(), video(5), video(11))
    assert whole.to_come_usd == Decimal("2.91")
    for by in Grouping:
        rows = whole.rows(by)
        assert sum(row.to_come_usd for row in rows) == whole.to_come_usd
        assert sum(row.seconds_to_come for row in rows) == pytest.approx(whole.waiting_seconds)
        assert sum(row.jobs_to_come for row in rows) == 13
    assert [row.key for row in whole.rows(Grouping.SLOT)] == ["5", "11", NO_SLOT]
    assert [row.key for row in whole.rows(Grouping.STAGE)] == ["lora_training", "identity_check", "video"]
    assert [row.key for row in whole.rows(Grouping.DAY)] == [TO_COME]


def test_retakes_are_expected_at_the_shares_and_cost_what_doing_it_again_costs() -> None:
    again = Decimal("0.2") * Decimal("3.175") + Decimal("0.15") * Decimal("0.28")
    assert forecast(training(), views(), video(5)).retakes_usd == again
    assert forecast(views()).retakes_usd == 0


def test_every_assumption_is_named_with_its_number_date_and_source() -> None:
    used = forecast(training(), video(5)).shares_used
    assert {share.kind for share in used} == set(ShareKind)
    assert all(share.note and share.date and share.confidence == "assumed" for share in used)
    assert {share.kind for share in forecast(views()).shares_used} == {ShareKind.JOB_FAILED}


def test_a_model_nobody_has_timed_is_said_to_be_a_guess() -> None:
    assert forecast(video(5, model_key="brand_new")).untimed_models == ("brand_new",)
    assert forecast(video(5)).untimed_models == ()


@pytest.mark.parametrize(
    ("budget_usd", "beginning"),
    [("2.91", "It does not fit"), ("3.00", "It fits only if"), ("4.00", "It fits: ")],
)
def test_the_budget_holds_it_all_or_only_without_retakes_or_not_at_all(budget_usd: str, beginning: str) -> None:
    whole = forecast(training(), views(), video(5), video(11), video(12), budget_usd=budget_usd)
    if budget_usd == "3.00":
        whole = forecast(training(), views(), video(5), video(11), budget_usd=budget_usd)
    assert whole.budget_sentence.startswith(beginning)


# --- time ---


def test_characters_learn_side_by_side_and_slots_are_filmed_four_at_a_time() -> None:
    each = load_expectations()
    one = forecast(training(), views())
    learning = each.duration("fal_flux_lora_fast").of(1000) + each.duration("flux_lora").of(0)  # type: ignore[union-attr]
    assert one.likely_seconds == pytest.approx(learning)
    assert forecast(training(), views(), training("Rui"), views("Rui")).likely_seconds == pytest.approx(learning)
    clip = each.duration("kling_v21").of(5)  # type: ignore[union-attr]
    assert forecast(*map(video, range(1, 5))).likely_seconds == pytest.approx(clip)
    assert forecast(*map(video, range(1, 6))).likely_seconds == pytest.approx(2 * clip)
    assert forecast(training(), views(), video(5)).likely_seconds == pytest.approx(learning + clip)


def test_retakes_make_it_longer_and_one_after_the_other_is_the_sum() -> None:
    whole = forecast(training(), views(), *map(video, range(1, 9)))
    assert whole.likely_seconds < whole.likely_seconds_with_retakes < whole.waiting_seconds
    assert forecast().likely_seconds == forecast().waiting_seconds == 0


def test_a_longer_training_takes_longer() -> None:
    assert forecast(training(units=2000)).likely_seconds == pytest.approx(2 * forecast(training()).likely_seconds)


# --- assumed and measured ---


def test_every_model_that_has_a_price_has_a_duration_and_no_other_has() -> None:
    assert {duration.model_key for duration in load_expectations().durations} == set(load_prices().prices)
    for duration in load_expectations().durations:
        assert load_registry().model(duration.model_key)


def test_a_median_replaces_the_assumed_duration_from_the_third_real_job_on() -> None:
    assumed = load_expectations()
    jobs = [job(seconds=seconds) for seconds in (40, 50, 300)]
    before = assumed.with_measured(jobs[: JOBS_FOR_A_DURATION - 1]).duration("kling_v21")
    after = assumed.with_measured(jobs).duration("kling_v21")
    assert before == assumed.duration("kling_v21")
    assert after is not None
    assert (after.seconds, after.confidence, after.date) == (50, "measured", "2026-03-01")


@pytest.mark.parametrize(
    "change",
    [
        {"is_simulated": True},
        {"state": JobState.RUNNING},
        {"state": JobState.FAILED},
        {"submitted_at": None},
        {"finished_at": NOON - timedelta(hours=1)},
    ],
)
def test_what_is_simulated_open_failed_or_out_of_time_measures_no_duration(change: dict[str, Any]) -> None:
    assumed = load_expectations()
    assert assumed.with_measured([job(**change) for _ in range(5)]).durations == assumed.durations


def test_a_measured_share_replaces_the_assumed_one_from_the_tenth_job_on() -> None:
    assumed = load_expectations()
    jobs = [job(slot_number=min(n, 8)) for n in range(1, JOBS_FOR_A_SHARE + 1)]
    assert assumed.with_measured(jobs[:-1]).share(ShareKind.VIDEO_AGAIN) == assumed.share(ShareKind.VIDEO_AGAIN)
    measured = assumed.with_measured(jobs).share(ShareKind.VIDEO_AGAIN)
    assert (measured.share, measured.confidence) == (0.25, "measured")
    assert assumed.with_measured(jobs).share(ShareKind.TRAINING_AGAIN).confidence == "assumed"


def test_failures_are_measured_for_each_operation_with_what_was_billed_for_them() -> None:
    dead: dict[str, Any] = {"state": JobState.FAILED, "billed_usd": Decimal("0.14")}
    jobs = [*(job(slot_number=n) for n in range(8)), job(**dead), job(**dead)]
    measured = load_expectations().with_measured(jobs)
    videos = measured.share(ShareKind.JOB_FAILED, Operation.MAKE_VIDEO)
    assert (videos.share, videos.charged, videos.operation) == (0.25, 0.5, Operation.MAKE_VIDEO)
    assert measured.share(ShareKind.JOB_FAILED, Operation.TRAIN_LORA).confidence == "assumed"
    assert forecast(video(5, again_usd=0), expectations=measured).retakes_usd == Decimal("0.035")
    cancelled = [job(slot_number=n) for n in range(9)] + [job(state=JobState.CANCELLED) for _ in range(5)]
    assert load_expectations().with_measured(cancelled).share(ShareKind.JOB_FAILED).confidence == "assumed"


# --- what was spent ---


def entry(amount_usd: str, **fields: Any) -> CostEntry:
    return CostEntry(
        **{
            "season_id": 1,
            "stage": Stage.VIDEO,
            "api_name": "kling_v21",
            "amount_usd": Decimal(amount_usd),
            "forecast_usd": Decimal("0.28"),
            "purpose": "a clip",
            "once_key": next(keys),
            "created_at": NOON,
            **fields,
        }
    )


def test_costs_add_up_in_every_grouping() -> None:
    entries = [entry("0.28", slot_number=5), entry("0.30", slot_number=11), entry("2", character_id=7), entry("0")]
    for by in Grouping:
        groups = group_costs(entries, by, {7: "Mei"}, UTC)
        assert sum(group.amount_usd for group in groups) == Decimal("2.58")
        assert sum(group.entries for group in groups) == 4
    by_slot = group_costs(entries, Grouping.SLOT, {7: "Mei"}, UTC)
    assert [(group.key, group.difference_usd) for group in by_slot[:2]] == [("5", 0), ("11", Decimal("0.02"))]
    assert [group.key for group in group_costs(entries, Grouping.CHARACTER, {7: "Mei"}, UTC)] == ["Mei", WHOLE_SEASON]
    assert group_costs(entries, Grouping.CHARACTER, {}, UTC)[0].key == "character 7"


def test_a_day_is_the_seasons_own() -> None:
    late = entry("1", created_at=datetime(2026, 3, 1, 23, 30, tzinfo=UTC))
    keys_of = [group_costs([late], Grouping.DAY, {}, zone_of(name))[0].key for name in ("UTC", "Asia/Tokyo", "nowhere")]
    assert keys_of == ["2026-03-01", "2026-03-02", "2026-03-01"]


def test_an_accepted_second_costs_everything_over_the_rendered_seconds_and_nothing_is_divided_by_none() -> None:
    assert AcceptedVideo(clips=2, seconds=10.0).usd_per_second(Decimal("10.62")) == Decimal("1.062")
    assert AcceptedVideo(clips=0, seconds=0.0).usd_per_second(Decimal("10.62")) is None


def test_the_page_counts_accepted_seconds_and_not_the_length_of_the_film() -> None:
    report = SeasonReport(
        title="Harbor",
        slug="harbor",
        owner="me",
        time_zone="UTC",
        begun_at=NOON,
        generated_at=NOON,
        is_simulated=False,
        budget_usd=Decimal(60),
        spent_usd=Decimal(12),
        forecast_usd=Decimal(12),
        season_seconds=100.0,
    )
    assert report.usd_per_accepted_second is None
    counted = report.model_copy(update={"accepted_clips": 4, "accepted_seconds": 24.0})
    assert counted.usd_per_accepted_second == Decimal("0.5")


@pytest.mark.parametrize("text", ["=1+1", "+49", "-2", "@SUM(A1)", "\tx", "\rx"])
def test_no_name_becomes_a_formula_in_a_spreadsheet(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "Mei", "lora_training", "a=b", "'=1"])
def test_a_harmless_name_stays_as_it_is(text: str) -> None:
    assert safe_cell(text) == text
