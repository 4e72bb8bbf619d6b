"""Where the stand-in programs lie, and the commands that a machine has which runs them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from domain.model_rules import TrainerKind

FOLDER = Path(__file__).resolve().parent
PROJECT = FOLDER.parents[2]

HOMES = {
    TrainerKind.AI_TOOLKIT: FOLDER / "ai_toolkit",
    TrainerKind.MUSUBI: FOLDER / "musubi",
    TrainerKind.SD_SCRIPTS: FOLDER / "sd_scripts",
}

_GIT = "#!/bin/sh\n# git on a rehearsal's machine: the program it would fetch is there already.\nexit 0\n"


def stand_in_commands(folder: Path) -> Path:
    """Write `python`, `python3` and `git` for a rehearsal's machine into `folder`, to be put first on its PATH.

    Returns the path of that `python`, which is this one with the project and the stand-ins' packages in front, whatever
    the environment is. Repeating it writes the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = shlex.quote(f"{FOLDER / 'site'}:{PROJECT}")
    python = f'#!/bin/sh\nPYTHONPATH={places} exec {shlex.quote(sys.executable)} "$@"\n'
    for name, text in {"python": python, "python3": python, "git": _GIT}.items():
        path = folder / name
        path.write_text(text, "utf-8")
        path.chmod(0o755)
    return folder / "python"
