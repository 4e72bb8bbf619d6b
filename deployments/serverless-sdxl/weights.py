"""LoRA files on the worker: fetched by link, held to their digest, and loaded only if every tensor finds its place.

diffusers merely logs a warning for tensors that fit nothing, and then draws as if there were no LoRA; so what was
loaded is counted against what the file holds.
"""

from __future__ import annotations

import hashlib
import http.client
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from orders import Lora, OrderRefused

MOST_BYTES = 2 * 1024**3
"""A LoRA of Stable Diffusion XL with every layer at rank 128 has some 1.6 GB in 16 bits."""

KEPT_BYTES = 10 * 1024**3
TIMEOUT_SECONDS = 60
PREFIXES = ("unet.", "text_encoder.", "text_encoder_2.", "lora_unet_", "lora_te1_", "lora_te2_")
"""How the tensors of an SDXL LoRA begin: the first three as diffusers and peft write them, the others as kohya's
scripts do."""

FACTORS = ("lora_A.weight", "lora_B.weight", "lora_down.weight", "lora_up.weight", "lora.down.weight", "lora.up.weight")


def fetch_lora(lora: Lora, folder: Path) -> Path:
    """The file with this digest, from `folder` if it is there; `OrderRefused` when the link gives other bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{lora.sha256}.safetensors"
    if path.exists():
        path.touch()
        return path
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part") as draft:
        digest = _download(lora.url, draft)
        if digest != lora.sha256:
            raise OrderRefused("bad_lora", f"The LoRA's SHA-256 is {digest}, and {lora.sha256} was ordered.")
        draft.flush()
        with suppress(FileExistsError):
            path.hardlink_to(draft.name)
    _forget_old(folder, keep=path)
    return path


def _download(url: str, into: IO[bytes]) -> str:
    """The SHA-256 of the bytes behind the link, which `into` then holds."""
    digest, total = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 (https, by `read_order`)
            while total <= MOST_BYTES and (chunk := answer.read(1 << 20)):
                total += len(chunk)
                digest.update(chunk)
                into.write(chunk)
    except (urllib.error.URLError, OSError, ValueError, http.client.HTTPException) as error:
        raise OrderRefused("lora_unreachable", f"The LoRA could not be fetched ({type(error).__name__}).") from error
    if total > MOST_BYTES:
        raise OrderRefused("bad_lora", f"The LoRA has more than {MOST_BYTES} bytes.")
    return digest.hexdigest()


def load_loras(pipe: Any, loras: tuple[Lora, ...], folder: Path) -> None:
    """Put the LoRAs into the pipeline at their strengths; `OrderRefused` when one does not fit it whole."""
    names = []
    for number, lora in enumerate(loras):
        name = f"lora_{number}"
        _load_one(pipe, fetch_lora(lora, folder), name)
        names.append(name)
    if names:
        pipe.set_adapters(names, adapter_weights=[lora.scale for lora in loras])


def unload_loras(pipe: Any) -> None:
    """The pipeline as it was; no error when none was loaded."""
    pipe.unload_lora_weights()


def _load_one(pipe: Any, path: Path, name: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise OrderRefused("bad_lora", f"The LoRA is no whole safetensors file ({type(error).__name__}).") from error
    strangers = sorted(key for key in tensors if not key.startswith(PREFIXES))
    if strangers or not tensors:
        first = strangers[0][:80] if strangers else "no tensor at all"
        raise OrderRefused(
            "wrong_base", f"The LoRA is none of Stable Diffusion XL's: {len(strangers)} tensors are others' ({first})."
        )
    expected = sum(key.endswith(FACTORS) for key in tensors)
    try:
        pipe.load_lora_weights(tensors, adapter_name=name)
    except Exception as error:  # whatever diffusers and peft make of weights that do not fit
        raise OrderRefused("wrong_base", f"The LoRA does not fit this model ({type(error).__name__}).") from error
    parts = (pipe.unet, pipe.text_encoder, pipe.text_encoder_2)
    loaded = sum(f".{name}." in key for part in parts for key, _ in part.named_parameters())
    if not expected or loaded != expected:
        raise OrderRefused(
            "wrong_base", f"Of the LoRA's {expected} factors {loaded} fit this model: it was trained on another."
        )


def _forget_old(folder: Path, keep: Path) -> None:
    """Keep the newest files up to `KEPT_BYTES`; a worker's disk is small."""
    kept = 0
    for path in sorted(folder.glob("*.safetensors"), key=lambda one: one.stat().st_mtime, reverse=True):
        kept += path.stat().st_size
        if kept > KEPT_BYTES and path != keep:
            with suppress(OSError):
                path.unlink()
