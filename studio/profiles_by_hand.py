"""`onmodel templates` and `onmodel profiles`: ComfyUI workflows taken in and given out, and who is drawn by which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from domain.errors import BadInput
from domain.profiles import GenerationProfile, Target, WorkflowTemplate
from providers.wiring import open_ports
from studio.telling import print_json, print_table, say
from tasks.workflow_templates import import_template, set_profile

if TYPE_CHECKING:
    from providers.wiring import Ports


def list_templates(*, as_json: bool) -> int:
    """Every template. Exit 0."""
    templates = open_ports().templates.all()
    if as_json:
        print_json({"templates": [_template_document(template) for template in templates]})
        return 0
    rows = [
        [one.name, one.kind, one.base_model or "–", str(len(one.workflow)), "built in" if one.is_built_in else "yours"]
        for one in templates
    ]
    print_table("ComfyUI workflows", ["template", "makes", "base", "nodes", "whose"], rows, right=(3,))
    return 0


def show_template(name: str, *, as_json: bool) -> int:
    """One template: its nodes, and what goes where. Exit 0; 2 when there is none of this name."""
    template = open_ports().templates.get(name)
    if as_json:
        print_json({"template": _template_document(template), "workflow": template.workflow})
        return 0
    whose = "built in" if template.is_built_in else "yours"
    say(f"{template.name}, {whose}: makes {template.kind}s with LoRAs of {template.base_model or 'no base model'}")
    say()
    filled = {parameter.value: places for parameter, places in template.targets.items()}
    rows = [[name, _place(target), target.input] for name, places in filled.items() for target in places]
    print_table("What is filled in", ["parameter", "node", "input"], rows)
    say()
    nodes = [
        [node_id, str(node.get("class_type", "")), str((node.get("_meta") or {}).get("title", ""))]
        for node_id, node in template.workflow.items()
    ]
    print_table("Nodes", ["id", "class", "title"], [[_plain(cell) for cell in row] for row in nodes])
    return 0


def take_in_template(
    file: Path, name: str, *, kind: Literal["image", "video"], base_model: str, targets: tuple[str, ...], as_json: bool
) -> int:
    """Check an exported workflow and keep it. Exit 0; 2 with the reason when it cannot be used."""
    template = import_template(open_ports(), file, name, kind=kind, base_model=base_model, targets=targets)
    if as_json:
        print_json({"template": _template_document(template)})
    else:
        say(f"{name} is kept. A profile chooses it: onmodel profiles set NAME --template {name} --default")
    return 0


def export_template(name: str, out: Path | None) -> int:
    """The workflow as ComfyUI takes it, to stdout or into a new file. Exit 0; 2 when that file is there already."""
    text = json.dumps(open_ports().templates.get(name).workflow, indent=2, ensure_ascii=False)
    if out is None:
        say(text)
        return 0
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text + "\n")
    except FileExistsError as error:
        raise BadInput(f"{out} is there already: give a new file.") from error
    say(f"Written: {out}")
    return 0


def delete_template(name: str) -> int:
    """Forget a template of yours. Exit 0; 2 when it is built in or a profile chooses it."""
    open_ports().templates.delete(name)
    say(f"{name} is deleted.")
    return 0


def list_profiles(*, as_json: bool) -> int:
    """Every profile. Exit 0."""
    ports = open_ports()
    profiles = ports.profiles.all()
    if as_json:
        print_json({"profiles": [_profile_document(ports, profile) for profile in profiles]})
        return 0
    if not profiles:
        say("No profiles yet: every ComfyUI model draws with its built-in workflow. See onmodel profiles set --help")
        return 0
    rows = [
        [
            profile.name,
            _whose(ports, profile),
            profile.template.name,
            profile.checkpoint or "the template's",
            f"{profile.lora_id or 'current'} × {profile.lora_strength:g}",
        ]
        for profile in profiles
    ]
    print_table("Who is drawn by which workflow", ["profile", "for", "template", "checkpoint", "LoRA"], rows)
    return 0


def keep_profile(
    name: str,
    *,
    character: str | None,
    project: str | None,
    is_default: bool,
    template: str | None,
    checkpoint: str | None,
    lora_strength: float | None,
    lora: str | None,
    as_json: bool,
) -> int:
    """Make or change a profile. Exit 0; 2 with the reason when something does not fit."""
    ports = open_ports()
    profile = set_profile(
        ports,
        name,
        character=character,
        project=project,
        is_default=is_default,
        template=template,
        checkpoint=checkpoint,
        lora_strength=lora_strength,
        lora=lora,
    )
    if as_json:
        print_json({"profile": _profile_document(ports, profile)})
    else:
        say(f"{name}: {_whose(ports, profile)} with {profile.template.name}, LoRA at {profile.lora_strength:g}.")
    return 0


def delete_profile(name: str) -> int:
    """Forget a profile. Exit 0; 2 when there is none of this name."""
    open_ports().profiles.delete(name)
    say(f"{name} is deleted.")
    return 0


def _whose(ports: Ports, profile: GenerationProfile) -> str:
    if profile.character_id is not None:
        character = ports.cast.get(profile.character_id)
        return f"{ports.seasons.get(character.season_id).slug}/{character.name}"
    if profile.project_id is not None:
        return f"project {ports.profiles.project_names()[profile.project_id]}"
    return "everybody else" if profile.is_default else "nobody"


def _place(target: Target) -> str:
    if target.title is not None:
        return _plain(f"titled {target.title}")
    return _plain(f"of class {target.class_type}" if target.class_type is not None else f"number {target.node_id}")


def _template_document(template: WorkflowTemplate) -> dict[str, Any]:
    return template.model_dump(mode="json", exclude={"workflow"})


def _profile_document(ports: Ports, profile: GenerationProfile) -> dict[str, Any]:
    facts = profile.model_dump(mode="json", exclude={"template"})
    return {**facts, "template": profile.template.name, "for": _whose(ports, profile)}


def _plain(text: str) -> str:
    """A stranger's words without what would move a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in text)
