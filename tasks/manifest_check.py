"""Checking a manifest against its files: every clip and picture is probed, every problem told, nothing stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from domain.clips import ClipFacts
from domain.errors import BadInput
from domain.frame_rules import EVERY_SECONDS, wanted_frames
from domain.offers import face_model, video_model
from domain.offers import trainer as trainer_of
from domain.pictures import CaptionMode
from domain.records import Record
from domain.seasons import CharacterEntry, Season, SeasonManifest
from domain.training_sets import SMALLEST_SIDE
from domain.vendors import SANDBOX
from tasks.manifests import field_error, read_manifest

if TYPE_CHECKING:
    from providers.ports import ImageFacts
    from providers.wiring import Ports

LONGEST_CAPTION = 2000
"""Bytes of a caption; the text encoders of today's trainers read 77 to 512 tokens."""

LONGEST_ID = 18
"""Digits of the largest id that is surely a bigint."""


class ManifestFacts(Record):
    """A manifest that was checked, with what its files allow: for each character, how many pictures there can be to
    train on at most, and where its given LoRA lies on this machine (not when that is on the web)."""

    manifest: SeasonManifest
    pictures_at_most: dict[str, int]
    given_loras: dict[str, Path]


def check_manifest(ports: Ports, path: Path) -> ManifestFacts:
    """Read a manifest and look at its files, as an import does; nothing is stored or fetched. `BadInput` likewise."""
    manifest = read_manifest(path)
    check = ManifestCheck(ports, path, path.parent)
    check_files(ports, check, manifest)
    if check.problems:
        raise BadInput("\n".join(check.problems))
    places = {entry.name: lora_place(entry.lora) for entry in manifest.characters if entry.is_lora_wanted}
    given: dict[str, Path] = {}
    for entry in manifest.characters:
        if entry.lora == "auto" or places.get(entry.name) not in ("path", "id"):
            continue
        is_id = places[entry.name] == "id"
        sha256 = ports.loras.get(int(entry.lora)).sha256 if is_id else None
        given[entry.name] = ports.blobs.local_path(sha256) if sha256 is not None else check.resolve(entry.lora)
    return ManifestFacts(
        manifest=manifest,
        pictures_at_most={entry.name: _pictures_at_most(check, entry) for entry in manifest.characters},
        given_loras=given,
    )


def is_rehearsal(manifest: SeasonManifest) -> bool:
    """Whether the sandbox does all of a season's work, so that nothing of it is paid."""
    chosen = (manifest.vendor.train, manifest.vendor.image, manifest.vendor.video)
    return manifest.sandbox or all(vendors[0] == SANDBOX for vendors in chosen)


def season_of(manifest: SeasonManifest) -> Season:
    """The season as it would be stored, but for what only the database can know."""
    return Season(
        id=0,
        slug=manifest.season,
        owner=manifest.owner,
        time_zone=manifest.time_zone,
        vendor=manifest.vendor,
        is_simulated=is_rehearsal(manifest),
        review=manifest.review,
        face_still=manifest.face_still,
        manifest_sha256="",
        finished_sha256=None,
        video_sha256=None,
        video_seconds=None,
    )


class ManifestCheck:
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


def check_files(ports: Ports, check: ManifestCheck, manifest: SeasonManifest) -> None:
    season = season_of(manifest)
    try:
        face_model(ports.registry, season)
    except BadInput as error:
        check.problem(("face_still",), error.message)
    for i, entry in enumerate(manifest.characters):
        _check_character(ports, check, season, entry, i)
    for i, slot in enumerate(manifest.slots):
        if slot.prompt is not None:
            try:
                video_model(ports.registry, season, slot.video_model)
            except BadInput as error:
                check.problem(("slots", i, "video_model"), error.message)
        if slot.video is not None:
            check.clip(slot.video, ("slots", i, "video"))
        for j, name in enumerate(slot.scene_references):
            check.image(name, ("slots", i, "scene_references", j))


def _check_character(ports: Ports, check: ManifestCheck, season: Season, entry: CharacterEntry, number: int) -> None:
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
        _check_training(ports, check, season, entry, at)
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


def _check_enough(check: ManifestCheck, entry: CharacterEntry, at: tuple[str | int, ...]) -> None:
    """Refuse what can never be enough; how many frames are good is seen when they are harvested, still at no cost."""
    is_all_read = all(check.resolve(name) in check.images for name in entry.images) and all(
        check.resolve(name) in check.clips for name in entry.clips
    )
    at_most = _pictures_at_most(check, entry)
    if is_all_read and at_most < entry.min_images:
        check.problem(
            at,
            f"{entry.name} can have at most {at_most} usable images from what is given, and {entry.min_images} are "
            f"needed (min_images): give more or longer clips, or more images of at least {SMALLEST_SIDE} pixels.",
        )


def _pictures_at_most(check: ManifestCheck, entry: CharacterEntry) -> int:
    """Usable stills, and as many frames as clips of these lengths give at most."""
    images = [check.images.get(check.resolve(name)) for name in entry.images]
    clips = [check.clips.get(check.resolve(name)) for name in entry.clips]
    at_most = sum(image is not None and min(image.width, image.height) >= SMALLEST_SIDE for image in images)
    return at_most + sum(
        min(wanted_frames(clip.duration_seconds), 1 + int(clip.duration_seconds / EVERY_SECONDS))
        for clip in clips
        if clip
    )


def _check_training(
    ports: Ports, check: ManifestCheck, season: Season, entry: CharacterEntry, at: tuple[str | int, ...]
) -> None:
    for i, base in enumerate(entry.base_models):
        try:
            trainer = trainer_of(ports.registry, season, base, entry.training)
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


def _check_given_lora(ports: Ports, check: ManifestCheck, entry: CharacterEntry, at: tuple[str | int, ...]) -> None:
    where = (*at, "lora")
    if len(entry.base_models) != 1:
        check.problem(where, "is a file of one base model; write exactly one in base_models.")
        return
    match lora_place(entry.lora):
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


def lora_place(lora: str) -> Literal["id", "web", "path", ""]:
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
