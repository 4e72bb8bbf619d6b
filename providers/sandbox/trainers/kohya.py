"""What musubi's and sd-scripts' stand-ins share: how they read their command line, print and end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from domain.model_rules import TrainerKind
from providers.sandbox.trainers.doing import Examples, ProgramError, Work, bar_line, say, train
from providers.trainers.options import options_of, read_command_line


def run_program(
    trainer: TrainerKind, program: str, arguments: Sequence[str], work: Callable[[Mapping[str, Any]], None]
) -> int:
    """Read the options as the real program's parser does (2 where it would refuse them), do the work (1 on errors)."""
    try:
        options = read_command_line(options_of(trainer).of(program), arguments)
    except ValueError as error:
        sys.stderr.write(f"{program}: error: {error}\n")
        return 2
    try:
        work(options)
    except (ProgramError, OSError, ValueError, KeyError) as error:
        said = str(error) if isinstance(error, ProgramError) and "Error: " in str(error) else f"ValueError: {error}"
        sys.stderr.write(f"\nTraceback (most recent call last):\n{said}\n")
        return 1
    return 0


def need_files(options: Mapping[str, Any], names: Sequence[str]) -> None:
    """`ProgramError` for a weight that is not named or not there."""
    for name in names:
        if name not in options:
            raise ProgramError(f"ValueError: path to {name} is required")
        if not Path(options[name]).is_file():
            raise ProgramError(f"FileNotFoundError: [Errno 2] No such file or directory: {options[name]!r}")


def train_and_tell(work: Work, examples: Examples) -> None:
    """Train with kohya's lines around and between."""
    say(f"running training\n  num train items: {len(examples.pictures)}\n  total optimization steps: {work.steps}\n")
    say("\nepoch 1/1\n")

    def bar(step: int, steps: int, loss: float, seconds: float) -> str:
        return bar_line("steps", step, steps, seconds, f"avr_loss={loss:.3g}")

    train([work], examples, bar)
    say(f"\nsaving checkpoint: {work.out}\nmodel saved.\n")
