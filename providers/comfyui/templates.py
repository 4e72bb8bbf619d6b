"""The workflows that come with OnModel, read from `workflows/`: one graph in API format each, described in one list."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path

from domain.errors import BadInput
from domain.profiles import WorkflowTemplate

FOLDER = Path(__file__).with_name("workflows")


@cache
def built_in_templates() -> tuple[WorkflowTemplate, ...]:
    """Every built-in template, in the list's order."""
    listed = tomllib.loads((FOLDER / "workflows.toml").read_text("utf-8"))
    return tuple(
        WorkflowTemplate(
            name=name,
            kind=entry["kind"],
            base_model=entry["base_model"],
            workflow=json.loads((FOLDER / f"{name}.json").read_text("utf-8")),
            targets=entry["targets"],
            is_built_in=True,
        )
        for name, entry in listed.items()
    )


@cache
def needs() -> dict[str, str]:
    """Template → what a server needs beyond a plain ComfyUI 0.3.64, where it needs something."""
    listed = tomllib.loads((FOLDER / "workflows.toml").read_text("utf-8"))
    return {name: entry["needs"] for name, entry in listed.items() if "needs" in entry}


def built_in_template(name: str) -> WorkflowTemplate:
    """The built-in template of this name; `BadInput` names those there are."""
    for template in built_in_templates():
        if template.name == name:
            return template
    known = ", ".join(template.name for template in built_in_templates())
    raise BadInput(f"There is no built-in workflow {name!r}: choose one of {known}.")
