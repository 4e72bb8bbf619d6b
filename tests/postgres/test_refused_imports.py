"""Importing a bad season: every fault in one sentence, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from domain.errors import BadInput, NotConfigured
from tasks.importing import import_season
from tests.ports_for_tests import PortsForTests, settings_for_tests
from tests.postgres.import_material import Write, assert_nothing_is_there, mei_with, rows


@pytest.mark.parametrize(
    ("fields", "where", "words"),
    [
        ({"clips": ["text.mp4"]}, "characters[0].clips[0]", "text.mp4"),
        ({"clips": ["empty.mp4"]}, "characters[0].clips[0]", "empty.mp4"),
        ({"clips": ["good.mp4", "cut.mp4"]}, "characters[0].clips[1]", "cut.mp4"),
        ({"clips": ["folder.mp4"]}, "characters[0].clips[0]", "folder.mp4"),
        ({"clips": ["nowhere.mp4"]}, "characters[0].clips[0]", "nowhere.mp4"),
        ({"clips": ["~nobody-here/x.mp4"]}, "characters[0].clips[0]", "nobody-here"),
        ({"clips": ["art.png"]}, "characters[0].clips[0]", "art.png"),
        ({"images": ["art.gif"]}, "characters[0].images[0]", "Format not supported"),
        ({"images": ["text.png"]}, "characters[0].images[0]", "text.png"),
        ({"images": ["huge.png"]}, "characters[0].images[0]", "10"),
        ({"images": ["bomb.png"]}, "characters[0].images[0]", "40,000×40,000"),
        ({"references": ["nowhere.png"]}, "characters[0].references[0]", "nowhere.png"),
        ({"references": ["good.mp4"]}, "characters[0].references[0]", "good.mp4"),
        ({"clips": [], "images": []}, "characters[0]", "neither clips nor images to learn from"),
        ({"clips": [], "images": [], "references": [], "lora": "none"}, "characters[0]", "has no picture at all"),
        ({"clips": [], "images": ["art.png"]}, "characters[0]", "at most 1 usable images"),
        ({"training": {"rank": 8}}, "characters[0].training.rank", "has no rank field"),
        ({"lora": "nowhere.safetensors"}, "characters[0].lora", "there is no file nowhere.safetensors"),
        ({"lora": "ftp://x.example/y"}, "characters[0].lora", "is neither auto, none, a path, a web address nor an id"),
        ({"lora": "http://[x"}, "characters[0].lora", "is neither auto"),
        ({"lora": 99}, "characters[0].lora", "99 is no LoRA in this database"),
        ({"lora": "9" * 40}, "characters[0].lora", "is no LoRA in this database"),
        ({"lora": "²"}, "characters[0].lora", "there is no file ²"),
        (
            {"lora": "mei.safetensors", "base_models": ["flux-1-dev", "wan-22-t2v-a14b"]},
            "characters[0].lora",
            "exactly one",
        ),
    ],
)
def test_a_bad_file_is_one_sentence_and_leaves_nothing_behind(
    bare: PortsForTests, write: Write, fields: dict[str, Any], where: str, words: str
) -> None:
    path = write(characters=mei_with(**fields), slots=[])
    with pytest.raises(BadInput) as refused:
        import_season(bare, path)
    said = refused.value.message
    assert len(said.splitlines()) == 1
    assert said.startswith(f"{path}, line ")
    assert f", {where}: " in said
    assert words in said
    assert refused.value.exit_code == 2
    assert_nothing_is_there(bare)


def test_every_bad_file_is_named_at_once_and_the_good_ones_are_not_stored(bare: PortsForTests, write: Write) -> None:
    slots = [{"number": 1, "video": "text.mp4"}, {"number": 2, "prompt": "x", "scene_references": ["text.png"]}]
    with pytest.raises(BadInput) as refused:
        import_season(bare, write(characters=mei_with(references=["art.gif"]), slots=slots))
    places = [line.split(": ")[0].split(", ")[-1] for line in refused.value.message.splitlines()]
    assert places == ["characters[0].references[0]", "slots[0].video", "slots[1].scene_references[0]"]
    assert_nothing_is_there(bare)


def test_a_bad_edit_leaves_the_season_as_it_was(ports: PortsForTests, write: Write) -> None:
    import_season(ports, write())
    before, blobs = rows(ports), sorted(ports.blobs.digests())
    with pytest.raises(BadInput):
        import_season(ports, write(characters=mei_with(clips=["other.mp4", "text.mp4"]), budget_usd=99))
    assert rows(ports) == before
    assert sorted(ports.blobs.digests()) == blobs


def test_a_run_whose_vendor_has_no_key_stores_nothing(bare: PortsForTests, write: Write) -> None:
    with pytest.raises(NotConfigured) as refused:
        import_season(bare, write(vendor="fal"), is_run_next=True)
    assert refused.value.exit_code == 3
    assert_nothing_is_there(bare)


def test_names_that_look_like_sql_or_paths_never_get_as_far_as_the_database(ports: PortsForTests, write: Write) -> None:
    for name in ("Mei'; DROP TABLE seasons; --", "../../etc/passwd", 'Mei "x"'):
        with pytest.raises(BadInput, match=r"characters\[0\]\.name"):
            import_season(ports, write(characters=mei_with(name=name), slots=[]))
    assert_nothing_is_there(ports)
    description = 'it\'s "quoted"; DROP TABLE seasons; -- %s {} \\'
    season_id = import_season(ports, write(characters=mei_with(description=description), slots=[]))
    assert ports.cast.of_season(season_id)[0].description == description


def test_a_file_may_have_any_name_a_disk_takes(ports: PortsForTests, write: Write, material: Path) -> None:
    name = "it's; DROP TABLE clips -- %s 雨.mp4"
    (material / name).write_bytes((material / "good.mp4").read_bytes())
    season_id = import_season(ports, write(characters=mei_with(clips=[name]), slots=[]))
    assert ports.cast.clips(ports.cast.of_season(season_id)[0].id)[0].source_name == name


def test_the_database_is_not_even_opened_for_a_manifest_that_cannot_be_read(tmp_path: Path, write: Write) -> None:
    nowhere = PortsForTests(settings_for_tests(tmp_path / "home", "postgresql://nobody@127.0.0.1:1/nothing"), {})
    with pytest.raises(BadInput):
        import_season(nowhere, write(budget_usd=0))
    with pytest.raises(BadInput):
        import_season(nowhere, write(characters=mei_with(clips=["text.mp4"]), slots=[]))


def test_a_database_error_in_the_middle_leaves_no_half_a_season(ports: PortsForTests, write: Write) -> None:
    with ports.database.transaction() as db:
        db.execute("ALTER TABLE slots ADD CONSTRAINT broken CHECK (number <> 6)")
    with pytest.raises(psycopg.errors.CheckViolation):
        import_season(ports, write())
    assert all(not found for found in rows(ports).values())
