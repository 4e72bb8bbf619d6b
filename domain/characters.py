"""A character of a season: what it is called, how it is triggered, and where its LoRA stands."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection
from enum import StrEnum


class CharacterKind(StrEnum):
    """What kind of subject it is; decides how its identity is judged."""

    PERSON = "person"
    ILLUSTRATED = "illustrated"
    OTHER = "other"


class LoraStatus(StrEnum):
    """Life of a LoRA; equal to the SQL type `lora_status`. Older systems read `ready` as `completed`."""

    PENDING = "pending"
    TRAINING = "training"
    VALIDATING = "validating"
    READY = "ready"
    FAILED = "failed"
    ARCHIVED = "archived"


class ImageType(StrEnum):
    """What a reference image shows; equal to the SQL type `image_type`."""

    FRONTAL = "frontal"
    SIDE = "side"
    THREE_QUARTER = "three_quarter"
    FULL_BODY = "full_body"
    ACTION = "action"
    REFERENCE = "reference"


TRIGGER_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{5,31}")
"""To be matched whole. At least six letters, digits or underscores: an invented word, not one a base model knows
(curation_and_identity.md section 1)."""

_NAME_OTHER = frozenset(" -.’")


def name_problem(name: str) -> str | None:
    """Why this cannot be a character's name, or None. Names reach prompts, pages and file names."""
    if not name.strip() or name != name.strip():
        return "is empty or begins or ends with a space; write the name alone"
    if len(name) > 80:
        return f"is {len(name)} characters long; write at most 80"
    bad = sorted({char for char in name if not (char.isalnum() or char in _NAME_OTHER or _is_mark(char))})
    if bad or ".." in name:
        seen = " ".join(repr(char) for char in bad) or "'..'"
        return f"holds {seen}; use letters, digits, spaces, hyphens, dots and the apostrophe ’"
    if not any(char.isalpha() for char in name):
        return "has no letter in it; write a name"
    return None


def _is_mark(char: str) -> bool:
    """A sign that belongs to the letter before: an accent, or a vowel as many Indian scripts write it."""
    return unicodedata.category(char).startswith("M")


def make_trigger_word(name: str, taken: Collection[str] = ()) -> str:
    """An invented word from a name: `Mei Kobayashi` gives `MEIKOB_01`; a number is counted up when taken."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Za-z]+", ascii_name)
    stem = "".join(word[:3] for word in words[:2]).upper() if len(words) > 1 else "".join(words)[:6].upper()
    if len(stem) < 3:
        stem = "CHR" + "".join(chr(65 + byte % 26) for byte in hashlib.sha256(name.encode()).digest()[:3])
    used = {word.casefold() for word in taken}
    number = 1
    while f"{stem}_{number:02d}".casefold() in used:
        number += 1
    return f"{stem}_{number:02d}"
