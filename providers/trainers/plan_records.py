"""What is to happen on the machine that trains: texts to write, commands to run, files to expect."""

from __future__ import annotations

from enum import StrEnum

from domain.model_rules import TrainerKind
from domain.records import Record


class Purpose(StrEnum):
    """What a command is for. Only `TRAIN` shows progress; every one may be run again from its beginning."""

    INSTALL = "install"
    DOWNLOAD = "download"
    PREPARE = "prepare"
    TRAIN = "train"


class PlanFile(Record):
    """A text to write; `path` is relative to the work folder, plain segments only."""

    path: str
    text: str


class PlanCommand(Record):
    """One program call, never through a shell; `folder` is where it runs (absolute). Exit status 0 is success."""

    name: str
    argv: tuple[str, ...]
    folder: str
    purpose: Purpose

    @property
    def is_training(self) -> bool:
        return self.purpose is Purpose.TRAIN


class PlanResult(Record):
    """A file the training leaves: `role` as in `domain.jobs.OutputFile`, `path` a glob relative to the work folder that
    fits exactly one file."""

    role: str
    path: str
    is_required: bool = True


class TrainingPlan(Record):
    """A whole training. Write `files`, run `commands` in order, stop at the first that fails, expect `results`.

    `home` is the program's own folder. `total_steps` is what the training commands' bars count up to, together: a Wan
    2.2 LoRA by musubi is two trainings. `needs_token`: the base is gated, HF_TOKEN must be in the environment; no
    command and no text ever holds it.
    """

    program: TrainerKind
    home: str
    files: tuple[PlanFile, ...]
    commands: tuple[PlanCommand, ...]
    results: tuple[PlanResult, ...]
    total_steps: int
    needs_token: bool

    def of(self, purpose: Purpose) -> tuple[PlanCommand, ...]:
        """The commands of one purpose, in order."""
        return tuple(command for command in self.commands if command.purpose is purpose)
