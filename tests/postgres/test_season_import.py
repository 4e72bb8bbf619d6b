"""Importing a good season: whole, the same when repeated, updated when edited."""

from __future__ import annotations

import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from domain.errors import BadInput
from tasks.importing import import_season
from tests.ports_for_tests import PortsForTests
from tests.postgres.import_material import Write, rows, season_of


def test_a_season_is_stored_with_its_files(ports: PortsForTests, write: Write, material: Path) -> None:
    season_id = import_season(ports, write())
    season = ports.seasons.by_slug("neon-harbor")
    assert (season.id, season.owner, season.is_simulated) == (season_id, "studio-a", True)
    assert ports.ledger.budget(season_id) == (Decimal(60), Decimal(0), Decimal(0))
    mei, rui = ports.cast.of_season(season_id)
    assert (mei.name, mei.trigger_word, rui.lora) == ("Mei Kobayashi", "MEIKOB_01", "none")
    (clip,) = ports.cast.clips(mei.id)
    assert ports.blobs.read(clip.sha256) == (material / "good.mp4").read_bytes()
    (sheet,) = ports.cast.stills(mei.id, "reference")
    assert (sheet.width, sheet.height, sheet.media_type) == (720, 640, "image/webp")
    won, wanted = ports.seasons.slots(season_id)
    assert (won.winning_clip_id, won.prompt, wanted.prompt) == (clip.id, None, "@Mei Kobayashi runs")
    assert ports.seasons.manifest(season_id).characters[0].name == "Mei Kobayashi"
    assert len(list(ports.blobs.digests())) == 3


def test_importing_twice_changes_nothing(ports: PortsForTests, write: Write) -> None:
    path = write()
    first = import_season(ports, path)
    before, blobs = rows(ports), sorted(ports.blobs.digests())
    assert import_season(ports, path) == first
    assert rows(ports) == before
    assert sorted(ports.blobs.digests()) == blobs


def test_an_edited_manifest_updates_the_season(ports: PortsForTests, write: Write) -> None:
    season_id = import_season(ports, write())
    mei = ports.cast.named(season_id, "mei kobayashi")
    characters = [
        {"name": "Tova", "lora": "none", "references": ["art.png"]},
        {"name": "Mei Kobayashi", "description": "grey coat", "clips": ["other.mp4", "good.mp4"], "lora_scale": 0.9},
    ]
    slots = [{"number": 2, "video": "other.mp4"}, {"number": 6, "prompt": "@Tova waits"}]
    edited = write(characters=characters, slots=slots, budget_usd=90, review=True)
    assert import_season(ports, edited) == season_id
    assert ports.ledger.budget(season_id)[0] == Decimal(90)
    assert ports.seasons.get(season_id).review
    cast = ports.cast.of_season(season_id)
    assert [character.name for character in cast] == ["Tova", "Mei Kobayashi"]
    assert (cast[1].id, cast[1].description, cast[1].lora_scale) == (mei.id, "grey coat", 0.9)
    assert [clip.source_name for clip in ports.cast.clips(mei.id)] == ["other.mp4", "good.mp4"]
    assert ports.cast.stills(mei.id, "training") == []
    assert [(slot.number, slot.prompt) for slot in ports.seasons.slots(season_id)] == [(2, None), (6, "@Tova waits")]


def test_a_character_and_a_slot_that_left_come_back_as_they_were(ports: PortsForTests, write: Write) -> None:
    whole = write()
    season_id = import_season(ports, whole)
    rui = ports.cast.named(season_id, "Rui")
    import_season(ports, write(characters=season_of()["characters"][:1], slots=season_of()["slots"][:1]))
    with pytest.raises(BadInput, match="its cast: Mei Kobayashi"):
        ports.cast.named(season_id, "Rui")
    with pytest.raises(BadInput, match="Slot 6 is not in this season; it has 1"):
        ports.seasons.slot(season_id, 6)
    import_season(ports, whole)
    assert ports.cast.named(season_id, "Rui").id == rui.id
    assert ports.seasons.slot(season_id, 6).prompt == "@Mei Kobayashi runs"


def test_two_characters_may_exchange_their_trigger_words(ports: PortsForTests, write: Write) -> None:
    mei, rui = season_of()["characters"]

    def cast(one: str, two: str) -> list[dict[str, Any]]:
        return [{**mei, "trigger_word": one}, {**rui, "trigger_word": two}]

    season_id = import_season(ports, write(characters=cast("WORD_01", "WORD_02")))
    import_season(ports, write(characters=cast("WORD_02", "WORD_01")))
    assert [one.trigger_word for one in ports.cast.of_season(season_id)] == ["WORD_02", "WORD_01"]


def test_a_slot_keeps_its_plan_while_its_entry_stays_and_loses_it_when_the_entry_changes(
    ports: PortsForTests, write: Write
) -> None:
    from tasks.application import start_render

    season_id = import_season(ports, write())
    start_render(ports, season_id, 6)
    plan = ports.seasons.slot(season_id, 6).plan
    assert plan is not None
    import_season(ports, write(budget_usd=70))
    assert ports.seasons.slot(season_id, 6).plan == plan
    slots = [season_of()["slots"][0], {"number": 6, "prompt": "@Rui waits"}]
    import_season(ports, write(slots=slots))
    assert ports.seasons.slot(season_id, 6).plan is None


def test_other_content_under_the_same_name_is_another_season_and_another_slot(
    ports: PortsForTests, write: Write, material: Path
) -> None:
    scene = material / "scene.png"
    Image.new("RGB", (640, 480), "red").save(scene)
    path = write(slots=[{"number": 6, "prompt": "rain", "scene_references": ["scene.png"]}])
    season_id = import_season(ports, path)
    before = ports.seasons.get(season_id).manifest_sha256, ports.seasons.slot(season_id, 6).entry_sha256
    Image.new("RGB", (640, 480), "green").save(scene)
    import_season(ports, path)
    after = ports.seasons.get(season_id).manifest_sha256, ports.seasons.slot(season_id, 6).entry_sha256
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_the_same_files_under_other_names_are_the_same_slot(ports: PortsForTests, write: Write, material: Path) -> None:
    (material / "copy.png").write_bytes((material / "art.png").read_bytes())
    slot = {"number": 6, "prompt": "rain"}
    season_id = import_season(ports, write(slots=[{**slot, "scene_references": ["art.png"]}]))
    before = ports.seasons.slot(season_id, 6).entry_sha256
    import_season(ports, write(slots=[{**slot, "scene_references": ["copy.png"]}]))
    assert ports.seasons.slot(season_id, 6).entry_sha256 == before


def test_two_files_that_change_places_are_another_season(ports: PortsForTests, write: Write, material: Path) -> None:
    one, two = material / "one.png", material / "two.png"
    Image.new("RGB", (640, 480), "red").save(one)
    Image.new("RGB", (640, 480), "blue").save(two)
    rui = {"name": "Rui", "lora": "none", "references": ["one.png"]}
    mei = {"name": "Mei", "lora": "none", "references": ["two.png"]}
    path = write(characters=[rui, mei], slots=[])
    season_id = import_season(ports, path)
    before = ports.seasons.get(season_id).manifest_sha256
    one_bytes, two_bytes = one.read_bytes(), two.read_bytes()
    one.write_bytes(two_bytes)
    two.write_bytes(one_bytes)
    import_season(ports, path)
    assert ports.seasons.get(season_id).manifest_sha256 != before


@pytest.mark.parametrize(
    ("vendor", "sandbox", "is_simulated"),
    [("sandbox", False, True), ("fal", False, False), ("fal", True, True), ({"video": "fal"}, False, False)],
)
def test_a_season_is_a_rehearsal_only_when_no_real_vendor_works_for_it(
    ports: PortsForTests, write: Write, vendor: Any, sandbox: bool, is_simulated: bool
) -> None:
    season_id = import_season(ports, write(vendor=vendor, sandbox=sandbox))
    assert ports.seasons.get(season_id).is_simulated is is_simulated


def test_a_small_picture_is_a_warning(ports: PortsForTests, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    mei = {**season_of()["characters"][0], "images": ["small.png"]}
    with caplog.at_level(logging.WARNING, "onmodel.importing"):
        import_season(ports, write(characters=[mei], slots=[]))
    assert caplog.messages == [
        "small.png is 200×200, under 512 pixels: it is left out of training, where it would have to be enlarged."
    ]
