"""What each fal endpoint takes: `fal_schemas.toml` as records, and the 422 answers of inputs that do not fit.

The error objects have the shape of fal's (`loc`, `msg`, `type`, `ctx`, `input`; docs.fal.ai/errors, November 2026),
which is pydantic's: callers may decide on `type`, never on `msg`.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = Any

IMAGE_SIZES: dict[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
"""fal's presets, width × height in pixels."""
MAX_SIDE_PIXELS = 4096


@dataclass(frozen=True)
class Field:
    """One input field as fal's schema describes it."""

    type: str
    is_required: bool = False
    has_default: bool = False
    default: Json = None
    enum: tuple[str | int, ...] = ()
    min: float | None = None
    max: float | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    items: str = "string"
    image: str | None = None
    modulus: int | None = None
    remainder: int = 0

    @property
    def is_nullable(self) -> bool:
        return not self.is_required and not self.has_default


@dataclass(frozen=True)
class ImageLimits:
    """What a picture must be; sides in pixels, aspect = width ÷ height."""

    max_bytes: int
    min_side: int = 1
    min_aspect: float = 0.0
    max_aspect: float = 1e9


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: its fields, and `work`, what the runner makes of them."""

    name: str
    title: str
    fields: Mapping[str, Field]
    work: Mapping[str, Json] = field(default_factory=dict)

    @property
    def is_neutral(self) -> bool:
        """Whether it is in no vendor's words, so that no vendor's host answers for it."""
        return self.name.startswith("neutral/")

    @property
    def app(self) -> str:
        """Owner and app, all that fal's follow-up URLs carry (reference 1.4)."""
        return "/".join(self.name.split("/")[:2])


@dataclass(frozen=True)
class Catalogue:
    """Everything in `fal_schemas.toml` and `neutral_schemas.toml`."""

    endpoints: Mapping[str, Endpoint]
    objects: Mapping[str, Mapping[str, Field]]
    images: Mapping[str, ImageLimits]

    def has_app(self, name: str) -> bool:
        app = "/".join(name.split("/")[:2])
        return any(one.app == app for one in self.endpoints.values() if not one.is_neutral)


@functools.cache
def load_catalogue() -> Catalogue:
    """fal's endpoints, and the neutral ones that the other vendors' stand-ins turn their requests into."""
    raw: dict[str, dict[str, Json]] = {"endpoints": {}, "objects": {}, "images": {}}
    for name in ("fal_schemas.toml", "neutral_schemas.toml"):
        for table, entries in tomllib.loads(Path(__file__).with_name(name).read_text()).items():
            raw[table] |= entries

    def fields_of(name: str) -> dict[str, Field]:
        entry = raw["endpoints"][name]
        theirs = fields_of(entry["like"]) if "like" in entry else {}
        return theirs | _fields(entry["fields"])

    return Catalogue(
        endpoints={
            name: Endpoint(name, entry["title"], fields_of(name), entry["work"])
            for name, entry in raw["endpoints"].items()
        },
        objects={name: _fields(entry) for name, entry in raw["objects"].items()},
        images={name: ImageLimits(**entry) for name, entry in raw["images"].items()},
    )


def _fields(raw: Mapping[str, Mapping[str, Json]]) -> dict[str, Field]:
    def one(entry: Mapping[str, Json]) -> Field:
        values = dict(entry)
        values["is_required"] = values.pop("required", False)
        values["has_default"] = "default" in values
        values["enum"] = tuple(values.get("enum", ()))
        return Field(**values)

    return {name: one(entry) for name, entry in raw.items()}


def issue(loc: list[str | int], kind: str, msg: str, value: Json = None, **ctx: Json) -> dict[str, Json]:
    """One entry of a 422's `detail` list."""
    entry: dict[str, Json] = {"loc": loc, "msg": msg, "type": kind, "url": f"https://docs.fal.ai/errors#{kind}"}
    if ctx:
        entry["ctx"] = ctx
    entry["input"] = value
    return entry


def check_input(endpoint: Endpoint, body: Json) -> tuple[dict[str, Json], list[dict[str, Json]]]:
    """The input with its defaults filled in, and every objection to it (none: the input is good)."""
    if not isinstance(body, dict):
        return {}, [issue(["body"], "dict_type", "Input should be a valid dictionary", body)]
    issues: list[dict[str, Json]] = []
    values = _check_object(endpoint.fields, body, ["body"], issues)
    if not issues and "at_most" in endpoint.work:
        issues.extend(_check_picture_count(endpoint, values))
    return values, issues


def _check_picture_count(endpoint: Endpoint, values: Mapping[str, Json]) -> Iterator[dict[str, Json]]:
    pictures = [name for name in ("image_urls", "start_image_url") if values.get(name)]
    count = len(values.get("elements") or []) + sum(
        1 if isinstance(values[name], str) else len(values[name]) for name in pictures
    )
    limit = int(endpoint.work["at_most"])
    if count > limit:
        msg = f"Elements and images together must be at most {limit}, got {count}"
        yield issue(["body"], "sequence_too_long", msg, count, max_length=limit)
    if count == 0:
        yield issue(["body"], "sequence_too_short", "At least one element or image is required", 0, min_length=1)


def _check_object(
    fields: Mapping[str, Field], body: Mapping[str, Json], loc: list[str | int], issues: list[dict[str, Json]]
) -> dict[str, Json]:
    values: dict[str, Json] = {}
    for name, spec in fields.items():
        if name in body:
            values[name] = _check_value(spec, body[name], [*loc, name], issues)
        elif spec.is_required:
            issues.append(issue([*loc, name], "missing", "Field required", dict(body)))
        else:
            values[name] = spec.default
    issues.extend(
        issue([*loc, name], "extra_forbidden", "Extra inputs are not permitted", body[name])
        for name in body
        if name not in fields
    )
    return values


def _check_value(spec: Field, value: Json, loc: list[str | int], issues: list[dict[str, Json]]) -> Json:
    if value is None and spec.is_nullable:
        return None
    match spec.type:
        case "string":
            issues.extend(_string_issues(spec, value, loc))
        case "integer" | "number":
            issues.extend(_number_issues(spec, value, loc))
        case "boolean":
            if not isinstance(value, bool):
                issues.append(issue(loc, "bool_type", "Input should be a valid boolean", value))
        case "image_size":
            issues.extend(_size_issues(spec, value, loc))
        case "list":
            return _check_list(spec, value, loc, issues)
        case _:
            raise AssertionError(f"fal_schemas.toml names the unknown type {spec.type!r}")
    return value


def _check_list(spec: Field, value: Json, loc: list[str | int], issues: list[dict[str, Json]]) -> Json:
    if not isinstance(value, list):
        issues.append(issue(loc, "list_type", "Input should be a valid list", value))
        return value
    if spec.min_items is not None and len(value) < spec.min_items:
        msg = f"List should have at least {spec.min_items} item after validation, not {len(value)}"
        issues.append(issue(loc, "sequence_too_short", msg, value, min_length=spec.min_items))
    if spec.max_items is not None and len(value) > spec.max_items:
        msg = f"List should have at most {spec.max_items} items after validation, not {len(value)}"
        issues.append(issue(loc, "sequence_too_long", msg, value, max_length=spec.max_items))
    objects = load_catalogue().objects
    checked: list[Json] = []
    for index, item in enumerate(value):
        if spec.items not in objects:
            checked.append(_check_value(Field(spec.items, is_required=True), item, [*loc, index], issues))
        elif isinstance(item, dict):
            checked.append(_check_object(objects[spec.items], item, [*loc, index], issues))
        else:
            issues.append(issue([*loc, index], "dict_type", "Input should be a valid dictionary", item))
    return checked


def _string_issues(spec: Field, value: Json, loc: list[str | int]) -> Iterator[dict[str, Json]]:
    if spec.enum and value not in spec.enum:
        expected = ", ".join(f"'{word}'" for word in spec.enum[:-1]) + f" or '{spec.enum[-1]}'"
        yield issue(loc, "literal_error", f"Input should be {expected}", value, expected=expected)
    elif not isinstance(value, str):
        yield issue(loc, "string_type", "Input should be a valid string", value)
    elif spec.max_length is not None and len(value) > spec.max_length:
        msg = f"String should have at most {spec.max_length} characters"
        yield issue(loc, "string_too_long", msg, value, max_length=spec.max_length)


def _number_issues(spec: Field, value: Json, loc: list[str | int]) -> Iterator[dict[str, Json]]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = "int_type" if spec.type == "integer" else "float_type"
        yield issue(loc, kind, f"Input should be a valid {spec.type}", value)
    elif spec.type == "integer" and value != int(value):
        msg = "Input should be a valid integer, got a number with a fractional part"
        yield issue(loc, "int_from_float", msg, value)
    elif spec.min is not None and value < spec.min:
        yield issue(
            loc, "greater_than_equal", f"Input should be greater than or equal to {spec.min}", value, ge=spec.min
        )
    elif spec.max is not None and value > spec.max:
        yield issue(loc, "less_than_equal", f"Input should be less than or equal to {spec.max}", value, le=spec.max)
    elif spec.enum and value not in spec.enum:
        expected = ", ".join(str(number) for number in spec.enum)
        yield issue(loc, "literal_error", f"Input should be one of {expected}", value, expected=expected)
    elif spec.modulus is not None and value % spec.modulus != spec.remainder:
        msg = f"Value error, must satisfy n % {spec.modulus} == {spec.remainder}"
        yield issue(loc, "value_error", msg, value)


def _size_issues(spec: Field, value: Json, loc: list[str | int]) -> Iterator[dict[str, Json]]:
    if isinstance(value, str):
        yield from _string_issues(Field("string", enum=(*IMAGE_SIZES, *spec.enum)), value, loc)
    elif isinstance(value, dict):
        side = Field("integer", is_required=True, min=1, max=MAX_SIDE_PIXELS)
        found: list[dict[str, Json]] = []
        _check_object({"width": side, "height": side}, value, loc, found)
        yield from found
    else:
        yield issue(loc, "dict_type", "Input should be a preset or an object with width and height", value)
