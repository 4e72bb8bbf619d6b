"""`onmodel dataset`: a character's training set for one trainer, in a folder, with a contact sheet to overrule it by.

Whatever is missing is done first: clips are harvested, the set is curated. All of it is free and kept, so that a later
run of the season takes exactly what the sheet shows.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from domain.errors import BadInput, BadTrainingSet, OnModelError
from domain.pictures import Decision, Framing, View
from domain.recipes import recipe_for
from domain.records import Record
from domain.seasons import Character
from domain.training_sets import Dataset, TrainingImage, TrainingSet
from domain.vendors import catalogue_of, vendor_for
from providers.wiring import open_ports
from studio.dataset_names import file_decisions, names_of
from studio.folders import usable_folder
from studio.frames_folder import names_in
from studio.own_files import digest_of, memory_in, replace_files, save_memory, workbench
from studio.prefect_setup import set_defaults
from studio.telling import complain, end_progress, print_json, print_table, say, tell_progress

if TYPE_CHECKING:
    from providers.wiring import Ports
    from studio.dataset_sheet import Verdicts

log = logging.getLogger("onmodel.dataset_by_hand")

MEMORY = "dataset.json"
_SOURCE_LETTERS, _CAPTION_LETTERS = 16, 30
_FRAMINGS = {Framing.CLOSE_UP: "close-up", Framing.BUST: "bust", Framing.FULL: "full", Framing.UNKNOWN: "–"}
_VIEWS = {
    View.FRONTAL: "front",
    View.THREE_QUARTER: "3/4",
    View.PROFILE: "profile",
    View.BACK: "back",
    View.UNKNOWN: "–",
}


class FolderMemory(Record):
    """All of `dataset.json`: which files of the folder are ours, by their path in it."""

    made_by: Literal["onmodel dataset"] = "onmodel dataset"
    schema_version: Literal[1] = 1
    season: str
    character: str
    files: dict[str, str]
    """SHA-256 by path."""


def make_dataset(
    slug: str,
    name: str,
    out: Path | None,
    *,
    trainer: str | None,
    keep: Sequence[str],
    drop: Sequence[str],
    undecide: Sequence[str],
    as_json: bool,
) -> int:
    """Write the character's dataset and contact sheet, and print what is in it.

    Exit 0; 2 when there are too few pictures (the sheet is written all the same, so that one sees why), or when season,
    character, trainer or a picture's name is unknown (then nothing is stored). Free, and safe to repeat.
    """
    ports = open_ports()
    season = ports.seasons.by_slug(slug)
    character = ports.cast.named(season.id, name)
    folder = out or Path("onmodel-out") / slug / "datasets" / _folder_name(character)
    usable_folder(folder)
    memory = _memory_of(folder, slug, character)
    recipe = recipe_for(ports.registry, trainer or _usual_trainer(ports, character))
    if not as_json:
        tell_progress()
    # The tasks' modules also hold Prefect's tasks; here they are plain functions, whose log is no flow's.
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    set_defaults(ports.settings.home)
    from studio.dataset_sheet import write_dataset_sheet
    from tasks.frames import harvest_clip

    for clip in ports.cast.clips(character.id):
        harvest_clip(ports, clip.id)
    names = names_of(ports, character)
    file_decisions(ports, character, names, keep=names_in(keep), drop=names_in(drop), undecide=names_in(undecide))
    decided = names.decided(ports.decisions.decisions(character.id))
    verdicts, training_set, dataset, error = _build(ports, character, recipe.name)
    folder.mkdir(parents=True, exist_ok=True)
    _write_files(ports, folder, memory, dataset, recipe.name)
    sheet = write_dataset_sheet(ports, character, decided, verdicts, recipe.name, folder)
    end_progress()
    if as_json:
        print_json(
            _document(slug, character, recipe.name, folder, sheet, training_set, dataset, verdicts, decided, error)
        )
    else:
        _tell(character, verdicts, decided, dataset, folder, sheet)
    if error is not None:
        complain(error.message)
        return error.exit_code
    return 0


def _build(
    ports: Ports, character: Character, trainer: str
) -> tuple[Verdicts, TrainingSet | None, Dataset | None, OnModelError | None]:
    """What came of every picture, the set and its dataset; where there is none, the error that says why."""
    from studio.dataset_sheet import Verdicts
    from tasks.curation import curate_training_set
    from tasks.datasets import build_dataset

    try:
        training_set = ports.cast.training_set(curate_training_set(ports, character.id))
    except (BadInput, BadTrainingSet) as error:
        return _considered(ports, character, error), None, None, error
    verdicts = Verdicts(
        trained=training_set.trained,
        held_out=training_set.held_out,
        left_out=training_set.left_out,
        gaps=training_set.coverage.gaps,
        warnings=training_set.warnings,
    )
    try:
        dataset = ports.datasets.get(build_dataset(ports, training_set.id, trainer))
    except (BadInput, BadTrainingSet) as error:
        return verdicts.model_copy(update={"sentence": error.message}), training_set, None, error
    more = tuple(warning for warning in dataset.warnings if warning not in verdicts.warnings)
    return verdicts.model_copy(update={"warnings": (*verdicts.warnings, *more)}), training_set, dataset, None


def _considered(ports: Ports, character: Character, error: OnModelError) -> Verdicts:
    """What there is to see where no set could be made: the pictures that would do, and why the others would not."""
    from studio.dataset_sheet import Verdicts, usable_picture
    from tasks.curation import consider

    considered = consider(ports, character.id)
    return Verdicts(
        usable=tuple(usable_picture(usable) for usable in considered.usable),
        left_out=considered.left_out,
        sentence=error.message,
    )


def _usual_trainer(ports: Ports, character: Character) -> str:
    """The trainer that a run of the season would use for the character's first base model."""
    if not character.base_models:
        raise BadInput(f"{character.name} is to have no LoRA, so there is no usual trainer: name one with --trainer.")
    vendor = vendor_for(ports.seasons.get(character.season_id), "train")
    return ports.registry.trainer_for(character.base_models[0], catalogue_of(vendor)).key


# --- the folder ---


def _folder_name(character: Character) -> str:
    return re.sub(r"[^\w.-]+", "-", character.name).strip("-.").lower() or "character"


def _memory_of(folder: Path, slug: str, character: Character) -> FolderMemory:
    """What is known of the folder. `BadInput` where it holds other things, or another character's dataset."""
    memory = memory_in(folder, MEMORY, FolderMemory, "onmodel dataset")
    if memory is None:
        return FolderMemory(season=slug, character=character.name, files={})
    if (memory.season, memory.character) != (slug, character.name):
        raise BadInput(
            f"{folder} holds the dataset of {memory.character} in {memory.season}: give another folder with --out."
        )
    return memory


def _write_files(ports: Ports, folder: Path, memory: FolderMemory, dataset: Dataset | None, trainer: str) -> None:
    """The dataset unpacked and as a zip, in place of what this command wrote here before.

    Without a dataset the files of the last one stay as they are.
    """
    if dataset is None:
        save_memory(folder, MEMORY, memory)
        return
    from tasks.dataset_export import export_dataset

    label = re.sub(r"[^\w.-]+", "-", trainer).strip("-.")
    with workbench(folder) as bench:
        unpacked = bench / "files"
        unpacked.mkdir()
        wanted = {
            f"{label}/{path.relative_to(unpacked.absolute()).as_posix()}": path
            for path in export_dataset(ports, dataset.id, unpacked)
        }
        packed = bench / "dataset.zip"
        shutil.copyfile(ports.blobs.local_path(dataset.zip_sha256), packed)
        wanted[f"{label}.zip"] = packed
        digests = {name: digest_of(path) for name, path in wanted.items()}
        after = memory.model_copy(update={"files": digests})
        replace_files(folder, memory.files, wanted, lambda: save_memory(folder, MEMORY, after))


# --- what is printed ---


def _tell(
    character: Character,
    verdicts: Verdicts,
    decided: dict[str, Decision],
    dataset: Dataset | None,
    folder: Path,
    sheet: Path,
) -> None:
    for title, images in (("Trained", verdicts.trained), ("Held out", verdicts.held_out)):
        if images:
            columns = ["name", "from", "second", "framing", "view", "light", "like", "caption"]
            rows = [_row(image, character.trigger_word) for image in images]
            noun = "picture" if len(images) == 1 else "pictures"
            print_table(f"{title}: {len(images)} {noun} of {character.name}", columns, rows, right=(2, 6))
            say()
    for gap in verdicts.gaps:
        say(f"Coverage: {gap}", hang=2)
    for warning in verdicts.warnings:
        say(f"Note: {warning}", hang=2)
    if verdicts.doubtful:
        names = ", ".join(one.name for one in verdicts.doubtful)
        say(f"Your word is needed: {names}. Say --keep or --drop; the sheet shows them.", hang=2)
    for decision, words in ((Decision.KEEP, "Kept by you"), (Decision.DROP, "Dropped by you")):
        if names := ", ".join(name for name, said in decided.items() if said is decision):
            say(f"{words}: {names}.", hang=2)
    say(f"Left out: {len(verdicts.left_out) - len(verdicts.doubtful)}, each with its reason on the sheet.")
    if dataset is not None:
        say(f"Dataset:        {folder} ({dataset.file_count} files)")
    say(f"Contact sheet:  {sheet}")


def _row(image: TrainingImage, trigger_word: str) -> list[str]:
    stem = Path(image.source).stem
    varying = image.caption.removeprefix(trigger_word).lstrip(" ,")
    return [
        image.name,
        stem if len(stem) <= _SOURCE_LETTERS else f"{stem[: _SOURCE_LETTERS - 1]}…",
        "" if image.at_seconds is None else f"{image.at_seconds:.1f}",
        _FRAMINGS[image.framing],
        _VIEWS[image.view],
        image.light.value,
        "" if image.likeness is None else f"{image.likeness:.2f}",
        textwrap.shorten(varying, _CAPTION_LETTERS, placeholder=" …"),
    ]


def _document(
    slug: str,
    character: Character,
    trainer: str,
    folder: Path,
    sheet: Path,
    training_set: TrainingSet | None,
    dataset: Dataset | None,
    verdicts: Verdicts,
    decided: dict[str, Decision],
    error: OnModelError | None,
) -> dict[str, Any]:
    return {
        "exit_code": error.exit_code if error is not None else 0,
        "season": slug,
        "character": character.name,
        "trainer": trainer,
        "folder": str(folder.absolute()),
        "contact_sheet": str(sheet.absolute()),
        "training_set": training_set.model_dump(mode="json") if training_set is not None else None,
        "dataset": dataset.model_dump(mode="json") if dataset is not None else None,
        "left_out": [one.model_dump(mode="json") for one in verdicts.left_out],
        "decisions": decided,
        "gaps": list(verdicts.gaps),
        "warnings": list(verdicts.warnings),
        "errors": [error.message] if error is not None else [],
    }
