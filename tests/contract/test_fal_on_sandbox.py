"""The unchanged fal adapter against the sandbox: every model is bought once, every fault becomes the right error."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from domain.errors import (
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
from domain.jobs import BlobRef, JobOutput, VendorJobIds, VendorRequest, VendorState
from domain.registry import load_registry
from providers.fal.vendor import FalVendor
from providers.sandbox.server import SandboxServer
from providers.sandbox.transport import SandboxTransport
from providers.vendor_ports import CaptionOrder, Element, LoraUse, StillOrder, TrainingOrder, VideoOrder
from providers.web import open_http
from tests.contract.fal_standin import sent
from tests.contract.sandbox_fixtures import clips_zip, png, running_sandbox, training_zip, wait_until
from tests.contract.sandbox_stand_in_engine import write_lora
from tests.fal_orders import MODELS, plainest_order

REGISTRY = load_registry()
IMAGE_TO_VIDEO = ("kling_v21", "kling_v25_turbo", "hailuo_23", "wan_25_i2v", "veo_31")


class Shop:
    """Buys through the adapter as the door does: upload, submit, poll, fetch; files are kept by their digest."""

    def __init__(self, folder: Path, vendor: FalVendor) -> None:
        self.folder = folder
        self.vendor = vendor
        self.urls: dict[str, str] = {}

    def keep(self, data: bytes, media_type: str, file_name: str) -> BlobRef:
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / digest).write_bytes(data)
        return BlobRef(sha256=digest, media_type=media_type, file_name=file_name)

    def picture(self, side: int = 320) -> BlobRef:
        return self.keep(png(side, side), "image/png", f"{side}.png")

    def submit(self, request: VendorRequest) -> VendorJobIds:
        for ref in request.blobs():
            if ref.sha256 not in self.urls:
                self.urls[ref.sha256] = self.vendor.upload(self.folder / ref.sha256, ref)
        return self.vendor.submit(request, sent(self.urls))

    def outcome(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        wait_until(lambda: self.vendor.status(request, ids).state is VendorState.DONE)
        return self.vendor.output(request, ids)

    def buy(self, request: VendorRequest) -> JobOutput:
        return self.outcome(request, self.submit(request))

    def fetch(self, output: JobOutput, role: str) -> bytes:
        into = io.BytesIO()
        self.vendor.download(next(file for file in output.files if file.role == role), into)
        return into.getvalue()

    def lora(self, trainer_key: str) -> LoraUse:
        output = self.buy(self.vendor.training_request(self.training(trainer_key)))
        ref = self.keep(self.fetch(output, "lora"), "application/octet-stream", "lora.safetensors")
        return LoraUse(file=ref, scale=0.8)

    def bought_elsewhere(self, base: str) -> LoraUse:
        """A LoRA of a base that fal loads and does not train."""
        path = self.folder / "elsewhere.safetensors"
        write_lora(path, base)
        return LoraUse(file=self.keep(path.read_bytes(), "application/octet-stream", "lora.safetensors"), scale=0.8)

    def training(self, trainer_key: str = "fal_flux_lora_fast", images: int = 5) -> TrainingOrder:
        ref = self.keep(training_zip(images), "application/zip", "set.zip")
        return TrainingOrder(trainer_key=trainer_key, zip=ref, trigger_word="MEIKOB_01", steps=100, image_count=5)


@contextmanager
def shop_at(server: SandboxServer, folder: Path, key: str = "test") -> Iterator[Shop]:
    patience = httpx.Timeout(5, connect=5)
    with open_http(SandboxTransport(server.url), timeout=patience) as http:
        yield Shop(folder, FalVendor(http, SecretStr(key), REGISTRY, name="sandbox"))


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


def still(**changes: object) -> StillOrder:
    order = StillOrder(model_key="flux_lora", prompt="MEIKOB_01 on a pier", image_size="square_hd", seed=7)
    return order.model_copy(update=changes)


def accepted(server: SandboxServer) -> int:
    return len(httpx.get(f"{server.url}/_sandbox/jobs", trust_env=False).json())


# --- every model once ---


def test_what_fal_trains_every_model_of_its_base_loads_and_all_others_make_what_they_are_for(shop: Shop) -> None:
    """All trainers, then all that load their files, and all that draw, film or describe without one."""
    sets = {
        "images": shop.keep(training_zip(4), "application/zip", "set.zip"),
        "videos": shop.keep(clips_zip(4), "application/zip", "clips.zip"),
    }
    picture = shop.picture()
    loras = {base: shop.bought_elsewhere(base) for base in ("flux-2-klein-4b", "wan-21-t2v-14b")}
    no_lora = LoraUse(file=picture, scale=1)  # where it is not loaded, it is not sent
    for batch in (
        [model for model in MODELS if model.training],
        [model for model in MODELS if not model.training],
    ):
        bought = []
        for model in batch:
            takes = model.training.takes if model.training else "images"
            lora = loras.get(model.base_model, no_lora)
            request = plainest_order(shop.vendor, model, archive=sets[takes], picture=picture, lora=lora)
            bought.append((model, request, shop.submit(request)))
        for model, request, ids in bought:
            output = shop.outcome(request, ids)
            roles = {file.role for file in output.files}
            if model.training is None:
                assert output.text or roles == {"image" if model.still else "video"}, model.key
                continue
            assert roles == {*model.training.weights.values(), "config"}, model.key
            files = {
                role: shop.keep(shop.fetch(output, role), "application/octet-stream", f"{role}.safetensors")
                for role in roles - {"config"}
            }
            assert len({ref.sha256 for ref in files.values()}) == len(files)
            made = LoraUse(file=files["lora"], high_noise=files.get("lora_high_noise"), scale=0.8)
            if model.base_model not in loras or made.high_noise:
                loras[model.base_model] = made
    assert loras["wan-22-t2v-a14b"].high_noise


def test_the_live_schema_of_every_model_has_the_fields_that_the_registry_fixes(shop: Shop) -> None:
    for model in MODELS:
        live = shop.vendor.live_schema(model)
        assert set(model.fixed) <= live.fields, model.key
        assert live.required <= live.fields, model.key


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("schema:rename=steps@*flux-lora-fast*", "it has no field 'steps'"),
        ("schema:rename=images_data_url@*flux-lora-fast*", "has no field .* and also wants 'new_images_data_url'"),
        ("schema:vanish@*flux-lora-fast*", "fal no longer has fal-ai/flux-lora-fast-training"),
    ],
)
def test_a_trainer_that_changed_or_vanished_is_refused_before_anything_is_sent(
    server: SandboxServer, shop: Shop, fault: str, reason: str
) -> None:
    server.faults.set(fault)
    before = accepted(server)
    request = shop.vendor.training_request(shop.training())
    with pytest.raises(Rejected, match=reason):
        shop.submit(request)
    assert accepted(server) == before


@pytest.mark.parametrize("kind", ["vanish", "unavailable", "malformed", "drop", "refuse=403"])
def test_a_schema_page_that_tells_nothing_only_warns(
    server: SandboxServer, shop: Shop, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.set(f"schema:{kind}")
    assert shop.submit(shop.vendor.training_request(shop.training()))
    assert "ordered without a look at what it takes today" in caplog.text


def test_a_trained_flux_lora_comes_back_as_a_file_and_draws_a_still(shop: Shop) -> None:
    lora = shop.lora("fal_flux_lora_fast")
    output = shop.buy(shop.vendor.still_request(still(loras=(lora,))))
    assert b'"loras": [0.8]' in shop.fetch(output, "image")
    assert output.seed == 7


def test_a_trained_wan_lora_films_from_text(shop: Shop) -> None:
    lora = shop.lora("fal_wan_22_t2v_a14b")
    order = VideoOrder(model_key="wan_22_t2v_lora", prompt="MEIKOB_01 runs", seconds=5, loras=(lora,))
    output = shop.buy(shop.vendor.video_request(order))
    assert shop.fetch(output, "video")


@pytest.mark.parametrize("key", IMAGE_TO_VIDEO)
def test_each_of_the_owners_video_models_films_a_picture(shop: Shop, key: str) -> None:
    rule = REGISTRY.model(key).video
    assert rule is not None
    order = VideoOrder(model_key=key, prompt="she runs", seconds=rule.duration.default, image=shop.picture(), seed=3)
    assert shop.fetch(shop.buy(shop.vendor.video_request(order)), "video")


def test_kling_films_elements_and_images(shop: Shop) -> None:
    elements = (Element(frontal=shop.picture(), references=(shop.picture(330), shop.picture(340))),)
    prompt = "@Element1 before @Image1"
    images = (shop.picture(350),)
    order = VideoOrder(model_key="kling_o1_reference", prompt=prompt, seconds=3, elements=elements, images=images)
    assert shop.fetch(shop.buy(shop.vendor.video_request(order)), "video")


def describing(picture: BlobRef) -> CaptionOrder:
    return CaptionOrder(model_key="moondream_3_caption", picture=picture)


def test_a_picture_is_described_in_words_and_by_no_file(shop: Shop) -> None:
    picture = shop.picture()
    output = shop.buy(shop.vendor.caption_request(describing(picture)))
    size = (shop.folder / picture.sha256).stat().st_size
    assert (output.text, output.files) == (f"a normal word on {size} bytes", ())


@pytest.mark.parametrize("fault", ["job:fail=422", "job:fail=500", "job:no_file"])
def test_a_description_that_fails_or_has_no_words_is_a_failed_job(
    shop: Shop, server: SandboxServer, fault: str
) -> None:
    server.faults.set(fault)
    with pytest.raises(JobFailed):
        shop.buy(shop.vendor.caption_request(describing(shop.picture())))


def test_what_is_no_picture_is_not_described(shop: Shop) -> None:
    ref = shop.keep(b"no picture", "image/png", "x.png")
    with pytest.raises(JobFailed, match="Failed to load the image"):
        shop.buy(shop.vendor.caption_request(describing(ref)))


def test_a_cancelled_job_ends_as_a_failed_one_and_cancelling_again_is_fine(shop: Shop, server: SandboxServer) -> None:
    server.faults.set("job:never_ends")
    request = shop.vendor.still_request(still())
    ids = shop.submit(request)
    shop.vendor.cancel(request, ids)
    server.faults.set("")
    with pytest.raises(JobFailed):
        shop.outcome(request, ids)
    shop.vendor.cancel(request, ids)


def test_a_job_nobody_knows_is_gone(shop: Shop) -> None:
    request, ids = shop.vendor.still_request(still()), VendorJobIds(request_id="nobody")
    assert shop.vendor.status(request, ids).state is VendorState.GONE
    with pytest.raises(ResultExpired):
        shop.vendor.output(request, ids)
    shop.vendor.cancel(request, ids)


# --- faults ---


@pytest.mark.parametrize(
    ("fault", "error", "jobs"),
    [
        ("submit:refuse=422", Rejected, 0),
        ("submit:refuse=422/content_policy_violation", PromptRefused, 0),
        ("submit:lock", OutOfCredit, 0),
        ("submit:rate_limit=17", RateLimited, 0),
        ("submit:unavailable=502", SubmissionUnknown, 0),
        ("submit:unavailable=503", SubmissionUnknown, 0),
        ("submit:drop_before_accept", SubmissionUnknown, 0),
        ("submit:drop_after_accept", SubmissionUnknown, 1),
        ("submit:stall=0.2", SubmissionUnknown, 0),
        ("submit:stall_after_accept=0.2", SubmissionUnknown, 1),
        ("submit:malformed", SubmissionUnknown, 1),
    ],
)
def test_a_faulty_submit_is_one_post_and_tells_what_became_of_the_job(
    shop: Shop, server: SandboxServer, fault: str, error: type[OnModelError], jobs: int
) -> None:
    server.faults.set(fault)
    before = accepted(server)
    with pytest.raises(error) as caught:
        shop.vendor.submit(shop.vendor.still_request(still()), sent())
    assert type(caught.value) is error
    assert accepted(server) - before == jobs
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after_seconds == 17


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("job:fail=422/content_policy_violation", PromptRefused),
        ("job:fail=422", JobFailed),
        ("job:fail=500", JobFailed),
        ("job:fail=503", JobFailed),
        ("job:no_file", JobFailed),
        ("job:nsfw", PromptRefused),
        ("result:unavailable=502", Unavailable),
        ("result:malformed", Unavailable),
        ("result:drop", Unavailable),
        ("result:vanish", ResultExpired),
    ],
)
def test_a_job_that_ends_badly_says_how(
    shop: Shop, server: SandboxServer, fault: str, error: type[OnModelError]
) -> None:
    server.faults.set(fault)
    with pytest.raises(error) as caught:
        shop.buy(shop.vendor.still_request(still()))
    assert type(caught.value) is error


def test_a_training_set_that_fal_refuses_is_told_from_a_failed_training(shop: Shop) -> None:
    with pytest.raises(BadTrainingSet, match="images_data_url"):
        shop.buy(shop.vendor.training_request(shop.training(images=2)))


def test_a_lora_of_another_base_fails_the_job(shop: Shop) -> None:
    lora = shop.lora("fal_wan_22_t2v_a14b")
    with pytest.raises(JobFailed):
        shop.buy(shop.vendor.still_request(still(loras=(lora,))))


@pytest.mark.parametrize("fault", ["status:unavailable=503", "status:malformed", "status:drop"])
def test_a_look_that_fails_can_be_repeated(shop: Shop, server: SandboxServer, fault: str) -> None:
    request = shop.vendor.still_request(still())
    ids = shop.submit(request)
    server.faults.set(f"{fault}#1")
    with pytest.raises(Unavailable):
        shop.vendor.status(request, ids)
    assert shop.outcome(request, ids).files


def test_a_word_that_fal_never_used_is_said_to_be_unknown(shop: Shop, server: SandboxServer) -> None:
    request = shop.vendor.still_request(still())
    ids = shop.submit(request)
    server.faults.set("status:unknown_word=PAUSED")
    status = shop.vendor.status(request, ids)
    assert (status.state, status.message) == (VendorState.UNKNOWN_WORD, "fal says 'PAUSED'")


def test_a_file_that_breaks_off_once_is_carried_on_and_one_that_always_does_is_not_taken(
    shop: Shop, server: SandboxServer
) -> None:
    output = shop.buy(shop.vendor.still_request(still()))
    whole = shop.fetch(output, "image")
    server.faults.set("file:truncate#1")
    assert shop.fetch(output, "image") == whole
    server.faults.set("file:drop")
    with pytest.raises(Unavailable):
        shop.fetch(output, "image")
    server.faults.set("file:expire")
    with pytest.raises(ResultExpired):
        shop.fetch(output, "image")


def test_an_upload_that_is_turned_away_once_finds_the_second_store(shop: Shop, server: SandboxServer) -> None:
    server.faults.set("upload:refuse=500#2")  # the first is the token
    ref = shop.picture()
    url = shop.vendor.upload(shop.folder / ref.sha256, ref)
    assert url.startswith("https://")


@pytest.mark.parametrize(("key", "error"), [("invalid-key", NotConfigured), ("locked-account", OutOfCredit)])
def test_a_key_without_access_is_told_before_anything_is_bought(
    server: SandboxServer, tmp_path: Path, key: str, error: type[OnModelError]
) -> None:
    with shop_at(server, tmp_path, key) as shop:
        assert not shop.vendor.ping().is_ready
        with pytest.raises(error):
            shop.vendor.submit(shop.vendor.still_request(still()), sent())
        ref = shop.picture()
        with pytest.raises(error):
            shop.vendor.upload(shop.folder / ref.sha256, ref)


def test_a_good_key_is_told_too(shop: Shop) -> None:
    assert shop.vendor.ping().is_ready
