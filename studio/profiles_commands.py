"""The commands about ComfyUI workflows: `onmodel templates` and `onmodel profiles`.

Heavy packages are imported inside the commands that need them, as in `studio/cli.py`, which takes these in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from studio.models_commands import MODELS
from studio.money_commands import AsJson

TemplateName = Annotated[str, Parameter(help="The template's name.")]
ProfileName = Annotated[str, Parameter(help="The profile's name.")]

templates_app = App(
    name="templates",
    help="ComfyUI workflows: those built in, and yours.",
    help_epilogue="",
    group=MODELS,
    sort_key=2,
)
profiles_app = App(
    name="profiles",
    help="Whom ComfyUI draws by which workflow.",
    help_epilogue="",
    group=MODELS,
    sort_key=3,
)


def add_profile_commands(app: App) -> None:
    """Put the commands of this file into the command line."""
    app.command(templates_app)
    app.command(profiles_app)


@templates_app.default
def templates(*, json: AsJson = False) -> int:
    """ComfyUI workflows: those built in, and yours."""
    from studio.profiles_by_hand import list_templates

    return list_templates(as_json=json)


@templates_app.command(name="list", sort_key=1, help_epilogue="")
def templates_list(*, json: AsJson = False) -> int:
    """Every workflow there is."""
    return templates(json=json)


@templates_app.command(name="show", sort_key=2, help_epilogue="")
def templates_show(name: TemplateName, /, *, json: AsJson = False) -> int:
    """One workflow: its nodes, and what goes where."""
    from studio.profiles_by_hand import show_template

    return show_template(name, as_json=json)


@templates_app.command(name="import", sort_key=3, help_epilogue="")
def templates_import(
    file: Annotated[Path, Parameter(help="A workflow that ComfyUI exported with Export (API).")],
    /,
    *,
    name: TemplateName,
    kind: Annotated[Literal["image", "video"], Parameter(help="What it makes.")],
    base_model: Annotated[str, Parameter(help="The base whose LoRAs its loader takes; see onmodel models.")],
    target: Annotated[
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="What goes where: prompt=title:Positive.text; repeat it."),
    ] = (),
    json: AsJson = False,
) -> int:
    """Check a workflow of yours and keep it.

    Each --target says which input of which node gets a parameter, by the
    node's title, its class or its number:

      --target prompt=title:Positive.text --target seed=class:KSampler.seed

    It must name exactly one input, and none that comes from another node.
    Parameters: prompt, negative_prompt, seed, steps, guidance, width, height,
    frames, frames_per_second, image, checkpoint, lora, lora_strength,
    lora_high_noise, output_prefix.
    """
    from studio.profiles_by_hand import take_in_template

    return take_in_template(file, name, kind=kind, base_model=base_model, targets=target, as_json=json)


@templates_app.command(name="export", sort_key=4, help_epilogue="")
def templates_export(
    name: TemplateName, /, *, out: Annotated[Path | None, Parameter(help="A new file; otherwise stdout.")] = None
) -> int:
    """Give a workflow out, as ComfyUI takes it."""
    from studio.profiles_by_hand import export_template

    return export_template(name, out)


@templates_app.command(name="delete", sort_key=5, help_epilogue="")
def templates_delete(name: TemplateName, /) -> int:
    """Forget a workflow of yours."""
    from studio.profiles_by_hand import delete_template

    return delete_template(name)


@profiles_app.default
def profiles(*, json: AsJson = False) -> int:
    """Whom ComfyUI draws by which workflow."""
    from studio.profiles_by_hand import list_profiles

    return list_profiles(as_json=json)


@profiles_app.command(name="list", sort_key=1, help_epilogue="")
def profiles_list(*, json: AsJson = False) -> int:
    """Every profile there is."""
    return profiles(json=json)


@profiles_app.command(name="set", sort_key=2, help_epilogue="")
def profiles_set(
    name: ProfileName,
    /,
    *,
    character: Annotated[str | None, Parameter(help="For one character: SEASON/NAME.")] = None,
    project: Annotated[str | None, Parameter(help="For everybody of a season's project: SEASON.")] = None,
    default: Annotated[
        bool, Parameter(negative="", show_default=False, help="For everybody who has none of their own.")
    ] = False,
    template: Annotated[str | None, Parameter(help="The workflow.")] = None,
    checkpoint: Annotated[str | None, Parameter(help="As the server lists it; '' is the workflow's own.")] = None,
    lora_strength: Annotated[float | None, Parameter(help="Above 0, up to 4; otherwise 0.8.")] = None,
    lora: Annotated[str | None, Parameter(help="A LoRA's number; current is the character's newest.")] = None,
    json: AsJson = False,
) -> int:
    """Make a profile, or change what you name of it.

    A character's own profile goes before its project's, and that before the
    default. Without any, a ComfyUI model draws with its built-in workflow.
    """
    from studio.profiles_by_hand import keep_profile

    return keep_profile(
        name,
        character=character,
        project=project,
        is_default=default,
        template=template,
        checkpoint=checkpoint,
        lora_strength=lora_strength,
        lora=lora,
        as_json=json,
    )


@profiles_app.command(name="delete", sort_key=3, help_epilogue="")
def profiles_delete(name: ProfileName, /) -> int:
    """Forget a profile."""
    from studio.profiles_by_hand import delete_profile

    return delete_profile(name)
