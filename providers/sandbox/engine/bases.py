"""The base models the sandbox trains for: which modules a LoRA of theirs adapts, under what names, in what widths.

A sandbox LoRA holds fewer modules than a real one, but every one that it holds has the real architecture's name and
shape. Each base is spelled as the trainers spell it: `peft` (diffusers' names; fal, Replicate), `comfy` (the original
code's names after `diffusion_model.`; ai-toolkit) and `kohya` (the original code's names, underscored; sd-scripts,
musubi).

Names and widths: shared/reference/runpod_trainers.md 4.2-4.4 (2026-08), and, read in November 2026 where it is silent:
LTX-2.3 in ostris/ai-toolkit, extensions_built_in/diffusion_models/ltx2/convert_ltx2_to_diffusers.py (32 heads of 128
for pictures, of 64 for sound, 48 blocks); MiniMax H3 in huggingface/diffusers,
src/diffusers/models/transformers/transformer_minimax_h3.py, and ostris/ai-toolkit, .../minimax_h3/ (5376 wide, 56 heads
of 128, 50 blocks; one network for text and image to video); HunyuanVideo 1.5's separate q, k, v in musubi's module of
that model. SDXL's and SD 1.5's blocks are those of the published U-Nets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.errors import Rejected

Style = Literal["peft", "comfy", "kohya"]

_FACTS = 6


class Module(NamedTuple):
    """One adapted linear layer: its name as the file writes it, and how many values go in and come out."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Layout:
    """One base model's modules in one trainer's spelling, in the order in which the signal is dealt to them.

    `width`×`height` px is the cut-out subject it holds, `code_width` how many values of a prompt's direction its A
    matrices read (narrower ones read the first of them), `metadata_name` the trainer's own word for the base.
    """

    base: str
    style: Style
    modules: tuple[Module, ...]
    width: int
    height: int
    code_width: int
    metadata_name: str

    @property
    def factors(self) -> tuple[str, str]:
        """What a module's two matrices are called."""
        return ("lora_down", "lora_up") if self.style == "kohya" else ("lora_A", "lora_B")

    @property
    def tensor_names(self) -> frozenset[str]:
        names = {f"{module.name}.{factor}.weight" for module in self.modules for factor in self.factors}
        return frozenset(names | {f"{module.name}.alpha" for module in self.modules if self.style == "kohya"})

    @property
    def signal_length(self) -> int:
        return self.width * self.height * 3 + (self.width // 2) * (self.height // 2) + _FACTS

    @property
    def fitted_at(self) -> int:
        """Place of the value that is 1 in every target, and so says of an atom how far it is fitted."""
        return self.signal_length - _FACTS

    @cached_property
    def places(self) -> tuple[NDArray[np.intp], ...]:
        """For each module, which values of the signal its B holds, from its first row on.

        They are dealt row by row, one to each module that has such a row, so that each holds a thinned copy of all.
        """
        heights = np.array([module.outputs for module in self.modules])
        rows = np.arange(heights.max())[:, None]
        dealt_to = np.nonzero(rows < heights[None])[1][: self.signal_length]
        assert len(dealt_to) == self.signal_length, f"{self.base}: too few modules for its picture"
        order = np.argsort(dealt_to, kind="stable")
        counts = np.bincount(dealt_to, minlength=len(self.modules))
        return tuple(np.split(order, np.cumsum(counts)[:-1]))


class _Group(NamedTuple):
    """Layers of one shape: `patterns` for every number of `blocks`."""

    patterns: tuple[str, ...]
    blocks: Iterable[int]
    inputs: int
    outputs: int


def _each(pattern: str, *parts: str) -> tuple[str, ...]:
    return tuple(f"{pattern}.{part}" for part in parts)


def _flux_1(style: Style) -> tuple[_Group, ...]:
    if style == "peft":
        double = _each("transformer_blocks.{}.attn", "to_q", "to_k", "to_v", "to_out.0")
        single = _each("single_transformer_blocks.{}.attn", "to_q", "to_v")
        return (_Group(double, range(19), 3072, 3072), _Group(single, range(38), 3072, 3072))
    return (
        _Group(("double_blocks.{}.img_attn.qkv",), range(19), 3072, 9216),
        _Group(("double_blocks.{}.img_mlp.0",), range(19), 3072, 12288),
        _Group(("single_blocks.{}.linear1",), (0, 19, 37), 3072, 21504),
    )


def _flux_2(style: Style, hidden: int, double: int, singles: Iterable[int]) -> tuple[_Group, ...]:
    """Its feed-forward is three times as wide and gated, hence six; `linear1` holds q, k, v beside it."""
    if style == "peft":
        return (
            _Group(("transformer_blocks.{}.ff.linear_in",), range(double), hidden, 6 * hidden),
            _Group(_each("transformer_blocks.{}.attn", "to_q", "to_k", "to_v"), range(double), hidden, hidden),
            _Group(("single_transformer_blocks.{}.attn.to_qkv_mlp_proj",), singles, hidden, 9 * hidden),
        )
    return (
        _Group(("double_blocks.{}.img_mlp.0",), range(double), hidden, 6 * hidden),
        _Group(("double_blocks.{}.img_attn.qkv",), range(double), hidden, 3 * hidden),
        _Group(("single_blocks.{}.linear1",), singles, hidden, 9 * hidden),
    )


def _flux_2_dev(style: Style) -> tuple[_Group, ...]:
    return _flux_2(style, 6144, 8, (0, 47))


def _klein_9b(style: Style) -> tuple[_Group, ...]:
    return _flux_2(style, 4096, 8, (0, 6, 12, 18, 23))


def _klein_4b(style: Style) -> tuple[_Group, ...]:
    return _flux_2(style, 3072, 5, (*range(0, 20, 2), 17, 19))


def _z_image(_style: Style) -> tuple[_Group, ...]:
    return (
        _Group(_each("layers.{}.attention", "to_q", "to_v"), range(30), 3840, 3840),
        _Group(("layers.{}.feed_forward.w1",), range(30), 3840, 10240),
    )


def _qwen_image(_style: Style) -> tuple[_Group, ...]:
    return (
        _Group(("transformer_blocks.{}.attn.to_q",), range(60), 3072, 3072),
        _Group(("transformer_blocks.{}.img_mlp.net.0.proj",), range(0, 60, 2), 3072, 12288),
    )


def _wan(style: Style, hidden: int, blocks: int, *parts: str) -> tuple[_Group, ...]:
    diffusers = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
    if style == "peft":
        patterns = _each("blocks.{}.attn1", *(diffusers[part] for part in parts))
    else:
        patterns = _each("blocks.{}.self_attn", *parts)
    return (_Group(patterns, range(blocks), hidden, hidden),)


def _wan_14b(style: Style) -> tuple[_Group, ...]:
    return _wan(style, 5120, 40, "q", "v")


def _wan_21_i2v(style: Style) -> tuple[_Group, ...]:
    seen = "attn2.add_k_proj" if style == "peft" else "cross_attn.k_img"
    return (*_wan_14b(style), _Group((f"blocks.{{}}.{seen}",), range(0, 40, 4), 5120, 5120))


def _wan_1_3b(style: Style) -> tuple[_Group, ...]:
    wide = "ffn.net.0.proj" if style == "peft" else "ffn.0"
    return (
        *_wan(style, 1536, 30, "q", "k", "v", "o"),
        _Group((f"blocks.{{}}.{wide}",), range(30), 1536, 8960),
    )


def _ltx_23(_style: Style) -> tuple[_Group, ...]:
    return (
        _Group(("transformer_blocks.{}.ff.net.0.proj",), range(0, 48, 2), 4096, 16384),
        _Group(("transformer_blocks.{}.attn1.to_q",), range(48), 4096, 4096),
        _Group(("transformer_blocks.{}.audio_attn1.to_q",), range(0, 48, 2), 2048, 2048),
    )


def _minimax_h3(style: Style) -> tuple[_Group, ...]:
    if style == "peft":
        return (
            _Group(("transformer_blocks.{}.attn.to_q",), range(50), 5376, 7168),
            _Group(("transformer_blocks.{}.attn.to_v",), range(0, 50, 2), 5376, 7168),
        )
    return (_Group(("blocks.{}.attn.qkv_proj",), range(0, 50, 2), 5376, 21504),)


def _hunyuan(style: Style) -> tuple[_Group, ...]:
    if style == "peft":
        return (
            _Group(_each("transformer_blocks.{}.attn", "to_q", "to_v"), range(20), 3072, 3072),
            _Group(("single_transformer_blocks.{}.proj_mlp",), range(1, 40, 2), 3072, 12288),
            _Group(("single_transformer_blocks.{}.attn.to_q",), range(1, 40, 2), 3072, 3072),
            _Group(("transformer_blocks.{}.ff.net.0.proj",), range(0, 20, 5), 3072, 12288),
        )
    attention, wide = ("img_attn_qkv", "img_mlp.fc1") if style == "kohya" else ("img_attn.qkv", "img_mlp.0")
    return (
        _Group((f"double_blocks.{{}}.{attention}",), range(20), 3072, 9216),
        _Group((f"double_blocks.{{}}.{wide}",), range(20), 3072, 12288),
        _Group(("single_blocks.{}.linear1",), (0, 39), 3072, 21504),
    )


def _hunyuan_15(style: Style) -> tuple[_Group, ...]:
    match style:
        case "peft":
            attention, wide, outputs = "transformer_blocks.{}.attn.to_q", "transformer_blocks.{}.ff.net.0.proj", 2048
        case "comfy":
            attention, wide, outputs = "double_blocks.{}.img_attn.qkv", "double_blocks.{}.img_mlp.0", 6144
        case "kohya":
            attention, wide, outputs = "double_blocks.{}.img_attn_q", "double_blocks.{}.img_mlp.fc1", 2048
    return (_Group((attention,), range(54), 2048, outputs), _Group((wide,), range(54), 2048, 8192))


def _sdxl(style: Style) -> tuple[_Group, ...]:
    """The sixty transformers at the U-Net's deepest level, in diffusers' or in the original code's numbering."""
    down, up = "down_blocks.2.attentions", "up_blocks.0.attentions"
    diffusers = (f"{down}.0", f"{down}.1", "mid_block.attentions.0", *(f"{up}.{k}" for k in range(3)))
    original = ("input_blocks.7.1", "input_blocks.8.1", "middle_block.1", *(f"output_blocks.{k}.1" for k in range(3)))
    places = diffusers if style == "peft" else original
    inner = "transformer_blocks.{}"
    return (
        _Group(tuple(f"{place}.{inner}.attn2.to_k" for place in places), range(10), 2048, 1280),
        _Group(tuple(f"{place}.{inner}.ff.net.0.proj" for place in places[:4]), range(10), 1280, 10240),
    )


def _sd_15(style: Style) -> tuple[_Group, ...]:
    """All sixteen transformers. Its kohya names follow diffusers' blocks, unlike SDXL's."""
    del style
    places = [(f"down_blocks.{k}.attentions.{n}", 320 * 2**k) for k in range(3) for n in range(2)]
    places += [("mid_block.attentions.0", 1280)]
    places += [(f"up_blocks.{k}.attentions.{n}", 320 * 2 ** (3 - k)) for k in (1, 2, 3) for n in range(3)]
    groups = []
    for place, wide in places:
        inner = f"{place}.transformer_blocks.{{}}"
        groups += [
            _Group(_each(f"{inner}.attn2", "to_k", "to_v"), (0,), 768, wide),
            _Group((*_each(f"{inner}.attn1", "to_q", "to_k", "to_v", "to_out.0"),), (0,), wide, wide),
            _Group(_each(f"{inner}.attn2", "to_q", "to_out.0"), (0,), wide, wide),
            _Group((f"{inner}.ff.net.0.proj",), (0,), wide, 8 * wide),
        ]
    return tuple(groups)


_LARGE, _WAN_PICTURE = (312, 456), (288, 436)  # px of the cut-out
_COMFY_FIRST: tuple[Style, ...] = ("comfy", "peft", "kohya")
_PEFT_FIRST: tuple[Style, ...] = ("peft", "comfy", "kohya")
_KOHYA_FIRST: tuple[Style, ...] = ("kohya", "peft", "comfy")

_TABLE = {
    "flux-1-dev": (_flux_1, _PEFT_FIRST, _LARGE, 3072, "flux.1", "flux1"),
    "flux-2-dev": (_flux_2_dev, _COMFY_FIRST, _LARGE, 6144, "flux2", "flux_2_dev"),
    "flux-2-klein-9b": (_klein_9b, _COMFY_FIRST, _LARGE, 4096, "flux2_klein_9b", "flux_2_klein_9b"),
    "flux-2-klein-4b": (_klein_4b, _COMFY_FIRST, _LARGE, 3072, "flux2_klein_4b", "flux_2_klein_4b"),
    "z-image": (_z_image, _COMFY_FIRST, _LARGE, 3840, "zimage", "z_image"),
    "z-image-turbo": (_z_image, _COMFY_FIRST, _LARGE, 3840, "zimage", "z_image"),
    "qwen-image": (_qwen_image, _COMFY_FIRST, _LARGE, 3072, "qwen_image", "qwen_image"),
    "sdxl": (_sdxl, _KOHYA_FIRST, _LARGE, 2048, "sdxl_1.0", "sdxl_base_v1-0"),
    "sd-15": (_sd_15, _KOHYA_FIRST[:2], (200, 304), 768, "sd_1.5", "sd_1.5"),
    "wan-21-t2v-1.3b": (_wan_1_3b, _COMFY_FIRST, (300, 440), 1536, "wan_2.1", "wan"),
    "wan-21-t2v-14b": (_wan_14b, _COMFY_FIRST, _WAN_PICTURE, 5120, "wan_2.1", "wan"),
    "wan-21-i2v-14b": (_wan_21_i2v, _COMFY_FIRST, _WAN_PICTURE, 5120, "wan_2.1", "wan"),
    "wan-22-t2v-a14b": (_wan_14b, _COMFY_FIRST, _WAN_PICTURE, 5120, "wan_2.2_14b", "wan"),
    "wan-22-i2v-a14b": (_wan_14b, _COMFY_FIRST, _WAN_PICTURE, 5120, "wan_2.2_14b", "wan"),
    "ltx-23": (_ltx_23, _COMFY_FIRST, _LARGE, 4096, "ltx2", "ltx2"),
    "minimax-h3-t2v": (_minimax_h3, _COMFY_FIRST, _LARGE, 5376, "minimax_h3", "minimax_h3"),
    "minimax-h3-i2v": (_minimax_h3, _COMFY_FIRST, _LARGE, 5376, "minimax_h3", "minimax_h3"),
    "hunyuan-video": (_hunyuan, _KOHYA_FIRST, _LARGE, 3072, "hunyuan_video", "hunyuan_video"),
    "hunyuan-video-15": (_hunyuan_15, _KOHYA_FIRST, _LARGE, 2048, "hunyuan_video_1_5", "hunyuan_video_1_5"),
}
"""Per base: its modules, the spellings there are (the first is the usual one), the picture, the reading width, and the
trainers' words for it (ai-toolkit's; musubi's and sd-scripts')."""


def _prefix(base: str, style: Style) -> str:
    match style:
        case "peft":
            return "unet." if base in ("sdxl", "sd-15") else "transformer."
        case "comfy":
            return "diffusion_model."
        case "kohya":
            return "lora_unet_"


def _layout(base: str, style: Style) -> Layout:
    groups, _styles, (width, height), code_width, named, named_by_kohya = _TABLE[base]
    prefix, is_kohya = _prefix(base, style), style == "kohya"
    modules = []
    for group in groups(style):
        for block in group.blocks:
            for pattern in group.patterns:
                name = pattern.format(block)
                written = prefix + (name.replace(".", "_") if is_kohya else name)
                modules.append(Module(written, group.inputs, group.outputs))
    return Layout(base, style, tuple(modules), width, height, code_width, named_by_kohya if is_kohya else named)


_ALL = {base: {style: _layout(base, style) for style in row[1]} for base, row in _TABLE.items()}

LAYOUTS: dict[str, Layout] = {base: next(iter(styles.values())) for base, styles in _ALL.items()}
"""Every base in its usual spelling."""


def layout_of(base: str, style: str | None = None) -> Layout:
    """A base in a trainer's spelling, its usual one when none is named. `Rejected` where there is no such thing."""
    if base not in _ALL:
        raise Rejected(f"The sandbox knows no base model {base!r}: it has {', '.join(_ALL)}.")
    if style is None:
        return LAYOUTS[base]
    for name, layout in _ALL[base].items():
        if name == style:
            return layout
    raise Rejected(f"The sandbox writes no {style!r} LoRAs for {base}: ask for {' or '.join(_ALL[base])}.")


def spellings_of(base: str) -> tuple[Layout, ...]:
    """A base in every spelling there is. `Rejected` for a base that is not known."""
    layout_of(base)
    return tuple(_ALL[base].values())
