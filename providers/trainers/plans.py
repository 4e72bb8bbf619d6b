"""From an order to what must happen on the machine that trains, by the program the registry names for the model."""

from __future__ import annotations

from typing import assert_never

from domain.errors import BadInput
from domain.model_rules import Model, OptionRule, TrainerKind
from providers.trainers.ai_toolkit import ai_toolkit_plan
from providers.trainers.musubi import musubi_plan
from providers.trainers.places import Place, checked_place
from providers.trainers.plan_records import TrainingPlan
from providers.trainers.sd_scripts import sd_scripts_plan
from providers.vendor_ports import TrainingOrder


def plan_training(
    model: Model,
    order: TrainingOrder,
    dataset_folder: str,
    work_folder: str,
    *,
    home: str = "",
    weights_folder: str = "",
    python: str = "python",
) -> TrainingPlan:
    """The plan for a training on a machine of ours. Pure, free and deterministic.

    All folders are absolute paths on that machine: `dataset_folder` where the training set's zip is unpacked,
    `work_folder` this job's own, `home` the program's ('' for the one the registry names), `weights_folder` where
    fetched base models stay for later jobs ('' for one below the work folder). `BadInput` for a model that is not
    trained by a program, a path or trigger word that could be taken for something else, or an option out of range;
    `NotConfigured` where nobody says where the program is.
    """
    rule = model.training
    if rule is None or rule.program is None:
        raise BadInput(f"{model.key} is trained by {model.vendor} itself and not by a program of ours: order it there.")
    _check_range(model, "steps", rule.steps, order.steps)
    _check_range(model, "learning_rate", rule.learning_rate, order.learning_rate)
    _check_range(model, "rank", rule.rank, order.rank)
    place = checked_place(
        rule.program,
        Place(
            home=home,
            work=work_folder,
            dataset=dataset_folder,
            weights=weights_folder or f"{work_folder}/weights",
            python=python,
        ),
    )
    match rule.program.program:
        case TrainerKind.AI_TOOLKIT:
            return ai_toolkit_plan(model, rule, rule.program, order, place)
        case TrainerKind.MUSUBI:
            return musubi_plan(model, rule, rule.program, order, place)
        case TrainerKind.SD_SCRIPTS:
            return sd_scripts_plan(model, rule, rule.program, order, place)
        case never:
            assert_never(never)


def _check_range(model: Model, what: str, rule: OptionRule, value: float | None) -> None:
    if value is None:
        return
    low, high = rule.minimum, rule.maximum
    if not rule.takes or (low is not None and value < low) or (high is not None and value > high):
        raise BadInput(f"{model.key} takes {what} from {low} to {high}, and {value} was asked: choose one between.")
