"""fal's queue through the adapter: one POST for a submit, and every answer read as the reference says."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
from domain.jobs import TrainingProgress, VendorJobIds, VendorRequest, VendorState
from domain.registry import load_registry
from providers.fal.captioners import LONGEST_TEXT
from providers.fal.vendor import FalVendor
from providers.vendor_ports import Vendor
from providers.web import open_http
from tests.contract.fal_standin import (
    ACCEPTED,
    FLUX_JOB,
    IDS,
    KEY,
    LOCKED,
    STILL,
    TRAIN,
    VIDEO,
    ZIP,
    Answer,
    Failing,
    StandIn,
    ToStandIn,
    fal_stand_in,
    sent,
    vendor_at,
)


@pytest.fixture
def fal() -> Iterator[StandIn]:
    with fal_stand_in() as server:
        yield server


@pytest.fixture
def vendor(fal: StandIn) -> Iterator[FalVendor]:
    with vendor_at(fal) as vendor:
        yield vendor


# --- submit ---


def test_the_adapter_plays_every_role_of_a_vendor(vendor: FalVendor) -> None:
    role: Vendor = vendor
    assert role.vendor == "fal"


def test_a_submit_is_one_post_of_the_models_input_and_keeps_all_ids(fal: StandIn, vendor: FalVendor) -> None:
    fal.on("POST queue.fal.run/fal-ai/flux-lora-fast-training", Answer(200, ACCEPTED))
    ids = vendor.submit(TRAIN, sent({ZIP.sha256: "https://v3.fal.media/files/set.zip"}))
    assert ids.model_dump() == {name: ACCEPTED[name] for name in VendorJobIds.model_fields}
    (seen,) = (one for one in fal.seen if one.method == "POST")
    assert json.loads(seen.body) == {"images_data_url": "https://v3.fal.media/files/set.zip", "steps": 9}
    assert seen.headers["authorization"] == f"Key {KEY}"
    assert seen.headers["content-type"] == "application/json"


def test_missing_addresses_are_rebuilt_from_owner_and_app(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(f"POST queue.fal.run/{VIDEO.endpoint}", Answer(200, {"request_id": "job-2"}))
    fal.on("GET queue.fal.run/fal-ai/kling-video/requests/job-2/status", Answer(200, {"status": "COMPLETED"}))
    ids = vendor.submit(VIDEO, sent())
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
    ids = vendor.submit(STILL, sent())
    assert ids.status_url is None
    assert vendor.status(STILL, ids).state is VendorState.RUNNING


def detail(type_: str, *loc: str) -> dict[str, Any]:
    return {"detail": [{"loc": ["body", *loc], "msg": "no", "type": type_}]}


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
        (Answer(200, b"{not json"), SubmissionUnknown, "no usable answer came back"),
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
        vendor.submit(STILL, sent())
    assert type(caught.value) is error
    assert says in caught.value.message
    assert [seen.method for seen in fal.seen] == ["POST"]
    assert KEY not in caught.value.message
    assert str(pickle.loads(pickle.dumps(caught.value))) == caught.value.message


def test_a_connection_refused_means_definitely_not_sent() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_address[1]
    with open_http(ToStandIn(port)) as http, pytest.raises(Unavailable, match="was not sent"):
        FalVendor(http, SecretStr(KEY), load_registry()).submit(STILL, sent())


@pytest.mark.parametrize("error", [httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError])
def test_failures_before_the_first_byte_mean_definitely_not_sent(error: type[httpx.TransportError]) -> None:
    with open_http(Failing(error("early"))) as http, pytest.raises(Unavailable, match="was not sent"):
        FalVendor(http, SecretStr(KEY), load_registry()).submit(STILL, sent())


@pytest.mark.parametrize("error", [httpx.WriteError("x"), httpx.WriteTimeout("x"), httpx.ReadError("x"), OSError("x")])
def test_failures_on_the_way_leave_the_job_unknown(error: Exception) -> None:
    with open_http(Failing(error)) as http, pytest.raises(SubmissionUnknown, match="no usable answer came back"):
        FalVendor(http, SecretStr(KEY), load_registry()).submit(STILL, sent())


def test_a_file_without_an_address_is_noticed_before_anything_is_sent(fal: StandIn, vendor: FalVendor) -> None:
    with pytest.raises(BadInput, match="has no address"):
        vendor.submit(TRAIN, sent())
    assert [one for one in fal.seen if one.method == "POST"] == []


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
    assert status.training == TrainingProgress(step=50, total_steps=200, loss=0.1)
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


LOW, HIGH = {"url": "https://v3.fal.media/low"}, {"url": "https://v3.fal.media/high"}


@pytest.mark.parametrize("files", [{"diffusers_lora_file": LOW}, {"high_noise_lora": HIGH}, {}])
def test_a_lora_of_two_files_is_nothing_with_one_of_them(
    fal: StandIn, vendor: FalVendor, files: dict[str, Any]
) -> None:
    request = TRAIN.model_copy(update={"endpoint": "fal-ai/wan-22-image-trainer"})
    address = "GET queue.fal.run/fal-ai/wan-22-image-trainer/requests/job-1"
    fal.on(address, Answer(200, {**files, "config_file": {"url": "https://v3.fal.media/c"}}))
    with pytest.raises(JobFailed, match="names no lora"):
        vendor.output(request, IDS)
    fal.on(address, Answer(200, {"diffusers_lora_file": LOW, "high_noise_lora": HIGH}))
    assert {file.role: file.url for file in vendor.output(request, IDS).files} == {
        "lora": LOW["url"],
        "lora_high_noise": HIGH["url"],
    }


def test_a_trainers_sample_clip_is_not_taken_for_a_clip(fal: StandIn, vendor: FalVendor) -> None:
    request = TRAIN.model_copy(update={"endpoint": "fal-ai/ltx23-video-trainer"})
    fal.on(
        "GET queue.fal.run/fal-ai/ltx23-video-trainer/requests/job-1",
        Answer(200, {"lora_file": LOW, "video": {"url": "https://v3.fal.media/sample"}}),
    )
    assert [file.role for file in vendor.output(request, IDS).files] == ["lora"]


def test_a_job_of_a_model_that_left_the_registry_still_gives_its_file(fal: StandIn, vendor: FalVendor) -> None:
    request = TRAIN.model_copy(update={"endpoint": "fal-ai/some-older-trainer"})
    address = "GET queue.fal.run/fal-ai/some-older-trainer/requests/job-1"
    fal.on(address, Answer(200, {"lora_file": LOW, "config_file": {"url": "https://v3.fal.media/c"}}))
    assert [file.role for file in vendor.output(request, IDS).files] == ["lora", "config"]
    fal.on(address, Answer(200, {"log": "done"}))
    with pytest.raises(JobFailed, match="names no image and no lora and no video file"):
        vendor.output(request, IDS)


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
        (Answer(500, {"detail": "CUDA out of memory"}), DONE_BADLY, JobFailed),
        (Answer(500, {"detail": "Internal server error"}), DONE, Unavailable),
        (Answer(500, detail("internal_server_error")), DONE, JobFailed),
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


# --- a captioner's words ---

DESCRIBE = VendorRequest(vendor="fal", endpoint="fal-ai/moondream3-preview/caption", arguments={"length": "normal"})
DESCRIBED = "GET queue.fal.run/fal-ai/moondream3-preview/requests/job-1"


@pytest.mark.parametrize("beside", [{}, {"finish_reason": "stop", "usage_info": {"output_tokens": 9}}])
def test_a_description_is_the_text_of_the_answer_whatever_stands_beside_it(
    fal: StandIn, vendor: FalVendor, beside: dict[str, Any]
) -> None:
    fal.on(DESCRIBED, Answer(200, {"output": " A woman on a pier.\n It rains. ", **beside}))
    output = vendor.output(DESCRIBE, IDS)
    assert (output.text, output.files, output.billed_usd) == ("A woman on a pier. It rains.", (), None)


def test_a_description_never_holds_what_no_table_takes_and_is_of_bounded_length(
    fal: StandIn, vendor: FalVendor
) -> None:
    fal.on(DESCRIBED, Answer(200, b'{"output": "a\\u0000pier\\ud800\\u202e ' + b"x" * 9000 + b'"}'))
    text = vendor.output(DESCRIBE, IDS).text
    assert text is not None
    assert text.startswith("a pier xxx")
    assert len(text) == LONGEST_TEXT


@pytest.mark.parametrize("answer", [{}, {"output": None}, {"output": " \n"}, {"output": ["a pier"]}, {"results": "?"}])
def test_an_answer_without_words_is_a_failed_job(fal: StandIn, vendor: FalVendor, answer: dict[str, Any]) -> None:
    fal.on(DESCRIBED, Answer(200, answer))
    with pytest.raises(JobFailed, match="says nothing of the picture in 'output'"):
        vendor.output(DESCRIBE, IDS)


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


def test_many_threads_may_share_one_vendor(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(f"GET {FLUX_JOB}/status", Answer(202, {"status": "IN_PROGRESS"}))
    states: list[VendorState] = []

    def look() -> None:
        states.append(vendor.status(STILL, IDS).state)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == [VendorState.RUNNING] * 8
