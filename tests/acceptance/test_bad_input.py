"""Bad input through the real command: the exit code, a sentence per problem, and nothing left behind or spent."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import psycopg
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from providers.sandbox.launcher import control, find_sandbox
from tests.command_runs import Machine, own_machine
from tests.media_samples import drawn_frame, make_clip, make_sound

GOOD = """\
season: good
budget_usd: 10
characters:
  - {name: Ana, lora: none, references: [ana.png]}
slots:
  - {number: 1, prompt: "@Ana walks"}
"""
SQL = "'); DROP TABLE onmodel.seasons; --"


@pytest.fixture(scope="module")
def machine(server_url: str) -> Iterator[Machine]:
    """A machine with one good season, good and bad files beside it, and no key."""
    with own_machine(server_url) as machine:
        _write_files(machine.folder)
        good = machine.onmodel("season", "import", machine.write(GOOD, "good.yaml"))
        assert good.exit_code == 0, good.err
        yield machine
        vendor = find_sandbox(machine.home)
        assert vendor is None or control(vendor.url, "GET", "counters")["posts"] == {}


def _write_files(folder: Path) -> None:
    Image.fromarray(drawn_frame(0, 640, 640)).save(folder / "ana.png")
    Image.fromarray(drawn_frame(9, 640, 640)).save(folder / "bo.png")
    Image.fromarray(drawn_frame(0, 300, 640)).save(folder / "narrow.png")
    Image.fromarray(drawn_frame(0, 640, 640)).save(folder / "still.gif")
    Image.fromarray(drawn_frame(0, 640, 640)).save(folder / "gif-inside.png", "GIF")
    clip = make_clip(folder / "good.mp4", seconds=2, size=(640, 640)).read_bytes()
    (folder / "cut.mp4").write_bytes(clip[: len(clip) // 3])
    make_sound(folder / "sound.mp4")
    (folder / "text.mp4").write_text("I am no clip.\n")
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "big.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(10 * 1024 * 1024 + 1))
    (folder / "bomb.png").write_bytes(png_of_claimed_size(40_000, 40_000))
    (folder / "nothing").mkdir()


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A few bytes that claim to be a picture of any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


BAD_FILES = """\
season: bad-files
budget_usd: 10
characters:
  - name: Ana
    clips:
      - text.mp4
      - zero.mp4
      - cut.mp4
      - sound.mp4
      - nothing
      - ../gone.mp4
      - good.mp4
    images:
      - still.gif
      - gif-inside.png
      - big.png
      - bomb.png
      - text.mp4
  - name: Bo
    images: [bo.png]
slots:
  - {number: 1, video: zero.mp4}
  - {number: 2, prompt: "@Ana", scene_references: [still.gif]}
"""
WRONG_WITH_FILES = {
    6: ("characters[0].clips[0]", "is text, not a video"),
    7: ("characters[0].clips[1]", "is empty (0 bytes)"),
    8: ("characters[0].clips[2]", "is cut short or damaged"),
    9: ("characters[0].clips[3]", "holds only sound"),
    10: ("characters[0].clips[4]", "is a folder"),
    11: ("characters[0].clips[5]", "is not there"),
    14: ("characters[0].images[0]", "Format not supported: GIF"),
    15: ("characters[0].images[1]", "Format not supported: GIF"),
    16: ("characters[0].images[2]", "at most 10 MB"),
    17: ("characters[0].images[3]", "40,000×40,000"),
    18: ("characters[0].images[4]", "Format not supported"),
    19: ("characters[1]", "at most 1 usable images"),
    22: ("slots[0].video", "is empty (0 bytes)"),
    23: ("slots[1].scene_references[0]", "Format not supported: GIF"),
}


@pytest.mark.parametrize("command", [("season", "import"), ("run",)], ids=["import", "run"])
def test_every_bad_file_has_one_sentence_with_file_line_and_field(machine: Machine, command: tuple[str, ...]) -> None:
    before = machine.traces()
    ended = machine.onmodel(*command, machine.write(BAD_FILES, "bad-files.yaml"))
    assert ended.exit_code == 2
    assert ended.out == ""
    for line, (field, words) in WRONG_WITH_FILES.items():
        found = [one for one in ended.sentences if one.startswith(f"bad-files.yaml, line {line}, {field}: ")]
        assert len(found) == 1, (line, ended.err)
        assert words in found[0]
        assert found[0].endswith(".")
    assert len(ended.err.splitlines()) == len(ended.sentences) == len(WRONG_WITH_FILES)
    assert machine.traces() == before


BAD_FIELDS = f"""\
season: "Bad{SQL}"
budget_usd: 0
characters:
  - name: ../../etc/passwd
  - name: "Bo{SQL}"
  - name: 'Q"uote'
    base_models: [sdxl-99]
slots:
  - {{number: 0, prompt: x}}
  - {{number: 76, prompt: x}}
  - {{number: 3, prompt: x, video_model: sora_9}}
"""
WRONG_WITH_FIELDS = {
    1: ("season", "is no slug"),
    2: ("budget_usd", "must be greater than 0 (seen: 0)"),
    4: ("characters[0].name", "'../../etc/passwd' holds '/'"),
    5: ("characters[1].name", "holds"),
    6: ("characters[2].name", "holds '\"'"),
    7: ("characters[2].base_models", "'sdxl-99' is no base model; write one of"),
    9: ("slots[0].number", "greater than or equal to 1 (seen: 0)"),
    10: ("slots[1].number", "less than or equal to 75 (seen: 76)"),
    11: ("slots[2].video_model", "'sora_9' is no video model; write one of kling_o1_reference"),
}


def test_every_bad_field_has_one_sentence_with_file_line_and_field(machine: Machine) -> None:
    before = machine.traces()
    ended = machine.onmodel("run", machine.write(BAD_FIELDS, "bad-fields.yaml"))
    assert ended.exit_code == 2
    assert len(ended.sentences) == len(WRONG_WITH_FIELDS), ended.err
    for line, (field, words) in WRONG_WITH_FIELDS.items():
        found = [one for one in ended.sentences if one.startswith(f"bad-fields.yaml, line {line}, {field}: ")]
        assert len(found) == 1, (line, ended.err)
        assert words in found[0]
    assert machine.traces() == before


def test_two_characters_with_one_trigger_word_are_refused(machine: Machine) -> None:
    before = machine.traces()
    text = GOOD.replace("slots:", "  - {name: Bo, trigger_word: same_word, lora: none, references: [bo.png]}\nslots:")
    text = text.replace("name: Ana,", "name: Ana, trigger_word: SAME_WORD,")
    ended = machine.onmodel("run", machine.write(text, "same.yaml"))
    assert (ended.exit_code, len(ended.sentences)) == (2, 1)
    assert ended.sentences[0].startswith("same.yaml, line 5, characters[1].trigger_word: 'Ana' and 'Bo' share")
    assert machine.traces() == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.yaml", None, "there is no such file"),
        ("nothing", None, "is a folder"),
        ("empty.yaml", b"", "this file holds no fields"),
        ("list.yaml", b"- season\n", "this file holds no fields"),
        ("broken.yaml", b"season: [a\nbudget_usd: 1\n", "broken.yaml, line 2: "),
        ("latin.yaml", "season: façade\n".encode("latin-1"), "is no UTF-8 text (byte 10)"),
        ("good.mp4", None, "is no UTF-8 text"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_sentence(
    machine: Machine, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (machine.folder / name).write_bytes(content)
    before = machine.traces()
    ended = machine.onmodel("run", name)
    assert (ended.exit_code, len(ended.sentences), ended.out) == (2, 1, "")
    assert name in ended.sentences[0]
    assert words in ended.sentences[0]
    assert machine.traces() == before


def test_a_missing_key_stops_the_run_before_anything_is_stored(machine: Machine) -> None:
    before = machine.traces()
    manifest = machine.write(GOOD.replace("season: good", "season: with-fal\nvendor: fal"), "with-fal.yaml")
    ended = machine.onmodel("run", manifest)
    assert (ended.exit_code, len(ended.sentences)) == (3, 1)
    assert "FAL_KEY" in ended.sentences[0]
    assert machine.traces() == before


def test_a_rehearsal_of_a_season_for_fal_needs_no_key(machine: Machine) -> None:
    text = GOOD.replace("season: good", "season: rehearsal\nvendor: fal\nsandbox: true")
    ended = machine.onmodel("season", "import", machine.write(text, "rehearsal.yaml"), "--json")
    assert ended.exit_code == 0, ended.err
    assert ended.document["is_simulated"] is True


def test_a_mistake_in_an_edited_manifest_leaves_the_season_as_it_was(machine: Machine) -> None:
    before = machine.onmodel("status", "good", "--json").document
    ended = machine.onmodel("season", "import", machine.write(GOOD.replace("number: 1", "number: 99"), "good.yaml"))
    assert ended.exit_code == 2
    assert machine.onmodel("status", "good", "--json").document == before


def test_quotes_and_sql_in_a_prompt_are_only_words(machine: Machine) -> None:
    text = GOOD.replace("season: good", "season: words").replace("@Ana walks", f"@Ana says {SQL}")
    ended = machine.onmodel("season", "import", machine.write(text, "words.yaml"))
    assert ended.exit_code == 0, ended.err
    with psycopg.connect(machine.database_url) as db:
        query = "SELECT prompt FROM onmodel.slots JOIN onmodel.seasons s ON s.id = season_id WHERE slug = 'words'"
        assert db.execute(query).fetchone() == (f"@Ana says {SQL}",)


def test_a_small_image_is_warned_of_and_no_error(machine: Machine) -> None:
    text = GOOD.replace("season: good", "season: narrow").replace("lora: none,", "lora: none, images: [narrow.png],")
    ended = machine.onmodel("season", "import", machine.write(text, "narrow.yaml"))
    assert ended.exit_code == 0
    assert "narrow.png is 300×640, under 512 pixels: it is left out of training" in ended.err


@pytest.mark.parametrize("command", ["status", "costs", "report"])
def test_an_unknown_season_is_told_beside_the_known_ones(machine: Machine, command: str) -> None:
    ended = machine.onmodel(command, "nowhere")
    assert (ended.exit_code, len(ended.sentences), ended.out) == (2, 1, "")
    assert "'nowhere'" in ended.sentences[0]
    assert "good" in ended.sentences[0]
    assert not (machine.folder / "onmodel-out").exists()


def test_results_that_would_go_into_a_file_are_refused_before_the_season_is_stored(machine: Machine) -> None:
    before = machine.traces()
    manifest = machine.write(GOOD.replace("season: good", "season: nowhere-to-go"), "nowhere.yaml")
    ended = machine.onmodel("run", manifest, "--out", "ana.png/results")
    assert (ended.exit_code, len(ended.sentences)) == (2, 1)
    assert "ana.png is no folder" in ended.sentences[0]
    assert machine.traces() == before


@pytest.mark.parametrize(
    ("setting", "value", "exit_code"),
    [
        ("ONMODEL_DATABASE_URL", "mysql://localhost/x", 2),
        ("ONMODEL_STORAGE_URL", "ftp://somewhere", 2),
        ("ONMODEL_DATABASE_URL", "postgresql://127.0.0.1:1/x", 5),
    ],
)
def test_a_bad_setting_is_named(machine: Machine, setting: str, value: str, exit_code: int) -> None:
    ended = machine.onmodel("status", "good", **{setting: value})
    assert (ended.exit_code, len(ended.sentences)) == (exit_code, 1)
    assert setting in ended.sentences[0]


def test_too_few_usable_images_end_the_run_before_anything_is_bought(machine: Machine, prefect_url: str) -> None:
    # Ten seconds in which nothing moves: enough by its length, one picture once it is looked at, and no Ana in it.
    text = "season: too-few\nbudget_usd: 10\ncharacters:\n  - {name: Ana, clips: [frozen.mp4]}\n"
    _freeze(machine.folder / "frozen.mp4")
    ended = machine.onmodel("run", machine.write(text, "too-few.yaml"), PREFECT_API_URL=prefect_url)
    assert (ended.exit_code, len(ended.sentences)) == (2, 1), ended.err
    assert "Ana: 0 usable images of 1 found, at least 10 are needed" in ended.sentences[0]
    with psycopg.connect(machine.database_url) as db:
        assert db.execute("SELECT count(*) FROM onmodel.job_costs WHERE amount > 0").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM onmodel.provider_jobs").fetchone() == (0,)


def _freeze(path: Path) -> None:
    """A clip in which nothing moves."""
    with av.open(str(path), "w") as container:
        stream: VideoStream = container.add_stream("libx264", rate=Fraction(5), options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 640, 640, "yuv420p"
        for index in range(50):
            frame = VideoFrame.from_ndarray(drawn_frame(0, 640, 640), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
