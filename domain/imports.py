"""A manifest after its files were read: every file in the store, every fact known, ready to be written whole."""

from __future__ import annotations

from typing import Any

from domain.clips import ClipFacts
from domain.records import Record
from domain.seasons import CharacterEntry, SeasonManifest


class ClipImport(Record):
    """A winning clip, already in the store."""

    sha256: str
    source_name: str
    facts: ClipFacts


class ImageImport(Record):
    """A picture of a character, already in the store; `role` is training or reference."""

    role: str
    sha256: str
    source_name: str
    width: int
    height: int
    media_type: str
    caption: str = ""
    """What the person wrote about it in a `.txt` of the same stem, where the character's captions are their own."""


class CharacterImport(Record):
    """A character with its files. `lora` is auto, none, `sha256:<digest>` of a given file, or `id:<number>`."""

    entry: CharacterEntry
    lora: str
    clip_sha256s: tuple[str, ...]
    images: tuple[ImageImport, ...]


class SlotImport(Record):
    """A slot; `entry` is what its render depends on, with digests instead of paths."""

    number: int
    prompt: str | None
    clip_sha256: str | None
    entry: dict[str, Any]
    entry_sha256: str


class SeasonImport(Record):
    """A whole season, ready for one transaction. `sha256` covers the manifest and every file in it."""

    manifest: SeasonManifest
    sha256: str
    is_simulated: bool
    clips: tuple[ClipImport, ...]
    characters: tuple[CharacterImport, ...]
    slots: tuple[SlotImport, ...]
    warnings: tuple[str, ...]
