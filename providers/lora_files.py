"""Judging a LoRA file by its bytes alone: container, pairs, base model, health. Nothing in it is ever executed.

Order and traps: shared/reference/runpod_trainers.md, section 4 (2026-08). The reader is our own because the
usual one accepts duplicate keys, files without tensors and NaN, and cannot show BF16 to numpy.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from domain.errors import BadInput
from domain.records import Record
from providers.lora_layouts import Pair, bases_named_by, layout_of, serves
from providers.ports import LoraFileReport

HEADER_LIMIT_BYTES = 16 * 2**20
"""Real LoRA headers are a few hundred kB; the format's own 100 MB would let a stranger fill our memory."""

TENSOR_LIMIT_BYTES = 512 * 2**20
"""The largest factor seen (rank 128, 27648 outputs, F32) is 14 MB. One pair is in memory at a time."""

RANK_LIMIT = 1024
HARDLY_TRAINED_RMS = 1e-6
"""One Adam step at 1e-4 and rank 16 already leaves about 4e-6 (calculated), a finished run 1e-5 to 1e-2."""

BLOWN_UP_RATIO = 10.0
"""A linear layer's weights have an RMS near 1/√inputs; an update ten times that leaves nothing of the model."""

DEAD_SHARE_LIMIT = 0.2
"""Some modules get no gradient in healthy runs (a last block's unused branch); a fifth of them never."""

FP16_MAX = 65504.0
PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"})
METADATA_VALUE_LIMIT = 500
METADATA_KEY_LIMIT = 64
LEAKY_METADATA = ("ss_datasets", "ss_dataset_dirs", "ss_tag_frequency", "ss_bucket_info", "ss_reg_dataset_dirs")
"""They carry folder names and captions of whoever trained the file."""

_ITEM_BYTES = (
    dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1)
    | dict.fromkeys(("F16", "BF16", "I16", "U16"), 2)
    | dict.fromkeys(("F32", "I32", "U32"), 4)
    | dict.fromkeys(("F64", "I64", "U64"), 8)
)
_READABLE = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_FACTOR = re.compile(
    r"^(?P<module>.+?)[._](?P<role>lora_down|lora_up|lora_A|lora_B|lora\.down|lora\.up)(\.default)?\.weight$"
)
_LYCORIS = re.compile(r"\.(hada_w[12](_[ab])?|lokr_w[12](_[ab])?|oft_blocks|oft_diag)$")


class LoraTensor(Record):
    """One tensor as the header promises it; `start` counts bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


class LoraHeader(Record):
    """A header that keeps all its promises about places and sizes; tensors in the order they lie in the file."""

    tensors: tuple[LoraTensor, ...]
    metadata: dict[str, str]


class _Health(Record):
    """What the values say, collected over all modules."""

    broken: tuple[str, ...]
    suspect: tuple[str, ...]
    dead_share: float
    median_delta_rms: float


def check_lora_file(
    path: Path, *, expected_base: str, expected_steps: int | None = None, expected_rank: int | None = None
) -> LoraFileReport:
    """Say whether a file is a usable LoRA for `expected_base` (a registry key such as `flux-1-dev`).

    `verdict` is `broken` (cannot be used: damaged, never trained, not finite, a pickle, or by its trainer's own counter
    stopped before `expected_steps`), `wrong_base`, `suspect` (loads, but something is off) or `healthy`; `reasons` are
    sentences, empty when healthy. `median_delta_norm` is
    the median over modules of RMS(scale·B·A), `dead_share` the share of modules that add exactly zero. Reads only,
    safe to repeat; memory stays at one pair of factors. `BadInput` only when there is no file or it changes meanwhile.
    """
    if not path.is_file():
        raise BadInput(f"There is no LoRA file at {path}: give the path of a .safetensors file.")
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            _refuse_pickle_name(path)
            header = read_header(file, size_bytes)
            modules, alphas = _pair_up(header.tensors)
        except BadInput as damage:
            return LoraFileReport(
                **_BLANK, verdict="broken", reasons=(damage.message,), size_bytes=size_bytes, sha256=sha256
            )
        health = _health(file, header, modules, alphas)
    pairs = [Pair(name, down.shape[0], _columns(down), up.shape[0]) for name, (down, up) in modules.items()]
    architecture = layout_of(pairs, [tensor.name for tensor in header.tensors])
    rank = Counter(pair.rank for pair in pairs).most_common(1)[0][0] if pairs else None
    wrong, doubts = _base_doubts(architecture, expected_base, header.metadata)
    doubts += _rank_doubts(pairs, expected_rank)
    broken = (*health.broken, *_steps_short(header.metadata, expected_steps))
    reasons = (*broken, *wrong, *doubts, *health.suspect)
    verdict = "broken" if broken else "wrong_base" if wrong else "suspect" if reasons else "healthy"
    return LoraFileReport(
        verdict=verdict,
        reasons=reasons,
        architecture=architecture,
        module_count=len(pairs),
        rank=rank,
        dead_share=health.dead_share,
        median_delta_norm=health.median_delta_rms,
        size_bytes=size_bytes,
        sha256=sha256,
        metadata=_shown_metadata(header.metadata),
    )


def read_header(file: BinaryIO, size_bytes: int) -> LoraHeader:
    """Read a safetensors header and hold it to the file's size. `BadInput` names the damage. Safe to repeat."""
    file.seek(0)
    start = file.read(16)
    _refuse_other_formats(start)
    if size_bytes < 10 or len(start) < 10:
        raise BadInput(f"The file has {size_bytes} bytes, too few for a LoRA: fetch it again.")
    length = int.from_bytes(start[:8], "little")
    if length > HEADER_LIMIT_BYTES or 8 + length > size_bytes:
        raise BadInput(
            f"The header claims {length} bytes in a file of {size_bytes}: it is cut off or no safetensors file."
        )
    file.seek(8)
    entries = _parse(file.read(length))
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadInput("The header's metadata is not a list of texts: the file is damaged.")
    tensors = sorted((_tensor(name, entry, 8 + length) for name, entry in entries.items()), key=lambda t: t.start)
    if not tensors:
        raise BadInput("The file holds no tensors: the training saved nothing.")
    place = 8 + length
    for tensor in tensors:
        if tensor.start != place:
            raise BadInput(f"Tensor {tensor.name!r} begins at byte {tensor.start}, not {place}: the file is damaged.")
        place += tensor.size_bytes
    if place != size_bytes:
        raise BadInput(f"The header promises {place} bytes and the file has {size_bytes}: it was cut or patched.")
    return LoraHeader(tensors=tuple(tensors), metadata={_clean(key): _clean(text) for key, text in metadata.items()})


def _refuse_pickle_name(path: Path) -> None:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise BadInput(f"It is a {path.suffix} file, which can run code when loaded: save it as .safetensors.")


def _refuse_other_formats(start: bytes) -> None:
    # A header of 640 bytes also begins with 0x80 0x02: only the brace tells a safetensors file from a pickle.
    if start[8:9] != b"{" and (start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")):
        raise BadInput("It is a pickle, which can run code when loaded, so it was not opened: save it as .safetensors.")
    if start.lstrip()[:5].lower() in (b"<html", b"<!doc", b"<?xml"):
        raise BadInput("It is a web page, not a LoRA: the link has expired or wants a login.")
    if start.startswith(b"version https:/"):
        raise BadInput("It is a git LFS pointer, not the weights: fetch the real file.")


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise BadInput("The header is no JSON object: this is not a safetensors file.")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(pairs)
        if len(seen) != len(pairs):
            raise BadInput("The header names the same key twice, so readers would disagree: do not use this file.")
        return seen

    try:
        entries: dict[str, Any] = json.loads(raw.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise BadInput("The header is damaged JSON: fetch the file again.") from error
    return entries


def _tensor(name: str, entry: Any, data_start: int) -> LoraTensor:
    shown = _clean(name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadInput(f"The header's entry for {shown!r} is malformed: the file is damaged.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise BadInput(f"Tensor {shown!r} has the unknown type {str(dtype)[:20]!r}: the file is damaged.")
    if not _are_counts(shape) or len(shape) > 8 or not _are_counts(offsets) or len(offsets) != 2:
        raise BadInput(f"Tensor {shown!r} has an impossible shape or place: the file is damaged.")
    size = math.prod(shape) * _ITEM_BYTES[dtype]
    if size == 0 or offsets[1] - offsets[0] != size or size > TENSOR_LIMIT_BYTES:
        raise BadInput(f"Tensor {shown!r} is empty, too large or not as long as its shape says: the file is damaged.")
    return LoraTensor(name=shown, dtype=dtype, shape=tuple(shape), start=data_start + offsets[0], size_bytes=size)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**48 for item in value)


def _pair_up(
    tensors: Sequence[LoraTensor],
) -> tuple[dict[str, tuple[LoraTensor, LoraTensor]], dict[str, LoraTensor]]:
    """Modules by name with their (down [rank, in…], up [out, rank…]) factors, and the scalar alphas."""
    downs: dict[str, LoraTensor] = {}
    ups: dict[str, LoraTensor] = {}
    alphas: dict[str, LoraTensor] = {}
    for tensor in tensors:
        if found := _FACTOR.match(tensor.name):
            side = downs if found["role"][-4:] == "down" or found["role"][-1] == "A" else ups
            if found["module"] in side:
                raise BadInput(f"Module {found['module']!r} has two factors for one side: the file is damaged.")
            side[found["module"]] = tensor
        elif tensor.name.endswith(".alpha") and math.prod(tensor.shape) == 1:
            alphas[tensor.name.removesuffix(".alpha")] = tensor
    if not downs and not ups:
        if any(_LYCORIS.search(tensor.name) for tensor in tensors):
            return {}, alphas
        raise BadInput(f"None of its {len(tensors)} tensors is a LoRA factor: this is another kind of model file.")
    if lonely := sorted(downs.keys() ^ ups.keys()):
        raise BadInput(
            f"{len(lonely)} modules have only half of their pair, the first is {lonely[0]!r}: a partial save."
        )
    for module, down in downs.items():
        up = ups[module]
        if len(down.shape) < 2 or len(up.shape) < 2 or _columns(up) != down.shape[0]:
            raise BadInput(
                f"The factors of {module!r} do not fit together ({list(down.shape)} and {list(up.shape)}): damaged."
            )
    return {module: (down, ups[module]) for module, down in downs.items()}, alphas


def _columns(tensor: LoraTensor) -> int:
    return math.prod(tensor.shape[1:])


def _health(
    file: BinaryIO,
    header: LoraHeader,
    modules: dict[str, tuple[LoraTensor, LoraTensor]],
    alphas: dict[str, LoraTensor],
) -> _Health:
    broken: list[str] = []
    suspect: list[str] = []
    in_pairs = {tensor.name for pair in modules.values() for tensor in pair}
    not_finite, clipped, unreadable, dead, blown = 0, 0, 0, 0, 0
    sizes: list[float] = []
    for tensor in header.tensors:
        if tensor.name not in in_pairs and tensor.dtype[0] in "FB" and tensor.dtype != "BOOL":
            values = _values(file, tensor)
            unreadable += values is None
            not_finite += values is not None and not np.isfinite(values).all()
    for module, (down, up) in modules.items():
        a, b = _values(file, down), _values(file, up)
        if a is None or b is None or down.shape[0] > RANK_LIMIT:
            unreadable += 1
            continue
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            not_finite += 1
            continue
        largest_a, largest_b = float(np.abs(a).max()), float(np.abs(b).max())
        clipped += "F16" in (down.dtype, up.dtype) and max(largest_a, largest_b) >= FP16_MAX
        if largest_a == 0 or largest_b == 0:
            dead += 1
            sizes.append(0.0)
            continue
        alpha = _values(file, alphas[module]) if module in alphas else None
        scale = float(alpha.reshape(-1)[0]) / down.shape[0] if alpha is not None else 1.0
        rms = abs(scale) * largest_a * largest_b * _product_rms(a / largest_a, b / largest_b)
        blown += not rms * math.sqrt(_columns(down)) <= BLOWN_UP_RATIO
        sizes.append(rms)
    dead_share = dead / len(modules) if modules else 0.0
    median = statistics.median(sizes) if sizes else 0.0
    if not_finite:
        broken.append(f"{not_finite} tensors or modules hold NaN or infinity: the training diverged.")
    if modules and dead == len(modules):
        broken.append("It never trained: every module's product is exactly zero.")
    elif dead_share > DEAD_SHARE_LIMIT:
        suspect.append(f"{dead} of {len(modules)} modules never trained: their product is exactly zero.")
    elif sizes and median < HARDLY_TRAINED_RMS:
        suspect.append(f"It hardly trained: the median change per weight is {median:.1e}.")
    if clipped:
        suspect.append(f"{clipped} modules reach {FP16_MAX:.0f}, the largest 16-bit number: the training blew up.")
    if blown:
        suspect.append(f"{blown} modules change the model more than {BLOWN_UP_RATIO:.0f} times its own weights.")
    if unreadable:
        suspect.append(f"{unreadable} tensors or modules are stored in a way whose values this check cannot read.")
    if not modules:
        suspect.append("It holds LyCORIS factors, not A/B pairs: only its container and finiteness were checked.")
    return _Health(
        broken=tuple(broken), suspect=tuple(suspect), dead_share=dead_share, median_delta_rms=_storable(median)
    )


def _values(file: BinaryIO, tensor: LoraTensor) -> NDArray[np.float32] | NDArray[np.float64] | None:
    """The values as [rows, everything else], or None for 8-bit and integer types, which no usual trainer writes."""
    if tensor.dtype not in _READABLE and tensor.dtype != "BF16":
        return None
    file.seek(tensor.start)
    raw = file.read(tensor.size_bytes)
    if len(raw) != tensor.size_bytes:
        raise BadInput(f"The LoRA file became shorter while tensor {tensor.name!r} was read: check it again.")
    rows = tensor.shape[0] if tensor.shape else 1
    if tensor.dtype == "BF16":
        # BF16 is the upper half of a float32, so shifting it there is exact.
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(rows, -1)
    values = np.frombuffer(raw, _READABLE[tensor.dtype]).reshape(rows, -1)
    return values if tensor.dtype == "F64" else values.astype(np.float32, copy=False)


def _product_rms(a: NDArray[Any], b: NDArray[Any]) -> float:
    """RMS of B·A without forming it: ‖BA‖² = tr((BᵀB)(AAᵀ)), two rank × rank matrices. Entries at most 1."""
    squared = float(np.sum((b.T @ b).astype(np.float64) * (a @ a.T)))
    return math.sqrt(max(squared, 0.0) / (b.shape[0] * a.shape[1]))


def _storable(value: float) -> float:
    """Infinity cannot be written as JSON, and is reported as blown up anyway."""
    return value if math.isfinite(value) else 1e308


def _base_doubts(architecture: str, expected: str, metadata: dict[str, str]) -> tuple[list[str], list[str]]:
    if architecture == "unknown":
        return [], [f"Its tensor names and shapes do not tell the base model, so {expected} could not be confirmed."]
    if not serves(architecture, expected):
        return [f"It was trained for {architecture}, and {expected} was wanted: it would have no effect there."], []
    named = bases_named_by(metadata)
    if named and expected not in named:
        said = " or ".join(sorted(named))
        return [], [f"Its layout fits {expected}, but its metadata says it was trained on {said}."]
    return [], []


def counted_steps(metadata: Mapping[str, str]) -> int | None:
    """The steps that the trainer says it made, or None when it does not say. A stranger's claim.

    `training_info.step` is ai-toolkit's, `ss_steps` sd-scripts' and musubi's (runpod_trainers.md 4.4, 4.6).
    """
    try:
        if "training_info" in metadata:
            return int(json.loads(metadata["training_info"])["step"])
        return int(metadata["ss_steps"])
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None


def _steps_short(metadata: Mapping[str, str], expected_steps: int | None) -> list[str]:
    counted = counted_steps(metadata)
    # One step less is the counter's way of counting from zero, not a training cut short.
    if expected_steps is None or counted is None or counted >= expected_steps - 1:
        return []
    return [f"It stopped early: its trainer counted {counted} of {expected_steps} steps."]


def _rank_doubts(pairs: Iterable[Pair], expected_rank: int | None) -> list[str]:
    ranks = sorted({pair.rank for pair in pairs})
    if expected_rank is None or not ranks or ranks == [expected_rank]:
        return []
    return [f"Rank {expected_rank} was ordered and it has {', '.join(map(str, ranks[:4]))}."]


def _clean(text: str) -> str:
    """Safe to store and print: no lone surrogates (from JSON escapes), no control characters."""
    sound = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(letter if letter.isprintable() else " " for letter in sound)


def _shown_metadata(metadata: dict[str, str]) -> dict[str, str]:
    kept = [key for key in metadata if key not in LEAKY_METADATA][:METADATA_KEY_LIMIT]
    return {key[:METADATA_VALUE_LIMIT]: metadata[key][:METADATA_VALUE_LIMIT] for key in kept}


_BLANK: dict[str, Any] = {
    "architecture": "unknown",
    "module_count": 0,
    "rank": None,
    "dead_share": 0.0,
    "median_delta_norm": 0.0,
    "metadata": {},
}
