"""A training at RunPod is one POST: what it carries, which machine it asks for, what each answer means."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
from domain.submissions import Finding
from providers.blobs.handover import LocalHandover
from providers.runpod.vendor import RunPodVendor
from providers.vendor_ports import Handover, JobVendor, LoraTrainer, PodHost, UsageReader
from tests.contract.runpod_orders import (
    FIRST,
    HARD_STOP,
    NAME,
    ORDER,
    SENT_AT,
    SET,
    SET_LINK,
    TRAIN,
    open_plain,
    vendor_over,
)
from tests.contract.runpod_standin import KEY, Answer, Fault, RunPodStandIn, problem, runpod_stand_in


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


def test_the_adapter_plays_every_role_it_is_given(vendor: RunPodVendor) -> None:
    queue: JobVendor = vendor
    host: PodHost = vendor
    reader: UsageReader = vendor
    trainer: LoraTrainer = vendor
    assert queue.vendor == host.vendor == "runpod"
    assert reader is trainer


# --- the request ---


def test_a_training_is_one_request_without_a_link_and_the_same_each_time(vendor: RunPodVendor) -> None:
    assert vendor.training_request(ORDER) == TRAIN
    assert TRAIN.blobs() == (SET,)
    assert TRAIN.arguments["gpus"][0] == "NVIDIA GeForce RTX 4090"
    assert "http" not in json.dumps(TRAIN.arguments)


@pytest.mark.parametrize(
    "wrong", [{"trainer_key": "flux_lora"}, {"steps": 0}, {"trigger_word": "a b"}, {"rank": 9999}, {"image_count": 1}]
)
def test_what_no_pod_can_train_is_refused_before_it_is_ordered(vendor: RunPodVendor, wrong: dict[str, Any]) -> None:
    with pytest.raises((BadInput, Rejected)):
        vendor.training_request(ORDER.model_copy(update=wrong))


# --- submit ---


def test_a_submit_is_one_post_that_carries_its_name_its_deadline_and_its_job(
    runpod: RunPodStandIn, vendor: RunPodVendor
) -> None:
    runpod.now = lambda: SENT_AT + timedelta(seconds=9)
    ids = vendor.submit(TRAIN, FIRST)
    assert ids.request_id == next(iter(runpod.pods))
    (looked, _, query), (route, path, body) = runpod.seen
    assert (looked, query) == ("catalogue", {"include": "AVAILABILITY", "product": "POD"})
    assert (route, path) == ("create", "POST /v2/pods")
    args, env = body.pop("args"), body.pop("env")
    assert body == {
        "name": "onmodel-1772366400-0a1b2c3d-0123456789abcdef0123-1",
        "image": "ostris/aitoolkit:0.12.26",
        "gpu": {"id": "NVIDIA GeForce RTX 4090", "count": 1, "minCudaVersion": "13.0"},
        "cloud": "SECURE",
        "disk": 100,
        "startSsh": False,
        "startJupyter": False,
    }
    assert args.startswith("bash -c '")
    assert set(env) == {"ONMODEL_JOB", "ONMODEL_DEADLINE"}
    assert int(env["ONMODEL_DEADLINE"]) == 1772366400 + 9 + HARD_STOP.total_seconds()
    job = json.loads(gzip.decompress(base64.b64decode(env["ONMODEL_JOB"])))
    assert (job["job"], job["dataset"]["url"], job["total_steps"]) == (NAME, SET_LINK, 1000)
    assert [urlsplit(result["url"]).path.rpartition("/")[2] for result in job["results"]] == [
        "lora.safetensors",
        "config.yaml",
    ]
    assert job["commands"][-1]["is_training"]


def test_each_further_post_of_a_job_asks_for_the_next_machine_that_may_be_free_under_the_cap(
    runpod: RunPodStandIn, vendor: RunPodVendor
) -> None:
    for number in (1, 2, 3):
        vendor.submit(TRAIN, FIRST.model_copy(update={"number": number}))
    asked = [given["gpu"]["id"] for route, _, given in runpod.seen if route == "create"]
    assert asked == ["NVIDIA GeForce RTX 4090", "NVIDIA L40S", "NVIDIA GeForce RTX 4090"]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"availability": "NONE"}, Unavailable, "no machine free"),
        ({"cudaVersions": [{"version": "12.8", "available": True}]}, Unavailable, "no machine free"),
        ({"cudaVersions": [{"version": "13.0", "available": False}]}, Unavailable, "no machine free"),
        ({"price": {"secure": 9.0, "community": 0.1}}, NotConfigured, "raise price_cap"),
        ({"secure": False}, NotConfigured, "none of them is offered"),
        ({"price": {"secure": "much"}}, NotConfigured, "none of them is offered"),
    ],
)
def test_where_no_machine_will_do_nothing_is_ordered(
    runpod: RunPodStandIn, vendor: RunPodVendor, change: dict[str, Any], error: type[OnModelError], says: str
) -> None:
    runpod.gpus = [gpu | change for gpu in runpod.gpus]
    with pytest.raises(error, match=says):
        vendor.submit(TRAIN, FIRST)
    assert runpod.created == []


@pytest.mark.parametrize(
    "told", [{}, {"availability": "LOW"}, {"cudaVersions": []}, {"cudaVersions": [{"version": "13.2"}]}]
)
def test_what_the_catalogue_does_not_say_excludes_no_machine(
    runpod: RunPodStandIn, vendor: RunPodVendor, told: dict[str, Any]
) -> None:
    kept = ("id", "name", "secure", "price")
    runpod.gpus = [{key: gpu[key] for key in kept} | told for gpu in runpod.gpus]
    vendor.submit(TRAIN, FIRST)
    assert len(runpod.created) == 1


@pytest.mark.parametrize("fault", [Fault.BAD_GATEWAY, Fault.DROP_BEFORE, Fault.MALFORMED, Answer(200, {"gpus": None})])
def test_without_the_catalogue_nothing_is_ordered(
    runpod: RunPodStandIn, vendor: RunPodVendor, fault: Fault | Answer
) -> None:
    runpod.on("catalogue", fault)
    with pytest.raises(Unavailable):
        vendor.submit(TRAIN, FIRST)
    assert runpod.routes() == ["catalogue"]


def test_a_machine_that_could_not_reach_our_store_is_not_rented(runpod: RunPodStandIn, tmp_path: Path) -> None:
    with open_plain() as http:
        vendor = vendor_over(http, LocalHandover(tmp_path), runpod.url)
        with pytest.raises(NotConfigured, match="ONMODEL_STORAGE_URL"):
            vendor.submit(TRAIN, FIRST)
        with pytest.raises(NotConfigured, match="ONMODEL_STORAGE_URL"):
            vendor.upload(tmp_path / "set.zip", SET)
    assert runpod.created == []


def test_a_token_for_gated_weights_is_named_and_never_sent(
    runpod: RunPodStandIn, vendor: RunPodVendor, handover: Handover
) -> None:
    gated = vendor.training_request(ORDER.model_copy(update={"trainer_key": "runpod_ai_toolkit_flux_1"}))
    for wrong in (None, "", "{{ x }}"):
        with open_plain() as http, pytest.raises(NotConfigured, match="ONMODEL_RUNPOD_HF_SECRET"):
            vendor_over(http, handover, runpod.url, hugging_face_secret=wrong).submit(gated, FIRST)
    with open_plain() as http:
        vendor_over(http, handover, runpod.url, hugging_face_secret="hf_mine").submit(gated, FIRST)
    assert runpod.seen[-1][2]["env"]["HF_TOKEN"] == "{{ RUNPOD_SECRET_hf_mine }}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"hard_stop_seconds": 0},
        {"hard_stop_seconds": "7200"},
        {"hard_stop_seconds": 8 * 24 * 3600},
        {"hard_stop_seconds": True},
        {"model": "no_such_model"},
        {"gpus": []},
        {"dataset": "https://elsewhere.example/set.zip"},
        {"price_cap_usd_per_hour": "-1"},
        {"price_cap_usd_per_hour": "NaN"},
        {"name": "mine"},
    ],
)
def test_a_request_that_is_no_pods_is_refused_before_anything_is_sent(
    runpod: RunPodStandIn, vendor: RunPodVendor, wrong: dict[str, Any]
) -> None:
    with pytest.raises(Rejected):
        vendor.submit(TRAIN.model_copy(update={"arguments": TRAIN.arguments | wrong}), FIRST)
    with pytest.raises(Rejected, match="only 'pods'"):
        vendor.submit(TRAIN.model_copy(update={"endpoint": "serverless"}), FIRST)
    with pytest.raises(Rejected, match="no address"):
        vendor.submit(TRAIN, FIRST.model_copy(update={"url_of": {}}))
    assert runpod.created == []


# --- answers ---


LAST = FIRST.model_copy(update={"number": 2})
"""The POST that asks for the last of the machines that may be free."""


@pytest.mark.parametrize("code", [400, 403])
def test_a_refusal_that_may_be_about_the_machine_moves_on_to_the_next_and_ends_at_the_last(
    runpod: RunPodStandIn, vendor: RunPodVendor, code: int
) -> None:
    runpod.always("create", problem(code, "No", "not with that one"))
    with pytest.raises(Unavailable, match="another one is ordered"):
        vendor.submit(TRAIN, FIRST)
    with pytest.raises(Rejected, match="not with that one"):
        vendor.submit(TRAIN, LAST)


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
        vendor.submit(TRAIN, LAST)
    assert type(raised.value) is error
    assert says in raised.value.message
    assert runpod.routes() == ["catalogue", "create"]


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
    assert runpod.routes() == ["catalogue", "create"]
    look = vendor.look_up(TRAIN, FIRST, frozenset())
    assert look.finding is (Finding.FOUND if is_made else Finding.ABSENT)
    assert list(runpod.pods) == ([look.ids.request_id] if look.ids else [])


def test_nobody_listening_means_nothing_was_ordered(handover: Handover) -> None:
    with socket.socket() as deaf, open_plain() as http:
        deaf.bind(("127.0.0.1", 0))  # bound, so that nobody else listens there, and not listening
        vendor = vendor_over(http, handover, f"http://127.0.0.1:{deaf.getsockname()[1]}/v2")
        with pytest.raises(Unavailable):
            vendor.submit(TRAIN, FIRST)
        assert not vendor.ping().is_ready


# --- the key ---


@pytest.mark.parametrize("repeated", [KEY, SET_LINK, ""])
def test_neither_the_key_nor_a_pods_variables_stand_in_an_error(
    runpod: RunPodStandIn, vendor: RunPodVendor, repeated: str
) -> None:
    vendor.submit(TRAIN, FIRST)
    repeated = repeated or runpod.seen[-1][2]["env"]["ONMODEL_JOB"]
    for said in (f"{repeated} is wrong", f"{'x' * 285} {repeated}"):  # the second would be cut in its middle
        for answer in (problem(422, "no", said), problem(402, said, said), problem(500, "no", said), Answer(502, said)):
            runpod.on("create", answer)
            with pytest.raises(OnModelError) as raised:
                vendor.submit(TRAIN, FIRST)
            assert repeated[:20] not in repr(pickle.loads(pickle.dumps(raised.value))) + raised.value.message
    assert KEY not in repr(vendor) + repr(vars(vendor))


@pytest.mark.parametrize("key", ["", "  ", "two words", "naïve", "line\nbreak"])
def test_a_key_that_can_be_none_is_refused_without_being_shown(key: str, tmp_path: Path) -> None:
    with open_plain() as http, pytest.raises(NotConfigured) as raised:
        vendor_over(http, LocalHandover(tmp_path), "https://api.runpod.io/v2", key)
    assert not key.strip() or key not in raised.value.message


def test_the_key_goes_to_no_address_that_is_not_https(handover: Handover) -> None:
    with open_plain() as http, pytest.raises(NotConfigured, match="not https"):
        vendor_over(http, handover, "http://api.runpod.io/v2")


def test_a_wrong_key_is_said_to_be_wrong(runpod: RunPodStandIn, handover: Handover) -> None:
    with open_plain() as http:
        vendor = vendor_over(http, handover, runpod.url, "another")
        assert "correct RUNPOD_API_KEY" in vendor.ping().detail
        with pytest.raises(NotConfigured):
            vendor.pods()


def test_a_good_key_is_ready(vendor: RunPodVendor) -> None:
    assert vendor.ping().is_ready
