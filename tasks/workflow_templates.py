"""Taking in a ComfyUI workflow that a person exported, and saying which profile draws whom; checked before kept."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from domain.characters import LoraStatus
from domain.errors import BadInput
from domain.profiles import DEFAULT_LORA_STRENGTH, GenerationProfile, Parameter, Target, WorkflowTemplate

if TYPE_CHECKING:
    from providers.wiring import Ports

LARGEST_WORKFLOW_BYTES = 4 << 20
"""Real workflows are tens of kB; a stranger's file is not to fill our memory. Ours."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
TARGET = re.compile(r"(?P<parameter>\w+)=(?P<way>title|class|node):(?P<which>.+)\.(?P<input>\w+)")
WAYS = {"title": "title", "class": "class_type", "node": "node_id"}
CURRENT = "current"
"""In place of a LoRA's number: whichever is the character's current one."""


def import_template(
    ports: Ports,
    path: Path,
    name: str,
    *,
    kind: Literal["image", "video"],
    base_model: str,
    targets: Sequence[str],
) -> WorkflowTemplate:
    """Check an exported workflow and keep it, in place of an earlier one of this name. Safe to repeat; free.

    `targets` are texts such as `prompt=title:Positive.text`. `BadInput` says what does not fit; nothing is kept then.
    """
    if not NAME.fullmatch(name):
        raise BadInput(f"{name!r} is no name for a template: write letters, digits, hyphens, dots and _.")
    ports.registry.base_model(base_model)
    template = WorkflowTemplate(
        name=name,
        kind=kind,
        base_model=base_model,
        workflow=read_workflow(path),
        targets=parse_targets(targets),
    )
    ports.check_workflow(template)
    ports.templates.keep(template)
    return template


def read_workflow(path: Path) -> dict[str, Any]:
    """The JSON object in a file; `BadInput` when there is none."""
    if not path.is_file():
        raise BadInput(f"There is no file {path}: give a workflow that ComfyUI exported with Export (API).")
    if path.stat().st_size > LARGEST_WORKFLOW_BYTES:
        raise BadInput(f"{path} has {path.stat().st_size} bytes and a workflow at most {LARGEST_WORKFLOW_BYTES}.")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} is no JSON ({error}): give a workflow that ComfyUI exported with Export (API)."
        ) from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} holds no workflow: give one that ComfyUI exported with Export (API).")
    return found


def parse_targets(texts: Sequence[str]) -> dict[Parameter, tuple[Target, ...]]:
    """`prompt=title:Positive.text` and the like; a parameter that is named twice goes to both places."""
    found: dict[Parameter, tuple[Target, ...]] = {}
    for text in texts:
        match = TARGET.fullmatch(text)
        if match is None:
            raise BadInput(
                f"The target {text!r} cannot be read: write PARAMETER=title:TITLE.INPUT, class:CLASS.INPUT or "
                f"node:ID.INPUT, such as prompt=title:Positive.text."
            )
        if match["parameter"] not in list(Parameter):
            raise BadInput(f"There is no parameter {match['parameter']!r}: write one of {', '.join(Parameter)}.")
        target = Target.model_validate({WAYS[match["way"]]: match["which"], "input": match["input"]})
        parameter = Parameter(match["parameter"])
        found[parameter] = (*found.get(parameter, ()), target)
    return found


def set_profile(
    ports: Ports,
    name: str,
    *,
    character: str | None = None,
    project: str | None = None,
    is_default: bool = False,
    template: str | None = None,
    checkpoint: str | None = None,
    lora_strength: float | None = None,
    lora: str | None = None,
) -> GenerationProfile:
    """Make a profile or change one: what is None stays as it was. Safe to repeat; free.

    `character` is `SEASON/NAME`, `project` a season's slug; `lora` a number, or `current`; an empty checkpoint means
    the template's own. `BadInput` says what does not fit; nothing is kept then.
    """
    known = next((profile for profile in ports.profiles.all() if profile.name == name), None)
    if not NAME.fullmatch(name):
        raise BadInput(f"{name!r} is no name for a profile: write letters, digits, hyphens, dots and _.")
    if sum((character is not None, project is not None, is_default)) > 1:
        raise BadInput("A profile is one character's, one project's, or the default: give one of the three.")
    if known is None and template is None:
        raise BadInput(f"There is no profile {name!r} yet: give its --template too; see onmodel templates.")
    chosen = ports.templates.get(template) if template is not None else known.template if known is not None else None
    assert chosen is not None
    if chosen.base_model is None:
        raise BadInput(f"The template {chosen.name!r} names no base model, so no model can be drawn with it.")
    profile = GenerationProfile(
        name=name,
        template=chosen,
        checkpoint=_checkpoint(ports, checkpoint, known),
        lora_strength=_strength(lora_strength, known),
        **_whose(ports, known, character, project, is_default=is_default),
    )
    profile = profile.model_copy(update={"lora_id": _lora_id(ports, lora, profile, known)})
    ports.profiles.keep(profile)
    return profile


def _whose(
    ports: Ports, known: GenerationProfile | None, character: str | None, project: str | None, *, is_default: bool
) -> dict[str, Any]:
    if character is not None:
        slug, slash, who = character.partition("/")
        if not slash:
            raise BadInput(f"{character!r} names no character: write SEASON/NAME, such as neon-harbor/Mei.")
        return {"character_id": ports.cast.named(ports.seasons.by_slug(slug).id, who).id}
    if project is not None:
        return {"project_id": ports.profiles.project_of(ports.seasons.by_slug(project).id, None)}
    if is_default:
        return {"is_default": True}
    if known is None:
        raise BadInput("Whose is it? Give --character SEASON/NAME, --project SEASON, or --default.")
    return {
        "character_id": known.character_id,
        "project_id": known.project_id,
        "is_default": known.is_default,
    }


def _checkpoint(ports: Ports, checkpoint: str | None, known: GenerationProfile | None) -> str | None:
    if checkpoint is None:
        return known.checkpoint if known is not None else None
    if checkpoint:
        ports.check_server_file(checkpoint.replace("\\", "/"), "The checkpoint")
    return checkpoint or None


def _strength(strength: float | None, known: GenerationProfile | None) -> float:
    if strength is None:
        return known.lora_strength if known is not None else DEFAULT_LORA_STRENGTH
    if not 0 < strength <= 4:
        raise BadInput(f"The strength of the LoRA is {strength:g}: give a number above 0 and up to 4.")
    return round(strength, 2)


def _lora_id(ports: Ports, lora: str | None, profile: GenerationProfile, known: GenerationProfile | None) -> int | None:
    if lora is None:
        lora = str(known.lora_id) if known is not None and known.lora_id is not None else CURRENT
    if lora == CURRENT:
        return None
    found = ports.loras.find(int(lora)) if lora.isdecimal() else None
    if found is None:
        raise BadInput(f"There is no LoRA {lora!r}: give a number that onmodel status SEASON shows, or {CURRENT}.")
    if profile.character_id != found.character_id:
        raise BadInput(
            f"LoRA {lora} is {found.character_name}'s: only a profile of {found.character_name} may name it, or it "
            f"would draw somebody else."
        )
    if found.base_model != profile.template.base_model:
        raise BadInput(
            f"LoRA {lora} is for {found.base_model} and the template {profile.template.name} is for "
            f"{profile.template.base_model}: ComfyUI would ignore it without a word."
        )
    if found.status is not LoraStatus.READY:
        raise BadInput(f"LoRA {lora} is {found.status}, not ready.")
    return found.id
