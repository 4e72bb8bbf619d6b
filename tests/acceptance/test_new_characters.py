"""Characters whom nobody tuned on are learned through the whole chain, and their pictures pass as nobody else's.

The seeds were written down before anybody had looked at what they draw, and are not to be exchanged for luckier ones:
docs/identity.md says how often it goes wrong.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from benchmarks.new_characters import Proof, new_still, read_proofs, write_season
from providers.lora_files import check_lora_file
from providers.sandbox.engine.training import train_lora
from studio.demo.scenes import PLACES, paint_scene
from tests.acceptance.season_homes import Home

SEEDS = (9100, 9101, 9102)
STILLS = 16


@pytest.fixture(scope="module")
def proofs(session_home: Home) -> list[Proof]:
    """What `onmodel run` found out about three new characters from 16 stills each."""
    manifest = write_season(session_home.folder / "new-characters", SEEDS, stills=STILLS)
    outcome = session_home.run_apart(manifest)
    assert outcome.exit_code == 0, outcome.told
    return read_proofs(session_home.home)


def test_with_its_lora_a_new_character_is_surely_more_like_itself_than_without(proofs: list[Proof]) -> None:
    assert len(proofs) == len(SEEDS)
    for proof in proofs:
        assert proof.verdict.score.judged >= 3, proof
        assert proof.verdict.score.lower95_of_delta > 0, proof


def test_a_new_character_passes_the_gate_and_its_lora_is_ready(proofs: list[Proof]) -> None:
    assert [(proof.lora_status, proof.verdict.is_passed) for proof in proofs] == [("ready", True)] * len(SEEDS)


def test_the_pictures_are_judged_against_others_that_were_never_trained_on(proofs: list[Proof]) -> None:
    for proof in proofs:
        assert proof.held_out >= 3, proof
        assert proof.calibration.genuine_count == proof.trained, proof


def test_the_same_pictures_do_not_pass_as_another_character(proofs: list[Proof]) -> None:
    for proof in proofs:
        assert proof.swapped_as != proof.name
        assert not proof.swapped.is_passed, proof


def test_a_lora_of_a_new_character_trained_for_zero_steps_is_caught_by_the_file_check(tmp_path: Path) -> None:
    scenes = {place: paint_scene(place) for place in PLACES}
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for number in range(5):
            stored = io.BytesIO()
            new_still(SEEDS[0], number, scenes).save(stored, "JPEG")
            archive.writestr(f"{number}.jpg", stored.getvalue())
    verdicts = []
    for steps in (0, 200):
        out = tmp_path / f"{steps}.safetensors"
        train_lora(
            tmp_path / "set.zip",
            base="flux-1-dev",
            trigger_word="PASSER_9100",
            steps=steps,
            learning_rate=None,
            out=out,
        )
        verdicts.append(check_lora_file(out, expected_base="flux-1-dev").verdict)
    assert verdicts == ["broken", "healthy"]
