"""Importing a season: every file of the manifest probed and stored, then the whole written in one transaction.

Everything is checked before anything is stored, so that a mistake leaves nothing half-done behind. Nothing is spent.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from domain.clips import ClipFacts
from domain.errors import BadInput, NotConfigured, OnModelError
from domain.frame_rules import EVERY_SECONDS, wanted_frames
from domain.imports import CharacterImport, ClipImport, ImageImport, SeasonImport, SlotImport
from domain.jobs import canonical_json
from domain.pictures import CaptionMode
from domain.seasons import CharacterEntry, SeasonManifest, SlotEntry
from domain.training_sets import SMALLEST_SIDE
from domain.vendors import SANDBOX, WORKS
from tasks.manifests import field_error, read_manifest

if TYPE_CHECKING:
    from providers.ports import ImageFacts
    from providers.wiring import Ports

log = logging.getLogger("onmodel.importing")

MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
LARGEST_LORA_BYTES = 4 << 30
LONGEST_CAPTION = 2000
"""Bytes of a caption; the text encoders of today's trainers read 77 to 512 tokens."""

LONGEST_ID = 18
"""Digits of the largest id that is surely a bigint."""


class _Check:
    """The files of one manifest: each probed once, problems collected as sentences; `folder` is thrown away after."""

    def __init__(self, ports: Ports, manifest_path: Path, folder: Path) -> None:
        self._ports = ports
        self._path = manifest_path
        self.folder = folder
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.clips: dict[Path, ClipFacts] = {}
        self.images: dict[Path, ImageFacts] = {}
        self.downloads: dict[str, Path] = {}
        self.captions: dict[str, str] = {}

    def resolve(self, name: str) -> Path:
        try:
            path = Path(name).expanduser()
        except RuntimeError:  # ~somebody who is not on this machine: then it is a name like any other
            path = Path(name)
        return path if path.is_absolute() else self._path.parent / path

    def clip(self, name: str, location: tuple[str | int, ...]) -> None:
        self._probe(self.resolve(name), self.clips, self._ports.media.probe_clip, location)

    def image(self, name: str, location: tuple[str | int, ...]) -> None:
        self._probe(self.resolve(name), self.images, self._ports.media.probe_image, location)

    def caption(self, name: str, location: tuple[str | int, ...]) -> None:
        """Read the `.txt` of an image's stem, where there is one."""
        path = self.resolve(name).with_suffix(".txt")
        if not path.is_file():
            return
        try:
            text = (
                " ".join(path.read_text(encoding="utf-8").split()) if path.stat().st_size <= LONGEST_CAPTION else None
            )
        except (OSError, UnicodeDecodeError):
            text = None
        if text is None or not text.isprintable():
            self.problem(
                location, f"{path.name} is no caption; write one line of UTF-8 text, at most {LONGEST_CAPTION} bytes."
            )
        elif text:
            self.captions[name] = text

    def problem(self, location: tuple[str | int, ...], message: str) -> None:
        self.problems.append(field_error(self._path, location, message))

    def _probe(
        self, path: Path, known: dict[Path, Any], probe: Callable[[Path], Any], location: tuple[str | int, ...]
    ) -> None:
        if path in known:
            return
        try:
            known[path] = probe(path)
        except BadInput as error:
            self.problem(location, error.message)


def import_season(ports: Ports, path: Path, *, is_run_next: bool = False) -> int:
    """Read, check and store a season; returns its id. Safe to repeat: an edited manifest updates the season.

    `BadInput` with one sentence per problem; with `is_run_next`, `NotConfigured` when a vendor of the season cannot be
    reached from here. Nothing is stored then. Free.
    """
    manifest = read_manifest(path)
    with tempfile.TemporaryDirectory(dir=ports.scratch()) as folder:
        check = _Check(ports, path, Path(folder))
        _check_season(ports, check, manifest)
        if is_run_next:
            _require_vendors(ports, manifest)
        season = _store_files(ports, check, manifest)
    season_id = ports.seasons.store(season)
    for warning in season.warnings:
        log.warning("%s", warning)
    return season_id


def _check_season(ports: Ports, check: _Check, manifest: SeasonManifest) -> None:
    """`BadInput` with every problem there is. A LoRA from the web is fetched last, when all else is well."""
    for i, entry in enumerate(manifest.characters):
        _check_character(ports, check, entry, i)
    for i, slot in enumerate(manifest.slots):
        if slot.video is not None:
            check.clip(slot.video, ("slots", i, "video"))
        for j, name in enumerate(slot.scene_references):
            check.image(name, ("slots", i, "scene_references", j))
    if not check.problems:
        for i, entry in enumerate(manifest.characters):
            _fetch_given_lora(ports, check, entry, ("characters", i, "lora"))
    if check.problems:
        raise BadInput("\n".join(check.problems))


def _check_character(ports: Ports, check: _Check, entry: CharacterEntry, number: int) -> None:
    at: tuple[str | int, ...] = ("characters", number)
    for field in ("clips", "images", "references"):
        for i, name in enumerate(getattr(entry, field)):
            probe = check.clip if field == "clips" else check.image
            probe(name, (*at, field, i))
            if field == "images" and entry.captions is CaptionMode.OWN:
                check.caption(name, (*at, field, i))
    if entry.is_trained_here:
        if not entry.clips and not entry.images:
            check.problem(
                at, f"{entry.name} has neither clips nor images to learn from; give some, or write lora: none."
            )
        else:
            _check_enough(check, entry, at)
        _check_training(ports, check, entry, at)
    elif entry.lora != "none":
        _check_given_lora(ports, check, entry, at)
    if not entry.is_trained_here and not (entry.references or entry.images or entry.clips):
        check.problem(at, f"{entry.name} has no picture at all; give references, images or clips.")
    for name in dict.fromkeys((*entry.images, *entry.references)):
        facts = check.images.get(check.resolve(name))
        if facts is not None and min(facts.width, facts.height) < SMALLEST_SIDE:
            what = (
                "it is left out of training, where it would have to be enlarged"
                if name in entry.images
                else "as a reference it shows little"
            )
            check.warnings.append(f"{name} is {facts.width}×{facts.height}, under {SMALLEST_SIDE} pixels: {what}.")


def _check_enough(check: _Check, entry: CharacterEntry, at: tuple[str | int, ...]) -> None:
    """Refuse what can never be enough; how many frames are good is seen when they are harvested, still at no cost."""
    images = [check.images.get(check.resolve(name)) for name in entry.images]
    clips = [check.clips.get(check.resolve(name)) for name in entry.clips]
    at_most = sum(image is not None and min(image.width, image.height) >= SMALLEST_SIDE for image in images)
    at_most += sum(
        min(wanted_frames(clip.duration_seconds), 1 + int(clip.duration_seconds / EVERY_SECONDS))
        for clip in clips
        if clip
    )
    if None not in (*images, *clips) and at_most < entry.min_images:
        check.problem(
            at,
            f"{entry.name} can have at most {at_most} usable images from what is given, and {entry.min_images} are "
            f"needed (min_images): give more or longer clips, or more images of at least {SMALLEST_SIDE} pixels.",
        )


def _check_training(ports: Ports, check: _Check, entry: CharacterEntry, at: tuple[str | int, ...]) -> None:
    for i, base in enumerate(entry.base_models):
        try:
            trainer = ports.registry.trainer_for(base)
        except BadInput as error:
            check.problem((*at, "base_models", i), error.message)
            continue
        assert trainer.training is not None
        for option in ("steps", "learning_rate", "rank"):
            value = getattr(entry.training, option)
            rule = getattr(trainer.training, option)
            if value is None:
                continue
            if not rule.takes:
                check.problem((*at, "training", option), f"{rule.reason}.")
            elif (rule.minimum is not None and value < rule.minimum) or (
                rule.maximum is not None and value > rule.maximum
            ):
                check.problem(
                    (*at, "training", option),
                    f"is {value:g}; {trainer.key} takes {rule.minimum:g} to {rule.maximum:g}.",
                )
        if entry.min_images < trainer.training.min_images:
            check.problem(
                (*at, "min_images"),
                f"is {entry.min_images}; {trainer.key} itself needs at least {trainer.training.min_images} images.",
            )


def _check_given_lora(ports: Ports, check: _Check, entry: CharacterEntry, at: tuple[str | int, ...]) -> None:
    where = (*at, "lora")
    if len(entry.base_models) != 1:
        check.problem(where, "is a file of one base model; write exactly one in base_models.")
        return
    match _lora_place(entry.lora):
        case "id":
            lora = ports.loras.find(int(entry.lora)) if len(entry.lora) <= LONGEST_ID else None
            if lora is None:
                check.problem(where, f"{entry.lora} is no LoRA in this database; see onmodel status.")
            elif lora.sha256 is None:
                check.problem(
                    where, f"LoRA {lora.id} of {lora.character_name} has no file yet; wait until it is trained."
                )
            elif lora.base_model != entry.base_models[0]:
                check.problem(where, f"LoRA {lora.id} is one of {lora.base_model}; write that in base_models.")
        case "path" if not check.resolve(entry.lora).is_file():
            check.problem(
                where, f"there is no file {entry.lora}; write auto, none, or the path of a .safetensors file."
            )
        case "":
            check.problem(where, f"{entry.lora!r} is neither auto, none, a path, a web address nor an id.")


def _lora_place(lora: str) -> Literal["id", "web", "path", ""]:
    """Where a given LoRA is; '' for what is none of these."""
    if lora.isascii() and lora.isdecimal():
        return "id"
    try:
        parts = urlsplit(lora)
    except ValueError:
        return ""
    if parts.scheme in ("http", "https") and parts.hostname:
        return "web"
    return "" if parts.scheme else "path"


def _store_files(ports: Ports, check: _Check, manifest: SeasonManifest) -> SeasonImport:
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
        is_simulated=manifest.sandbox
        or all(
            vendors[0] == "sandbox" for vendors in (manifest.vendor.train, manifest.vendor.image, manifest.vendor.video)
        ),
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


def _keep_given_lora(ports: Ports, check: _Check, entry: CharacterEntry) -> str:
    if entry.lora in ("auto", "none"):
        return entry.lora
    if _lora_place(entry.lora) == "id":
        return f"sha256:{ports.loras.get(int(entry.lora)).sha256}"
    path = check.downloads.get(entry.lora) or check.resolve(entry.lora)
    return f"sha256:{ports.blobs.put_file(path, 'application/octet-stream')}"


def _fetch_given_lora(ports: Ports, check: _Check, entry: CharacterEntry, at: tuple[str | int, ...]) -> None:
    """A LoRA from the web into the check's folder; streamed, at most 4 GiB."""
    if entry.lora in ("auto", "none", *check.downloads) or _lora_place(entry.lora) != "web":
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
    chosen = (SANDBOX if manifest.sandbox else getattr(manifest.vendor, work)[0] for work in WORKS)
    for name in dict.fromkeys(chosen):
        try:
            ports.vendor(name)
        except OnModelError as error:
            raise NotConfigured(error.message) from error
