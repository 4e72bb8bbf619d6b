"""What the flows buy for a character or a slot, as purchases, reckoned with their own prices, counts and routes.

Pure: nothing here asks a vendor or the database.
"""

from __future__ import annotations

from decimal import Decimal

from domain.applications import CharacterAtRender, CharacterRoute, LoraAtRender
from domain.characters import LoraStatus
from domain.forecasts import Purchase
from domain.jobs import BlobRef, Operation, Stage
from domain.loras import IDENTITY_VIEWS
from domain.model_rules import Model
from domain.money import price_of_caption, price_of_training, price_of_video
from domain.prompts import mentioned_names
from domain.records import Record
from domain.registry import Registry
from domain.seasons import Character, Season, SlotEntry
from domain.vendors import catalogue_of, vendor_for
from tasks.application import STILL_SIZE, first_routes, model_takes, slot_seconds, still_api_name, still_groups
from tasks.references import reference_candidates
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
    trainer = (
        registry.trainer_for(base, catalogue_of(vendor_for(season, "train"))) if character.lora == "auto" else None
    )
    steps = steps_of(trainer, character.training, 0) if trainer is not None else 0
    return Learner(base_model=base, lora_id=lora_id, trainer=trainer, steps=steps, views=VIEWS_PER_LORA)


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
        view = view_price(registry, lora.base_model, IDENTITY_VIEWS[0])
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
    return purchases + _references(registry, member)


def _references(registry: Registry, member: Member) -> list[Purchase]:
    drawing = [
        model for lora in member.loras if lora.is_usable and (model := registry.still_model_for(lora.base_model))
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


def slot_purchases(registry: Registry, slot: SlotEntry, cast: list[Member], notes: list[str]) -> list[Purchase]:
    by_name = {member.character.name: member for member in cast}
    names = mentioned_names(slot.prompt or "", list(by_name))
    shown = tuple(_at_render(registry, by_name[name]) for name in names)
    wanted = registry.model(slot.video_model or registry.default_video_model)
    model, routes = first_routes(registry, wanted, shown)
    if not shown and not slot.scene_references and _films_a_picture(model):
        notes.append(f"Slot {slot.number}: {model.key} films a picture and there is none, so it cannot be rendered.")
        return []
    return filming_purchases(registry, slot.number, model, slot_seconds(model, slot), routes, shown)


def _films_a_picture(model: Model) -> bool:
    takes = model_takes(model)
    return takes.has_image and not takes.has_elements


def _at_render(registry: Registry, member: Member) -> CharacterAtRender:
    """The character as it will stand at the render, if all goes well."""
    character = member.character
    loras = []
    for lora in member.loras:
        still_model = registry.still_model_for(lora.base_model)
        loras.append(
            LoraAtRender(
                lora_id=lora.lora_id,
                base_model=lora.base_model,
                trigger_word=character.trigger_word,
                status=LoraStatus.READY if lora.is_usable else LoraStatus.FAILED,
                file=STAND_IN if lora.is_usable else None,
                still_model=still_model.key if still_model else None,
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
    )


def filming_purchases(
    registry: Registry,
    number: int,
    model: Model,
    seconds: float,
    routes: tuple[CharacterRoute, ...],
    cast: tuple[CharacterAtRender, ...],
) -> list[Purchase]:
    """The LoRA stills of a slot, one per group, and its video."""
    bases = {lora.lora_id: lora.base_model for character in cast for lora in character.loras}
    purchases = []
    for group in still_groups(registry, model.key, routes, cast):
        assert group[0].lora_id is not None
        base = bases[group[0].lora_id]
        still_model = registry.still_model_for(base)
        assert still_model is not None
        estimate = still_price(still_model, STILL_SIZE)
        purchases.append(
            Purchase(
                stage=Stage.LORA_APPLICATION,
                operation=Operation.MAKE_STILL,
                api_name=still_api_name(base),
                model_key=still_model.key,
                character=group[0].name,
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
