"""Looking for a job at ComfyUI: what proves that it does not exist, where it is, how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from domain.errors import RateLimited, Unavailable
from domain.jobs import VendorJobIds, VendorState
from domain.submissions import Finding
from providers.comfyui.queue import absence_rule
from providers.comfyui.vendor import ComfyUiVendor
from tests.contract.comfyui_orders import OURS, SECOND, SENT, STILL, server_that_says, vendor_at
from tests.contract.comfyui_standin import ComfyUiStandin, Fault


@pytest.fixture
def comfy() -> Iterator[ComfyUiStandin]:
    with ComfyUiStandin() as server:
        yield server


@pytest.fixture
def vendor(comfy: ComfyUiStandin) -> Iterator[ComfyUiVendor]:
    with vendor_at(comfy.url) as vendor:
        yield vendor


# --- looking a lost job up ---


def test_a_lost_job_is_found_in_queue_and_history_and_no_other_is_taken_for_it(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor
) -> None:
    vendor.submit(STILL, SENT)
    for place in ("in its queue", "in its queue", "worked on"):  # pending, running, over
        found = vendor.look_up(STILL, SENT, frozenset())
        assert found.finding is Finding.FOUND
        assert place in found.detail
    assert vendor.look_up(STILL, SECOND, frozenset()).finding is Finding.ABSENT


def test_a_job_that_arrives_during_the_look_is_found(comfy: ComfyUiStandin, vendor: ComfyUiVendor) -> None:
    def arrive(route: str, phase: str) -> None:
        if (route, phase) == ("GET /history", "before"):
            comfy.on_request = lambda route, phase: None
            with vendor_at(comfy.url) as late:
                late.submit(STILL, SENT)

    comfy.on_request = arrive
    assert vendor.look_up(STILL, SENT, frozenset()).finding is Finding.FOUND


def test_a_restart_forgets_the_job_and_the_reason_says_what_that_means(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor
) -> None:
    vendor.submit(STILL, SENT)
    comfy.restart()
    assert vendor.look_up(STILL, SENT, frozenset()).finding is Finding.ABSENT
    assert vendor.status(STILL, VendorJobIds(request_id=OURS)).state is VendorState.GONE
    assert "restarts" in vendor.absence.reason
    assert "output folder" in vendor.absence.reason


@pytest.mark.parametrize("route", ["GET /queue", "GET /history"])
@pytest.mark.parametrize("fault", ["500", "502", "404", "malformed", "drop", "429"])
def test_a_look_that_fails_is_never_taken_for_absence(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor, route: str, fault: str
) -> None:
    comfy.plan = [Fault(route, fault)]
    error = RateLimited if fault == "429" else Unavailable
    with pytest.raises(error):
        vendor.look_up(STILL, SENT, frozenset())
    comfy.count.clear()
    with pytest.raises(error):
        vendor.status(STILL, VendorJobIds(request_id=OURS))


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"queue_running": []},
        {"queue_running": [], "queue_pending": [{"id": 1}]},
        {"queue_running": [[0, 7]], "queue_pending": []},
        {"queue_running": ["ab"], "queue_pending": []},
        {"queue_running": [], "queue_pending": None},
        [],
        None,
        "queue_running",
    ],
)
def test_nonsense_for_a_queue_is_never_taken_for_an_empty_one(answer: Any) -> None:
    with server_that_says(200, answer) as url, vendor_at(url) as vendor, pytest.raises(Unavailable):
        vendor.look_up(STILL, SENT, frozenset())


def test_nonsense_for_a_history_is_never_taken_for_an_empty_one() -> None:
    answer = {"queue_running": [], "queue_pending": [], "error": "sleeping"}
    with server_that_says(200, answer) as url, vendor_at(url) as vendor, pytest.raises(Unavailable, match="history"):
        vendor.look_up(STILL, SENT, frozenset())


def test_absence_counts_only_when_no_post_can_still_be_on_its_way() -> None:
    rule = absence_rule(httpx.Timeout(connect=15.0, read=60.0, write=60.0, pool=15.0))
    assert (rule.can_prove, rule.looks, rule.after_seconds, rule.seconds_apart) == (True, 3, 210.0, 5.0)
    assert not absence_rule(httpx.Timeout(15.0, read=None)).can_prove


# --- status ---


def test_a_job_is_seen_waiting_in_its_place_then_running_then_done(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor
) -> None:
    ids = [vendor.submit(STILL, SENT.model_copy(update={"number": number})) for number in (1, 2, 3)]
    status = vendor.status(STILL, ids[2])
    assert (status.state, status.queue_position) == (VendorState.QUEUED, 2)
    assert vendor.status(STILL, ids[2]).state is VendorState.RUNNING
    assert vendor.status(STILL, ids[2]).state is VendorState.DONE


@pytest.mark.parametrize(
    ("fate", "state", "says"),
    [
        ("done", VendorState.DONE, ""),
        ("error", VendorState.FAILED, "node 3 (KSampler): torch.OutOfMemoryError: no memory left"),
        ("interrupted", VendorState.CANCELLED, "interrupted"),
        ("unknown", VendorState.UNKNOWN_WORD, "'melted'"),
        ("vanish", VendorState.GONE, "neither"),
        ("endless", VendorState.RUNNING, ""),
    ],
)
def test_each_end_of_a_job_becomes_one_of_our_words(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor, fate: str, state: VendorState, says: str
) -> None:
    comfy.fate, comfy.places = fate, []
    ids = vendor.submit(STILL, SENT)
    for _ in range(3):
        status = vendor.status(STILL, ids)
        assert status.state is state
        assert says in (status.message or "")
