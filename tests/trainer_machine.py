"""A machine that trains in a rehearsal: the stand-ins' commands, and a small training set in every layout."""

from __future__ import annotations

import subprocess
from pathlib import Path

from PIL import Image, ImageDraw

from domain.jobs import BlobRef
from domain.layouts import LayoutFacts, LayoutKind, caption_path, path_in
from domain.model_rules import Model
from domain.registry import load_registry
from providers.lora_files import check_lora_file
from providers.sandbox.trainers.doing import FAULT
from providers.sandbox.trainers.homes import HOMES, stand_in_commands
from providers.trainers.plan_records import PlanCommand, TrainingPlan
from providers.trainers.plans import plan_training
from providers.vendor_ports import TrainingOrder

STEPS, RANK, PICTURES = 20, 2, 4
ZIP = BlobRef(sha256="0" * 64, media_type="application/zip", file_name="set.zip")
FACTS = LayoutFacts(trigger_word="MEIKOB_01", class_word="person", image_count=PICTURES, resolutions=(512,))


class Machine:
    """A folder with the stand-ins' commands and a small training set in every layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = stand_in_commands(folder / "bin")
        for kind in (LayoutKind.AI_TOOLKIT, LayoutKind.MUSUBI, LayoutKind.KOHYA):
            for number in range(PICTURES):
                path = folder / kind / path_in(kind, FACTS, f"{number}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = Image.new("RGB", (96, 128), (200, 200, 210))
                ImageDraw.Draw(picture).ellipse((30 + number * 3, 30, 70, 110), fill=(180, 40, 60))
                picture.save(path)
                Path(caption_path(str(path))).write_text(f"MEIKOB_01, number {number} before a grey wall", "utf-8")

    def plan(self, key: str, work: Path) -> TrainingPlan:
        """The plan for this machine, its texts written."""
        model = load_registry().model(key)
        assert model.training is not None
        assert model.training.program is not None
        order = TrainingOrder(
            trainer_key=key, zip=ZIP, trigger_word="MEIKOB_01", steps=STEPS, image_count=PICTURES, rank=RANK
        )
        dataset = str(self.folder / model.training.layout)
        home = str(HOMES[model.training.program.program])
        made = plan_training(model, order, dataset, str(work), home=home, python=str(self.python))
        for file in made.files:
            (work / file.path).write_text(file.text, "utf-8")
        return made

    def run(self, command: PlanCommand, *more: str, fault: str = "") -> subprocess.CompletedProcess[str]:
        """One command, with nothing of ours in its environment."""
        environment = {"PATH": f"{self.python.parent}:/usr/bin:/bin", FAULT: fault}
        argv = [*command.argv, *more]
        return subprocess.run(argv, cwd=command.folder, env=environment, capture_output=True, text=True, check=False)


def check(model: Model, plan: TrainingPlan, work: Path) -> list[str]:
    """What our own check says of each LoRA that a plan promises."""
    verdicts = []
    for result in plan.results:
        (path,) = work.glob(result.path)
        if result.role.startswith("lora"):
            found = check_lora_file(path, expected_base=model.base_model, expected_steps=STEPS, expected_rank=RANK)
            verdicts.append(found.verdict)
    return verdicts
