"""Importing a season: every file of the manifest probed and stored, then the whole written in one transaction.

Everything is checked before anything is stored, so that a mistake leaves nothing half-done behind. Nothing is spent.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from domain.errors import BadInput, NotConfigured, OnModelError
from domain.imports import CharacterImport, ClipImport, ImageImport, SeasonImport, SlotImport
from domain.jobs import canonical_json
from domain.seasons import CharacterEntry, SeasonManifest, SlotEntry
from domain.vendors import WORKS, vendor_for
from tasks.manifest_check import ManifestCheck, check_files, is_rehearsal, lora_place, season_of
from tasks.manifests import read_manifest

if TYPE_CHECKING:
    from providers.ports import ImageFacts
    from providers.wiring import Ports

log = logging.getLogger("onmodel.importing")

MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
LARGEST_LORA_BYTES = 4 << 30


def import_season(ports: Ports, path: Path, *, is_run_next: bool = False) -> int:
    """Read, check and store a season; returns its id. Safe to repeat: an edited manifest updates the season.

    `BadInput` with one sentence per problem; with `is_run_next`, `NotConfigured` when a vendor of the season cannot be
    reached from here. Nothing is stored then. Free.
    """
    manifest = read_manifest(path)
    with tempfile.TemporaryDirectory(dir=ports.scratch()) as folder:
        check = ManifestCheck(ports, path, Path(folder))
        _check_season(ports, check, manifest)
        if is_run_next:
            _require_vendors(ports, manifest)
        ports.blobs.share(ports.ledger.installation())
        season = _store_files(ports, check, manifest)
    season_id = ports.seasons.store(season)
    for warning in season.warnings:
        log.warning("%s", warning)
    return season_id


def _check_season(ports: Ports, check: ManifestCheck, manifest: SeasonManifest) -> None:
    """`BadInput` with every problem there is. A LoRA from the web is fetched last, when all else is well."""
    check_files(ports, check, manifest)
    if not check.problems:
        for i, entry in enumerate(manifest.characters):
            _fetch_given_lora(ports, check, entry, ("characters", i, "lora"))
    if check.problems:
        raise BadInput("\n".join(check.problems))


def _store_files(ports: Ports, check: ManifestCheck, manifest: SeasonManifest) -> SeasonImport:
    stored: dict[str, str] = {}

    def keep(name: str, media_type: str) -> str:
        if name not in stored:
            stored[name] = ports.blobs.put_file(check.resolve(name), media_type)
        return stored[name]

    def clip(name: str) -> str:
        return keep(name, "video/mp4")

    def image(name: str) -> tuple[str, str]:
        media_type = MEDIA_TYPES[check.images[check.resolve(name)].format]
        return keep(name, media_type), media_type

    characters = []
    for entry in manifest.characters:
        pictures = [
            _image_import(role, name, *image(name), check.images[check.resolve(name)], check.captions.get(name, ""))
            for role, names in (("training", entry.images), ("reference", entry.references))
            for name in names
        ]
        characters.append(
            CharacterImport(
                entry=entry,
                lora=_keep_given_lora(ports, check, entry),
                clip_sha256s=tuple(clip(name) for name in entry.clips),
                images=tuple(pictures),
            )
        )
    slots = [_slot_import(slot, clip(slot.video) if slot.video else None, image) for slot in manifest.slots]
    names = {clip(path_name): path_name for path_name in _clip_names(manifest)}
    clips = tuple(
        ClipImport(sha256=sha256, source_name=Path(name).name, facts=check.clips[check.resolve(name)])
        for sha256, name in names.items()
    )
    content = {
        "manifest": manifest.model_dump(mode="json"),
        "files": stored,
        "captions": check.captions,
        "loras": [character.lora for character in characters],
    }
    return SeasonImport(
        manifest=manifest,
        sha256=hashlib.sha256(canonical_json(content).encode()).hexdigest(),
        is_simulated=is_rehearsal(manifest),
        clips=clips,
        characters=tuple(characters),
        slots=tuple(slots),
        warnings=tuple(check.warnings),
    )


def _clip_names(manifest: SeasonManifest) -> list[str]:
    return [name for entry in manifest.characters for name in entry.clips] + [
        slot.video for slot in manifest.slots if slot.video
    ]


def _image_import(role: str, name: str, sha256: str, media_type: str, facts: ImageFacts, caption: str) -> ImageImport:
    return ImageImport(
        role=role,
        sha256=sha256,
        source_name=Path(name).name,
        width=facts.width,
        height=facts.height,
        media_type=media_type,
        caption=caption,
    )


def _slot_import(slot: SlotEntry, clip_sha256: str | None, image: Callable[[str], tuple[str, str]]) -> SlotImport:
    scenes = [(*image(name), Path(name).suffix.lower()) for name in slot.scene_references]
    entry = {**slot.model_dump(mode="json"), "scene_sha256s": [list(scene) for scene in scenes]}
    content = {**entry, "video": clip_sha256, "scene_references": None}
    return SlotImport(
        number=slot.number,
        prompt=slot.prompt,
        clip_sha256=clip_sha256,
        entry=entry,
        entry_sha256=hashlib.sha256(canonical_json(content).encode()).hexdigest(),
    )


def _keep_given_lora(ports: Ports, check: ManifestCheck, entry: CharacterEntry) -> str:
    if entry.lora in ("auto", "none"):
        return entry.lora
    if lora_place(entry.lora) == "id":
        return f"sha256:{ports.loras.get(int(entry.lora)).sha256}"
    path = check.downloads.get(entry.lora) or check.resolve(entry.lora)
    return f"sha256:{ports.blobs.put_file(path, 'application/octet-stream')}"


def _fetch_given_lora(ports: Ports, check: ManifestCheck, entry: CharacterEntry, at: tuple[str | int, ...]) -> None:
    """A LoRA from the web into the check's folder; streamed, at most 4 GiB."""
    if entry.lora in ("auto", "none", *check.downloads) or lora_place(entry.lora) != "web":
        return
    import httpx

    path = check.folder / str(len(check.downloads))
    try:
        with path.open("wb") as file, ports.web.stream("GET", entry.lora, follow_redirects=True) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes(1 << 20):
                file.write(chunk)
                if file.tell() > LARGEST_LORA_BYTES:
                    check.problem(at, "the file there is over 4 GiB; give a smaller one.")
                    return
    except httpx.HTTPStatusError as error:
        check.problem(at, f"the web address answers {error.response.status_code}; check it, or give a local path.")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        check.problem(
            at, f"the web address cannot be reached ({type(error).__name__}); check it, or give a local path."
        )
    else:
        check.downloads[entry.lora] = path


def _require_vendors(ports: Ports, manifest: SeasonManifest) -> None:
    """Refuse to start when a vendor of the season is not configured (exit 3), before anything is stored or spent."""
    season = season_of(manifest)
    for name in dict.fromkeys(vendor_for(season, work) for work in WORKS):
        try:
            ports.job_vendor(name)
        except OnModelError as error:
            raise NotConfigured(error.message) from error
