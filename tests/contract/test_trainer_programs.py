"""Plans carried out by the programs that stand for the trainers: what they make, what they print, what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.layouts import LayoutKind
from domain.registry import load_registry
from providers.sandbox.trainers import ai_toolkit_program, musubi_program, sd_scripts_program
from providers.trainers.logs import last_words, progress_of, trouble_in
from tests.trainer_machine import STEPS, Machine, check


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.mark.parametrize("key", ["runpod_ai_toolkit_wan_22", "local_musubi_hunyuan_video"])
def test_a_plan_trains_on_its_program(machine: Machine, tmp_path: Path, key: str) -> None:
    plan = machine.plan(key, tmp_path)
    for command in plan.commands:
        done = machine.run(command)
        assert done.returncode == 0, done.stdout + done.stderr
    found = progress_of(done.stdout)
    assert found is not None
    assert (found.step, found.total_steps) == (STEPS, plan.total_steps)
    assert found.loss is not None
    assert trouble_in(done.stdout + done.stderr) is None
    assert set(check(load_registry().model(key), plan, tmp_path)) == {"healthy"}


def test_a_loss_that_is_no_number_shows_in_the_log_and_in_the_file(machine: Machine, tmp_path: Path) -> None:
    plan = machine.plan("local_sd_scripts_sdxl", tmp_path)
    done = machine.run(plan.commands[-1], fault="nan")
    assert done.returncode == 0
    assert (trouble_in(done.stdout) or "").startswith("the loss became nan at step ")
    assert check(load_registry().model("local_sd_scripts_sdxl"), plan, tmp_path) == ["broken"]


def test_a_training_without_its_weights_or_caches_and_an_unknown_option_are_refused(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = machine.plan("local_musubi_z_image", tmp_path)
    words = plan.commands[-1].argv
    program, options = "zimage_train_network.py", words[words.index("src/musubi_tuner/zimage_train_network.py") + 1 :]

    def run(*more: str) -> tuple[int, str]:
        return musubi_program.main(program, [*options, *more]), capsys.readouterr().err

    code, said = run()
    assert (code, (last_words(said) or "").partition(":")[0]) == (1, "FileNotFoundError")
    for word in options:
        if word.startswith(f"{tmp_path}/weights/"):
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).write_bytes(b"weights")
    code, said = run()
    assert code == 1
    assert (last_words(said) or "").startswith("ValueError: no cache of 0.png")
    code, said = run("--network_rank", "8")
    assert code == 2
    assert "unrecognized arguments: --network_rank" in said


def test_an_unknown_key_and_a_missing_dataset_end_ai_toolkits_job(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.plan("local_ai_toolkit_sdxl", tmp_path)
    config = tmp_path / "config.yaml"
    text = config.read_text("utf-8")
    for changed, said in (
        (text.replace("lr:", "learning_rat:"), "unknown key 'learning_rat' in train"),
        (text.replace("/MEIKOB_01", "/NOBODY"), "No such file or directory"),
    ):
        config.write_text(changed, "utf-8")
        assert ai_toolkit_program.main([str(config)]) == 1
        assert said in (trouble_in(capsys.readouterr().out) or "")


def test_a_dataset_without_a_folder_of_repeats_is_no_data_for_sd_scripts(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = machine.plan("local_sd_scripts_sdxl", tmp_path).commands[-1].argv
    options = [
        word.replace(str(machine.folder / LayoutKind.KOHYA), str(machine.folder / LayoutKind.MUSUBI))
        for word in words[words.index("sdxl_train_network.py") + 1 :]
    ]
    assert sd_scripts_program.main("sdxl_train_network.py", options) == 1
    assert "No data found" in (last_words(capsys.readouterr().err) or "")


def test_what_the_machine_downloads_with_knows_only_what_is_asked_of_it(machine: Machine, tmp_path: Path) -> None:
    download = machine.plan("local_musubi_z_image", tmp_path).commands[0]
    closed = machine.run(download, fault="gated")
    assert closed.returncode == 1
    assert "set HF_TOKEN" in (trouble_in(closed.stderr) or "")
    assert machine.run(download, "--include", "*").returncode == 2
