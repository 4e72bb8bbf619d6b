"""Plans carried out by the programs that stand for the trainers: what they make, what they print, what they refuse."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from domain.jobs import BlobRef
from domain.layouts import LayoutFacts, LayoutKind, caption_path, path_in
from domain.model_rules import Model
from domain.registry import load_registry
from providers.lora_files import check_lora_file
from providers.sandbox.trainers import ai_toolkit_program, musubi_program, sd_scripts_program
from providers.sandbox.trainers.doing import FAULT
from providers.sandbox.trainers.homes import HOMES, stand_in_commands
from providers.trainers.logs import last_words, progress_of, trouble_in
from providers.trainers.plan_records import PlanCommand, TrainingPlan
from providers.trainers.plans import plan_training
from providers.vendor_ports import TrainingOrder

STEPS, RANK, PICTURES = 20, 2, 4
ZIP = BlobRef(sha256="0" * 64, media_type="application/zip", file_name="set.zip")
FACTS = LayoutFacts(trigger_word="MEIKOB_01", class_word="person", image_count=PICTURES, resolutions=(512,))


class Machine:
    """A folder with the stand-ins' commands and a small training set in every layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = stand_in_commands(folder / "bin")
        for kind in (LayoutKind.AI_TOOLKIT, LayoutKind.MUSUBI, LayoutKind.KOHYA):
            for number in range(PICTURES):
                path = folder / kind / path_in(kind, FACTS, f"{number}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = Image.new("RGB", (96, 128), (200, 200, 210))
                ImageDraw.Draw(picture).ellipse((30 + number * 3, 30, 70, 110), fill=(180, 40, 60))
                picture.save(path)
                Path(caption_path(str(path))).write_text(f"MEIKOB_01, number {number} before a grey wall", "utf-8")

    def plan(self, key: str, work: Path) -> TrainingPlan:
        """The plan for this machine, its texts written."""
        model = load_registry().model(key)
        assert model.training is not None
        assert model.training.program is not None
        order = TrainingOrder(
            trainer_key=key, zip=ZIP, trigger_word="MEIKOB_01", steps=STEPS, image_count=PICTURES, rank=RANK
        )
        dataset = str(self.folder / model.training.layout)
        home = str(HOMES[model.training.program.program])
        made = plan_training(model, order, dataset, str(work), home=home, python=str(self.python))
        for file in made.files:
            (work / file.path).write_text(file.text, "utf-8")
        return made

    def run(self, command: PlanCommand, *more: str, fault: str = "") -> subprocess.CompletedProcess[str]:
        """One command, with nothing of ours in its environment."""
        environment = {"PATH": f"{self.python.parent}:/usr/bin:/bin", FAULT: fault}
        argv = [*command.argv, *more]
        return subprocess.run(argv, cwd=command.folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


def check(model: Model, plan: TrainingPlan, work: Path) -> list[str]:
    """What our own check says of each LoRA that a plan promises."""
    verdicts = []
    for result in plan.results:
        (path,) = work.glob(result.path)
        if result.role.startswith("lora"):
            found = check_lora_file(path, expected_base=model.base_model, expected_steps=STEPS, expected_rank=RANK)
            verdicts.append(found.verdict)
    return verdicts


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
