"""Replicate through the adapter: one POST for a submit, and every answer read as the reference says."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

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
from domain.jobs import BlobRef, Operation, OutputFile, TrainingProgress, VendorJobIds, VendorState
from domain.model_rules import ModelKind
from domain.registry import load_registry
from domain.submissions import Finding
from providers.replicate import archives
from providers.replicate.archives import copy_weights
from providers.replicate.queue import STOPPED_AFTER_SECONDS
from providers.replicate.vendor import ReplicateVendor
from providers.vendor_ports import CaptionOrder, LoraUse, StillOrder, Vendor, VideoOrder
from tasks.results import TIME_LIMIT_SECONDS
from tests.contract.fal_standin import Answer, Failing, StandIn, fal_stand_in, sent
from tests.contract.replicate_standin import (
    API,
    CLIP,
    HUNYUAN,
    IDS,
    JOB,
    NOON,
    STILL,
    TOKEN,
    TRAINING,
    VERSION,
    ZIP,
    job,
    vendor_at,
    vendor_over,
)

REGISTRY = load_registry()
LORA = BlobRef(sha256="c0ffee" + "0" * 58, media_type="application/octet-stream", file_name="mei.safetensors")
CREATE = f"POST {API}/models/{STILL.endpoint}/predictions"
TRAIN_AT = f"{API}/models/{TRAINING.endpoint}/versions/{VERSION}/trainings"


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    with fal_stand_in() as server:
        yield server


@pytest.fixture
def replicate(running: StandIn) -> StandIn:
    running.plan.clear()
    running.seen.clear()
    return running


@pytest.fixture
def vendor(replicate: StandIn) -> Iterator[ReplicateVendor]:
    with vendor_at(replicate) as vendor:
        yield vendor


# --- submit ---


def test_the_adapter_plays_every_role_of_a_vendor_and_describes_nothing(vendor: ReplicateVendor) -> None:
    role: Vendor = vendor
    assert role.vendor == "replicate"
    with pytest.raises(BadInput, match="no captioner here"):
        vendor.caption_request(CaptionOrder(model_key="moondream_3_caption", picture=ZIP))


def test_a_prediction_is_one_post_of_the_input_that_ends_itself_and_waits_for_nothing(
    replicate: StandIn, vendor: ReplicateVendor
) -> None:
    urls = {"get": f"https://{JOB}", "cancel": f"https://{JOB}/cancel"}
    replicate.on(CREATE, Answer(201, {"id": "job1", "status": "starting", "urls": urls}))
    ids = vendor.submit(STILL, sent())
    assert (ids.request_id, ids.status_url, ids.cancel_url) == ("job1", urls["get"], urls["cancel"])
    (seen,) = replicate.seen
    assert json.loads(seen.body) == {"input": STILL.arguments}
    assert seen.headers["authorization"] == f"Bearer {TOKEN}"
    assert seen.headers["cancel-after"] == "900s"
    assert "prefer" not in seen.headers


def test_a_model_that_is_not_official_is_called_by_its_version(replicate: StandIn, vendor: ReplicateVendor) -> None:
    replicate.on(f"POST {API}/predictions", Answer(202, {"id": "job2", "status": "processing"}))
    assert vendor.submit(HUNYUAN, sent()).request_id == "job2"
    (seen,) = replicate.seen
    assert json.loads(seen.body) == {"version": HUNYUAN.endpoint, "input": {"prompt": "x"}}


def test_replicates_own_deadline_is_as_long_as_we_wait() -> None:
    assert STOPPED_AFTER_SECONDS[ModelKind.IMAGE] == TIME_LIMIT_SECONDS[Operation.MAKE_STILL]
    assert STOPPED_AFTER_SECONDS[ModelKind.VIDEO] == TIME_LIMIT_SECONDS[Operation.MAKE_VIDEO]


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (Answer(401, {"title": "Unauthenticated", "detail": "no token"}), NotConfigured, "REPLICATE_API_TOKEN"),
        (Answer(402, {"title": "Insufficient credit", "detail": "You have none."}), OutOfCredit, "billing"),
        (Answer(404, {"detail": "not found"}), Rejected, "may be gone"),
        (
            Answer(422, {"detail": "- input: prompt is required\n", "invalid_fields": []}),
            Rejected,
            "prompt is required",
        ),
        (Answer(409, {"detail": "conflict"}), SubmissionUnknown, "409"),
        (Answer(500, {"detail": "oops"}), SubmissionUnknown, "500"),
        (Answer(502, b"<html>nginx</html>"), SubmissionUnknown, "502"),
        (Answer(201, b'{"id": "6f'), SubmissionUnknown, "readable id"),
        (Answer(201, {"status": "starting"}), SubmissionUnknown, "readable id"),
        (Answer(behaviour="drop"), SubmissionUnknown, "no usable answer"),
        (Answer(behaviour="hang"), SubmissionUnknown, "ReadTimeout"),
    ],
)
def test_each_answer_to_a_submit_is_one_post_and_tells_what_became_of_the_job(
    replicate: StandIn, vendor: ReplicateVendor, answer: Answer, error: type[OnModelError], says: str
) -> None:
    replicate.on(CREATE, answer)
    with pytest.raises(error, match=says) as caught:
        vendor.submit(STILL, sent())
    assert type(caught.value) is error
    assert len(replicate.seen) == 1
    replicate.released.set()
    replicate.released.clear()


@pytest.mark.parametrize("wait", [{"retry_after": 9}, {}])
def test_a_429_is_read_in_its_header_or_its_body(
    replicate: StandIn, vendor: ReplicateVendor, wait: dict[str, int]
) -> None:
    headers = {} if wait else {"Retry-After": "9"}
    replicate.on(CREATE, Answer(429, {"detail": "throttled", "status": 429, **wait}, headers))
    with pytest.raises(RateLimited) as caught:
        vendor.submit(STILL, sent())
    assert caught.value.retry_after_seconds == 9


def test_what_never_left_is_unavailable_and_a_file_without_an_address_is_refused() -> None:
    with httpx.Client(transport=Failing(httpx.ConnectError("refused"))) as http, pytest.raises(Unavailable):
        vendor_over(http).submit(STILL, sent())
    with httpx.Client(transport=Failing(httpx.ConnectError("refused"))) as http, pytest.raises(BadInput):
        vendor_over(http).submit(TRAINING, sent())


def test_the_token_stays_with_replicate_and_out_of_every_text(replicate: StandIn, vendor: ReplicateVendor) -> None:
    replicate.on(CREATE, Answer(201, {"id": "job1", "urls": {"get": "https://evil.example/job1", "cancel": 7}}))
    ids = vendor.submit(STILL, sent())
    assert (ids.status_url, ids.cancel_url) == (None, None)
    replicate.on(CREATE, Answer(422, {"detail": f"no: {TOKEN}"}))
    with pytest.raises(Rejected) as caught:
        vendor.submit(STILL, sent())
    assert TOKEN not in str(caught.value)
    with httpx.Client() as http, pytest.raises(NotConfigured) as bad:
        vendor_over(http, token="r8 broken\n token")
    assert "broken" not in str(bad.value)


# --- trainings ---


def trained_by(replicate: StandIn) -> None:
    replicate.on(f"GET {API}/models/{TRAINING.endpoint}", Answer(200, {"latest_version": {"id": VERSION}}))
    replicate.on(f"POST {TRAIN_AT}", Answer(201, {"id": "t1", "status": "starting"}))


def test_a_training_makes_its_destination_finds_the_newest_version_and_is_one_post(
    replicate: StandIn, vendor: ReplicateVendor
) -> None:
    trained_by(replicate)
    replicate.on(f"GET {API}/models/me/loras", Answer(404, {"detail": "not found"}))
    replicate.on(f"POST {API}/models", Answer(201, {"owner": "me", "name": "loras"}))
    url_of = {ZIP.sha256: f"https://{API}/files/set"}
    assert vendor.submit(TRAINING, sent(url_of)).request_id == "t1"
    assert vendor.submit(TRAINING, sent(url_of)).request_id == "t1"
    posts = [seen for seen in replicate.seen if seen.method == "POST"]
    assert [seen.address for seen in posts] == [f"{API}/models", TRAIN_AT, TRAIN_AT]
    made = json.loads(posts[0].body)
    assert (made["owner"], made["name"], made["visibility"]) == ("me", "loras", "private")
    trained = json.loads(posts[1].body)
    assert trained == {"destination": "me/loras", "input": {"input_images": url_of[ZIP.sha256], "steps": 1000}}
    assert "cancel-after" not in posts[1].headers


def test_a_destination_that_another_process_made_meanwhile_is_used(replicate: StandIn, vendor: ReplicateVendor) -> None:
    trained_by(replicate)
    replicate.on(f"GET {API}/models/me/loras", Answer(404, {}))
    replicate.on(f"POST {API}/models", Answer(409, {"detail": "exists"}))
    assert vendor.submit(TRAINING, sent({ZIP.sha256: "https://x.example/set.zip"})).request_id == "t1"


@pytest.mark.parametrize(
    ("plan", "error", "says"),
    [
        ({f"GET {API}/models/me/loras": Answer(503, {})}, Unavailable, "asked again"),
        (
            {f"GET {API}/models/me/loras": Answer(404, {}), f"POST {API}/models": Answer(422, {"detail": "not yours"})},
            NotConfigured,
            "ONMODEL_REPLICATE_DESTINATION",
        ),
        ({f"GET {API}/models/{TRAINING.endpoint}": Answer(404, {})}, Rejected, "Choose another"),
        ({f"GET {API}/models/{TRAINING.endpoint}": Answer(200, {"latest_version": None})}, Unavailable, "version"),
        (
            {f"POST {TRAIN_AT}": Answer(422, {"invalid_fields": [{"field": "input.input_images", "type": "x"}]})},
            BadTrainingSet,
            "mend the training set",
        ),
    ],
)
def test_a_training_that_cannot_be_prepared_is_not_sent(
    replicate: StandIn, vendor: ReplicateVendor, plan: dict[str, Answer], error: type[OnModelError], says: str
) -> None:
    trained_by(replicate)
    replicate.on(f"GET {API}/models/me/loras", Answer(200, {"name": "loras"}))
    for what, answer in plan.items():
        replicate.on(what, answer)
    with pytest.raises(error, match=says) as caught:
        vendor.submit(TRAINING, sent({ZIP.sha256: "https://x.example/set.zip"}))
    assert type(caught.value) is error


def schema(fields: tuple[str, ...], required: tuple[str, ...] = ()) -> Answer:
    shown = {"properties": {name: {} for name in fields}, "required": list(required)}
    document = {"components": {"schemas": {"TrainingInput": shown}}}
    return Answer(200, {"latest_version": {"id": VERSION, "openapi_schema": document}})


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (schema(("input_images",)), "has no field 'steps'"),
        (schema(("input_images", "steps", "consent"), ("consent",)), "also wants 'consent'"),
    ],
)
def test_a_trainer_that_takes_other_fields_than_we_send_is_not_paid(
    replicate: StandIn, vendor: ReplicateVendor, answer: Answer, says: str
) -> None:
    trained_by(replicate)
    replicate.on(f"GET {API}/models/me/loras", Answer(200, {"name": "loras"}))
    replicate.on(f"GET {API}/models/{TRAINING.endpoint}", answer)
    with pytest.raises(Rejected, match=says):
        vendor.submit(TRAINING, sent({ZIP.sha256: "https://x.example/set.zip"}))
    assert not [seen for seen in replicate.seen if seen.method == "POST"]


def test_a_models_live_fields_are_read_once_in_an_hour_and_a_version_shows_its_own(
    replicate: StandIn, vendor: ReplicateVendor
) -> None:
    trainer = REGISTRY.model("replicate_flux_dev_lora")
    replicate.on(f"GET {API}/models/{TRAINING.endpoint}", schema(("input_images", "steps"), ("input_images",)))
    for _ in range(2):
        live = vendor.live_schema(trainer)
    assert (live.fields, live.required) == ({"input_images", "steps"}, {"input_images"})
    assert len(replicate.seen) == 1
    name, _, version = HUNYUAN.endpoint.partition(":")
    shown: dict[str, Any] = {"openapi_schema": {"components": {"schemas": {"Input": {"properties": {"prompt": {}}}}}}}
    replicate.on(f"GET {API}/models/{name}/versions/{version}", Answer(200, shown))
    assert vendor.live_schema(REGISTRY.model("hunyuan_video_lora_replicate")).fields == {"prompt"}


def test_without_a_destination_of_ours_nothing_is_trained_and_nothing_asked(replicate: StandIn) -> None:
    for destination in (None, "no-owner", "me/../you"):
        with vendor_at(replicate, destination=destination) as vendor, pytest.raises(NotConfigured, match="DESTINATION"):
            vendor.submit(TRAINING, sent({ZIP.sha256: "https://x.example/set.zip"}))
    assert replicate.seen == []


# --- looking ---


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("starting", VendorState.QUEUED),
        ("processing", VendorState.RUNNING),
        ("succeeded", VendorState.DONE),
        ("failed", VendorState.FAILED),
        ("canceled", VendorState.CANCELLED),
        ("aborted", VendorState.CANCELLED),
        ("pondering", VendorState.UNKNOWN_WORD),
    ],
)
def test_each_of_replicates_words_is_one_of_ours(
    replicate: StandIn, vendor: ReplicateVendor, word: str, state: VendorState
) -> None:
    replicate.on(f"GET {JOB}", Answer(200, job(word)))
    status = vendor.status(STILL, IDS)
    assert status.state is state
    if state is VendorState.UNKNOWN_WORD:
        assert status.message == "Replicate says 'pondering'"


def test_a_job_nobody_knows_is_gone_and_a_broken_look_can_be_repeated(
    replicate: StandIn, vendor: ReplicateVendor
) -> None:
    replicate.on(f"GET {JOB}", Answer(404, {"detail": "no such job"}))
    assert vendor.status(STILL, IDS).state is VendorState.GONE
    with pytest.raises(ResultExpired):
        vendor.output(STILL, IDS)
    for broken in (Answer(200, b"["), Answer(200, {"status": 7}), Answer(503, {}), Answer(behaviour="drop")):
        replicate.on(f"GET {JOB}", broken)
        with pytest.raises(Unavailable):
            vendor.status(STILL, IDS)


def test_a_trainings_step_loss_and_time_left_are_read_from_its_own_bar(
    replicate: StandIn, vendor: ReplicateVendor
) -> None:
    bar = "flux_train_replicate:  35%|███▌      | 350/1000 [01:57<03:34,  3.03it/s, lr: 4.0e-04 loss: 2.5e-01]"
    other = "Caching latents:  50%|█████     | 5/10 [00:01<00:01,  5.00it/s]"
    replicate.on(f"GET {API}/trainings/job1", Answer(200, job("processing", logs=f"{bar}\r{other}\n")))
    status = vendor.status(TRAINING, IDS)
    assert status.training == TrainingProgress(step=350, total_steps=1000, loss=0.25, seconds_left=214.0)
    assert status.progress == 0.35


# --- outcomes ---


def done(vendor: ReplicateVendor, replicate: StandIn, **facts: Any) -> Any:
    replicate.on(f"GET {JOB}", Answer(200, job(**facts)))
    return vendor.output(STILL, IDS)


def test_a_list_or_a_single_address_is_a_file_of_the_kind_that_was_bought(
    replicate: StandIn, vendor: ReplicateVendor
) -> None:
    output = done(vendor, replicate, output=["https://replicate.delivery/x/out-0.png"])
    assert [(file.role, file.content_type, file.file_name) for file in output.files] == [
        ("image", "image/png", "out-0.png")
    ]
    assert (output.seed, output.billed_usd) == (7, None)
    replicate.on(f"GET {JOB}", Answer(200, job(output="https://replicate.delivery/x/tmp.mp4")))
    assert [file.role for file in vendor.output(CLIP, IDS).files] == ["video"]


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ({"output": None, "data_removed": True}, ResultExpired),
        ({"output": None, "completed_at": (NOON - timedelta(hours=1)).isoformat()}, ResultExpired),
        ({"output": None}, JobFailed),
        ({"output": []}, JobFailed),
        ({"output": ["file:///etc/passwd", 7]}, JobFailed),
        ({"status": "processing"}, Unavailable),
        ({"status": "pondering"}, Unavailable),
        ({"status": "canceled"}, JobFailed),
        ({"status": "aborted", "error": "deadline"}, JobFailed),
        ({"status": "failed", "error": "E1001 out of memory"}, JobFailed),
        ({"status": "failed", "error": "NSFW content detected"}, JobFailed),
        ({"status": "failed", "error": "flagged as sensitive. (E005) (abc)"}, PromptRefused),
        ({"status": "failed", "error": "E005"}, PromptRefused),
    ],
)
def test_a_job_that_ends_badly_says_how_by_status_and_code(
    replicate: StandIn, vendor: ReplicateVendor, facts: dict[str, Any], error: type[OnModelError]
) -> None:
    with pytest.raises(error) as caught:
        done(vendor, replicate, **facts)
    assert type(caught.value) is error


def test_only_what_is_sold_by_the_machines_time_is_billed_by_it(replicate: StandIn, vendor: ReplicateVendor) -> None:
    timed: dict[str, Any] = {"metrics": {"predict_time": 100.0}}
    output = done(vendor, replicate, output=["https://replicate.delivery/x/out-0.png"], **timed)
    assert output.billed_usd is None
    replicate.on(f"GET {JOB}", Answer(200, job(output="https://replicate.delivery/x/tmp.mp4", **timed)))
    assert vendor.output(HUNYUAN, IDS).billed_usd == Decimal("0.1525")
    replicate.on(f"GET {JOB}", Answer(200, job("failed", **timed)))
    with pytest.raises(JobFailed) as caught:
        vendor.output(HUNYUAN, IDS)
    assert caught.value.billed_usd == Decimal("0.1525")


def test_a_trainings_weights_are_its_lora(replicate: StandIn, vendor: ReplicateVendor) -> None:
    made = {"version": "me/loras:abc", "weights": "https://replicate.delivery/x/trained_model.tar"}
    replicate.on(f"GET {API}/trainings/job1", Answer(200, job(output=made)))
    (file,) = vendor.output(TRAINING, IDS).files
    assert (file.role, file.file_name, file.url) == ("lora", "lora.safetensors", made["weights"])


def test_cancelling_what_is_over_or_unknown_is_fine_and_a_broken_answer_can_be_repeated(
    replicate: StandIn, vendor: ReplicateVendor
) -> None:
    for status in (200, 404, 409, 422):
        replicate.on(f"POST {JOB}/cancel", Answer(status, {}))
        vendor.cancel(STILL, IDS)
    replicate.on(f"POST {JOB}/cancel", Answer(500, {}))
    with pytest.raises(Unavailable):
        vendor.cancel(STILL, IDS)


def test_ping_reads_the_account(replicate: StandIn, vendor: ReplicateVendor) -> None:
    replicate.on(f"GET {API}/account", Answer(200, {"username": "me"}), Answer(401, {"detail": "no"}))
    assert vendor.ping().is_ready
    assert "REPLICATE_API_TOKEN" in vendor.ping().detail


# --- a lost job ---


LIST = f"GET {API}/predictions"


def page(*jobs: dict[str, Any], following: str | None = None) -> Answer:
    return Answer(200, {"results": list(jobs), "next": following, "previous": None})


def listed(job_id: str, **facts: Any) -> dict[str, Any]:
    return job("processing", **{"id": job_id, "created_at": NOON.isoformat(), **facts})


def test_a_lost_job_is_found_by_its_very_input_over_every_page(replicate: StandIn, vendor: ReplicateVendor) -> None:
    others = [
        listed("other", input={"prompt": "else", "seed": 7}),
        listed("known"),
        listed("clip", model=CLIP.endpoint),
    ]
    following = f"https://{API}/predictions?cursor=abc"
    replicate.on(LIST, page(*others, following=following), page(listed("ours")))
    found = vendor.look_up(STILL, sent(at=NOON), frozenset({"known"}))
    assert (found.finding, found.ids) == (Finding.FOUND, VendorJobIds(request_id="ours"))
    assert [seen.query for seen in replicate.seen] == ["created_after=2026-11-20T11%3A58%3A00Z", "cursor=abc"]
    assert not vendor.absence.can_prove


def test_a_list_without_inputs_is_read_job_by_job(replicate: StandIn, vendor: ReplicateVendor) -> None:
    replicate.on(LIST, page(listed("job1", input=None), listed("gone", input=None)))
    replicate.on(f"GET {JOB}", Answer(200, job()))
    replicate.on(f"GET {API}/predictions/gone", Answer(404, {}))
    assert vendor.look_up(STILL, sent(at=NOON), frozenset()).ids == VendorJobIds(request_id="job1")


@pytest.mark.parametrize(
    ("jobs", "finding", "candidates"),
    [
        ([listed("a"), listed("b")], Finding.UNCLEAR, ("a", "b")),
        ([listed("a", input={}, data_removed=True)], Finding.UNCLEAR, ("a",)),
        ([listed("a", input={"prompt": "a harbour", "seed": True})], Finding.ABSENT, ()),
        ([listed("a", input={"prompt": "a harbour", "seed": 7, "go_fast": True})], Finding.ABSENT, ()),
        ([listed("a", created_at=(NOON - timedelta(hours=1)).isoformat())], Finding.ABSENT, ()),
        ([], Finding.ABSENT, ()),
    ],
)
def test_what_cannot_be_told_apart_is_shown_and_what_differs_is_not_ours(
    replicate: StandIn,
    vendor: ReplicateVendor,
    jobs: list[dict[str, Any]],
    finding: Finding,
    candidates: tuple[str, ...],
) -> None:
    replicate.on(LIST, page(*jobs))
    replicate.on(f"GET {API}/predictions/a", Answer(200, job(input={}, data_removed=True)))
    found = vendor.look_up(STILL, sent(at=NOON), frozenset())
    assert (found.finding, found.candidates) == (finding, candidates)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {"results": "none"}),
        Answer(200, {"results": [{"status": "starting"}]}),
        page(following="https://evil.example/next"),
        page(following=f"https://{API}/predictions?cursor=same"),
        Answer(500, {}),
    ],
)
def test_a_list_that_cannot_be_read_whole_proves_nothing(
    replicate: StandIn, vendor: ReplicateVendor, answer: Answer
) -> None:
    replicate.on(LIST, answer)
    with pytest.raises(Unavailable):
        vendor.look_up(STILL, sent(at=NOON), frozenset())


def test_a_lost_training_is_looked_for_among_the_trainings(replicate: StandIn, vendor: ReplicateVendor) -> None:
    ours = TRAINING.with_urls({ZIP.sha256: "https://x.example/set.zip"})
    replicate.on(f"GET {API}/trainings", page(listed("t1", model=TRAINING.endpoint, input=ours)))
    found = vendor.look_up(TRAINING, sent({ZIP.sha256: "https://x.example/set.zip"}, at=NOON), frozenset())
    assert found.ids == VendorJobIds(request_id="t1")


# --- files ---


def test_a_lora_goes_by_a_link_of_ours_with_its_digest_in_the_path(vendor: ReplicateVendor, tmp_path: Path) -> None:
    url = vendor.upload(tmp_path / "none", LORA)
    assert url.partition("?")[0].endswith(f"/lora-{LORA.sha256[:16]}.safetensors")
    assert url.endswith("?for=86400")


def test_a_lora_in_a_store_that_nobody_can_follow_is_said_to_need_one(replicate: StandIn, tmp_path: Path) -> None:
    with vendor_at(replicate, is_local=True) as vendor, pytest.raises(NotConfigured, match="ONMODEL_STORAGE_URL=s3"):
        vendor.upload(tmp_path / "none", LORA)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(201, {"urls": {"get": f"https://{API}/files/f1"}, "checksums": {"sha256": "b" * 64}}), Unavailable),
        (Answer(201, {"urls": {"get": "http://plain.example/f1"}}), Unavailable),
        (Answer(201, b"["), Unavailable),
        (Answer(413, {"detail": "too large"}), Rejected),
        (Answer(402, {"detail": "no credit"}), OutOfCredit),
        (Answer(500, {}), Unavailable),
    ],
)
def test_an_upload_that_went_wrong_says_how(
    replicate: StandIn, vendor: ReplicateVendor, tmp_path: Path, answer: Answer, error: type[OnModelError]
) -> None:
    (tmp_path / "set").write_bytes(b"PK")
    replicate.on(f"POST {API}/files", answer)
    with pytest.raises(error):
        vendor.upload(tmp_path / "set", ZIP)


def test_an_upload_is_one_form_and_an_answer_without_digest_or_end_is_fine(
    replicate: StandIn, vendor: ReplicateVendor, tmp_path: Path
) -> None:
    (tmp_path / "set").write_bytes(b"PK-bytes")
    replicate.on(f"POST {API}/files", Answer(201, {"urls": {"get": f"https://{API}/files/f1"}}))
    assert vendor.upload(tmp_path / "set", ZIP) == f"https://{API}/files/f1"
    (seen,) = replicate.seen
    assert b"PK-bytes" in seen.body
    assert b'name="content"; filename="set.zip"' in seen.body


def test_a_file_is_resumed_and_the_token_goes_to_the_api_alone(replicate: StandIn, vendor: ReplicateVendor) -> None:
    broken = Answer(200, b"01234", promised=10)
    rest = Answer(206, b"56789", {"Content-Range": "bytes 5-9/10"})
    moved = Answer(302, b"", {"Location": "https://replicate.delivery/x/out.png"})
    replicate.on(f"GET {API}/files/f1", moved)
    replicate.on("GET replicate.delivery/x/out.png", broken, rest)
    into = io.BytesIO()
    vendor.download(OutputFile(role="image", url=f"https://{API}/files/f1"), into)
    assert into.getvalue() == b"0123456789"
    assert ["authorization" in seen.headers for seen in replicate.seen] == [True, False, True, False]


@pytest.mark.parametrize(
    ("url", "answer", "error"),
    [
        ("https://replicate.delivery/x/out.png", Answer(404), ResultExpired),
        ("https://replicate.delivery/x/out.png", Answer(410), ResultExpired),
        ("https://replicate.delivery/x/out.png", Answer(503), Unavailable),
        ("https://replicate.delivery/x/out.png", Answer(200, b"0", promised=9), Unavailable),
        ("http://replicate.delivery/x/out.png", Answer(200), JobFailed),
        ("https://127.0.0.1/x/out.png", Answer(200), JobFailed),
    ],
)
def test_a_file_that_cannot_be_had_says_why(
    replicate: StandIn, vendor: ReplicateVendor, url: str, answer: Answer, error: type[OnModelError]
) -> None:
    replicate.on("GET replicate.delivery/x/out.png", answer)
    with pytest.raises(error):
        vendor.download(OutputFile(role="image", url=url), io.BytesIO())


def tar_of(*members: tuple[str, bytes], link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            tar.addfile(facts, io.BytesIO(data))
        if link:
            facts = tarfile.TarInfo(link)
            facts.type, facts.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(facts)
    return out.getvalue()


def zip_of(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name in names:
            packed.writestr(name, b"weights")
    return out.getvalue()


GOOD = ("output/train/lora.safetensors", b"weights")


@pytest.mark.parametrize(
    "archive",
    [
        tar_of(("output/config.yaml", b"x"), GOOD),
        tar_of(("../../../etc/lora.safetensors", b"weights"), ("._lora.safetensors", b"mac")),
        zip_of("lora.safetensors", "settings.txt"),
        b"weights",
    ],
    ids=["tar", "tar with a path that climbs", "zip", "no archive"],
)
def test_the_one_lora_of_a_training_is_what_is_kept_whatever_its_path(
    replicate: StandIn, vendor: ReplicateVendor, archive: bytes
) -> None:
    replicate.on("GET replicate.delivery/x/weights", Answer(200, archive))
    into = io.BytesIO()
    vendor.download(OutputFile(role="lora", url="https://replicate.delivery/x/weights"), into)
    assert into.getvalue() == b"weights"


@pytest.mark.parametrize(
    "archive",
    [
        tar_of(("readme.txt", b"x")),
        tar_of(GOOD, ("other.safetensors", b"2")),
        tar_of(("readme.txt", b"x"), link="lora.safetensors"),
        zip_of("a.safetensors", "b.safetensors"),
        tar_of(GOOD)[:600] + b"\xff" * 100,
        zip_of("lora.safetensors").replace(b"weights", b"wEights"),
    ],
    ids=["none", "two", "a link", "two in a zip", "broken tar", "broken zip"],
)
def test_an_archive_that_holds_no_single_lora_is_no_result(tmp_path: Path, archive: bytes) -> None:
    (tmp_path / "weights").write_bytes(archive)
    with pytest.raises(JobFailed):
        copy_weights(tmp_path / "weights", io.BytesIO(), "it")


def test_nothing_grows_beyond_what_a_lora_can_be(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(tar_of(*[(f"{number}.txt", b"") for number in range(archives.MOST_MEMBERS + 1)]))
    with pytest.raises(JobFailed, match="more files or bytes"):
        copy_weights(tmp_path / "weights", io.BytesIO(), "it")


# --- what the registry says of its models ---


def test_a_flux_still_takes_two_loras_in_fields_of_their_own_and_its_seed_holds(vendor: ReplicateVendor) -> None:
    uses = (LoraUse(file=LORA, scale=0.9), LoraUse(file=LORA, scale=0.5))
    order = StillOrder(model_key="flux_lora_replicate", prompt="MEI", loras=uses, image_size=(1600, 900), seed=3)
    given = vendor.still_request(order).arguments
    assert (given["aspect_ratio"], given["go_fast"], given["seed"]) == ("16:9", False, 3)
    assert (given["lora_scale"], given["extra_lora_scale"]) == (0.9, 0.5)
    assert {"lora_weights", "extra_lora"} <= given.keys()


def test_wan_gets_the_low_noise_file_in_its_second_field_and_the_high_noise_one_in_its_first(
    vendor: ReplicateVendor,
) -> None:
    high = LORA.model_copy(update={"sha256": "d" * 64})
    use = LoraUse(file=LORA, scale=0.9, high_noise=high)
    order = VideoOrder(model_key="wan_22_t2v_lora_replicate", prompt="MEI runs", seconds=5, loras=(use,))
    given = vendor.video_request(order).arguments
    assert given["lora_weights_transformer"]["$blob"]["sha256"] == high.sha256
    assert given["lora_weights_transformer_2"]["$blob"]["sha256"] == LORA.sha256
    assert given["num_frames"] == 81


def test_veo_takes_reference_pictures_at_eight_seconds_and_wide_only(vendor: ReplicateVendor) -> None:
    order = VideoOrder(model_key="veo_31_reference_replicate", prompt="MEI", seconds=8, references=(ZIP, ZIP, ZIP))
    assert len(vendor.video_request(order).arguments["reference_images"]) == 3
    wrong: tuple[dict[str, Any], ...] = (
        {"seconds": 6.0},
        {"aspect_ratio": "9:16"},
        {"references": ()},
        {"references": (ZIP,) * 4},
    )
    for change in wrong:
        with pytest.raises(BadInput):
            vendor.video_request(order.model_copy(update=change))


@pytest.mark.parametrize("key", ["kling_v21", "kling_v25_turbo", "hailuo_23", "wan_25_i2v", "veo_31"])
def test_the_owners_five_are_found_at_replicate_by_their_own_names_and_take_no_lora(key: str) -> None:
    model = REGISTRY.at(key, ("replicate",))
    assert model is not None
    assert model.vendor == "replicate"
    assert model.lora is not None
    assert not model.lora.takes
