"""The LoRA file check: whole files pass, every known damage is named, nothing hostile crashes it."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from domain.errors import BadInput
from providers.lora_files import check_lora_file
from providers.lora_layouts import Pair, bases_named_by, layout_of, serves
from providers.ports import LoraFileReport

Tensors = Mapping[str, NDArray[Any]]
BF16 = "BF16"
FLUX_MODULES = ("transformer.transformer_blocks.0.attn.to_q", "transformer.single_transformer_blocks.0.attn.to_q")


def container(header: str | dict[str, Any], data: bytes) -> bytes:
    text = header if isinstance(header, str) else json.dumps(header)
    raw = text.encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw + data


def lora_bytes(tensors: Tensors, metadata: Mapping[str, str] | None = None, as_bf16: bool = False) -> bytes:
    """A safetensors file written by hand, so that the reader is not tested against itself."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for name, values in tensors.items():
        stored = (values.astype("<f4").view("<u4") >> 16).astype("<u2") if as_bf16 else values
        raw = stored.tobytes()
        dtype = BF16 if as_bf16 else {"e": "F16", "f": "F32", "d": "F64", "b": "I8"}[values.dtype.char]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return container(header, data)


def pair(name: str, *, rank: int = 4, inputs: int = 3072, outputs: int = 64, size: float = 0.01) -> dict[str, Any]:
    draw = np.random.default_rng(len(name))
    return {
        f"{name}.lora_A.weight": draw.normal(0, 0.02, (rank, inputs)).astype(np.float16),
        f"{name}.lora_B.weight": (draw.normal(0, 1, (outputs, rank)) * size).astype(np.float16),
    }


def flux(**changes: Any) -> dict[str, Any]:
    return {name: values for module in FLUX_MODULES for name, values in pair(module, **changes).items()}


def check(tmp_path: Path, content: bytes | Tensors, base: str = "flux-1-dev", **more: Any) -> LoraFileReport:
    path = tmp_path / more.pop("name", "lora.safetensors")
    path.write_bytes(content if isinstance(content, bytes) else lora_bytes(content))
    return check_lora_file(path, expected_base=base, **more)


def test_a_whole_flux_lora_is_healthy_and_described(tmp_path: Path) -> None:
    content = lora_bytes(flux(), {"ss_base_model_version": "flux.1", "ss_datasets": "/home/someone/secret"})
    report = check(tmp_path, content, expected_rank=4)
    assert (report.verdict, report.reasons) == ("healthy", ())
    assert (report.architecture, report.module_count, report.rank) == ("flux-1-dev", 2, 4)
    assert (report.size_bytes, report.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert report.metadata == {"ss_base_model_version": "flux.1"}


@pytest.mark.parametrize("as_bf16", [False, True])
def test_the_size_of_the_change_equals_the_full_product(tmp_path: Path, as_bf16: bool) -> None:
    tensors = flux()
    report = check(tmp_path, lora_bytes(tensors, as_bf16=as_bf16))
    products = [
        tensors[f"{m}.lora_B.weight"].astype(np.float64) @ tensors[f"{m}.lora_A.weight"].astype(np.float64)
        for m in FLUX_MODULES
    ]
    true = np.median([np.sqrt((product**2).mean()) for product in products])
    assert report.median_delta_norm == pytest.approx(true, rel=0.02 if as_bf16 else 1e-4)


def test_alpha_scales_the_change(tmp_path: Path) -> None:
    plain = check(tmp_path, flux())
    alphas = {f"{module}.alpha": np.array(2.0, np.float32) for module in FLUX_MODULES}
    halved = check(tmp_path, {**flux(), **alphas})
    assert halved.median_delta_norm == pytest.approx(plain.median_delta_norm / 2, rel=1e-5)


def test_a_lora_that_never_trained_is_broken(tmp_path: Path) -> None:
    report = check(tmp_path, flux(size=0.0))
    assert report.verdict == "broken"
    assert report.dead_share == 1.0
    assert "never trained" in report.reasons[0]


def test_a_half_dead_lora_is_suspect_and_a_barely_trained_one_too(tmp_path: Path) -> None:
    half = check(tmp_path, {**flux(), **pair(FLUX_MODULES[0], size=0.0)})
    assert (half.verdict, half.dead_share) == ("suspect", 0.5)
    faint = {name: values.astype(np.float32) for name, values in flux(size=1e-3).items()}
    for name in faint:
        if "lora_B" in name:
            faint[name] = faint[name] * np.float32(1e-4)
    assert "hardly trained" in check(tmp_path, faint).reasons[0]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_no_number_breaks_the_file(tmp_path: Path, poison: float) -> None:
    tensors = flux()
    tensors[f"{FLUX_MODULES[1]}.lora_A.weight"][2, 5] = poison
    report = check(tmp_path, tensors)
    assert report.verdict == "broken"
    assert "NaN or infinity" in report.reasons[0]


def test_a_blown_up_lora_is_suspect(tmp_path: Path) -> None:
    clipped = flux()
    clipped[f"{FLUX_MODULES[0]}.lora_B.weight"][0, 0] = 65504
    assert "65504" in " ".join(check(tmp_path, clipped).reasons)
    report = check(tmp_path, flux(size=10.0))
    assert report.verdict == "suspect"
    assert "10 times its own weights" in report.reasons[0]


def test_values_too_large_for_any_square_are_reported_without_a_warning(tmp_path: Path) -> None:
    tensors = {name: values.astype(np.float64) * 1e250 for name, values in flux().items()}
    report = check(tmp_path, tensors)
    assert report.verdict == "suspect"
    assert np.isfinite(report.median_delta_norm)


def test_a_lora_for_another_base_is_named(tmp_path: Path) -> None:
    report = check(tmp_path, flux(), "wan-22-t2v-a14b")
    assert report.verdict == "wrong_base"
    assert "trained for flux-1-dev, and wan-22-t2v-a14b was wanted" in report.reasons[0]


def test_unknown_modules_are_suspect_and_never_a_guess(tmp_path: Path) -> None:
    report = check(tmp_path, pair("transformer.mystery.3.proj"))
    assert (report.verdict, report.architecture) == ("suspect", "unknown")


def test_metadata_that_contradicts_the_order_is_suspect(tmp_path: Path) -> None:
    report = check(tmp_path, lora_bytes(flux(), {"ss_base_model_version": "flux.1_kontext"}))
    assert report.verdict == "suspect"
    assert "flux-1-kontext-dev" in report.reasons[0]


def test_another_rank_than_ordered_is_suspect(tmp_path: Path) -> None:
    assert "Rank 16 was ordered and it has 4" in check(tmp_path, flux(), expected_rank=16).reasons[0]


def test_half_a_pair_and_factors_that_do_not_fit_are_broken(tmp_path: Path) -> None:
    lonely = flux()
    del lonely[f"{FLUX_MODULES[0]}.lora_B.weight"]
    assert "half of their pair" in check(tmp_path, lonely).reasons[0]
    misfit = {**flux(), f"{FLUX_MODULES[0]}.lora_B.weight": np.ones((64, 5), np.float16)}
    report = check(tmp_path, misfit)
    assert report.verdict == "broken"
    assert "do not fit together" in report.reasons[0]


def test_lycoris_factors_are_not_called_healthy(tmp_path: Path) -> None:
    tensors = {f"lycoris_blocks_0.lokr_w{side}": np.ones((4, 4), np.float16) for side in (1, 2)}
    report = check(tmp_path, tensors)
    assert report.verdict == "suspect"
    assert "LyCORIS" in " ".join(report.reasons)


def test_eight_bit_factors_are_not_called_healthy(tmp_path: Path) -> None:
    report = check(tmp_path, {name: np.ones(values.shape, np.int8) for name, values in flux().items()})
    assert report.verdict == "suspect"


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, protocol: int) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    report = check(tmp_path, pickle.dumps(Trap(), protocol=protocol))
    assert report.verdict == "broken"
    assert "can run code" in report.reasons[0]
    assert not (tmp_path / "sprung").exists()


def test_a_zipped_pickle_and_a_file_named_as_one_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.safetensors", "w") as archive:
        archive.writestr("data.pkl", b"\x80\x04.")
    zipped = check_lora_file(tmp_path / "archive.safetensors", expected_base="flux-1-dev")
    assert "can run code" in zipped.reasons[0]
    assert "can run code" in check(tmp_path, lora_bytes(flux()), name="lora.pt").reasons[0]


@pytest.mark.parametrize("length", [0x0280, 0x4B50, 0x0480])
def test_a_header_whose_length_looks_like_a_pickle_is_still_read(tmp_path: Path, length: int) -> None:
    content = lora_bytes(flux())
    used = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + used].rstrip()
    padded = length.to_bytes(8, "little") + header + b" " * (length - len(header)) + content[8 + used :]
    assert len(header) <= length
    assert check(tmp_path, padded).verdict == "healthy"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has 0 bytes"),
        (b"\x01\x02", "has 2 bytes"),
        (bytes(4096), "no JSON object"),
        (b"<!DOCTYPE html><html>login</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git LFS pointer"),
        ((2**60).to_bytes(8, "little") + b"{}" * 20, "claims"),
        (container("{}", b""), "no tensors"),
        (container('{"a": ' + "[" * 5000, b""), "damaged JSON"),
        (container('{"__metadata__": {"a": 1}}', b""), "metadata"),
        (container('{"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}, "a": 3}', b"ab"), "twice"),
        (container('{"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 2]}}', b"ab"), "as long as"),
        (container('{"a": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}}', b""), "empty"),
        (container('{"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 2]}}', b"ab"), "unknown type"),
        (container('{"a": {"dtype": "F16", "shape": [true], "data_offsets": [0, 2]}}', b"ab"), "impossible shape"),
        (container('{"a": {"dtype": "F16", "shape": [-1], "data_offsets": [0, -2]}}', b"ab"), "impossible shape"),
        (container('{"a": {"dtype": "F16", "shape": [1], "data_offsets": [2, 4]}}', b"abcd"), "begins at byte"),
        (container('{"\\ud800": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}', b"ab"), "another kind"),
    ],
)
def test_a_damaged_file_is_broken_with_its_reason(tmp_path: Path, content: bytes, why: str) -> None:
    report = check(tmp_path, content)
    assert report.verdict == "broken"
    assert why in report.reasons[0]
    assert report.sha256 == hashlib.sha256(content).hexdigest()


def test_one_byte_less_or_more_is_broken(tmp_path: Path) -> None:
    content = lora_bytes(flux())
    assert check(tmp_path, content[:-1]).verdict == "broken"
    assert check(tmp_path, content + b"\0").verdict == "broken"


def test_metadata_of_a_stranger_is_shortened_and_cleaned(tmp_path: Path) -> None:
    report = check(tmp_path, lora_bytes(flux(), {"note": "a\x00b\ud800c" + "x" * 9000}))
    assert report.metadata["note"].startswith("a b?c")
    assert len(report.metadata["note"]) == 500


def test_no_file_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no LoRA file at"):
        check_lora_file(tmp_path / "absent.safetensors", expected_base="flux-1-dev")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 10**6), junk=st.binary(max_size=64))
def test_a_truncated_file_is_never_healthy(tmp_path: Path, cut: int, junk: bytes) -> None:
    content = lora_bytes(flux(rank=2, inputs=3072, outputs=8))
    short = content[: cut % len(content)]
    assert check(tmp_path, short).verdict == "broken"
    if short + junk != content:
        assert check(tmp_path, short + junk).verdict == "broken" or len(short + junk) == len(content)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 700), value=st.integers(0, 255), noise=st.binary(max_size=200))
def test_no_bytes_make_it_crash(tmp_path: Path, place: int, value: int, noise: bytes) -> None:
    content = bytearray(lora_bytes(flux(rank=2, inputs=64, outputs=8)))
    content[place % len(content)] = value
    assert check(tmp_path, bytes(content)).verdict in ("healthy", "suspect", "broken", "wrong_base")
    assert check(tmp_path, noise).verdict == "broken"
    assert check(tmp_path, container(noise.decode("latin-1"), noise)).verdict == "broken"


def named(*modules: str, inputs: int = 3072, outputs: int = 3072) -> str:
    return layout_of([Pair(module, 16, inputs, outputs) for module in modules], modules)


@pytest.mark.parametrize(
    ("modules", "inputs", "outputs", "layout"),
    [
        (("diffusion_model.blocks.0.self_attn.q", "blocks.0.cross_attn.k"), 5120, 5120, "wan-22-t2v-a14b"),
        (("lora_unet_blocks_39_self_attn_q",), 5120, 5120, "wan-22-t2v-a14b"),
        (("blocks.0.self_attn.q", "blocks.0.cross_attn.k_img"), 5120, 5120, "wan-21-i2v-14b"),
        (("diffusion_model.blocks.0.self_attn.q",), 1536, 1536, "wan-21-t2v-1.3b"),
        (("diffusion_model.blocks.0.self_attn.q",), 999, 999, "unknown"),
        (("lora_unet_double_blocks_0_img_mlp_0",), 3072, 12288, "flux-1-dev"),
        (("lora_unet_double_blocks_0_img_mlp_0",), 3072, 18432, "flux-2-klein-4b"),
        (("lora_unet_double_blocks_0_img_mlp_fc1",), 3072, 12288, "hunyuan-video"),
        (("lora_unet_double_blocks_0_img_attn_qkv",), 3072, 9216, "unknown"),
        (("lora_unet_double_blocks_18_img_attn_qkv",), 3072, 9216, "flux-1-dev"),
        (("lora_unet_double_blocks_19_img_attn_qkv",), 3072, 9216, "hunyuan-video"),
        (("diffusion_model.double_blocks.0.img_attn.qkv",), 6144, 9, "flux-2-dev"),
        (("diffusion_model.double_blocks.0.img_attn.qkv",), 2048, 9, "hunyuan-video-15"),
        (("transformer.transformer_blocks.59.attn.add_q_proj",), 3072, 3072, "qwen-image"),
        (("transformer.transformer_blocks.3.attn.to_q",), 3072, 3072, "unknown"),
        (("transformer.single_transformer_blocks.39.attn.to_q",), 3072, 3072, "hunyuan-video"),
        (("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj",), 6144, 9, "flux-2-dev"),
        (("transformer_blocks.0.ff_context.net.0.proj", "transformer_blocks.0.attn.to_q"), 3072, 9, "flux-1-dev"),
        (("diffusion_model.layers.0.attention.to_q",), 3840, 3840, "z-image"),
        (("diffusion_model.layers.0.attention.to_q",), 2304, 2304, "unknown"),
        (("transformer.blocks.0.attn1.to_q", "transformer.blocks.0.ffn.net.0.proj"), 5120, 5120, "wan-22-t2v-a14b"),
        (("transformer.transformer_blocks.53.attn.add_q_proj",), 2048, 2048, "hunyuan-video-15"),
        (("transformer.transformer_blocks.5.attn.to_q",), 2048, 2048, "unknown"),
        (("lora_unet_double_blocks_0_img_attn_q",), 2048, 2048, "hunyuan-video-15"),
        (("diffusion_model.transformer_blocks.0.attn1.to_q", "transformer_blocks.0.attn2.to_q"), 4096, 9, "ltx-23"),
        (("diffusion_model.transformer_blocks.0.audio_attn1.to_q",), 2048, 2048, "unknown"),
        (("diffusion_model.transformer_blocks.0.attn1.to_q",), 2048, 2048, "unknown"),
        (("diffusion_model.blocks.0.attn.qkv_proj", "diffusion_model.blocks.0.mlp.fc1"), 5376, 21504, "minimax-h3"),
        (("diffusion_model.blocks.0.attn.qkv_proj",), 5120, 15360, "unknown"),
        (("transformer.transformer_blocks.0.attn.to_q",), 5376, 7168, "minimax-h3"),
        (("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k",), 2048, 640, "sdxl"),
        (("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k",), 768, 320, "sd-1"),
    ],
)  # fmt: skip
def test_names_and_shapes_tell_the_base(modules: tuple[str, ...], inputs: int, outputs: int, layout: str) -> None:
    assert named(*modules, inputs=inputs, outputs=outputs) == layout


def test_a_wan_layout_serves_both_wan_22_models_and_no_other_family() -> None:
    assert serves("wan-22-t2v-a14b", "wan-22-t2v-a14b")
    assert serves("wan-22-t2v-a14b", "wan-22-i2v-a14b")
    assert not serves("wan-22-t2v-a14b", "flux-1-dev")
    assert not serves("unknown", "flux-1-dev")


def test_a_trainers_spelling_is_read_and_an_unknown_one_says_nothing() -> None:
    assert bases_named_by({"ss_base_model_version": " Wan_2.2_14b "}) == {
        "wan-22-t2v-a14b",
        "wan-22-i2v-a14b",
    }
    assert not bases_named_by({"ss_base_model_version": "wan"})
    assert not bases_named_by({})


@pytest.mark.parametrize(
    "counter",
    [{"training_info": '{"step": 399, "epoch": 3}'}, {"ss_steps": "399"}, {"training_info": '{"step": 0}'}],
)
def test_a_step_counter_that_fell_short_breaks_the_file(tmp_path: Path, counter: dict[str, str]) -> None:
    report = check(tmp_path, lora_bytes(flux(), counter), expected_steps=1000)
    assert report.verdict == "broken"
    assert "of 1000 steps" in report.reasons[0]


@pytest.mark.parametrize(
    "counter",
    [
        {"training_info": '{"step": 1000, "epoch": 3}'},
        {"ss_steps": "999"},
        {"ss_steps": "1200"},
        {},
        {"ss_steps": "many"},
        {"training_info": "[]"},
        {"training_info": "{"},
        {"training_info": '{"step": null}'},
        {"training_info": '{"step": 1e999}'},
    ],
)
def test_a_full_counter_or_one_that_says_nothing_is_no_finding(tmp_path: Path, counter: dict[str, str]) -> None:
    assert check(tmp_path, lora_bytes(flux(), counter), expected_steps=1000).verdict == "healthy"
    assert check(tmp_path, lora_bytes(flux(), {"ss_steps": "1"})).verdict == "healthy"


def test_a_wan_21_file_is_not_doubted_for_the_size_its_trainer_does_not_say(tmp_path: Path) -> None:
    modules = ("diffusion_model.blocks.0.self_attn.q", "diffusion_model.blocks.0.cross_attn.k_img")
    tensors = {name: values for module in modules for name, values in pair(module, inputs=5120).items()}
    content = lora_bytes(tensors, {"ss_base_model_version": "wan_2.1"})
    assert check(tmp_path, content, "wan-21-i2v-14b").verdict == "healthy"
    assert check(tmp_path, content, "wan-22-t2v-a14b").verdict == "wrong_base"
