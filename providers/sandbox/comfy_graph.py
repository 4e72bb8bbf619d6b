"""What a ComfyUI workflow asks for, read off its graph: prompt, seed, size, length, LoRAs, first frame.

The stand-in does that work by a neutral job. A LoRA of another base than the model it is loaded into is left out
without a word, as the real server leaves it out (replicate_comfyui.md 0.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from providers.sandbox.comfy_nodes import NodeBook, is_link, reached

SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustomAdvanced")
LORA_LOADERS = ("LoraLoader", "LoraLoaderModelOnly")


@dataclass(frozen=True)
class LoraLoad:
    """A LoRA file as listed, its strength, and the base of the model it is put on.

    `expert` is "high" or "low" where two models follow each other.
    """

    name: str
    strength: float
    base: str
    expert: str | None


@dataclass(frozen=True)
class Wish:
    """What one output of a graph shows."""

    kind: Literal["image", "video"]
    prompt: str
    seed: int
    width: int
    height: int
    base: str
    loras: tuple[LoraLoad, ...]
    frames: int = 1
    frames_per_second: float = 24.0
    first_frame: str | None = None

    def neutral(self, loras: list[dict[str, Any]], first_frame: str | None) -> dict[str, Any]:
        """The neutral job's arguments, with addresses for the files."""
        given: dict[str, Any] = {
            "prompt": self.prompt,
            "base_model": self.base,
            "width": min(self.width, 4096),
            "height": min(self.height, 4096),
            "seed": self.seed,
            "loras": loras,
        }
        if self.kind == "image":
            return given
        rate = max(1, round(self.frames_per_second))
        given |= {"seconds": min(60.0, max(0.1, self.frames / rate)), "frames_per_second": rate}
        return given | ({"image": first_frame} if first_frame else {})


def wish_of(graph: Mapping[str, Any], output: str, book: NodeBook) -> Wish:
    """What this output node is to save; `ValueError` for a graph that makes no picture from a prompt."""
    nodes = reached(graph, output)
    kind: Literal["image", "video"] = "image" if graph[output]["class_type"] == "SaveImage" else "video"
    samplers = [one for one in nodes if graph[one]["class_type"] in SAMPLERS]
    if not samplers:
        raise ValueError("no sampler")
    models = [_model_of(graph, sampler) for sampler in samplers]
    size = next((graph[one]["inputs"] for one in nodes if {"width", "height"} <= set(graph[one]["inputs"])), None)
    if size is None:
        raise ValueError("no size")
    experts = ("high", "low") if len(models) == 2 else (None,) * len(models)
    loads = [_loras_behind(graph, model, expert, book) for model, expert in zip(models, experts, strict=True)]
    frames = size.get("length", size.get("batch_size", 1))
    rates = [graph[one]["inputs"][name] for one in nodes for name in ("fps",) if name in graph[one]["inputs"]]
    pictures = [graph[one]["inputs"]["image"] for one in nodes if graph[one]["class_type"] == "LoadImage"]
    return Wish(
        kind=kind,
        prompt=_prompt_of(graph, samplers[0]),
        seed=_seed_of(graph, samplers[0]),
        width=int(size["width"]),
        height=int(size["height"]),
        base=loads[0][0],
        loras=tuple(load for _, found in loads for load in found),
        frames=int(frames),
        frames_per_second=float(rates[0]) if rates else 24.0,
        first_frame=pictures[0] if pictures and kind == "video" else None,
    )


def _model_of(graph: Mapping[str, Any], sampler: str) -> list[Any]:
    """The link to the model that a sampler draws with, by itself or by its guider."""
    inputs = graph[sampler]["inputs"]
    if "guider" in inputs:
        inputs = graph[inputs["guider"][0]]["inputs"]
    link: list[Any] = inputs["model"]
    return link


def _loras_behind(
    graph: Mapping[str, Any], link: list[Any], expert: str | None, book: NodeBook
) -> tuple[str, list[LoraLoad]]:
    """The base of the model at the beginning of a chain, and the LoRAs on the way."""
    found: list[tuple[str, float]] = []
    while True:
        node = graph[link[0]]
        inputs = node["inputs"]
        if node["class_type"] in LORA_LOADERS:
            found.append((inputs["lora_name"], float(inputs["strength_model"])))
        if not is_link(inputs.get("model")):
            file = inputs.get("unet_name") or inputs.get("ckpt_name")
            base = book.bases[str(file)]
            return base, [LoraLoad(name, strength, base, expert) for name, strength in found]
        link = inputs["model"]


def _prompt_of(graph: Mapping[str, Any], sampler: str) -> str:
    """The positive text: what a sampler or its guider calls so, followed to where it is written."""
    inputs = graph[sampler]["inputs"]
    if "guider" in inputs:
        inputs = graph[inputs["guider"][0]]["inputs"]
    link = inputs.get("positive") or inputs.get("conditioning")
    while is_link(link):
        inputs = graph[link[0]]["inputs"]
        if "text" in inputs:
            return str(inputs["text"])
        link = inputs.get("positive") or inputs.get("conditioning")
    raise ValueError("no prompt")


def _seed_of(graph: Mapping[str, Any], sampler: str) -> int:
    inputs = graph[sampler]["inputs"]
    if "noise" in inputs:
        inputs = graph[inputs["noise"][0]]["inputs"]
    seed = inputs.get("seed", inputs.get("noise_seed"))
    if seed is None:
        raise ValueError("no seed")
    return int(seed) % 2**32
