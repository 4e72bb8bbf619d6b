"""sd-scripts' LoRA programs as a rehearsal has them: folders named `12_WORD person` in, one file out.

What each takes stands in providers/trainers/options/sd_scripts.toml; shared/reference/runpod_trainers.md 3.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from domain.model_rules import TrainerKind
from providers.sandbox.trainers.doing import Examples, ProgramError, Work, check_gate, read_examples
from providers.sandbox.trainers.kohya import need_files, run_program, train_and_tell

NETWORKS = {"sdxl_train_network.py": "networks.lora", "flux_train_network.py": "networks.lora_flux"}
BASES = {"sdxl_train_network.py": "sdxl", "flux_train_network.py": "flux-1-dev"}

_FOLDER = re.compile(r"(?P<repeats>[1-9]\d*)_(?P<class_tokens>.+)")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def main(program: str, arguments: Sequence[str]) -> int:
    """Do what the program of this file name does."""
    return run_program(TrainerKind.SD_SCRIPTS, program, arguments, lambda options: _train(program, options))


def _train(program: str, options: Mapping[str, Any]) -> None:
    if options.get("network_module") != NETWORKS[program]:
        raise ProgramError(f"ModuleNotFoundError: No module named {options.get('network_module')!r}")
    if options.get("cache_text_encoder_outputs") and not options.get("network_train_unet_only"):
        raise ProgramError("AssertionError: network for Text Encoder cannot be trained with caching its outputs")
    if options.get("save_model_as") != "safetensors":
        raise ProgramError("ValueError: this stand-in writes safetensors alone")
    base = options.get("pretrained_model_name_or_path", "")
    if program == "flux_train_network.py":
        need_files(options, ("pretrained_model_name_or_path", "ae", "clip_l", "t5xxl"))
    elif not _REPOSITORY.fullmatch(base):
        need_files(options, ("pretrained_model_name_or_path",))
    check_gate(base)
    train_and_tell(
        Work(
            base=BASES[program],
            style="kohya",
            steps=int(options["max_train_steps"]),
            learning_rate=float(options["learning_rate"]),
            rank=int(options["network_dim"]),
            out=Path(options["output_dir"]) / f"{options['output_name']}.safetensors",
        ),
        _examples(options),
    )


def _examples(options: Mapping[str, Any]) -> Examples:
    """Pictures of every folder that says how often they are shown; others are passed over, as there."""
    root = Path(options["train_data_dir"])
    if not root.is_dir():
        raise ProgramError(f"FileNotFoundError: [Errno 2] No such file or directory: {str(root)!r}")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and _FOLDER.fullmatch(path.name))
    if not folders:
        raise ProgramError("ValueError: No data found. Please verify arguments (train_data_dir must be the parent)")
    # The real default is `.caption`, with which our captions would be passed over (library/train_util.py).
    found = [read_examples(folder, options.get("caption_extension", ".caption")) for folder in folders]
    return Examples(
        tuple(path for one in found for path in one.pictures), tuple(text for one in found for text in one.captions)
    )
