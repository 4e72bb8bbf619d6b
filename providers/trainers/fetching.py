"""Commands that put a program and its weights on a machine. Each may be run again: what is there already stays."""

from __future__ import annotations

from collections.abc import Iterable

from domain.model_rules import ProgramRule
from providers.trainers.places import Place, weights_of
from providers.trainers.plan_records import PlanCommand, Purpose


def install_commands(rule: ProgramRule, place: Place, *requirements: str) -> tuple[PlanCommand, ...]:
    """Fetch the program at its commit into its home and install what it needs; none where the machine has it.

    `--break-system-packages` because an image's Python may be marked as the system's own (PEP 668); pip takes it
    everywhere since 23.0.1.
    """
    if rule.repository is None or rule.commit is None:
        return ()

    def command(name: str, *argv: str, folder: str = "/") -> PlanCommand:
        return PlanCommand(name=name, argv=argv, folder=folder, purpose=Purpose.INSTALL)

    return (
        command("program folder", "git", "init", "--quiet", place.home),
        command("program", "git", "-C", place.home, "fetch", "--quiet", "--depth", "1", rule.repository, rule.commit),
        command("program files", "git", "-C", place.home, "checkout", "--quiet", "--force", rule.commit),
        command(
            "packages",
            *(place.python, "-m", "pip", "install", "--quiet", "--break-system-packages", *requirements),
            folder=place.home,
        ),
    )


def download_commands(place: Place, weights: Iterable[str]) -> tuple[PlanCommand, ...]:
    """Fetch base models' files, each once, with the `hf` of huggingface_hub (its module, so that it needs no PATH).

    A gated repository takes HF_TOKEN from the environment. Files that are there whole are not fetched again.
    `hf download REPOSITORY FILE --local-dir FOLDER`: https://huggingface.co/docs/huggingface_hub/guides/cli (2026-11);
    huggingface_hub 0.34 on has it as a module, which both musubi-tuner and sd-scripts pin (0.34.3).
    """
    commands = []
    for text in dict.fromkeys(weights):
        repository, file = weights_of(text)
        folder = f"{place.weights}/{repository.replace('/', '--')}"
        argv = (place.python, "-m", "huggingface_hub.cli.hf", "download", repository, file, "--local-dir", folder)
        name = f"{repository}:{file}"
        commands.append(PlanCommand(name=name, argv=argv, folder=place.home, purpose=Purpose.DOWNLOAD))
    return tuple(commands)


def launch(place: Place, script: str, mixed_precision: str) -> tuple[str, ...]:
    """How `accelerate launch` starts a training on one GPU, as both kohya trainers ask (runpod_trainers.md 3.1, 3.2).

    By its module, so that it is the same Python's; the numbers of processes and machines keep it from asking for its
    configuration file (https://huggingface.co/docs/accelerate/basic_tutorials/launch).
    """
    return (
        *(place.python, "-m", "accelerate.commands.launch"),
        *("--num_processes", "1", "--num_machines", "1", "--num_cpu_threads_per_process", "1"),
        *("--mixed_precision", mixed_precision, "--dynamo_backend", "no", script),
    )
