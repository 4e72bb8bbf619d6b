"""musubi-tuner's plan: a dataset file, then three programs (latents, text outputs, training) of the base's own family.

What the options mean was read where providers/trainers/options/musubi.toml says; the commands follow runpod_trainers.md
3.1 and the repository's docs for each base. A Wan 2.2 LoRA is two trainings, one for each expert within its timesteps.
"""

from __future__ import annotations

import json
from typing import Any

from domain.layouts import repeats_for
from domain.model_rules import Model, ProgramRule, TrainingRule
from providers.trainers.command_lines import Options, command_line
from providers.trainers.fetching import download_commands, install_commands, launch
from providers.trainers.places import Place, check_trigger, weights_path
from providers.trainers.plan_records import PlanCommand, PlanFile, PlanResult, Purpose, TrainingPlan
from providers.vendor_ports import TrainingOrder

SEED = 42
WORKERS = 2

_FOLLOWING_SHARDS = "next"
"""Weights named `next…` are later parts of a model whose first part is given: fetched, and found beside it."""


def musubi_plan(
    model: Model, rule: TrainingRule, program: ProgramRule, order: TrainingOrder, place: Place
) -> TrainingPlan:
    """The plan of one training, on the dataset's `images` folder or, for a trainer of videos, its `clips`."""
    family = str(program.settings["family"])
    dataset = PlanFile(path="dataset.toml", text=_dataset_toml(rule, program, order, place))
    weights = {
        name: weights_path(place, text)
        for name, text in program.weights.items()
        if not name.startswith(_FOLLOWING_SHARDS)
    }
    prepare = _prepare(program, family, weights, place)
    stages = _stages(program)
    precision = str(program.settings["train"].get("mixed_precision", "bf16"))
    train = tuple(
        PlanCommand(
            name=f"{model.title}{f' ({part})' if part else ''}",
            argv=(
                *launch(place, f"src/musubi_tuner/{family}_train_network.py", precision),
                *command_line(_training(rule, program, order, place, weights, part, own)),
            ),
            folder=place.home,
            purpose=Purpose.TRAIN,
        )
        for part, own in stages.items()
    )
    return TrainingPlan(
        program=program.program,
        home=place.home,
        files=(dataset,),
        commands=(
            *install_commands(program, place, "-e", "."),
            *download_commands(place, program.weights.values()),
            *prepare,
            *train,
        ),
        results=(*_results(stages), PlanResult(role="config", path="dataset.toml")),
        total_steps=order.steps * len(stages),
        needs_token=program.is_gated,
    )


def _stages(program: ProgramRule) -> dict[str, dict[str, Any]]:
    """The trainings and their own options; the name of each is part of its file's name, '' for a single one."""
    if not program.has_two_experts:
        return {"": {}}
    stages: dict[str, dict[str, Any]] = program.settings["experts"]
    return stages


def _results(stages: dict[str, dict[str, Any]]) -> tuple[PlanResult, ...]:
    roles = {"": "lora", "low_noise": "lora", "high_noise": "lora_high_noise"}
    return tuple(PlanResult(role=roles[part], path=f"output/{_name(part)}.safetensors") for part in stages)


def _name(part: str) -> str:
    return f"lora_{part}" if part else "lora"


def _prepare(program: ProgramRule, family: str, weights: dict[str, str], place: Place) -> tuple[PlanCommand, ...]:
    prefix = "" if family == "hv" else f"{family}_"
    config: Options = {"dataset_config": f"{place.work}/dataset.toml"}
    version = program.settings.get("version", {})
    latents: Options = {**config, "vae": weights["vae"], **version, **program.settings.get("latents", {})}
    encoders = {name: path for name, path in weights.items() if name not in ("dit", "dit_high_noise", "vae")}
    texts: Options = {**config, **encoders, "batch_size": 1, **version, **program.settings.get("texts", {})}

    def command(name: str, script: str, options: Options) -> PlanCommand:
        argv = (place.python, f"src/musubi_tuner/{script}", *command_line(options))
        return PlanCommand(name=name, argv=argv, folder=place.home, purpose=Purpose.PREPARE)

    return (
        command("pictures' latents", f"{prefix}cache_latents.py", latents),
        command("captions' text outputs", f"{prefix}cache_text_encoder_outputs.py", texts),
    )


def _training(
    rule: TrainingRule,
    program: ProgramRule,
    order: TrainingOrder,
    place: Place,
    weights: dict[str, str],
    part: str,
    own: dict[str, Any],
) -> Options:
    dit = weights["dit_high_noise"] if part == "high_noise" else weights["dit"]
    # HunyuanVideo's and Wan's trainings read what was cached and no encoder; the others ask for theirs again.
    others = {name: weights[name] for name in program.settings.get("training_weights", ())}
    return {
        **({"task": program.architecture} if program.settings.get("takes_task", False) else {}),
        **program.settings.get("version", {}),
        "dit": dit,
        **others,
        "dataset_config": f"{place.work}/dataset.toml",
        "sdpa": True,
        "mixed_precision": "bf16",
        # Since 2026-06 the default is fp32, files twice as large (runpod_trainers.md 3.1).
        "save_precision": "bf16",
        "optimizer_type": "adamw8bit",
        "learning_rate": float(order.learning_rate or rule.learning_rate.default or 1e-4),
        "gradient_checkpointing": True,
        "max_data_loader_n_workers": WORKERS,
        "persistent_data_loader_workers": True,
        "network_dim": order.rank or int(rule.rank.default or 32),
        **program.settings["train"],
        **own,
        "max_train_steps": order.steps,
        "seed": SEED,
        "output_dir": f"{place.work}/output",
        "output_name": _name(part),
    }


def _dataset_toml(rule: TrainingRule, program: ProgramRule, order: TrainingOrder, place: Place) -> str:
    """musubi's dataset file, with absolute folders because it runs in its own home.

    Nothing is enlarged; the cache folder is this job's alone, as musubi demands (runpod_trainers.md 3.1). Clips are cut
    to the model's lengths already, so each is taken whole (`full`), and `source_fps`, a float, is theirs.
    """
    side = max(rule.resolutions)
    size = program.settings.get("resolution", [side, side])
    cache = f"{place.work}/cache/{check_trigger(order.trigger_word)}"
    head = (
        "[general]\n"
        f"resolution = {json.dumps(size)}\n"
        'caption_extension = ".txt"\n'
        "batch_size = 1\n"
        "enable_bucket = true\n"
        "bucket_no_upscale = true\n\n"
        "[[datasets]]\n"
    )
    where = f"cache_directory = {json.dumps(cache)}\nnum_repeats = {repeats_for(order.image_count)}\n"
    if rule.videos is None:
        return f"{head}image_directory = {json.dumps(f'{place.dataset}/images')}\n{where}"
    return (
        f"{head}video_directory = {json.dumps(f'{place.dataset}/clips')}\n{where}"
        f"target_frames = [{rule.videos.max_frames}]\n"
        'frame_extraction = "full"\n'
        f"max_frames = {rule.videos.max_frames}\n"
        f"source_fps = {float(rule.videos.fps)}\n"
    )
