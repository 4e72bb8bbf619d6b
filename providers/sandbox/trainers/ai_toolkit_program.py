"""ai-toolkit's `run.py` as a rehearsal has it: the same YAML in, the same lines and file names out.

Stricter than the real one, which passes over what it does not know: here an unknown key ends the job. What it knows
stands in providers/trainers/options/ai_toolkit.toml; lines and names in shared/reference/runpod_trainers.md 2.1, 2.5,
2.6.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from providers.sandbox.trainers.doing import (
    OOM,
    Expert,
    ProgramError,
    Style,
    Work,
    bar_line,
    check_gate,
    fault,
    read_examples,
    say,
    train,
)
from providers.trainers.options import config_problems

BASES = {
    ("flux", "black-forest-labs/FLUX.1-dev"): "flux-1-dev",
    ("flux2", "black-forest-labs/FLUX.2-dev"): "flux-2-dev",
    ("zimage", "Tongyi-MAI/Z-Image"): "z-image",
    ("zimage", "Tongyi-MAI/Z-Image-Turbo"): "z-image-turbo",
    ("qwen_image", "Qwen/Qwen-Image"): "qwen-image",
    ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"): "sdxl",
    ("wan21", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"): "wan-21-t2v-1.3b",
    ("wan21", "Wan-AI/Wan2.1-T2V-14B-Diffusers"): "wan-21-t2v-14b",
    ("wan22_14b", "ai-toolkit/Wan2.2-T2V-A14B-Diffusers-bf16"): "wan-22-t2v-a14b",
}
"""`arch` and `name_or_path` of the bases our registry has (runpod_trainers.md 2.3)."""

_SPELLINGS: dict[str, Style] = {"flux-1-dev": "peft", "sdxl": "kohya"}
"""It writes FLUX.1 with diffusers' names, SDXL with kohya's, everything else with the original ones (4.2)."""

_RULE = "=" * 40


def main(arguments: Sequence[str]) -> int:
    """Run the one configuration that is named; 1 when it failed."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        say("usage: run.py config.yaml\n")
        return 2
    say("Running 1 job\n")
    try:
        _run(yaml.safe_load(Path(arguments[0]).read_text("utf-8")))
    except (ProgramError, OSError, KeyError, IndexError, yaml.YAMLError) as error:
        said = "OOM during training step 3 times in a row, aborting training" if str(error) == OOM else str(error)
        say(f"\nError running job: {said}\n\n{_RULE}\nResult:\n - 1 failure\n")
        sys.stderr.write(f"Traceback (most recent call last):\nRuntimeError: {said}\n")
        return 1
    say(f"\n{_RULE}\nResult:\n - 1 completed job\n{_RULE}\n")
    return 0


def _run(given: Any) -> None:
    if problems := config_problems(given):
        raise ProgramError("; ".join(problems))
    config = given["config"]
    process = config["process"][0]
    network, save, options, model = (process[name] for name in ("network", "save", "train", "model"))
    dataset = process["datasets"][0]
    base = BASES.get((str(model.get("arch")), str(model.get("name_or_path"))))
    if base is None:
        raise ProgramError(f"unknown model {model.get('arch')!r} at {model.get('name_or_path')!r}")
    if base == "z-image-turbo" and "assistant_lora_path" not in model:
        raise ProgramError("Z-Image-Turbo is distilled: it needs assistant_lora_path")
    check_gate(model["name_or_path"])
    if save.get("dtype", "float16") != "float16":
        raise ProgramError("this stand-in saves float16 alone")
    examples = read_examples(Path(dataset["folder_path"]), "." + dataset.get("caption_ext", "txt").lstrip("."))
    name = str(config["name"])
    folder = Path(process["training_folder"]) / name

    def work(file: str, expert: Expert | None = None) -> Work:
        return Work(
            base=base,
            style=_SPELLINGS.get(base, "comfy"),
            steps=int(options["steps"]),
            learning_rate=float(options["lr"]),
            rank=int(network["linear"]),
            out=folder / file,
            expert=expert,
        )

    files = [work(f"{name}.safetensors")]
    if base.startswith("wan-22"):
        files = [work(f"{name}_high_noise.safetensors", "high"), work(f"{name}_low_noise.safetensors", "low")]
    say("Skipping first sample due to config setting\n")

    def bar(step: int, steps: int, loss: float, seconds: float) -> str:
        is_nan = fault() == "nan"
        shown = 0.0 if is_nan else loss  # the real one counts such a loss as zero and goes on
        line = bar_line(name, step, steps, seconds, f"lr: {float(options['lr']):.1e} loss: {shown:.3e}")
        return f"loss is nan\n{line}" if is_nan else line

    train(files, examples, bar)
    say(f"Saved checkpoint to {folder / name}.safetensors\n")
