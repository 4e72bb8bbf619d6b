"""What the flows buy for a character or a slot, as purchases, reckoned with their own prices, counts and routes.

Pure: nothing here asks a vendor or the database.
"""

from __future__ import annotations

from decimal import Decimal

from domain.applications import CharacterAtRender, CharacterRoute, LoraAtRender, Route
from domain.characters import LoraStatus
from domain.forecasts import Purchase
from domain.jobs import BlobRef, Operation, Stage
from domain.loras import IDENTITY_VIEWS
from domain.model_rules import Model
from domain.money import price_of_caption, price_of_training, price_of_video
from domain.offers import face_model, still_model, trainer, video_model
from domain.prompts import mentioned_names
from domain.records import Record
from domain.registry import Registry
from domain.seasons import Character, Season, SlotEntry
from domain.vendors import catalogue_of, vendor_for
from tasks.application import first_routes, slot_seconds
from tasks.references import reference_candidates
from tasks.slot_stills import FACE_STILL_API, STILL_SIZE, model_takes, still_api_name, still_groups
from tasks.training import steps_of
from tasks.view_orders import still_price, view_price

VIEWS_PER_LORA = 2 * len(IDENTITY_VIEWS)
"""Each once with the LoRA and once without it (tasks/identity.py)."""

STAND_IN = BlobRef(sha256="0" * 64, media_type="application/octet-stream", file_name="not-there-yet")
"""For files that the routes only ask for: is there one?"""


class Learner(Record):
    """One LoRA of one character and what is still to be done for it. `trainer` is None where nothing is trained."""

    base_model: str
    lora_id: int
    is_usable: bool = True
    trainer: Model | None = None
    steps: int = 0
    views: int = 0


class Member(Record):
    """A character as a forecast sees it: its pictures to describe, its LoRAs, its references to draw."""

    character: Character
    captions: int = 0
    loras: tuple[Learner, ...] = ()
    references: int = 0
    is_pinned: bool = False


def new_learner(
    registry: Registry, season: Season, character: Character, base: str, lora_id: int, is_usable: bool
) -> Learner:
    """A LoRA that does not exist yet: trained, or given, then judged."""
    if not is_usable:
        return Learner(base_model=base, lora_id=lora_id, is_usable=False)
    chosen = trainer(registry, season, base, character.training) if character.lora == "auto" else None
    steps = steps_of(chosen, character.training, 0) if chosen is not None else 0
    return Learner(base_model=base, lora_id=lora_id, trainer=chosen, steps=steps, views=VIEWS_PER_LORA)


def learning_purchases(registry: Registry, season: Season, member: Member) -> list[Purchase]:
    """Captions, trainings, views and references of one character, in the order of the flows."""
    name, character = member.character.name, member.character
    purchases = []
    if member.captions:
        captioner = registry.captioner_for(catalogue_of(vendor_for(season, "image")))
        purchases.append(
            Purchase(
                stage=Stage.CAPTIONS,
                operation=Operation.DESCRIBE_PICTURE,
                api_name=captioner.key,
                model_key=captioner.key,
                character=name,
                count=member.captions,
                estimate_usd=price_of_caption(captioner.key),
            )
        )
    for lora in member.loras:
        view = view_price(registry, season, lora.base_model, IDENTITY_VIEWS[0])
        if lora.trainer is not None:
            views_again = len(IDENTITY_VIEWS) * view[2] if view is not None else Decimal(0)
            longer = steps_of(lora.trainer, character.training.model_copy(update={"steps": lora.steps}), 1)
            purchases.append(
                Purchase(
                    stage=Stage.LORA_TRAINING,
                    operation=Operation.TRAIN_LORA,
                    api_name=lora.trainer.key,
                    model_key=lora.trainer.key,
                    character=name,
                    base_model=lora.base_model,
                    estimate_usd=price_of_training(lora.trainer.key, lora.steps),
                    units=lora.steps,
                    again_usd=price_of_training(lora.trainer.key, longer) + views_again,
                    again_longer=longer / lora.steps,
                )
            )
        if lora.views and view is not None:
            model, operation, estimate, seconds = view
            purchases.append(
                Purchase(
                    stage=Stage.IDENTITY_CHECK,
                    operation=operation,
                    api_name=model.key,
                    model_key=model.key,
                    character=name,
                    base_model=lora.base_model,
                    count=lora.views,
                    estimate_usd=estimate,
                    units=seconds,
                )
            )
    return purchases + _references(registry, season, member)


def _references(registry: Registry, season: Season, member: Member) -> list[Purchase]:
    drawing = [
        model for lora in member.loras if lora.is_usable and (model := still_model(registry, season, lora.base_model))
    ]
    if not member.references or not drawing:
        return []
    view, _ = reference_candidates()[0]
    return [
        Purchase(
            stage=Stage.REFERENCES,
            operation=Operation.MAKE_STILL,
            api_name=drawing[0].key,
            model_key=drawing[0].key,
            character=member.character.name,
            count=member.references,
            estimate_usd=still_price(drawing[0], view.image_size),
        )
    ]


def slot_purchases(
    registry: Registry, season: Season, slot: SlotEntry, cast: list[Member], notes: list[str]
) -> list[Purchase]:
    by_name = {member.character.name: member for member in cast}
    names = mentioned_names(slot.prompt or "", list(by_name))
    shown = tuple(_at_render(registry, season, by_name[name]) for name in names)
    wanted, default = (video_model(registry, season, key) for key in (slot.video_model, None))
    model, routes = first_routes(wanted, default, shown)
    if not shown and not slot.scene_references and _films_a_picture(model):
        notes.append(f"Slot {slot.number}: {model.key} films a picture and there is none, so it cannot be rendered.")
        return []
    return filming_purchases(registry, season, slot.number, model, slot_seconds(model, slot), routes, shown)


def _films_a_picture(model: Model) -> bool:
    takes = model_takes(model)
    is_needed = model.video is not None and not model.video.image_is_optional
    return (takes.has_image or takes.has_references) and is_needed and not takes.has_elements


def _at_render(registry: Registry, season: Season, member: Member) -> CharacterAtRender:
    """The character as it will stand at the render, if all goes well."""
    character = member.character
    face = face_model(registry, season)
    loras = []
    for lora in member.loras:
        drawing = still_model(registry, season, lora.base_model)
        loras.append(
            LoraAtRender(
                lora_id=lora.lora_id,
                base_model=lora.base_model,
                trigger_word=character.trigger_word,
                status=LoraStatus.READY if lora.is_usable else LoraStatus.FAILED,
                file=STAND_IN if lora.is_usable else None,
                still_model=drawing.key if drawing else None,
            )
        )
    return CharacterAtRender(
        character_id=character.id,
        name=character.name,
        description=character.description,
        lora_scale=character.lora_scale,
        is_lora_wanted=character.is_lora_wanted,
        loras=tuple(loras),
        pinned_frontal=STAND_IN if member.is_pinned else None,
        originals=(STAND_IN,),
        face_model=face.key if face is not None else None,
    )


def filming_purchases(
    registry: Registry,
    season: Season,
    number: int,
    model: Model,
    seconds: float,
    routes: tuple[CharacterRoute, ...],
    cast: tuple[CharacterAtRender, ...],
) -> list[Purchase]:
    """The stills of a slot, one per group that shares a LoRA's base and one per face, and its video."""
    bases = {lora.lora_id: lora.base_model for character in cast for lora in character.loras}
    purchases = []
    stills: list[tuple[CharacterRoute, str, Model]] = []
    for group in still_groups(registry, season, model.key, routes, cast):
        assert group[0].lora_id is not None
        base = bases[group[0].lora_id]
        drawing = still_model(registry, season, base)
        assert drawing is not None
        stills.append((group[0], still_api_name(base), drawing))
    face_models = {character.character_id: character.face_model for character in cast}
    for route in routes:
        face = face_models.get(route.character_id)
        if route.route is Route.FACE_STILL and face is not None:
            stills.append((route, FACE_STILL_API, registry.model(face)))
    for route, api_name, drawing in stills:
        estimate = still_price(drawing, STILL_SIZE)
        purchases.append(
            Purchase(
                stage=Stage.LORA_APPLICATION,
                operation=Operation.MAKE_STILL,
                api_name=api_name,
                model_key=drawing.key,
                character=route.name,
                slot_number=number,
                estimate_usd=estimate,
                again_usd=estimate,
            )
        )
    estimate = price_of_video(model.key, seconds)
    purchases.append(
        Purchase(
            stage=Stage.VIDEO,
            operation=Operation.MAKE_VIDEO,
            api_name=model.key,
            model_key=model.key,
            slot_number=number,
            estimate_usd=estimate,
            units=seconds,
            again_usd=estimate,
        )
    )
    return purchases
