"""The commands about money: forecast, costs, budgets, reconciliation, and the jobs that were bought.

Heavy packages are imported inside the commands that need them, as in `studio/cli.py`, which takes these in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

AsJson = Annotated[bool, Parameter(name="--json", negative="", show_default=False, help="One JSON document on stdout.")]
SeasonName = Annotated[str, Parameter(help="The season's slug, as in its manifest.")]
FileOrSeason = Annotated[str, Parameter(help="A manifest, such as season.yaml, or a season's slug.")]
Grouping = Annotated[
    Literal["stage", "api", "character", "slot", "day"],
    Parameter(help="stage, api, character, slot or day."),
]
Limit = Annotated[str | None, Parameter(help="USD at most, such as 25 or 12.50.")]
AtTheLimit = Annotated[
    Literal["stop", "ask"] | None, Parameter(help="What happens there: stop, or go on without it and ask.")
]
JobKey = Annotated[str, Parameter(help="The job's key, or its first letters.")]

MONEY = Group("Money", sort_key=4)

jobs_app = App(
    name="jobs",
    help="jobs list|show|resolve|cancel: what was bought.",
    help_epilogue="",
    group=MONEY,
    sort_key=6,
)


def add_money_commands(app: App) -> None:
    """Put the commands of this file into the command line, in their order."""
    commands: tuple[Callable[..., int], ...] = (forecast, costs, budget, owner, reconcile)
    for place, command in enumerate(commands, start=1):
        app.command(command, group=MONEY, sort_key=place, help_epilogue="")
    app.command(jobs_app)


def forecast(what: FileOrSeason, /, *, by: Grouping = "stage", json: AsJson = False) -> int:
    """What a season will cost and how long it will take.

    Of a manifest, before anything is stored or spent; of a season, beside what
    it has cost so far.
    """
    from studio.forecasting import show_forecast

    return show_forecast(what, by=by, as_json=json)


def costs(
    season: SeasonName,
    /,
    *,
    by: Grouping = "stage",
    csv: Annotated[bool, Parameter(negative="", show_default=False, help="The table as CSV on stdout.")] = False,
    json: AsJson = False,
) -> int:
    """What it has cost, beside the forecast."""
    from studio.spending import show_costs

    return show_costs(season, by=by, as_csv=csv, as_json=json)


def budget(
    season: SeasonName,
    character: Annotated[str | None, Parameter(help="A character of it, for a limit of its own.")] = None,
    /,
    *,
    limit: Limit = None,
    at_limit: AtTheLimit = None,
    json: AsJson = False,
) -> int:
    """Show or set what a season may spend."""
    from studio.budgeting import season_budget

    return season_budget(season, character, limit=limit, at_limit=at_limit, as_json=json)


def owner(
    name: Annotated[str, Parameter(help="The owner, as in the manifests.")],
    /,
    *,
    limit: Limit = None,
    add_credits: Annotated[str | None, Parameter(help="USD paid in: from then on the owner spends credits.")] = None,
    at_limit: AtTheLimit = None,
    json: AsJson = False,
) -> int:
    """Show or set what an owner may spend in all seasons.

    Rehearsals on the sandbox do not count.
    """
    from studio.budgeting import owner_budget

    return owner_budget(name, limit=limit, add_credits=add_credits, at_limit=at_limit, as_json=json)


def reconcile(
    *,
    vendor: Annotated[str | None, Parameter(help="One vendor; otherwise all that are set up.")] = None,
    days: Annotated[int, Parameter(help="How far back to look.")] = 30,
    json: AsJson = False,
) -> int:
    """Compare the ledger with what the vendors say they charged."""
    from studio.reconciling import show_differences

    return show_differences(vendor, days=days, as_json=json)


@jobs_app.command(name="list", sort_key=1, help_epilogue="")
def list_jobs(
    season: SeasonName,
    /,
    *,
    every: Annotated[
        bool, Parameter(name="--all", negative="", show_default=False, help="Also those that are over.")
    ] = False,
    json: AsJson = False,
) -> int:
    """What was bought for a season and is not over yet."""
    from studio.jobs_by_hand import list_jobs_of

    return list_jobs_of(season, every=every, as_json=json)


@jobs_app.command(name="show", sort_key=2, help_epilogue="")
def show_job(key: JobKey, /, *, json: AsJson = False) -> int:
    """One job with everything that happened to it."""
    from studio.jobs_by_hand import show_one_job

    return show_one_job(key, as_json=json)


@jobs_app.command(name="resolve", sort_key=3, help_epilogue="")
def resolve_job(
    key: JobKey,
    /,
    *,
    adopt: Annotated[str | None, Parameter(help="The vendor has it, under this request id.")] = None,
    resubmit: Annotated[
        bool, Parameter(negative="", show_default=False, help="Send it again, or buy it again.")
    ] = False,
    abandon: Annotated[
        bool, Parameter(negative="", show_default=False, help="Give it up; what it may have cost counts as spent.")
    ] = False,
    json: AsJson = False,
) -> int:
    """Decide about a job that waits for your word."""
    from studio.jobs_by_hand import resolve_lost_job

    return resolve_lost_job(key, adopt=adopt, resubmit=resubmit, abandon=abandon, as_json=json)


@jobs_app.command(name="cancel", sort_key=4, help_epilogue="")
def cancel_jobs(
    season: SeasonName,
    key: Annotated[str | None, Parameter(help="One job; otherwise all of the season's open ones.")] = None,
    /,
    *,
    json: AsJson = False,
) -> int:
    """Stop what runs at the vendors.

    What turns out to be finished is kept all the same: it is paid for.
    """
    from studio.jobs_by_hand import cancel_jobs_of

    return cancel_jobs_of(season, key, as_json=json)
