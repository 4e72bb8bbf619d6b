"""Stills and clips as jobs, and the standard views of a character: a still where its base has a still model, else the
shortest clip."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from domain.errors import BadInput
from domain.jobs import JobOrder, Operation, Stage
from domain.loras import IDENTITY_GUIDANCE, IDENTITY_STEPS, Lora, View
from domain.model_rules import Model
from domain.money import ceiling_usd, price_of_still, price_of_video
from domain.offers import filming_model, still_model
from domain.prompts import with_trigger
from domain.registry import Registry
from domain.seasons import Character, Season
from domain.vendors import catalogue_of, is_stand_in
from providers.vendor_ports import LoraUse, StillOrder, VideoOrder
from tasks.backdrops import empty_backdrop
from tasks.fallback_orders import order_with_fallbacks
from tasks.profiles import profile_for

if TYPE_CHECKING:
    from providers.wiring import Ports


def order_view(
    ports: Ports, season: Season, character: Character, lora: Lora, view: View, *, scale: float, seed: int, stage: Stage
) -> JobOrder:
    """The order for one view; `scale` 0 leaves the LoRA out (the control), or without effect where the model takes no
    order without one. Pure and free.

    `BadInput` when nothing here draws or films with a LoRA of this base.
    """
    prompt = view_prompt(lora, character, view)
    drawing = still_model(ports.registry, season, lora.base_model)
    if drawing is not None:
        steps, guidance = still_settings(drawing)
        order = StillOrder(
            model_key=drawing.key,
            prompt=prompt,
            loras=_uses(lora, drawing, scale),
            image_size=view.image_size,
            steps=steps,
            guidance=guidance,
            seed=seed,
            profile=profile_for(ports, season.id, character.id, drawing),
        )
        return still_job(ports, season, order, character_id=character.id, stage=stage, api_name=drawing.key)
    filming = filming_model(ports.registry, season, lora.base_model)
    if filming is None:
        raise BadInput(f"{character.name}: nothing here draws or films with a LoRA of {lora.base_model}.")
    return _shortest_clip(ports, season, character, filming, prompt, _uses(lora, filming, scale), seed, stage)


def _uses(lora: Lora, model: Model, scale: float) -> tuple[LoraUse, ...]:
    file = lora.file_ref()
    assert file is not None, f"LoRA {lora.id} has no file"
    is_wanted = scale > 0 or (model.lora is not None and model.lora.is_required)
    return (LoraUse(file=file, scale=scale, high_noise=lora.high_noise_ref()),) if is_wanted else ()


def view_prompt(lora: Lora, character: Character, view: View) -> str:
    """What is asked for in one view."""
    return f"{with_trigger(lora.trigger_word, character.description)} {view.words}"


def still_settings(model: Model) -> tuple[int, float]:
    """Steps and guidance of the standard views; the model's own defaults where they are outside its limits."""
    assert model.still is not None
    wanted = ((model.still.steps, float(IDENTITY_STEPS)), (model.still.guidance, IDENTITY_GUIDANCE))
    steps, guidance = (
        value if rule is None or rule.minimum <= value <= rule.maximum else rule.default for rule, value in wanted
    )
    return int(steps), guidance


def still_job(
    ports: Ports,
    season: Season,
    order: StillOrder,
    *,
    stage: Stage,
    api_name: str,
    character_id: int | None = None,
    slot_number: int | None = None,
) -> JobOrder:
    """A still as a job: its request, its price and its ceiling."""
    model = ports.registry.model(order.model_key)

    def order_at(vendor: str) -> JobOrder:
        offered = _offered(ports, model, vendor)
        estimate = still_price(offered, order.image_size)
        return JobOrder(
            season_id=season.id,
            slot_number=slot_number,
            character_id=character_id,
            stage=stage,
            operation=Operation.MAKE_STILL,
            api_name=api_name,
            model_key=offered.key,
            request=ports.image_maker(vendor).still_request(order.model_copy(update={"model_key": offered.key})),
            estimate_usd=estimate,
            ceiling_usd=ceiling_usd(estimate),
            is_simulated=is_stand_in(vendor),
        )

    return order_with_fallbacks(season, "image", order_at, model=model, registry=ports.registry)


def _offered(ports: Ports, model: Model, vendor: str) -> Model:
    """The same model as this vendor has it; only vendors that have it are asked."""
    offered = ports.registry.at(model.key, (catalogue_of(vendor),))
    assert offered is not None, f"{vendor} does not have {model.key}"
    return offered


def clip_job(
    ports: Ports,
    season: Season,
    order: VideoOrder,
    *,
    stage: Stage,
    priced_seconds: float,
    character_id: int | None = None,
    slot_number: int | None = None,
) -> JobOrder:
    """A clip as a job: its request, its price for so many seconds and its ceiling."""
    model = ports.registry.model(order.model_key)

    def order_at(vendor: str) -> JobOrder:
        offered = _offered(ports, model, vendor)
        assert offered.video is not None
        seconds = priced_seconds if offered is model else offered.video.duration.nearest_seconds(order.seconds)
        estimate = price_of_video(offered.key, seconds)
        changes = {"model_key": offered.key} | ({} if offered is model else {"seconds": seconds, "frames": None})
        return JobOrder(
            season_id=season.id,
            slot_number=slot_number,
            character_id=character_id,
            stage=stage,
            operation=Operation.MAKE_VIDEO,
            api_name=offered.key,
            model_key=offered.key,
            request=ports.video_maker(vendor).video_request(order.model_copy(update=changes)),
            estimate_usd=estimate,
            ceiling_usd=ceiling_usd(estimate),
            is_simulated=is_stand_in(vendor),
        )

    return order_with_fallbacks(season, "video", order_at, model=model, registry=ports.registry)


def still_price(model: Model, image_size: str | tuple[int, int]) -> Decimal:
    """Estimate in USD of one still of this size, the model's own word for it or (width, height) in pixels."""
    assert model.still is not None
    return price_of_still(model.key, *(model.still.sizes[image_size] if isinstance(image_size, str) else image_size))


def view_price(
    registry: Registry, season: Season, base_model: str, view: View
) -> tuple[Model, Operation, Decimal, float] | None:
    """What one view of a LoRA of this base is made with: model, operation, estimate in USD, seconds of a clip (0: a
    still). None when nothing here draws or films with it. Pure."""
    drawing = still_model(registry, season, base_model)
    if drawing is not None:
        return drawing, Operation.MAKE_STILL, still_price(drawing, view.image_size), 0.0
    filming = filming_model(registry, season, base_model)
    if filming is None:
        return None
    assert filming.video is not None
    seconds, _ = filming.video.duration.shortest_clip
    return filming, Operation.MAKE_VIDEO, price_of_video(filming.key, seconds), seconds


def _shortest_clip(
    ports: Ports,
    season: Season,
    character: Character,
    model: Model,
    prompt: str,
    uses: tuple[LoraUse, ...],
    seed: int,
    stage: Stage,
) -> JobOrder:
    assert model.video is not None
    priced_seconds, frames = model.video.duration.shortest_clip
    aspect = model.video.aspect
    order = VideoOrder(
        model_key=model.key,
        prompt=prompt,
        seconds=model.video.duration.shortest_and_longest[0],
        frames=frames,
        aspect_ratio="1:1" if aspect is None or "1:1" in aspect.allowed else aspect.allowed[0],
        image=empty_backdrop(ports) if model.video.image_field is not None else None,
        loras=uses,
        seed=seed,
        profile=profile_for(ports, season.id, character.id, model),
    )
    return clip_job(ports, season, order, stage=stage, priced_seconds=priced_seconds, character_id=character.id)
