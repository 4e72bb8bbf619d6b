"""What Replicate says its models take, today: read from a model's newest version or the one we name, kept for an hour.

`GET /models/{owner}/{name}` shows `latest_version.openapi_schema` (replicate_comfyui.md 1.1); an input's fields stand
in `components.schemas.Input` there, a trainer's in `TrainingInput`, as Cog, which packs the models, writes them.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta

from domain.errors import Rejected, Retryable, Unavailable
from domain.jobs import VendorRequest
from domain.model_rules import Model, ModelKind
from providers.live_schemas import check_arguments, part_at
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
        check_arguments(model, request, live, "Replicate", "domain/models/replicate.toml")

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
        found = shown if version else part_at(shown, "latest_version")
        part = "TrainingInput" if model.kind is ModelKind.TRAINER else "Input"
        schema = part_at(found, "openapi_schema", "components", "schemas", part)
        fields, required = part_at(schema, "properties"), part_at(schema, "required") or []
        if not isinstance(fields, dict) or not fields or not isinstance(required, list):
            raise Unavailable(f"Replicate shows no schema of {name} that says what it takes.")
        names = frozenset(str(field) for field in required)
        return LiveSchema(fields=frozenset(str(field) for field in fields), required=names, read_at=now)
