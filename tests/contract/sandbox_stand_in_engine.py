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
    "flux-1-dev": "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
    "wan-22-t2v-a14b": "diffusion_model.blocks.0.self_attn.q.lora_A.weight",
}


def write_lora(out: Path, base: str) -> None:
    tensor = {"dtype": "F16", "shape": [1, 1], "data_offsets": [0, 2]}
    header = json.dumps({TENSOR_OF[base]: tensor, "__metadata__": {"sandbox": "true"}}).encode()
    out.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")


def train_lora(
    zip_path: Path,
    *,
    base: str,
    trigger_word: str,
    steps: int,
    learning_rate: float | None,
    rank: int = 16,
    out: Path,
    on_progress: Callable[[int, int, float], None],
) -> float:
    for step in range(1, steps + 1):
        on_progress(step, steps, 1 / step)
    write_lora(out, base)
    return 1 / steps


def draw_still(
    *,
    prompt: str,
    seed: int,
    width: int,
    height: int,
    loras: Sequence[tuple[Path, float]],
    out: Path,
    image_format: str = "jpeg",
) -> None:
    strengths = [scale for _, scale in loras]
    out.write_text(json.dumps({"prompt": prompt, "seed": seed, "size": [width, height], "loras": strengths}))


def film(*, out: Path, ffmpeg: str, **facts: Any) -> None:
    out.write_text(json.dumps(facts, default=str) + "." * 1000)


def describe_picture(path: Path, *, length: str = "normal") -> str:
    return f"a {length} word on {path.stat().st_size} bytes"


training = SimpleNamespace(train_lora=train_lora)
drawing = SimpleNamespace(draw_still=draw_still)
filming = SimpleNamespace(film_image=film, film_elements=film, film_text=film)
describing = SimpleNamespace(describe_picture=describe_picture)
