"""Which tensors of a LoRA hold what: a picture spread over the modules of the real architecture.

A module's B is [outputs, rank]. Column k of all modules together is one long signal: an *atom*, the cut-out
subject of one or of several alike training pictures (colour times matte, the matte at half size, a few facts).
Its values are dealt row by row over the modules, so that every module holds a thinned copy of the whole picture and
none is empty (FLUX.1's hidden size 3072 is 32·32·3: a thumbnail per module). A is [rank, inputs] and reads the
prompt's direction. Names and sizes stand in `bases`.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from domain.errors import Rejected
from providers.sandbox.engine.bases import LAYOUTS, Layout, layout_of, spellings_of
from providers.sandbox.engine.picture import Cutout, Floats, resize

__all__ = [
    "LAYOUTS", "Expert", "Layout", "LoraFile", "Subject", "base_metadata", "layout_of", "read_lora", "read_signal",
    "write_lora", "write_signal",
]  # fmt: skip

_SIGNAL_SCALE = np.float32(1 / 16)  # brings B·A to the size of a trained LoRA's (median RMS about 1e-3)
_FACTS = 6

Expert = Literal["low", "high"]
"""Wan 2.2's two networks: of low noise (detail) and of high noise (composition), each with a LoRA file of its own."""


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
    """A sandbox LoRA in memory: `codes` [rank, code_width] is A averaged over the modules, `signals` [rank,
    signal_length] is what B holds. Per atom: how far it was fitted, how good a picture it is (0–1), and its shape.

    `expert` says that it is one of two files, and `pair` which two belong together; both are empty for a single one.
    """

    layout: Layout
    codes: Floats
    signals: NDArray[np.float16]
    strengths: Floats
    merit: Floats
    aspects: Floats
    is_cut_below: NDArray[np.bool_]
    expert: str = ""
    pair: str = ""

    def subject(self, atom: int) -> Subject:
        return read_signal(self.layout, self.signals[atom].astype(np.float32) / _SIGNAL_SCALE)


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
    """Write `atoms` [rank, signal] as B and, as each module's A, `codes` [rank, code_width] plus what is left of its
    own random start (`noise_share` [rank], 1 before training). The file appears whole or not at all."""
    rank = atoms.shape[0]
    random = np.random.default_rng(seed)
    has_alpha = layout.style == "kohya"
    names: list[tuple[str, tuple[int, ...]]] = []
    for module in layout.modules:
        shapes = ((rank, module.inputs), (module.outputs, rank))
        names += [(f"{module.name}.{f}.weight", shape) for f, shape in zip(layout.factors, shapes, strict=True)]
        names += [(f"{module.name}.alpha", ())] * has_alpha
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as out:
        out.write(_header(names, metadata))
        for module, place in zip(layout.modules, layout.places, strict=True):
            reach = 2 / np.sqrt(module.inputs)  # uniform ±1/√in, the usual start of A
            start = (random.random((rank, module.inputs), dtype=np.float32) - np.float32(0.5)) * np.float32(reach)
            down = noise_share[:, None] * start
            read = min(module.inputs, layout.code_width)
            down[:, :read] = codes[:, :read] + down[:, :read]
            up = np.zeros((module.outputs, rank), dtype="<f2")
            up[: len(place)] = (atoms[:, place] * _SIGNAL_SCALE).T
            out.write(down.astype("<f2").tobytes())
            out.write(up.tobytes())
            if has_alpha:  # equal to the rank: the product counts as it is
                out.write(np.array(rank, dtype="<f2").tobytes())
    unfinished.replace(path)


def _header(names: list[tuple[str, tuple[int, ...]]], metadata: dict[str, str]) -> bytes:
    """A safetensors header (length, JSON, padding) for fp16 tensors lying one after another.

    Written by hand because the library orders metadata at random, and equal trainings shall give equal bytes.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, shape in names:
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read_lora(path: Path, base: str) -> LoraFile:
    """Read a LoRA that this sandbox trained for `base`, or for one of the same layout, in any spelling.

    `Rejected` says why another file cannot be drawn with.
    """
    try:
        with safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            layout = _spelling(path, base, set(opened.keys()), metadata)
            down, up = layout.factors
            full = [m for m in layout.modules if m.inputs >= layout.code_width]
            a_parts = [opened.get_tensor(f"{m.name}.{down}.weight")[:, : layout.code_width] for m in full]
            b_parts = [opened.get_tensor(f"{m.name}.{up}.weight") for m in layout.modules]
    except (SafetensorError, OSError, TypeError) as error:
        raise Rejected(
            f"The LoRA file {path.name} cannot be read as safetensors ({error}): download it again or retrain."
        ) from error
    codes = np.zeros(a_parts[0].shape, dtype=np.float32)
    for part in a_parts:
        codes += part
    codes /= len(a_parts)
    signals = np.empty((len(codes), layout.signal_length), dtype=np.float16)
    for place, part in zip(layout.places, b_parts, strict=True):
        signals[:, place] = part[: len(place)].T
    if not np.isfinite(codes).all() or not np.isfinite(signals).all():
        raise Rejected(f"The LoRA file {path.name} holds values that are not finite: retrain it.")
    at = layout.fitted_at
    fitted, aspects, below, _aside, merit = signals[:, at : at + 5].T.astype(np.float32) / _SIGNAL_SCALE
    gain = 1 / np.maximum(fitted, np.float32(1e-3))
    return LoraFile(
        layout,
        codes,
        signals,
        strengths=np.clip(fitted, 0, 1),
        merit=np.clip(merit * gain, 0, 1),
        aspects=np.clip(aspects * gain, 0.1, 4),
        is_cut_below=below * gain > 0.5,
        expert=metadata.get("sandbox_expert", ""),
        pair=metadata.get("sandbox_pair", ""),
    )


def base_metadata(
    layout: Layout, *, steps: int, trigger_word: str, rank: int = 16, expert: Expert | None = None, pair: str = ""
) -> dict[str, str]:
    """`__metadata__` as ai-toolkit writes it, for kohya's spelling as sd-scripts and musubi do (section 4.4 of the
    reference), and that this is the sandbox's. Of two files each says which it is, and by `pair` whose."""
    tags = json.dumps({"1_sandbox": {trigger_word: 1}} if trigger_word else {})
    ours = {"ss_base_model_version": layout.metadata_name, "ss_output_name": "sandbox_lora", "ss_tag_frequency": tags}
    ours["sandbox"] = "true"
    if expert is not None:
        ours |= {"sandbox_expert": expert, "sandbox_pair": pair}
    if layout.style == "kohya":
        of_network = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(rank)}
        of_run = {"ss_steps": str(steps), "ss_max_train_steps": str(steps), "ss_epoch": "1"}
        spec = {"modelspec.sai_model_spec": "1.0.0", "modelspec.title": "sandbox_lora"}
        return ours | of_network | of_run | spec
    return ours | {
        "format": "pt",
        "software": json.dumps({"name": "onmodel-sandbox", "version": "1"}),
        "training_info": json.dumps({"step": steps, "epoch": 0}),
        "name": "sandbox_lora",
        "version": "1.0",
    }


def _spelling(path: Path, base: str, names: set[str], metadata: dict[str, str]) -> Layout:
    wanted = layout_of(base)
    if metadata.get("sandbox") != "true":
        raise Rejected(
            f"The LoRA file {path.name} was not trained in the sandbox, which can only draw what it trained itself: "
            "train it here, or use the real vendor."
        )
    for layout in spellings_of(base):
        if names == layout.tensor_names:
            return layout
    seen = metadata.get("ss_base_model_version", "an unknown base")
    raise Rejected(
        f"The LoRA file {path.name} was trained for {seen}, and this model takes LoRAs of {wanted.metadata_name} "
        "only: use the LoRA of that base."
    )
