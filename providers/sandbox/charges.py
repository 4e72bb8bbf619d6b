"""What the sandbox says it charged: fal's list prices for what its jobs really did. No money moves.

As at fal a success is charged, an error of the platform never (reference 1.5: "never charged for 5xx; a 422 may be
charged if GPU time was spent"); the fault `job:charge` makes the second come true, or charges another amount.
"""

from __future__ import annotations

from decimal import Decimal

from domain.money import price_of_caption, price_of_still, price_of_training, price_of_video
from domain.registry import load_registry
from providers.sandbox.asked import clip_seconds, still_size
from providers.sandbox.faults import parse_faults
from providers.sandbox.journal import Job
from providers.sandbox.schemas import check_input, load_catalogue

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
            return price_of_still(model.key, *still_size(values)) * int(values.get("num_images") or 1)
        case "caption":
            return price_of_caption(model.key)
        case _:
            return price_of_video(model.key, clip_seconds(endpoint, values))
