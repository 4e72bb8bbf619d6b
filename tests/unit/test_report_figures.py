"""What the report counts and how it writes it: money, identity beside its control, dates, and the order of slots."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.identity import Calibration, judge_lora
from domain.jobs import Stage
from domain.reports import (
    CostLine,
    IdentityResult,
    SlotCharacter,
    SlotReport,
    SlotState,
    Verdict,
    money_of,
    on_model_share,
)
from tasks.report_figures import date_range, decimals_of, duration, number_ranges, score_text, usd
from tasks.report_page import Gap, WonRun, budget_shares, shelve, words_of
from tests.report_samples import empty_season, identity

_AMOUNTS = st.one_of(st.none(), st.decimals(min_value=0, max_value=500, places=4))


@given(st.lists(st.tuples(_AMOUNTS, _AMOUNTS, st.sampled_from([None, 1, 2, 75])), max_size=12))
def test_money_is_neither_lost_nor_counted_twice(
    amounts: list[tuple[Decimal | None, Decimal | None, int | None]],
) -> None:
    lines = [
        CostLine(stage=Stage.VIDEO, api_name="x", slot_number=number, forecast_usd=forecast, actual_usd=actual)
        for forecast, actual, number in amounts
    ]
    whole = money_of(lines)
    parts = [money_of(line for line in lines if line.slot_number == number) for number in (None, 1, 2, 75)]
    assert whole.actual_usd == sum(part.actual_usd for part in parts)
    assert whole.forecast_usd == sum(part.forecast_usd for part in parts)
    assert whole.unbilled_usd == sum(part.unbilled_usd for part in parts)


def test_the_budget_bar_tells_spent_reserved_and_still_to_come_apart() -> None:
    report = empty_season(spent_usd=Decimal(10), reserved_usd=Decimal(5), forecast_usd=Decimal(30))
    shares = {share.kind: share.amount_usd for share in budget_shares(report)}
    assert shares == {"spent": 10, "reserved": 5, "to come": 15, "free": 30}
    assert sum(share.part for share in budget_shares(report)) == pytest.approx(1)


def test_the_budget_bar_of_an_overspent_season_has_nothing_free() -> None:
    report = empty_season(budget_usd=Decimal(5), spent_usd=Decimal(10))
    assert [(share.kind, share.part) for share in budget_shares(report)] == [("spent", 1.0)]


def test_what_is_unbilled_is_still_to_come_even_when_more_was_spent_than_forecast() -> None:
    lines = (
        CostLine(stage=Stage.LORA_TRAINING, api_name="x", actual_usd=Decimal(9)),
        CostLine(stage=Stage.VIDEO, api_name="x", slot_number=1, forecast_usd=Decimal(2)),
    )
    report = empty_season(spent_usd=Decimal(9), forecast_usd=Decimal(2), costs=lines)
    assert {share.kind: share.amount_usd for share in budget_shares(report)}["to come"] == 2


@pytest.mark.parametrize(
    ("amount", "places", "shown"),
    [("1234.5", 2, "$1,234.50"), ("0", 2, "$0.00"), ("0.0004", 2, "$0.0004"), ("0.035", 3, "$0.035"),
     ("-1.05", 2, "−$1.05"), ("0.00000001", 2, "$0.0000"), ("0.005", 2, "$0.005"), ("-0.00001", 4, "$0.0000")],
)  # fmt: skip
def test_money_reads_as_money(amount: str, places: int, shown: str) -> None:
    assert usd(Decimal(amount), places) == shown


@pytest.mark.parametrize(("amount", "digits"), [("2", 2), ("100", 2), ("0.035", 3), ("0.00058", 4)])
def test_tables_show_as_many_digits_as_their_amounts_have(amount: str, digits: int) -> None:
    assert decimals_of([CostLine(stage=Stage.VIDEO, api_name="x", actual_usd=Decimal(amount))]) == digits


def test_a_score_without_its_control_is_refused_unless_it_says_why() -> None:
    result = identity(0.8, 0.4)
    with pytest.raises(ValidationError, match="needs its control"):
        IdentityResult.model_validate(result.model_dump() | {"control": None})
    why = IdentityResult.model_validate(result.model_dump() | {"control": None, "no_control_because": "no LoRA"})
    assert why.difference is None


def test_a_verdict_without_a_score_is_refused() -> None:
    with pytest.raises(ValidationError, match="a verdict needs a score"):
        IdentityResult.model_validate(identity(None, None).model_dump() | {"verdict": "on_model"})
    assert identity(None, None).verdict is Verdict.NOT_JUDGED


def test_the_check_of_a_lora_reaches_the_page_as_it_was_judged() -> None:
    calibration = Calibration(
        threshold=0.6, method="midway", false_accept_rate=0.0, genuine_count=9, impostor_count=20, is_weak=False
    )
    scores, controls = [0.8, 0.82, 0.79, 0.85, 0.81], [0.4, 0.41, 0.42, 0.38, 0.4]
    passed = IdentityResult.of_verdict(judge_lora(scores, controls, calibration, 0, metric="m-1"))
    assert (passed.verdict, passed.is_control_on_model) == (Verdict.ON_MODEL, False)
    assert passed.lower95 is not None
    assert passed.lower95 > 0.3
    failed = IdentityResult.of_verdict(judge_lora(controls, controls, calibration, 1, metric="m-1"))
    assert failed.verdict is Verdict.OFF_MODEL
    unknown = IdentityResult.of_verdict(judge_lora([], [], calibration, 5, metric="m-1"))
    assert (unknown.verdict, unknown.lower95, unknown.abstained) == (Verdict.NOT_JUDGED, None, 5)


def test_the_on_model_share_compares_like_with_like() -> None:
    def slot(number: int, result: IdentityResult, state: SlotState = SlotState.DONE) -> SlotReport:
        player = SlotCharacter(name="Mei", route_key="direct", route_label="direct", identity=result)
        return SlotReport(number=number, state=state, characters=(player,))

    share = on_model_share(
        [
            slot(1, identity(0.8, 0.4)),
            slot(2, identity(0.8, 0.7)),
            slot(3, identity(0.5, 0.4)),
            slot(4, identity(0.8, None)),
            slot(5, identity(None, None)),
            slot(6, identity(0.9, 0.4), SlotState.WON),
        ]
    )
    assert (share.judged, share.on_model, share.control_on_model) == (3, 2, 1)
    assert (share.no_control, share.no_control_on_model, share.not_judged) == (1, 1, 1)


def test_won_clips_and_bare_gaps_side_by_side_stand_together() -> None:
    def won(number: int) -> SlotReport:
        return SlotReport(number=number, state=SlotState.WON, clip="a.mp4")

    told = SlotReport(number=3, state=SlotState.WON, prompt="the pier")
    report = empty_season(slots=(won(1), won(2), told, won(7)), gaps=(4, 5, 6, 9))
    assert shelve(report) == [WonRun((won(1), won(2))), told, Gap(4, 6), WonRun((won(7),)), Gap(9, 9)]


def test_a_slot_cannot_be_reported_twice() -> None:
    slot = SlotReport(number=1, state=SlotState.PLANNED)
    with pytest.raises(ValidationError, match="appears twice"):
        empty_season(slots=(slot, slot))


def test_the_longest_name_of_a_prompt_is_marked() -> None:
    marked = [
        word.text for word in words_of("@Mei Kobayashi, @Mei and @Meike", ["Mei", "Mei Kobayashi"]) if word.is_name
    ]
    assert marked == ["@Mei Kobayashi", "@Mei"]


@given(st.text(alphabet="@MeiOr n.<", max_size=30))
def test_marking_names_loses_no_letter(prompt: str) -> None:
    assert "".join(word.text for word in words_of(prompt, ["Mei", "Orin"])) == prompt


@pytest.mark.parametrize(
    ("begun", "ended", "shown"),
    [((2031, 5, 3), (2031, 5, 3), "3 May 2031"), ((2031, 5, 3), (2031, 5, 5), "3–5 May 2031"),
     ((2031, 4, 30), (2031, 5, 5), "30 April – 5 May 2031"),
     ((2030, 12, 30), (2031, 1, 2), "30 December 2030 – 2 January 2031")],
)  # fmt: skip
def test_dates_read_as_dates(begun: tuple[int, int, int], ended: tuple[int, int, int], shown: str) -> None:
    assert date_range(datetime(*begun, 12, tzinfo=UTC), datetime(*ended, 12, tzinfo=UTC), UTC) == shown


def test_dates_are_the_seasons_own() -> None:
    late = datetime(2031, 5, 5, 23, 40, tzinfo=UTC)
    assert date_range(late, late, ZoneInfo("Europe/Lisbon")) == "6 May 2031"


def test_figures_are_written_as_people_write_them() -> None:
    assert [duration(seconds) for seconds in (0, 5.0, 4.52, 59.96, 60, 375.2)] == [
        "0 s", "5 s", "4.5 s", "1 min", "1 min", "6 min 15 s"
    ]  # fmt: skip
    assert [score_text(score) for score in (0.625, -0.3, -0.001)] == ["0.62", "−0.30", "0.00"]
    assert number_ranges([5, 3, 4, 9, 4]) == "3–5, 9"
    assert number_ranges([]) == ""
