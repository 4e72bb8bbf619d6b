"""Stills at RunPod serverless, through the `runpod` package, against the sandbox that plays it and our worker."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
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
    ResultExpired,
    SubmissionUnknown,
    Unavailable,
)
from domain.jobs import BlobRef, VendorJobIds, VendorRequest, VendorState
from domain.registry import load_registry
from domain.submissions import Finding, Submission
from providers.runpod.joined import RunPod
from providers.runpod.package import RunPodPackage
from providers.runpod.serverless import ServerlessVendor
from providers.runpod.vendor import RunPodVendor
from providers.sandbox.handover import SandboxHandover
from providers.sandbox.places import RENTED_HOSTS
from providers.sandbox.server import SandboxServer
from providers.sandbox.serverless_worker import WorkerRefused, check_input
from providers.sandbox.transport import SandboxTransport
from providers.vendor_ports import LoraUse, StillOrder, TrainingOrder
from providers.wiring import SystemClock
from tests.contract.sandbox_fixtures import running_sandbox, wait_until
from tests.contract.sandbox_stand_in_engine import write_lora

KEY = "rpa_not-a-real-key-0123456789"
SENT_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DRAWN = StillOrder(model_key="runpod_sdxl_lora", prompt="MEIKOB_01 on a pier", image_size="square", seed=7)
GOOD = {"prompt": "a pier", "width": 64, "height": 64, "seed": 1, "box": "b", "loras": None}
LINKS = {"put_url": "https://store/x", "status_url": "https://store/y"}


@dataclass
class Stand:
    """One sandbox, and ways to it."""

    server: SandboxServer
    handover: SandboxHandover
    http: httpx.Client
    impatient: httpx.Client
    serial: int = 0

    def vendor(self, key: str = KEY, *, is_patient: bool = True, base_url: str | None = None) -> ServerlessVendor:
        """An adapter over plain http, as the package repeats requests nowhere else."""
        return ServerlessVendor(
            SecretStr(key),
            load_registry(),
            endpoint_id="abc123",
            handover=self.handover,
            http=self.http if is_patient else self.impatient,
            base_url=base_url or f"{self.server.url}/_as/api.runpod.ai/v2",
        )

    def submission(self, request: VendorRequest, url_of: dict[str, str] | None = None) -> Submission:
        self.serial += 1
        key = hashlib.sha256(f"{self.serial}{request.arguments}".encode()).hexdigest()[:40]
        return Submission(installation="0badcafe", job_key=key, number=1, sent_at=SENT_AT, url_of=url_of or {})

    def posts(self) -> int:
        return sum(part.posts().get("serverless", 0) for part in self.server._parts)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with (
        running_sandbox(tmp_path_factory.mktemp("serverless")) as server,
        httpx.Client(transport=SandboxTransport(server.url, hosts=RENTED_HOSTS)) as boxes,
        httpx.Client(timeout=20, trust_env=False) as http,
        httpx.Client(timeout=httpx.Timeout(5, read=0.15), trust_env=False) as impatient,
    ):
        yield Stand(server, SandboxHandover(boxes), http, impatient)


@pytest.fixture
def stand(one: Stand) -> Iterator[Stand]:
    """The one sandbox, without faults before and after."""
    one.server.faults.set("")
    yield one
    one.server.faults.set("")


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BlobRef]:
    path = tmp_path_factory.mktemp("lora") / "bytes"
    write_lora(path, "sdxl")
    ref = BlobRef(
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        media_type="application/octet-stream",
        file_name="MEIKOB_01-v1.safetensors",
    )
    return path, ref


def over(vendor: ServerlessVendor, request: VendorRequest, ids: VendorJobIds) -> VendorState:
    """The state the job ends in."""
    final = (VendorState.DONE, VendorState.FAILED, VendorState.CANCELLED, VendorState.GONE)
    wait_until(lambda: vendor.status(request, ids).state in final)
    return vendor.status(request, ids).state


def is_running(vendor: ServerlessVendor, request: VendorRequest, ids: VendorJobIds) -> bool:
    return vendor.status(request, ids).state is VendorState.RUNNING


def picture_of(vendor: ServerlessVendor, request: VendorRequest, ids: VendorJobIds) -> bytes:
    assert over(vendor, request, ids) is VendorState.DONE
    into = io.BytesIO()
    vendor.download(vendor.output(request, ids).files[0], into)
    return into.getvalue()


def test_a_still_is_drawn_with_its_lora_and_fetched_from_our_own_store(
    stand: Stand, lora: tuple[Path, BlobRef]
) -> None:
    vendor, (path, ref) = stand.vendor(), lora
    with_lora = vendor.still_request(DRAWN.model_copy(update={"loras": (LoraUse(file=ref, scale=0.9),)}))
    url_of = {ref.sha256: vendor.upload(path, ref)}
    posts = stand.posts()
    ids = vendor.submit(with_lora, stand.submission(with_lora, url_of))
    drawn = json.loads(picture_of(vendor, with_lora, ids))
    assert (drawn["size"], drawn["seed"], drawn["loras"]) == ([512, 512], 7, [0.9])
    assert vendor.output(with_lora, ids).seed == 7
    plain = vendor.still_request(DRAWN)
    assert json.loads(picture_of(vendor, plain, vendor.submit(plain, stand.submission(plain))))["loras"] == []
    assert stand.posts() == posts + 2


def test_a_lora_with_other_bytes_than_ordered_fails_the_job_in_the_workers_words(
    stand: Stand, lora: tuple[Path, BlobRef], tmp_path: Path
) -> None:
    vendor, (_, ref) = stand.vendor(), lora
    other = tmp_path / "other"
    write_lora(other, "sd-15")
    swapped = ref.model_copy(update={"sha256": "5" * 64})
    request = vendor.still_request(DRAWN.model_copy(update={"loras": (LoraUse(file=swapped, scale=1),)}))
    ids = vendor.submit(request, stand.submission(request, {swapped.sha256: vendor.upload(other, swapped)}))
    assert over(vendor, request, ids) is VendorState.FAILED
    assert "SHA-256" in (vendor.status(request, ids).message or "")
    with pytest.raises(JobFailed, match="SHA-256"):
        vendor.output(request, ids)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("submit:rate_limit=7", RateLimited),
        ("submit:rate_limit_body=7", RateLimited),
        ("submit:lock", OutOfCredit),
        ("submit:refuse=400", Rejected),
        ("submit:refuse=404", NotConfigured),
        ("submit:refuse=408", SubmissionUnknown),
        ("submit:refuse=307", SubmissionUnknown),
        ("submit:unavailable=500", SubmissionUnknown),
        ("submit:unavailable=502", SubmissionUnknown),
        ("submit:drop_before_accept", SubmissionUnknown),
        ("submit:drop_after_accept", SubmissionUnknown),
        ("submit:malformed", SubmissionUnknown),
        ("submit:stall=0.4", SubmissionUnknown),
    ],
)
def test_whatever_answers_a_submit_it_was_one_post(stand: Stand, fault: str, expected: type[OnModelError]) -> None:
    vendor = stand.vendor(is_patient=False)
    request, posts = vendor.still_request(DRAWN), stand.posts()
    stand.server.faults.set(fault)
    with pytest.raises(expected) as caught:
        vendor.submit(request, stand.submission(request))
    assert type(caught.value) is expected
    assert stand.posts() == posts + 1
    assert KEY not in str(caught.value)
    assert "signature" not in str(caught.value)
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after_seconds == 7


def test_a_submit_that_could_not_leave_is_sent_later(stand: Stand) -> None:
    vendor = stand.vendor(base_url="http://127.0.0.1:9/v2")
    request = vendor.still_request(DRAWN)
    with pytest.raises(Unavailable, match="not sent"):
        vendor.submit(request, stand.submission(request))


def test_a_package_that_makes_no_request_or_a_second_one_has_bought_nothing_more(stand: Stand) -> None:
    url = f"{stand.server.url}/_as/api.runpod.ai/v2"
    package = RunPodPackage(stand.http, KEY, "abc123", url)
    posts = stand.posts()
    with pytest.raises(NotConfigured, match="no request"):
        package.ask(lambda endpoint: endpoint.nothing_of_the_sort())
    assert stand.posts() == posts
    answer = package.ask(lambda endpoint: (endpoint.run({"prompt": "x"}), endpoint.run({"prompt": "x"})))
    assert answer.status_code == 200
    assert stand.posts() == posts + 1


@pytest.mark.parametrize(("key", "expected"), [("invalid-key", NotConfigured), ("locked-key", OutOfCredit)])
def test_a_key_without_right_or_money_buys_nothing(stand: Stand, key: str, expected: type[OnModelError]) -> None:
    vendor = stand.vendor(key)
    request = vendor.still_request(DRAWN)
    with pytest.raises(expected):
        vendor.submit(request, stand.submission(request))
    assert vendor.ping().is_ready is (key == "locked-key")


def test_a_lost_job_is_found_by_what_its_worker_left_and_never_proved_absent(stand: Stand) -> None:
    vendor = stand.vendor()
    request = vendor.still_request(DRAWN)
    submission = stand.submission(request)
    assert not vendor.absence.can_prove
    assert vendor.look_up(request, submission, frozenset()).finding is Finding.UNCLEAR
    stand.server.faults.set("submit:drop_after_accept")
    with pytest.raises(SubmissionUnknown):
        vendor.submit(request, submission)
    stand.server.faults.set("")
    wait_until(lambda: vendor.look_up(request, submission, frozenset()).finding is Finding.FOUND)
    ids = vendor.look_up(request, submission, frozenset()).ids
    assert ids is not None
    assert json.loads(picture_of(vendor, request, ids))["seed"] == 7
    assert vendor.look_up(request, submission, frozenset({ids.request_id})).finding is Finding.UNCLEAR


def test_what_runpod_forgot_is_still_told_by_the_box(stand: Stand) -> None:
    vendor = stand.vendor()
    request = vendor.still_request(DRAWN)
    ids = vendor.submit(request, stand.submission(request))
    assert over(vendor, request, ids) is VendorState.DONE
    stand.server.faults.set("status:vanish")
    assert json.loads(picture_of(vendor, request, ids))["seed"] == 7
    nowhere = VendorJobIds(request_id=ids.request_id)
    assert vendor.status(request, nowhere).state is VendorState.GONE
    with pytest.raises(ResultExpired):
        vendor.output(request, nowhere)


def test_a_job_adopted_by_its_id_alone_finds_its_box_in_the_answer(stand: Stand) -> None:
    vendor = stand.vendor()
    request = vendor.still_request(DRAWN)
    ids = vendor.submit(request, stand.submission(request))
    assert json.loads(picture_of(vendor, request, VendorJobIds(request_id=ids.request_id)))["seed"] == 7


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PAUSED", VendorState.UNKNOWN_WORD),
        ("RUNNING", VendorState.RUNNING),
        ("FAILED", VendorState.FAILED),
        ("TIMED_OUT", VendorState.FAILED),
        ("CANCELLED", VendorState.CANCELLED),
    ],
)
def test_an_unknown_word_is_no_end_and_every_known_one_has_its_state(
    stand: Stand, word: str, state: VendorState
) -> None:
    vendor = stand.vendor()
    request = vendor.still_request(DRAWN)
    stand.server.faults.set(f"status:unknown_word={word},job:never_ends")
    ids = vendor.submit(request, stand.submission(request))
    assert vendor.status(request, ids).state is state
    is_over = state in (VendorState.FAILED, VendorState.CANCELLED)
    with pytest.raises(JobFailed if is_over else Unavailable):
        vendor.output(request, ids)


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        ("job:fail=500", JobFailed, "on purpose"),
        ("job:no_file", JobFailed, "names no picture"),
        ("job:truncate", Unavailable, "SHA-256"),
        ("job:expire", ResultExpired, "not in the handover"),
    ],
)
def test_a_job_without_its_whole_picture_is_none(
    stand: Stand, fault: str, expected: type[OnModelError], words: str
) -> None:
    vendor = stand.vendor()
    request = vendor.still_request(DRAWN)
    stand.server.faults.set(fault)
    ids = vendor.submit(request, stand.submission(request))
    over(vendor, request, ids)
    into = io.BytesIO()
    with pytest.raises(expected, match=words):
        vendor.download(vendor.output(request, ids).files[0], into)
    assert into.getvalue() == b""


def test_a_job_is_stopped_once_and_again(stand: Stand) -> None:
    vendor = stand.vendor()
    request = vendor.still_request(DRAWN)
    stand.server.faults.set("job:never_ends")
    ids = vendor.submit(request, stand.submission(request))
    wait_until(lambda: vendor.status(request, ids).state is VendorState.RUNNING)
    with pytest.raises(Unavailable, match="not finished"):
        vendor.output(request, ids)
    vendor.cancel(request, ids)
    assert vendor.status(request, ids).state is VendorState.CANCELLED
    vendor.cancel(request, ids)
    vendor.cancel(request, VendorJobIds(request_id="00000000-0000-0000-0000-000000000000-u1"))


def test_what_the_model_does_not_take_is_refused_before_anything_is_sent(stand: Stand) -> None:
    vendor, ref = stand.vendor(), BlobRef(sha256="a" * 64, media_type="x/y", file_name="a.safetensors")
    use = LoraUse(file=ref, scale=1.0)
    for change in (
        {"prompt": " "},
        {"image_size": (500, 500)},
        {"image_size": "cinema"},
        {"steps": 101},
        {"guidance": 31.0},
        {"seed": -1},
        {"faces": (ref,)},
        {"loras": (use,) * 5},
        {"loras": (use.model_copy(update={"high_noise": ref}),)},
        {"loras": (use.model_copy(update={"scale": 5.0}),)},
        {"model_key": "flux_lora"},
    ):
        with pytest.raises(BadInput):
            vendor.still_request(DRAWN.model_copy(update=change))
    with pytest.raises(NotConfigured, match="ONMODEL_RUNPOD_ENDPOINT"):
        ServerlessVendor(SecretStr(KEY), load_registry(), endpoint_id="../x", handover=stand.handover, http=stand.http)


def test_runpod_whole_sends_each_request_to_the_part_it_names(stand: Stand) -> None:
    registry, clock = load_registry(), SystemClock()
    pods = RunPodVendor(stand.http, SecretStr(KEY), registry, handover=stand.handover, clock=clock)
    both, without = RunPod(pods, stand.vendor()), RunPod(pods, None)
    request = both.still_request(DRAWN)
    ids = both.submit(request, stand.submission(request))
    wait_until(lambda: both.status(request, ids).state is VendorState.DONE)
    into = io.BytesIO()
    both.download(both.output(request, ids).files[0], into)
    assert json.loads(into.getvalue())["seed"] == 7
    for asked in (lambda: without.still_request(DRAWN), lambda: without.submit(request, stand.submission(request))):
        with pytest.raises(NotConfigured, match="ONMODEL_RUNPOD_ENDPOINT"):
            asked()
    with pytest.raises(Rejected, match="elsewhere"):
        both.status(request.model_copy(update={"endpoint": "elsewhere"}), ids)
    training = TrainingOrder(
        trainer_key="runpod_ai_toolkit_sdxl",
        zip=BlobRef(sha256="a" * 64, media_type="application/zip", file_name="set.zip"),
        trigger_word="MEIKOB_01",
        steps=100,
        image_count=10,
    )
    assert without.training_request(training).endpoint == "pods"


def test_the_package_as_it_is_works_against_the_stand_in(stand: Stand) -> None:
    """`runpod` 1.12.0 unmodified, over plain http; its address is a public variable of the package."""
    import runpod

    before = runpod.endpoint_url_base
    runpod.endpoint_url_base = f"{stand.server.url}/_as/api.runpod.ai/v2"
    try:
        endpoint = runpod.Endpoint("abc123", api_key=KEY)
        hour, link = timedelta(hours=1), stand.handover.write_link
        links = {"put_url": link("own", "image.png", hour), "status_url": link("own", "status.json", hour)}
        ordered = {**GOOD, **links}
        job = endpoint.run(ordered)
        wait_until(lambda: job.status() == "COMPLETED")
        assert job.output(timeout=5)["box"] == "b"
        assert endpoint.run_sync(ordered, timeout=10)["seed"] == 1
        assert endpoint.health()["jobs"]["completed"] >= 2
        stand.server.faults.set("job:stay_queued")
        waiting = endpoint.run(ordered)
        assert waiting.status() == "IN_QUEUE"
        assert waiting.cancel()["status"] == "CANCELLED"
        endpoint.run(ordered)
        assert endpoint.purge_queue() == {"removed": 1, "status": "completed"}
        endpoint.rp_client.headers["Authorization"] = "Bearer invalid"
        with pytest.raises(RuntimeError, match="401"):
            endpoint.health()
    finally:
        runpod.endpoint_url_base = before
        endpoint.rp_client.rp_session.close()


def test_a_stand_in_that_is_started_again_takes_up_its_jobs(tmp_path: Path, lora: tuple[Path, BlobRef]) -> None:
    path, ref = lora
    ids: VendorJobIds | None = None
    for latency in ({"neutral_still": 60.0}, {"neutral_still": 0.0}):
        with (
            running_sandbox(tmp_path, latency_seconds=latency) as server,
            httpx.Client(transport=SandboxTransport(server.url, hosts=RENTED_HOSTS)) as http,
        ):
            stand = Stand(server, SandboxHandover(http), http, http)
            vendor = stand.vendor(base_url="https://api.runpod.ai/v2")
            request = vendor.still_request(DRAWN.model_copy(update={"loras": (LoraUse(file=ref, scale=0.9),)}))
            if ids is None:
                ids = vendor.submit(request, stand.submission(request, {ref.sha256: vendor.upload(path, ref)}))
                wait_until(partial(is_running, vendor, request, ids))
            else:
                assert json.loads(picture_of(vendor, request, ids))["loras"] == [0.9]


def test_the_worker_and_its_stand_in_take_and_refuse_the_same_inputs() -> None:
    orders = _worker_orders()
    fine: list[dict[str, Any]] = [{}, {"loras": [{"url": "https://s/l", "sha256": "a" * 64, "scale": 0.5}]}]
    fine += [{"negative_prompt": "blur", "num_inference_steps": 100, "guidance_scale": 0}]
    wrong: list[dict[str, Any]] = [
        {"steps": 3},
        {"prompt": " "},
        {"prompt": "x" * 4001},
        {"width": 60},
        {"width": 4096},
    ]
    wrong += [{"height": 65}, {"seed": -1}, {"seed": True}, {"seed": 1.5}, {"num_inference_steps": 0}, {"box": "A B"}]
    wrong += [{"put_url": "ftp://x/y"}, {"status_url": None}, {"loras": "x"}, {"guidance_scale": "5"}]
    wrong += [{"loras": [{"url": "https://s/l", "sha256": "a" * 64, "path": "x"}]}, {"negative_prompt": ""}]
    wrong += [{"loras": [{"url": "https://s/l", "sha256": "zz"}]}]
    wrong += [{"loras": [{"url": "https://s/l", "sha256": "a" * 64, "scale": 4.5}]}]
    for change in fine:
        given = {**GOOD, **LINKS, **change}
        orders.read_order(given)
        check_input(given)
    for change in wrong:
        given = {**GOOD, **LINKS, **change}
        with pytest.raises(orders.OrderRefused):
            orders.read_order(given)
        with pytest.raises(WorkerRefused):
            check_input(given)
    with pytest.raises(orders.OrderRefused, match="https"):
        orders.read_order({**GOOD, **LINKS, "put_url": "http://store/x"})


def test_what_the_adapter_sends_is_what_the_worker_reads(stand: Stand, lora: tuple[Path, BlobRef]) -> None:
    vendor, (_, ref) = stand.vendor(), lora
    request = vendor.still_request(DRAWN.model_copy(update={"loras": (LoraUse(file=ref, scale=0.9),)}))
    body, _ = vendor._body(request, stand.submission(request, {ref.sha256: "http://127.0.0.1:1/x"}), "some-box")
    order = _worker_orders().read_order(body["input"], is_http_fine=True)
    assert (order.width, order.seed, order.steps, order.guidance, order.box) == (512, 7, 30, 5.0, "some-box")
    assert (order.loras[0].sha256, order.loras[0].scale) == (ref.sha256, 0.9)


def _worker_orders() -> Any:
    """The worker's own reading of its input; its folder is no package."""
    path = Path(__file__).resolve().parents[2] / "deployments" / "serverless-sdxl" / "orders.py"
    spec = importlib.util.spec_from_file_location("onmodel_worker_orders", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module
