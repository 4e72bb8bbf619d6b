"""ComfyUI through the adapter: one POST under our own id, every refusal told apart, the password kept."""

from __future__ import annotations

import io
import json
import pickle
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from domain.errors import (
    BadInput,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    RateLimited,
    Rejected,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import VendorJobIds, VendorState
from domain.submissions import Finding
from providers.comfyui.queue import prompt_id_of
from providers.comfyui.vendor import ComfyUiVendor
from providers.vendor_ports import JobVendor
from tests.contract.comfyui_orders import (
    FACE,
    GRAPH,
    OURS,
    SECOND,
    SENT,
    STILL,
    finished,
    server_that_says,
    vendor_at,
)
from tests.contract.comfyui_standin import ComfyUiStandin, Fault

PASSWORD = "not-a-real-pass word"
PROMPT = "POST /prompt"


@pytest.fixture
def comfy() -> Iterator[ComfyUiStandin]:
    with ComfyUiStandin() as server:
        yield server


@pytest.fixture
def vendor(comfy: ComfyUiStandin) -> Iterator[ComfyUiVendor]:
    with vendor_at(comfy.url) as vendor:
        yield vendor


def test_the_adapter_plays_the_role_the_door_asks_for(vendor: ComfyUiVendor) -> None:
    role: JobVendor = vendor
    assert role.vendor == "comfyui"
    assert role.absence.can_prove


# --- submit ---


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "0.3.64"])
def test_a_submit_is_one_post_of_the_graph_under_an_id_of_our_own(is_new: bool) -> None:
    with ComfyUiStandin(is_new=is_new) as comfy, vendor_at(comfy.url) as vendor:
        ids = vendor.submit(STILL, SENT)
        (sent,) = comfy.asked(PROMPT)
        body = json.loads(sent.body)
        assert ids == VendorJobIds(request_id=OURS)
        assert comfy.accepted == [OURS] == [body["prompt_id"]]
        assert body["prompt"]["5"]["inputs"]["image"] == f"onmodel/{FACE.sha256}.png"
        assert body["client_id"]
        assert "origin" not in sent.headers  # a foreign Origin is refused on loopback


def test_every_post_has_an_id_of_its_own_that_any_process_finds_again() -> None:
    other_job = SENT.model_copy(update={"job_key": "b2" * 20})
    other_database = SENT.model_copy(update={"installation": "ffffffff"})
    later = SENT.model_copy(update={"url_of": {}, "sent_at": datetime.now(UTC)})
    assert prompt_id_of(later) == OURS
    assert len({OURS, prompt_id_of(SECOND), prompt_id_of(other_job), prompt_id_of(other_database)}) == 4
    assert str(uuid.UUID(OURS)) == OURS


@pytest.mark.parametrize(
    ("fault", "error", "accepted"),
    [
        (Fault(PROMPT, "429", retry_after=3), RateLimited, 0),
        (Fault(PROMPT, "500"), SubmissionUnknown, 0),
        (Fault(PROMPT, "502"), SubmissionUnknown, 0),
        (Fault(PROMPT, "502", accepts=True), SubmissionUnknown, 1),
        (Fault(PROMPT, "malformed", accepts=True), SubmissionUnknown, 1),
        (Fault(PROMPT, "drop"), SubmissionUnknown, 0),
        (Fault(PROMPT, "drop", accepts=True), SubmissionUnknown, 1),
        (Fault(PROMPT, "truncate"), SubmissionUnknown, 1),
        (Fault(PROMPT, "404"), NotConfigured, 0),
    ],
    ids=lambda value: f"{value.fault}{'-taken' * value.accepts}" if isinstance(value, Fault) else "",
)
def test_a_submit_that_goes_wrong_is_not_repeated_and_the_look_up_tells_what_became_of_it(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor, fault: Fault, error: type[OnModelError], accepted: int
) -> None:
    comfy.plan = [fault]
    with pytest.raises(error) as caught:
        vendor.submit(STILL, SENT)
    assert type(caught.value) is error
    assert str(pickle.loads(pickle.dumps(caught.value))) == caught.value.message
    assert len(comfy.asked(PROMPT)) == 1
    assert len(comfy.accepted) == accepted
    found = vendor.look_up(STILL, SENT, frozenset())
    assert found.finding is (Finding.FOUND if accepted else Finding.ABSENT)
    assert found.ids == (VendorJobIds(request_id=OURS) if accepted else None)


@pytest.mark.parametrize("accepts", [True, False])
def test_a_submit_that_is_never_answered_may_have_been_taken(comfy: ComfyUiStandin, accepts: bool) -> None:
    arrived = threading.Event()
    comfy.on_request = lambda route, phase: arrived.set() if phase == ("accepted" if accepts else "before") else None
    comfy.plan = [Fault(PROMPT, "stall", accepts=accepts)]
    with vendor_at(comfy.url, patience_seconds=0.1) as vendor, pytest.raises(SubmissionUnknown, match="ReadTimeout"):
        vendor.submit(STILL, SENT)
    assert arrived.wait(20)
    assert comfy.accepted == [OURS] * accepts


@pytest.mark.parametrize(
    ("code", "body", "error", "says"),
    [
        (400, {"error": "bad text", "node_errors": []}, Rejected, "bad text"),
        (400, b"<html>nginx</html>", Rejected, "nginx"),
        (413, b"", Rejected, "413"),
        (401, b"", NotConfigured, "user and password"),
        (403, b"", NotConfigured, "user and password"),
        (402, {"detail": "top up"}, OutOfCredit, "top up"),
        (405, b"", NotConfigured, "address of a ComfyUI"),
        (308, b"", NotConfigured, "has moved"),
        (302, b"", SubmissionUnknown, "302"),
        (408, b"", SubmissionUnknown, "408"),
        (409, b"", SubmissionUnknown, "409"),
        (503, b"", SubmissionUnknown, "Service Unavailable"),
        (200, {"prompt_id": "../queue"}, SubmissionUnknown, "readable prompt_id"),
        (200, ["x"], SubmissionUnknown, "readable prompt_id"),
        (200, b"[" * 9999, SubmissionUnknown, "readable prompt_id"),
    ],
)
def test_what_stands_before_a_comfyui_is_told_apart_by_whether_the_job_can_have_passed(
    code: int, body: Any, error: type[OnModelError], says: str
) -> None:
    with server_that_says(code, body, {"Location": "http://127.0.0.1:9/"}) as url, vendor_at(url) as vendor:
        with pytest.raises(error, match=says) as caught:
            vendor.submit(STILL, SENT)
        assert type(caught.value) is error


def test_the_wait_asked_for_is_kept_from_header_or_body(comfy: ComfyUiStandin, vendor: ComfyUiVendor) -> None:
    comfy.plan = [Fault(PROMPT, "429", nth=1, retry_after=3.5), Fault(PROMPT, "429", nth=2)]
    waits = []
    for _ in range(2):
        with pytest.raises(RateLimited) as caught:
            vendor.submit(STILL, SENT)
        waits.append(caught.value.retry_after_seconds)
    with server_that_says(429, {"retry_after": 3}, {"Retry-After": "17"}) as url, vendor_at(url) as other:
        with pytest.raises(RateLimited) as caught:
            other.submit(STILL, SENT)
        waits.append(caught.value.retry_after_seconds)
    assert waits == [3.5, None, 17.0]


def test_a_connection_refused_means_definitely_not_sent() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_address[1]
    with vendor_at(f"http://127.0.0.1:{port}") as vendor:
        with pytest.raises(Unavailable, match="was not sent"):
            vendor.submit(STILL, SENT)
        with pytest.raises(Unavailable, match="could not be reached"):
            vendor.look_up(STILL, SENT, frozenset())
        assert not vendor.ping().is_ready


def test_a_refused_workflow_says_which_node_and_why(comfy: ComfyUiStandin, vendor: ComfyUiVendor) -> None:
    broken = STILL.model_copy(update={"arguments": {"workflow": {"4": {"class_type": "BrokenLoader", "inputs": {}}}}})
    with pytest.raises(Rejected, match=r"failed validation; node 4 \(BrokenLoader\): Value not in list: x"):
        vendor.submit(broken, SENT)
    assert comfy.accepted == []


HALF = STILL.model_copy(
    update={
        "arguments": {"workflow": GRAPH | {"4": {"class_type": "BrokenLoader", "inputs": {}}}, "output_role": "image"}
    }
)


@pytest.mark.parametrize("place", ["pending", "over"])
def test_a_workflow_taken_in_part_is_taken_back_and_then_counts_as_refused(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor, place: str
) -> None:
    comfy.places = [place] if place == "pending" else []
    with pytest.raises(Rejected, match=r"BrokenLoader.*taken back"):
        vendor.submit(HALF, SENT)
    assert comfy.cancelled == ([OURS] if place == "pending" else [])
    assert not comfy.asked("POST /interrupt")


def test_a_workflow_taken_in_part_that_runs_is_interrupted(comfy: ComfyUiStandin, vendor: ComfyUiVendor) -> None:
    comfy.fate, comfy.places = "endless", ["running"]
    with pytest.raises(Rejected, match="taken back"):
        vendor.submit(HALF, SENT)
    assert comfy.cancelled == [OURS]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("POST /queue", "drop"), "could not be taken back"),
        (Fault("GET /queue", "502", nth=2), "could not be taken back"),
        (Fault("POST /interrupt", "malformed"), "has not yet"),  # taken note of, but it goes on running
    ],
)
def test_a_workflow_taken_in_part_and_not_seen_to_be_gone_is_unknown_and_found(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor, fault: Fault, says: str
) -> None:
    comfy.fate, comfy.places, comfy.plan = "endless", ["running"], [fault]
    with pytest.raises(SubmissionUnknown, match=says):
        vendor.submit(HALF, SENT)
    assert vendor.look_up(HALF, SENT, frozenset()).finding is Finding.FOUND


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"workflow": GRAPH | {"1": {"class_type": "Note", "inputs": {"x": float("nan")}}}}, "not plain JSON"),
        ({"workflow": {"nodes": [], "links": []}}, "API format"),
        ({"workflow": {}}, "API format"),
        ({"prompt": "a harbour"}, "API format"),
    ],
)
def test_what_is_no_workflow_is_noticed_before_anything_is_sent(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        vendor.submit(STILL.model_copy(update={"arguments": arguments}), SENT)
    assert comfy.seen == []


def test_a_file_that_was_not_uploaded_is_noticed_before_anything_is_sent(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor
) -> None:
    with pytest.raises(BadInput, match="upload it"):
        vendor.submit(STILL, SENT.model_copy(update={"url_of": {}}))
    assert comfy.seen == []


# --- cancel, ping, the password ---


@pytest.mark.parametrize("place", ["pending", "running"])
def test_a_cancelled_job_stops_and_cancelling_again_is_no_error(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor, place: str
) -> None:
    comfy.fate, comfy.places = "endless", [place] if place == "running" else ["pending"] * 9
    ids = vendor.submit(STILL, SENT)
    vendor.cancel(STILL, ids)
    vendor.cancel(STILL, ids)
    assert comfy.cancelled == [OURS]
    assert len(comfy.asked("POST /interrupt")) == (place == "running")
    assert vendor.status(STILL, ids).state is (VendorState.CANCELLED if place == "running" else VendorState.GONE)


def test_another_job_that_runs_is_never_interrupted(comfy: ComfyUiStandin, vendor: ComfyUiVendor) -> None:
    comfy.fate, comfy.places = "endless", ["running"]
    vendor.submit(STILL, SECOND)
    vendor.cancel(STILL, VendorJobIds(request_id=OURS))
    assert not comfy.asked("POST /interrupt")


def test_a_cancel_that_does_not_arrive_says_so(comfy: ComfyUiStandin, vendor: ComfyUiVendor) -> None:
    comfy.plan = [Fault("POST /queue", "502")]
    with pytest.raises(Unavailable, match="cancelling"):
        vendor.cancel(STILL, VendorJobIds(request_id=OURS))


@pytest.mark.parametrize(
    ("version", "is_ready"), [("0.3.64", True), ("0.36.0", True), ("v1.0", True), ("0.3.63", False), (None, False)]
)
def test_a_ping_wants_a_version_that_keeps_our_ids(version: str | None, is_ready: bool) -> None:
    with server_that_says(200, {"system": {"comfyui_version": version}}) as url, vendor_at(url) as vendor:
        ping = vendor.ping()
        assert ping.is_ready is is_ready
        assert str(version if version else "no ComfyUI version") in ping.detail


def with_login(url: str) -> str:
    return url.replace("http://", "http://maya:not-a-real-pass%20word@")


def test_a_password_in_the_address_goes_to_the_proxy_and_into_no_text(comfy: ComfyUiStandin) -> None:
    with vendor_at(with_login(comfy.url)) as vendor:
        ids = finished(comfy, vendor)
        (file,) = vendor.output(STILL, ids).files
        vendor.download(file, io.BytesIO())
        assert all(seen.headers["authorization"].startswith("Basic ") for seen in comfy.seen)
        secrets = (PASSWORD, "not-a-real-pass%20word", comfy.seen[0].headers["authorization"].split()[1])
        texts = [repr(vendor), file.url, vendor.ping().detail]
    for code in (400, 401, 429, 500):
        with server_that_says(code, " and ".join(secrets).encode()) as echo, vendor_at(with_login(echo)) as vendor:
            with pytest.raises(OnModelError) as caught:
                vendor.submit(STILL, SENT)
            texts += [caught.value.message, vendor.ping().detail]
    assert not [text for text in texts for secret in secrets if secret in text]


@pytest.mark.parametrize(
    "url", ["ftp://x", "127.0.0.1:8188", "http://", "http://maya:pw@host/?token=s", "http://[:pw@"]
)
def test_an_address_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(NotConfigured, match="ONMODEL_COMFYUI_URL") as caught, vendor_at(url):
        pass
    assert "pw" not in caught.value.message
