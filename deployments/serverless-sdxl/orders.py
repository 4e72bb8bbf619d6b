"""The worker's input: which fields a job may have, within which bounds, and the sentence for one that does not fit.

Standard library only, so that it can be read and tested where no model can run.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SMALLEST_SIDE_PX = 64
LARGEST_SIDE_PX = 2048
SIDE_STEP_PX = 8
MOST_STEPS = 100
MOST_GUIDANCE = 30.0
MOST_LORAS = 4
MOST_SCALE = 4.0
LONGEST_PROMPT = 4000
LARGEST_SEED = 2**32 - 1
LONGEST_LINK = 4096

FIELDS = frozenset(
    {
        *("prompt", "negative_prompt", "width", "height", "num_inference_steps", "guidance_scale", "seed", "loras"),
        *("put_url", "status_url", "box"),
    }
)
LORA_FIELDS = frozenset({"url", "sha256", "scale"})

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BOX = re.compile(r"[a-z0-9-]{1,80}")


class OrderRefused(Exception):
    """The job cannot be done as it is; `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def answer(self) -> dict[str, str]:
        """What a handler returns: RunPod hands `error` on as the failed job's text."""
        return {"error": json.dumps({"code": self.code, "message": self.message})}


@dataclass(frozen=True)
class Lora:
    """Weights to be loaded: where they lie, what they must be, and how strong."""

    url: str
    sha256: str
    scale: float


@dataclass(frozen=True)
class Order:
    """One picture wanted, and where it and the word on it go (`put_url`, `status_url`, each by HTTP PUT)."""

    prompt: str
    negative_prompt: str | None
    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    loras: tuple[Lora, ...]
    put_url: str
    status_url: str
    box: str


def read_order(given: Any, *, is_http_fine: bool = False) -> Order:
    """The order in a job's `input`; `OrderRefused` with the code `bad_input` names the first field that is wrong.

    Links must be https; `is_http_fine` is for tests on one machine.
    """
    if not isinstance(given, dict):
        raise _refused("input is no object")
    if unknown := sorted(set(given) - FIELDS):
        raise _refused(f"the field {str(unknown[0])[:60]!r} is unknown")
    return Order(
        prompt=_text(given, "prompt"),
        negative_prompt=_text(given, "negative_prompt") if given.get("negative_prompt") is not None else None,
        width=_side(given, "width"),
        height=_side(given, "height"),
        steps=int(_number(given, "num_inference_steps", 1, MOST_STEPS, 30, is_whole=True)),
        guidance=_number(given, "guidance_scale", 0, MOST_GUIDANCE, 5.0),
        seed=int(_number(given, "seed", 0, LARGEST_SEED, None, is_whole=True)),
        loras=_loras(given.get("loras"), is_http_fine),
        put_url=_link(given.get("put_url"), "put_url", is_http_fine),
        status_url=_link(given.get("status_url"), "status_url", is_http_fine),
        box=_matching(given.get("box"), "box", _BOX),
    )


def _loras(given: Any, is_http_fine: bool) -> tuple[Lora, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > MOST_LORAS:
        raise _refused(f"loras is no list of at most {MOST_LORAS}")
    found = []
    for place, entry in enumerate(given):
        if not isinstance(entry, dict) or set(entry) - LORA_FIELDS:
            raise _refused(f"loras[{place}] is no object of url, sha256 and scale")
        found.append(
            Lora(
                url=_link(entry.get("url"), f"loras[{place}].url", is_http_fine),
                sha256=_matching(entry.get("sha256"), f"loras[{place}].sha256", _SHA256),
                scale=_number(entry, "scale", 0, MOST_SCALE, 1.0),
            )
        )
    return tuple(found)


def _text(given: dict[str, Any], field: str) -> str:
    text = given.get(field)
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST_PROMPT:
        raise _refused(f"{field} is no text of 1 to {LONGEST_PROMPT} characters")
    return text


def _side(given: dict[str, Any], field: str) -> int:
    side = int(_number(given, field, SMALLEST_SIDE_PX, LARGEST_SIDE_PX, None, is_whole=True))
    if side % SIDE_STEP_PX:
        raise _refused(f"{field} is {side}, which is no multiple of {SIDE_STEP_PX}")
    return side


def _number(
    given: dict[str, Any], field: str, least: float, most: float, default: float | None, *, is_whole: bool = False
) -> float:
    value = given.get(field, default)
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        number: float = value
        if not is_whole or number == int(number):
            return number
    kind = "whole number" if is_whole else "number"
    raise _refused(f"{field} is no {kind} from {least:g} to {most:g}")


def _link(given: Any, field: str, is_http_fine: bool) -> str:
    try:
        parts = urlsplit(given if isinstance(given, str) else "")
        is_link = parts.scheme in (("https", "http") if is_http_fine else ("https",)) and bool(parts.hostname)
    except ValueError:
        is_link = False
    if not is_link or len(given) > LONGEST_LINK:
        raise _refused(f"{field} is no https address")
    return str(given)


def _matching(given: Any, field: str, pattern: re.Pattern[str]) -> str:
    if not isinstance(given, str) or pattern.fullmatch(given) is None:
        raise _refused(f"{field} is not of the form {pattern.pattern}")
    return given


def _refused(what: str) -> OrderRefused:
    return OrderRefused("bad_input", f"The job's input cannot be used: {what}.")
