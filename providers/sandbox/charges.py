"""What the sandbox says it charged: the list prices of domain/prices.toml for what its jobs really did. No money moves.

As at fal a success is charged, an error of the platform never (reference 1.5: "never charged for 5xx; a 422 may be
charged if GPU time was spent"); the fault `job:charge` makes the second come true, or charges another amount.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from domain.money import price_of_caption, price_of_still, price_of_training, price_of_video
from domain.registry import load_registry
from providers.sandbox.faults import parse_faults
from providers.sandbox.journal import Job
from providers.sandbox.schemas import IMAGE_SIZES, Endpoint, check_input, load_catalogue

FREE = Decimal(0)


def charge_usd(job: Job) -> Decimal:
    """What the job is charged, in USD; 0 while it is not over and for one that ended badly."""
    if job.outcome is None:
        return FREE
    faults = [fault for text in job.faults for fault in parse_faults(text) if fault.kind == "charge"]
    if faults and faults[0].argument is not None:
        return Decimal(str(faults[0].number(0)))
    return list_price_usd(job) if faults or job.outcome.status == 200 else FREE


def list_price_usd(job: Job) -> Decimal:
    """The list price of what the job's input asks for; 0 for what no price is known of."""
    endpoint = load_catalogue().endpoints.get(job.endpoint)
    model = load_registry().by_endpoint("fal", job.endpoint)
    if endpoint is None or model is None:
        return FREE
    values, issues = check_input(endpoint, job.input)
    if issues:
        return FREE
    match endpoint.work["kind"]:
        case "train":
            steps = values[endpoint.work["steps_field"]] or endpoint.work["default_steps"]
            return price_of_training(model.key, int(steps))
        case "still":
            size = values["image_size"]
            width, height = IMAGE_SIZES[size] if isinstance(size, str) else (size["width"], size["height"])
            return price_of_still(model.key, width, height) * int(values["num_images"])
        case "caption":
            return price_of_caption(model.key)
        case _:
            return price_of_video(model.key, clip_seconds(endpoint, values))


def clip_seconds(endpoint: Endpoint, values: Mapping[str, Any]) -> float:
    """How long a clip is, as its input asks for it: in seconds, or by its frames."""
    if "num_frames" in values:
        return float(values["num_frames"]) / float(values["frames_per_second"])
    return float(endpoint.work.get("seconds") or str(values["duration"]).removesuffix("s"))
