"""What the command line shows of a season: its standing, its folder, what a run has made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from domain.budgets import WARN_AT_PERCENT
from domain.renders import RenderState
from providers.wiring import open_ports
from studio.budgeting import budget_document
from studio.folders import usable_folder
from studio.prefect_setup import set_defaults
from studio.spending import money_document, tell_costs, tell_money
from studio.telling import print_json, print_table, say
from tasks.season_facts import clips_of_season, gaps_of_season, unpinned_references
from tasks.todo import things_to_do

if TYPE_CHECKING:
    from domain.budgets import Budget
    from domain.renders import Slot
    from providers.wiring import Ports


def show_status(slug: str, *, as_json: bool) -> int:
    """Characters, slots, money, and what waits for a person. Exit 0; 2 when there is no such season."""
    ports = open_ports()
    document = season_document(ports, ports.seasons.by_slug(slug).id)
    if as_json:
        print_json(document)
        return 0
    tell_cast(document)
    say()
    tell_slots(document)
    say()
    tell_todo(document)
    for notice in document["notices"]:
        say(f"Note: {notice}")
    tell_money(document)
    return 0


def write_season(slug: str, folder: Path, *, as_json: bool) -> int:
    """Write report and clips again. Exit 0; 2 when there is no such season."""
    usable_folder(folder)
    ports = open_ports()
    set_defaults(ports.settings.home)  # what writes reports also holds Prefect's tasks
    from tasks.reporting import export_season

    season = ports.seasons.by_slug(slug)
    path = export_season(ports, season.id, folder)
    if as_json:
        print_json({"season": slug, "report": str(path.absolute()), "folder": str(folder.absolute())})
    else:
        say(f"Report:  {path}")
        say(f"Costs:   {folder / 'costs.csv'}")
    return 0


def pin_references(slug: str, name: str, *, as_json: bool) -> int:
    """Pin a character to the reference set that waits. Exit 0; 2 when nothing waits."""
    ports = open_ports()
    set_defaults(ports.settings.home)  # what pins also holds Prefect's tasks
    from domain.errors import BadInput
    from tasks.references import pin_character

    character = ports.cast.named(ports.seasons.by_slug(slug).id, name)
    lora_id = unpinned_references(ports, character.id)
    if lora_id is None:
        raise BadInput(f"{character.name} has no reference set that waits to be pinned; see: onmodel status {slug}")
    pin_character(ports, lora_id)
    if as_json:
        print_json({"season": slug, "pinned": character.name})
    else:
        say(f"{character.name} is pinned. Render what was waiting with: onmodel run season.yaml")
    return 0


def season_document(ports: Ports, season_id: int) -> dict[str, Any]:
    """How a season stands, as plain data."""
    season = ports.seasons.get(season_id)
    budgets = ports.budgets.of_season(season_id)  # the season's own is the first
    return {
        "season": season.slug,
        "owner": season.owner,
        **money_document(ports, season_id),
        "video_seconds": season.video_seconds,
        "gaps": list(gaps_of_season(ports, season_id)),
        "notices": _notices(ports, season_id, budgets),
        "budgets": [budget_document(budget, budgets[0].at_limit) for budget in budgets],
        "todo": [item.model_dump(mode="json") for item in things_to_do(ports, season_id)],
        "characters": [
            {
                "name": character.name,
                "trigger_word": character.trigger_word,
                "is_pinned": ports.loras.pinned(character.id) is not None,
                "loras": [
                    {
                        "id": lora.id,
                        "base_model": lora.base_model,
                        "version": lora.version,
                        "status": lora.status.value,
                        "reason": lora.status_reason,
                        "training_cost_usd": str(lora.training_cost_usd),
                    }
                    for lora in ports.loras.current(character.id)
                ],
            }
            for character in ports.cast.of_season(season_id)
        ],
        "slots": [_slot_document(ports, slot) for slot in ports.seasons.slots(season_id)],
    }


def _notices(ports: Ports, season_id: int, budgets: list[Budget]) -> list[str]:
    """The last warning about a budget, while one is still that far used, and every bill beyond what was reserved."""
    is_far_used = any(budget.used_percent >= WARN_AT_PERCENT[0] for budget in budgets)
    warnings = ports.seasons.notices(season_id, "budget")[-1:] if is_far_used else []
    return warnings + ports.seasons.notices(season_id, "overrun")


def _slot_document(ports: Ports, slot: Slot) -> dict[str, Any]:
    render = ports.renders.of_slot(slot.id, slot.entry_sha256)
    unfinished = render.state.value if render else "planned"
    state = "won" if slot.winning_clip_id is not None else unfinished
    return {
        "number": slot.number,
        "state": state,
        "video_model": render.video_model if render else None,
        "routes": [
            {"character": route.name, "route": route.route.value, "reason": route.reason}
            for route in (render.routes if render else ())
        ],
        "reason": render.reason if render and render.state is not RenderState.DONE else "",
        "notes": list(render.notes) if render else [],
    }


def tell_cast(document: dict[str, Any]) -> None:
    """The characters as a table, and what was found out about each LoRA."""
    rows, findings = [], []
    for character in document["characters"]:
        references = "pinned" if character["is_pinned"] else ""
        for lora in character["loras"]:
            rows.append([str(lora["id"]), character["name"], lora["base_model"], lora["status"], references])
            if lora["reason"]:
                findings.append(f"{character['name']}, {lora['base_model']}: {lora['reason']}")
        if not character["loras"]:
            rows.append(["", character["name"], "", "no LoRA", references])
    print_table(f"{document['season']}: the cast", ["LoRA", "character", "base model", "status", "references"], rows)
    for finding in findings:
        say(finding)


def tell_slots(document: dict[str, Any]) -> None:
    """The slots as a table."""
    rows = []
    for slot in document["slots"]:
        routes = "; ".join(f"{route['character']}: {route['route']}" for route in slot["routes"])
        rows.append([str(slot["number"]), slot["state"], slot["video_model"] or "", slot["reason"] or routes])
    print_table(f"{document['season']}: the slots", ["slot", "state", "video model", "routes"], rows, right=(0,))
    if document["gaps"]:
        say(f"Without a clip: {_listed(document['gaps'])}.")


def tell_todo(document: dict[str, Any]) -> None:
    """What a person has to do, if anything."""
    for item in document["todo"]:
        command = f" Then: {item['command']}" if item["command"] else ""
        say(f"To do: {item['what']}{': ' + item['why'] if item['why'] else ''}.{command}".replace("..", "."))


def tell_result(ports: Ports, season_id: int, folder: Path, seconds: float, exit_code: int) -> None:
    """What a run has made, in a screenful."""
    document = season_document(ports, season_id)
    say()
    tell_slots(document)
    say()
    tell_costs(ports, season_id, is_short=True)
    say()
    tell_todo(document)
    tell_money(document)
    say()
    if clips_of_season(ports, season_id):
        say(f"Season:  {folder / 'season.mp4'}")
    say(f"Report:  {folder / 'report.html'}")
    say(f"Costs:   {folder / 'costs.csv'}")
    say(f"{OUTCOMES.get(exit_code, 'Done in')} {_spoken(seconds)}.")


OUTCOMES = {
    4: "Stopped by the budget, or by the vendor's account, after",
    5: "Done, but for what failed, in",
    6: "Done, but for what waits for you, in",
}


def _listed(numbers: list[int]) -> str:
    noun = "slot" if len(numbers) == 1 else "slots"
    return f"{noun} {', '.join(map(str, numbers))}"


def _spoken(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"
