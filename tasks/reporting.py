"""Reporting: a season's tables as the records of its report, and the folder a person gets.

The folder holds `season.mp4`, `report.html`, `costs.csv` and `clips/slot-NN.mp4`. Everything in it can be made again
at any time from the database and the store, at no cost.
"""

from __future__ import annotations

import csv
import filecmp
import io
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from domain.applications import CharacterRoute, Route
from domain.characters import ImageType, LoraStatus
from domain.costs import CostEntry
from domain.renders import Render, RenderState, Slot
from domain.reports import (
    CharacterReport,
    CostLine,
    IdentityResult,
    LoraReport,
    SeasonReport,
    SheetImage,
    SlotCharacter,
    SlotReport,
    SlotState,
)
from domain.seasons import Character
from tasks.originals import original_references
from tasks.report_page import write_report
from tasks.safe_csv import safe_cell
from tasks.season_facts import accepted_video, clips_of_season, gaps_of_season
from tasks.todo import RUN_AGAIN, things_to_do

if TYPE_CHECKING:
    from domain.loras import Lora
    from providers.wiring import Ports

log = logging.getLogger("onmodel.reporting")

ROUTE_LABELS = {
    Route.ELEMENTS: "elements",
    Route.DIRECT: "direct LoRA",
    Route.PREPROCESSED: "LoRA still → video",
    Route.FACE_STILL: "face still → video",
    Route.ORIGINALS: "original references",
}
NO_LORA = "there is no LoRA to leave out"
STATES = {
    RenderState.RUNNING: SlotState.RUNNING,
    RenderState.DONE: SlotState.DONE,
    RenderState.FAILED: SlotState.FAILED,
    RenderState.WAITING: SlotState.WAITING,
}


def export_season(ports: Ports, season_id: int, folder: Path) -> Path:
    """Write the season's folder; returns the report's path. Safe to repeat. Free."""
    folder.mkdir(parents=True, exist_ok=True)
    season = ports.seasons.get(season_id)
    clips = folder / "clips"
    clips.mkdir(exist_ok=True)
    for clip in clips_of_season(ports, season_id):
        _copy(ports, clip.sha256, clips / f"slot-{clip.slot_number:02d}.mp4")
    if season.video_sha256 is not None:
        _copy(ports, season.video_sha256, folder / "season.mp4")
    _write_text(folder / "costs.csv", costs_csv(ports, season_id))
    report = build_report(ports, season_id)
    out = folder / "report.html"
    write_report(report, out, lambda sha256: _thumb(ports, sha256))
    return out


def costs_csv(ports: Ports, season_id: int) -> str:
    """Every cost entry as CSV with a header line, free steps included; amounts in USD, and no text is a formula."""
    names = {character.id: character.name for character in ports.cast.of_season(season_id)}
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(
        ["created_at", "stage", "api_name", "character", "slot", "forecast_usd", "amount_usd", "simulated", "purpose"]
    )
    for entry in ports.ledger.costs(season_id):
        writer.writerow(
            [
                entry.created_at.isoformat(timespec="seconds") if entry.created_at else "",
                entry.stage,
                safe_cell(entry.api_name),
                safe_cell(names.get(entry.character_id or 0, "")),
                entry.slot_number or "",
                entry.forecast_usd,
                entry.amount_usd,
                "yes" if entry.is_simulated else "no",
                safe_cell(entry.purpose),
            ]
        )
    return table.getvalue()


def build_report(ports: Ports, season_id: int) -> SeasonReport:
    """The season as it stands now. Free, changes nothing."""
    season = ports.seasons.get(season_id)
    cast = ports.cast.of_season(season_id)
    limit, reserved, spent = ports.ledger.budget(season_id)
    entries = ports.ledger.costs(season_id)
    slots = ports.seasons.slots(season_id)
    slot_reports = tuple(_slot(ports, slot, cast) for slot in slots)
    now = ports.clock.now()
    costs = _cost_lines(entries, cast)
    accepted = accepted_video(ports, season_id)
    return SeasonReport(
        title=season.slug.replace("-", " ").title(),
        slug=season.slug,
        owner=season.owner,
        time_zone=season.time_zone,
        begun_at=entries[0].created_at if entries and entries[0].created_at else now,
        ended_at=entries[-1].created_at if entries else None,
        generated_at=now,
        is_simulated=season.is_simulated,
        budget_usd=limit,
        spent_usd=spent,
        reserved_usd=reserved,
        forecast_usd=sum((line.forecast_usd for line in costs if line.forecast_usd), start=limit * 0),
        season_video="season.mp4" if season.video_sha256 else None,
        season_poster=next((slot.picture for slot in slot_reports if slot.picture), None),
        season_seconds=season.video_seconds or 0.0,
        accepted_clips=accepted.clips,
        accepted_seconds=accepted.seconds,
        characters=tuple(_character(ports, character) for character in cast),
        slots=slot_reports,
        gaps=gaps_of_season(ports, season_id),
        costs=costs,
        todo=things_to_do(ports, season_id),
    )


# --- the cast ---


def _character(ports: Ports, character: Character) -> CharacterReport:
    loras = ports.loras.current(character.id)
    sheet = [
        SheetImage(view=image.image_type, sha256=image.sha256, is_primary=image.is_primary)
        for lora in loras
        for image in ports.loras.references(lora.id)
    ]
    sheet_note = None
    if not sheet:
        originals = original_references(ports, character.id)
        sheet = [SheetImage(view=ImageType.REFERENCE, sha256=ref.sha256) for ref in originals]
        sheet_note = "Original references: no still model draws with its LoRA." if loras else "Original references."
    training_set = ports.cast.latest_training_set(character.id)
    return CharacterReport(
        name=character.name,
        kind=character.kind,
        description=character.description,
        sheet=tuple(sheet),
        sheet_note=sheet_note,
        loras=tuple(_lora(ports, lora) for lora in loras),
        no_lora_because=None if loras else _why_no_lora(character),
        warnings=training_set.warnings if training_set else (),
    )


def _why_no_lora(character: Character) -> str:
    return "its LoRA is switched off" if not character.is_lora_wanted else "it is not trained yet"


def _lora(ports: Ports, lora: Lora) -> LoraReport:
    verdict = ports.loras.verdict("lora", lora.id, lora.character_id)
    training_set = ports.cast.training_set(lora.training_set_id) if lora.training_set_id else None
    held_out = len(training_set.held_out) if training_set else 0
    weak = f"only {held_out} images were held out" if training_set and held_out < 3 else None
    return LoraReport(
        base_model=lora.base_model,
        version=lora.version,
        status=lora.status,
        trigger_word=lora.trigger_word,
        trainer=lora.trainer,
        steps=lora.training_steps,
        trained_images=lora.training_images_count,
        held_out_images=held_out,
        training_cost_usd=lora.training_cost_usd,
        identity=IdentityResult.of_verdict(verdict, weak) if verdict else None,
        note=lora.status_reason if lora.status is not LoraStatus.READY else None,
    )


# --- the slots ---


def _slot(ports: Ports, slot: Slot, cast: list[Character]) -> SlotReport:
    if slot.winning_clip_id is not None:
        clip = ports.seasons.clip(slot.winning_clip_id)
        starring = [c for c in cast if slot.winning_clip_id in {one.id for one in ports.cast.clips(c.id)}]
        return SlotReport(
            number=slot.number,
            state=SlotState.WON,
            picture=_poster(ports, clip.sha256),
            clip=f"clips/slot-{slot.number:02d}.mp4",
            seconds=clip.duration_seconds,
            characters=tuple(
                SlotCharacter(name=character.name, route_key="won", route_label="won clip") for character in starring
            ),
        )
    render = ports.renders.of_slot(slot.id, slot.entry_sha256)
    if render is None:
        return SlotReport(number=slot.number, state=SlotState.PLANNED, prompt=slot.prompt or "")
    has_clip = render.state is RenderState.DONE and render.clip_sha256 is not None
    return SlotReport(
        number=slot.number,
        state=STATES[render.state],
        prompt=slot.prompt or "",
        picture=_poster(ports, render.clip_sha256) if has_clip and render.clip_sha256 else None,
        still=render.still_sha256,
        clip=f"clips/slot-{slot.number:02d}.mp4" if has_clip else None,
        seconds=slot.plan.seconds if slot.plan else None,
        video_model=render.video_model,
        characters=tuple(_slot_character(ports, render, route) for route in render.routes),
        reason=render.reason or None,
        command=None if has_clip else RUN_AGAIN,
        notes=render.notes,
    )


def _slot_character(ports: Ports, render: Render, route: CharacterRoute) -> SlotCharacter:
    verdict = ports.loras.verdict("render", render.id, route.character_id)
    return SlotCharacter(
        name=route.name,
        route_key=route.route.value,
        route_label=ROUTE_LABELS[route.route],
        because=route.reason if route.route is Route.ORIGINALS or route.severity else None,
        identity=IdentityResult.of_verdict(verdict, no_control_because=NO_LORA) if verdict else None,
    )


def _poster(ports: Ports, clip_sha256: str) -> str:
    """A frame from the middle of a clip, kept in the store."""
    path = ports.blobs.local_path(clip_sha256)
    middle = ports.media.probe_clip(path).duration_seconds / 2
    return ports.blobs.put_bytes(ports.media.jpeg_bytes(ports.media.frames_at(path, [middle])[0]), "image/jpeg")


# --- money, and what is left to do ---


def _cost_lines(entries: list[CostEntry], cast: list[Character]) -> tuple[CostLine, ...]:
    names = {character.id: character.name for character in cast}
    return tuple(
        CostLine(
            stage=entry.stage,
            api_name=entry.api_name,
            character=names.get(entry.character_id) if entry.character_id else None,
            slot_number=entry.slot_number,
            forecast_usd=entry.forecast_usd,
            actual_usd=entry.amount_usd,
            is_simulated=entry.is_simulated,
        )
        for entry in entries
        if entry.amount_usd or entry.forecast_usd
    )


def _thumb(ports: Ports, sha256: str) -> bytes:
    return ports.media.jpeg_bytes(ports.media.load_image(ports.blobs.local_path(sha256)), 86)


def _copy(ports: Ports, sha256: str, target: Path) -> None:
    """Put a stored file at its place, atomically; one that is there already with the same bytes is left."""
    source = ports.blobs.local_path(sha256)
    if target.is_file() and filecmp.cmp(source, target, shallow=False):
        return
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as temp, source.open("rb") as stream:
        shutil.copyfileobj(stream, temp, 1 << 20)
    Path(temp.name).chmod(0o666 & ~_umask())
    Path(temp.name).replace(target)


def _write_text(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False, encoding="utf-8") as temp:
        temp.write(text)
    Path(temp.name).chmod(0o666 & ~_umask())
    Path(temp.name).replace(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
