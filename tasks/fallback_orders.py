"""The same work as orders for the vendors that follow in the manifest, used when the first is known dead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

from domain.errors import BadInput, NotConfigured, Rejected
from domain.jobs import JobOrder
from domain.model_rules import Model
from domain.seasons import Season
from domain.vendors import Work, catalogue_of, vendors_for

log = logging.getLogger("onmodel.jobs")


def order_with_fallbacks(
    season: Season, work: Work, order_at: Callable[[str], JobOrder], *, model: Model | None = None
) -> JobOrder:
    """The order at the first vendor of the manifest, with the same work at each that follows. Pure, but for the log.

    `order_at` writes the order for a vendor. With `model` only vendors whose catalogue has that very model follow;
    without, `order_at` finds the vendor's own. One that cannot do the work, or is not set up here, is left out with a
    line in the log. Raises what `order_at` raises for the first.
    """
    first, *following = vendors_for(season, work)
    order = order_at(first)
    fallbacks = []
    for vendor in following:
        if model is not None and model.vendor != catalogue_of(vendor):
            _leave_out(season.slug, work, vendor, f"it does not have {model.key}")
            continue
        try:
            fallbacks.append(order_at(vendor))
        except (BadInput, NotConfigured, Rejected) as reason:
            _leave_out(season.slug, work, vendor, reason.message)
    return order.model_copy(update={"fallbacks": tuple(fallbacks)})


@cache
def _leave_out(slug: str, work: Work, vendor: str, why: str) -> None:
    """Said once by each process: orders are written again at every look."""
    log.info("%s: %s cannot stand in for the first vendor (%s): %s", slug, vendor, work, why.rstrip("."))
