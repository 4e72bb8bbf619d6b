"""What fal says its endpoints take, today: read from its schema pages, kept for an hour, held against a request.

`https://fal.ai/api/openapi/queue/openapi.json?endpoint_id=…` answers without a key, with an OpenAPI document of one
endpoint (fal.md 1.9; fal's public catalogues are distilled from it, 2026-09). The key is not sent there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx

from domain.errors import Rejected, Unavailable
from domain.jobs import VendorRequest
from domain.model_rules import Model
from providers.fal.client import FalClient
from providers.live_schemas import check_arguments, part_at
from providers.vendor_ports import LiveSchema
from providers.vendor_words import json_of

log = logging.getLogger("onmodel.fal")

SCHEMA_URL = "https://fal.ai/api/openapi/queue/openapi.json"
KEPT_SECONDS = 3600.0
PATIENCE_SECONDS = 10.0
"""A training waits for nothing but this, and a page that is slow only costs the look."""
LARGEST_DOCUMENT_BYTES = 4 * 1024 * 1024
DEEPEST, MOST_PARTS = 4, 16
"""How far references are followed: fal's point once, and a document that points at itself must end."""

WITNESS = "fal-ai/flux-lora"
"""An endpoint that fal has had since 2024. Where even this one has no schema, the page has moved, and its 404 says
nothing of a trainer: how fal answers for retired ids is not confirmed (fal.md 5.1)."""


class FalSchemas:
    """`SchemaReader` over fal's schema pages. Safe to share between threads; `clock` counts seconds."""

    def __init__(self, client: FalClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, LiveSchema | None]] = {}

    def live_schema(self, model: Model) -> LiveSchema:
        """As `vendor_ports.SchemaReader`."""
        found = self._schema(model.endpoint)
        if found is None:
            raise Rejected(
                f"fal no longer has {model.endpoint} ({model.key}): its schema page answers 404. Choose another model; "
                "nothing was sent."
            )
        return found

    def check_schema(self, model: Model, request: VendorRequest) -> None:
        """As `vendor_ports.SchemaReader`."""
        try:
            live = self.live_schema(model)
        except Unavailable as error:
            log.warning("%s is ordered without a look at what it takes today: %s", model.key, error.message)
            return
        check_arguments(model, request, live, "fal", "domain/models/fal.toml")

    def _schema(self, endpoint: str) -> LiveSchema | None:
        """None when fal has no such endpoint."""
        with self._lock:
            kept = self._kept.get(endpoint)
        if kept is not None and self._clock() - kept[0] < KEPT_SECONDS:
            return kept[1]
        found = self._read(endpoint)
        if found is None and (endpoint == WITNESS or self._schema(WITNESS) is None):
            raise Unavailable(f"fal's schema page answers 404 even for {WITNESS}, so it has moved.")
        with self._lock:
            self._kept[endpoint] = (self._clock(), found)
        return found

    def _read(self, endpoint: str) -> LiveSchema | None:
        try:
            response = self._client.http.get(
                SCHEMA_URL, params={"endpoint_id": endpoint}, follow_redirects=False, timeout=PATIENCE_SECONDS
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unavailable(f"fal's schema page could not be read ({self._client.failure(error)}).") from error
        if response.status_code in (404, 410):
            return None
        document = json_of(response) if len(response.content) <= LARGEST_DOCUMENT_BYTES else None
        schema = _input_schema(document, endpoint) if response.is_success else None
        if schema is None:
            raise Unavailable(f"fal's schema page answered {response.status_code} and nothing that says what it takes.")
        return schema


def _input_schema(document: Any, endpoint: str) -> LiveSchema | None:
    """The schema of the endpoint's POST; None when the document has none that can be read.

    The path is the endpoint's; where fal writes it otherwise, the document's only POST is meant.
    """
    paths = part_at(document, "paths")
    entries = paths.items() if isinstance(paths, dict) else ()
    posts = {name: post for name, path in entries if isinstance(post := part_at(path, "post"), dict)}
    post = posts.get(f"/{endpoint}") or (next(iter(posts.values())) if len(posts) == 1 else None)
    body = part_at(post, "requestBody", "content", "application/json", "schema")
    fields, required = _merged(document, body, DEEPEST)
    if not fields:
        return None
    return LiveSchema(fields=frozenset(fields), required=frozenset(required), read_at=datetime.now(UTC))


def _merged(document: Any, schema: Any, levels: int) -> tuple[set[str], set[str]]:
    """The fields and the required ones of an object schema, through references and `allOf`."""
    if levels == 0 or not isinstance(schema, dict):
        return set(), set()
    properties, names, parts = schema.get("properties"), schema.get("required"), schema.get("allOf")
    fields = {str(name) for name in properties} if isinstance(properties, dict) else set()
    required = {str(name) for name in names} if isinstance(names, list) else set()
    others = list(parts) if isinstance(parts, list) else []
    if isinstance(reference := schema.get("$ref"), str):
        others.append(part_at(document, "components", "schemas", reference.rpartition("/")[2]))
    for other in others[:MOST_PARTS]:
        more_fields, more_required = _merged(document, other, levels - 1)
        fields |= more_fields
        required |= more_required
    return fields, required
