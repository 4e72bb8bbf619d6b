"""A training as a request for one's own GPU, and that request as a folder in which a supervisor finds all it needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from domain.errors import BadInput, BadTrainingSet, NotConfigured, Rejected
from domain.jobs import BlobRef, VendorRequest
from domain.model_rules import Model, ModelKind, ProgramRule, TrainerKind
from domain.records import Record
from domain.registry import Registry
from providers.local.supervisor import JOB, STATUS, WORKER
from providers.requests.training import training_arguments
from providers.settings import TRAINER_HOME_VARIABLES
from providers.trainers.machine_orders import (
    MachineOrder,
    job_commands,
    job_files,
    job_results,
    order_arguments,
    stored_name,
)
from providers.trainers.plan_records import TrainingPlan
from providers.trainers.plans import plan_training
from providers.trainers.worker_job import JobData, WorkerJob, worker_source
from providers.vendor_ports import TrainingOrder

GPU = "gpu"
"""The one endpoint a request names."""

LIMITS = "limits.json"
LOG = "run.log"
ENTRIES = {
    TrainerKind.AI_TOOLKIT: "run.py",
    TrainerKind.MUSUBI: "src/musubi_tuner",
    TrainerKind.SD_SCRIPTS: "sdxl_train_network.py",
}
"""What must lie in a program's home (runpod_trainers.md 2.1, 3.1, 3.2)."""


class GpuOrder(MachineOrder):
    """A request for one's own GPU, read back."""

    hard_stop_seconds: int


class Workplace(Record):
    """Where trainings happen on this machine: the folder of all jobs, the programs' homes, and their Python."""

    folder: Path
    homes: dict[TrainerKind, Path]
    python: Path | None = None
    heartbeat_seconds: float = 5.0
    """The status is a file on this disk: it may be written often."""

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    def home_of(self, program: TrainerKind) -> Path:
        """The program's folder; `NotConfigured` names the variable to set."""
        variable, entry = TRAINER_HOME_VARIABLES[program], ENTRIES[program]
        home = self.homes.get(program)
        if home is None:
            raise NotConfigured(
                f"{program} is not set up on this machine: install it and set {variable} to its folder, the one that "
                f"holds {entry}."
            )
        if not (home / entry).exists():
            raise NotConfigured(f"{variable} is {home}, and there is no {entry} in it: correct {variable}.")
        return home

    def plan(self, registry: Registry, order: GpuOrder, job_folder: Path) -> TrainingPlan:
        """What is to happen in this job's folder; errors as `plan_training`, and `NotConfigured` as `home_of`."""
        model = registry.model(order.model)
        return plan_training(
            model,
            order.training(),
            str(job_folder / "dataset"),
            str(job_folder / "work"),
            home=str(self.home_of(program_of(model).program)),
            weights_folder=str(self.folder / "weights"),
            python=str(self.python or "python"),
        )


def gpu_request(registry: Registry, order: TrainingOrder, vendor: str, workplace: Workplace) -> VendorRequest:
    """The request; the same for the same order. `BadInput`, `BadTrainingSet` or `NotConfigured` says what is wrong."""
    model = registry.model(order.trainer_key)
    training_arguments(model, order)
    program = program_of(model)
    arguments: dict[str, Any] = {
        **order_arguments(model, order),
        "hard_stop_seconds": program.hard_stop_seconds,
    }
    request = VendorRequest(vendor=vendor, endpoint=GPU, arguments=arguments)
    workplace.plan(registry, read_order(request), workplace.jobs / "planned")
    return request


def read_order(request: VendorRequest) -> GpuOrder:
    """A request of `gpu_request`, read back; `Rejected`, with nothing begun, for any other."""
    if request.endpoint != GPU:
        raise Rejected(f"This machine is asked for {request.endpoint!r}: only {GPU!r} can be ordered here.")
    try:
        dataset = BlobRef.model_validate(request.arguments["dataset"]["$blob"])
        return GpuOrder.model_validate({**request.arguments, "dataset": dataset})
    except (KeyError, TypeError, ValidationError) as wrong:
        raise Rejected(
            f"The request is no training's ({type(wrong).__name__}: {' '.join(str(wrong).split())[:300]}): write it "
            "with training_request."
        ) from wrong


def program_of(model: Model) -> ProgramRule:
    """The program that trains the model; `BadInput` for one that no machine of ours trains."""
    program = model.training.program if model.kind is ModelKind.TRAINER and model.training is not None else None
    if program is None:
        raise BadInput(f"{model.key} is not trained on a machine of one's own: choose a trainer that is a program.")
    return program


def fill_folder(
    draft: Path, folder: Path, registry: Registry, order: GpuOrder, dataset: Path, place: Workplace
) -> None:
    """Write into `draft` what the job needs once it lies at `folder`. `Rejected` when it can no longer be planned."""
    try:
        plan = place.plan(registry, order, folder)
    except (BadInput, BadTrainingSet) as wrong:
        raise Rejected(f"The training cannot be planned: {wrong.message}") from wrong
    _link_or_copy(dataset, draft / "dataset.zip")
    job = worker_job(plan, folder, order.dataset.sha256, place.heartbeat_seconds)
    (draft / JOB).write_text(job.model_dump_json(), "utf-8")
    (draft / WORKER).write_text(worker_source(), "utf-8")
    (draft / LIMITS).write_text(json.dumps({"hard_stop_seconds": order.hard_stop_seconds}), "utf-8")


def worker_job(plan: TrainingPlan, folder: Path, dataset_sha256: str, heartbeat_seconds: float) -> WorkerJob:
    """The job as the worker reads it, every address a path below `folder`."""
    work = str(folder / "work")
    return WorkerJob(
        job=folder.name,
        dataset=JobData(url=str(folder / "dataset.zip"), sha256=dataset_sha256, folder=str(folder / "dataset")),
        work_folder=work,
        files=job_files(plan, work),
        commands=job_commands(plan),
        results=job_results(plan, work, lambda one: str(folder / "results" / stored_name(one))),
        status_url=str(folder / STATUS),
        log_url=str(folder / LOG),
        heartbeat_seconds=heartbeat_seconds,
        total_steps=plan.total_steps,
    )


def trainers_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a trainer, a stranger's program, gets of our environment: everything but keys and settings of ours."""
    ours = ("ONMODEL_", "PREFECT_", "FAL_", "REPLICATE_", "RUNPOD_", "AWS_", "PG")
    return {name: value for name, value in environ.items() if not name.startswith(ours)}


def _link_or_copy(source: Path, target: Path) -> None:
    """The same bytes, also when the store forgets them before the GPU is free."""
    with suppress(OSError):
        target.hardlink_to(source.resolve())
        return
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise Rejected(f"The training set {source} cannot be read ({error.strerror}): order it again.") from error
