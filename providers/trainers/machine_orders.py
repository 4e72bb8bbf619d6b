"""What all machines of ours are told of a training alike: an order as a request's arguments, a plan as a job's parts.

Folders and addresses are the machine's own; paths in them are joined as POSIX writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from domain.jobs import BlobRef, blob_argument
from domain.model_rules import Model
from domain.records import Record
from providers.trainers.plan_records import PlanResult, TrainingPlan
from providers.trainers.worker_job import JobCommand, JobFile, JobResult
from providers.vendor_ports import TrainingOrder


class MachineOrder(Record):
    """A training out of a request's arguments; each kind of machine adds its own."""

    model: str
    dataset: BlobRef
    trigger_word: str
    steps: int
    learning_rate: float | None = None
    rank: int | None = None
    image_count: int

    def training(self) -> TrainingOrder:
        """The order it was written for."""
        return TrainingOrder(
            trainer_key=self.model,
            zip=self.dataset,
            trigger_word=self.trigger_word,
            steps=self.steps,
            learning_rate=self.learning_rate,
            rank=self.rank,
            image_count=self.image_count,
        )


def order_arguments(model: Model, order: TrainingOrder) -> dict[str, Any]:
    """The arguments that `MachineOrder` reads back, the data set's bytes still named by their digest."""
    wishes = {"learning_rate": order.learning_rate, "rank": order.rank}
    return {
        "model": model.key,
        "dataset": blob_argument(order.zip),
        "trigger_word": order.trigger_word,
        "steps": order.steps,
        **{name: value for name, value in wishes.items() if value is not None},
        "image_count": order.image_count,
    }


def job_files(plan: TrainingPlan, work_folder: str) -> tuple[JobFile, ...]:
    """The texts the worker writes."""
    return tuple(JobFile(path=f"{work_folder}/{file.path}", text=file.text) for file in plan.files)


def job_commands(plan: TrainingPlan, preparing_seconds: int | None = None) -> tuple[JobCommand, ...]:
    """The programs the worker runs; none but the training may take longer than `preparing_seconds` (None: no end)."""
    return tuple(
        JobCommand(
            name=command.name,
            argv=command.argv,
            folder=command.folder,
            is_training=command.is_training,
            timeout_seconds=None if command.is_training else preparing_seconds,
        )
        for command in plan.commands
    )


def job_results(plan: TrainingPlan, work_folder: str, url_of: Callable[[PlanResult], str]) -> tuple[JobResult, ...]:
    """The files the worker looks for, each with where it is put."""
    return tuple(
        JobResult(
            role=result.role,
            glob=f"{work_folder}/{result.path}",
            is_required=result.is_required,
            url=url_of(result),
        )
        for result in plan.results
    )


def stored_name(result: PlanResult) -> str:
    """What a result is called where it is put, whatever the trainer called it."""
    return f"{result.role}{PurePosixPath(result.path).suffix}"
