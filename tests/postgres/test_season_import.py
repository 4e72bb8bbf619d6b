"""Importing a season: whole or not at all, the same when repeated, updated when edited; nothing is ever spent."""

from __future__ import annotations

import http.server
import logging
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from PIL import Image
from psycopg import sql

from domain.characters import LoraStatus
from domain.errors import BadInput, NotConfigured
from tasks.importing import import_season
from tests.media_samples import make_clip
from tests.ports_for_tests import PortsForTests, new_database, settings_for_tests

TABLES = (
    "owners",
    "projects",
    "seasons",
    "slots",
    "clips",
    "characters",
    "character_clips",
    "character_images",
    "budgets",
)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad files, made once."""
    folder = tmp_path_factory.mktemp("material")
    good = make_clip(folder / "good.mp4", seconds=6, rate="8")
    make_clip(folder / "other.mp4", seconds=6, rate="8", size=(320, 240))
    (folder / "text.mp4").write_text("this is no film")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "cut.mp4").write_bytes(good.read_bytes()[:2000])
    (folder / "folder.mp4").mkdir()
    Image.new("RGB", (640, 640), "red").save(folder / "art.png")
    Image.new("RGB", (720, 640), "blue").save(folder / "sheet.webp")
    Image.new("RGB", (200, 200), "red").save(folder / "small.png")
    Image.new("RGB", (600, 600), "red").save(folder / "art.gif")
    (folder / "text.png").write_text("no picture")
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * (10 * 1024 * 1024 + 1))
    (folder / "bomb.png").write_bytes(_bomb())
    (folder / "mei.safetensors").write_bytes(b"weights of a lora")
    return folder


def _bomb() -> bytes:
    """A PNG of a few kilobytes that claims 40,000 × 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def bare_database(server_url: str) -> Iterator[str]:
    """One database for every test that must leave nothing in it."""
    with new_database(server_url) as url:
        yield url


@pytest.fixture
def bare(bare_database: str, tmp_path: Path) -> Iterator[PortsForTests]:
    opened = PortsForTests(settings_for_tests(tmp_path / "home", bare_database), {})
    yield opened
    opened.close()


@pytest.fixture
def ports(empty_database: str, tmp_path: Path) -> Iterator[PortsForTests]:
    opened = PortsForTests(settings_for_tests(tmp_path / "home", empty_database), {})
    yield opened
    opened.close()


def season_of(**fields: Any) -> dict[str, Any]:
    return {
        "season": "neon-harbor",
        "owner": "studio-a",
        "budget_usd": 60,
        "characters": [
            {"name": "Mei Kobayashi", "clips": ["good.mp4"], "images": ["art.png"], "references": ["sheet.webp"]},
            {"name": "Rui", "lora": "none", "references": ["art.png"]},
        ],
        "slots": [
            {"number": 1, "video": "good.mp4"},
            {"number": 6, "prompt": "@Mei Kobayashi runs", "scene_references": ["art.png"]},
        ],
        **fields,
    }


Write = Callable[..., Path]


@pytest.fixture
def write(material: Path, request: pytest.FixtureRequest) -> Iterator[Write]:
    """Writes a manifest beside the material."""
    written: list[Path] = []

    def write_one(**fields: Any) -> Path:
        path = material / f"{len(written)}-{abs(hash(request.node.name))}.yaml"
        path.write_text(yaml.safe_dump(season_of(**fields), sort_keys=False, allow_unicode=True))
        written.append(path)
        return path

    yield write_one
    for path in written:
        path.unlink()


def rows(ports: PortsForTests) -> dict[str, list[Any]]:
    """Everything an import may write, as it stands, but for the moment of the last import."""
    query = sql.SQL("SELECT to_jsonb(t) - 'updated_at' FROM {} AS t ORDER BY to_jsonb(t)::text")
    with ports.database.transaction() as db:
        return {table: db.execute(query.format(sql.Identifier(table))).fetchall() for table in TABLES}


def assert_nothing_is_there(ports: PortsForTests) -> None:
    assert all(not found for found in rows(ports).values())
    assert list(ports.blobs.digests()) == []
    scratch = ports.settings.home / "scratch"
    assert not scratch.exists() or list(scratch.iterdir()) == []


# --- good seasons ---


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


# --- bad files ---


def mei_with(**fields: Any) -> list[dict[str, Any]]:
    return [{**season_of()["characters"][0], **fields}]


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


# --- LoRAs that are given ---


def test_a_lora_given_as_a_file_is_kept_by_its_digest(ports: PortsForTests, write: Write, material: Path) -> None:
    season_id = import_season(ports, write(characters=mei_with(lora="mei.safetensors"), slots=[]))
    lora = ports.cast.of_season(season_id)[0].lora
    assert ports.blobs.read(lora.removeprefix("sha256:")) == (material / "mei.safetensors").read_bytes()


@pytest.fixture
def web() -> Iterator[str]:
    """A web server on this machine that has one LoRA, at /mei.safetensors."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_there = self.path.startswith("/mei.safetensors")
            body = b"weights from the web" if is_there else b""
            self.send_response(200 if is_there else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_lora_given_by_its_address_is_fetched(ports: PortsForTests, write: Write, web: str) -> None:
    season_id = import_season(ports, write(characters=mei_with(lora=f"{web}/mei.safetensors?token=x"), slots=[]))
    lora = ports.cast.of_season(season_id)[0].lora
    assert ports.blobs.read(lora.removeprefix("sha256:")) == b"weights from the web"
    assert list((ports.settings.home / "scratch").iterdir()) == []


def test_an_address_with_nothing_there_leaves_nothing_behind_and_shows_no_token(
    bare: PortsForTests, write: Write, web: str
) -> None:
    two = [
        {**mei_with(lora=f"{web}/mei.safetensors")[0], "name": "Mei"},
        {**mei_with(lora=f"{web}/gone?token=hunter2")[0], "name": "Rui"},
    ]
    with pytest.raises(BadInput, match=r"characters\[1\]\.lora: the web address answers 404") as refused:
        import_season(bare, write(characters=two, slots=[]))
    assert "hunter2" not in refused.value.message
    assert_nothing_is_there(bare)
    with pytest.raises(BadInput, match="cannot be reached"):
        import_season(bare, write(characters=mei_with(lora="http://127.0.0.1:1/x"), slots=[]))
    assert_nothing_is_there(bare)


def test_a_lora_given_by_its_id_must_have_a_file_and_the_same_base(ports: PortsForTests, write: Write) -> None:
    season_id = import_season(ports, write())
    mei = ports.cast.named(season_id, "Mei Kobayashi")
    lora = ports.loras.create(mei, "flux-1-dev", trainer="t", training_set_id=None, images_count=0, created_by="test")
    with pytest.raises(BadInput, match="has no file yet; wait until it is trained"):
        import_season(ports, write(characters=mei_with(lora=lora.id), slots=[]))
    digest = ports.blobs.put_bytes(b"trained", "application/octet-stream")
    ports.loras.keep_weights(
        lora.id, sha256=digest, lora_url="file:///x", config_url=None, request_id=None, cost_usd=Decimal(2)
    )
    ports.loras.set_status(lora.id, LoraStatus.READY)
    with pytest.raises(BadInput, match=f"LoRA {lora.id} is one of flux-1-dev; write that in base_models"):
        import_season(ports, write(characters=mei_with(lora=lora.id, base_models=["wan-22-t2v-a14b"]), slots=[]))
    import_season(ports, write(characters=mei_with(lora=lora.id), slots=[]))
    assert ports.cast.get(mei.id).lora == f"sha256:{digest}"


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
