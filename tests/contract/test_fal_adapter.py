"""The fal adapter against a hand-written loopback stand-in: one POST, and every answer read as the reference says."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from domain.errors import (
    BadInput,
    BadTrainingSet,
    JobFailed,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    PromptRefused,
    RateLimited,
    Rejected,
    ResultExpired,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import BlobRef, OutputFile, VendorJobIds, VendorRequest, VendorState, blob_argument
from domain.registry import load_registry
from providers.fal.client import open_http
from providers.fal.files import MULTIPART_FROM_BYTES
from providers.fal.vendor import FalVendor
from providers.ports import Vendor

KEY = "not-a-real-key-0123456789"
ZIP = BlobRef(sha256="a" * 64, media_type="application/zip", file_name="set.zip")
TRAIN = VendorRequest(
    vendor="fal",
    endpoint="fal-ai/flux-lora-fast-training",
    arguments={"images_data_url": blob_argument(ZIP), "steps": 9},
)
STILL = VendorRequest(vendor="fal", endpoint="fal-ai/flux-lora", arguments={"prompt": "a harbour"})
VIDEO = VendorRequest(
    vendor="fal", endpoint="fal-ai/kling-video/o1/reference-to-video", arguments={"prompt": "a harbour"}
)
IDS = VendorJobIds(request_id="job-1")
FLUX_JOB = "queue.fal.run/fal-ai/flux-lora/requests/job-1"
ACCEPTED = {
    "status": "IN_QUEUE",
    "request_id": "job-1",
    "queue_position": 0,
    "status_url": f"https://{FLUX_JOB}/status",
    "response_url": f"https://{FLUX_JOB}",
    "cancel_url": f"https://{FLUX_JOB}/cancel",
}


@dataclass
class Answer:
    """What the stand-in does with one request. `promised` is a Content-Length that the body does not keep."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None
    behaviour: str = "answer"  # or: hang, drop


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    address: str
    query: str
    headers: dict[str, str]
    body: bytes


class StandIn(ThreadingHTTPServer):
    """Plays planned answers by "METHOD host/path": the next of the list, and the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.plan: dict[str, list[Answer]] = {}
        self.seen: list[Seen] = []
        self.released = threading.Event()

    def on(self, what: str, *answers: Answer) -> None:
        self.plan[what] = list(answers)

    def next_answer(self, what: str) -> Answer:
        answers = self.plan.get(what) or [Answer(418, {"detail": f"nothing planned for {what}"})]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the play."""


class _Talk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def _play(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path, _, query = self.path.partition("?")
        address = f"{self.headers['host']}{path}"
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(Seen(self.command, address, query, headers, body[:4096]))
        answer = self.server.next_answer(f"{self.command} {address}")
        if answer.behaviour == "hang":
            self.server.released.wait(20)
        if answer.behaviour != "answer":
            self.close_connection = True
            return
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if answer.promised is None else answer.promised))
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = answer.promised is not None

    do_GET = do_POST = do_PUT = _play

    def log_message(self, *args: Any) -> None:
        """Quiet."""


class ToStandIn(httpx.BaseTransport):
    """Takes every host to the stand-in, keeping the Host header, over a real socket."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._inner = httpx.HTTPTransport(verify=False)  # plain http: no certificates to load

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def fal() -> Iterator[StandIn]:
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def vendor(fal: StandIn) -> Iterator[FalVendor]:
    with open_http(ToStandIn(fal.server_address[1]), timeout=httpx.Timeout(0.5)) as http:
        yield FalVendor(http, SecretStr(KEY), load_registry())


def posts(fal: StandIn) -> int:
    return sum(seen.method == "POST" for seen in fal.seen)


# --- submit ---


def test_the_adapter_plays_every_role_of_a_vendor(vendor: FalVendor) -> None:
    role: Vendor = vendor
    assert role.vendor == "fal"


def test_a_submit_is_one_post_of_the_models_input_and_keeps_all_ids(fal: StandIn, vendor: FalVendor) -> None:
    fal.on("POST queue.fal.run/fal-ai/flux-lora-fast-training", Answer(200, ACCEPTED))
    ids = vendor.submit(TRAIN, {ZIP.sha256: "https://v3.fal.media/files/set.zip"})
    assert ids.model_dump() == {name: ACCEPTED[name] for name in VendorJobIds.model_fields}
    (sent,) = fal.seen
    assert json.loads(sent.body) == {"images_data_url": "https://v3.fal.media/files/set.zip", "steps": 9}
    assert sent.headers["authorization"] == f"Key {KEY}"
    assert sent.headers["content-type"] == "application/json"


def test_missing_addresses_are_rebuilt_from_owner_and_app(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(f"POST queue.fal.run/{VIDEO.endpoint}", Answer(200, {"request_id": "job-2"}))
    fal.on("GET queue.fal.run/fal-ai/kling-video/requests/job-2/status", Answer(200, {"status": "COMPLETED"}))
    ids = vendor.submit(VIDEO, {})
    assert (ids.status_url, ids.response_url, ids.cancel_url) == (None, None, None)
    assert vendor.status(VIDEO, ids).state is VendorState.DONE


@pytest.mark.parametrize(
    "elsewhere",
    ["https://queue.fal.run.evil.example/x", "http://queue.fal.run/x", "https://me@queue.fal.run/x", "file:///x", 7],
)
def test_an_address_leading_away_from_fal_is_not_kept_and_the_key_not_sent_there(
    fal: StandIn, vendor: FalVendor, elsewhere: object
) -> None:
    fal.on(f"POST queue.fal.run/{STILL.endpoint}", Answer(200, ACCEPTED | {"status_url": elsewhere}))
    fal.on(f"GET {FLUX_JOB}/status", Answer(202, {"status": "IN_PROGRESS"}))
    ids = vendor.submit(STILL, {})
    assert ids.status_url is None
    assert vendor.status(STILL, ids).state is VendorState.RUNNING


def detail(type_: str, *loc: str) -> dict[str, Any]:
    return {"detail": [{"loc": ["body", *loc], "msg": "no", "type": type_}]}


LOCKED = {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."}


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (Answer(400, {"detail": "bad"}), Rejected, "400: bad"),
        (Answer(401, {"detail": "No user found"}), NotConfigured, "correct FAL_KEY"),
        (Answer(402, {"detail": "pay"}), OutOfCredit, "402"),
        (Answer(403, LOCKED), OutOfCredit, "Exhausted balance"),
        (Answer(404, {"detail": "Application not found"}), Rejected, "may be retired"),
        (Answer(422, detail("missing", "prompt")), Rejected, "prompt: no"),
        (Answer(422, detail("content_policy_violation", "prompt")), PromptRefused, "change the prompt"),
        (Answer(422, detail("value_error", "images_data_url")), BadTrainingSet, "mend the training set"),
        (Answer(429, {"detail": "slow"}, {"Retry-After": "17"}), RateLimited, "slow down"),
        (Answer(413, b"<html>too large</html>"), Rejected, "413"),
        (Answer(408, {"detail": "timeout"}), SubmissionUnknown, "408"),
        (Answer(409, {"detail": "conflict"}), SubmissionUnknown, "409"),
        (Answer(500, {"detail": "oops"}), SubmissionUnknown, "500: oops"),
        (Answer(502, b"<html>nginx</html>"), SubmissionUnknown, "502"),
        (Answer(503, b"<html>nginx</html>"), SubmissionUnknown, "503"),
        (Answer(504, {"detail": "late", "error_type": "startup_timeout"}), SubmissionUnknown, "504"),
        (Answer(307, b"", {"Location": "https://queue.fal.run/other"}), SubmissionUnknown, "307"),
        (Answer(200, b"{not json"), SubmissionUnknown, "may be running"),
        (Answer(200, {"status": "IN_QUEUE"}), SubmissionUnknown, "without a readable request_id"),
        (Answer(200, ["job-1"]), SubmissionUnknown, "without a readable request_id"),
        (Answer(200, b'{"request_id": "jo', promised=400), SubmissionUnknown, "RemoteProtocolError"),
        (Answer(behaviour="drop"), SubmissionUnknown, "RemoteProtocolError"),
        (Answer(behaviour="hang"), SubmissionUnknown, "ReadTimeout"),
    ],
    ids=lambda value: f"{value.status}-{value.behaviour}" if isinstance(value, Answer) else "",
)
def test_every_answer_to_a_submit_says_what_became_of_the_job_and_none_is_sent_twice(
    fal: StandIn, vendor: FalVendor, answer: Answer, error: type[OnModelError], says: str
) -> None:
    fal.on(f"POST queue.fal.run/{STILL.endpoint}", answer)
    with pytest.raises(error) as caught:
        vendor.submit(STILL, {})
    assert type(caught.value) is error
    assert says in caught.value.message
    assert posts(fal) == 1
    assert KEY not in caught.value.message
    assert str(pickle.loads(pickle.dumps(caught.value))) == caught.value.message


def test_the_wait_that_fal_asks_for_is_kept(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(
        f"POST queue.fal.run/{STILL.endpoint}",
        Answer(429, {}, {"Retry-After": "17"}),
        Answer(429, {}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Answer(429, {}, {"Retry-After": "soon"}),
    )
    waits = []
    for _ in range(3):
        with pytest.raises(RateLimited) as caught:
            vendor.submit(STILL, {})
        waits.append(caught.value.retry_after_seconds)
    assert waits == [17.0, 0.0, None]


def test_a_connection_refused_means_definitely_not_sent() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_address[1]
    with open_http(ToStandIn(port)) as http, pytest.raises(Unavailable, match="was not sent"):
        FalVendor(http, SecretStr(KEY), load_registry()).submit(STILL, {})


@pytest.mark.parametrize("error", [httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError])
def test_failures_before_the_first_byte_mean_definitely_not_sent(error: type[httpx.TransportError]) -> None:
    with open_http(Failing(error("early"))) as http, pytest.raises(Unavailable, match="was not sent"):
        FalVendor(http, SecretStr(KEY), load_registry()).submit(STILL, {})


@pytest.mark.parametrize("error", [httpx.WriteError("x"), httpx.WriteTimeout("x"), httpx.ReadError("x"), OSError("x")])
def test_failures_on_the_way_leave_the_job_unknown(error: Exception) -> None:
    with open_http(Failing(error)) as http, pytest.raises(SubmissionUnknown, match="not sent again"):
        FalVendor(http, SecretStr(KEY), load_registry()).submit(STILL, {})


class Failing(httpx.BaseTransport):
    """Raises one error, for the moments a loopback server cannot play."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise self._error


def test_a_file_without_an_address_is_noticed_before_anything_is_sent(fal: StandIn, vendor: FalVendor) -> None:
    with pytest.raises(BadInput, match="has no address"):
        vendor.submit(TRAIN, {})
    assert fal.seen == []


# --- the key ---


@pytest.mark.parametrize("key", ["", "  ", "two words", "broken\nline", "schlüssel"])
def test_a_key_that_cannot_be_one_is_refused_without_repeating_it(key: str) -> None:
    with open_http(Failing(OSError())) as http, pytest.raises(NotConfigured) as caught:
        FalVendor(http, SecretStr(key), load_registry())
    assert not key.strip() or key not in caught.value.message


def test_a_key_with_a_trailing_line_end_is_taken(fal: StandIn) -> None:
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, {}))
    with open_http(ToStandIn(fal.server_address[1])) as http:
        assert FalVendor(http, SecretStr(f"{KEY}\n"), load_registry()).ping().is_ready
    assert fal.seen[0].headers["authorization"] == f"Key {KEY}"


def test_the_key_never_appears_in_a_text_even_when_fal_repeats_it(
    fal: StandIn, vendor: FalVendor, caplog: pytest.LogCaptureFixture
) -> None:
    fal.on(f"POST queue.fal.run/{STILL.endpoint}", Answer(401, {"detail": f"unknown key {KEY}"}))
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(401, {"detail": f"unknown key {KEY}"}))
    with caplog.at_level("DEBUG"):
        with pytest.raises(NotConfigured, match=r"unknown key \*+") as caught:
            vendor.submit(STILL, {})
        told = [repr(vendor), vendor.ping().detail, repr(caught.value), caplog.text, repr(caught.value.__cause__)]
    assert not any(KEY in text for text in told)
    assert caplog.text


# --- status ---


@pytest.mark.parametrize(
    ("answer", "state", "position"),
    [
        (Answer(202, {"status": "IN_QUEUE", "queue_position": 3}), VendorState.QUEUED, 3),
        (Answer(202, {"status": "IN_QUEUE"}), VendorState.QUEUED, None),
        (Answer(202, {"status": "IN_PROGRESS", "logs": None}), VendorState.RUNNING, None),
        (Answer(200, {"status": "COMPLETED", "error": "boom", "error_type": "x"}), VendorState.DONE, None),
        (Answer(200, {"status": "DANCING"}), VendorState.UNKNOWN_WORD, None),
        (Answer(404, {"detail": "Request not found"}), VendorState.GONE, None),
    ],
    ids=lambda value: str(value.body) if isinstance(value, Answer) else "",
)
def test_each_word_of_the_queue_becomes_one_of_ours(
    fal: StandIn, vendor: FalVendor, answer: Answer, state: VendorState, position: int | None
) -> None:
    fal.on(f"GET {FLUX_JOB}/status", answer)
    status = vendor.status(STILL, IDS)
    assert (status.state, status.queue_position) == (state, position)
    assert fal.seen[0].query == "logs=false"


def test_a_trainings_progress_is_read_from_its_log(fal: StandIn, vendor: FalVendor) -> None:
    logs = [{"message": "step 10/200 loss 0.5"}, {"message": "step 50/200 loss 0.1"}, {"message": "saving"}]
    job = "GET queue.fal.run/fal-ai/flux-lora-fast-training/requests/job-1/status"
    fal.on(job, Answer(202, {"status": "IN_PROGRESS", "logs": logs}))
    status = vendor.status(TRAIN, IDS)
    assert (status.progress, status.message) == (0.25, "saving")
    assert fal.seen[0].query == "logs=true"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(503, b"<html>nginx</html>"), Unavailable),
        (Answer(200, b"not json"), Unavailable),
        (Answer(200, {"state": "?"}), Unavailable),
        (Answer(behaviour="drop"), Unavailable),
        (Answer(behaviour="hang"), Unavailable),
        (Answer(429, {}), RateLimited),
        (Answer(401, {}), NotConfigured),
        (Answer(403, LOCKED), OutOfCredit),
    ],
    ids=lambda value: f"{value.status}-{value.behaviour}" if isinstance(value, Answer) else "",
)
def test_a_look_that_fails_says_so_and_not_that_the_job_failed(
    fal: StandIn, vendor: FalVendor, answer: Answer, error: type[OnModelError]
) -> None:
    fal.on(f"GET {FLUX_JOB}/status", answer)
    with pytest.raises(error):
        vendor.status(STILL, IDS)


# --- output ---

PICTURE = {"url": "https://v3.fal.media/files/a.png", "content_type": "image/png", "file_name": None, "width": 1024}


def test_a_training_gives_lora_and_config(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(
        "GET queue.fal.run/fal-ai/flux-lora-fast-training/requests/job-1",
        Answer(
            200,
            {
                "diffusers_lora_file": {"url": "https://v3.fal.media/l.safetensors", "file_name": "l", "file_size": 9},
                "config_file": {"url": "https://v3.fal.media/c.json"},
                "debug_preprocessed_output": None,
            },
            {"X-Fal-Billable-Units": "1"},
        ),
    )
    output = vendor.output(TRAIN, IDS)
    assert [(file.role, file.size_bytes) for file in output.files] == [("lora", 9), ("config", None)]
    assert output.billed_usd is None


def test_a_still_gives_its_picture_and_seed(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(f"GET {FLUX_JOB}", Answer(200, {"images": [PICTURE], "seed": 7, "has_nsfw_concepts": [False]}))
    output = vendor.output(STILL, IDS)
    assert (output.files[0].role, output.files[0].content_type, output.seed) == ("image", "image/png", 7)


def test_a_clip_gives_its_video(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(
        "GET queue.fal.run/fal-ai/kling-video/requests/job-1", Answer(200, {"video": {"url": "https://v3.fal.media/v"}})
    )
    assert [file.role for file in vendor.output(VIDEO, IDS).files] == ["video"]


RUNNING = Answer(202, {"status": "IN_PROGRESS"})
DONE = Answer(200, {"status": "COMPLETED"})
DONE_BADLY = Answer(200, {"status": "COMPLETED", "error": "runner died", "error_type": "runner_disconnected"})


@pytest.mark.parametrize(
    ("result", "status", "error"),
    [
        (Answer(422, detail("content_policy_violation", "prompt")), DONE, PromptRefused),
        (Answer(422, detail("zip_error", "images_data_url")), DONE, BadTrainingSet),
        (Answer(422, detail("file_download_error", "image_url")), DONE, JobFailed),
        (Answer(422, {"detail": "plain text"}), DONE, JobFailed),
        (Answer(500, {"detail": "CUDA out of memory"}), DONE, JobFailed),
        (Answer(503, {"detail": "gone", "error_type": "runner_disconnected"}), DONE, JobFailed),
        (Answer(502, b"<html>nginx</html>"), DONE_BADLY, JobFailed),
        (Answer(502, b"<html>nginx</html>"), DONE, Unavailable),
        (Answer(500, b"<html>nginx</html>"), DONE, Unavailable),
        (Answer(400, {"detail": "Request is still in progress"}), RUNNING, Unavailable),
        (Answer(400, {"detail": "bad"}), DONE, JobFailed),
        (Answer(202, {"status": "IN_PROGRESS"}), RUNNING, Unavailable),
        (Answer(200, {"status": "IN_QUEUE"}), RUNNING, Unavailable),
        (Answer(200, b"{half"), DONE, Unavailable),
        (Answer(behaviour="drop"), DONE, Unavailable),
        (Answer(404, {"detail": "not found"}), DONE, ResultExpired),
        (Answer(410, {"detail": "expired"}), DONE, ResultExpired),
        (Answer(403, LOCKED), DONE, OutOfCredit),
        (Answer(429, {}), DONE, RateLimited),
        (Answer(200, {"images": [], "seed": 1}), DONE, JobFailed),
        (Answer(200, {"images": [{"url": ""}]}), DONE, JobFailed),
        (Answer(200, {"video": PICTURE}), DONE, JobFailed),
        (Answer(200, {"images": [PICTURE], "has_nsfw_concepts": [True]}), DONE, PromptRefused),
    ],
    ids=lambda value: f"{value.status}-{value.behaviour}" if isinstance(value, Answer) else "",
)
def test_an_outcome_that_is_no_picture_says_why(
    fal: StandIn, vendor: FalVendor, result: Answer, status: Answer, error: type[OnModelError]
) -> None:
    fal.on(f"GET {FLUX_JOB}", result)
    fal.on(f"GET {FLUX_JOB}/status", status)
    with pytest.raises(error) as caught:
        vendor.output(STILL, IDS)
    assert type(caught.value) is error


# --- cancel and ping ---


@pytest.mark.parametrize("code", [200, 202, 400, 404])
def test_cancelling_is_fine_whatever_the_job_did_meanwhile(fal: StandIn, vendor: FalVendor, code: int) -> None:
    fal.on(f"PUT {FLUX_JOB}/cancel", Answer(code, {"status": "ALREADY_COMPLETED"}))
    vendor.cancel(STILL, IDS)
    assert [seen.method for seen in fal.seen] == ["PUT"]


def test_a_cancel_that_did_not_arrive_says_so(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(f"PUT {FLUX_JOB}/cancel", Answer(503, b""))
    with pytest.raises(Unavailable, match="cancelling the job job-1"):
        vendor.cancel(STILL, IDS)


@pytest.mark.parametrize(
    ("answer", "is_ready", "says"),
    [
        (Answer(200, {}), True, "accepts the key"),
        (Answer(401, {"detail": "?"}), False, "correct FAL_KEY"),
        (Answer(403, LOCKED), False, "Exhausted balance"),
        (Answer(behaviour="drop"), False, "ask again later"),
    ],
    ids=lambda value: f"{value.status}-{value.behaviour}" if isinstance(value, Answer) else "",
)
def test_ping_says_whether_fal_is_ready_or_what_to_do(
    fal: StandIn, vendor: FalVendor, answer: Answer, is_ready: bool, says: str
) -> None:
    fal.on("POST rest.fal.ai/storage/auth/token", answer)
    ping = vendor.ping()
    assert ping.is_ready is is_ready
    assert says in ping.detail


# --- uploads ---

TOKEN = {
    "token": "upload-token",
    "token_type": "Bearer",
    "base_url": "https://v3b.fal.media",
    "expires_at": "2999-01-01T00:00:00+00:00",
}


def test_an_upload_goes_through_fals_package_and_only_the_token_sees_the_key(
    fal: StandIn, vendor: FalVendor, tmp_path: Path
) -> None:
    path = tmp_path / "0123abcd"
    path.write_bytes(b"zip bytes")
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, TOKEN))
    fal.on("POST v3.fal.media/files/upload", Answer(200, {"access_url": "https://v3.fal.media/files/set.zip"}))
    for _ in range(2):
        assert vendor.upload(path, ZIP) == "https://v3.fal.media/files/set.zip"
    token, upload, again = fal.seen  # the token is asked for once
    assert token.headers["authorization"] == f"Key {KEY}"
    assert upload.headers["authorization"] == "Bearer upload-token"
    assert upload.headers["content-type"] == "application/zip"
    assert upload.headers["x-fal-file-name"] == "set.zip"
    assert upload.body == again.body == b"zip bytes"


def test_a_strange_file_name_cannot_break_out_of_its_header(fal: StandIn, vendor: FalVendor, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, TOKEN | {"expires_at": "2999-01-01T00:00:00"}))
    fal.on("POST v3.fal.media/files/upload", Answer(200, {"access_url": "https://v3.fal.media/f"}))
    vendor.upload(path, ZIP.model_copy(update={"file_name": "../ü\r\nX-Evil: 1.zip"}))
    assert fal.seen[1].headers["x-fal-file-name"] == "____X-Evil__1.zip"
    assert "x-evil" not in fal.seen[1].headers


def test_an_upload_that_fails_falls_back_to_the_second_store_without_the_key(
    fal: StandIn, vendor: FalVendor, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, TOKEN))
    fal.on("POST v3.fal.media/files/upload", Answer(500, {"detail": "oops"}))
    there = {"upload_url": "https://storage.googleapis.com/put", "file_url": "https://storage.googleapis.com/f"}
    fal.on("POST rest.fal.ai/storage/upload/initiate", Answer(200, there))
    fal.on("PUT storage.googleapis.com/put", Answer(200, {}))
    assert vendor.upload(path, ZIP) == "https://storage.googleapis.com/f"
    assert fal.seen[-1].body == b"x"
    assert "authorization" not in fal.seen[-1].headers


def test_a_file_above_the_limit_goes_up_in_parts(fal: StandIn, vendor: FalVendor, tmp_path: Path) -> None:
    path = tmp_path / "0123abcd"
    with path.open("wb") as file:
        file.truncate(MULTIPART_FROM_BYTES + 1)
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, TOKEN))
    begun = {"access_url": "https://v3b.fal.media/files/set.zip", "uploadId": "u1"}
    fal.on("POST v3b.fal.media/files/upload/multipart", Answer(200, begun))
    parts = [f"v3b.fal.media/files/set.zip/multipart/u1/{number}" for number in range(1, 12)]
    for part in parts:
        fal.on(f"PUT {part}", Answer(200, {}, {"ETag": part[-2:]}))
    fal.on("POST v3b.fal.media/files/set.zip/multipart/u1/complete", Answer(200, {}))
    assert vendor.upload(path, ZIP) == "https://v3b.fal.media/files/set.zip"
    assert sorted(seen.address for seen in fal.seen if seen.method == "PUT") == sorted(parts)
    assert fal.seen[1].headers["x-fal-file-name"] == "set.zip"
    assert len(json.loads(fal.seen[-1].body)["parts"]) == 11
    assert not any("Key " in seen.headers["authorization"] for seen in fal.seen[1:])


@pytest.mark.parametrize(
    ("token", "upload", "error"),
    [
        (Answer(401, {"detail": "?"}), Answer(), NotConfigured),
        (Answer(403, LOCKED), Answer(), OutOfCredit),
        (Answer(200, {"token": "?"}), Answer(), Unavailable),
        (Answer(503, b""), Answer(), Unavailable),
        (Answer(behaviour="drop"), Answer(), Unavailable),
        (Answer(200, TOKEN), Answer(403, LOCKED), OutOfCredit),
        (Answer(200, TOKEN), Answer(415, {"detail": "no"}), Rejected),
        (Answer(200, TOKEN), Answer(500, {"detail": "no"}), Unavailable),
        (Answer(200, TOKEN), Answer(200, {"file_url": "ftp://x", "upload_url": "https://x.example/put"}), Unavailable),
        (Answer(200, TOKEN), Answer(200, b"no json"), Unavailable),
    ],
    ids=lambda value: f"{value.status}-{value.behaviour}" if isinstance(value, Answer) else "",
)
def test_an_upload_that_fails_everywhere_says_what_to_do(
    fal: StandIn, vendor: FalVendor, tmp_path: Path, token: Answer, upload: Answer, error: type[OnModelError]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    fal.on("POST rest.fal.ai/storage/auth/token", token)
    fal.on("POST v3.fal.media/files/upload", upload)
    fal.on("POST rest.fal.ai/storage/upload/initiate", upload)
    fal.on("PUT x.example/put", Answer(200, {}))
    with pytest.raises(error) as caught:
        vendor.upload(path, ZIP)
    assert type(caught.value) is error
    assert KEY not in caught.value.message


# --- downloads ---

DATA = hashlib.sha256(b"seed").digest() * 4000
LORA = OutputFile(role="lora", url="https://v3.fal.media/files/l.safetensors", file_name="l.safetensors")
AT = "GET v3.fal.media/files/l.safetensors"


def rest_from(
    offset: int, *, claims: int | None = None, promised: int | None = None, upto: int | None = None
) -> Answer:
    place = f"bytes {offset if claims is None else claims}-{len(DATA) - 1}/{len(DATA)}"
    return Answer(206, DATA[offset:upto], {"Content-Range": place}, promised=promised)


def test_a_file_is_fetched_whole_and_the_key_stays_home(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(AT, Answer(200, DATA))
    into = io.BytesIO()
    vendor.download(LORA, into)
    assert into.getvalue() == DATA
    assert "authorization" not in fal.seen[0].headers


@pytest.mark.parametrize(
    "answers",
    [
        (rest_from(1000),),
        (Answer(200, DATA),),
        (rest_from(1000, promised=len(DATA) - 1000, upto=5000), rest_from(5000)),
        (Answer(behaviour="drop"), Answer(behaviour="drop"), rest_from(1000)),
    ],
    ids=["resumed", "range ignored", "broken twice", "broken three times"],
)
def test_a_broken_download_is_carried_on_to_the_same_bytes(
    fal: StandIn, vendor: FalVendor, answers: tuple[Answer, ...]
) -> None:
    fal.on(AT, Answer(200, DATA[:1000], promised=len(DATA)), *answers)
    into = io.BytesIO(b"before")
    into.seek(6)
    vendor.download(LORA, into)
    assert into.getvalue() == b"before" + DATA
    assert fal.seen[1].headers["range"] == "bytes=1000-"


@pytest.mark.parametrize(
    ("answers", "error", "says"),
    [
        ((Answer(404, {}),), ResultExpired, "gone"),
        ((Answer(410, {}),), ResultExpired, "gone"),
        ((Answer(403, {}),), Unavailable, "403"),
        ((Answer(503, b""),), Unavailable, "503"),
        ((Answer(200, b"x", {"Content-Encoding": "br"}),), Unavailable, "compressed"),
        ((Answer(behaviour="drop"),), Unavailable, "after 0 bytes"),
        ((Answer(behaviour="hang"), Answer(503, b"")), Unavailable, "503"),
        ((Answer(200, DATA[:100], promised=len(DATA)),), Unavailable, "after 100 bytes"),
        ((Answer(200, DATA[:9], promised=len(DATA)), rest_from(9, claims=8)), Unavailable, "another place"),
        ((Answer(200, DATA[:9], promised=len(DATA)), Answer(416, {})), Unavailable, "9 bytes"),
        ((Answer(302, b"", {"Location": "http://v3.fal.media/x"}),), JobFailed, "public https"),
        ((Answer(302, b"", {"Location": "https://v3.fal.media/files/l.safetensors"}),), Unavailable, "302"),
    ],
    ids=lambda value: "-".join(str(answer.status) for answer in value) if isinstance(value, tuple) else "",
)
def test_a_file_that_cannot_be_had_says_whether_it_is_gone(
    fal: StandIn, vendor: FalVendor, answers: tuple[Answer, ...], error: type[OnModelError], says: str
) -> None:
    fal.on(AT, *answers)
    with pytest.raises(error, match=says) as caught:
        vendor.download(LORA, io.BytesIO())
    assert type(caught.value) is error


def test_a_redirect_to_another_public_store_is_followed(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(AT, Answer(302, b"", {"Location": "https://storage.googleapis.com/l"}))
    fal.on("GET storage.googleapis.com/l", Answer(200, DATA))
    into = io.BytesIO()
    vendor.download(LORA, into)
    assert into.getvalue() == DATA


@pytest.mark.parametrize(
    "url",
    [
        "http://v3.fal.media/x",
        "https://127.0.0.1/x",
        "https://169.254.169.254/meta",
        "https://localhost/x",
        "file:///x",
    ],
)
def test_an_address_that_is_not_public_https_is_never_asked(fal: StandIn, vendor: FalVendor, url: str) -> None:
    with pytest.raises(JobFailed, match="not public https"):
        vendor.download(OutputFile(role="lora", url=url), io.BytesIO())
    assert fal.seen == []


def test_many_threads_may_share_one_vendor(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(f"GET {FLUX_JOB}/status", Answer(202, {"status": "IN_PROGRESS"}))
    states: list[VendorState] = []

    def look() -> None:
        with contextlib.suppress(Unavailable):
            states.append(vendor.status(STILL, IDS).state)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == [VendorState.RUNNING] * 8
