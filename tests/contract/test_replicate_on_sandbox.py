"""The unchanged Replicate adapter against the sandbox: every model is bought once, every fault becomes its error."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from domain.errors import (
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
from domain.jobs import BlobRef, JobOutput, VendorJobIds, VendorRequest, VendorState
from domain.model_rules import Model
from domain.registry import load_registry
from domain.submissions import Finding, Submission
from providers.replicate.vendor import ReplicateVendor
from providers.sandbox.handover import SandboxHandover
from providers.sandbox.lora_marks import bases_of
from providers.sandbox.places import HANDOVER_HOST
from providers.sandbox.replicate_models import played_models
from providers.sandbox.replicate_wire import API, REPLICATE_HOSTS
from providers.sandbox.server import SandboxServer
from providers.sandbox.transport import SandboxTransport
from providers.vendor_ports import LoraUse, StillOrder, TrainingOrder, VideoOrder
from providers.web import open_http
from providers.wiring import SystemClock
from tests.contract.fal_standin import sent
from tests.contract.sandbox_fixtures import clips_zip, png, running_sandbox, training_zip, wait_until
from tests.contract.sandbox_stand_in_engine import write_lora

REGISTRY = load_registry()
OURS = tuple(model for model in REGISTRY.models if model.vendor == "replicate")
VIDEOS = tuple(model for model in OURS if model.video is not None)
OVER = (VendorState.DONE, VendorState.FAILED, VendorState.CANCELLED)


class Shop:
    """Buys through the adapter as the door does: upload, submit, poll, fetch; files are kept by their digest."""

    def __init__(self, folder: Path, http: httpx.Client, token: str) -> None:
        self.folder = folder
        self.http = http
        self.vendor = ReplicateVendor(
            http,
            SecretStr(token),
            REGISTRY,
            handover=SandboxHandover(http),
            destination="sandbox/loras",
            clock=SystemClock(),
            name="sandbox-replicate",
        )

    def keep(self, data: bytes, media_type: str, file_name: str) -> BlobRef:
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / digest).write_bytes(data)
        return BlobRef(sha256=digest, media_type=media_type, file_name=file_name)

    def picture(self) -> BlobRef:
        return self.keep(png(), "image/png", "face.png")

    def submission(self, request: VendorRequest) -> Submission:
        urls = {ref.sha256: self.vendor.upload(self.folder / ref.sha256, ref) for ref in request.blobs()}
        return sent(urls, datetime.now(UTC))

    def submit(self, request: VendorRequest) -> VendorJobIds:
        return self.vendor.submit(request, self.submission(request))

    def outcome(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        wait_until(lambda: self.vendor.status(request, ids).state in OVER)
        return self.vendor.output(request, ids)

    def buy(self, request: VendorRequest) -> JobOutput:
        return self.outcome(request, self.submit(request))

    def fetch(self, output: JobOutput) -> bytes:
        into = io.BytesIO()
        self.vendor.download(output.files[0], into)
        return into.getvalue()

    def training(self, key: str = "replicate_flux_dev_lora") -> VendorRequest:
        rule = REGISTRY.model(key).training
        assert rule is not None
        data = training_zip() if rule.takes == "images" else clips_zip(1)
        ref = self.keep(data, "application/zip", "set.zip")
        order = TrainingOrder(trainer_key=key, zip=ref, trigger_word="MEI_01", steps=600, image_count=5)
        return self.vendor.training_request(order)

    def lora(self, key: str = "replicate_flux_dev_lora") -> LoraUse:
        weights = self.fetch(self.buy(self.training(key)))
        return LoraUse(file=self.keep(weights, "application/octet-stream", "mei.safetensors"), scale=0.8)

    def still(self, key: str = "flux_lora_replicate", **changes: Any) -> VendorRequest:
        order = StillOrder(model_key=key, prompt="MEI_01 on a pier", image_size="landscape_16_9", seed=7)
        return self.vendor.still_request(order.model_copy(update=changes))

    def clip(self, model: Model, **changes: Any) -> VendorRequest:
        rule = model.video
        assert rule is not None
        order = VideoOrder(
            model_key=model.key,
            prompt="MEI_01 runs",
            seconds=rule.duration.default,
            seed=3,
            image=self.picture() if rule.image_field else None,
            references=(self.picture(),) if rule.references else (),
        )
        return self.vendor.video_request(order.model_copy(update=changes))


@contextmanager
def shop_at(server: SandboxServer, folder: Path, token: str = "r8_test") -> Iterator[Shop]:
    way = SandboxTransport(server.url, hosts=REPLICATE_HOSTS | {HANDOVER_HOST})
    with open_http(way, timeout=httpx.Timeout(5, connect=5)) as http:
        yield Shop(folder, http, token)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as server:
        yield server


@pytest.fixture
def shop(server: SandboxServer, tmp_path: Path) -> Iterator[Shop]:
    server.faults.set("")
    with shop_at(server, tmp_path) as shop:
        yield shop
    server.faults.set("")


# --- every model once ---


def test_the_stand_in_knows_every_model_that_the_registry_has_and_in_its_own_version() -> None:
    for model in OURS:
        name, _, version = model.endpoint.partition(":")
        played = played_models()[name]
        assert not version or version == played.version
        assert played.is_official == (not version and model.training is None)
        assert set(model.fixed) <= set(played.inputs)


@pytest.mark.parametrize("key", ["replicate_flux_dev_lora", "replicate_fast_flux", "replicate_qwen_image_lora"])
def test_a_trained_lora_comes_out_of_its_archive_and_draws_a_still(shop: Shop, key: str) -> None:
    still_key = "qwen_image_replicate" if "qwen" in key else "flux_lora_replicate"
    drawn = shop.buy(shop.still(still_key, loras=(shop.lora(key),)))
    assert b'"loras": [0.8]' in shop.fetch(drawn)
    assert drawn.seed == 7


@pytest.mark.parametrize("key", [model.key for model in OURS if "wan_21" in model.key and model.training is not None])
def test_a_lora_trained_on_clips_is_of_the_base_that_was_asked_for(shop: Shop, key: str, tmp_path: Path) -> None:
    weights = shop.fetch(shop.buy(shop.training(key)))
    (tmp_path / "lora").write_bytes(weights)
    assert REGISTRY.model(key).base_model in bases_of(tmp_path / "lora")


@pytest.mark.parametrize("model", VIDEOS, ids=lambda model: model.key)
def test_each_video_model_makes_a_clip(shop: Shop, model: Model) -> None:
    assert shop.fetch(shop.buy(shop.clip(model)))


def test_wans_two_experts_each_get_their_file_and_a_file_of_another_base_fails(shop: Shop, tmp_path: Path) -> None:
    files = {}
    for expert, base in (("low", "wan-22-t2v-a14b"), ("high", "wan-22-t2v-a14b"), ("flux", "flux-1-dev")):
        write_lora(tmp_path / expert, base, expert)
        files[expert] = shop.keep((tmp_path / expert).read_bytes(), "application/octet-stream", f"{expert}.safetensors")
    model = REGISTRY.model("wan_22_t2v_lora_replicate")
    both = LoraUse(file=files["low"], scale=0.8, high_noise=files["high"])
    assert shop.fetch(shop.buy(shop.clip(model, loras=(both,)))).count(b"0.8") == 2
    with pytest.raises(JobFailed, match="does not fit this model"):
        shop.buy(shop.clip(model, loras=(LoraUse(file=files["flux"], scale=0.8),)))


def test_a_rehearsals_training_is_billed_as_the_real_one_would_be(shop: Shop) -> None:
    assert str(shop.buy(shop.training()).billed_usd) == "1.3725"  # (300 + 600 × 1.0) s at 5.49 USD an hour


def test_a_lora_at_replicates_own_file_store_is_refused_as_its_loaders_refuse_it(shop: Shop) -> None:
    file = shop.keep(png(), "image/png", "face.png")
    address = shop.vendor.upload(shop.folder / file.sha256, file)
    assert address.startswith(f"{API}/files/")
    request = shop.still()
    for lora in (address, "https://store.example/lora?name=x.safetensors", "https://civitai.com/models/5?v=7"):
        wrong = request.model_copy(update={"arguments": {**request.arguments, "lora_weights": lora}})
        with pytest.raises(JobFailed, match="not an address that is supported"):
            shop.buy(wrong)


# --- faults ---


@pytest.mark.parametrize(
    ("fault", "error", "jobs"),
    [
        ("submit:refuse=404", Rejected, 0),
        ("submit:rate_limit_body=17", RateLimited, 0),
        ("submit:drop_before_accept", SubmissionUnknown, 0),
        ("submit:drop_after_accept", SubmissionUnknown, 1),
        ("submit:malformed", SubmissionUnknown, 1),
    ],
)
def test_a_faulty_submit_is_one_post_and_tells_what_became_of_the_job(
    shop: Shop, server: SandboxServer, fault: str, error: type[OnModelError], jobs: int
) -> None:
    request = shop.still(prompt=fault)
    submission = shop.submission(request)
    server.faults.set(fault)
    with pytest.raises(error) as caught:
        shop.vendor.submit(request, submission)
    assert type(caught.value) is error
    found = shop.vendor.look_up(request, submission, frozenset())
    assert (found.finding is Finding.FOUND) == bool(jobs)
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after_seconds == 17


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("job:fail=422/content_policy_violation", PromptRefused),
        ("job:nsfw", PromptRefused),
        ("job:fail=422", JobFailed),
        ("result:vanish", ResultExpired),
    ],
)
def test_a_job_that_ends_badly_says_how(
    shop: Shop, server: SandboxServer, fault: str, error: type[OnModelError]
) -> None:
    server.faults.set(fault)
    with pytest.raises(error) as caught:
        shop.buy(shop.still())
    assert type(caught.value) is error


def test_an_unknown_word_is_told_and_a_stopped_job_is_cancelled(shop: Shop, server: SandboxServer) -> None:
    server.faults.set("job:never_ends,status:unknown_word=PONDERING#1")
    request = shop.still()
    ids = shop.submit(request)
    assert shop.vendor.status(request, ids).state is VendorState.UNKNOWN_WORD
    shop.vendor.cancel(request, ids)
    assert shop.vendor.status(request, ids).state is VendorState.CANCELLED
    with pytest.raises(JobFailed):
        shop.vendor.output(request, ids)
    shop.vendor.cancel(request, ids)


def test_a_training_under_way_tells_its_step_and_loss(shop: Shop, server: SandboxServer) -> None:
    server.faults.set("job:slow=0.4")
    request = shop.training()
    ids = shop.submit(request)
    looks = []

    def has_told() -> bool:
        looks.append(shop.vendor.status(request, ids))
        return looks[-1].training is not None or looks[-1].state in OVER

    wait_until(has_told)
    told = looks[-1].training
    assert told is not None
    # How far it has come when we look is chance; the stand-in's loss is one over the step.
    assert told.step is not None
    assert 0 < told.step <= 600
    assert told.total_steps == 600
    assert told.loss == pytest.approx(1 / told.step, rel=0.01)


@pytest.mark.parametrize(("fault", "error"), [("job:truncate", Unavailable), ("job:expire", ResultExpired)])
def test_a_file_that_breaks_or_is_gone_says_so(
    shop: Shop, server: SandboxServer, fault: str, error: type[OnModelError]
) -> None:
    server.faults.set(fault)
    output = shop.buy(shop.training())
    with pytest.raises(error):
        shop.fetch(output)


def test_inputs_that_the_model_does_not_know_are_refused_naming_them(shop: Shop) -> None:
    request = shop.still()
    unknown: tuple[dict[str, Any], ...] = (
        {"loras": []},
        {"aspect_ratio": "2:1"},
        {"num_outputs": True},
        {"guidance": 11},
    )
    for more in unknown:
        wrong = request.model_copy(update={"arguments": {**request.arguments, **more}})
        with pytest.raises(Rejected, match=next(iter(more))):
            shop.submit(wrong)


@pytest.mark.parametrize(("token", "error"), [("invalid", NotConfigured), ("locked", OutOfCredit)])
def test_a_token_is_judged(server: SandboxServer, tmp_path: Path, token: str, error: type[OnModelError]) -> None:
    with shop_at(server, tmp_path, token) as shop:
        with pytest.raises(error):
            shop.submit(shop.still())
        assert shop.vendor.ping().is_ready == (token == "locked")


def test_an_account_with_little_credit_makes_one_job_in_ten_seconds(server: SandboxServer, tmp_path: Path) -> None:
    with shop_at(server, tmp_path, "poor") as shop:
        shop.submit(shop.still())
        with pytest.raises(RateLimited) as caught:
            shop.submit(shop.still())
    assert caught.value.retry_after_seconds == pytest.approx(10, abs=1)


# --- the stand-in's other addresses ---


def ask(shop: Shop, method: str, path: str, **more: Any) -> Any:
    answer = shop.http.request(method, f"{API}{path}", headers={"Authorization": "Bearer r8_test"}, **more)
    return answer.json() if answer.content else answer.status_code


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.key)
def test_what_the_registry_writes_is_what_the_models_live_schema_takes(shop: Shop, model: Model) -> None:
    if model.training is not None:
        request = shop.training(model.key)
    else:
        request = shop.still(model.key) if model.still is not None else shop.clip(model)
    shop.vendor.check_schema(model, request)
    with pytest.raises(Rejected, match="has no field 'such'"):
        shop.vendor.check_schema(model, request.model_copy(update={"arguments": {**request.arguments, "such": 1}}))


@pytest.mark.parametrize(
    ("fault", "says"), [("schema:rename=steps", "has no field 'steps'"), ("schema:vanish", "no longer has")]
)
def test_a_trainer_that_changed_or_vanished_is_noticed_before_it_is_paid(
    shop: Shop, server: SandboxServer, fault: str, says: str
) -> None:
    request = shop.training()
    submission = shop.submission(request)
    server.faults.set(fault)
    with pytest.raises(Rejected, match=says):
        shop.vendor.submit(request, submission)
    server.faults.set("")
    assert shop.vendor.look_up(request, submission, frozenset()).finding is Finding.ABSENT


def test_a_failed_training_tells_what_its_machine_cost(shop: Shop, server: SandboxServer) -> None:
    server.faults.set("job:fail=500,job:charge=1.5")
    with pytest.raises(JobFailed) as caught:
        shop.buy(shop.training())
    assert caught.value.billed_usd == pytest.approx(Decimal("1.5"), abs=Decimal("0.001"))


def test_a_models_schema_can_be_read_before_anything_is_bought(shop: Shop) -> None:
    version = ask(shop, "GET", "/models/black-forest-labs/flux-dev-lora")["latest_version"]
    properties = version["openapi_schema"]["components"]["schemas"]["Input"]["properties"]
    assert properties["lora_scale"]["maximum"] == 3
    assert ask(shop, "GET", "/models/nobody/nothing")["status"] == 404


def test_lists_go_on_over_pages_newest_first_and_hide_what_they_are_told_to(shop: Shop, server: SandboxServer) -> None:
    request = shop.still(prompt="over pages")
    submission = shop.submission(request)
    ids = shop.vendor.submit(request, submission)
    part = next(part for part in server._parts if "replicate.delivery" in part.hosts)
    for _ in range(2):
        shop.submit(shop.still())
    part._page_size = 1  # type: ignore[attr-defined]
    try:
        assert shop.vendor.look_up(request, submission, frozenset()).ids == VendorJobIds(request_id=ids.request_id)
    finally:
        part._page_size = 100  # type: ignore[attr-defined]
    server.faults.set("list:no_input")
    assert shop.vendor.look_up(request, submission, frozenset()).finding is Finding.FOUND
    server.faults.set("list:hide")
    assert shop.vendor.look_up(request, submission, frozenset()).finding is Finding.ABSENT


def test_bytes_of_every_value_survive_an_upload_and_a_file_can_be_deleted(shop: Shop) -> None:
    data = bytes(range(256)) * 3 + b"\r\n--\r\n"
    facts = ask(shop, "POST", "/files", files={"content": ("x.bin", data, "application/octet-stream")})
    assert facts["checksums"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert ask(shop, "GET", f"/files/{facts['id']}")["size"] == len(data)
    assert ask(shop, "DELETE", f"/files/{facts['id']}") == 204
    assert ask(shop, "GET", f"/files/{facts['id']}")["status"] == 404
    assert ask(shop, "GET", "/webhooks/default/secret")["key"].startswith("whsec_")


def test_a_deadline_that_cannot_be_read_or_is_too_short_is_refused(shop: Shop) -> None:
    for deadline in ("4", "1 hour", ""):
        headers = {"Authorization": "Bearer r8_test", "Cancel-After": deadline}
        where = f"{API}/models/black-forest-labs/flux-dev-lora/predictions"
        answer = shop.http.post(where, json={"input": {"prompt": "x"}}, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_jobs_and_made_models_outlive_their_server(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "home", faults="job:stay_queued") as server, shop_at(server, tmp_path) as shop:
        request = shop.training()
        submission = shop.submission(request)
        ids = shop.vendor.submit(request, submission)
        assert shop.vendor.status(request, ids).state is VendorState.QUEUED
    with running_sandbox(tmp_path / "home") as server, shop_at(server, tmp_path) as shop:
        assert shop.vendor.look_up(request, submission, frozenset()).ids == VendorJobIds(request_id=ids.request_id)
        assert ask(shop, "GET", "/models/sandbox/loras")["visibility"] == "private"
        shop.vendor.cancel(request, ids)
        assert shop.vendor.status(request, ids).state is VendorState.CANCELLED
