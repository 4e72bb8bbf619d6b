"""What our serverless worker does with a job, as the sandbox does it: input read, LoRAs fetched, files put.

Written apart from the worker itself (deployments/serverless-sdxl), so that the adapter is not merely held to its own
words; a contract test holds both to the same inputs.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from providers.sandbox.shelf import Shelf
from providers.sandbox.wire import LOOPBACK_HOSTS

BASE_MODEL = "sdxl"
FETCH_SECONDS = 20
LARGEST_LORA_BYTES = 2 * 1024**3

_NUMBERS: dict[str, tuple[float, float, float | None, bool]] = {
    # field: (least, most, default, must it be whole)
    "width": (64, 2048, None, True),
    "height": (64, 2048, None, True),
    "num_inference_steps": (1, 100, 30, True),
    "guidance_scale": (0, 30, 5.0, False),
    "seed": (0, 2**32 - 1, None, True),
}
_TEXTS = {"box": r"[a-z0-9-]{1,80}", "prompt": r"(?s)(?=.*\S).{1,4000}"}
_LINKS = ("put_url", "status_url")
_OTHERS = ("negative_prompt", "loras")


class WorkerRefused(Exception):
    """The worker's verdict on a job, by its codes: bad_input, bad_lora, lora_unreachable, store_refused."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def check_input(given: Any) -> dict[str, Any]:
    """The input with its defaults; `WorkerRefused` (bad_input) names the first field that does not fit."""
    if not isinstance(given, dict):
        raise _bad("input is no object")
    known = {*_NUMBERS, *_TEXTS, *_LINKS, *_OTHERS}
    if unknown := sorted(set(given) - known):
        raise _bad(f"{unknown[0][:60]!r} is unknown")
    for field, pattern in _TEXTS.items():
        if not isinstance(given.get(field), str) or re.fullmatch(pattern, given[field]) is None:
            raise _bad(f"{field} does not fit {pattern}")
    negative = given.get("negative_prompt")
    if negative is not None and (not isinstance(negative, str) or re.fullmatch(_TEXTS["prompt"], negative) is None):
        raise _bad("negative_prompt is no text")
    values = {**given}
    for field, (least, most, default, is_whole) in _NUMBERS.items():
        values[field] = value = given.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise _bad(f"{field} is no number from {least:g} to {most:g}")
        if is_whole and value != int(value):
            raise _bad(f"{field} is no whole number")
    if values["width"] % 8 or values["height"] % 8:
        raise _bad("width and height are no multiples of 8")
    for field in _LINKS:
        _check_link(given.get(field), field)
    values["loras"] = _check_loras(given.get("loras"))
    return values


def _check_loras(given: Any) -> list[dict[str, Any]]:
    loras = [] if given is None else given
    if not isinstance(loras, list) or len(loras) > 4:
        raise _bad("loras is no list of at most 4")
    for entry in loras:
        if not isinstance(entry, dict) or set(entry) - {"url", "sha256", "scale"}:
            raise _bad("a LoRA has fields other than url, sha256 and scale")
        _check_link(entry.get("url"), "loras.url")
        if not isinstance(entry.get("sha256"), str) or re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]) is None:
            raise _bad("a LoRA has no sha256")
        scale = entry.get("scale", 1.0)
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= 4:
            raise _bad("a LoRA's scale is no number from 0 to 4")
    return loras


def _check_link(given: Any, field: str) -> None:
    parts = urlsplit(given) if isinstance(given, str) and len(given) <= 4096 else urlsplit("")
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise _bad(f"{field} is no address")


def at_this_server(value: Any, url: str) -> Any:
    """Links to an earlier run of this sandbox (`/_as/…`), which had another port, led to this one at `url`."""
    if isinstance(value, dict):
        return {name: at_this_server(inner, url) for name, inner in value.items()}
    if isinstance(value, list):
        return [at_this_server(inner, url) for inner in value]
    parts = urlsplit(value) if isinstance(value, str) and value.startswith("http://127.0.0.1:") else None
    if parts is None or not parts.path.startswith("/_as/"):
        return value
    return f"{url}{parts.path}?{parts.query}"


def neutral_still(values: dict[str, Any], shelf: Shelf) -> dict[str, Any]:
    """The same picture as a job of the workshop, its LoRAs fetched onto the shelf and held to their digests."""
    loras = [
        {"path": _shelve_lora(entry["url"], entry["sha256"], shelf), "scale": entry.get("scale", 1.0)}
        for entry in values["loras"]
    ]
    return {
        "prompt": values["prompt"],
        "base_model": BASE_MODEL,
        "width": int(values["width"]),
        "height": int(values["height"]),
        "seed": int(values["seed"]),
        "loras": loras,
        "output_format": "png",
    }


def _shelve_lora(url: str, sha256: str, shelf: Shelf) -> str:
    """The shelf's address of the file with this digest; as the worker, it keeps what it has fetched once."""
    name = f"{sha256}.safetensors"
    kept = shelf.find(sha256[:24], name)
    if kept is not None:
        return kept.url()
    digest, draft, total = hashlib.sha256(), shelf.scratch(), 0
    try:
        with _open(urllib.request.Request(url)) as answer, draft.open("wb") as file:  # noqa: S310 (`_open` looks)
            while total <= LARGEST_LORA_BYTES and (chunk := answer.read(1 << 20)):
                total += len(chunk)
                digest.update(chunk)
                file.write(chunk)
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        draft.unlink(missing_ok=True)
        said = f"The LoRA could not be fetched ({type(error).__name__})."
        raise WorkerRefused("lora_unreachable", said) from None
    if digest.hexdigest() != sha256:
        draft.unlink()
        raise WorkerRefused("bad_lora", f"The LoRA's SHA-256 is {digest.hexdigest()}, and {sha256} was ordered.")
    return shelf.put(draft, name, "application/octet-stream", file_id=sha256[:24]).url()


def put(url: str, data: bytes, media_type: str) -> None:
    """Put bytes where a link says; `WorkerRefused` (store_refused) when they are not taken."""
    headers = {"Content-Type": media_type}
    try:
        with _open(urllib.request.Request(url, data=data, method="PUT", headers=headers)):  # noqa: S310 (as above)
            return
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        code = getattr(error, "code", type(error).__name__)
        raise WorkerRefused("store_refused", f"The store did not take the file ({code}).") from None


def put_status(url: str, status: dict[str, Any]) -> None:
    """Best effort, as the worker's."""
    try:
        put(url, json.dumps(status).encode(), "application/json")
    except WorkerRefused:
        return


def _open(request: urllib.request.Request) -> Any:
    """A rehearsal stays on this machine: any other address cannot be reached."""
    parts = urlsplit(request.full_url)
    if parts.scheme != "http" or parts.hostname not in LOOPBACK_HOSTS:
        raise urllib.error.URLError("the sandbox reaches this machine only")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=FETCH_SECONDS)


def _bad(what: str) -> WorkerRefused:
    return WorkerRefused("bad_input", f"The job's input cannot be used: {what}.")
