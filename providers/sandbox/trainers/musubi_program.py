"""musubi-tuner's programs as a rehearsal has them: caches first, then the training, each with the real one's options.

What each takes stands in providers/trainers/options/musubi.toml; the order, the files and the lines in
shared/reference/runpod_trainers.md 3.1. A training without its caches fails, as there.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from domain.model_rules import TrainerKind
from providers.sandbox.trainers.doing import CLIPS, PICTURES, Examples, Expert, ProgramError, Work, read_examples, say
from providers.sandbox.trainers.kohya import need_files, run_program, train_and_tell
from providers.trainers.options import options_of

NETWORKS = {
    "hv": "networks.lora",
    "hv_1_5": "networks.lora_hv_1_5",
    "wan": "networks.lora_wan",
    "zimage": "networks.lora_zimage",
    "qwen_image": "networks.lora_qwen_image",
    "flux_2": "networks.lora_flux_2",
}
WAN_TASKS = {
    "t2v-A14B": "wan-22-t2v-a14b",
    "i2v-A14B": "wan-22-i2v-a14b",
    "t2v-14B": "wan-21-t2v-14b",
    "t2v-1.3B": "wan-21-t2v-1.3b",
}
BASES = {
    "hv": "hunyuan-video",
    "hv_1_5": "hunyuan-video-15",
    "zimage": "z-image",
    "qwen_image": "qwen-image",
    "flux_2": "flux-2-dev",
}
TRAINING_NEEDS = {
    "hv": ("dit",),
    "hv_1_5": ("dit", "vae", "text_encoder", "byt5"),
    "wan": ("dit",),
    "zimage": ("dit", "vae", "text_encoder"),
    "qwen_image": ("dit", "vae", "text_encoder"),
    "flux_2": ("dit", "vae", "text_encoder"),
}
TEXT_NEEDS = {
    "hv": ("text_encoder1", "text_encoder2"),
    "hv_1_5": ("text_encoder", "byt5"),
    "wan": ("t5",),
    "zimage": ("text_encoder",),
    "qwen_image": ("text_encoder",),
    "flux_2": ("text_encoder",),
}
HIGH_NOISE_FROM = {"t2v-A14B": 875, "i2v-A14B": 900}
"""Where Wan 2.2's experts meet, of 1000 timesteps (runpod_trainers.md 3.1)."""


def main(program: str, arguments: Sequence[str]) -> int:
    """Do what the program of this file name does."""
    family, _, kind = program.removesuffix(".py").rpartition("_train_network")
    if kind == "" and family:
        return run_program(TrainerKind.MUSUBI, program, arguments, lambda options: _train(family, options))
    stem = program.removesuffix(".py")
    step = "cache_latents" if stem.endswith("cache_latents") else "cache_text_encoder_outputs"
    family = stem.removesuffix(step).rstrip("_") or "hv"
    return run_program(TrainerKind.MUSUBI, program, arguments, lambda options: _cache(family, step, options))


def _cache(family: str, step: str, options: Mapping[str, Any]) -> None:
    need_files(options, ("vae",) if step == "cache_latents" else TEXT_NEEDS[family])
    folder, examples = _dataset(options)
    folder.mkdir(parents=True, exist_ok=True)
    if options.get("i2v") and examples.pictures[0].suffix not in CLIPS:
        raise ProgramError("ValueError: image-to-video is trained on clips")
    for picture in examples.pictures:
        (folder / _cached(family, step, picture)).write_bytes(b"stands for a cache")
    say(f"{step}: {len(examples.pictures)} of {len(examples.pictures)} items cached\n")


def _cached(family: str, step: str, picture: Path) -> str:
    return f"{picture.stem}_{family}{'' if step == 'cache_latents' else '_te'}.safetensors"


def _train(family: str, options: Mapping[str, Any]) -> None:
    need_files(options, TRAINING_NEEDS[family])
    if options.get("network_module") != NETWORKS[family]:
        raise ProgramError(f"ModuleNotFoundError: No module named {options.get('network_module')!r}")
    if "fp16" in Path(options["dit"]).name and options.get("mixed_precision") not in ("fp16", "no"):
        raise ProgramError("AssertionError: DiT weights are in fp16, mixed precision must be fp16 or no")
    folder, examples = _dataset(options)
    for picture in examples.pictures:
        for step in ("cache_latents", "cache_text_encoder_outputs"):
            if not (folder / _cached(family, step, picture)).is_file():
                raise ProgramError(f"ValueError: no cache of {picture.name} by {step}")
    base = BASES.get(family) or WAN_TASKS[options["task"]]
    train_and_tell(
        Work(
            base=base,
            style="kohya",
            steps=int(options["max_train_steps"]),
            learning_rate=float(options["learning_rate"]),
            rank=int(options["network_dim"]),
            out=Path(options["output_dir"]) / f"{options['output_name']}.safetensors",
            expert=_expert(options),
        ),
        examples,
    )


def _expert(options: Mapping[str, Any]) -> Expert | None:
    """Which of Wan 2.2's experts this trains, by its timesteps; `ProgramError` where they fit neither."""
    border = HIGH_NOISE_FROM.get(options.get("task", ""))
    if border is None:
        return None
    match options.get("min_timestep"), options.get("max_timestep"):
        case 0, last if last == border:
            expert: Expert = "low"
        case first, 1000 if first == border:
            expert = "high"
        case other:
            raise ProgramError(f"ValueError: the timesteps {other} are those of neither expert")
    if expert not in Path(options["dit"]).name:
        raise ProgramError(f"ValueError: {Path(options['dit']).name} is not the {expert}-noise model")
    return expert


def _dataset(options: Mapping[str, Any]) -> tuple[Path, Examples]:
    """The cache folder, and the pictures or clips of the one data set of the file."""
    groups = options_of(TrainerKind.MUSUBI).groups
    given = tomllib.loads(Path(options["dataset_config"]).read_text("utf-8"))
    general, (found,) = given["general"], given["datasets"]
    is_clips = "video_directory" in found
    known = ("dataset_general", "dataset_clips" if is_clips else "dataset_images")
    for key in (*general, *found):
        if all(groups[name].kind_of(key) is None for name in known):
            raise ProgramError(f"voluptuous.error.MultipleInvalid: extra keys not allowed @ data[{key!r}]")
    if is_clips and not isinstance(found.get("source_fps", 1.0), float):
        raise ProgramError("voluptuous.error.MultipleInvalid: expected float for dictionary value @ data['source_fps']")
    folder = Path(found["video_directory" if is_clips else "image_directory"])
    suffixes = CLIPS if is_clips else PICTURES
    return Path(found["cache_directory"]), read_examples(folder, general["caption_extension"], suffixes)
