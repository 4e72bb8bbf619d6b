"""A tiny engine with the real one's signatures, for tests of the sandbox's wire: its files are small and plain.

A LoRA is a safetensors header with one tensor name of its base; pictures and clips are bytes that tell what they were
made with. The environment is not read and nothing is waited for.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TENSOR_OF = {
    "flux-1-dev": ("transformer.transformer_blocks.0.attn.to_q", 3072),
    "flux-2-dev": ("diffusion_model.double_blocks.0.img_attn.qkv", 6144),
    "flux-2-klein-9b": ("diffusion_model.double_blocks.0.img_attn.qkv", 4096),
    "flux-2-klein-4b": ("transformer.transformer_blocks.0.ff.linear_in", 3072),
    "z-image": ("diffusion_model.layers.0.attention.to_q", 3840),
    "z-image-turbo": ("diffusion_model.layers.0.attention.to_q", 3840),
    "qwen-image": ("diffusion_model.transformer_blocks.59.attn.to_q", 3072),
    "sdxl": ("unet.down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_k", 2048),
    "sd-15": ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", 768),
    "wan-21-t2v-1.3b": ("diffusion_model.blocks.0.self_attn.q", 1536),
    "wan-21-t2v-14b": ("diffusion_model.blocks.0.self_attn.q", 5120),
    "wan-21-i2v-14b": ("diffusion_model.blocks.0.cross_attn.k_img", 5120),
    "wan-22-t2v-a14b": ("diffusion_model.blocks.0.self_attn.q", 5120),
    "wan-22-i2v-a14b": ("diffusion_model.blocks.0.self_attn.q", 5120),
    "ltx-23": ("diffusion_model.transformer_blocks.0.attn1.to_q", 4096),
    "minimax-h3-t2v": ("diffusion_model.blocks.0.attn.qkv_proj", 5376),
    "minimax-h3-i2v": ("diffusion_model.blocks.0.attn.qkv_proj", 5376),
    "hunyuan-video": ("transformer.double_blocks.19.img_attn_qkv", 3072),
    "hunyuan-video-15": ("transformer.double_blocks.0.img_attn_q", 2048),
}


def write_lora(out: Path, base: str, expert: str | None = None) -> None:
    module, width = TENSOR_OF[base]
    tensor = {"dtype": "F16", "shape": [1, width], "data_offsets": [0, 2 * width]}
    metadata = {"sandbox": "true"} | ({"sandbox_expert": expert} if expert else {})
    header = json.dumps({f"{module}.lora_A.weight": tensor, "__metadata__": metadata}).encode()
    out.write_bytes(struct.pack("<Q", len(header)) + header + bytes(2 * width))


def train_lora(
    zip_path: Path,
    *,
    base: str,
    trigger_word: str,
    steps: int,
    learning_rate: float | None,
    rank: int = 16,
    style: str | None = None,
    expert: str | None = None,
    out: Path,
    on_progress: Callable[[int, int, float], None],
) -> float:
    for step in range(1, steps + 1):
        on_progress(step, steps, 1 / step)
    write_lora(out, base, expert)
    return 1 / steps


def draw_still(
    *,
    prompt: str,
    seed: int,
    width: int,
    height: int,
    loras: Sequence[tuple[Path, float]],
    faces: Sequence[Path] = (),
    base: str = "flux-1-dev",
    out: Path,
    image_format: str = "jpeg",
) -> None:
    strengths = [scale for _, scale in loras]
    out.write_text(
        json.dumps({"prompt": prompt, "seed": seed, "size": [width, height], "loras": strengths, "faces": len(faces)})
    )


def film(*, out: Path, ffmpeg: str, **facts: Any) -> None:
    out.write_text(json.dumps(facts, default=str) + "." * 1000)


def describe_picture(path: Path, *, length: str = "normal") -> str:
    return f"a {length} word on {path.stat().st_size} bytes"


training = SimpleNamespace(train_lora=train_lora)
drawing = SimpleNamespace(draw_still=draw_still)
filming = SimpleNamespace(film_image=film, film_elements=film, film_text=film)
describing = SimpleNamespace(describe_picture=describe_picture)
