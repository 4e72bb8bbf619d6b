"""A slot's stills: one per base model whose LoRAs are drawn together, one per face that is kept without a LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.applications import (
    CharacterAtRender,
    CharacterRoute,
    Route,
    VideoModelTakes,
    group_by_base,
)
from domain.jobs import BlobRef, JobOrder, JobState, Stage
from domain.model_rules import Model
from domain.offers import still_model
from domain.prompts import in_words, rewrite_prompt, with_trigger
from domain.registry import Registry
from domain.renders import Render, SlotPlan
from domain.seasons import Season
from providers.vendor_ports import LoraUse, StillOrder
from providers.wiring import open_ports
from tasks.jobs import current_job
from tasks.planning_together import plan_together
from tasks.profiles import profile_for, profiled_lora
from tasks.view_orders import still_job, still_settings

if TYPE_CHECKING:
    from providers.wiring import Ports

STILL_SIZE = "landscape_16_9"
FACE_STILL_API = "face_still"
"""What a still by pictures of the face is called in the cost table."""


def plan_slot_stills(ports: Ports, render_id: int, *, max_attempts: int) -> list[str]:
    """The jobs of the stills this render needs: one per base model in use, and one per face. Reserves money, spends
    none."""
    return plan_together(ports, (order for _, order in still_orders(ports, render_id)), max_attempts=max_attempts)


def still_orders(ports: Ports, render_id: int) -> list[tuple[list[CharacterRoute], JobOrder]]:
    """Each group of preprocessed characters whose LoRAs share a base, and each whose face is kept without one, with the
    order for its still. Pure."""
    render = ports.renders.get(render_id)
    plan = plan_of(ports, render)
    season = ports.seasons.get(render.season_id)
    groups = still_groups(ports.registry, season, render.video_model, render.routes, plan.cast)
    with_lora = [(group, _still_order(ports, render, plan, group)) for group in groups]
    faces = [route for route in render.routes if route.route is Route.FACE_STILL]
    return with_lora + [([route], _face_order(ports, season, render, plan, route)) for route in faces]


def still_groups(
    registry: Registry,
    season: Season,
    filming_key: str,
    routes: Sequence[CharacterRoute],
    cast: Sequence[CharacterAtRender],
) -> list[list[CharacterRoute]]:
    """The characters that share a LoRA still, group by group. Pure."""
    return group_by_base(routes, cast, _most_loras_in_a_still(registry, season, filming_key, cast))


def _most_loras_in_a_still(
    registry: Registry, season: Season, filming_key: str, cast: Sequence[CharacterAtRender]
) -> dict[str, int]:
    """How many LoRAs go into one still of each base: one for an element or a reference, else as many as the still
    model takes."""
    bases = {lora.base_model for character in cast for lora in character.loras}
    takes = model_takes(registry.model(filming_key))
    if takes.has_elements or takes.has_references:
        return dict.fromkeys(bases, 1)  # each of them shows one character
    limits = {}
    for base in bases:
        model = still_model(registry, season, base)
        if model is not None and model.lora is not None and model.lora.max_count is not None:
            limits[base] = model.lora.max_count
    return limits


def _still_order(ports: Ports, render: Render, plan: SlotPlan, group: list[CharacterRoute]) -> JobOrder:
    season = ports.seasons.get(render.season_id)
    cast = {character.character_id: character for character in plan.cast}
    loras = {lora.lora_id: lora for character in plan.cast for lora in character.loras}
    uses = []
    words: dict[str, str] = {c.name: in_words(c.name, c.description) for c in plan.cast}
    base_model, still_key = "", ""
    for route in group:
        assert route.lora_id is not None
        lora, character = loras[route.lora_id], cast[route.character_id]
        assert lora.file is not None
        assert lora.still_model is not None
        base_model, still_key = lora.base_model, lora.still_model
        use = LoraUse(file=lora.file, scale=character.lora_scale, high_noise=lora.high_noise)
        drawn_by = ports.registry.model(still_key)
        use, word = profiled_lora(ports, season.id, route.character_id, drawn_by, use, lora.trigger_word)
        uses.append(use)
        words[character.name] = with_trigger(word, character.description)
    drawing = ports.registry.model(still_key)
    steps, guidance = still_settings(drawing)
    order = StillOrder(
        model_key=still_key,
        prompt=rewrite_prompt(plan.prompt, words),
        loras=tuple(uses),
        image_size=STILL_SIZE,
        steps=steps,
        guidance=guidance,
        seed=plan.seed,
        profile=profile_for(ports, season.id, group[0].character_id, drawing),
    )
    return still_job(
        ports,
        season,
        order,
        stage=Stage.LORA_APPLICATION,
        api_name=still_api_name(base_model),
        character_id=group[0].character_id,
        slot_number=render.slot_number,
    )


def _face_order(ports: Ports, season: Season, render: Render, plan: SlotPlan, route: CharacterRoute) -> JobOrder:
    """The still of one character that is drawn by pictures of its face, without a LoRA."""
    character = next(one for one in plan.cast if one.character_id == route.character_id)
    assert character.face_model is not None
    model = ports.registry.model(character.face_model)
    assert model.still is not None
    assert model.still.identity is not None
    steps, guidance = still_settings(model)
    words = {one.name: in_words(one.name, one.description) for one in plan.cast}
    order = StillOrder(
        model_key=model.key,
        prompt=rewrite_prompt(plan.prompt, words),
        faces=character.originals[: model.still.identity.maximum],
        image_size=STILL_SIZE,
        steps=steps,
        guidance=guidance,
        seed=plan.seed,
    )
    return still_job(
        ports,
        season,
        order,
        stage=Stage.LORA_APPLICATION,
        api_name=FACE_STILL_API,
        character_id=route.character_id,
        slot_number=render.slot_number,
    )


def still_api_name(base_model: str) -> str:
    """What a slot's LoRA still is called in the cost table."""
    return "sdxl_lora_preprocessing" if base_model == "sdxl" else "lora_preprocessing"


def finished_stills(ports: Ports, render_id: int) -> dict[int, BlobRef]:
    """The still of each character that has one, by character id, as far as its job has succeeded."""
    stills: dict[int, BlobRef] = {}
    for group, order in still_orders(ports, render_id):
        job = current_job(ports, order.work_key)
        file = job.file("image") if job is not None and job.state is JobState.SUCCEEDED else None
        if file is not None:
            stills.update({route.character_id: file.ref() for route in group})
    return stills


def model_takes(model: Model, proved_against: frozenset[str] = frozenset()) -> VideoModelTakes:
    """What of a registered video model decides the route; one that is proved not to use LoRAs takes none."""
    assert model.video is not None
    takes_lora = model.lora is not None and model.lora.takes and model.key not in proved_against
    return VideoModelTakes(
        key=model.key,
        has_elements=model.video.elements is not None,
        has_image=model.video.image_field is not None,
        has_references=model.video.references is not None,
        lora_base=model.base_model if takes_lora else None,
        max_loras=model.lora.max_count if model.lora is not None else None,
        is_lora_required=model.lora is not None and model.lora.is_required,
    )


def plan_of(ports: Ports, render: Render) -> SlotPlan:
    """The stored plan of a render's slot."""
    plan = ports.seasons.slot(render.season_id, render.slot_number).plan
    assert plan is not None, f"slot {render.slot_number} has no plan"
    return plan


@task(name="plan-slot-stills", cache_policy=NO_CACHE)
def plan_slot_stills_task(render_id: int, max_attempts: int) -> list[str]:
    """The jobs of the LoRA stills a render needs."""
    return plan_slot_stills(open_ports(), render_id, max_attempts=max_attempts)
