"""Choosing a training set by hand: `onmodel dataset` shows everything it weighed, and holds to what a person says."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.season_art import SHOTS
from tests.command_runs import Machine, own_machine
from tests.media_samples import make_clip

SHEET = "contact-sheet.html"
TRAINER = "fal_flux_lora_fast"


@pytest.fixture(scope="module")
def machine(server_url: str, art: Path) -> Iterator[Machine]:
    """A season with one character of enough stills, and one of too few."""
    with own_machine(server_url) as machine:
        make_clip(machine.folder / "pattern.mp4", seconds=5, rate="8", size=(320, 240), keyframe_every=5)
        mei = entry("Mei", [str(art / f"mei-{number}.png") for number in range(len(SHOTS))], 4)
        bo = entry("Old Bo", [str(art / f"rui-{number}.png") for number in range(2)], 10)
        cast = [mei, bo | {"clips": ["pattern.mp4"]}]
        season = {"season": "little", "budget_usd": 10, "characters": cast, "slots": [{"number": 1, "prompt": "x"}]}
        ended = machine.onmodel("season", "import", machine.write(json.dumps(season)))
        assert ended.exit_code == 0, ended.err
        yield machine


def entry(name: str, images: list[str], min_images: int) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "illustrated",
        "images": images,
        "references": images[:1],
        "min_images": min_images,
    }


def decisions(machine: Machine) -> list[tuple[str, str]]:
    with psycopg.connect(machine.database_url) as db:
        rows = db.execute("SELECT picture, decision FROM onmodel.picture_decisions ORDER BY id").fetchall()
    return [(str(picture), str(decision)) for picture, decision in rows]


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_set_is_written_with_its_zip_and_a_sheet_and_a_persons_word_changes_it(machine: Machine) -> None:
    first = machine.onmodel("dataset", "little", "mei", "--json")
    assert first.exit_code == 0, first.err
    folder = Path(first.document["folder"])
    assert folder == machine.folder / "onmodel-out" / "little" / "datasets" / "mei"
    with zipfile.ZipFile(folder / f"{TRAINER}.zip") as archive:
        packed = {f"{TRAINER}/{name}": hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    unpacked = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in packed}
    assert unpacked == packed
    ours = {SHEET, "dataset.json", f"{TRAINER}.zip", f"{TRAINER}/manifest.json"}
    assert files_below(folder) == ours | set(packed)
    trained = [image["name"] for image in first.document["training_set"]["trained"]]
    assert len(packed) == 2 * len(trained)
    page = (folder / SHEET).read_text("utf-8")
    assert all(f">{name}<" in page for name in trained)

    again = machine.onmodel("dataset", "little", "Mei", "--drop", trained[0])
    assert again.exit_code == 0, again.err
    assert trained[0] not in {line.split(" ")[0] for line in again.out.splitlines()}
    assert f"Dropped by you: {trained[0]}." in again.out
    assert len(decisions(machine)) == 1
    assert "dropped by you" in (folder / SHEET).read_text("utf-8")
    manifest = json.loads((folder / TRAINER / "manifest.json").read_text("utf-8"))
    names = {item["name"] for item in manifest["items"]}
    assert trained[0] not in names
    assert files_below(folder) == ours | {f"{TRAINER}/{item['file']}" for item in manifest["items"]} | {
        f"{TRAINER}/{item['caption_file']}" for item in manifest["items"]
    }


def test_a_name_that_nobody_has_is_answered_with_those_there_are_and_nothing_is_stored(machine: Machine) -> None:
    before = decisions(machine)
    ended = machine.onmodel("dataset", "little", "Old Bo", "--drop", "s1,s9")
    assert ended.exit_code == 2
    [sentence] = ended.sentences
    assert sentence.startswith("Old Bo has no picture 's9'; there are: f")
    assert sentence.endswith("s1, s2.")
    assert decisions(machine) == before


def test_with_too_few_pictures_the_sheet_shows_why_and_the_command_ends_with_2(machine: Machine) -> None:
    ended = machine.onmodel("dataset", "little", "Old Bo", "--out", "few", "--json")
    assert ended.exit_code == 2
    assert len(ended.sentences) == 1
    assert ended.document["errors"] == ended.sentences
    assert ended.document["dataset"] is None
    assert files_below(machine.folder / "few") == {SHEET, "dataset.json"}
    page = (machine.folder / "few" / SHEET).read_text("utf-8")
    assert "at least 10 are needed" in page
    assert page.count('<img src="data:image/jpeg;base64,') >= 2


def test_a_folder_of_somebody_else_is_refused_before_anything_is_done(machine: Machine) -> None:
    (machine.folder / "mine").mkdir()
    (machine.folder / "mine" / "letter.txt").write_text("mine")
    ended = machine.onmodel("dataset", "little", "Mei", "--out", "mine", "--drop", "s1")
    assert ended.exit_code == 2
    assert "holds files that onmodel dataset did not write" in ended.err
    assert files_below(machine.folder / "mine") == {"letter.txt"}


def test_an_unknown_trainer_is_answered_with_those_there_are(machine: Machine) -> None:
    ended = machine.onmodel("dataset", "little", "Mei", "--trainer", "nobody")
    assert ended.exit_code == 2
    assert f"{TRAINER}," in ended.err
    assert "kohya" in ended.err
