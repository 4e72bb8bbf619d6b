"""Which bases a LoRA file may be for, told from the names and widths in its header, as a vendor's loader would.

It is the sandbox's own reading and knows nothing of our file check, so that the two cannot agree by sharing a mistake.
Where real servers cannot tell bases apart (Wan's 14B family, Z-Image and its Turbo, MiniMax H3 for text and for images)
the file is good for each of them. Names and widths: shared/reference/runpod_trainers.md 4.3, and where
`engine/bases.py` says.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

_LARGEST_HEADER_BYTES = 100_000_000
_FACTOR = re.compile(r"^(.+)\.(?:lora_A|lora_down)(?:\.default)?\.weight$")
_BEFORE = re.compile(r"^(?:base_model\.model\.)?(?:transformer|diffusion_model|unet|lora_unet|lora_transformer)[._]")

_WAN_14B = frozenset({"wan-21-t2v-14b", "wan-22-t2v-a14b", "wan-22-i2v-a14b"})
_H3 = frozenset({"minimax-h3-t2v", "minimax-h3-i2v"})
_FLUX_2 = {6144: "flux-2-dev", 4096: "flux-2-klein-9b", 3072: "flux-2-klein-4b"}


def bases_of(path: Path) -> frozenset[str]:
    """Every base this file could be loaded into; empty for what is no LoRA or one of an unknown model."""
    try:
        widths = {
            _BEFORE.sub("", found[1]).replace(".", "_"): int(entry["shape"][1])
            for name, entry in _header(path).items()
            if (found := _FACTOR.match(name))
        }
    except (ValueError, TypeError, LookupError):
        return frozenset()
    return _bases(widths)


def expert_of(path: Path) -> str:
    """`low` or `high` for one of the two files of a LoRA that the sandbox trained, '' for any other."""
    written = _header(path).get("__metadata__")
    return str(written.get("sandbox_expert", "")) if isinstance(written, dict) else ""


def _header(path: Path) -> dict[str, Any]:
    """What the file says of itself; nothing when it cannot be read."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length <= _LARGEST_HEADER_BYTES else {}
    except (OSError, ValueError, struct.error, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def _bases(widths: dict[str, int]) -> frozenset[str]:
    """`widths` is, for each module, how many values go into it."""

    def met(pattern: str) -> set[int]:
        wanted = re.compile(pattern)
        return {width for name, width in widths.items() if wanted.search(name)}

    read = met(r"(attentions_\d+|put_blocks_\d+_1|middle_block_1)_transformer_blocks_\d+_attn2_to_[kv]$")
    if read & {768, 2048}:
        return frozenset({"sdxl" if 2048 in read else "sd-15"})
    if deep := met(r"^blocks_\d+_(self_attn|cross_attn|attn[12]|ffn)_"):
        if 1536 in deep:
            return frozenset({"wan-21-t2v-1.3b"})
        sees = bool(met(r"_(k_img|v_img|add_[kv]_proj)$"))
        return (frozenset({"wan-21-i2v-14b"}) if sees else _WAN_14B) if 5120 in deep else frozenset()
    if 3840 in met(r"^layers_\d+_"):
        return frozenset({"z-image", "z-image-turbo"})
    if met(r"^blocks_\d+_(attn_qkv_proj|mlp_fc1)$") == {5376} or 5376 in met(r"^transformer_blocks_\d+_attn_to_"):
        return _H3
    if 4096 in met(r"^transformer_blocks_\d+_attn[12]_to_[qkv]$"):
        return frozenset({"ltx-23"})
    if gated := met(r"_(ff_linear_in|ff_context_linear_in|attn_to_qkv_mlp_proj)$"):
        return frozenset(_FLUX_2[width] for width in gated & _FLUX_2.keys())
    return _of_two_streams(widths, met(r"(img_attn_q|img_attn_qkv|img_mlp_0|img_mlp_fc1|linear1|attn_to_[qv])$"))


def _of_two_streams(widths: dict[str, int], hidden: set[int]) -> frozenset[str]:
    """FLUX, HunyuanVideo and Qwen-Image: alike in names, and in part in width too, so that the counts decide."""
    names = " ".join(widths)
    counts = {
        family: max((int(k) for k in re.findall(rf"(?:^| ){family}_(\d+)_", names)), default=-1)
        for family in ("double_blocks", "single_blocks", "transformer_blocks", "single_transformer_blocks")
    }
    doubles = max(counts["double_blocks"], counts["transformer_blocks"])
    singles = max(counts["single_blocks"], counts["single_transformer_blocks"])
    if doubles < 0 and singles < 0:
        return frozenset()
    if 2048 in hidden:
        return frozenset({"hunyuan-video-15"})
    if counts["double_blocks"] >= 0 and (large := hidden & {4096, 6144}):
        return frozenset(_FLUX_2[width] for width in large)
    if 3072 not in hidden:
        return frozenset()
    if "img_mlp_net" in names or "txt_mlp_net" in names or doubles > 19:
        return frozenset({"qwen-image"})
    if "mlp_fc" in names or doubles == 19 or singles > 37:
        return frozenset({"hunyuan-video"})
    if "double_blocks" in names and doubles <= 4 and singles <= 19:
        return frozenset({"flux-2-klein-4b"})
    return frozenset({"flux-1-dev"})
