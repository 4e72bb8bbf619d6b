"""RunPod's lists: a lost pod is found by its name, absence takes several looks, and charges are read whole or not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from domain.errors import (
    BadInput,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    RateLimited,
    Unavailable,
)
from domain.pods import GRACE
from domain.submissions import Finding
from providers.blobs.handover import LocalHandover
from providers.runpod.vendor import RunPodVendor
from providers.vendor_ports import Handover
from tests.contract.runpod_orders import (
    FIRST,
    NAME,
    SENT_AT,
    TRAIN,
    open_plain,
    vendor_over,
)
from tests.contract.runpod_standin import Answer, Fault, RunPodStandIn, problem, runpod_stand_in


@pytest.fixture
def runpod() -> Iterator[RunPodStandIn]:
    with runpod_stand_in() as server:
        yield server


@pytest.fixture
def handover(tmp_path: Path) -> Handover:
    return LocalHandover(tmp_path / "handover", here=True)


@pytest.fixture
def vendor(runpod: RunPodStandIn, handover: Handover) -> Iterator[RunPodVendor]:
    with open_plain() as http:
        yield vendor_over(http, handover, runpod.url)


# --- look-up ---


def test_absence_takes_several_lists_after_the_post_can_no_longer_arrive(vendor: RunPodVendor) -> None:
    rule = vendor.absence
    assert rule.can_prove
    assert rule.looks == 4
    assert rule.after_seconds + (rule.looks - 1) * rule.seconds_apart < GRACE.total_seconds()


def test_a_pod_that_lists_do_not_show_yet_is_found_by_the_next_look(
    runpod: RunPodStandIn, vendor: RunPodVendor
) -> None:
    runpod.hide_new_pods_for = 2
    made = vendor.submit(TRAIN, FIRST)
    findings = [vendor.look_up(TRAIN, FIRST, frozenset()) for _ in range(3)]
    assert [look.finding for look in findings] == [Finding.ABSENT, Finding.ABSENT, Finding.FOUND]
    assert findings[-1].ids == made


def test_only_the_exact_name_counts(runpod: RunPodStandIn, vendor: RunPodVendor) -> None:
    for name in (f"{NAME}0", NAME.upper(), f" {NAME}", NAME.replace("-1", "-2", 1), ""):
        runpod.add_pod(name)
    assert vendor.look_up(TRAIN, FIRST, frozenset()).ids is None


def test_of_several_pods_with_the_name_the_oldest_is_ours_and_the_others_are_told(
    runpod: RunPodStandIn, vendor: RunPodVendor
) -> None:
    younger = runpod.add_pod(NAME, created_at=SENT_AT + timedelta(seconds=9))
    older = runpod.add_pod(NAME, created_at=SENT_AT)
    look = vendor.look_up(TRAIN, FIRST, frozenset())
    assert look.ids is not None
    assert look.ids.request_id == older.pod_id
    assert younger.pod_id in look.detail


def test_a_pod_that_another_job_has_is_not_taken_and_not_called_absent(
    runpod: RunPodStandIn, vendor: RunPodVendor
) -> None:
    pod = runpod.add_pod(NAME)
    look = vendor.look_up(TRAIN, FIRST, frozenset({pod.pod_id}))
    assert (look.finding, look.ids, look.candidates) == (Finding.UNCLEAR, None, (pod.pod_id,))


UNREADABLE_LISTS = [
    {"pods": None},
    {"pods": {}},
    {},
    [],
    {"pods": [{"id": "pod1", "name": None, "status": "RUNNING"}]},
    {"pods": [{"id": "pod1", "name": "x"}]},
    {"pods": [{"id": "../x", "name": "x", "status": "RUNNING"}]},
    {"pods": ["pod1"]},
]


@pytest.mark.parametrize("body", UNREADABLE_LISTS)
def test_a_list_that_cannot_be_read_is_never_taken_for_no_pods(
    runpod: RunPodStandIn, vendor: RunPodVendor, body: Any
) -> None:
    runpod.always("list", Answer(200, body))
    with pytest.raises(Unavailable):
        vendor.look_up(TRAIN, FIRST, frozenset())
    with pytest.raises(Unavailable):
        vendor.pods()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.ERROR_BEFORE, Unavailable),
        (Fault.BAD_GATEWAY, Unavailable),
        (Fault.DROP_BEFORE, Unavailable),
        (Fault.MALFORMED, Unavailable),
        (Fault.NOT_FOUND, Unavailable),
        (Fault.RATE_LIMITED, RateLimited),
        (problem(402, "Payment Required", "no balance"), OutOfCredit),
        (problem(403, "Forbidden", "access denied"), NotConfigured),
        (Answer(307, {"pods": []}, {"Location": "https://elsewhere.example/"}), Unavailable),
    ],
)
def test_a_list_that_fails_is_an_error(
    runpod: RunPodStandIn, vendor: RunPodVendor, fault: Fault | Answer, error: type[OnModelError]
) -> None:
    runpod.always("list", fault)
    for ask in (vendor.pods, lambda: vendor.look_up(TRAIN, FIRST, frozenset())):
        with pytest.raises(OnModelError) as raised:
            ask()
        assert type(raised.value) is error
    assert not vendor.ping().is_ready


# --- the reaper's and the bookkeeper's questions ---


def test_pods_come_with_their_price_and_the_start_of_their_rent(runpod: RunPodStandIn, vendor: RunPodVendor) -> None:
    runpod.add_pod("somebody's", created_at=SENT_AT)
    runpod.add_pod(NAME, created_at=SENT_AT).life = ["EXITED"]
    runpod.add_pod("gone").life = ["TERMINATED"]
    theirs, ours = vendor.pods()
    assert (theirs.name, theirs.cost_usd_per_hour) == ("somebody's", Decimal("0.69"))
    assert theirs.started_at == SENT_AT.replace(microsecond=0)
    assert (ours.status, ours.cost_usd_per_hour) == ("EXITED", Decimal(0))
    assert runpod.routes() == ["list"]


SPAN = (SENT_AT, SENT_AT + timedelta(days=1))


def charged(pod_id: object, usd: object, hour: int = 0) -> dict[str, Any]:
    return {
        "podId": pod_id,
        "totalAmount": usd,
        "startTime": f"2026-03-01T{hour:02}:00:00Z",
        "endTime": f"2026-03-01T{hour + 1:02}:00:00.000000000Z",
    }


def test_charges_are_summed_per_pod_in_either_shape(runpod: RunPodStandIn, vendor: RunPodVendor) -> None:
    records = [charged("podb", 0.1, 13), charged("poda", 2), charged("podb", 0.2, 15), charged("podb", 0, 20)]
    for shape in (records, {"records": records, "metadata": {"recordCount": 4}}, {"history": records}):
        runpod.billing = shape
        one, other = vendor.usage(*SPAN)
        assert (one.subject, one.amount_usd, one.is_single_job) == ("poda", Decimal(2), True)
        assert (other.subject, other.amount_usd) == ("podb", Decimal("0.3"))
        assert (other.began_at.hour, other.ended_at.hour) == (13, 16)
    assert runpod.seen[0][2] == {
        "startTime": "2026-03-01T12:00:00Z",
        "endTime": "2026-03-02T12:00:00Z",
        "bucketSize": "hour",
    }


@pytest.mark.parametrize(
    "billing",
    [
        {"records": [charged("poda", "1.00")]},
        {"records": [charged("poda", -1)]},
        {"records": [charged("", 1)]},
        {"records": [charged("poda", 1) | {"endTime": "soon"}]},
        {"records": [charged("poda", 1)], "metadata": {"recordCount": 2}},
        {"one": [], "another": []},
        {"records": None},
        "nothing",
    ],
)
def test_charges_that_cannot_be_read_whole_are_not_read_in_part(
    runpod: RunPodStandIn, vendor: RunPodVendor, billing: Any
) -> None:
    runpod.billing = billing
    with pytest.raises(Unavailable):
        vendor.usage(*SPAN)


def test_a_span_that_ends_before_it_begins_is_not_asked_for(runpod: RunPodStandIn, vendor: RunPodVendor) -> None:
    with pytest.raises(BadInput):
        vendor.usage(SENT_AT, SENT_AT)
    assert runpod.seen == []
