"""Trainings that end badly or only seem to end well, on the programs that stand for the trainers: each is noticed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domain.layouts import caption_path
from domain.registry import load_registry
from providers.trainers.logs import last_words, progress_of, trouble_in
from tests.media_samples import make_clip
from tests.trainer_machine import STEPS, Machine, check


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


def noticed(machine: Machine, work: Path, key: str, fault: str) -> str:
    """What tells that this training went wrong, '' when nothing does."""
    work.mkdir()
    plan = machine.plan(key, work)
    done = machine.run(plan.commands[-1], fault=fault)
    said = trouble_in(done.stdout + done.stderr)
    if done.returncode != 0:
        return f"{said or 'failed'}: {last_words(done.stderr)}"
    if said is not None:
        return said
    if not list(work.glob(plan.results[0].path)):
        return "no file"
    found = progress_of(done.stdout)
    verdicts = check(load_registry().model(key), plan, work)
    seen = f"{found.step} of {found.total_steps}" if found is not None else "no bar"
    return "" if verdicts == ["healthy"] and seen == f"{STEPS} of {STEPS}" else f"{verdicts[0]}: {seen}"


def test_every_way_to_fail_is_noticed_and_a_good_training_is_not(machine: Machine, tmp_path: Path) -> None:
    expected = {
        "": "",
        "nan": "the loss ",
        "short": "broken: 10 of 20",
        "oom": "the GPU's memory was too small",
        "crash": "",
        "no_file": "no file",
        "gated": "the base model is gated",
    }
    with ThreadPoolExecutor(2) as pool:
        told = pool.map(
            lambda fault: noticed(machine, tmp_path / f"work-{fault}", "local_ai_toolkit_flux_1", fault), expected
        )
        for (fault, beginning), text in zip(expected.items(), told, strict=True):
            assert bool(text) == bool(fault), (fault, text)
            assert text.startswith(beginning), (fault, text)
            assert fault != "crash" or "an illegal memory access" in text


def test_a_trainer_of_clips_makes_both_of_wan_22s_files_from_clips(machine: Machine, tmp_path: Path) -> None:
    plan = machine.plan("local_musubi_wan_22_i2v", tmp_path)
    for number in range(2):
        clip = machine.folder / "musubi" / "clips" / f"{number}.mp4"
        clip.parent.mkdir(exist_ok=True)
        make_clip(clip, size=(128, 96))
        Path(caption_path(str(clip))).write_text(f"MEIKOB_01 walks, number {number}", "utf-8")
    for command in plan.commands:
        done = machine.run(command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert check(load_registry().model("local_musubi_wan_22_i2v"), plan, tmp_path) == ["healthy", "healthy"]
