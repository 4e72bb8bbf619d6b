"""A pod from its order to its end: its phases and their deadlines, its worker's words, what it left and cost."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from domain.errors import (
    BadInput,
    JobFailed,
    NotConfigured,
    RateLimited,
    ResultExpired,
    Unavailable,
)
from domain.jobs import OutputFile, VendorJobIds, VendorState
from providers.blobs.handover import LocalHandover
from providers.runpod.vendor import RunPodVendor
from providers.vendor_ports import Handover
from tests.contract.runpod_orders import (
    FIRST,
    NAME,
    SENT_AT,
    TRAIN,
    WEIGHTS,
    leave_results,
    open_plain,
    tell,
    vendor_over,
)
from tests.contract.runpod_standin import Fault, RunPodStandIn, problem, runpod_stand_in


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


def living(runpod: RunPodStandIn, *, minutes: float, **facts: Any) -> VendorJobIds:
    """A pod of that age, as RunPod shows it at SENT_AT + minutes."""
    runpod.now = lambda: SENT_AT + timedelta(minutes=minutes)
    pod = runpod.add_pod(NAME, created_at=SENT_AT)
    for name, value in {"life": ["RUNNING"], "uptime": 60 * minutes, **facts}.items():
        setattr(pod, name, value)
    return VendorJobIds(request_id=pod.pod_id)


def at(minutes: float) -> float:
    return (SENT_AT + timedelta(minutes=minutes)).timestamp()


def test_a_pod_is_watched_from_its_provisioning_to_its_container(runpod: RunPodStandIn, vendor: RunPodVendor) -> None:
    ids = vendor.submit(TRAIN, FIRST)
    states = [vendor.status(TRAIN, ids).state for _ in range(4)]
    assert states == [VendorState.QUEUED, VendorState.QUEUED, VendorState.RUNNING, VendorState.RUNNING]


@pytest.mark.parametrize(
    ("word", "has_runtime", "state"),
    [
        ("RUNNING", True, VendorState.RUNNING),
        ("RUNNING", False, VendorState.QUEUED),
        ("EXITED", False, VendorState.FAILED),
        ("ERROR", False, VendorState.FAILED),
        ("TERMINATED", False, VendorState.CANCELLED),
        ("HIBERNATING", True, VendorState.UNKNOWN_WORD),
    ],
)
def test_the_words_for_a_pods_status_are_ours(
    runpod: RunPodStandIn, vendor: RunPodVendor, word: str, has_runtime: bool, state: VendorState
) -> None:
    pod = runpod.add_pod(NAME)
    pod.life, pod.has_runtime = [word], has_runtime
    status = vendor.status(TRAIN, VendorJobIds(request_id=pod.pod_id))
    assert status.state is state
    assert word in (status.message or word)


def test_a_pod_that_is_not_there_is_gone_and_one_that_cannot_be_seen_is_not(
    runpod: RunPodStandIn, vendor: RunPodVendor
) -> None:
    assert vendor.status(TRAIN, VendorJobIds(request_id="pod0001x")).state is VendorState.GONE
    ids = VendorJobIds(request_id=runpod.add_pod(NAME).pod_id)
    runpod.on("get", Fault.BAD_GATEWAY, Fault.MALFORMED, Fault.DROP_BEFORE)
    for _ in range(3):
        with pytest.raises(Unavailable):
            vendor.status(TRAIN, ids)
    assert vendor.status(TRAIN, ids).state is VendorState.QUEUED


def test_cancelling_deletes_the_pod_once_and_for_all(runpod: RunPodStandIn, vendor: RunPodVendor) -> None:
    ids = vendor.submit(TRAIN, FIRST)
    vendor.cancel(TRAIN, ids)
    vendor.cancel(TRAIN, ids)  # 404: it is gone already
    assert runpod.pods == {}
    assert vendor.status(TRAIN, ids).state is VendorState.GONE


def test_a_delete_that_fails_is_an_error(runpod: RunPodStandIn, vendor: RunPodVendor) -> None:
    pod = runpod.add_pod(NAME)
    runpod.on("delete", Fault.ERROR_BEFORE, problem(403, "Forbidden", "access denied"), Fault.RATE_LIMITED)
    for error in (Unavailable, NotConfigured, RateLimited):
        with pytest.raises(error):
            vendor.delete_pod(pod.pod_id)
    assert list(runpod.pods) == [pod.pod_id]


@pytest.mark.parametrize("pod_id", ["", "..", "../billing/pods", "a/b", "a?b", "a%2fb"])
def test_no_id_leads_elsewhere(runpod: RunPodStandIn, vendor: RunPodVendor, pod_id: str) -> None:
    with pytest.raises(BadInput):
        vendor.delete_pod(pod_id)
    with pytest.raises(BadInput):
        vendor.status(TRAIN, VendorJobIds(request_id=pod_id))
    assert runpod.seen == []


# --- progress and deadlines ---


def test_how_far_the_training_is_comes_from_its_worker(
    runpod: RunPodStandIn, vendor: RunPodVendor, handover: Handover
) -> None:
    ids = living(runpod, minutes=30)
    tell(handover, at=at(29), step=250, total_steps=1000, loss=0.31, seconds_left=900.0)
    status = vendor.status(TRAIN, ids)
    assert (status.state, status.progress, status.message) == (VendorState.RUNNING, 0.25, "training")
    assert status.training is not None
    assert (status.training.step, status.training.loss, status.training.seconds_left) == (250, 0.31, 900.0)


DEADLINES = [
    ({"minutes": 19, "has_runtime": False}, None, None),
    ({"minutes": 21, "has_runtime": False}, None, "container does not run"),
    ({"minutes": 21, "life": ["STARTING"]}, None, "container does not run"),
    ({"minutes": 25, "uptime": 14 * 60}, None, None),
    ({"minutes": 25, "uptime": 16 * 60}, None, "has not said a word"),
    ({"minutes": 44, "uptime": 60}, None, None),
    ({"minutes": 46, "uptime": 60}, None, "has not said a word"),
    ({"minutes": 90}, 81, None),
    ({"minutes": 90}, 79, "said nothing for 11 min"),
    ({"minutes": 90, "has_runtime": False}, 85, None),
    ({"minutes": 90, "gpus": 0}, 89, "no GPU"),
    ({"minutes": 3, "gpus": 0}, None, None),
    ({"minutes": 369}, 368, None),
    ({"minutes": 371}, 370, "hard stop"),
]


@pytest.mark.parametrize(("pod", "told_at", "says"), DEADLINES)
def test_each_phase_of_a_pod_has_its_deadline(
    runpod: RunPodStandIn,
    vendor: RunPodVendor,
    handover: Handover,
    pod: dict[str, Any],
    told_at: float | None,
    says: str | None,
) -> None:
    ids = living(runpod, **pod)
    if told_at is not None:
        tell(handover, at=at(told_at))
    status = vendor.status(TRAIN, ids)
    assert (status.state is VendorState.FAILED) == (says is not None), status
    if says is None:
        with pytest.raises(Unavailable, match="still at work"):
            vendor.output(TRAIN, ids)
        assert runpod.pods
        return
    assert says in (status.message or "")
    with pytest.raises(JobFailed, match=says) as failed:
        vendor.output(TRAIN, ids)
    assert failed.value.billed_usd == (Decimal("0.69") * pod["minutes"] / 60).quantize(Decimal("0.0001"), "ROUND_UP")
    assert runpod.pods == {}


def test_another_pods_word_and_one_that_cannot_be_read_count_for_nothing(
    runpod: RunPodStandIn, vendor: RunPodVendor, handover: Handover
) -> None:
    ids = living(runpod, minutes=5)
    told = tell(handover)
    box = Path(urlsplit(handover.write_link(NAME, "status.json", timedelta(hours=1))).path)
    for word in (
        b"",
        b"[]",
        b"{",
        told.model_copy(update={"job": "another", "state": "done"}).model_dump_json().encode(),
    ):
        box.write_bytes(word)
        assert vendor.status(TRAIN, ids).state is VendorState.RUNNING


# --- results ---


def collected(vendor: RunPodVendor, ids: VendorJobIds) -> tuple[dict[str, bytes], Decimal | None]:
    output = vendor.output(TRAIN, ids)
    found = {}
    for file in output.files:
        into = io.BytesIO()
        vendor.download(file, into)
        assert len(into.getvalue()) == file.size_bytes
        found[file.role] = into.getvalue()
    return found, output.billed_usd


def test_what_a_pod_left_is_collected_and_charged_and_the_pod_is_gone(
    runpod: RunPodStandIn, vendor: RunPodVendor, handover: Handover
) -> None:
    runpod.now = lambda: SENT_AT
    ids = vendor.submit(TRAIN, FIRST)
    runpod.now = lambda: SENT_AT + timedelta(minutes=100)
    leave_results(handover, finished_at=at(98), at=at(98))
    assert vendor.status(TRAIN, ids).state is VendorState.DONE
    files, billed = collected(vendor, ids)
    assert (files["lora"], set(files)) == (WEIGHTS, {"lora", "config", "log"})
    assert (billed, runpod.pods) == (Decimal("1.15"), {})
    # Again: the pod is gone, its life ends with its worker's last word.
    files, billed = collected(vendor, ids)
    assert (set(files), billed) == ({"lora", "config", "log"}, Decimal("1.1271"))


def test_a_pod_that_removed_itself_between_two_looks_is_done_and_not_gone(
    runpod: RunPodStandIn, vendor: RunPodVendor, handover: Handover
) -> None:
    ids = vendor.submit(TRAIN, FIRST)
    tell(handover)
    runpod.pods.clear()
    runpod.on_request = lambda route, phase: (leave_results(handover), None)[1] if phase == "before" else None
    assert vendor.status(TRAIN, ids).state is VendorState.DONE


def test_a_training_that_failed_says_why_and_what_it_cost(
    runpod: RunPodStandIn, vendor: RunPodVendor, handover: Handover
) -> None:
    ids = living(runpod, minutes=60)
    tell(handover, state="failed", reason="training:\x1b[31m loss is nan", at=at(59), finished_at=at(59))
    assert vendor.status(TRAIN, ids).state is VendorState.FAILED
    with pytest.raises(JobFailed, match="training: \\[31m loss is nan") as failed:
        vendor.output(TRAIN, ids)
    assert (failed.value.billed_usd, runpod.pods) == (Decimal("0.69"), {})


def test_a_rehearsals_pod_tells_no_price_of_its_seconds_and_is_deleted_all_the_same(
    runpod: RunPodStandIn, handover: Handover
) -> None:
    with open_plain() as http:
        vendor = vendor_over(http, handover, runpod.url, counts_hours=False)
        ids = vendor.submit(TRAIN, FIRST)
        leave_results(handover)
        files, billed = collected(vendor, ids)
        assert (set(files), billed, runpod.pods) == ({"lora", "config", "log"}, None, {})
        with pytest.raises(NotConfigured, match="cannot be compared"):
            vendor.usage(SENT_AT, SENT_AT + timedelta(hours=1))


def test_done_without_the_file_is_a_failure(runpod: RunPodStandIn, vendor: RunPodVendor, handover: Handover) -> None:
    ids = living(runpod, minutes=60)
    told = leave_results(handover)
    tell(handover, state="done", files=told.files[1:])
    with pytest.raises(JobFailed, match="left no lora"):
        vendor.output(TRAIN, ids)
    assert runpod.pods == {}


def test_other_bytes_than_the_worker_spoke_of_are_not_taken(
    runpod: RunPodStandIn, vendor: RunPodVendor, handover: Handover
) -> None:
    ids = vendor.submit(TRAIN, FIRST)
    leave_results(handover)
    (lora, *_) = vendor.output(TRAIN, ids).files
    Path(urlsplit(handover.write_link(NAME, "lora.safetensors", timedelta(hours=1))).path).write_bytes(b"weight")
    with pytest.raises(JobFailed, match="SHA-256"):
        vendor.download(lora, io.BytesIO())
    handover.delete(NAME)
    with pytest.raises(ResultExpired):
        vendor.download(lora, io.BytesIO())
    with pytest.raises(ResultExpired, match="no address"):
        vendor.download(OutputFile(role="lora", url="https://elsewhere.example/x"), io.BytesIO())


def test_a_pod_that_may_not_be_deleted_is_stopped_and_one_that_may_not_be_stopped_keeps_its_result_waiting(
    runpod: RunPodStandIn, vendor: RunPodVendor, handover: Handover
) -> None:
    ids = vendor.submit(TRAIN, FIRST)
    leave_results(handover)
    refusal = problem(403, "Forbidden", "access denied")
    runpod.always("delete", refusal)
    runpod.on("action", refusal)
    with pytest.raises(NotConfigured):
        vendor.output(TRAIN, ids)
    assert vendor.output(TRAIN, ids).files
    assert [pod.status for pod in runpod.pods.values()] == ["EXITED"]
    runpod.on("action", refusal)
    assert vendor.output(TRAIN, ids).files, "one that has stopped already keeps nothing waiting"


def test_a_pod_that_is_gone_without_a_word_has_no_result_any_more(vendor: RunPodVendor) -> None:
    with pytest.raises(ResultExpired):
        vendor.output(TRAIN, VendorJobIds(request_id="pod0001x"))


def test_a_pod_known_by_its_bare_id_is_collected_too(
    runpod: RunPodStandIn, vendor: RunPodVendor, handover: Handover
) -> None:
    ids = living(runpod, minutes=60)
    leave_results(handover)
    files, billed = collected(vendor, VendorJobIds(request_id=ids.request_id))
    assert (files["lora"], billed) == (WEIGHTS, Decimal("0.69"))
