"""Plans of trainings on machines of ours: complete, known to the programs they are for, and safe."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from domain.errors import BadInput, NotConfigured
from domain.jobs import BlobRef
from domain.layouts import MOST_STEPS, LayoutFacts, LayoutKind, path_in
from domain.model_rules import Model, TrainerKind
from domain.money import load_prices, price_of_training
from domain.registry import load_registry
from providers.trainers.options import config_problems, options_of, read_command_line
from providers.trainers.plan_records import PlanCommand, Purpose, TrainingPlan
from providers.trainers.plans import plan_training
from providers.vendor_ports import TrainingOrder

REGISTRY = load_registry()
MODELS = tuple(model for model in REGISTRY.models if model.training is not None and model.training.program is not None)
GOLDEN = Path(__file__).with_name("golden")
ZIP = BlobRef(sha256="0" * 64, media_type="application/zip", file_name="set.zip")
RENTED = tuple(model for model in MODELS if model.vendor == "runpod")
EVERY = pytest.mark.parametrize("model", RENTED, ids=lambda model: model.key)
BASES_BY_PROGRAM = {
    TrainerKind.AI_TOOLKIT: {
        *("flux-1-dev", "flux-2-dev", "z-image", "z-image-turbo", "qwen-image", "sdxl"),
        *("wan-21-t2v-1.3b", "wan-21-t2v-14b", "wan-22-t2v-a14b"),
    },
    TrainerKind.MUSUBI: {
        *("hunyuan-video", "hunyuan-video-15", "wan-21-t2v-14b", "wan-22-t2v-a14b", "wan-22-i2v-a14b"),
        *("z-image", "qwen-image", "flux-2-dev"),
    },
    TrainerKind.SD_SCRIPTS: {"sdxl", "flux-1-dev"},
}
"""As the issue's table has them."""


def order(key: str, **changes: Any) -> TrainingOrder:
    given = {"trainer_key": key, "zip": ZIP, "trigger_word": "MEIKOB_01", "steps": 1800, "image_count": 20}
    return TrainingOrder.model_validate({**given, **changes})


def plan(key: str, **changes: Any) -> TrainingPlan:
    return plan_training(REGISTRY.model(key), order(key, **changes), "/data/set", "/data/job", home="/opt/trainer")


def words_after_launch(command: PlanCommand) -> tuple[str, list[str]]:
    """The program's file name, and its own options."""
    at = next(at for at, word in enumerate(command.argv) if word.endswith(".py"))
    return Path(command.argv[at]).name, list(command.argv[at + 1 :])


@pytest.mark.parametrize("vendor", ["runpod", "local"])
@pytest.mark.parametrize("program", list(TrainerKind))
def test_every_base_of_the_issue_has_its_trainer_at_both_vendors(vendor: str, program: TrainerKind) -> None:
    found = {
        model.base_model
        for model in MODELS
        if model.vendor == vendor and model.training and model.training.program
        if model.training.program.program is program
    }
    assert found == BASES_BY_PROGRAM[program]


@pytest.mark.parametrize("base", sorted(BASES_BY_PROGRAM[TrainerKind.AI_TOOLKIT]))
def test_ai_toolkit_is_asked_first_where_two_programs_have_a_base(base: str) -> None:
    assert "ai_toolkit" in REGISTRY.trainer_for(base, "runpod").key
    assert "ai_toolkit" in REGISTRY.trainer_for(base, "local").key


@EVERY
def test_every_option_of_a_plan_is_one_the_program_itself_declares_and_is_cited(model: Model) -> None:
    assert model.training is not None
    assert model.training.program is not None
    kind = model.training.program.program
    table = options_of(kind)
    made = plan(model.key)
    for file in made.files:
        if file.path.endswith(".yaml"):
            assert config_problems(yaml.safe_load(file.text)) == ()
        else:
            given = tomllib.loads(file.text)
            kinds = ("general", "images" if model.training.takes == "images" else "clips")
            known = [table.groups[f"dataset_{name}"] for name in kinds]
            for key in (*given["general"], *given["datasets"][0]):
                assert table.citation(known, key), key
    for command in (*made.of(Purpose.PREPARE), *made.of(Purpose.TRAIN)):
        program, words = words_after_launch(command)
        if kind is TrainerKind.AI_TOOLKIT:
            assert (program, words) == ("run.py", ["/data/job/config.yaml"])
            continue
        groups = table.of(program)
        for name in read_command_line(groups, words):
            assert (table.citation(groups, name) or "").startswith("kohya-ss/"), name


@EVERY
def test_a_plan_names_its_results_its_steps_and_what_it_costs(model: Model) -> None:
    assert model.training is not None
    program = model.training.program
    assert program is not None
    made = plan(model.key)
    roles = [result.role for result in made.results]
    assert roles[: 1 + program.has_two_experts] == ["lora", "lora_high_noise"][: 1 + program.has_two_experts]
    assert len({result.path for result in made.results}) == len(made.results)
    trainings = made.of(Purpose.TRAIN)
    assert made.total_steps == 1800 * len(trainings)
    assert made.commands[-len(trainings) :] == trainings
    assert made.needs_token == program.is_gated
    assert program.is_gated == (model.base_model in ("flux-1-dev", "flux-2-dev"))
    price = load_prices().price(model.key)
    assert (price.seconds_each, price.seconds_before) == (program.seconds_per_step, program.overhead_seconds)
    assert str(price.amount_usd) == program.price_cap_usd_per_hour
    assert program.overhead_seconds + program.seconds_per_step * MOST_STEPS < program.hard_stop_seconds


@EVERY
def test_the_plan_finds_the_pictures_where_the_dataset_has_them(model: Model) -> None:
    assert model.training is not None
    frames = (45,) if model.training.takes == "videos" else ()
    facts = LayoutFacts(
        trigger_word="MEIKOB_01", class_word="person", image_count=20, resolutions=(512,), frames=frames
    )
    folder = Path(path_in(model.training.layout, facts, "001.jpg")).parent
    texts = " ".join(file.text for file in plan(model.key).files)
    match model.training.layout:
        case LayoutKind.KOHYA:  # it looks for folders named like this one below the folder it is given
            assert "--train_data_dir /data/set " in shlex.join(plan(model.key).of(Purpose.TRAIN)[0].argv)
            assert str(folder) == "12_MEIKOB_01 person"
        case _:
            assert f"/data/set/{folder}" in texts


@EVERY
def test_equal_orders_make_equal_plans(model: Model) -> None:
    assert plan(model.key) == plan(model.key)
    assert plan(model.key) != plan(model.key, steps=1801)


@EVERY
def test_ones_own_machine_does_the_same_less_the_installing_and_costs_nothing(model: Model) -> None:
    own = REGISTRY.model(model.key.replace("runpod_", "local_"))
    mine, rented = plan(own.key), plan(model.key)
    assert mine.files == rented.files
    assert [c.argv for c in mine.commands] == [c.argv for c in rented.commands if c.purpose is not Purpose.INSTALL]
    assert price_of_training(own.key, 1800) == 0


def test_a_machine_of_ones_own_installs_nothing_and_a_rented_one_what_its_image_lacks() -> None:
    assert plan("local_musubi_z_image").of(Purpose.INSTALL) == ()
    assert plan("runpod_ai_toolkit_flux_1").of(Purpose.INSTALL) == ()
    rented = plan_training(REGISTRY.model("runpod_musubi_z_image"), order("runpod_musubi_z_image"), "/d", "/w")
    assert rented.home == "/opt/musubi-tuner"
    fetch = rented.of(Purpose.INSTALL)[1].argv
    assert fetch[-2:] == ("https://github.com/kohya-ss/musubi-tuner", "30c658c4f4b0bf05038b3346eff9670259b10fc7")


def test_wan_22_is_two_files_by_one_training_or_by_two() -> None:
    one, two = plan("local_ai_toolkit_wan_22"), plan("local_musubi_wan_22")
    assert [result.path for result in one.results][:2] == [
        "output/lora/lora_low_noise.safetensors",
        "output/lora/lora_high_noise.safetensors",
    ]
    low, high = (dict(zip(c.argv, c.argv[1:], strict=False)) for c in two.of(Purpose.TRAIN))
    assert (low["--min_timestep"], low["--max_timestep"]) == ("0", "875")
    assert (high["--min_timestep"], high["--max_timestep"]) == ("875", "1000")
    assert "low_noise" in low["--dit"]
    assert "high_noise" in high["--dit"]


def test_clips_are_taken_whole_at_the_rate_they_were_cut_for() -> None:
    given = tomllib.loads(plan("local_musubi_hunyuan_video_clips").files[0].text)
    (clips,) = given["datasets"]
    assert (clips["frame_extraction"], clips["max_frames"], clips["target_frames"]) == ("full", 45, [45])
    assert isinstance(clips["source_fps"], float)
    assert clips["source_fps"] == 24
    assert given["general"]["resolution"] == [960, 544]


def test_what_is_ordered_wins_over_the_defaults() -> None:
    made = plan("local_ai_toolkit_flux_1", rank=8, learning_rate=0.0004)
    process = yaml.safe_load(made.files[0].text)["config"]["process"][0]
    assert (process["network"]["linear"], process["train"]["lr"], process["train"]["steps"]) == (8, 0.0004, 1800)
    argv = plan("local_sd_scripts_sdxl", rank=8, learning_rate=0.000001).of(Purpose.TRAIN)[0].argv
    assert argv[argv.index("--learning_rate") + 1] == "0.000001"
    assert argv[argv.index("--network_dim") + 1] == "8"


@pytest.mark.parametrize("changes", [{"steps": 0}, {"steps": 20000}, {"rank": 129}, {"learning_rate": 0.5}])
def test_an_option_out_of_range_is_refused_with_the_range(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="choose one between"):
        plan("local_ai_toolkit_flux_1", **changes)


@pytest.mark.parametrize("word", ["", "a b", "../x", "x;rm", "[name]", "a" * 65, "a\nb"])
@pytest.mark.parametrize("key", ["local_ai_toolkit_flux_1", "local_musubi_z_image", "local_sd_scripts_sdxl"])
def test_a_trigger_word_that_could_be_anything_else_is_refused(key: str, word: str) -> None:
    with pytest.raises(BadInput, match="trigger word"):
        plan(key, trigger_word=word)


@pytest.mark.parametrize(
    "folder", ["", "data", "/", "/data/../etc", "/da$ta", "/${HOME}", "/[name]", "/a\nb", "/-x", '/a"b', "/a/"]
)
def test_a_folder_that_could_be_anything_else_is_refused(folder: str) -> None:
    model = REGISTRY.model("local_musubi_z_image")
    for dataset, work in ((folder, "/w"), ("/d", folder)):
        with pytest.raises(BadInput, match="cannot stand in a trainer's configuration"):
            plan_training(model, order(model.key), dataset, work, home="/opt/trainer")


def test_usual_folders_are_taken() -> None:
    for folder in ("/home/ann/.local/share/on model", "/mnt/d_1/x.y+z@2,3"):
        model = REGISTRY.model("local_musubi_z_image")
        assert plan_training(model, order(model.key), folder, "/w", home="/opt/trainer").commands


def test_a_python_is_a_name_or_a_path() -> None:
    model = REGISTRY.model("local_ai_toolkit_flux_1")
    for python in ("python3.11", "/opt/venv/bin/python"):
        made = plan_training(model, order(model.key), "/d", "/w", home="/opt/trainer", python=python)
        assert made.commands[0].argv[0] == python
    for python in ("-c", "../python", "py;thon"):
        with pytest.raises(BadInput):
            plan_training(model, order(model.key), "/d", "/w", home="/opt/trainer", python=python)


def test_a_program_without_a_home_is_not_configured() -> None:
    model = REGISTRY.model("local_musubi_z_image")
    with pytest.raises(NotConfigured, match="where musubi is installed"):
        plan_training(model, order(model.key), "/d", "/w")


def test_a_vendors_own_trainer_has_no_plan() -> None:
    model = REGISTRY.model("fal_flux_lora_fast")
    with pytest.raises(BadInput, match="trained by fal itself"):
        plan_training(model, order(model.key), "/d", "/w", home="/opt/trainer")


def test_no_plan_holds_a_token_and_a_gated_base_says_that_it_needs_one() -> None:
    made = plan("runpod_musubi_flux_2")
    assert made.needs_token
    assert "token" not in " ".join(word.lower() for command in made.commands for word in command.argv)


def test_what_a_program_does_not_know_is_found() -> None:
    config = yaml.safe_load(plan("local_ai_toolkit_flux_1").files[0].text)
    process = config["config"]["process"][0]
    process["train"]["learning_rat"] = 1
    process["datasets"][0]["resolution"] = [512]
    process["network"]["linear"] = "16"
    process["type"] = "slider"
    assert config_problems(config) == (
        "process.type cannot be 'slider'",
        "network.linear must be a number, not '16'",
        "unknown key 'learning_rat' in train",
    )
    assert config_problems({"job": "extension"}) == ("config file must have a root.config key",)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rank", "8"], "unrecognized arguments: --rank"),
        (["--network_dim"], "expected one argument"),
        (["--network_dim", "8.5"], "invalid integer value: '8.5'"),
        (["--mixed_precision", "fp8"], "invalid choice: 'fp8'"),
    ],
)
def test_a_command_line_is_read_as_strictly_as_the_program_reads_it(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_command_line(options_of(TrainerKind.MUSUBI).of("hv_train_network.py"), words)


def test_a_missing_option_is_asked_for() -> None:
    with pytest.raises(ValueError, match="required: --dataset_config"):
        read_command_line(options_of(TrainerKind.MUSUBI).of("cache_latents.py"), ["--vae", "/x"])


@pytest.mark.parametrize(
    "key",
    [
        "runpod_ai_toolkit_flux_1",
        "runpod_ai_toolkit_wan_22",
        "runpod_ai_toolkit_z_image_turbo",
        "runpod_musubi_hunyuan_video",
        "runpod_musubi_wan_22",
        "runpod_sd_scripts_sdxl",
        "runpod_sd_scripts_flux_1",
    ],
)
def test_a_plan_is_word_for_word_the_one_that_was_looked_at(key: str) -> None:
    made = plan_training(REGISTRY.model(key), order(key), "/data/set", "/data/job")
    lines = [f"# {file.path}\n{file.text}" for file in made.files]
    lines += [f"# {command.purpose}, in {command.folder}\n{shlex.join(command.argv)}\n" for command in made.commands]
    lines += [f"# {result.role}: {result.path}\n" for result in made.results]
    assert "\n".join(lines) == (GOLDEN / f"{key}.txt").read_text("utf-8")
