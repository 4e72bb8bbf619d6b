"""The commands about models: the matrix, one model whole, and proving one.

Heavy packages are imported inside the commands that need them, as in `studio/cli.py`, which takes these in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from studio.money_commands import AsJson

MODELS = Group("Models", sort_key=4)

models_app = App(
    name="models",
    help="What each model takes, costs and was proved to do.",
    help_epilogue="",
    group=MODELS,
    sort_key=1,
)


def add_models_commands(app: App) -> None:
    """Put the commands of this file into the command line."""
    app.command(models_app)


@models_app.default
def models(
    key: Annotated[str | None, Parameter(help="One model, to be shown whole.")] = None,
    /,
    *,
    vendor: Annotated[str | None, Parameter(help="Only this vendor's.")] = None,
    base: Annotated[str | None, Parameter(help="Only those of this base model.")] = None,
    json: AsJson = False,
) -> int:
    """What each model takes, costs and was proved to do.

    Field and base of the LoRA it takes, or why it takes none; its limits, its
    price, who says so and when; and whether a paid probe has proved it.
    """
    from studio.models_table import show_models

    return show_models(key, vendor=vendor, base=base, as_json=json)


@models_app.command(name="probe", sort_key=1, help_epilogue="")
def probe(
    key: Annotated[str, Parameter(help="The model's key.")],
    /,
    *,
    vendor: Annotated[str | None, Parameter(help="At this vendor; sandbox rehearses it for nothing.")] = None,
    lora: Annotated[Path | None, Parameter(help="A LoRA of its base; otherwise the newest that is ready.")] = None,
    trigger: Annotated[str, Parameter(show_default=False, help="That LoRA's trigger word.")] = "",
    picture: Annotated[Path | None, Parameter(help="What it is to film or draw; otherwise one is made.")] = None,
    yes: Annotated[bool, Parameter(negative="", show_default=False, help="Buy without asking.")] = False,
    json: AsJson = False,
) -> int:
    """Prove a model by the smallest paid jobs.

    Reads the vendor's live schema, says the price and asks. Then it buys one
    output without the LoRA and one with it, at one seed, and compares them; a
    third tells how far two equal requests differ by themselves.

    A model that was proved to ignore its LoRA counts as taking none.
    """
    from studio.probing import probe_model

    return probe_model(key, vendor=vendor, lora=lora, trigger=trigger, picture=picture, is_agreed=yes, as_json=json)
