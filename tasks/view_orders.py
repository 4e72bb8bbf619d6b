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
from domain.prompts import with_trigger
from domain.registry import Registry
from domain.seasons import Character, Season
from domain.vendors import SANDBOX
from providers.vendor_ports import LoraUse, StillOrder, VideoOrder
from tasks.fallback_orders import order_with_fallbacks

if TYPE_CHECKING:
    from providers.wiring import Ports


def order_view(
    ports: Ports, season: Season, character: Character, lora: Lora, view: View, *, scale: float, seed: int, stage: Stage
) -> JobOrder:
    """The order for one view; `scale` 0 leaves the LoRA out (the control). Pure and free.

    `BadInput` when nothing here draws or films with a LoRA of this base.
    """
    file = lora.file_ref()
    assert file is not None, f"LoRA {lora.id} has no file"
    uses = (LoraUse(file=file, scale=scale),) if scale > 0 else ()
    prompt = f"{with_trigger(lora.trigger_word, character.description)} {view.words}"
    still_model = ports.registry.still_model_for(lora.base_model)
    if still_model is not None:
        order = StillOrder(
            model_key=still_model.key,
            prompt=prompt,
            loras=uses,
            image_size=view.image_size,
            steps=IDENTITY_STEPS,
            guidance=IDENTITY_GUIDANCE,
            seed=seed,
        )
        return still_job(ports, season, order, character_id=character.id, stage=stage, api_name=still_model.key)
    clip_model = filming_model(ports.registry, lora.base_model)
    if clip_model is None:
        raise BadInput(f"{character.name}: nothing here draws or films with a LoRA of {lora.base_model}.")
    return _shortest_clip(ports, season, character, clip_model, prompt, uses, seed, stage)


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
    estimate = still_price(model, order.image_size)

    def order_at(vendor: str) -> JobOrder:
        return JobOrder(
            season_id=season.id,
            slot_number=slot_number,
            character_id=character_id,
            stage=stage,
            operation=Operation.MAKE_STILL,
            api_name=api_name,
            model_key=model.key,
            request=ports.vendor(vendor).still_request(order),
            estimate_usd=estimate,
            ceiling_usd=ceiling_usd(estimate),
            is_simulated=vendor == SANDBOX,
        )

    return order_with_fallbacks(season, "image", order_at, model=model)


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
    estimate = price_of_video(model.key, priced_seconds)

    def order_at(vendor: str) -> JobOrder:
        return JobOrder(
            season_id=season.id,
            slot_number=slot_number,
            character_id=character_id,
            stage=stage,
            operation=Operation.MAKE_VIDEO,
            api_name=model.key,
            model_key=model.key,
            request=ports.vendor(vendor).video_request(order),
            estimate_usd=estimate,
            ceiling_usd=ceiling_usd(estimate),
            is_simulated=vendor == SANDBOX,
        )

    return order_with_fallbacks(season, "video", order_at, model=model)


def still_price(model: Model, image_size: str | tuple[int, int]) -> Decimal:
    """Estimate in USD of one still of this size, the model's own word for it or (width, height) in pixels."""
    assert model.still is not None
    return price_of_still(model.key, *(model.still.sizes[image_size] if isinstance(image_size, str) else image_size))


def filming_model(registry: Registry, base_model: str) -> Model | None:
    """A video model that loads LoRAs of this base."""
    return next((m for m in registry.video_models() if m.base_model == base_model and m.lora and m.lora.takes), None)


def view_price(registry: Registry, base_model: str, view: View) -> tuple[Model, Operation, Decimal, float] | None:
    """What one view of a LoRA of this base is made with: model, operation, estimate in USD, seconds of a clip (0: a
    still). None when nothing here draws or films with it. Pure."""
    still_model = registry.still_model_for(base_model)
    if still_model is not None:
        return still_model, Operation.MAKE_STILL, still_price(still_model, view.image_size), 0.0
    clip_model = filming_model(registry, base_model)
    if clip_model is None:
        return None
    seconds, _ = _shortest(clip_model)
    return clip_model, Operation.MAKE_VIDEO, price_of_video(clip_model.key, seconds), seconds


def _shortest(model: Model) -> tuple[float, int | None]:
    """The shortest clip a model makes: its length in seconds as it is priced, and its frames where it counts those."""
    assert model.video is not None
    duration = model.video.duration
    frames = duration.min_frames if duration.wire == "frames" else None
    rate = duration.frames_per_second or 1
    return (frames / rate if frames else duration.shortest_and_longest[0]), frames


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
    priced_seconds, frames = _shortest(model)
    order = VideoOrder(
        model_key=model.key,
        prompt=prompt,
        seconds=model.video.duration.shortest_and_longest[0],
        frames=frames,
        aspect_ratio="1:1",
        loras=uses,
        seed=seed,
    )
    return clip_job(ports, season, order, stage=stage, priced_seconds=priced_seconds, character_id=character.id)
