"""RunPod through the adapter: one POST for a pod, a name that finds it again, and every answer read as specified."""

from __future__ import annotations

import io
import pickle
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from domain.errors import (
    BadInput,
    JobFailed,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    RateLimited,
    Rejected,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import BlobRef, OutputFile, VendorJobIds, VendorRequest, VendorState, blob_argument
from domain.pods import GRACE, pod_name
from domain.submissions import Finding, Submission
from providers.runpod.vendor import RunPodVendor
from providers.vendor_ports import JobVendor, PodHost, UsageReader
from tests.contract.runpod_standin import KEY, Answer, Fault, RunPodStandIn, problem, runpod_stand_in

SENT_AT = datetime(2026, 3, 1, 12, 0, 0, 400_000, tzinfo=UTC)
JOB_KEY = "0123456789abcdef0123" + "f" * 20
FIRST = Submission(installation="0a1b2c3d", job_key=JOB_KEY, number=1, sent_at=SENT_AT, url_of={})
SECRET = "a-token-only-the-pod-may-read"
TRAIN = VendorRequest(
    vendor="runpod",
    endpoint="pods",
    arguments={
        "image": "onmodel/trainer:1",
        "gpu": {"id": "NVIDIA GeForce RTX 4090"},
        "env": {"TOKEN": SECRET},
        "hard_stop_seconds": 7200,
    },
)
NAME = pod_name(FIRST)


@pytest.fixture
def runpod() -> Iterator[RunPodStandIn]:
    with runpod_stand_in() as server:
        yield server


@pytest.fixture
def vendor(runpod: RunPodStandIn) -> Iterator[RunPodVendor]:
    with open_plain() as http:
        yield RunPodVendor(http, SecretStr(KEY), base_url=runpod.url)


def open_plain() -> httpx.Client:
    """A client with a short patience that loads no certificates."""
    return httpx.Client(transport=httpx.HTTPTransport(verify=False), timeout=0.25, trust_env=False)


def found_ids(vendor: RunPodVendor) -> str | None:
    look = vendor.look_up(TRAIN, FIRST, frozenset())
    return look.ids.request_id if look.ids else None


def test_the_adapter_plays_every_role_it_is_given(vendor: RunPodVendor) -> None:
    queue: JobVendor = vendor
    host: PodHost = vendor
    reader: UsageReader = vendor
    assert queue.vendor == host.vendor == "runpod"
    assert reader is vendor


# --- submit ---


def test_a_submit_is_one_post_that_carries_its_name_and_its_deadline(
    runpod: RunPodStandIn, vendor: RunPodVendor
) -> None:
    ids = vendor.submit(TRAIN, FIRST)
    assert ids == VendorJobIds(request_id=next(iter(runpod.pods)))
    ((route, path, body),) = runpod.seen
    assert (route, path) == ("create", "POST /v2/pods")
    assert body == {
        "name": "onmodel-1772366400-0a1b2c3d-0123456789abcdef0123-1",
        "image": "onmodel/trainer:1",
        "gpu": {"id": "NVIDIA GeForce RTX 4090"},
        "env": {"TOKEN": SECRET, "ONMODEL_DEADLINE": str(1772366400 + 7200)},
    }


def test_files_go_out_as_the_addresses_of_the_submission(runpod: RunPodStandIn, vendor: RunPodVendor) -> None:
    ref = BlobRef(sha256="a" * 64, media_type="application/zip", file_name="set.zip")
    request = TRAIN.model_copy(update={"arguments": TRAIN.arguments | {"env": {"SET": blob_argument(ref)}}})
    vendor.submit(request, FIRST.model_copy(update={"url_of": {ref.sha256: "https://store.example/set.zip"}}))
    assert runpod.seen[0][2]["env"]["SET"] == "https://store.example/set.zip"
    with pytest.raises(Rejected, match="no address"):
        vendor.submit(request, FIRST)
    assert len(runpod.created) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"hard_stop_seconds": 0},
        {"hard_stop_seconds": "7200"},
        {"hard_stop_seconds": 8 * 24 * 3600},
        {"hard_stop_seconds": True},
        {"name": "mine"},
        {"env": ["TOKEN"]},
        {"env": {"ONMODEL_DEADLINE": "never"}},
        {"disk": float("nan")},
    ],
)
def test_a_request_that_is_no_pods_is_refused_before_anything_is_sent(
    runpod: RunPodStandIn, vendor: RunPodVendor, wrong: dict[str, Any]
) -> None:
    with pytest.raises(Rejected):
        vendor.submit(TRAIN.model_copy(update={"arguments": TRAIN.arguments | wrong}), FIRST)
    with pytest.raises(Rejected, match="only 'pods'"):
        vendor.submit(TRAIN.model_copy(update={"endpoint": "serverless"}), FIRST)
    assert runpod.seen == []


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (problem(400, "Bad Request", "gpu and cpu exclude each other"), Rejected, "exclude each other"),
        (problem(400, "Bad Request", "There are no longer any instances available"), Unavailable, "no such machine"),
        (problem(401, "Unauthorized", "expired"), NotConfigured, "RUNPOD_API_KEY"),
        (problem(402, "Payment Required", "insufficient balance"), OutOfCredit, "top it up"),
        (problem(403, "Forbidden", "access denied"), Rejected, "choose another gpu"),
        (problem(404, "Not Found", "template not found"), Rejected, "useless"),
        (problem(422, "Unprocessable Entity", "failed", errors=["$: 'bogus' not allowed"]), Rejected, "'bogus'"),
        (
            problem(400, "Bad Request", "Something went wrong. Please try again later."),
            SubmissionUnknown,
            "by its name",
        ),
        (problem(408, "Request Timeout", "late"), SubmissionUnknown, "by its name"),
        (problem(503, "Service Unavailable", "overloaded"), SubmissionUnknown, "by its name"),
        (Answer(307, {}, {"Location": "https://elsewhere.example/v2/pods"}), SubmissionUnknown, "307"),
        (Answer(201, {"name": NAME}), SubmissionUnknown, "readable id"),
        (Answer(201, {"id": "../account"}), SubmissionUnknown, "readable id"),
        (Answer(201, b"\xff\xfe"), SubmissionUnknown, "readable id"),
    ],
)
def test_a_refused_create_says_what_became_of_the_pod(
    runpod: RunPodStandIn, vendor: RunPodVendor, answer: Answer, error: type[OnModelError], says: str
) -> None:
    runpod.on("create", answer)
    with pytest.raises(OnModelError) as raised:
        vendor.submit(TRAIN, FIRST)
    assert type(raised.value) is error
    assert says in raised.value.message
    assert runpod.routes() == ["create"]


def test_what_the_specification_does_not_know_is_refused_and_never_paid(
    runpod: RunPodStandIn, vendor: RunPodVendor
) -> None:
    with pytest.raises(Rejected, match="additional properties 'stopAfter'"):
        vendor.submit(TRAIN.model_copy(update={"arguments": TRAIN.arguments | {"stopAfter": "1h"}}), FIRST)
    assert runpod.created == []


@pytest.mark.parametrize("fault", [Fault.RATE_LIMITED, Fault.RATE_LIMITED_IN_BODY])
def test_how_long_to_wait_is_read_from_the_header_or_the_body(
    runpod: RunPodStandIn, vendor: RunPodVendor, fault: Fault
) -> None:
    runpod.on("create", fault)
    with pytest.raises(RateLimited) as raised:
        vendor.submit(TRAIN, FIRST)
    assert raised.value.retry_after_seconds == 7
    assert runpod.created == []


@pytest.mark.parametrize(
    ("fault", "is_made"),
    [
        (Fault.ERROR_BEFORE, False),
        (Fault.ERROR_AFTER, True),
        (Fault.BAD_GATEWAY, False),
        (Fault.BAD_GATEWAY_AFTER, True),
        (Fault.DROP_BEFORE, False),
        (Fault.DROP_AFTER, True),
        (Fault.STALL_AFTER, True),
        (Fault.MALFORMED, True),
        (Fault.UNREADABLE, True),
    ],
)
def test_a_lost_answer_is_unknown_and_the_name_finds_what_there_is(
    runpod: RunPodStandIn, vendor: RunPodVendor, fault: Fault, is_made: bool
) -> None:
    runpod.on("create", fault)
    with pytest.raises(SubmissionUnknown, match=NAME):
        vendor.submit(TRAIN, FIRST)
    assert runpod.routes() == ["create"]
    look = vendor.look_up(TRAIN, FIRST, frozenset())
    assert look.finding is (Finding.FOUND if is_made else Finding.ABSENT)
    assert list(runpod.pods) == ([look.ids.request_id] if look.ids else [])


def test_nobody_listening_means_nothing_was_ordered() -> None:
    with socket.socket() as deaf, open_plain() as http:
        deaf.bind(("127.0.0.1", 0))  # bound, so that nobody else listens there, and not listening
        vendor = RunPodVendor(http, SecretStr(KEY), base_url=f"http://127.0.0.1:{deaf.getsockname()[1]}/v2")
        with pytest.raises(Unavailable, match="not ordered"):
            vendor.submit(TRAIN, FIRST)
        assert not vendor.ping().is_ready


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
    assert found_ids(vendor) is None


def test_of_several_pods_with_the_name_the_oldest_is_ours_and_the_others_are_told(
    runpod: RunPodStandIn, vendor: RunPodVendor
) -> None:
    younger = runpod.add_pod(NAME, created_at=SENT_AT + timedelta(seconds=9))
    older = runpod.add_pod(NAME, created_at=SENT_AT)
    look = vendor.look_up(TRAIN, FIRST, frozenset())
    assert look.ids == VendorJobIds(request_id=older.pod_id)
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


# --- status, output, cancel ---


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


def test_what_is_not_there_yet_says_so(vendor: RunPodVendor, tmp_path: Path) -> None:
    ref = BlobRef(sha256="a" * 64, media_type="application/zip", file_name="set.zip")
    with pytest.raises(JobFailed, match="does not yet send pods that do"):
        vendor.output(TRAIN, VendorJobIds(request_id="pod1"))
    with pytest.raises(NotConfigured, match=r"set\.zip"):
        vendor.upload(tmp_path / "set.zip", ref)
    with pytest.raises(NotConfigured, match="the lora cannot be fetched"):
        vendor.download(OutputFile(role="lora", url="https://store.example/x"), io.BytesIO())


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


# --- the key ---


@pytest.mark.parametrize("repeated", [KEY, SECRET])
def test_neither_the_key_nor_a_pods_variables_stand_in_an_error(
    runpod: RunPodStandIn, vendor: RunPodVendor, repeated: str
) -> None:
    for said in (f"{repeated} is wrong", f"{'x' * 285} {repeated}"):  # the second would be cut in its middle
        for answer in (problem(422, "no", said), problem(402, said, said), problem(500, "no", said), Answer(502, said)):
            runpod.on("create", answer)
            with pytest.raises(OnModelError) as raised:
                vendor.submit(TRAIN, FIRST)
            assert repeated[:8] not in repr(pickle.loads(pickle.dumps(raised.value))) + raised.value.message
    assert KEY not in repr(vendor) + repr(vars(vendor))


@pytest.mark.parametrize("key", ["", "  ", "two words", "naïve", "line\nbreak"])
def test_a_key_that_can_be_none_is_refused_without_being_shown(key: str) -> None:
    with open_plain() as http, pytest.raises(NotConfigured) as raised:
        RunPodVendor(http, SecretStr(key))
    assert not key.strip() or key not in raised.value.message


def test_the_key_goes_to_no_address_that_is_not_https() -> None:
    with open_plain() as http, pytest.raises(NotConfigured, match="not https"):
        RunPodVendor(http, SecretStr(KEY), base_url="http://api.runpod.io/v2")


def test_a_wrong_key_is_said_to_be_wrong(runpod: RunPodStandIn) -> None:
    with open_plain() as http:
        vendor = RunPodVendor(http, SecretStr("another"), base_url=runpod.url)
        assert "correct RUNPOD_API_KEY" in vendor.ping().detail
        with pytest.raises(NotConfigured):
            vendor.pods()


def test_a_good_key_is_ready(vendor: RunPodVendor) -> None:
    assert vendor.ping().is_ready
