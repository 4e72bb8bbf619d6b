"""Rendering: the video job of a slot, composed of whatever route each character has, and its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.applications import CharacterAtRender, Route
from domain.costs import free_step
from domain.errors import BadInput
from domain.jobs import BlobRef, JobOrder, Stage
from domain.model_rules import Model
from domain.prompts import in_words, rewrite_prompt, with_trigger
from domain.renders import Render, RenderState, SlotPlan
from providers.vendor_ports import Element, LoraUse, VideoOrder
from providers.wiring import open_ports
from tasks.jobs import plan_job
from tasks.picture_limits import check_pictures
from tasks.profiles import profile_for, profiled_lora
from tasks.slot_stills import finished_stills, plan_of
from tasks.view_orders import clip_job

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.rendering")

FREE_ROUTES = {
    Route.ELEMENTS: ("elements", "its pinned pictures go along, inside the video's own price"),
    Route.DIRECT: ("lora_direct", "inside the video's own price"),
    Route.ORIGINALS: ("originals", "no LoRA is applied: its original pictures, inside the video's own price"),
}
"""Service and reason of what costs nothing beside the video; a LoRA still is a job of its own."""


def plan_slot_video(ports: Ports, render_id: int, *, max_attempts: int) -> str:
    """The job that films this render as its routes stand. Reserves money, spends none.

    `BadInput` when the model needs a picture and nobody has one.
    """
    return plan_job(ports, video_job(ports, render_id), max_attempts=max_attempts)


def video_job(ports: Ports, render_id: int) -> JobOrder:
    """The render's video as a job. Pure, except that notes about what the model cannot take are kept."""
    render = ports.renders.get(render_id)
    plan = plan_of(ports, render)
    model = ports.registry.model(render.video_model)
    assert model.video is not None
    seconds = model.video.duration.nearest_seconds(plan.seconds)
    order = _compose(ports, render, plan, model, seconds)
    season = ports.seasons.get(render.season_id)
    return clip_job(ports, season, order, stage=Stage.VIDEO, priced_seconds=seconds, slot_number=render.slot_number)


def _compose(ports: Ports, render: Render, plan: SlotPlan, model: Model, seconds: float) -> VideoOrder:
    assert model.video is not None
    stills = finished_stills(ports, render.id)
    words = {character.name: in_words(character.name, character.description) for character in plan.cast}
    elements: tuple[Element, ...] = ()
    references: tuple[BlobRef, ...] = ()
    images: tuple[BlobRef, ...] = ()
    loras: tuple[LoraUse, ...] = ()
    image: BlobRef | None = None
    if model.lora is not None and model.lora.takes:
        loras = _direct_loras(ports, render, plan, model, words)
    if model.video.elements is not None:
        elements, images = _elements(ports, render, plan, model, stills, words)
        if model.video.image_field is not None and not model.video.image_is_optional:
            image = _first_picture(ports, render, plan, model, stills)
    elif model.video.references is not None:
        references = _references(ports, render, plan, model, stills, words)
    elif model.video.image_field is not None:
        image = _first_picture(ports, render, plan, model, stills)
    order = VideoOrder(
        model_key=model.key,
        prompt=_fitted(plan, words, model),
        seconds=seconds,
        aspect_ratio=plan.aspect_ratio,
        image=image,
        elements=elements,
        references=references,
        images=images,
        loras=loras,
        seed=plan.seed,
        profile=profile_for(ports, render.season_id, _first_character(render), model),
    )
    check_pictures(ports, model, order)
    return order


def _first_character(render: Render) -> int | None:
    return render.routes[0].character_id if render.routes else None


def _elements(
    ports: Ports, render: Render, plan: SlotPlan, model: Model, stills: dict[int, BlobRef], words: dict[str, str]
) -> tuple[tuple[Element, ...], tuple[BlobRef, ...]]:
    """One element per character that has pictures, then the scene references as far as there is room."""
    assert model.video is not None
    assert model.video.elements is not None
    rule = model.video.elements
    room = model.video.max_images_and_elements or 99
    elements: list[Element] = []
    cast = {character.character_id: character for character in plan.cast}
    for route in render.routes:
        character = cast[route.character_id]
        pictures = _pictures(character, route.route, stills)
        if not pictures:
            ports.renders.note(render.id, f"{character.name} has no picture and is described in words only.")
            continue
        if len(elements) == room:
            ports.renders.note(render.id, f"{model.key} takes {room} elements: {character.name} is described in words.")
            continue
        references = pictures[1 : 1 + rule.max_references] or pictures[:1]
        elements.append(Element(frontal=pictures[0], references=tuple(references)))
        words[character.name] = f"{rule.prompt_word}{len(elements)}"
    space = room - len(elements) if model.video.images_field is not None else 0
    scenes = plan.scene_references[:space]
    if len(scenes) < len(plan.scene_references):
        ports.renders.note(render.id, f"{model.key} has room for {space} scene references: the others were left out.")
    return tuple(elements), tuple(scenes)


def _pictures(character: CharacterAtRender, route: Route, stills: dict[int, BlobRef]) -> list[BlobRef]:
    """A character's pictures, the first one frontal or drawn with its LoRA."""
    if route is Route.ELEMENTS and character.pinned_frontal is not None:
        return [character.pinned_frontal, *character.pinned_references]
    if route in (Route.PREPROCESSED, Route.FACE_STILL) and character.character_id in stills:
        # The still replaces the first character reference; the others stay.
        return [stills[character.character_id], *character.originals[1:]]
    return list(character.originals)


def _references(
    ports: Ports, render: Render, plan: SlotPlan, model: Model, stills: dict[int, BlobRef], words: dict[str, str]
) -> tuple[BlobRef, ...]:
    """One picture of each character first, then the scenes, then more of everybody, as far as the model takes them."""
    assert model.video is not None
    assert model.video.references is not None
    cast = {character.character_id: character for character in plan.cast}
    shown = [
        (cast[route.character_id], _pictures(cast[route.character_id], route.route, stills)) for route in render.routes
    ]
    room, word = model.video.references.maximum, model.video.reference_word
    firsts = [(character, pictures[0]) for character, pictures in shown if pictures][:room]
    for number, (character, _) in enumerate(firsts, 1):
        if word is not None:
            words[character.name] = f"{words[character.name]} ({word}{number})"
    for character, _ in shown:
        if character not in [one for one, _ in firsts]:
            ports.renders.note(render.id, f"{character.name} has no picture here and is described in words only.")
    more = [picture for _, pictures in shown for picture in pictures[1:]]
    offered = [picture for _, picture in firsts] + list(plan.scene_references) + more
    if len(offered) < model.video.references.minimum:
        raise BadInput(
            f"Slot {render.slot_number}: {model.key} films references and there is none: give the characters "
            f"references, or the slot scene_references."
        )
    return tuple(dict.fromkeys(offered))[:room]


def _first_picture(
    ports: Ports, render: Render, plan: SlotPlan, model: Model, stills: dict[int, BlobRef]
) -> BlobRef | None:
    """The one picture an image-to-video model films: a still, else an original reference, else the scene; None where
    there is none and the model does without."""
    assert model.video is not None
    cast = {character.character_id: character for character in plan.cast}
    drawn = [stills[route.character_id] for route in render.routes if route.character_id in stills]
    originals = [picture for route in render.routes for picture in cast[route.character_id].originals[:1]]
    offered = [*dict.fromkeys(drawn), *originals, *plan.scene_references]
    if not offered:
        if model.video.image_is_optional:
            return None
        raise BadInput(
            f"Slot {render.slot_number}: {render.video_model} films a picture and there is none: give the characters "
            f"references, or the slot scene_references."
        )
    if len(set(offered)) > 1:
        ports.renders.note(render.id, f"{render.video_model} takes one picture; the other references stay in words.")
    return offered[0]


def _direct_loras(
    ports: Ports, render: Render, plan: SlotPlan, model: Model, words: dict[str, str]
) -> tuple[LoraUse, ...]:
    """The LoRAs that go straight into the video model; their characters are called by trigger word."""
    assert model.video is not None
    loras = {lora.lora_id: lora for character in plan.cast for lora in character.loras}
    cast = {character.character_id: character for character in plan.cast}
    takes_pictures = model.video.takes != ("text",)
    uses = []
    for route in render.routes:
        character = cast[route.character_id]
        lora = loras.get(route.lora_id) if route.lora_id is not None else None
        if route.route is not Route.DIRECT or lora is None or lora.file is None:
            if not takes_pictures:
                note = f"{render.video_model} takes no picture: {character.name} is in words only."
                ports.renders.note(render.id, note)
            continue
        use = LoraUse(file=lora.file, scale=character.lora_scale, high_noise=lora.high_noise)
        use, word = profiled_lora(ports, render.season_id, route.character_id, model, use, lora.trigger_word)
        uses.append(use)
        words[character.name] = with_trigger(word, character.description)
    return tuple(uses)


def _fitted(plan: SlotPlan, words: dict[str, str], model: Model) -> str:
    """The prompt with every name in the model's words; without descriptions where it would be too long."""
    prompt = rewrite_prompt(plan.prompt, words)
    if model.prompt_max_chars is None or len(prompt) <= model.prompt_max_chars:
        return prompt
    short = {name: word if word.startswith("@") else name for name, word in words.items()}
    return rewrite_prompt(plan.prompt, short)[: model.prompt_max_chars]


def keep_render(ports: Ports, render_id: int, key: str) -> None:
    """Take a finished video job as the slot's clip; the slot is done once it was scored. Safe to repeat. Free."""
    job = ports.ledger.get(key)
    file = job.file("video")
    assert file is not None, f"video job {key} kept no clip"
    ports.renders.keep_clip(render_id, sha256=file.sha256, url=ports.blobs.url(file.sha256), job_key=key)
    for still in dict.fromkeys(finished_stills(ports, render_id).values()):
        ports.renders.keep_still(render_id, still.sha256)
    render = ports.renders.get(render_id)
    for route in render.routes:
        if route.route in FREE_ROUTES:
            api_name, reason = FREE_ROUTES[route.route]
            ports.ledger.log_cost(
                free_step(
                    render.season_id,
                    Stage.LORA_APPLICATION,
                    api_name,
                    reason,
                    f"{api_name}:{render_id}:{route.character_id}",
                    character_id=route.character_id,
                    slot_number=render.slot_number,
                )
            )


def finish_render(ports: Ports, render_id: int) -> None:
    """The slot's clip is kept and scored: nothing is left to do. Safe to repeat. Free."""
    render = ports.renders.get(render_id)
    assert render.clip_sha256 is not None, f"render {render_id} kept no clip"
    ports.renders.end(render_id, RenderState.DONE)
    log.info("slot %d is rendered with %s", render.slot_number, render.video_model)


def end_render(ports: Ports, render_id: int, *, is_waiting: bool, reason: str, exit_code: int) -> None:
    """A slot that did not get its clip: failed, or waiting for a person; its reason goes to the report. Free."""
    render = ports.renders.get(render_id)
    if render.state is RenderState.DONE:
        return
    state = RenderState.WAITING if is_waiting else RenderState.FAILED
    ports.renders.end(render_id, state, reason, exit_code)
    log.error("slot %d: %s", render.slot_number, reason)


def leading_route(routes: Sequence[Route]) -> Route:
    """The route whose retries count for the slot's video: the highest in the table that anybody takes."""
    for route in (Route.ELEMENTS, Route.DIRECT, Route.PREPROCESSED, Route.FACE_STILL):
        if route in routes:
            return route
    return Route.ORIGINALS


@task(name="plan-slot-video", cache_policy=NO_CACHE)
def plan_slot_video_task(render_id: int, max_attempts: int) -> str:
    """The job that films a render as its routes stand."""
    return plan_slot_video(open_ports(), render_id, max_attempts=max_attempts)


@task(name="keep-render", cache_policy=NO_CACHE)
def keep_render_task(render_id: int, key: str) -> None:
    """Take a finished video as the slot's clip."""
    keep_render(open_ports(), render_id, key)


@task(name="finish-render", cache_policy=NO_CACHE)
def finish_render_task(render_id: int) -> None:
    """A slot whose clip is kept and scored is done."""
    finish_render(open_ports(), render_id)


@task(name="end-render", cache_policy=NO_CACHE)
def end_render_task(render_id: int, is_waiting: bool, reason: str, exit_code: int) -> None:
    """A slot that did not get its clip."""
    end_render(open_ports(), render_id, is_waiting=is_waiting, reason=reason, exit_code=exit_code)
