"""ai-toolkit's plan: one YAML file and `run.py`.

What the keys mean was read where providers/trainers/options/ai_toolkit.toml says; what differs from base to base stands
in the registry's `program.settings`, table by table. No samples are drawn on the way: our own check judges the LoRA.
"""

from __future__ import annotations

from typing import Any

import yaml

from domain.layouts import DROPOUT_OF_CAPTIONS
from domain.model_rules import Model, ProgramRule, TrainingRule
from providers.trainers.places import Place, check_trigger
from providers.trainers.plan_records import PlanCommand, PlanFile, PlanResult, Purpose, TrainingPlan
from providers.vendor_ports import TrainingOrder

NAME = "lora"
"""Names folder and files; the character's name is nobody's business there."""

SAVES_KEPT = 1
SEED = 42


def ai_toolkit_plan(
    model: Model, rule: TrainingRule, program: ProgramRule, order: TrainingOrder, place: Place
) -> TrainingPlan:
    """The plan of one training. ai-toolkit fetches its base model itself, with HF_TOKEN where it is gated."""
    config = job_config(rule, program, order, place)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
    made = f"output/{NAME}/{NAME}"
    files = (
        {"lora": f"{made}_low_noise.safetensors", "lora_high_noise": f"{made}_high_noise.safetensors"}
        if program.has_two_experts
        else {"lora": f"{made}.safetensors"}
    )
    train = PlanCommand(
        name=model.title,
        argv=(place.python, "run.py", f"{place.work}/config.yaml"),
        folder=place.home,
        purpose=Purpose.TRAIN,
    )
    return TrainingPlan(
        program=program.program,
        home=place.home,
        files=(PlanFile(path="config.yaml", text=text),),
        commands=(train,),
        results=(
            *(PlanResult(role=role, path=path) for role, path in files.items()),
            PlanResult(role="config", path="config.yaml"),
        ),
        total_steps=order.steps,
        needs_token=program.is_gated,
    )


def job_config(rule: TrainingRule, program: ProgramRule, order: TrainingOrder, place: Place) -> dict[str, Any]:
    """The configuration as ai-toolkit reads it. `linear_alpha` is the rank: for every transformer base the program
    would set it so itself, and for SDXL it would otherwise be 1 (runpod_trainers.md 2.2)."""
    settings = program.settings
    rank = order.rank or int(rule.rank.default or 32)
    process = {
        "type": "sd_trainer",
        "training_folder": f"{place.work}/output",
        "device": "cuda:0",
        "network": {"type": "lora", "linear": rank, "linear_alpha": rank},
        # The step number it ends with is saved anyway; one on the way is for whoever looks in after a crash.
        "save": {"dtype": "float16", "save_every": max(250, order.steps), "max_step_saves_to_keep": SAVES_KEPT},
        "datasets": [
            {
                "folder_path": f"{place.dataset}/{check_trigger(order.trigger_word)}",
                "caption_ext": "txt",
                "default_caption": order.trigger_word,
                "caption_dropout_rate": DROPOUT_OF_CAPTIONS,
                "cache_latents_to_disk": True,
                "resolution": sorted(rule.resolutions),
                "num_repeats": 1,
                **settings.get("datasets", {}),
            }
        ],
        "train": {
            "batch_size": 1,
            "steps": order.steps,
            "gradient_accumulation": 1,
            "train_unet": True,
            "train_text_encoder": False,
            "gradient_checkpointing": True,
            "noise_scheduler": "flowmatch",
            "optimizer": "adamw8bit",
            "lr": order.learning_rate or rule.learning_rate.default or 1e-4,
            "dtype": "bf16",
            "disable_sampling": True,
            "skip_first_sample": True,
            **settings.get("train", {}),
        },
        "model": {**program.weights, "arch": program.architecture, **settings.get("model", {})},
        "sample": {"sampler": settings.get("train", {}).get("noise_scheduler", "flowmatch"), "prompts": []},
    }
    return {
        "job": "extension",
        "config": {"name": NAME, "process": [process]},
        "meta": {"name": "[name]", "version": "1.0"},
    }
