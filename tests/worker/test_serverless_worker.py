"""Our serverless worker draws with a real Stable Diffusion XL pipeline, of tiny random weights made here, on a CPU.

`make worker-test` runs it where torch and diffusers are; they are none of the project's own dependencies.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import itertools
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

MISSING = [name for name in ("torch", "diffusers", "transformers", "peft") if importlib.util.find_spec(name) is None]
if MISSING:
    why_not = f"{', '.join(MISSING)} are not installed here: `make worker-test` makes a place where they are"
    pytest.skip(why_not, allow_module_level=True)

WORKER = Path(__file__).resolve().parents[2] / "deployments" / "serverless-sdxl"


class Store(ThreadingHTTPServer):
    """A store whose links take and give files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.files: dict[str, bytes] = {}
        self.refused: set[str] = set()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class _Talk(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        data = self.server.files.get(self.path[1:])
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        is_refused = self.path[1:] in self.server.refused
        if not is_refused:
            self.server.files[self.path[1:]] = data
        self.send_response(403 if is_refused else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    server = Store()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole SDXL pipeline in a folder, of a few thousand random weights."""
    import torch
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("sdxl")
    text = {"bos_token_id": 0, "eos_token_id": 2, "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 5}
    text |= {"num_attention_heads": 4, "pad_token_id": 1, "vocab_size": 300, "hidden_act": "gelu", "projection_dim": 32}
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 64),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1, 1),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=32,
    )
    pipe = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(CLIPTextConfig(**text)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**text)),
        tokenizer=tiny_tokenizer(folder / "words"),
        tokenizer_2=tiny_tokenizer(folder / "words"),
        unet=unet,
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    )
    pipe.save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"


def tiny_tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer with single letters as its words."""
    from transformers import CLIPTokenizer

    folder.mkdir(exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.-_"
    words = ["<|startoftext|>", "<pad>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


@pytest.fixture(scope="module")
def handle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The real handler over that model."""
    sys.path.insert(0, str(WORKER))
    try:
        worker = importlib.import_module("handler").Worker(
            str(model), lora_folder=tmp_path_factory.mktemp("loras"), is_http_fine=True
        )
        yield worker.handle
    finally:
        sys.path.remove(str(WORKER))


def lora_of(model: Path, *, strength: float = 1.0) -> dict[str, Any]:
    """The tensors of a LoRA for every attention of the model, rank 4, as diffusers and peft name them."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(11)
    tensors: dict[str, Any] = {}
    for name, part in UNet2DConditionModel.from_pretrained(model, subfolder="unet").named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            high, wide = part.weight.shape
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn(4, wide) * strength
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn(high, 4) * strength
    return tensors


STABILITY_NAMES = {
    **{
        f"down_blocks.{block}.attentions.{n}": f"input_blocks.{3 * block + 1 + n}.1" for block in (1, 2) for n in (0, 1)
    },
    "mid_block.attentions.0": "middle_block.1",
    **{f"up_blocks.{block}.attentions.{n}": f"output_blocks.{3 * block + n}.1" for block in (0, 1) for n in (0, 1, 2)},
}
"""Blocks of SDXL's UNet as diffusers names them, and as its makers do."""


def kohya_names(tensors: dict[str, Any], *, as_makers: bool) -> dict[str, Any]:
    """The same LoRA in kohya's spelling, with a rank's alpha beside each pair: over diffusers' names, as ai-toolkit has
    it, or over the makers' own, as sd-scripts has it."""
    import torch

    spelt: dict[str, Any] = {}
    for name, tensor in tensors.items():
        module, factor = name.removeprefix("unet.").rsplit(".lora_", 1)
        for block, theirs in STABILITY_NAMES.items() if as_makers else ():
            module = module.replace(f"{block}.", f"{theirs}.")
        stem = f"lora_unet_{module.replace('.', '_')}"
        spelt[f"{stem}.lora_{'down' if factor.startswith('A') else 'up'}.weight"] = tensor
        spelt[f"{stem}.alpha"] = torch.tensor(4.0)
    return spelt


def put_lora(store: Store, name: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """The LoRA in the store, and its entry in a job."""
    from safetensors.torch import save

    store.files[name] = save(tensors)
    return {"url": store.url(name), "sha256": hashlib.sha256(store.files[name]).hexdigest(), "scale": 1.0}


def job(store: Store, box: str, **given: Any) -> dict[str, Any]:
    small = {"prompt": "meiko_01 on a pier", "width": 64, "height": 64, "seed": 5, "num_inference_steps": 2}
    links = {"put_url": store.url(f"{box}.png"), "status_url": store.url(f"{box}.json"), "box": box}
    return {"id": f"job-{box}", "input": {**small, **links, **given}}


def why(answer: dict[str, Any]) -> str:
    return str(json.loads(answer["error"])["code"])


def test_a_job_puts_its_picture_and_tells_its_digest_there_and_here(handle: Any, store: Store) -> None:
    from PIL import Image

    answer = handle(job(store, "plain"))
    picture = store.files["plain.png"]
    assert (answer["box"], answer["sha256"]) == ("plain", hashlib.sha256(picture).hexdigest())
    assert Image.open(io.BytesIO(picture)).size == (64, 64)
    told = json.loads(store.files["plain.json"])
    assert (told["job_id"], told["state"], told["output"]) == ("job-plain", "completed", answer)


def test_the_same_seed_draws_the_same_picture_and_another_seed_another(handle: Any, store: Store) -> None:
    first, again, other = (handle(job(store, box, seed=seed)) for box, seed in (("a", 5), ("b", 5), ("c", 6)))
    assert first["sha256"] == again["sha256"] != other["sha256"]


def test_a_lora_changes_the_picture_and_leaves_the_next_one_alone(handle: Any, store: Store, model: Path) -> None:
    lora = put_lora(store, "right.safetensors", lora_of(model))
    plain = handle(job(store, "p1"))
    drawn = handle(job(store, "p2", loras=[lora]))
    weaker = handle(job(store, "p3", loras=[{**lora, "scale": 0.2}]))
    after = handle(job(store, "p4"))
    assert len({plain["sha256"], drawn["sha256"], weaker["sha256"]}) == 3
    assert after["sha256"] == plain["sha256"]


def test_a_lora_draws_alike_in_either_spelling_and_with_its_text_encoders(
    handle: Any, store: Store, model: Path
) -> None:
    import torch

    tensors = lora_of(model, strength=0.7)
    one = handle(job(store, "k1", loras=[put_lora(store, "peft.safetensors", tensors)]))
    assert "error" not in one
    for as_makers in (False, True):
        spelt = kohya_names(tensors, as_makers=as_makers)
        same = handle(job(store, "k2", loras=[put_lora(store, "kohya.safetensors", spelt)]))
        assert "error" not in same
        assert same["sha256"] == one["sha256"]
    for encoder, part in itertools.product(("te1", "te2"), ("q", "k", "v", "out")):
        stem = f"lora_{encoder}_text_model_encoder_layers_0_self_attn_{part}_proj"
        pair = {f"{stem}.lora_down.weight": torch.randn(4, 32), f"{stem}.lora_up.weight": torch.randn(32, 4)}
        spelt |= pair | {f"{stem}.alpha": torch.tensor(4.0)}
    told = handle(job(store, "k3", loras=[put_lora(store, "texts.safetensors", spelt)]))
    assert "error" not in told
    assert told["sha256"] != one["sha256"]


def test_a_lora_of_another_model_is_refused_instead_of_ignored(handle: Any, store: Store, model: Path) -> None:
    import torch

    right = lora_of(model)
    others = {f"transformer.{name}": tensor for name, tensor in right.items()}
    wider = {name: torch.randn(4, 77) if "lora_A" in name else tensor for name, tensor in right.items()}
    elsewhere = {name.replace("down_blocks.2", "down_blocks.7"): tensor for name, tensor in right.items()}
    for name, tensors in (("others", others), ("wider", wider), ("elsewhere", elsewhere)):
        answer = handle(job(store, name, loras=[put_lora(store, f"{name}.safetensors", tensors)]))
        assert why(answer) == "wrong_base", name
        assert f"{name}.png" not in store.files
        assert json.loads(store.files[f"{name}.json"])["state"] == "failed"
    assert "error" not in handle(job(store, "fine-again"))


def test_a_lora_with_other_bytes_than_ordered_is_refused(handle: Any, store: Store, model: Path) -> None:
    lora = put_lora(store, "swapped.safetensors", lora_of(model, strength=0.5))
    store.files["swapped.safetensors"] += b"x"
    assert why(handle(job(store, "swapped", loras=[lora]))) == "bad_lora"
    cut = put_lora(store, "cut.safetensors", lora_of(model, strength=0.3))
    store.files["cut.safetensors"] = store.files["cut.safetensors"][:-8]
    cut["sha256"] = hashlib.sha256(store.files["cut.safetensors"]).hexdigest()
    assert why(handle(job(store, "cut", loras=[cut]))) == "bad_lora"
    assert why(handle(job(store, "gone", loras=[{**lora, "sha256": "0" * 64, "url": store.url("no")}]))) == (
        "lora_unreachable"
    )


def test_a_picture_that_the_store_does_not_take_is_a_failure(handle: Any, store: Store) -> None:
    store.refused.add("shut.png")
    assert why(handle(job(store, "shut"))) == "store_refused"


def test_what_is_no_order_is_refused_before_the_model_works(handle: Any, store: Store) -> None:
    assert why(handle({"id": "x", "input": {"prompt": "a pier"}})) == "bad_input"
    assert why(handle(job(store, "big", width=8192))) == "bad_input"


def test_the_end_of_a_long_prompt_counts_too(handle: Any, store: Store) -> None:
    start = "ab " * 60
    one, other = (handle(job(store, word, prompt=start + word)) for word in ("pier", "wood"))
    unwanted = handle(job(store, "less", prompt=start + "pier", negative_prompt="cd " * 60))
    assert len({one["sha256"], other["sha256"], unwanted["sha256"]}) == 3


def test_a_prompt_is_cut_between_words_and_inside_none_but_one_too_long(handle: Any) -> None:
    split = importlib.import_module("prompts").split_prompt
    assert split("one two three four", len, 9) == ["one two", "three", "four"]
    assert split("abcdefghij kl", len, 4) == ["abcd", "efgh", "ij", "kl"]
    assert split("  short  ", len, 9) == ["short"]
    assert split("", len, 9) == []
