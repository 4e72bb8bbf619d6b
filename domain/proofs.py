"""What was proved of a model: the verdict of a paid probe, kept with its date, and how far it can still be believed."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from domain.jobs import canonical_json
from domain.model_rules import Model
from domain.records import Record

OLD_AFTER = timedelta(days=60)
"""Models change, and vanish, within months (fal.md 2.7): an older proof is shown as old. Ours."""


PROBE_SEASONS = {False: "model-probes", True: "model-probes-rehearsal"}
"""The season that probes are booked on, by whether they are a rehearsal. Nobody runs it, and no list shows it."""


class Verdict(StrEnum):
    """What a probe found.

    `IGNORED`: the LoRA was accepted and changed nothing. `REFUSED`: the vendor refused the request as our registry
    writes it. `SCHEMA_CHANGED`: its live schema lacks a field we send, and nothing was bought.
    """

    WORKS = "works"
    IGNORED = "ignored"
    REFUSED = "refused"
    SCHEMA_CHANGED = "schema_changed"
    INCONCLUSIVE = "inconclusive"


class Proof(Record):
    """One probe. `difference` is how far the outputs with and without the LoRA lie apart, beside the noise between two
    equal requests, as the probe's own `detail` says it."""

    model_key: str
    vendor: str
    verdict: Verdict
    detail: str
    difference: float | None = None
    cost_usd: Decimal = Decimal(0)
    registry_sha256: str
    job_keys: tuple[str, ...] = ()
    is_simulated: bool
    proved_at: datetime

    def counts_for(self, model: Model) -> bool:
        """Whether it was of this very entry; after a change of the registry it proves nothing."""
        return self.registry_sha256 == entry_sha256(model)

    def is_old(self, now: datetime) -> bool:
        return now - self.proved_at > OLD_AFTER


def entry_sha256(model: Model) -> str:
    """Digest of everything the registry says of a model but its sources and title."""
    facts = model.model_dump(mode="json", exclude={"sources", "title"})
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()
