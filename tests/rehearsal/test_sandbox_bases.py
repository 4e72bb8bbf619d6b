"""Every base in the sandbox: real names and shapes in each trainer's spelling, and two readers that agree on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from domain.errors import Rejected
from domain.registry import load_registry
from providers.lora_files import check_lora_file
from providers.lora_layouts import Pair, layout_of, serves
from providers.lora_pairs import check_lora_pair
from providers.sandbox.engine import bases
from providers.sandbox.engine.layout import Layout, base_metadata, read_lora, write_lora
from providers.sandbox.lora_marks import bases_of, expert_of

SPELLINGS = [layout for base in bases.LAYOUTS for layout in bases.spellings_of(base)]
ALIKE = (
    {"wan-21-t2v-14b", "wan-22-t2v-a14b", "wan-22-i2v-a14b"},
    {"z-image", "z-image-turbo"},
    {"minimax-h3-t2v", "minimax-h3-i2v"},
)
"""Bases whose LoRAs nobody can tell apart by names and shapes."""


def write(layout: Layout, out: Path, *, rank: int = 1, **told: str) -> Path:
    """A LoRA of plain values, without a training: every value of its signal is the same."""
    metadata = base_metadata(layout, steps=40, trigger_word="MEI_01", rank=rank)
    codes = np.full((rank, layout.code_width), 0.01, np.float32)
    atoms = np.full((rank, layout.signal_length), 0.5, np.float32)
    write_lora(out, layout, atoms, codes, np.zeros(rank, np.float32), seed=1, metadata=metadata | told)
    return out


def test_the_sandbox_knows_every_base_of_the_registry() -> None:
    assert set(bases.LAYOUTS) == {entry.key for entry in load_registry().base_models}


@pytest.mark.parametrize("layout", SPELLINGS, ids=lambda layout: f"{layout.base}-{layout.style}")
def test_each_spelling_holds_the_whole_picture_with_no_module_left_empty(layout: Layout) -> None:
    names = [module.name for module in layout.modules]
    assert len(set(names)) == len(names)
    assert all(len(place) for place in layout.places)
    times = np.bincount(np.concatenate(layout.places), minlength=layout.signal_length)
    assert (len(times), int(times.min()), int(times.max())) == (layout.signal_length, 1, 1)
    assert all(len(p) <= m.outputs for p, m in zip(layout.places, layout.modules, strict=True))
    assert layout.code_width in {module.inputs for module in layout.modules}


@pytest.mark.parametrize("layout", SPELLINGS, ids=lambda layout: f"{layout.base}-{layout.style}")
def test_our_check_names_the_base_of_each_spelling_and_no_other(layout: Layout) -> None:
    found = layout_of([Pair(m.name, 16, m.inputs, m.outputs) for m in layout.modules], ())
    alike = next((group for group in ALIKE if layout.base in group), {layout.base})
    assert {base for base in bases.LAYOUTS if serves(found, base)} == alike


@pytest.mark.parametrize("base", bases.LAYOUTS)
def test_a_file_of_each_base_is_healthy_for_it_and_told_by_name_from_another(base: str, tmp_path: Path) -> None:
    path = write(bases.LAYOUTS[base], tmp_path / "lora.safetensors")
    report = check_lora_file(path, expected_base=base, expected_steps=40, expected_rank=1)
    assert (report.verdict, report.reasons) == ("healthy", ())
    assert bases_of(path) == next((group for group in ALIKE if base in group), {base})
    other = "sdxl" if base != "sdxl" else "flux-1-dev"
    wrong = check_lora_file(path, expected_base=other)
    assert wrong.verdict == "wrong_base"
    assert report.architecture in wrong.reasons[0]
    assert other in wrong.reasons[0]


@pytest.mark.parametrize("style", ["peft", "comfy", "kohya"])
def test_what_a_spelling_writes_is_read_back_and_kohyas_has_alpha_and_its_own_metadata(
    tmp_path: Path, style: bases.Style
) -> None:
    layout = bases.layout_of("flux-1-dev", style)
    path = write(layout, tmp_path / "lora.safetensors", rank=2)
    lora = read_lora(path, "flux-1-dev")
    assert np.allclose(lora.signals.astype(np.float32) * 16, 0.5)
    assert np.allclose(lora.codes, 0.01, atol=1e-4)
    with safe_open(path, framework="numpy") as opened:
        names, metadata = set(opened.keys()), opened.metadata()
        module = layout.modules[0]
        if style == "kohya":
            assert opened.get_tensor(f"{module.name}.alpha") == 2
    match style:
        case "peft":
            assert "transformer.transformer_blocks.0.attn.to_q.lora_A.weight" in names
        case "comfy":
            assert "diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight" in names
        case "kohya":
            assert "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight" in names
            assert (metadata["ss_steps"], metadata["ss_network_dim"], metadata["ss_base_model_version"]) == (
                "40",
                "2",
                "flux1",
            )
    assert ("training_info" in metadata) == (style != "kohya")


def test_an_unknown_base_or_spelling_is_refused_with_what_there_is() -> None:
    with pytest.raises(Rejected, match=r"no base model 'sd-3'.*flux-1-dev"):
        bases.layout_of("sd-3")
    with pytest.raises(Rejected, match=r"no 'comfy' LoRAs for sd-15: ask for kohya or peft"):
        bases.layout_of("sd-15", "comfy")


def test_a_file_says_which_expert_it_is_for_and_others_say_nothing(tmp_path: Path) -> None:
    layout = bases.LAYOUTS["sd-15"]
    assert expert_of(write(layout, tmp_path / "high.safetensors", sandbox_expert="high")) == "high"
    assert expert_of(write(layout, tmp_path / "one.safetensors")) == ""
    junk = tmp_path / "junk.safetensors"
    for content in (b"", b"\xff" * 64, (2).to_bytes(8, "little") + b"[]", (4).to_bytes(8, "little") + b'{"a"'):
        junk.write_bytes(content)
        assert expert_of(junk) == ""
        assert bases_of(junk) == frozenset()


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("halves")
    layout = bases.LAYOUTS["wan-22-t2v-a14b"]
    low, high = (write(layout, folder / f"{noise}.safetensors", sandbox_expert=noise) for noise in ("low", "high"))
    return low, high


def test_both_files_of_a_wan_22_lora_are_judged_together(halves: tuple[Path, Path]) -> None:
    report = check_lora_pair(*halves, expected_base="wan-22-t2v-a14b", expected_steps=40, expected_rank=1)
    assert (report.verdict, report.reasons) == ("healthy", ())
    assert report.low
    assert report.high
    assert report.low.sha256 != report.high.sha256


def test_a_wan_22_lora_with_one_file_missing_or_twice_the_same_is_broken(halves: tuple[Path, Path]) -> None:
    low, high = halves
    for pair, which in (((low, None), "high"), ((None, high), "low"), ((low, low.with_name("no")), "high")):
        report = check_lora_pair(*pair, expected_base="wan-22-t2v-a14b")
        assert report.verdict == "broken"
        assert f"for {which} noise is missing" in report.reasons[0]
    twice = check_lora_pair(high, high, expected_base="wan-22-t2v-a14b")
    assert twice.verdict == "broken"
    assert "same one" in twice.reasons[0]


def test_files_of_other_ranks_or_modules_are_no_pair(halves: tuple[Path, Path], tmp_path: Path) -> None:
    low, _ = halves
    ranked = write(bases.LAYOUTS["wan-22-t2v-a14b"], tmp_path / "ranked.safetensors", rank=2)
    report = check_lora_pair(low, ranked, expected_base="wan-22-t2v-a14b")
    assert report.verdict == "broken"
    assert "rank 1 for low noise, 2 for high noise" in report.reasons[0]
    spelled = write(bases.layout_of("wan-22-t2v-a14b", "kohya"), tmp_path / "spelled.safetensors")
    apart = check_lora_pair(low, spelled, expected_base="wan-22-t2v-a14b")
    assert apart.verdict == "broken"
    assert "do not adapt the same modules" in apart.reasons[-1]


def test_a_pair_is_as_bad_as_its_worse_file_and_says_which(halves: tuple[Path, Path], tmp_path: Path) -> None:
    low, high = halves
    info = json.dumps({"step": 11, "epoch": 0})
    short = write(bases.LAYOUTS["wan-22-t2v-a14b"], tmp_path / "short.safetensors", training_info=info)
    report = check_lora_pair(low, short, expected_base="wan-22-t2v-a14b", expected_steps=40)
    assert report.verdict == "broken"
    assert report.reasons == ("For high noise: It stopped early: its trainer counted 11 of 40 steps.",)
    wrong = check_lora_pair(low, high, expected_base="flux-1-dev")
    assert wrong.verdict == "wrong_base"
    assert len(wrong.reasons) == 2
