"""The same work as orders for the vendors that follow in the manifest, used when the first is known dead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

from domain.errors import BadInput, NotConfigured, Rejected
from domain.jobs import JobOrder
from domain.model_rules import Model
from domain.offers import vendors_with
from domain.registry import Registry
from domain.seasons import Season
from domain.vendors import Work, vendors_for

log = logging.getLogger("onmodel.jobs")


def order_with_fallbacks(
    season: Season,
    work: Work,
    order_at: Callable[[str], JobOrder],
    *,
    model: Model | None = None,
    registry: Registry | None = None,
) -> JobOrder:
    """The order at the first vendor of the manifest, with the same work at each that follows. Pure, but for the log.

    `order_at` writes the order for a vendor. With `model` (and the `registry` it is of) only vendors that have that
    very model count; without, `order_at` finds the vendor's own. One that cannot do the work, or is not set up here, is
    left out with a line in the log. Raises what `order_at` raises for the first; `BadInput` when none has the model.
    """
    vendors = vendors_for(season, work)
    if model is not None and registry is not None:
        having = vendors_with(registry, season, work, model)
        for vendor in vendors:
            if vendor not in having:
                _leave_out(season.slug, work, vendor, f"it does not have {model.name}")
        vendors = having
        if not vendors:
            asked = " or ".join(vendors_for(season, work))
            raise BadInput(f"{model.name} is not to be had at {asked}: write another model, or a vendor that has it.")
    first, *following = vendors
    order = order_at(first)
    fallbacks = []
    for vendor in following:
        try:
            fallbacks.append(order_at(vendor))
        except (BadInput, NotConfigured, Rejected) as reason:
            _leave_out(season.slug, work, vendor, reason.message)
    return order.model_copy(update={"fallbacks": tuple(fallbacks)})


@cache
def _leave_out(slug: str, work: Work, vendor: str, why: str) -> None:
    """Said once by each process: orders are written again at every look."""
    log.info("%s: %s cannot stand in for the first vendor (%s): %s", slug, vendor, work, why.rstrip("."))
