"""Every mistake in a manifest names the file, the line and the field, in one sentence per mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import BadInput
from tasks.manifests import LARGEST_MANIFEST_BYTES, field_error, read_manifest

GOOD = """\
season: neon-harbor
owner: studio-a
time_zone: Europe/Lisbon
budget_usd: 60
vendor: sandbox
characters:
  - name: Mei Kobayashi
    description: fisher's daughter, red scarf
    clips: [clips/slot-01.mp4]
    training: {steps: 1000}
  - name: Rui
    lora: none
    references: [art/rui.png]
slots:
  - {number: 1, video: clips/slot-01.mp4}
  - {number: 6, prompt: "@Mei Kobayashi runs", video_model: kling_v25_turbo,
     seconds: 5}
"""


def complaint(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(BadInput) as refused:
        read_manifest(path)
    assert refused.value.exit_code == 2
    return refused.value.message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "season.yaml"


def test_a_good_manifest_is_read_with_trigger_words_made(path: Path) -> None:
    path.write_text(GOOD)
    assert [character.trigger_word for character in read_manifest(path).characters] == ["MEIKOB_01", "RUI_01"]


def test_a_manifest_with_a_byte_order_mark_and_windows_line_ends_is_read(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert read_manifest(path).season == "neon-harbor"


@pytest.mark.parametrize(
    ("old", "new", "where", "words"),
    [
        ("season: neon-harbor", "season: Neon Harbor", "line 1, season", "is no slug"),
        ("season: neon-harbor", "season: 2024", "line 1, season", "is no text"),
        ("time_zone: Europe/Lisbon", "time_zone: Lisbon", "line 3, time_zone", "write one such as Europe/Lisbon"),
        ("budget_usd: 60", "budget_usd: 0", "line 4, budget_usd", "must be greater than 0 (seen: 0)"),
        ("budget_usd: 60", "budget_usd: lots", "line 4, budget_usd", "write a number such as 60 (seen: 'lots')"),
        ("budget_usd: 60", "budget_usd: .inf", "line 4, budget_usd", "is no number"),
        ("budget_usd: 60\n", "", "line 1, budget_usd", "is missing; write it"),
        ("vendor: sandbox", "at_limit: maybe", "line 5, at_limit", "must be 'stop' or 'ask' (seen: 'maybe')"),
        ("lora: none", "budget_usd: '12,50'", "line 12, characters[1].budget_usd", "is no amount; write a number such"),
        ("lora: none", "budget_usd: 0", "line 12, characters[1].budget_usd", "must be greater than 0 (seen: 0)"),
        ("vendor: sandbox", "vendor: openai", "line 5, vendor", "'openai' is no vendor; write one of"),
        ("vendor: sandbox", "vendor: {train: [], video: fal}", "line 5, vendor", "train names no vendor"),
        ("vendor: sandbox", "face_still: flux_lora", "line 5, face_still", "is no model that keeps a face"),
        ("{steps: 1000}", "{trainer: flux_lora}", "line 10, characters[0].training.trainer", "is no trainer"),
        ("vendor: sandbox", "sandbox: maybe", "line 5, sandbox", "write one of them (seen: 'maybe')"),
        ("vendor: sandbox", "vendr: sandbox", "line 5, vendr", "is no field of the manifest"),
        ("name: Mei Kobayashi", 'name: "../Mei"', "line 7, characters[0].name", "holds '/'"),
        ("name: Mei Kobayashi", "name: Rui", "line 11, characters[1].name", "'Rui' is declared twice"),
        ("clips: [clips/slot-01.mp4]", "clips: clips/a.mp4", "line 9, characters[0].clips", "is no list; write one"),
        ("clips: [clips/slot-01.mp4]", "clips:", "line 9, characters[0].clips", "is no list; write one"),
        ("{steps: 1000}", "{steps: many}", "line 10, characters[0].training.steps", "is no whole number"),
        ("{steps: 1000}", "{epochs: 9}", "line 10, characters[0].training.epochs", "is no field"),
        ("lora: none", "trigger_word: rui", "line 12, characters[1].trigger_word", "write 6 to 32 letters"),
        ("lora: none", "base_models: [sd9]", "line 12, characters[1].base_models", "'sd9' is no base model"),
        ("lora: none", "kind: robot", "line 12, characters[1].kind", "must be 'person', 'illustrated' or 'other'"),
        ("  - name: Rui\n", "  - Rui\n  - name: R\n", "line 11, characters[1]", "holds no fields"),
        ("number: 1,", "number: 0,", "line 15, slots[0].number", "greater than or equal to 1 (seen: 0)"),
        ("number: 6,", "number: 76,", "line 16, slots[1].number", "less than or equal to 75 (seen: 76)"),
        ("number: 6,", "number: 1,", "line 16, slots[1].number", "slot 1 is there twice"),
        ("@Mei Kobayashi", "@Tova", "line 16, slots[1].prompt", "'@Tova', who is not in characters"),
        ("kling_v25_turbo", "sora", "line 16, slots[1].video_model", "is no video model; write one of"),
        ("seconds: 5", "seconds: 500", "line 17, slots[1].seconds", "less than or equal to 60 (seen: 500)"),
        ("video: clips/slot-01.mp4", "seconds: 4", "line 15, slots[0]", "needs either video"),
    ],
)
def test_a_mistake_names_file_line_and_field(path: Path, old: str, new: str, where: str, words: str) -> None:
    assert old in GOOD
    said = complaint(path, GOOD.replace(old, new, 1))
    sentence = next(line for line in said.splitlines() if where in line)
    assert sentence.startswith(f"{path}, {where}: ")
    assert words in sentence
    assert sentence.endswith(".")
    assert "pydantic" not in said
    assert "tuple" not in said


def test_several_mistakes_give_one_sentence_each(path: Path) -> None:
    text = GOOD.replace("budget_usd: 60", "budget_usd: 0").replace("seconds: 5", "seconds: 500")
    assert len(complaint(path, text).splitlines()) == 2


def test_two_characters_with_one_trigger_word_are_refused_at_the_second(path: Path) -> None:
    text = GOOD.replace("lora: none", "trigger_word: MEIKOB_07").replace(
        "    clips: [clips/slot-01.mp4]\n", "    trigger_word: meikob_07\n", 1
    )
    said = complaint(path, text)
    assert said.startswith(f"{path}, line 12, characters[1].trigger_word: 'Mei Kobayashi' and 'Rui' share")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("season: a\nbudget_usd: [", 2, "Mend the line"),
        ("season: a\nbudget_usd: 6: 0", 2, "Mend the line"),
        ("season: a\n\tbudget_usd: 60", 2, "Mend the line"),
        ("season: a\nseason: b\nbudget_usd: 60", 2, "the field 'season' is written twice"),
        ("season: a\nslots:\n - {number: 1, prompt: x, number: 2}", 3, "the field 'number' is written twice"),
        ("season: a\nowner: 2024-99-99", 2, "'2024-99-99' cannot be read; put it in quotes"),
        ("season: a\nowner: !!int x", 2, "cannot be read"),
        ("season: a\nowner: !!bool x", 2, "cannot be read"),
        ("season: a\nowner: !!python/object/apply:os.system ['true']", 2, "Mend the line"),
        ("season: a\nowner: \x07", 2, "cannot stand in a manifest"),
        ("season: a\n---\nseason: b", 2, "Mend the line"),
        ("season: *nobody", 1, "Mend the line"),
        ("season: a\n? [x]\n: y", 2, "Mend the line"),
    ],
)
def test_what_is_no_yaml_names_its_line(path: Path, text: str, line: int, words: str) -> None:
    said = complaint(path, text)
    assert said.startswith(f"{path}, line {line}: ")
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just words", "42", "null"])
def test_a_file_that_holds_no_fields_says_how_one_begins(path: Path, text: str) -> None:
    assert "a manifest begins with season: your-season" in complaint(path, text)


def test_a_manifest_that_is_no_text_is_refused(path: Path) -> None:
    assert "is no UTF-8 text (byte 0)" in complaint(path, GOOD.encode("utf-16"))


def test_a_folder_a_missing_file_and_a_film_are_refused_with_what_to_give(tmp_path: Path, path: Path) -> None:
    with pytest.raises(BadInput, match=r"is a folder: give the manifest in it, such as .*season\.yaml"):
        read_manifest(tmp_path)
    with pytest.raises(BadInput, match=r"there is no such file"):
        read_manifest(path)
    assert "a small text file" in complaint(path, b"#" * (LARGEST_MANIFEST_BYTES + 1))


def test_yaml_that_lies_too_deep_or_refers_to_itself_is_refused_and_does_not_hang(path: Path) -> None:
    assert "too deeply" in complaint(path, "a: " + "[" * 20_000)
    assert complaint(path, "&a [*a]")
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(20)
    )
    assert "is no field of the manifest" in complaint(path, bomb)


def test_a_long_value_is_shown_in_short(path: Path) -> None:
    assert len(complaint(path, GOOD.replace("budget_usd: 60", f"budget_usd: {'x' * 5000}"))) < 300


def test_a_mistake_found_later_still_gets_its_line(path: Path) -> None:
    path.write_text(GOOD)
    assert field_error(path, ("slots", 1, "seconds"), "too short") == f"{path}, line 17, slots[1].seconds: too short"
    assert field_error(path, ("characters", 0, "clips", 0), "broken").startswith(
        f"{path}, line 9, characters[0].clips[0]"
    )
    assert field_error(path, ("characters", 1, "min_images"), "x").startswith(
        f"{path}, line 11, characters[1].min_images"
    )
