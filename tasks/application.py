"""Application: how a slot's characters reach its video model, and what follows when a way fails.

The plan of a slot (model, prompt, seconds, cast and first routes) is stored at its first render. Routes then only ever
move down the table of `domain/applications.py`, each move written to the database with its reason.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.applications import (
    CharacterAtRender,
    CharacterRoute,
    LoraAtRender,
    Route,
    can_show,
    choose_routes,
    next_route,
)
from domain.characters import LoraStatus
from domain.errors import BadInput
from domain.jobs import BlobRef
from domain.model_rules import Model
from domain.offers import face_model, still_model, vendors_with, video_model
from domain.prompts import mentioned_names
from domain.renders import Render, RenderState, Slot, SlotPlan
from domain.seasons import Character, Season, SlotEntry
from domain.vendors import Work
from providers.wiring import open_ports
from tasks.frames import harvest_clip
from tasks.jobs import current_job
from tasks.matrix import why_no_lora
from tasks.originals import original_references
from tasks.slot_stills import model_takes, plan_of, still_orders

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.application")

SLOT_ASPECT = "16:9"


def start_render(ports: Ports, season_id: int, number: int) -> int:
    """Begin or take up the render of a slot; returns its id. Reads the LoRAs' status, once. Safe to repeat. Free."""
    slot = ports.seasons.slot(season_id, number)
    if slot.prompt is None:
        raise BadInput(f"Slot {number} has already won with its own clip; there is nothing to render.")
    known = ports.renders.of_slot(slot.id, slot.entry_sha256)
    if known is not None and known.state is RenderState.DONE:
        return known.id
    plan = slot.plan or ports.renders.plan(slot.id, _resolve(ports, season_id, slot))
    render = ports.renders.start(season_id, slot.id, slot.entry_sha256, plan.video_model)
    if not render.routes:
        ports.renders.set_routes(render.id, plan.routes, plan.video_model)
        wanted = slot.entry.get("video_model") or plan.video_model
        if plan.video_model != wanted:
            ports.renders.note(render.id, _why_another_model(wanted, plan.video_model))
        for route in plan.routes:
            _log_route(number, route)
    return render.id


def _resolve(ports: Ports, season_id: int, slot: Slot) -> SlotPlan:
    entry = SlotEntry.model_validate({key: slot.entry[key] for key in slot.entry if key != "scene_sha256s"})
    prompt = entry.prompt or ""
    season = ports.seasons.get(season_id)
    model = video_model(ports.registry, season, entry.video_model)
    characters = ports.cast.of_season(season_id)
    by_name = {character.name: character for character in characters}
    cast = tuple(_at_render(ports, season, by_name[name]) for name in mentioned_names(prompt, list(by_name)))
    default = video_model(ports.registry, season, None)
    model, routes = first_routes(model, default, cast, proved_against(ports, season, (model, default)))
    assert model.video is not None
    scenes = [
        BlobRef(sha256=sha256, media_type=media_type, file_name=f"scene-{i + 1}{suffix}")
        for i, (sha256, media_type, suffix) in enumerate(slot.entry.get("scene_sha256s", []))
    ]
    return SlotPlan(
        prompt=prompt,
        video_model=model.key,
        seconds=slot_seconds(model, entry),
        aspect_ratio=SLOT_ASPECT,
        seed=int(hashlib.sha256(f"{season.slug}/{slot.number}".encode()).hexdigest()[:7], 16),
        cast=cast,
        routes=routes,
        scene_references=tuple(scenes),
    )


def slot_seconds(model: Model, entry: SlotEntry) -> float:
    """The length a slot gets from this model: what it asks for as near as it can be had, else the model's own."""
    assert model.video is not None
    return model.video.duration.nearest_seconds(entry.seconds or model.video.duration.default)


def first_routes(
    model: Model,
    default: Model,
    cast: tuple[CharacterAtRender, ...],
    proved_against: frozenset[str] = frozenset(),
) -> tuple[Model, tuple[CharacterRoute, ...]]:
    """Everybody's route, and the model that films them: the default one where the model asked for can show nobody."""
    routes = choose_routes(cast, model_takes(model, proved_against))
    if can_show(model_takes(model, proved_against), routes):
        return model, routes
    return default, choose_routes(cast, model_takes(default, proved_against))


def proved_against(ports: Ports, season: Season, models: Sequence[Model]) -> frozenset[str]:
    """Those of these video models that a probe has shown not to use a LoRA at this season's vendor; said in the log."""
    loading = {model.key: model for model in models if model.lora is not None and model.lora.takes}
    return frozenset(key for key, model in loading.items() if _is_proved_against(ports, season, "video", model))


def _is_proved_against(ports: Ports, season: Season, work: Work, model: Model) -> bool:
    vendors = vendors_with(ports.registry, season, work, model)
    reason = why_no_lora(ports, model, vendors[0]) if vendors else None
    if reason:
        log.warning("%s", reason)
    return reason is not None


def _at_render(ports: Ports, season: Season, character: Character) -> CharacterAtRender:
    pinned = ports.loras.pinned(character.id)
    loras = tuple(_lora_at_render(ports, season, lora_id) for lora_id in _current_ids(ports, character))
    face = face_model(ports.registry, season)
    return CharacterAtRender(
        character_id=character.id,
        name=character.name,
        description=character.description,
        lora_scale=character.lora_scale,
        is_lora_wanted=character.is_lora_wanted,
        loras=loras,
        pinned_frontal=_picture(pinned.frontal_sha256, "frontal") if pinned else None,
        pinned_references=tuple(_picture(sha256, "reference") for sha256 in pinned.reference_sha256s) if pinned else (),
        originals=_originals(ports, character.id),
        face_model=face.key if face is not None else None,
    )


def _current_ids(ports: Ports, character: Character) -> list[int]:
    return [lora.id for lora in ports.loras.current(character.id) if lora.base_model in character.base_models]


def _lora_at_render(ports: Ports, season: Season, lora_id: int) -> LoraAtRender:
    lora = ports.loras.get(lora_id)
    file, high_noise = lora.file_ref(), lora.high_noise_ref()
    if lora.status is LoraStatus.READY and not all(_is_intact(ports, one) for one in (file, high_noise or file)):
        file = None
    drawing = still_model(ports.registry, season, lora.base_model)
    if drawing is not None and _is_proved_against(ports, season, "image", drawing):
        drawing = None
    return LoraAtRender(
        lora_id=lora.id,
        base_model=lora.base_model,
        trigger_word=lora.trigger_word,
        status=lora.status,
        file=file,
        high_noise=high_noise if file is not None else None,
        still_model=drawing.key if drawing else None,
    )


def _is_intact(ports: Ports, file: BlobRef | None) -> bool:
    """The bytes are there and still have their digest."""
    if file is None or not ports.blobs.has(file.sha256):
        return False
    with ports.blobs.local_path(file.sha256).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256


def choose_lora(ports: Ports, season_id: int, number: int, lora_id: int) -> None:
    """Resolve a slot anew with an existing LoRA in its character's place. Free; buys nothing by itself.

    `BadInput` when there is no such LoRA, it is not ready, its character is not in the slot, or the slot has its clip.
    """
    slot = ports.seasons.slot(season_id, number)
    render = ports.renders.of_slot(slot.id, slot.entry_sha256)
    if render is not None and render.state is RenderState.DONE:
        raise BadInput(f"Slot {number} has its clip already; change its prompt in the manifest to have it made anew.")
    lora = ports.loras.find(lora_id)
    if lora is None or lora.season_id != season_id:
        raise BadInput(f"There is no LoRA {lora_id} in this season; see the LoRA ids with: onmodel status.")
    if lora.status is not LoraStatus.READY:
        raise BadInput(f"LoRA {lora_id} of {lora.character_name} is {lora.status}, not ready.")
    plan = _resolve(ports, season_id, slot)
    if lora.character_id not in {character.character_id for character in plan.cast}:
        raise BadInput(f"Slot {number} does not show {lora.character_name}, whose LoRA {lora_id} is.")
    season = ports.seasons.get(season_id)
    cast = tuple(
        character.model_copy(update={"loras": (_lora_at_render(ports, season, lora_id),), "is_lora_wanted": True})
        if character.character_id == lora.character_id
        else character
        for character in plan.cast
    )
    wanted, default = (video_model(ports.registry, season, key) for key in (slot.entry.get("video_model"), None))
    model, routes = first_routes(wanted, default, cast, proved_against(ports, season, (wanted, default)))
    changes = {"cast": cast, "routes": routes, "video_model": model.key}
    ports.renders.replan(slot.id, plan.model_copy(update=changes))


def _originals(ports: Ports, character_id: int) -> tuple[BlobRef, ...]:
    """The original references; of a character that has only clips and is not trained, these are looked at first."""
    found = original_references(ports, character_id)
    if found:
        return found
    for clip in ports.cast.clips(character_id):
        harvest_clip(ports, clip.id)
    return original_references(ports, character_id)


# --- falling back ---


def fall_back(
    ports: Ports, render_id: int, why: str, *, from_routes: frozenset[Route], still_key: str | None = None
) -> bool:
    """Move the characters on these routes one step down the table; False when nobody could move.

    With the key of a failed still only the characters of that still move: one that falls back never takes another's
    route away.
    """
    render = ports.renders.get(render_id)
    plan = plan_of(ports, render)
    cast = {character.character_id: character for character in plan.cast}
    concerned = _concerned(ports, render_id, still_key)
    routes: list[CharacterRoute] = []
    has_moved = False
    for route in render.routes:
        is_meant = route.route in from_routes and (concerned is None or route.character_id in concerned)
        following = next_route(route, cast[route.character_id], why) if is_meant else None
        routes.append(following or route)
        if following is not None:
            has_moved = True
            _log_route(render.slot_number, following)
            ports.renders.note(render_id, f"{following.name}: {following.reason}")
    if has_moved:
        key = _model_for(ports, render, routes)
        ports.renders.set_routes(render_id, tuple(routes), key)
        if key != render.video_model:
            ports.renders.note(render_id, _why_another_model(render.video_model, key))
    return has_moved


def _concerned(ports: Ports, render_id: int, key: str | None) -> set[int] | None:
    if key is None:
        return None
    work_key = ports.ledger.get(key).work_key
    for group, order in still_orders(ports, render_id):
        job = current_job(ports, order.work_key)  # perhaps at another vendor by now
        if work_key in (order.work_key, job.work_key if job is not None else None):
            return {route.character_id for route in group}
    return set()  # a still that is no longer wanted: nobody's route hangs on it


def _model_for(ports: Ports, render: Render, routes: list[CharacterRoute]) -> str:
    """A model that takes only LoRAs cannot show pictures: once nobody is direct any more, the default model does."""
    if can_show(model_takes(ports.registry.model(render.video_model)), routes):
        return render.video_model
    return video_model(ports.registry, ports.seasons.get(render.season_id), None).key


def _why_another_model(wanted: str, model: str) -> str:
    return f"{wanted} cannot show anybody here, by a picture or by a LoRA it needs: filmed with {model} instead."


def _log_route(number: int, route: CharacterRoute) -> None:
    level = {"warning": logging.WARNING, "error": logging.ERROR}.get(route.severity, logging.INFO)
    log.log(level, "slot %d, %s: %s (%s)", number, route.name, route.route, route.reason)


def _picture(sha256: str, name: str) -> BlobRef:
    """A drawn reference; our still models answer in JPEG."""
    return BlobRef(sha256=sha256, media_type="image/jpeg", file_name=f"{name}.jpg")


@task(name="start-render", cache_policy=NO_CACHE)
def start_render_task(season_id: int, number: int) -> int:
    """Begin or take up a slot's render."""
    return start_render(open_ports(), season_id, number)


@task(name="fall-back", cache_policy=NO_CACHE)
def fall_back_task(render_id: int, why: str, from_routes: list[Route], key: str | None) -> bool:
    """Move characters one step down the table."""
    return fall_back(open_ports(), render_id, why, from_routes=frozenset(from_routes), still_key=key)
