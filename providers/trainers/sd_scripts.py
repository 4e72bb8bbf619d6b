"""sd-scripts' plan: one command, everything on its command line.

The dataset is read from its folder's name (`12_TRIGGER person`: repeats and class), as `--train_data_dir` does
(library/config_util.py at 48d368f), so no dataset file with relative paths is needed. What the options mean was read
where providers/trainers/options/sd_scripts.toml says; the commands follow runpod_trainers.md 3.2.
"""

from __future__ import annotations

from domain.model_rules import Model, ProgramRule, TrainingRule
from providers.trainers.command_lines import Options, command_line
from providers.trainers.fetching import download_commands, install_commands, launch
from providers.trainers.places import Place, check_trigger, weights_of, weights_path
from providers.trainers.plan_records import PlanCommand, PlanResult, Purpose, TrainingPlan
from providers.vendor_ports import TrainingOrder

NAME = "lora"
SEED = 42
WORKERS = 2


def sd_scripts_plan(
    model: Model, rule: TrainingRule, program: ProgramRule, order: TrainingOrder, place: Place
) -> TrainingPlan:
    """The plan of one training. SDXL's base is fetched by the program itself, FLUX.1's files before it."""
    check_trigger(order.trigger_word)
    script = str(program.settings["script"])
    train = PlanCommand(
        name=model.title,
        argv=(*launch(place, script, "bf16"), *command_line(_options(rule, program, order, place))),
        folder=place.home,
        purpose=Purpose.TRAIN,
    )
    files = tuple(text for text in program.weights.values() if weights_of(text)[1])
    return TrainingPlan(
        program=program.program,
        home=place.home,
        files=(),
        commands=(
            *install_commands(program, place, "-r", "requirements.txt"),
            *download_commands(place, files),
            train,
        ),
        results=(PlanResult(role="lora", path=f"output/{NAME}.safetensors"),),
        total_steps=order.steps,
        needs_token=program.is_gated,
    )


def _options(rule: TrainingRule, program: ProgramRule, order: TrainingOrder, place: Place) -> Options:
    side = max(rule.resolutions)
    return {
        # A repository is named as such, a file by where it was fetched to.
        **{name: weights_path(place, text) if weights_of(text)[1] else text for name, text in program.weights.items()},
        "train_data_dir": place.dataset,
        "caption_extension": ".txt",
        "resolution": f"{side},{side}",
        "train_batch_size": 1,
        "enable_bucket": True,
        "bucket_no_upscale": True,
        "output_dir": f"{place.work}/output",
        "output_name": NAME,
        "save_model_as": "safetensors",
        "save_precision": "bf16",
        "network_dim": order.rank or int(rule.rank.default or 32),
        "network_train_unet_only": True,
        "learning_rate": float(order.learning_rate or rule.learning_rate.default or 1e-4),
        "optimizer_type": "AdamW8bit",
        "lr_scheduler": "constant",
        "max_train_steps": order.steps,
        "mixed_precision": "bf16",
        "gradient_checkpointing": True,
        "cache_text_encoder_outputs": True,
        "cache_latents": True,
        "max_data_loader_n_workers": WORKERS,
        "persistent_data_loader_workers": True,
        "seed": SEED,
        **program.settings["train"],
    }
