"""Which base model a LoRA was made for, read from its module names and shapes.

It names the architecture, never the checkpoint: fine-tunes share their base's layout, Wan 2.1 and 2.2 14B (high and
low noise, text and image to video) are the same in keys and shapes, and so are MiniMax H3 for text and for images.
What cannot be told is `unknown`, not a guess. Sources: shared/reference/runpod_trainers.md 4.2-4.4 (2026-08); for
MiniMax H3 huggingface/diffusers, src/diffusers/models/transformers/transformer_minimax_h3.py (diffusers' names), and
ostris/ai-toolkit, extensions_built_in/diffusion_models/minimax_h3/src/transformer.py (the original ones); for LTX-2.3
the latter's ltx2/convert_ltx2_to_diffusers.py, all read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple


class Pair(NamedTuple):
    """One adapted module: its name in the file, rank, and the linear layer's inputs and outputs."""

    name: str
    rank: int
    inputs: int
    outputs: int


BASES_SERVED: dict[str, frozenset[str]] = {
    "flux-1-dev": frozenset({"flux-1-dev", "flux-1-schnell", "flux-1-kontext-dev", "flux-1-krea-dev"}),
    "flux-2-dev": frozenset({"flux-2-dev", "flux-2"}),
    "flux-2-klein-9b": frozenset({"flux-2-klein-9b"}),
    "flux-2-klein-4b": frozenset({"flux-2-klein-4b"}),
    "hunyuan-video": frozenset({"hunyuan-video"}),
    "hunyuan-video-15": frozenset({"hunyuan-video-15"}),
    "ltx-23": frozenset({"ltx-23", "ltx-2"}),
    "minimax-h3": frozenset({"minimax-h3-t2v", "minimax-h3-i2v"}),
    "qwen-image": frozenset({"qwen-image", "qwen-image-edit", "qwen"}),
    "sd-1": frozenset({"sd-1", "sd-15"}),
    "sd-2": frozenset({"sd-2"}),
    "sdxl": frozenset({"sdxl", "pony", "illustrious"}),
    "wan-21-i2v-14b": frozenset({"wan-21-i2v-14b"}),
    "wan-21-t2v-1.3b": frozenset({"wan-21-t2v-1.3b"}),
    "wan-22-t2v-a14b": frozenset({"wan-22-t2v-a14b", "wan-22-i2v-a14b", "wan-21-t2v-14b"}),
    "z-image": frozenset({"z-image", "z-image-turbo"}),
}
"""Layout → the bases whose LoRAs look so. `wan-22-t2v-a14b` stands for the whole Wan 14B layout without image keys,
`ltx-23` for every LTX network 4096 wide: the older 13B has the same names there, and no model here loads it."""

_FLUX_1 = frozenset({"flux-1-dev", "flux-1-schnell", "flux-1-krea-dev"})
_WAN_21 = frozenset({"wan-21-t2v-1.3b", "wan-21-t2v-14b", "wan-21-i2v-14b"})
_WAN_22 = frozenset({"wan-22-t2v-a14b", "wan-22-i2v-a14b"})

_NAMED_BY_TRAINER = {
    "flux.1": _FLUX_1,
    "flux1": _FLUX_1,
    "flux.1_kontext": frozenset({"flux-1-kontext-dev"}),
    "flux_kontext": frozenset({"flux-1-kontext-dev"}),
    "chroma": frozenset({"chroma"}),
    "flux2": BASES_SERVED["flux-2-dev"],
    "flux_2_dev": BASES_SERVED["flux-2-dev"],
    "flux2_klein_4b": BASES_SERVED["flux-2-klein-4b"],
    "flux_2_klein_4b": BASES_SERVED["flux-2-klein-4b"],
    "flux2_klein_9b": BASES_SERVED["flux-2-klein-9b"],
    "flux_2_klein_9b": BASES_SERVED["flux-2-klein-9b"],
    "sdxl_1.0": BASES_SERVED["sdxl"],
    "sdxl_base_v1-0": BASES_SERVED["sdxl"],
    "sd_1.5": BASES_SERVED["sd-1"],
    "wan_2.1": _WAN_21,
    "wan_2.2_14b": _WAN_22,
    "wan_2.2_5b": frozenset({"wan-22-5b"}),
    "hunyuan_video": BASES_SERVED["hunyuan-video"],
    "hunyuan_video_1_5": BASES_SERVED["hunyuan-video-15"],
    "qwen_image": BASES_SERVED["qwen-image"],
    "zimage": BASES_SERVED["z-image"],
    "z_image": BASES_SERVED["z-image"],
    "ltx2": BASES_SERVED["ltx-23"],
    "minimax_h3": BASES_SERVED["minimax-h3"],
}
"""`ss_base_model_version` in the trainers' spellings → the bases it may mean. musubi's plain `wan` says nothing and is
left out."""

_DOTTED_PREFIX = re.compile(r"^(base_model\.model\.|model\.|diffusion_model\.|transformer\.|unet\.)+")
_PREFIX = re.compile(
    r"^(base_model_model_|model_|diffusion_model_|transformer_(?!blocks)|unet_|lora_unet_|lora_transformer_)+"
)


def serves(layout: str, base: str) -> bool:
    """Can a LoRA of this layout be meant for this base?"""
    return base in BASES_SERVED.get(layout, frozenset({layout}))


def bases_named_by(metadata: Mapping[str, str]) -> frozenset[str]:
    """The bases that the trainer's word in the file may mean, in ours; none when it says nothing we know.

    A stranger's claim, never a proof.
    """
    return _NAMED_BY_TRAINER.get(metadata.get("ss_base_model_version", "").strip().lower(), frozenset())


def layout_of(pairs: Sequence[Pair], tensor_names: Collection[str]) -> str:
    """The architecture whose names and shapes these are (a key of `BASES_SERVED`), or `unknown`."""
    modules = _Modules(pairs)
    if modules.has(r"^(down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)_"):
        return _stable_diffusion(modules, tensor_names)
    if modules.has(r"^blocks_\d+_(self_attn_[qkvo]|cross_attn_|attn[12]_to_|ffn_)"):
        return _wan(modules)
    if modules.has(r"^(layers|noise_refiner|context_refiner)_\d+_(attention|feed_forward|adaLN)"):
        return "z-image" if modules.width(r"_(attention_(to_)?(q|qkv|k|v)|feed_forward_w[13])$") == 3840 else "unknown"
    if modules.has(r"^blocks_\d+_(attn_(qkv|out)_proj|mlp_fc[12])$"):
        return "minimax-h3" if modules.width(r"^blocks_\d+_(attn_qkv_proj|mlp_fc1)$") == 5376 else "unknown"
    if modules.has(r"^(double|single)_blocks_\d+_"):
        return _flux_or_hunyuan_original(modules)
    if modules.has(r"^transformer_blocks_\d+_(audio_)?attn[12]_to_"):
        return (
            "ltx-23" if modules.width(r"^transformer_blocks_\d+_(attn[12]_to_q|ff_net_0_proj)$") == 4096 else "unknown"
        )
    if modules.has(r"^(single_)?transformer_blocks_\d+_"):
        return _flux_hunyuan_or_qwen_diffusers(modules)
    return "unknown"


class _Modules:
    """Pairs under one spelling: prefix off, dots as underscores, text encoders left out."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs: dict[str, Pair] = {}
        for pair in pairs:
            if not pair.name.startswith(("lora_te", "text_encoder")):
                name = _DOTTED_PREFIX.sub("", pair.name)
                self._pairs[_PREFIX.sub("", name.replace(".", "_"))] = pair

    def find(self, pattern: str) -> list[Pair]:
        wanted = re.compile(pattern)
        return [pair for name, pair in self._pairs.items() if wanted.search(name)]

    def has(self, pattern: str) -> bool:
        return bool(self.find(pattern))

    def width(self, pattern: str) -> int | None:
        """The one input width of all modules that match, or None when there are none or they differ."""
        widths = {pair.inputs for pair in self.find(pattern)}
        return widths.pop() if len(widths) == 1 else None

    def last_block(self, family: str) -> int:
        """Highest block index of `family`, -1 without any."""
        number = re.compile(rf"^{family}_(\d{{1,4}})_")
        return max((int(found[1]) for name in self._pairs if (found := number.match(name))), default=-1)


def _stable_diffusion(modules: _Modules, tensor_names: Collection[str]) -> str:
    match modules.width(r"attn2_to_[kv]$"):
        case 768:
            return "sd-1"
        case 1024:
            return "sd-2"
        case 2048 | 1280:
            return "sdxl"
    return "sdxl" if any(name.startswith("lora_te2_") for name in tensor_names) else "unknown"


def _wan(modules: _Modules) -> str:
    match modules.width(r"_(self_attn_[qkvo]|cross_attn_[qo]|attn1_to_[qkv]|attn2_to_q|ffn_0|ffn_net_0_proj)$"):
        case 5120:
            has_image_keys = modules.has(r"_(k_img|v_img|attn2_add_k_proj|attn2_add_v_proj)$")
            return "wan-21-i2v-14b" if has_image_keys else "wan-22-t2v-a14b"
        case 1536:
            return "wan-21-t2v-1.3b"
    return "unknown"


def _flux_or_hunyuan_original(modules: _Modules) -> str:
    match modules.width(r"_((img|txt)_attn_(qkv|[qkv])|(img|txt)_mlp_(0|fc1)|linear1)$"):
        case 6144:
            return "flux-2-dev"
        case 4096:
            return "flux-2-klein-9b"
        case 2048:
            return "hunyuan-video-15"
        case 3072:
            return _of_width_3072(modules)
    return "unknown"


def _of_width_3072(modules: _Modules) -> str:
    """FLUX.1, klein-4B and HunyuanVideo share names and width: feed-forward name and size decide, then block count."""
    last_double, last_single = modules.last_block("double_blocks"), modules.last_block("single_blocks")
    if modules.has(r"_(img|txt)_mlp_fc[12]$") or last_double == 19 or last_single in (38, 39):
        return "hunyuan-video"
    if any(pair.outputs in (18432, 27648) for pair in modules.find(r"_((img|txt)_mlp_0|linear1)$")):
        return "flux-2-klein-4b"
    if modules.has(r"_(img|txt)_mlp_0$") or last_double == 18 or last_single == 37:
        return "flux-1-dev"
    return "unknown"


def _flux_hunyuan_or_qwen_diffusers(modules: _Modules) -> str:
    width = modules.width(r"_attn_(to_[qkv]|to_qkv_mlp_proj|add_[qkv]_proj)$")
    if modules.has(r"(attn_to_qkv_mlp_proj|ff_linear_in|ff_context_linear_in)$"):
        return {6144: "flux-2-dev", 4096: "flux-2-klein-9b", 3072: "flux-2-klein-4b"}.get(width or 0, "unknown")
    last_double = modules.last_block("transformer_blocks")
    last_single = modules.last_block("single_transformer_blocks")
    if width == 5376:
        return "minimax-h3"
    if width == 2048:
        # Its fifty-four blocks tell HunyuanVideo 1.5 from smaller models of this common width.
        return "hunyuan-video-15" if last_single < 0 and last_double >= 40 else "unknown"
    if width != 3072:
        return "unknown"
    if last_single >= 0:
        # Diffusers gives HunyuanVideo (20 + 40) and FLUX.1 (19 + 38) the same names: only the last blocks differ.
        return "hunyuan-video" if last_double == 19 or last_single >= 38 else "flux-1-dev"
    if last_double >= 20 or modules.has(r"_(img_mlp|txt_mlp|img_mod_1|txt_mod_1)"):
        return "qwen-image"
    return "flux-1-dev" if modules.has(r"_(ff_context_net|norm1_context_linear)") else "unknown"
