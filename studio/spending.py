"""`onmodel costs`, and what every command says of a season's money: total, forecast, and cost per accepted second."""

from __future__ import annotations

import csv
import io
import sys
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from domain.jobs import Stage
from domain.spending import CostGroup, Grouping, group_costs, zone_of
from providers.wiring import open_ports
from studio.telling import end_progress, print_json, print_table, say
from tasks.safe_csv import safe_cell
from tasks.season_facts import accepted_video

if TYPE_CHECKING:
    from providers.wiring import Ports

HEADS = {
    Grouping.STAGE: "stage",
    Grouping.API: "service",
    Grouping.CHARACTER: "character",
    Grouping.SLOT: "slot",
    Grouping.DAY: "day",
}


def show_costs(slug: str, *, by: str, as_csv: bool, as_json: bool) -> int:
    """Costs beside their forecast, grouped, with the cost per accepted second. Exit 0; 2 for no such season."""
    ports = open_ports()
    season = ports.seasons.by_slug(slug)
    grouping = Grouping(by)
    if as_json:
        print_json(_document(ports, season.id))
    elif as_csv:
        end_progress()
        sys.stdout.write(groups_csv(cost_groups(ports, season.id, grouping), grouping))
    else:
        document = money_document(ports, season.id)
        if grouping is Grouping.STAGE:
            tell_costs(ports, season.id)
        else:
            _tell_groups(cost_groups(ports, season.id, grouping), grouping, season.time_zone)
        say()
        tell_money(document)
    return 0


def cost_groups(ports: Ports, season_id: int, by: Grouping) -> tuple[CostGroup, ...]:
    """The season's entries, summed up; days are those of its time zone."""
    names = {character.id: character.name for character in ports.cast.of_season(season_id)}
    zone = zone_of(ports.seasons.get(season_id).time_zone)
    return group_costs(ports.ledger.costs(season_id), by, names, zone)


def groups_csv(groups: tuple[CostGroup, ...], by: Grouping) -> str:
    """One line per group under a header; amounts in USD. A spreadsheet takes no name in it for a formula."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([by.value, "entries", "forecast_usd", "amount_usd", "difference_usd"])
    for group in groups:
        sums = [str(group.forecast_usd), str(group.amount_usd), str(group.difference_usd)]
        writer.writerow([safe_cell(group.key), group.entries, *sums])
    return table.getvalue()


def money_document(ports: Ports, season_id: int) -> dict[str, Any]:
    """A season's money as plain data. Reads the length of every rendered clip."""
    limit, reserved, spent = ports.ledger.budget(season_id)
    accepted = accepted_video(ports, season_id)
    each = accepted.usd_per_second(spent)
    forecast = sum((entry.forecast_usd for entry in ports.ledger.costs(season_id)), Decimal(0))
    return {
        "is_simulated": ports.seasons.get(season_id).is_simulated,
        "budget_usd": str(limit),
        "reserved_usd": str(reserved),
        "total_cost_usd": str(spent),
        "forecast_usd": str(forecast),
        "accepted_clips": accepted.clips,
        "accepted_seconds": round(accepted.seconds, 3),
        "usd_per_accepted_second": None if each is None else f"{each:.4f}",
    }


def tell_money(document: dict[str, Any]) -> None:
    """The budget, forecast against fact, and the headline, a line each."""
    spent, limit, reserved, forecast = (
        Decimal(document[name]) for name in ("total_cost_usd", "budget_usd", "reserved_usd", "forecast_usd")
    )
    held = f", {reserved:.2f} more reserved for jobs under way" if reserved else ""
    say(f"Cost: {spent:.2f} of {limit:.2f} USD{held}.{_rehearsal(document['is_simulated'])}")
    if spent or forecast:
        say(f"Forecast of what was bought: {forecast:.2f} USD; it cost {against(spent - forecast)}.")
    say(_headline(document))


def against(difference: Decimal) -> str:
    """`as much`, `0.25 USD more`, `1.00 USD less`."""
    if abs(difference) < Decimal("0.005"):
        return "as much"
    return f"{abs(difference):.2f} USD {'more' if difference > 0 else 'less'}"


def _headline(document: dict[str, Any]) -> str:
    each, clips = document["usd_per_accepted_second"], document["accepted_clips"]
    if each is None:
        return "Cost per accepted second of video: none yet, because no slot has a rendered clip."
    what = "1 rendered clip" if clips == 1 else f"{clips} rendered clips"
    return (
        f"Cost per accepted second of video: {Decimal(each):.3f} USD (everything spent, over "
        f"{document['accepted_seconds']:.1f} s of {what}; clips brought along do not count)."
    )


def tell_costs(ports: Ports, season_id: int, *, is_short: bool = False) -> None:
    """Costs by stage and service in the order of work, with their sum; `is_short` leaves out what cost nothing."""
    sums: dict[tuple[Stage, str], list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0), Decimal(0)])
    for entry in ports.ledger.costs(season_id):
        line = sums[(entry.stage, entry.api_name)]
        line[0] += 1
        line[1] += entry.forecast_usd
        line[2] += entry.amount_usd
    order = list(Stage)
    rows = [
        [stage.value, api_name, str(count), f"{forecast:.2f}", f"{amount:.2f}", signed(amount - forecast)]
        for (stage, api_name), (count, forecast, amount) in sorted(
            sums.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
        )
        if forecast or amount or not is_short
    ]
    total = [sum((line[i] for line in sums.values()), Decimal(0)) for i in (1, 2)]
    rows.append(["total", "", "", f"{total[0]:.2f}", f"{total[1]:.2f}", signed(total[1] - total[0])])
    heads = ["stage", "service", "times", "forecast", "cost", "difference"]
    print_table("Costs in USD", heads, rows, right=(2, 3, 4, 5))


def signed(difference: Decimal) -> str:
    """Dollars with their sign; a dash where there is no difference."""
    return f"{difference:+.2f}" if abs(difference) >= Decimal("0.005") else "–"


def _tell_groups(groups: tuple[CostGroup, ...], by: Grouping, time_zone: str) -> None:
    rows = [
        [g.key, str(g.entries), f"{g.forecast_usd:.2f}", f"{g.amount_usd:.2f}", signed(g.difference_usd)]
        for g in groups
    ]
    forecast = sum((group.forecast_usd for group in groups), Decimal(0))
    amount = sum((group.amount_usd for group in groups), Decimal(0))
    rows.append(["total", "", f"{forecast:.2f}", f"{amount:.2f}", signed(amount - forecast)])
    title = f"Costs in USD by day, {time_zone}" if by is Grouping.DAY else f"Costs in USD by {HEADS[by]}"
    print_table(title, [HEADS[by], "times", "forecast", "cost", "difference"], rows, right=(1, 2, 3, 4))


def _document(ports: Ports, season_id: int) -> dict[str, Any]:
    """Every grouping and every entry."""
    entries = ports.ledger.costs(season_id)
    return {
        "season": ports.seasons.get(season_id).slug,
        **money_document(ports, season_id),
        "by": {by.value: [_group_document(group) for group in cost_groups(ports, season_id, by)] for by in Grouping},
        "entries": [entry.model_dump(mode="json", exclude={"once_key"}) for entry in entries],
    }


def _group_document(group: CostGroup) -> dict[str, Any]:
    return {**group.model_dump(mode="json"), "difference_usd": str(group.difference_usd)}


def _rehearsal(is_simulated: bool) -> str:
    return " A rehearsal at list prices: no money was spent." if is_simulated else ""
