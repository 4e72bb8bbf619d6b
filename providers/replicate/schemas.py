"""What Replicate says its models take, today: read from a model's newest version or the one we name, kept for an hour.

`GET /models/{owner}/{name}` shows `latest_version.openapi_schema` (replicate_comfyui.md 1.1); an input's fields stand
in `components.schemas.Input` there, a trainer's in `TrainingInput`, as Cog, which packs the models, writes them.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.errors import Rejected, Retryable, Unavailable
from domain.jobs import VendorRequest
from domain.model_rules import Model, ModelKind
from providers.ports import Clock
from providers.replicate.client import ReplicateClient
from providers.vendor_ports import LiveSchema
from providers.vendor_words import json_of

log = logging.getLogger("onmodel.replicate")

KEPT_FOR = timedelta(hours=1)


class ReplicateSchemas:
    """`SchemaReader` over Replicate's models. Free; safe to share between threads."""

    def __init__(self, client: ReplicateClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, LiveSchema] = {}

    def live_schema(self, model: Model) -> LiveSchema:
        """As `vendor_ports.SchemaReader`."""
        now = self._clock.now().astimezone(UTC)
        with self._lock:
            kept = self._kept.get(model.endpoint)
        if kept is not None and timedelta() <= now - kept.read_at < KEPT_FOR:
            return kept
        found = self._read(model, now)
        with self._lock:
            self._kept[model.endpoint] = found
        return found

    def check_schema(self, model: Model, request: VendorRequest) -> None:
        """As `vendor_ports.SchemaReader`."""
        try:
            live = self.live_schema(model)
        except Retryable as error:
            log.warning("%s is ordered without a look at what it takes today: %s", model.key, error.message)
            return
        given = frozenset(request.arguments)
        problems = [f"has no field {name!r}" for name in sorted(given - live.fields)]
        problems += [f"also wants {name!r}" for name in sorted(live.required - given)]
        if problems:
            raise Rejected(
                f"{model.endpoint} has changed since it was written down: it {' and '.join(problems)} "
                f"(Replicate's schema, read {live.read_at:%Y-%m-%d %H:%M} UTC). Correct {model.key} in "
                "domain/models/replicate.toml or choose another model; nothing was sent."
            )

    def _read(self, model: Model, now: datetime) -> LiveSchema:
        name, _, version = model.endpoint.partition(":")
        path = f"/models/{name}/versions/{version}" if version else f"/models/{name}"
        response = self._client.look("GET", path)
        if response.status_code in (404, 410):
            raise Rejected(
                f"Replicate no longer has {model.endpoint} ({model.key}): it answers {response.status_code}. Choose "
                "another model; nothing was sent."
            )
        self._client.check_look(response, f"reading the schema of {name}")
        shown = json_of(response)
        found = shown if version else _at(shown, "latest_version")
        part = "TrainingInput" if model.kind is ModelKind.TRAINER else "Input"
        schema = _at(found, "openapi_schema", "components", "schemas", part)
        fields, required = _at(schema, "properties"), _at(schema, "required") or []
        if not isinstance(fields, dict) or not fields or not isinstance(required, list):
            raise Unavailable(f"Replicate shows no schema of {name} that says what it takes.")
        names = frozenset(str(field) for field in required)
        return LiveSchema(fields=frozenset(str(field) for field in fields), required=names, read_at=now)


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
