"""A training as a pod's request, and that request as the body of the POST that rents the pod.

The request says what is trained and on what, and nothing that changes from POST to POST: links, name, deadline and the
GPU that is asked for are put in when it is sent.
"""

from __future__ import annotations

import json
import re
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import Field, ValidationError

from domain.errors import BadInput, BadTrainingSet, NotConfigured, Rejected
from domain.jobs import BlobRef, VendorRequest
from domain.model_rules import Model, ModelKind, ProgramRule
from domain.pods import HARD_STOP_ARGUMENT, deadline_epoch, hard_stop
from domain.registry import Registry
from domain.submissions import Submission
from providers.blobs.naming import LONGEST_LINK
from providers.requests.training import training_arguments
from providers.runpod.catalogue import Gpu
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
from providers.trainers.worker_job import JobData, WorkerJob, packed, pod_command
from providers.vendor_ports import Handover, TrainingOrder

PODS = "pods"
"""The one endpoint a request for a pod names."""

ROOT = "/onmodel"
DATASET_FOLDER, WORK_FOLDER = f"{ROOT}/dataset", f"{ROOT}/work"
"""Where things lie in the container."""

STATUS_NAME, LOG_NAME = "status.json", "run.log"
DEADLINE_VARIABLE, JOB_VARIABLE = "ONMODEL_DEADLINE", "ONMODEL_JOB"

PREPARING_SECONDS = 2 * 3600
"""No download and no caching may take longer; the training itself ends at the hard stop. Ours."""

LINKS_OUTLIVE = timedelta(hours=2)
"""How much longer links live than the pod may: it is rented some time after they are signed."""

_SECRET_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")


class PodOrder(MachineOrder):
    """A pod's request, read back."""

    image: str
    gpus: Annotated[tuple[str, ...], Field(min_length=1)]
    min_cuda_version: str | None = None
    disk_gb: int
    price_cap_usd_per_hour: str
    hard_stop_seconds: int

    @property
    def cap_usd(self) -> Decimal:
        return Decimal(self.price_cap_usd_per_hour)


def pod_request(registry: Registry, order: TrainingOrder, vendor: str) -> VendorRequest:
    """The request; the same for the same order. `BadInput` or `BadTrainingSet` says what the trainer cannot take."""
    model = registry.model(order.trainer_key)
    training_arguments(model, order)
    program = program_of(model)
    plan_training(model, order, DATASET_FOLDER, WORK_FOLDER)
    arguments: dict[str, Any] = {
        **order_arguments(model, order),
        "image": program.image,
        "gpus": list(program.gpus),
        "min_cuda_version": program.min_cuda_version,
        "disk_gb": program.disk_gb,
        "price_cap_usd_per_hour": program.price_cap_usd_per_hour,
        HARD_STOP_ARGUMENT: program.hard_stop_seconds,
    }
    return VendorRequest(vendor=vendor, endpoint=PODS, arguments=arguments)


def read_order(request: VendorRequest) -> PodOrder:
    """A request of `pod_request`, read back; `Rejected`, with nothing sent, for any other."""
    if request.endpoint != PODS:
        raise Rejected(f"RunPod is asked for a pod by {request.endpoint!r}: only {PODS!r} can be ordered there.")
    given = request.arguments
    try:
        hard_stop(given)
        dataset = BlobRef.model_validate(given["dataset"]["$blob"])
        order = PodOrder.model_validate({**given, "dataset": dataset})
        _check_cap(order.cap_usd)
        return order
    except BadInput as wrong:
        raise Rejected(f"A pod cannot be ordered: {wrong.message}") from wrong
    except (KeyError, TypeError, ValidationError, InvalidOperation) as wrong:
        raise Rejected(
            f"The request is no pod's ({type(wrong).__name__}: {' '.join(str(wrong).split())[:300]}): write it with "
            "training_request."
        ) from wrong


def _check_cap(cap_usd: Decimal) -> None:
    if not (cap_usd.is_finite() and cap_usd > 0):
        raise BadInput(f"Its price cap is {cap_usd} USD per hour.")


def plan_of(registry: Registry, order: PodOrder) -> TrainingPlan:
    """What is to happen on the pod; `Rejected` when it can no longer be planned."""
    try:
        return plan_training(registry.model(order.model), order.training(), DATASET_FOLDER, WORK_FOLDER)
    except (BadInput, BadTrainingSet) as wrong:
        raise Rejected(f"The training cannot be planned: {wrong.message}") from wrong


def program_of(model: Model) -> ProgramRule:
    """The program that trains the model; `BadInput` for one that no pod can train."""
    program = model.training.program if model.kind is ModelKind.TRAINER and model.training is not None else None
    if program is None or not program.gpus or not program.image:
        raise BadInput(f"{model.key} is not trained on a rented machine: choose a trainer with an image and GPUs.")
    return program


def pod_body(
    registry: Registry,
    order: PodOrder,
    submission: Submission,
    *,
    name: str,
    gpu: Gpu,
    handover: Handover,
    hugging_face_secret: str | None,
    heartbeat_seconds: float,
) -> tuple[bytes, tuple[str, ...]]:
    """The body of `POST /v2/pods`, and the values in it that no text may show.

    `submission.sent_at` is when its deadline begins to count. `NotConfigured` where no machine elsewhere can follow
    our links, or the base is gated and no secret of RunPod's holds a token.
    """
    plan = plan_of(registry, order)
    deadline = deadline_epoch(submission, {HARD_STOP_ARGUMENT: order.hard_stop_seconds})
    valid_for = min(timedelta(seconds=order.hard_stop_seconds) + LINKS_OUTLIVE, LONGEST_LINK)
    try:
        dataset_url = submission.url_of[order.dataset.sha256]
    except KeyError:
        raise Rejected(f"The file {order.dataset.file_name} of the pod {name} has no address: order again.") from None
    job = WorkerJob(
        job=name,
        dataset=JobData(url=dataset_url, sha256=order.dataset.sha256, folder=DATASET_FOLDER),
        work_folder=WORK_FOLDER,
        files=job_files(plan, WORK_FOLDER),
        commands=job_commands(plan, PREPARING_SECONDS),
        results=job_results(
            plan,
            WORK_FOLDER,
            lambda one: handover.write_link(name, stored_name(one), valid_for),
        ),
        status_url=handover.write_link(name, STATUS_NAME, valid_for),
        status_read_url=handover.read_back_link(name, STATUS_NAME, valid_for),
        log_url=handover.write_link(name, LOG_NAME, valid_for),
        deadline=deadline,
        heartbeat_seconds=heartbeat_seconds,
        total_steps=plan.total_steps,
    )
    try:
        variables = {JOB_VARIABLE: packed(job), DEADLINE_VARIABLE: str(deadline)}
    except ValueError as long:
        raise Rejected(f"The pod {name} cannot be ordered: {long}.") from long
    if plan.needs_token:
        variables["HF_TOKEN"] = _secret_reference(order, hugging_face_secret)
    body: dict[str, Any] = {
        "name": name,
        "image": order.image,
        "gpu": {"id": gpu.gpu_id, "count": 1},
        "cloud": "SECURE",  # pictures of faces go to no third party's machine (runpod_trainers.md 5.4)
        "disk": order.disk_gb,
        "args": pod_command(),
        "env": variables,
        "startSsh": False,
        "startJupyter": False,
    }
    if order.min_cuda_version is not None:
        body["gpu"]["minCudaVersion"] = order.min_cuda_version
    links = (job.status_url, job.status_read_url or "", job.log_url, dataset_url, *(one.url for one in job.results))
    return json.dumps(body).encode(), (variables[JOB_VARIABLE], *(link for link in links if len(link) >= 8))


def _secret_reference(order: PodOrder, name: str | None) -> str:
    """RunPod fills it in on the machine; the token itself never leaves RunPod (runpod_trainers.md 5.1)."""
    if name is None or _SECRET_NAME.fullmatch(name) is None:
        raise NotConfigured(
            f"{order.model} trains on a gated base, and the pod needs a Hugging Face token: put it into a secret at "
            "RunPod and set ONMODEL_RUNPOD_HF_SECRET to that secret's name (letters, digits and _)."
        )
    return f"{{{{ RUNPOD_SECRET_{name} }}}}"
