"""The ledger against a vendor's charges: what differs is listed, what may still come is not, and a cent is forgiven."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from domain.jobs import JobState, Operation, ProviderJob, Stage, VendorJobIds, VendorRequest
from providers.vendor_ports import UsageLine
from tasks.reconciling import Disagreement, Reconciliation, compared

SINCE = datetime(2026, 3, 1, tzinfo=UTC)
UNTIL = SINCE + timedelta(days=10)
NOON = SINCE + timedelta(hours=12)
STILLS = "fal-ai/flux-lora"


def job(request_id: str | None, usd: str, ended: datetime = NOON, *, endpoint: str = STILLS) -> ProviderJob:
    return ProviderJob(
        key=f"key-{request_id}",
        work_key="work",
        attempt=1,
        season_id=1,
        slot_number=None,
        character_id=None,
        stage=Stage.REFERENCES,
        operation=Operation.MAKE_STILL,
        api_name="flux_lora",
        model_key="flux_lora",
        request=VendorRequest(vendor="fal", endpoint=endpoint, arguments={}),
        state=JobState.SUCCEEDED,
        not_before=None,
        ids=None if request_id is None else VendorJobIds(request_id=request_id),
        files=(),
        seed=None,
        error_class=None,
        error_message=None,
        estimate_usd=Decimal(usd),
        ceiling_usd=Decimal(usd),
        billed_usd=Decimal(usd),
        is_simulated=False,
        submitted_at=ended,
        created_at=ended,
        heartbeat_at=ended,
        finished_at=ended,
        waited_seconds=0.0,
        cancel_requested_at=None,
        post_count=1,
        submitting_at=ended,
        sent_urls={},
        fallbacks=(),
        moved_to=None,
        installation="0" * 8,
    )


def line(request_id: str, usd: str, at: datetime = NOON) -> UsageLine:
    return UsageLine(subject=request_id, is_single_job=True, amount_usd=Decimal(usd), began_at=at, ended_at=at)


def day(endpoint: str, usd: str, number: int = 0) -> UsageLine:
    began = SINCE + timedelta(days=number)
    return UsageLine(
        subject=endpoint,
        is_single_job=False,
        amount_usd=Decimal(usd),
        began_at=began,
        ended_at=began + timedelta(days=1),
    )


def compare(lines: list[UsageLine], jobs: list[ProviderJob], known: frozenset[str] = frozenset()) -> Reconciliation:
    plain = Reconciliation(
        vendor="fal",
        since=SINCE,
        until=UNTIL,
        is_simulated=False,
        ledger_usd=sum((one.billed_usd or Decimal(0) for one in jobs), Decimal(0)),
        job_count=len(jobs),
    )
    return compared(plain, lines, jobs, known)


def told(one: Reconciliation) -> list[tuple[Disagreement, str, Decimal]]:
    return [(difference.kind, difference.subject, difference.difference_usd) for difference in one.differences]


def test_jobs_that_were_charged_as_counted_agree() -> None:
    same = compare([line("a", "0.35"), line("b", "2")], [job("b", "2"), job("a", "0.35")])
    assert (same.differences, same.needs_person, same.vendor_usd, same.is_by_job) == ((), False, Decimal("2.35"), True)


def test_a_charge_that_the_ledger_does_not_know_is_listed() -> None:
    found = compare([line("a", "0.35"), line("stranger", "0.28")], [job("a", "0.35")])
    assert told(found) == [(Disagreement.NOT_IN_LEDGER, "stranger", Decimal("0.28"))]
    assert found.needs_person


def test_a_cost_that_the_vendor_does_not_charge_is_listed_with_its_job() -> None:
    found = compare([line("a", "0.35")], [job("a", "0.35"), job("b", "0.28")])
    assert told(found) == [(Disagreement.NOT_BILLED, "b", Decimal("-0.28"))]
    assert found.differences[0].job_key == "key-b"


def test_a_lost_job_that_was_given_up_at_its_estimate_and_never_charged_is_listed() -> None:
    found = compare([], [job(None, "0.28")])
    assert told(found) == [(Disagreement.NOT_BILLED, "", Decimal("-0.28"))]


@pytest.mark.parametrize(("usd", "differs"), [("0.36", False), ("0.34", False), ("0.3601", True), ("0.3399", True)])
def test_a_cent_is_forgiven_and_more_is_not(usd: str, differs: bool) -> None:
    found = compare([line("a", usd)], [job("a", "0.35")])
    assert [one.kind for one in found.differences] == ([Disagreement.AMOUNT] if differs else [])


def test_a_job_charged_in_parts_is_charged_their_sum() -> None:
    assert not compare([line("a", "0.20"), line("a", "0.15")], [job("a", "0.35")]).differences


def test_a_job_that_cost_nothing_and_was_not_charged_agrees() -> None:
    assert not compare([line("free", "0")], [job("failed", "0")]).differences


def test_a_charged_job_that_is_not_settled_yet_is_no_difference() -> None:
    found = compare([line("on its way", "0.35")], [], frozenset({"on its way"}))
    assert (found.differences, found.unsettled, found.needs_person) == ((), 1, False)


@pytest.mark.parametrize(("minutes", "recent"), [(59, 1), (61, 0)])
def test_a_charge_may_come_within_the_hour(minutes: int, recent: int) -> None:
    found = compare([], [job("a", "0.35", UNTIL - timedelta(minutes=minutes))])
    assert (found.recent, len(found.differences)) == (recent, 1 - recent)


def test_what_was_charged_on_the_other_side_of_the_spans_beginning_is_found() -> None:
    before = SINCE - timedelta(minutes=5)
    found = compare(
        [line("early", "0.35", before), line("long ago", "9", before), line("late", "0.28")],
        [job("early", "0.35", SINCE), job("late", "0.28", before), job("settled long ago", "9", before)],
    )
    assert found.differences == ()
    assert found.vendor_usd == Decimal("0.28")


def test_sums_by_model_and_day_agree_or_name_the_day() -> None:
    jobs = [job("a", "0.35"), job("b", "0.35"), job("c", "1.50", NOON + timedelta(days=1), endpoint="fal-ai/veo")]
    assert not compare([day(STILLS, "0.70"), day("fal-ai/veo", "1.50", 1)], jobs).differences
    found = compare([day(STILLS, "0.35"), day("fal-ai/other", "4")], jobs)
    assert not found.is_by_job
    assert [(one.kind, one.what, one.day, one.vendor_usd, one.ledger_usd) for one in found.differences] == [
        (Disagreement.AMOUNT, "flux_lora", date(2026, 3, 1), Decimal("0.35"), Decimal("0.70")),
        (Disagreement.NOT_IN_LEDGER, "fal-ai/other", date(2026, 3, 1), Decimal(4), Decimal(0)),
        (Disagreement.NOT_BILLED, "fal-ai/veo", date(2026, 3, 2), Decimal(0), Decimal("1.50")),
    ]


def test_a_job_beside_midnight_may_stand_on_another_day() -> None:
    assert not compare(
        [day(STILLS, "0.35", 1)], [job("a", "0.35", SINCE + timedelta(hours=23, minutes=59))]
    ).differences


def test_the_day_before_the_span_is_not_counted() -> None:
    found = compare([day(STILLS, "7", -1), day(STILLS, "0.35")], [job("a", "0.35")])
    assert (found.differences, found.vendor_usd) == ((), Decimal("0.35"))


@pytest.mark.parametrize(("usd", "differs"), [("0.35", False), ("0.70", False), ("0.20", True), ("0.90", True)])
def test_sums_may_hold_what_ended_within_the_hour_or_not(usd: str, differs: bool) -> None:
    jobs = [job("a", "0.35", UNTIL - timedelta(hours=2)), job("b", "0.35", UNTIL - timedelta(minutes=2))]
    found = compare([day(STILLS, usd, 9)], jobs)
    assert (bool(found.differences), found.recent) == (differs, 1)


@pytest.mark.parametrize(("usd", "needs"), [("0", False), ("0.01", True)])
def test_a_vendor_that_tells_nothing_needs_a_person_once_money_was_spent(usd: str, needs: bool) -> None:
    plain = compare([], []).model_copy(update={"not_compared": "it has no list", "ledger_usd": Decimal(usd)})
    assert plain.needs_person is needs
