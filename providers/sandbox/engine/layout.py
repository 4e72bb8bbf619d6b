"""Which tensors of a LoRA hold what: the real architectures' names and shapes, and the picture spread over them.

A module's B is [hidden, rank]. Column k of all modules together is one long signal: an *atom*, the cut-out
subject of one or of several alike training pictures (colour times matte, the matte at half size, a few facts).
Value i of the signal lies in module i mod M, row i div M, so that every module holds a thinned copy of the whole
picture and none is empty (FLUX.1's hidden size 3072 is 32·32·3: a thumbnail per module). A is [rank, hidden]
and reads the prompt's direction. Names and sizes: shared/reference/runpod_trainers.md, section 4.3.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from domain.errors import Rejected
from providers.sandbox.engine.picture import Cutout, Floats, resize

_SIGNAL_SCALE = np.float32(1 / 16)  # brings B·A to the size of a trained LoRA's (median RMS about 1e-3)
_FACTS = 6


@dataclass(frozen=True)
class Layout:
    """One base model's modules, in the order in which the signal is dealt to them."""

    base: str
    hidden: int
    modules: tuple[str, ...]
    width: int
    height: int
    metadata_name: str

    @property
    def capacity(self) -> int:
        return self.hidden * len(self.modules)

    @property
    def signal_length(self) -> int:
        return self.width * self.height * 3 + (self.width // 2) * (self.height // 2) + _FACTS

    @property
    def fitted_at(self) -> int:
        """Place of the value that is 1 in every target, and so says of an atom how far it is fitted."""
        return self.signal_length - _FACTS


def _flux_modules() -> tuple[str, ...]:
    double = [
        f"transformer.transformer_blocks.{block}.attn.{part}"
        for block in range(19)
        for part in ("to_q", "to_k", "to_v", "to_out.0")
    ]
    single = [f"transformer.single_transformer_blocks.{b}.attn.{part}" for b in range(38) for part in ("to_q", "to_v")]
    return (*double, *single)


def _wan_modules() -> tuple[str, ...]:
    return tuple(f"diffusion_model.blocks.{block}.self_attn.{part}" for block in range(40) for part in ("q", "v"))


LAYOUTS = {
    "flux-1-dev": Layout("flux-1-dev", 3072, _flux_modules(), 312, 456, "flux.1"),
    "wan-22-t2v-a14b": Layout("wan-22-t2v-a14b", 5120, _wan_modules(), 288, 436, "wan_2.2_14b"),
}


@dataclass(frozen=True)
class Subject:
    """What an atom holds, read back: `colour` H×W×3 times `matte` H×W, 0–1; `strength` 0 (untrained) … 1 (fitted)."""

    colour: Floats
    matte: Floats
    aspect: float
    is_cut_below: bool
    is_cut_aside: bool
    strength: float


@dataclass(frozen=True)
class LoraFile:
    """A sandbox LoRA in memory: `codes` [rank, hidden] is A averaged over the modules, `atoms` [module,
    hidden, rank] is B. Per atom: how far it was fitted, how good a picture it is (0–1), and its shape."""

    layout: Layout
    codes: Floats
    atoms: NDArray[np.float16]
    strengths: Floats
    merit: Floats
    aspects: Floats
    is_cut_below: NDArray[np.bool_]

    def subject(self, atom: int) -> Subject:
        return read_signal(self.layout, self.atoms[:, :, atom].T.astype(np.float32).ravel() / _SIGNAL_SCALE)


def write_signal(layout: Layout, cutout: Cutout) -> Floats:
    """A cut-out of the layout's size as one signal of `layout.signal_length` values."""
    matte = resize(cutout.matte, layout.width // 2, layout.height // 2)
    merit = cutout.cleanness * (0.4 + 0.6 * cutout.detail)
    facts = np.asarray([1.0, cutout.aspect, cutout.is_cut_below, cutout.is_cut_aside, merit, 0.0], np.float32)
    return np.concatenate([cutout.colour.ravel(), matte.ravel(), facts]).astype(np.float32)


def read_signal(layout: Layout, signal: Floats) -> Subject:
    """The inverse of `write_signal`. A half-fitted signal is scaled to full, `strength` says how far it was."""
    pixels = layout.width * layout.height
    half = (layout.width // 2) * (layout.height // 2)
    one, aspect, below, aside, _merit, _spare = signal[pixels * 3 + half :][:_FACTS].tolist()
    strength = min(1.0, max(0.0, one))
    gain = np.float32(1 / max(one, 1e-3))
    colour = np.clip(signal[: pixels * 3].reshape(layout.height, layout.width, 3) * gain, 0, 1)
    matte = signal[pixels * 3 : pixels * 3 + half].reshape(layout.height // 2, layout.width // 2) * gain
    return Subject(
        colour=colour,
        matte=np.clip(resize(matte, layout.width, layout.height), 0, 1),
        aspect=min(4.0, max(0.1, aspect * float(gain))),
        is_cut_below=below * gain > 0.5,
        is_cut_aside=aside * gain > 0.5,
        strength=strength,
    )


def write_lora(
    path: Path, layout: Layout, atoms: Floats, codes: Floats, noise_share: Floats, seed: int, metadata: dict[str, str]
) -> None:
    """Write `atoms` [rank, signal] as B and, as each module's A, `codes` [rank, hidden] plus what is left of its own
    random start (`noise_share` [rank], 1 before training). The file appears whole or not at all."""
    rank, count = atoms.shape[0], len(layout.modules)
    dealt = np.zeros((rank, layout.capacity), dtype=np.float16)
    dealt[:, : layout.signal_length] = atoms * _SIGNAL_SCALE
    grid = dealt.reshape(rank, layout.hidden, count)
    random = np.random.default_rng(seed)
    reach = 2 / np.sqrt(layout.hidden)  # uniform ±1/√in, the usual start of A
    with_a, with_b = (rank, layout.hidden), (layout.hidden, rank)
    names = [
        (f"{module}.{part}.weight", shape)
        for module in layout.modules
        for part, shape in (("lora_A", with_a), ("lora_B", with_b))
    ]
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as out:
        out.write(_header(names, metadata))
        for number in range(count):
            start = (random.random((rank, layout.hidden), dtype=np.float32) - np.float32(0.5)) * np.float32(reach)
            out.write((codes + noise_share[:, None] * start).astype("<f2").tobytes())
            out.write(grid[:, :, number].T.astype("<f2").tobytes())
    unfinished.replace(path)


def _header(names: list[tuple[str, tuple[int, int]]], metadata: dict[str, str]) -> bytes:
    """A safetensors header (length, JSON, padding) for fp16 tensors lying one after another.

    Written by hand because the library orders metadata at random, and equal trainings shall give equal bytes.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, shape in names:
        begin, end = end, end + 2 * shape[0] * shape[1]
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read_lora(path: Path, base: str) -> LoraFile:
    """Read a LoRA that this sandbox trained for `base`. `Rejected` says why another file cannot be drawn with."""
    layout = LAYOUTS[base]
    try:
        with safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            names = set(opened.keys())
            _check_base(path, layout, names, metadata)
            a_parts = [opened.get_tensor(f"{module}.lora_A.weight") for module in layout.modules]
            b_parts = [opened.get_tensor(f"{module}.lora_B.weight") for module in layout.modules]
    except (SafetensorError, OSError, TypeError) as error:
        raise Rejected(
            f"The LoRA file {path.name} cannot be read as safetensors ({error}): download it again or retrain."
        ) from error
    codes = np.zeros(a_parts[0].shape, dtype=np.float32)
    for part in a_parts:
        codes += part
    codes /= len(a_parts)
    atoms = np.stack(b_parts)
    if not np.isfinite(codes).all() or not np.isfinite(atoms).all():
        raise Rejected(f"The LoRA file {path.name} holds values that are not finite: retrain it.")
    fitted, aspects, below, _aside, merit = (_at(layout, atoms, layout.fitted_at + k) for k in range(5))
    gain = 1 / np.maximum(fitted, np.float32(1e-3))
    return LoraFile(
        layout,
        codes,
        atoms,
        strengths=np.clip(fitted, 0, 1),
        merit=np.clip(merit * gain, 0, 1),
        aspects=np.clip(aspects * gain, 0.1, 4),
        is_cut_below=below * gain > 0.5,
    )


def base_metadata(layout: Layout, *, steps: int, trigger_word: str) -> dict[str, str]:
    """`__metadata__` as ai-toolkit writes it (section 4.4 of the reference), and that this is the sandbox's."""
    return {
        "format": "pt",
        "software": json.dumps({"name": "onmodel-sandbox", "version": "1"}),
        "training_info": json.dumps({"step": steps, "epoch": 0}),
        "ss_base_model_version": layout.metadata_name,
        "ss_output_name": "sandbox_lora",
        "ss_tag_frequency": json.dumps({"1_sandbox": {trigger_word: 1}} if trigger_word else {}),
        "name": "sandbox_lora",
        "version": "1.0",
        "sandbox": "true",
    }


def _check_base(path: Path, layout: Layout, names: set[str], metadata: dict[str, str]) -> None:
    wanted = {f"{module}.{part}.weight" for module in layout.modules for part in ("lora_A", "lora_B")}
    if metadata.get("sandbox") != "true":
        raise Rejected(
            f"The LoRA file {path.name} was not trained in the sandbox, which can only draw what it trained itself: "
            "train it here, or use the real vendor."
        )
    if names != wanted:
        seen = metadata.get("ss_base_model_version", "an unknown base")
        raise Rejected(
            f"The LoRA file {path.name} was trained for {seen}, and this model takes LoRAs of {layout.metadata_name} "
            "only: use the LoRA of that base."
        )


def _at(layout: Layout, atoms: NDArray[np.float16], position: int) -> Floats:
    count = len(layout.modules)
    value: Floats = atoms[position % count, position // count].astype(np.float32) / _SIGNAL_SCALE
    return value
