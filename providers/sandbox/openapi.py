"""The answer of fal's schema endpoint: an OpenAPI document of one endpoint's input, made from its schema record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers.sandbox.schemas import IMAGE_SIZES, Catalogue, Endpoint, Field


def openapi_document(endpoint: Endpoint, catalogue: Catalogue) -> dict[str, Any]:
    """What `https://fal.ai/api/openapi/queue/openapi.json?endpoint_id=…` says of this endpoint."""
    input_name = f"{endpoint.title}Input"
    schemas = {input_name: _object_schema(endpoint.fields, catalogue)}
    for spec in endpoint.fields.values():
        if spec.items in catalogue.objects:
            schemas[spec.items] = _object_schema(catalogue.objects[spec.items], catalogue)
    return {
        "openapi": "3.0.4",
        "info": {
            "title": f"Queue OpenAPI for {endpoint.name} (OnModel sandbox)",
            "version": "1.0.0",
            "x-fal-metadata": {"endpointId": endpoint.name},
        },
        "components": {
            "securitySchemes": {"apiKeyAuth": {"type": "apiKey", "in": "header", "name": "Authorization"}},
            "schemas": schemas,
        },
        "paths": {
            f"/{endpoint.name}": {
                "post": {
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{input_name}"}}},
                    },
                    "responses": {"200": {"description": "The request status."}},
                }
            }
        },
        "servers": [{"url": "https://queue.fal.run"}],
        "security": [{"apiKeyAuth": []}],
    }


def _object_schema(fields: Mapping[str, Field], catalogue: Catalogue) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _field_schema(spec, catalogue) for name, spec in fields.items()},
        "x-fal-order-properties": list(fields),
    }
    if required := [name for name, spec in fields.items() if spec.is_required]:
        schema["required"] = required
    return schema


def _field_schema(spec: Field, catalogue: Catalogue) -> dict[str, Any]:
    if spec.type == "image_size":
        size = {"type": "object", "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}}}
        return {"anyOf": [size, {"type": "string", "enum": [*IMAGE_SIZES, *spec.enum]}], "default": spec.default}
    schema: dict[str, Any] = {"type": "array" if spec.type == "list" else spec.type}
    if spec.type == "list":
        is_object = spec.items in catalogue.objects
        schema["items"] = {"$ref": f"#/components/schemas/{spec.items}"} if is_object else {"type": spec.items}
    facts = {
        "enum": list(spec.enum) or None,
        "minimum": spec.min,
        "maximum": spec.max,
        "maxLength": spec.max_length,
        "minItems": spec.min_items,
        "maxItems": spec.max_items,
    }
    schema.update({name: value for name, value in facts.items() if value is not None})
    if spec.has_default:
        schema["default"] = spec.default
    return schema
