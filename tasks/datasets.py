"""Datasets: a training set cropped, captioned and laid out as one trainer takes it; the same bytes for the same set.

Pictures are cut to their bucket (domain/crops.py) and written as JPEG, or clips are cut around them for trainers of
videos only (domain/stretches.py). Everything is STORED in the zip (pictures do not compress: DEFLATE takes fifteen
times as long for nothing, embedded_parts.md section 5), dates and modes are fixed, one file at a time is in memory.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domain.captions import (
    CaptionStyle,
    Shown,
    caption_for_trainer,
    caption_warnings,
    class_word,
    write_caption,
)
from domain.crops import TooSmall, plan_crop
from domain.dataset_manifests import (
    DatasetManifest,
    ManifestItem,
    counts_of,
    generated_warning,
    manifest_item,
    manifest_json,
)
from domain.errors import BadTrainingSet
from domain.layouts import (
    LayoutFacts,
    caption_path,
    has_manifest_inside,
    path_in,
    texts_of,
)
from domain.pictures import JPEG_QUALITY, CaptionMode, Origin
from domain.recipes import RULES, Recipe, recipe_for
from domain.seasons import Character
from domain.stretches import MOST_SHARED, Stretch, TooShort, plan_stretch, span_of_shot
from domain.training_sets import Dataset, TrainingImage, TrainingSet

if TYPE_CHECKING:
    from domain.clips import Clip, Frame
    from providers.ports import RgbImage
    from providers.wiring import Ports

log = logging.getLogger("onmodel.datasets")

_CHUNK_BYTES = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o644 << 16


def build_dataset(ports: Ports, training_set_id: int, trainer: str) -> int:
    """The id of the set's dataset for this trainer (its key in the registry) or layout (`kohya`, `musubi`, …).

    Built once: one that is there is returned at once, without touching a picture. Safe to repeat and to do twice at a
    time: equal sets give equal bytes. Free; 0.06 s of one core per picture of 1920×1080, in flat memory. `BadInput`
    for an unknown trainer, `BadTrainingSet` naming every picture that cannot be used, when too few are left.
    """
    recipe = recipe_for(ports.registry, trainer)
    known = ports.datasets.find(training_set_id, recipe.key)
    if known is not None:
        return known.id
    training_set = ports.cast.training_set(training_set_id)
    character = ports.cast.get(training_set.character_id)
    with tempfile.TemporaryDirectory(dir=ports.scratch(), prefix="dataset-") as folder:
        dataset = _Workbench(ports, training_set, character, recipe, Path(folder)).build()
    dataset_id = ports.datasets.keep(dataset)
    log.info("%s: %d files laid out for %s", character.name, dataset.file_count, trainer)
    return dataset_id


class _Workbench:
    """One dataset being made: what it is made of, and what was found wrong on the way."""

    def __init__(
        self, ports: Ports, training_set: TrainingSet, character: Character, recipe: Recipe, folder: Path
    ) -> None:
        self._ports = ports
        self._set = training_set
        self._character = character
        self._recipe = recipe
        self._folder = folder
        self._refused: list[str] = []

    def build(self) -> Dataset:
        """Everything made, checked and stored, but for the row."""
        made = list(self._clips() if self._recipe.videos else self._pictures())
        self._check_count(len(made))
        facts = self._facts(made)
        kind = self._recipe.layout
        placed = [(self._item(item, facts), file) for item, file in made]
        items = tuple(item for item, _ in placed)
        manifest = self._manifest(items)
        manifest_text = manifest_json(manifest)
        texts = {text.path: text.text for text in texts_of(kind, facts)}
        if has_manifest_inside(kind):
            texts["manifest.json"] = manifest_text
        path = self._folder / "dataset.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for item, file in placed:
                with file.open("rb") as source, archive.open(_entry(item.file), "w") as target:
                    shutil.copyfileobj(source, target, _CHUNK_BYTES)
                archive.writestr(_entry(item.caption_file), item.caption)
            for name, text in sorted(texts.items()):
                archive.writestr(_entry(name), text)
        return Dataset(
            id=0,
            training_set_id=self._set.id,
            layout=self._recipe.key,
            zip_sha256=self._ports.blobs.put_file(path, "application/zip"),
            manifest_sha256=self._ports.blobs.put_bytes(manifest_text.encode(), "application/json"),
            file_count=2 * len(items) + len(texts),
            size_bytes=path.stat().st_size,
            warnings=manifest.warnings,
        )

    def _pictures(self) -> Iterator[tuple[ManifestItem, Path]]:
        """Each picture cropped, reduced and written; one that fills no bucket is refused."""
        for image in self._set.trained:
            planned = plan_crop(image.width, image.height, image.subject, (), self._recipe.resolutions)
            if isinstance(planned, TooSmall):
                self._refused.append(planned.sentence(_what(image)))
                continue
            whole = self._load(image.sha256)
            file = self._folder / f"{Path(image.file_name).stem}.jpg"
            cropped = self._ports.cuts.crop(whole, planned)
            file.write_bytes(self._ports.media.jpeg_bytes(cropped, JPEG_QUALITY))
            item = manifest_item(
                image,
                file=file.name,
                caption_file="",
                caption=self._caption(image, whole, cropped if planned.is_closer or image.made_from else None),
                sha256=_digest_of(file),
                size=(planned.width, planned.height),
                crop=planned.box,
                scale=planned.scale,
            )
            yield item, file

    def _clips(self) -> Iterator[tuple[ManifestItem, Path]]:
        """For each picture the stretch of its clip around it, unless one that is made shows most of it already."""
        made: dict[int, list[Stretch]] = {}
        for image in self._set.trained:
            found = self._clip_of(image)
            if found is None:
                self._refused.append(f"{_what(image)} is no frame of a clip, and this trainer takes videos only.")
                continue
            clip, frame, frames = found
            if image.made_from is not None:
                self._refused.append(f"{_what(image)} was cut to leave somebody else out, which a clip cannot be.")
                continue
            assert self._recipe.videos is not None
            bars = self._ports.cast.bars(clip.id)
            planned = plan_stretch(
                self._recipe.videos,
                frame.at_seconds,
                span_of_shot([(one.at_seconds, one.shot) for one in frames], frame.at_seconds, clip.duration_seconds),
                clip.width - bars.left - bars.right,
                clip.height - bars.top - bars.bottom,
            )
            if isinstance(planned, TooShort):
                self._refused.append(planned.sentence(_what(image)))
                continue
            if any(planned.shares(other) > MOST_SHARED for other in made.get(clip.id, [])):
                continue
            file = self._folder / f"{Path(image.file_name).stem}.mp4"
            source = self._ports.blobs.local_path(clip.sha256)
            self._ports.cuts.cut_clip(source, (clip.width, clip.height), planned, file, bars)
            made.setdefault(clip.id, []).append(planned)
            item = manifest_item(
                image,
                file=file.name,
                caption_file="",
                caption=self._caption(image, None),
                sha256=_digest_of(file),
                size=(planned.width, planned.height),
                stretch=planned,
            )
            yield item, file

    def _clip_of(self, image: TrainingImage) -> tuple[Clip, Frame, list[Frame]] | None:
        """The clip and frame a picture comes from; clips may share a name, so the frame decides."""
        if image.at_seconds is None or image.origin is Origin.STILL:
            return None
        for clip in self._ports.cast.clips(self._character.id):
            if clip.source_name != image.source:
                continue
            frames = self._ports.cast.frames(clip.id)
            for frame in frames:
                if abs(frame.at_seconds - image.at_seconds) < 1e-3 and image.name in ("", frame.name):
                    return clip, frame, frames
        return None

    def _caption(self, image: TrainingImage, whole: RgbImage | None, closer: RgbImage | None = None) -> str:
        """The set's caption as this trainer wants it. An automatic one is written anew where the trainer wants tags,
        or where the crop is so much `closer` than what it was written of that the surroundings are others."""
        caption = image.caption
        trigger = self._character.trigger_word
        is_automatic = self._character.captions is not CaptionMode.FIXED and not image.is_caption_own
        if is_automatic and (self._recipe.style is CaptionStyle.TAGS or closer is not None):
            picture = closer if closer is not None else whole if whole is not None else self._load(image.sha256)
            caption = write_caption(trigger, self._shown(image, picture), self._recipe.style)
        return caption_for_trainer(caption, trigger, self._recipe.trigger)

    def _load(self, sha256: str) -> RgbImage:
        return self._ports.media.load_image(self._ports.blobs.local_path(sha256))

    def _shown(self, image: TrainingImage, picture: RgbImage) -> Shown:
        return Shown(
            surroundings=self._ports.cuts.surroundings(picture),
            framing=image.framing,
            view=image.view,
        )

    def _check_count(self, count: int) -> None:
        fewest = max(1, self._recipe.fewest_items)
        if count >= fewest:
            return
        raise BadTrainingSet(
            f"{self._character.name}: {count} of {len(self._set.trained)} pictures can be laid out for "
            f"{self._recipe.name}, at least {fewest} are needed. {' '.join(self._refused)}".strip()
        )

    def _facts(self, made: Sequence[tuple[ManifestItem, Path]]) -> LayoutFacts:
        stretches = [item.stretch for item, _ in made if item.stretch is not None]
        return LayoutFacts(
            trigger_word=self._character.trigger_word,
            class_word=class_word(self._character.kind),
            image_count=len(made),
            resolutions=self._recipe.resolutions,
            frames=tuple(sorted({stretch.frames for stretch in stretches})),
            fps=stretches[0].fps if stretches else None,
        )

    def _item(self, item: ManifestItem, facts: LayoutFacts) -> ManifestItem:
        path = path_in(self._recipe.layout, facts, item.file)
        return item.model_copy(update={"file": path, "caption_file": caption_path(path)})

    def _manifest(self, items: tuple[ManifestItem, ...]) -> DatasetManifest:
        captions = [(item.name or item.file, item.caption) for item in items]
        generated = generated_warning([item.origin for item in items])
        said = caption_warnings(
            captions, self._character.trigger_word, is_fixed=self._character.captions is CaptionMode.FIXED
        )
        return DatasetManifest(
            season=self._ports.seasons.get(self._character.season_id).slug,
            character=self._character.name,
            trigger_word=self._character.trigger_word,
            trainer=self._recipe.name,
            layout=self._recipe.layout.value,
            rules=RULES,
            training_set_digest=self._set.digest,
            counts=counts_of(items),
            warnings=(*self._refused, *said, *([generated] if generated else [])),
            items=items,
        )


def _what(image: TrainingImage) -> str:
    """How a person knows a picture: by its source and, in a clip, its second."""
    return image.source if image.at_seconds is None else f"{image.source} at {image.at_seconds:.1f} s"


def _digest_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = _FILE_MODE
    entry.create_system = 3
    return entry
