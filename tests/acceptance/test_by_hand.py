"""Picking pictures by hand: `onmodel frames` fills a folder, remembers what a person says, and touches nothing else."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from domain.pictures import Decision
from studio.cli import run_command
from studio.frames_folder import FolderMemory, picture_name
from studio.own_files import digest_of, workbench
from tests.command_runs import ROOT
from tests.media_samples import make_clip

SHEET = "contact-sheet.html"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of one name in two folders, and a broken one."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "other").mkdir()
    first = make_clip(folder / "slot-01.mp4", seconds=3, rate="10", keyframe_every=5)
    make_clip(folder / "other" / "slot-01.mp4", seconds=2, rate="10", size=(176, 144), keyframe_every=5)
    (folder / "broken.mp4").write_bytes(first.read_bytes()[:1500])
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "frames"


@pytest.fixture(scope="module")
def picked(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the first command leaves it; for reading only."""
    folder = tmp_path_factory.mktemp("picked") / "frames"
    assert run_command(["frames", str(clips / "slot-01.mp4"), "--out", str(folder), "--count", "3"]) == 0
    return folder


def frames(clip: Path, out: Path, *options: str) -> int:
    return run_command(["frames", str(clip), "--out", str(out), "--count", "3", *options])


def memory_of(folder: Path) -> FolderMemory:
    return FolderMemory.model_validate_json((folder / "frames.json").read_bytes())


def pictures_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix == ".jpg"}


def names_of(folder: Path, *, is_kept: bool) -> list[str]:
    return [frame.name for clip in memory_of(folder).clips for frame in clip.frames if frame.is_kept is is_kept]


class Cards(HTMLParser):
    """How many pictures the sheet shows, and its words."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.pictures = 0
        self.text = ""
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag == "img" and str(dict(attrs)["src"]).startswith("data:image/jpeg;base64,")

    def handle_data(self, data: str) -> None:
        self.text += data


# --- what the folder holds ---


def test_the_folder_holds_the_kept_pictures_a_memory_of_every_look_and_the_sheet(picked: Path) -> None:
    [clip] = memory_of(picked).clips
    kept = [frame for frame in clip.frames if frame.is_kept]
    assert 1 <= len(kept) <= 3
    assert len(clip.frames) > len(kept)
    assert {frame.file for frame in kept} == pictures_of(picked)
    for frame in kept:
        assert frame.file == picture_name("slot-01", frame.at_seconds)
        assert frame.sha256 == digest_of(picked / frame.file)
        with Image.open(picked / frame.file) as image:
            assert image.size == (frame.width, frame.height)
    assert all(frame.measures is not None and bool(frame.reason) is not frame.is_kept for frame in clip.frames)
    cards = Cards(picked / SHEET)
    assert cards.pictures == len(clip.frames)
    assert all(frame.name in cards.text for frame in clip.frames)
    assert {path.name for path in picked.iterdir()} - pictures_of(picked) == {"frames.json", SHEET}


def test_the_same_command_again_changes_no_byte(picked: Path, clips: Path, out: Path) -> None:
    assert frames(clips / "slot-01.mp4", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert frames(clips / "slot-01.mp4", out) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert pictures_of(out) == pictures_of(picked)


def test_a_time_over_a_minute_stands_in_the_name_as_minutes() -> None:
    assert picture_name("slot-01", 3.5) == "slot-01-00m03.500s.jpg"
    assert picture_name("slot-01", 6_059.9996) == "slot-01-101m00.000s.jpg"


def on_a_terminal(folder: Path, *arguments: str) -> list[str]:
    """The lines that a command puts on a terminal of 80 columns, where it is to end well."""
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "studio.cli", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TERM": "dumb", "HOME": str(folder), "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()  # less than the terminal holds back
    os.close(ours)
    assert done.returncode == 0, done.stderr
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m|\r", "", shown).split("\n")]


def test_the_table_fits_eighty_columns_and_ends_with_where_the_sheet_is(clips: Path, tmp_path: Path) -> None:
    long_name = tmp_path / f"{'a-very-long-name-of-a-clip' * 4}.mp4"
    long_name.write_bytes((clips / "slot-01.mp4").read_bytes())
    lines = on_a_terminal(tmp_path, "frames", str(long_name), "--out", "frames")
    assert "Frames" in lines
    assert f"Contact sheet:  frames/{SHEET}" in lines
    assert max(map(len, lines)) <= 80


def test_the_help_fits_eighty_columns(tmp_path: Path) -> None:
    lines = on_a_terminal(tmp_path, "frames", "--help")
    assert "Pick the best pictures out of any clips." in lines
    assert max(map(len, lines)) <= 80


# --- a person's word ---


def test_a_dropped_picture_stays_away_until_it_is_left_to_the_rules_again(clips: Path, out: Path) -> None:
    clip = clips / "slot-01.mp4"
    assert frames(clip, out) == 0
    before = pictures_of(out)
    name = names_of(out, is_kept=True)[0]
    for options in (["--drop", name], []):
        assert frames(clip, out, *options) == 0
        assert len(pictures_of(out)) == len(before) - 1
        assert name in names_of(out, is_kept=False)
    assert "dropped by you" in Cards(out / SHEET).text
    assert frames(clip, out, "--undecide", name) == 0
    assert pictures_of(out) == before
    assert memory_of(out).clips[0].decisions == {}


def test_a_frame_that_was_left_and_a_moment_nobody_looked_at_can_be_kept(clips: Path, out: Path) -> None:
    clip = clips / "slot-01.mp4"
    assert frames(clip, out) == 0
    before = pictures_of(out)
    left = names_of(out, is_kept=False)[0]
    looked = {frame.at_seconds for frame in memory_of(out).clips[0].frames}
    free = next(tenth / 10 for tenth in range(1, 29) if all(abs(tenth / 10 - at) > 0.06 for at in looked))
    assert frames(clip, out, "--keep", f"{left}, slot-01@{free}") == 0
    assert frames(clip, out) == 0
    new = pictures_of(out) - before
    assert new == {picture_name("slot-01", float(left.partition("@")[2])), picture_name("slot-01", free)}
    for name in new:
        with Image.open(out / name) as image:
            assert image.size == (160, 120)
    decisions = memory_of(out).clips[0].decisions
    assert set(decisions.values()) == {Decision.KEEP}
    assert len(decisions) == 2


def test_what_was_said_of_a_clip_holds_only_while_it_is_the_same_film(clips: Path, tmp_path: Path, out: Path) -> None:
    clip = tmp_path / "mine.mp4"
    clip.write_bytes((clips / "slot-01.mp4").read_bytes())
    assert frames(clip, out) == 0
    assert frames(clip, out, "--drop", names_of(out, is_kept=True)[0]) == 0
    clip.write_bytes((clips / "other" / "slot-01.mp4").read_bytes())
    assert frames(clip, out) == 0
    assert memory_of(out).clips[0].decisions == {}
    assert pictures_of(out) == {frame.file for frame in memory_of(out).clips[0].frames if frame.is_kept}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--drop", "slot-02@1.0"], "No clip of this command is called 'slot-02'; there are: slot-01."),
        (["--drop", "slot-01@1.234"], "There is no frame slot-01@1.234: the nearest is slot-01@"),
        (["--keep", "slot-01@99"], "slot-01 has no second 99: it is 3.00 s long."),
        (["--keep", "slot-01"], "'slot-01' names no frame: write the clip's name and the second"),
        (["--keep", "slot-01@1", "--drop", "slot-01@1.0"], "slot-01@1.0 is named twice among --keep"),
        (["--count", "0"], "--count 0 is not possible: give a number from 1 to 1000."),
    ],
)
def test_a_word_about_what_is_not_there_is_answered_and_nothing_is_written(
    options: list[str], sentence: str, clips: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["frames", str(clips / "slot-01.mp4"), "--out", str(out), *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


# --- several clips, and bad ones ---


def test_a_bad_clip_gets_its_sentence_and_the_others_are_done(
    clips: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(clips / name) for name in ("slot-01.mp4", "broken.mp4", "nowhere.mp4", "other/slot-01.mp4")]
    assert run_command(["frames", *given, "--out", str(out), "--json"]) == 2
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert [clip["name"] for clip in document["clips"]] == ["slot-01", "slot-01-2"]
    assert len(document["errors"]) == 2
    assert "broken.mp4" in document["errors"][0]
    assert "nowhere.mp4" in document["errors"][1]
    assert said.err.count("onmodel: ") == 2
    assert {name.rsplit("-", 1)[0] for name in pictures_of(out)} == {"slot-01", "slot-01-2"}
    assert frames(clips / "other" / "slot-01.mp4", out) == 0  # alone it keeps the name it got here
    assert [clip.name for clip in memory_of(out).clips] == ["slot-01", "slot-01-2"]


def test_nothing_but_bad_clips_leaves_no_folder_behind(clips: Path, out: Path) -> None:
    assert frames(clips / "broken.mp4", out) == 2
    assert not out.exists()


# --- whose files they are ---


def test_a_folder_with_other_things_in_it_and_a_file_in_the_way_are_refused(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    assert frames(clips / "slot-01.mp4", tmp_path) == 2
    assert "holds files that onmodel frames did not write" in capsys.readouterr().err
    assert frames(clips / "slot-01.mp4", tmp_path / "letter.txt") == 2
    assert "is no folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_memory_that_is_not_ours_is_refused(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "frames.json").write_text('{"made_by": "somebody"}')
    assert frames(clips / "slot-01.mp4", tmp_path) == 2
    assert "was not written by this version of onmodel frames" in capsys.readouterr().err


def test_a_picture_that_a_person_changed_is_never_overwritten_or_taken_away(
    clips: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = clips / "slot-01.mp4"
    assert frames(clip, out) == 0
    frame = next(frame for frame in memory_of(out).clips[0].frames if frame.file)
    assert frame.file is not None
    (out / frame.file).write_bytes(b"retouched")
    assert frames(clip, out) == 2
    assert "is in the way" in capsys.readouterr().err
    assert frames(clip, out, "--drop", frame.name) == 0
    assert (out / frame.file).read_bytes() == b"retouched"


def test_a_memory_that_was_tampered_with_removes_nothing_outside_the_folder(clips: Path, out: Path) -> None:
    clip = clips / "slot-01.mp4"
    assert frames(clip, out) == 0
    victim = out.parent / "victim-00m01.000s.jpg"
    victim.write_bytes(b"mine")
    text = (out / "frames.json").read_text("utf-8")
    frame = next(frame for frame in memory_of(out).clips[0].frames if frame.file)
    assert frame.file is not None
    assert frame.sha256 is not None
    text = text.replace(frame.file, f"../{victim.name}").replace(frame.sha256, digest_of(victim))
    (out / "frames.json").write_text(text, "utf-8")
    (out / frame.file).unlink()
    assert frames(clip, out) == 0
    assert victim.read_bytes() == b"mine"


def test_what_a_killed_command_left_is_taken_away_and_one_at_work_is_left_alone(
    clips: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / ".onmodel-work" / "slot-01").mkdir(parents=True)
    assert frames(clips / "slot-01.mp4", out) == 0
    with workbench(out) as bench:
        (bench / "half").write_text("made")
        assert frames(clips / "slot-01.mp4", out) == 2
        assert "Another command is at work in" in capsys.readouterr().err
        assert (bench / "half").read_text() == "made"
    assert {path.name for path in out.iterdir()} == pictures_of(out) | {"frames.json", SHEET}


# --- what it does without ---


@pytest.fixture
def bare_home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    yield home
    assert not (home / ".onmodel" / "postgres").exists()


def test_it_needs_no_database_and_no_prefect(clips: Path, out: Path, bare_home: Path) -> None:
    code = (
        "import sys, studio.cli; code = studio.cli.run_command(sys.argv[1:]); "
        "print([name for name in ('prefect', 'psycopg', 'httpx') if name in sys.modules], file=sys.stderr); "
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "frames", clips / "slot-01.mp4", "--out", out, "--json"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(bare_home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert json.loads(done.stdout)["contact_sheet"] == str(out / SHEET)
