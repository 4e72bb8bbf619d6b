"""What flows ask before they decide: small facts from our tables, which are the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from domain.applications import Route
from domain.characters import LoraStatus
from domain.offers import still_model
from domain.prompts import mentioned_names
from domain.records import Record
from domain.renders import RenderState
from providers.wiring import open_ports
from tasks.application import choose_lora
from tasks.season_facts import gaps_of_season, is_pinned_to_current, season_exit_codes

if TYPE_CHECKING:
    pass


class CharacterWork(Record):
    """What there is to do for a character."""

    character_id: int
    is_lora_wanted: bool
    is_trained_here: bool
    clip_ids: tuple[int, ...]
    base_models: tuple[str, ...]
    is_pinned: bool
    needs_review: bool


class SlotWork(Record):
    """A slot without a clip, and who is in it."""

    number: int
    cast: tuple[str, ...]


class SeasonWork(Record):
    """What there is to do for a season."""

    season_id: int
    character_names: tuple[str, ...]
    open_slots: tuple[SlotWork, ...]


@task(name="season-work", cache_policy=NO_CACHE)
def season_work_task(slug: str) -> SeasonWork:
    """The cast and the slots that have no clip yet."""
    ports = open_ports()
    season = ports.seasons.by_slug(slug)
    names = tuple(character.name for character in ports.cast.of_season(season.id))
    open_slots = []
    for slot in ports.seasons.slots(season.id):
        if slot.winning_clip_id is None:
            render = ports.renders.of_slot(slot.id, slot.entry_sha256)
            if render is None or render.state is not RenderState.DONE:
                open_slots.append(SlotWork(number=slot.number, cast=mentioned_names(slot.prompt or "", names)))
    return SeasonWork(season_id=season.id, character_names=names, open_slots=tuple(open_slots))


@task(name="character-work", cache_policy=NO_CACHE)
def character_work_task(slug: str, name: str) -> CharacterWork:
    """What a character is learned from, and how far it is."""
    ports = open_ports()
    season = ports.seasons.by_slug(slug)
    character = ports.cast.named(season.id, name)
    return CharacterWork(
        character_id=character.id,
        is_lora_wanted=character.is_lora_wanted,
        is_trained_here=character.lora == "auto",
        clip_ids=tuple(clip.id for clip in ports.cast.clips(character.id)),
        base_models=character.base_models,
        is_pinned=is_pinned_to_current(ports, character.id),
        needs_review=season.review,
    )


@task(name="season-id", cache_policy=NO_CACHE)
def season_id_task(slug: str) -> int:
    """The season's id; one clear sentence when there is none."""
    return open_ports().seasons.by_slug(slug).id


@task(name="lora-status", cache_policy=NO_CACHE)
def lora_status_task(lora_id: int) -> LoraStatus:
    """Where a LoRA stands."""
    return open_ports().loras.get(lora_id).status


@task(name="stills-base", cache_policy=NO_CACHE)
def stills_base_task(character_id: int) -> int | None:
    """The character's LoRA that a still model can draw with, a ready one first."""
    ports = open_ports()
    season = ports.seasons.get(ports.cast.get(character_id).season_id)
    current = ports.loras.current(character_id)
    drawable = [lora for lora in current if still_model(ports.registry, season, lora.base_model)]
    drawable.sort(key=lambda lora: lora.status is not LoraStatus.READY)
    return drawable[0].id if drawable else None


@task(name="use-lora", cache_policy=NO_CACHE)
def use_lora_task(season_id: int, number: int, lora_id: int) -> None:
    """Have a slot rendered with an existing LoRA."""
    choose_lora(open_ports(), season_id, number, lora_id)


@task(name="is-rendered", cache_policy=NO_CACHE)
def is_rendered_task(render_id: int) -> bool:
    """Whether a render is done."""
    return open_ports().renders.get(render_id).state is RenderState.DONE


@task(name="render-routes", cache_policy=NO_CACHE)
def render_routes_task(render_id: int) -> list[Route]:
    """The routes of a render as they stand now."""
    return [route.route for route in open_ports().renders.get(render_id).routes]


@task(name="season-exit-codes", cache_policy=NO_CACHE)
def season_exit_codes_task(season_id: int) -> list[int]:
    """The exit codes of a season's slots and of what waits for a person."""
    return season_exit_codes(open_ports(), season_id)


def character_table(slug: str, name: str) -> list[dict[str, str]]:
    """A character's LoRAs as a table for people."""
    ports = open_ports()
    character = ports.cast.named(ports.seasons.by_slug(slug).id, name)
    return [
        {
            "base model": lora.base_model,
            "version": str(lora.version),
            "status": lora.status.value,
            "images": str(lora.training_images_count),
            "steps": str(lora.training_steps),
            "cost (USD)": str(lora.training_cost_usd),
            "why": lora.status_reason,
        }
        for lora in ports.loras.current(character.id)
    ]


def season_table(slug: str) -> tuple[list[dict[str, str]], str]:
    """The slots as a table, and the season in a few lines of markdown."""
    ports = open_ports()
    season = ports.seasons.by_slug(slug)
    rows = []
    for slot in ports.seasons.slots(season.id):
        render = ports.renders.of_slot(slot.id, slot.entry_sha256)
        routes = ", ".join(f"{route.name}: {route.route}" for route in render.routes) if render else ""
        state = "won" if slot.winning_clip_id is not None else render.state.value if render else "planned"
        rows.append(
            {
                "slot": str(slot.number),
                "state": state,
                "model": render.video_model if render else "",
                "routes": routes,
                "reason": render.reason if render else "",
            }
        )
    limit, reserved, spent = ports.ledger.budget(season.id)
    gaps = ", ".join(map(str, gaps_of_season(ports, season.id))) or "none"
    simulated = " (simulated: no money was spent)" if season.is_simulated else ""
    return rows, (
        f"# {season.slug}\n\n- spent **{spent:.2f} USD**{simulated} of {limit:.2f}, {reserved:.2f} reserved\n"
        f"- video: {season.video_seconds or 0:.1f} s\n- slots without a clip: {gaps}\n"
    )
