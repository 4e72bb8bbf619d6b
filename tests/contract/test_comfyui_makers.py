"""ComfyUI from order to file against its stand-in: every workflow, LoRAs on its disk, its list of nodes, its socket."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file
from websockets.sync.client import connect

from domain.errors import JobFailed, NotConfigured, Rejected, Unavailable
from domain.jobs import BlobRef, JobOutput, VendorJobIds, VendorRequest, VendorState
from domain.model_rules import ModelKind
from domain.registry import load_registry
from domain.submissions import Submission
from providers.comfyui.checking import NodeChecker
from providers.comfyui.client import ComfyUiClient
from providers.comfyui.listening import Socket, open_web_socket
from providers.comfyui.placing import LoraFolder, LoraPlace, LoraSync, lora_place, wait_until_listed
from providers.comfyui.vendor import ComfyUiVendor
from providers.sandbox.comfy_files import comfyui_loras_folder
from providers.sandbox.comfy_wire import HOST
from providers.sandbox.server import SandboxServer
from providers.sandbox.transport import SandboxTransport
from providers.vendor_ports import LoraUse, StillOrder, VideoOrder
from tests.contract.fal_standin import sent
from tests.contract.sandbox_fixtures import png, running_sandbox, wait_until

REGISTRY = load_registry()
MODELS = [model for model in REGISTRY.models if model.vendor == "comfyui"]
ENDS = (VendorState.DONE, VendorState.FAILED, VendorState.CANCELLED, VendorState.GONE)
NUMBERS = itertools.count(1)
MODULES = {
    "flux-1-dev": ("transformer.single_transformer_blocks.37.attn.to_q", 3072),
    "sdxl": ("unet.down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_k", 2048),
    "wan-22-t2v-a14b": ("diffusion_model.blocks.0.self_attn.q", 5120),
}


class Studio:
    """Orders, uploads, sends, waits and fetches, as the door does."""

    def __init__(self, server: SandboxServer, home: Path) -> None:
        self.server, self.home = server, home
        transport = SandboxTransport(server.url, hosts=frozenset({HOST}))
        self.http = httpx.Client(transport=transport, timeout=20)
        self.vendor = self.vendor_with(LoraFolder(comfyui_loras_folder(home)))

    def vendor_with(self, place: LoraPlace | None, **given: Any) -> ComfyUiVendor:
        fixed = {"name": "sandbox-comfyui", "open_socket": self.open_socket}
        return ComfyUiVendor(self.http, f"http://{HOST}", REGISTRY, loras=place, **(fixed | given))

    def open_socket(self, url: str, headers: Mapping[str, str]) -> Socket:
        return open_web_socket(self.socket_url(url.partition("?")[2]), headers)

    def socket_url(self, query: str) -> str:
        return f"{self.server.url.replace('http', 'ws', 1)}/_as/{HOST}/ws?{query}"

    def blob(self, data: bytes, name: str, media_type: str) -> BlobRef:
        ref = BlobRef(sha256=hashlib.sha256(data).hexdigest(), media_type=media_type, file_name=name)
        (self.home / ref.sha256).write_bytes(data)
        return ref

    def lora(self, base: str, name: str = "MAYA_01-v1.safetensors") -> BlobRef:
        module, width = MODULES[base]
        path = self.home / "draft.safetensors"
        ones = np.full((4, width), 0.01, np.float32)
        save_file({f"{module}.lora_A.weight": ones, f"{module}.lora_B.weight": np.ascontiguousarray(ones.T)}, path)
        return self.blob(path.read_bytes(), name, "application/octet-stream")

    def submission(self, request: VendorRequest) -> Submission:
        urls = {ref.sha256: self.vendor.upload(self.home / ref.sha256, ref) for ref in request.blobs()}
        return sent(urls).model_copy(update={"number": next(NUMBERS)})

    def submit(self, request: VendorRequest, vendor: ComfyUiVendor | None = None) -> VendorJobIds:
        return (vendor or self.vendor).submit(request, self.submission(request))

    def output(self, request: VendorRequest, ids: VendorJobIds) -> JobOutput:
        wait_until(lambda: self.vendor.status(request, ids).state in ENDS)
        return self.vendor.output(request, ids)

    def made(self, request: VendorRequest) -> dict[str, Any]:
        """What the stand-in's engine was told to make."""
        output = self.output(request, self.submit(request))
        into = io.BytesIO()
        self.vendor.download(output.files[0], into)
        told: dict[str, Any] = json.loads(into.getvalue().rstrip(b"."))
        return told

    def posts(self) -> int:
        return sum(self.server._posts().values())


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    home = tmp_path_factory.mktemp("comfyui")
    with running_sandbox(home) as server:
        studio = Studio(server, home)
        yield studio
        studio.http.close()


@pytest.fixture
def studio(ground: Studio) -> Iterator[Studio]:
    ground.server.faults.set("")
    yield ground
    ground.server.faults.set("")


def still(**given: Any) -> StillOrder:
    fixed = {"model_key": "comfyui_flux_1", "prompt": "MAYA_01 on a pier", "image_size": "square", "seed": 7}
    return StillOrder(**(fixed | given))


# --- every workflow ---


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.key)
def test_every_model_of_the_registry_is_made_from_its_workflow(studio: Studio, model: Any) -> None:
    if model.kind is ModelKind.IMAGE:
        request = studio.vendor.still_request(still(model_key=model.key))
        told = studio.made(request)
        assert (told["prompt"], told["seed"], told["size"]) == ("MAYA_01 on a pier", 7, [512, 512])
    else:
        image = studio.blob(png(), "first.png", "image/png") if model.video.image_field else None
        seconds = model.video.duration.shortest_and_longest[0]
        order = VideoOrder(model_key=model.key, prompt="a pier at night", seconds=seconds, seed=7, image=image)
        told = studio.made(studio.vendor.video_request(order))
        assert (told["prompt"], told["seed"]) == ("a pier at night", 7)
        assert told["frames_per_second"] == model.video.duration.frames_per_second
        assert ("image" in told) == (image is not None)


# --- LoRAs ---


def test_a_lora_gets_to_the_servers_disk_under_a_name_of_its_base_and_bytes_and_is_drawn(studio: Studio) -> None:
    ref = studio.lora("flux-1-dev")
    name = studio.vendor.upload(studio.home / ref.sha256, ref)
    assert name == f"onmodel/flux-1-dev/{ref.sha256[:12]}/MAYA_01-v1.safetensors"
    assert (comfyui_loras_folder(studio.home) / name).read_bytes() == (studio.home / ref.sha256).read_bytes()
    told = studio.made(studio.vendor.still_request(still(loras=(LoraUse(file=ref, scale=0.8),))))
    assert told["loras"] == [0.8]


def test_a_lora_of_both_experts_is_drawn_at_its_whole_strength(studio: Studio) -> None:
    use = LoraUse(file=studio.lora("wan-22-t2v-a14b"), scale=0.9)
    order = VideoOrder(model_key="comfyui_wan_22_t2v", prompt="a pier", seconds=1, seed=7, loras=(use,))
    told = studio.made(studio.vendor.video_request(order))
    ((_, strength),) = told["loras"]
    assert strength == pytest.approx(0.9)


def test_a_lora_of_another_base_is_refused_before_the_post_and_would_be_ignored_after_it(studio: Studio) -> None:
    use = LoraUse(file=studio.lora("sdxl"), scale=0.8)
    request = studio.vendor.still_request(still(loras=(use,)))
    before = studio.posts()
    with pytest.raises(Rejected, match="of sdxl and the workflow loads LoRAs of flux-1-dev"):
        studio.submit(request)
    assert studio.posts() == before
    unjudged = request.model_copy(update={"arguments": request.arguments | {"base_model": None}})
    assert studio.made(unjudged)["loras"] == []


def test_what_is_no_lora_is_refused_and_nothing_is_placed(studio: Studio) -> None:
    ref = studio.blob(b"\x80\x04 a pickle", "x.safetensors", "application/octet-stream")
    with pytest.raises(Rejected, match="is no LoRA"):
        studio.vendor.upload(studio.home / ref.sha256, ref)


def test_without_a_way_to_the_servers_disk_it_says_what_to_set(studio: Studio) -> None:
    ref = studio.lora("flux-1-dev")
    with pytest.raises(NotConfigured, match=r"ONMODEL_COMFYUI_LORAS .* ONMODEL_COMFYUI_LORA_SYNC"):
        studio.vendor_with(None).upload(studio.home / ref.sha256, ref)
    assert lora_place(None, None) is None


COPY = "import os, shutil, sys; os.makedirs(os.path.dirname(sys.argv[2]), exist_ok=True); shutil.copy(*sys.argv[1:])"


def test_a_command_brings_a_lora_without_any_shell(studio: Studio) -> None:
    place = LoraSync(f'{sys.executable} -c "{COPY}" {{file}} {comfyui_loras_folder(studio.home)}/{{name}}')
    ref = studio.lora("sdxl", "odd; touch $(name).safetensors")
    name = studio.vendor_with(place).upload(studio.home / ref.sha256, ref)
    assert name == f"onmodel/sdxl/{ref.sha256[:12]}/odd_touch_name.safetensors"


@pytest.mark.parametrize(
    ("command", "error", "says"),
    [
        (f"{sys.executable} -c 'import sys; sys.exit(\"disk full\")' {{file}} {{name}}", Unavailable, "disk full"),
        ("no-such-program-here {file} {name}", NotConfigured, "cannot run"),
    ],
)
def test_a_command_that_fails_says_what_it_said(
    studio: Studio, command: str, error: type[Exception], says: str
) -> None:
    ref = studio.lora("flux-1-dev")
    with pytest.raises(error, match=says):
        LoraSync(command).bring(studio.home / ref.sha256, "onmodel/x.safetensors")


@pytest.mark.parametrize("command", ["rsync {file} gpu:", "rsync x {name}", "rsync '{file} {name}"])
def test_a_command_that_cannot_work_is_refused_when_it_is_read(command: str) -> None:
    with pytest.raises(NotConfigured, match="ONMODEL_COMFYUI_LORA_SYNC"):
        LoraSync(command)


def test_a_lora_may_be_brought_by_many_at_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(3_000_000))
    with ThreadPoolExecutor(8) as crowd:
        for placed in [crowd.submit(LoraFolder(tmp_path).bring, source, "onmodel/x.safetensors") for _ in range(16)]:
            placed.result()
    assert [path.name for path in (tmp_path / "onmodel").iterdir()] == ["x.safetensors"]


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="which is no folder"):
        LoraFolder(tmp_path / "no").bring(tmp_path, "onmodel/x.safetensors")


# --- what the server says of its nodes ---


def changed(request: VendorRequest, node: str, **inputs: Any) -> VendorRequest:
    graph = json.loads(json.dumps(request.arguments["workflow"]))
    graph[node]["inputs"].update(inputs)
    return request.model_copy(update={"arguments": request.arguments | {"workflow": graph}})


@pytest.mark.parametrize(
    ("node", "inputs", "says"),
    [
        ("9", {"sampler_name": "magic"}, "sampler_name of node 9 .* it has euler"),
        ("9", {"steps": 0}, "takes 1 or more"),
        ("9", {"steps": 10_001}, "takes 10000 or less"),
        ("9", {"steps": 20.5}, "takes a whole number"),
        ("9", {"cfg": "7"}, "takes a number"),
        ("1", {"unet_name": "other.safetensors"}, "which ComfyUI at comfyui.sandbox does not have"),
        ("5", {"text": 7}, "takes a text"),
    ],
)
def test_what_the_server_would_refuse_or_bend_is_refused_before_the_post(
    studio: Studio, node: str, inputs: dict[str, Any], says: str
) -> None:
    request, before = changed(studio.vendor.still_request(still()), node, **inputs), studio.posts()
    with pytest.raises(Rejected, match=says):
        studio.submit(request)
    assert studio.posts() == before


def test_a_yes_in_words_is_refused_because_the_server_reads_no_as_yes(studio: Studio) -> None:
    order = VideoOrder(model_key="comfyui_ltx", prompt="a pier", seconds=1, seed=7)
    with pytest.raises(Rejected, match=r"stretch of node 13 .* takes true or false"):
        studio.submit(changed(studio.vendor.video_request(order), "13", stretch="false"))


def test_a_filled_input_that_the_server_does_not_know_is_refused_because_it_would_be_ignored(studio: Studio) -> None:
    request = changed(studio.vendor.still_request(still()), "9", noise=7)
    filled = [*request.arguments["filled"], ["9", "noise"]]
    with pytest.raises(Rejected, match=r"no input 'noise' .* would be ignored"):
        studio.submit(request.model_copy(update={"arguments": request.arguments | {"filled": filled}}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda graph: graph["9"].update(class_type="SomebodysSampler"), "has no node 'SomebodysSampler'"),
        (lambda graph: graph["9"]["inputs"].pop("scheduler"), "lacks its input scheduler"),
    ],
)
def test_a_node_that_is_missing_or_lacks_something_is_named(
    studio: Studio, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    request = changed(studio.vendor.still_request(still()), "9")
    change(request.arguments["workflow"])
    with pytest.raises(Rejected, match=says):
        studio.submit(request)


def test_a_file_that_came_after_the_list_was_read_is_found_in_a_fresh_one(studio: Studio) -> None:
    first = LoraUse(file=studio.lora("flux-1-dev", "first.safetensors"), scale=0.8)
    studio.submit(studio.vendor.still_request(still(loras=(first,))))
    second = LoraUse(file=studio.lora("flux-1-dev", "second.safetensors"), scale=0.7)
    assert studio.made(studio.vendor.still_request(still(seed=8, loras=(second,))))["loras"] == [0.7]


def on_windows(request: httpx.Request) -> httpx.Response:
    """A server that spells its names with backslashes, as on Windows (issue #3343)."""
    names = ["maya\\v1.safetensors"]
    loader = {"input": {"required": {"model": ["MODEL"], "lora_name": [names]}}}
    pages = {
        "/models/loras": names,
        "/system_stats": {"system": {"comfyui_version": "0.36.0"}},
        "/object_info/SaveImage": {"SaveImage": {"input": {"required": {}}}},
        "/object_info/LoraLoaderModelOnly": {"LoraLoaderModelOnly": loader},
    }
    return httpx.Response(200, json=pages[request.url.path])


@pytest.fixture
def windows() -> Iterator[ComfyUiClient]:
    with httpx.Client(transport=httpx.MockTransport(on_windows)) as http:
        yield ComfyUiClient(http, "http://windows")


def test_names_are_sent_as_the_server_spells_them(windows: ComfyUiClient) -> None:
    assert wait_until_listed(windows, "maya/v1.safetensors") == "maya\\v1.safetensors"
    graph = {
        "4": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0], "lora_name": "maya/v1.safetensors"}}
    }
    assert NodeChecker(windows).checked(graph)["4"]["inputs"]["lora_name"] == "maya\\v1.safetensors"
    assert graph["4"]["inputs"]["lora_name"] == "maya/v1.safetensors"


def test_a_lora_that_never_shows_in_the_list_says_where_to_look(windows: ComfyUiClient) -> None:
    hours = iter(range(0, 10**6, 20))
    with pytest.raises(Unavailable, match="must be one of its loras folders"):
        wait_until_listed(windows, "bo/v1.safetensors", clock=lambda: float(next(hours)), sleep=lambda _: None)


# --- the web socket ---


def test_the_end_is_heard_at_once_and_the_history_has_it_by_then(studio: Studio) -> None:
    request = studio.vendor.still_request(still(seed=11))
    ids = studio.submit(request)
    heard = studio.vendor._listeners.heard(ids.request_id, wait_seconds=10)
    assert heard.is_over
    assert studio.vendor.status(request, ids).state is VendorState.DONE


def test_a_running_job_tells_how_far_it_is(studio: Studio) -> None:
    studio.server.faults.set("job:never_ends")
    request = studio.vendor.still_request(still(seed=12))
    ids = studio.submit(request)
    wait_until(lambda: studio.vendor._listeners.heard(ids.request_id).progress is not None)
    assert studio.vendor._listeners.heard(ids.request_id).progress == pytest.approx(1 / 28)
    studio.vendor.cancel(request, ids)
    wait_until(lambda: studio.vendor.status(request, ids).state is VendorState.CANCELLED)
    assert studio.vendor._listeners.heard(ids.request_id).is_live is False


class Broken:
    """A socket that breaks, or talks nonsense, when it is read."""

    def __init__(self, says: str | None) -> None:
        self._says = says

    def recv(self, timeout: float | None = None) -> str | bytes:
        if self._says is None:
            raise ConnectionError("gone")
        return self._says

    def close(self) -> None:
        """Nothing is open."""


def refuses(url: str, headers: Mapping[str, str]) -> Socket:
    raise OSError("no sockets here")


@pytest.mark.parametrize(
    "open_socket", [None, refuses, lambda *_: Broken(None), lambda *_: Broken("{"), lambda *_: Broken('"?"')]
)
def test_whatever_is_wrong_with_the_socket_the_job_is_polled(studio: Studio, open_socket: Any) -> None:
    vendor = studio.vendor_with(None, open_socket=open_socket)
    request = vendor.still_request(still(seed=13))
    assert studio.output(request, studio.submit(request, vendor)).files[0].role == "image"


def test_the_stand_in_tells_its_events_in_the_servers_order(studio: Studio) -> None:
    request = studio.vendor.still_request(still(seed=14))
    client = "5e7a2f1c-0000-4000-8000-000000000001"
    heard: list[tuple[str, Any]] = []
    with connect(studio.socket_url(f"clientId={client}"), proxy=None) as listening:
        body = {"prompt": request.arguments["workflow"], "client_id": client, "prompt_id": client}
        assert studio.http.post(f"http://{HOST}/prompt", json=body).json()["node_errors"] == {}
        while not heard or heard[-1] != ("executing", None):
            said = json.loads(listening.recv(10))
            heard.append((said["type"], said["data"].get("node")))
    kinds = [kind for kind, _ in heard]
    assert kinds[:3] == ["status", "execution_start", "execution_cached"]
    assert kinds[-3:] == ["executed", "execution_success", "executing"]
    assert ("progress", "9") in heard


# --- what else a server does ---


def test_a_workflow_that_comes_whole_out_of_the_cache_writes_no_new_file_unless_it_is_named_anew(
    studio: Studio,
) -> None:
    request = studio.vendor.still_request(still(seed=21))
    first, second = (studio.output(request, studio.submit(request)).files[0].file_name for _ in range(2))
    assert first != second
    fixed = changed(request, "11", filename_prefix="the/same")
    names = {studio.output(fixed, studio.submit(fixed)).files[0].file_name for _ in range(2)}
    assert names == {"same_00001_.png"}


def test_a_workflow_of_two_outputs_of_which_one_is_bad_is_taken_back(studio: Studio) -> None:
    vendor = studio.vendor_with(None, open_socket=None)
    request = vendor.still_request(still(seed=22))
    graph = json.loads(json.dumps(request.arguments["workflow"]))
    graph["12"] = {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "latent"}}
    half = request.model_copy(update={"arguments": {"workflow": graph, "output_role": "image"}})
    studio.server.faults.set("job:stay_queued")
    with pytest.raises(Rejected, match=r"dropped a part of the workflow .*Return type mismatch"):
        studio.submit(half, vendor)


def test_a_job_that_a_node_ends_says_which_and_why(studio: Studio) -> None:
    studio.server.faults.set("job:fail=500")
    request = studio.vendor.still_request(still(seed=23))
    with pytest.raises(JobFailed, match=r"node 9 \(KSampler\).*on purpose"):
        studio.output(request, studio.submit(request))


def test_the_stand_in_keeps_its_jobs_over_a_restart_of_the_rehearsal(tmp_path: Path) -> None:
    with running_sandbox(tmp_path, faults="job:stay_queued#1") as server:
        before = Studio(server, tmp_path)
        requests = [before.vendor.still_request(still(seed=seed)) for seed in (31, 32)]
        ids = [before.submit(request) for request in requests]
        file = before.output(requests[1], ids[1]).files[0]
        before.http.close()
    with running_sandbox(tmp_path) as server:
        after = Studio(server, tmp_path)
        assert after.vendor.status(requests[0], ids[0]).state is VendorState.QUEUED
        assert after.output(requests[1], ids[1]).files[0] == file
        after.http.close()


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"filename": "../secret"}, 400),
        ({"filename": "x", "subfolder": "../../etc"}, 403),
        ({"filename": "x"}, 404),
        ({}, 404),
    ],
)
def test_the_stand_in_lets_nobody_climb(studio: Studio, query: dict[str, str], status: int) -> None:
    assert studio.http.get(f"http://{HOST}/view", params=query).status_code == status


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"prompt": {}, "prompt_id": "not-a-uuid"}, "invalid_prompt_id"),
        ({"prompt": {"1": {"inputs": {}}}}, "invalid_prompt"),
        ({"prompt": {"1": {"class_type": "Nobody", "inputs": {}}}}, "invalid_prompt"),
        ({"prompt": {"nodes": [], "links": []}}, "invalid_prompt"),
        ({"prompt": {"1": {"class_type": "VAELoader", "inputs": {"vae_name": "x"}}}}, "prompt_no_outputs"),
        ({"prompt": {"1": {"class_type": "SaveImage", "inputs": {}}}}, "prompt_outputs_failed_validation"),
        ({"prompts": {}}, "unknown_field"),
    ],
)
def test_the_stand_in_refuses_in_the_servers_words(studio: Studio, body: dict[str, Any], kind: str) -> None:
    answer = studio.http.post(f"http://{HOST}/prompt", json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, kind)
