"""`onmodel forecast`: what a manifest will cost and how long it takes, and of a season what is still to come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domain.expectations import FILE, Duration, Share
from domain.forecasts import SLOTS_AT_ONCE, UNKNOWN_SECONDS, Forecast, ForecastRow
from domain.spending import CostGroup, Grouping
from providers.wiring import open_ports
from studio.prefect_setup import set_defaults
from studio.spending import HEADS, against, cost_groups, signed
from studio.telling import print_json, print_table, say

MANIFEST_SUFFIXES = (".yaml", ".yml", ".json")


def show_forecast(what: str, *, by: str, as_json: bool) -> int:
    """Cost and time of a manifest, or of what a season still has to buy. Exit 0, also where it does not fit its budget;
    2 for a manifest with mistakes or a season that is not there. Free."""
    ports = open_ports()
    # The stages whose prices are asked also hold Prefect's tasks, and Prefect wants a folder for itself.
    ports.settings.home.mkdir(parents=True, exist_ok=True)
    set_defaults(ports.settings.home)
    grouping = Grouping(by)
    bought: dict[Grouping, tuple[CostGroup, ...]] = dict.fromkeys(Grouping, ())
    if _is_manifest(what):
        from tasks.forecasting import forecast_manifest

        forecast = forecast_manifest(ports, Path(what))
    else:
        from tasks.season_forecast import forecast_season

        season_id = ports.seasons.by_slug(what).id
        forecast = forecast_season(ports, season_id)
        bought = {each: cost_groups(ports, season_id, each) for each in Grouping}
    if as_json:
        print_json(forecast_document(forecast, bought))
        return 0
    is_begun = any(group.entries for group in bought[grouping])
    _tell_rows(forecast, forecast.rows(grouping, bought[grouping]), grouping, is_begun=is_begun)
    say()
    _tell_sums(forecast, is_begun=is_begun)
    _tell_grounds(forecast)
    return 0


def _is_manifest(what: str) -> bool:
    """A slug has neither a suffix nor a slash."""
    return what.endswith(MANIFEST_SUFFIXES) or "/" in what or Path(what).is_file()


def _tell_rows(forecast: Forecast, rows: tuple[ForecastRow, ...], by: Grouping, *, is_begun: bool) -> None:
    title = f"{forecast.season}: what it will cost, in USD"
    if not is_begun:
        cells = [
            [row.key, str(row.jobs_to_come), f"{row.to_come_usd:.2f}", spoken(row.seconds_to_come)] for row in rows
        ]
        jobs = sum(row.jobs_to_come for row in rows)
        cells.append(["total", str(jobs), f"{forecast.to_come_usd:.2f}", spoken(forecast.waiting_seconds)])
        print_table(title, [HEADS[by], "jobs", "cost", "vendor's time"], cells, right=(1, 2, 3))
        return
    cells = [
        [
            row.key,
            f"{row.forecast_usd:.2f}",
            f"{row.cost_usd:.2f}",
            signed(row.cost_usd - row.forecast_usd),
            str(row.jobs_to_come),
            f"{row.to_come_usd:.2f}",
            spoken(row.seconds_to_come),
        ]
        for row in rows
    ]
    cells.append(
        [
            "total",
            f"{forecast.bought_forecast_usd:.2f}",
            f"{forecast.bought_usd:.2f}",
            signed(forecast.bought_usd - forecast.bought_forecast_usd),
            str(sum(row.jobs_to_come for row in rows)),
            f"{forecast.to_come_usd:.2f}",
            spoken(forecast.waiting_seconds),
        ]
    )
    heads = [HEADS[by], "forecast", "cost", "difference", "jobs ahead", "ahead", "time"]
    print_table(title, heads, cells, right=(1, 2, 3, 4, 5, 6))


def _tell_sums(forecast: Forecast, *, is_begun: bool) -> None:
    if forecast.is_simulated:
        say("A rehearsal: these are the vendors' list prices and times; the sandbox bills nobody and is faster.")
    if is_begun:
        difference = against(forecast.bought_usd - forecast.bought_forecast_usd)
        say(
            f"Bought so far: {forecast.bought_usd:.2f} USD; {forecast.bought_forecast_usd:.2f} were forecast, "
            f"it cost {difference}."
        )
    if not forecast.purchases:
        say("Nothing is left to buy.")
        return
    say(
        f"Cost: {forecast.to_come_usd:.2f} USD {'still to come' if is_begun else ''} if nothing is done again, likely "
        f"{forecast.to_come_usd + forecast.retakes_usd:.2f} with retakes.".replace("  ", " ")
    )
    say(forecast.budget_sentence)
    say(
        f"Time: likely {spoken(forecast.likely_seconds)}, {spoken(forecast.likely_seconds_with_retakes)} with retakes: "
        f"all characters side by side, then {SLOTS_AT_ONCE} slots at a time. One after the other it would be "
        f"{spoken(forecast.waiting_seconds)}. Only the vendors' time is counted, not this machine's and no queues."
    )


def _tell_grounds(forecast: Forecast) -> None:
    for note in forecast.notes:
        say(f"Note: {note}")
    if not forecast.purchases:
        return
    say()
    say(f"Reckoned with (to change a figure, and for its reason: {FILE}; the ledger's own replace it):")
    for share in forecast.shares_used:
        say(_share_line(share), hang=4)
    say()
    rows = [_duration_row(duration) for duration in forecast.durations_used]
    rows += [[key, spoken(UNKNOWN_SECONDS), "", "a guess: nobody has timed it"] for key in forecast.untimed_models]
    print_table("How long a job takes", ["model", "one job", "steps or s", "says who"], rows, right=(1, 2))


def _share_line(share: Share) -> str:
    which = f" ({share.operation.value.replace('_', ' ')})" if share.operation is not None else ""
    return f"  {100 * share.share:.0f} % {share.what}{which}: {_trust(share.confidence)}, {share.date}; {share.note}."


def _duration_row(duration: Duration) -> list[str]:
    """The reasons for what is not measured stand in the file."""
    of = "" if duration.at_units is None else f"{duration.at_units:g}"
    says = duration.note if duration.confidence == "measured" else f"{_trust(duration.confidence)}, {duration.date}"
    return [duration.model_key, spoken(duration.seconds), of, says]


def _trust(confidence: str) -> str:
    return {"third_party": "somebody else's figure"}.get(confidence, confidence)


def spoken(seconds: float) -> str:
    """`45 s`, `2.5 min`, `12 min`, `2 h 05 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 595:
        return f"{seconds / 60:.1f} min".replace(".0 ", " ")
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def forecast_document(forecast: Forecast, bought: dict[Grouping, tuple[CostGroup, ...]]) -> dict[str, Any]:
    """Everything as plain data: sums, every grouping, every purchase, and what it is reckoned with."""
    needed = forecast.to_come_usd + forecast.retakes_usd
    return {
        "season": forecast.season,
        "is_simulated": forecast.is_simulated,
        "budget_usd": str(forecast.budget_usd),
        "free_usd": str(forecast.free_usd),
        "is_within_budget": needed <= forecast.free_usd,
        "budget": forecast.budget_sentence,
        "bought_usd": str(forecast.bought_usd),
        "bought_forecast_usd": str(forecast.bought_forecast_usd),
        "to_come_usd": str(forecast.to_come_usd),
        "retakes_usd": str(forecast.retakes_usd),
        "total_usd": str(forecast.total_usd),
        "waiting_seconds": round(forecast.waiting_seconds, 1),
        "likely_seconds": round(forecast.likely_seconds, 1),
        "likely_seconds_with_retakes": round(forecast.likely_seconds_with_retakes, 1),
        "by": {by.value: [row.model_dump(mode="json") for row in forecast.rows(by, bought[by])] for by in Grouping},
        "purchases": [
            {**one.model_dump(mode="json"), "cost_usd": str(one.cost_usd), "seconds_each": forecast.seconds_each(one)}
            for one in forecast.purchases
        ],
        "shares": [share.model_dump(mode="json") for share in forecast.shares_used],
        "durations": [duration.model_dump(mode="json") for duration in forecast.durations_used],
        "untimed_models": list(forecast.untimed_models),
        "notes": list(forecast.notes),
        "change_figures_in": FILE,
    }
