"""The models of the stand-in of Replicate: `replicate_schemas.toml` as records, their inputs checked, shown, and put
into neutral jobs."""

from __future__ import annotations

import functools
import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DEFAULT_SECONDS = 5.0
DEFAULT_RATE = 16
"""Wan's own rate, where a model has no field for one."""

_JSON_TYPES = {"list": "array"}
_HUGGING_FACE = re.compile(r"(?:https?://)?huggingface\.co/[^/?#]+/[^/?#]+(?:/[^?#]*\.safetensors)?")
_CIVITAI = re.compile(r"(?:https?://)?civitai\.com/(?:models/\d+(?:/[^/?#]+)?|api/download/models/\S+)")
_REPLICATE = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+(?:/[0-9a-f]{64})?")


@dataclass(frozen=True)
class Input:
    """One input field as a model's schema describes it."""

    type: str
    required: bool = False
    default: Any = None
    min: float | None = None
    max: float | None = None
    max_items: int | None = None
    items: str = "string"
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class PlayedModel:
    """A model of the stand-in. `loras` are pairs of address and strength fields; `experts` those of Wan 2.2's two."""

    name: str
    makes: str
    inputs: Mapping[str, Input]
    is_official: bool = False
    version: str = ""
    base_model: str | None = None
    base_fields: tuple[str, ...] = ()
    base_by: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    addresses: str = "safetensors"
    loras: tuple[tuple[str, str], ...] = ()
    experts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    image: str | None = None
    references: str | None = None
    frames: str | None = None
    rate: str = "frames_per_second"
    archive: str = ""
    zip: str = ""
    trigger: str | None = None
    steps: str = "steps"

    def base_of(self, given: Mapping[str, Any]) -> str | None:
        """The base model that a request is drawn or trained with; None where nothing loads LoRAs, or none such is
        made."""
        if self.base_fields:
            return self.base_by.get("/".join(str(given[name]) for name in self.base_fields))
        return self.base_model


@functools.cache
def played_models() -> Mapping[str, PlayedModel]:
    """Every model by its name."""
    raw = tomllib.loads(Path(__file__).with_name("replicate_schemas.toml").read_text("utf-8"))
    sizes = {name: {ratio: (w, h) for ratio, (w, h) in table.items()} for name, table in raw["sizes"].items()}
    found = {}
    for name, entry in raw["models"].items():
        inputs = {
            key: Input(**{**facts, "choices": tuple(facts.get("choices", ()))})
            for key, facts in entry.pop("fields").items()
        }
        entry["sizes"] = sizes[entry["sizes"]] if "sizes" in entry else {}
        entry["base_fields"] = tuple(entry.get("base_fields", ()))
        entry["loras"] = tuple((path, scale) for path, scale in entry.get("loras", ()))
        entry["experts"] = {side: (path, scale) for side, (path, scale) in entry.get("experts", {}).items()}
        entry.setdefault("version", hashlib.sha256(name.encode()).hexdigest())
        found[name] = PlayedModel(name=name, inputs=inputs, **entry)
    return found


def check_input(model: PlayedModel, given: object) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The input with its defaults, and every objection to it as Replicate's `invalid_fields`."""
    if not isinstance(given, dict):
        return {}, [_wrong("invalid_type", "input", "input must be an object")]
    wrong = [
        _wrong("additional_property_not_allowed", "input", f"Additional property {name} is not allowed")
        for name in given
        if name not in model.inputs
    ]
    values: dict[str, Any] = {}
    for name, rule in model.inputs.items():
        value = given.get(name)
        if value is None:
            if rule.required:
                wrong.append(_wrong("required", "input", f"{name} is required"))
            values[name] = rule.default
            continue
        values[name] = value
        if reason := _objection(rule, value):
            wrong.append(_wrong(reason[0], f"input.{name}", f"{name} {reason[1]}"))
    return values, wrong


def _wrong(kind: str, place: str, description: str) -> dict[str, str]:
    return {"type": kind, "field": place, "description": description}


def _objection(rule: Input, value: Any) -> tuple[str, str] | None:
    if not _is_of(rule.type, value):
        return "invalid_type", f"must be a {rule.type}"
    if rule.choices and value not in rule.choices:
        return "enum", f"must be one of the following: {', '.join(map(repr, rule.choices))}"
    if rule.min is not None and value < rule.min:
        return "number_gte", f"must be greater than or equal to {rule.min:g}"
    if rule.max is not None and value > rule.max:
        return "number_lte", f"must be less than or equal to {rule.max:g}"
    if rule.type == "list":
        if rule.max_items is not None and len(value) > rule.max_items:
            return "array_max_items", f"must have at most {rule.max_items} items"
        if not all(_is_of(rule.items, item) for item in value):
            return "invalid_type", f"must be a list of {rule.items}s"
    return None


def _is_of(kind: str, value: Any) -> bool:
    if kind == "boolean" or isinstance(value, bool):
        return kind == "boolean" and isinstance(value, bool)
    wanted: tuple[type, ...] = {"string": (str,), "integer": (int,), "number": (int, float), "list": (list,)}[kind]
    return isinstance(value, wanted)


def openapi_of(model: PlayedModel) -> dict[str, Any]:
    """The part of a version's `openapi_schema` by which an input can be checked before it is paid for."""
    properties = {}
    for order, (name, rule) in enumerate(model.inputs.items()):
        shown: dict[str, Any] = {"title": name, "type": _JSON_TYPES.get(rule.type, rule.type), "x-order": order}
        facts = {"default": rule.default, "minimum": rule.min, "maximum": rule.max, "maxItems": rule.max_items}
        shown |= {key: value for key, value in facts.items() if value is not None}
        if rule.choices:
            shown["enum"] = list(rule.choices)
        if rule.type == "list":
            shown["items"] = {"type": rule.items}
        properties[name] = shown
    needed = [name for name, rule in model.inputs.items() if rule.required]
    schema = {"type": "object", "title": "Input", "properties": properties, "required": needed}
    name = "TrainingInput" if model.makes == "train" else "Input"
    return {"openapi": "3.0.2", "components": {"schemas": {name: schema}}}


def refused_address(model: PlayedModel, given: Mapping[str, Any]) -> str | None:
    """What a model's loader says to a LoRA address that it cannot use; None when all are fine (reference 2.3)."""
    fields = [path for path, _ in model.loras] + [path for path, _ in model.experts.values()]
    for name in fields:
        address = given.get(name)
        if address and not _is_usable(model.addresses, address):
            return (
                f"Failed to load LoRA weights: {name} {address.partition('?')[0]} is not an address that is supported"
            )
    return None


def _is_usable(addresses: str, address: str) -> bool:
    parts = urlsplit(address)
    if parts.hostname == "api.replicate.com":
        return False
    path = parts.path.lower()
    if parts.scheme in ("http", "https") and path.endswith(".safetensors"):
        return True
    if addresses == "archives":
        return parts.scheme in ("http", "https") and path.endswith((".tar", ".zip", ".tar.gz"))
    if addresses == "flux":
        is_output = parts.scheme == "https" and parts.hostname == "replicate.delivery" and path.endswith(".tar")
        known = (_HUGGING_FACE, _CIVITAI, _REPLICATE)
        return is_output or any(form.fullmatch(address) for form in known)
    return False


def neutral_job(
    model: PlayedModel, values: Mapping[str, Any], local: Callable[[str], str]
) -> tuple[str, dict[str, Any]]:
    """The neutral endpoint and input that do a request's work; `local` turns an address into one the runner reads."""
    match model.makes:
        case "train":
            return "neutral/train", _training(model, values, local)
        case "still":
            width, height = model.sizes[values["aspect_ratio"]]
            return "neutral/still", {
                "prompt": values["prompt"],
                "base_model": model.base_of(values),
                "width": width,
                "height": height,
                "seed": values["seed"],
                "loras": _loras(model, values, local),
                "output_format": values["output_format"].replace("jpg", "jpeg"),
            }
        case _:
            return "neutral/video", _clip(model, values, local)


def _training(model: PlayedModel, values: Mapping[str, Any], local: Callable[[str], str]) -> dict[str, Any]:
    asked = {
        "archive": local(values[model.zip]),
        "base_model": model.base_of(values),
        "trigger_word": values[model.trigger] if model.trigger else None,
        "steps": values[model.steps],
        "learning_rate": values.get("learning_rate"),
    }
    return asked | ({"rank": values["lora_rank"]} if "lora_rank" in values else {})


def _clip(model: PlayedModel, values: Mapping[str, Any], local: Callable[[str], str]) -> dict[str, Any]:
    rate = int(values.get(model.rate) or DEFAULT_RATE)
    if model.frames is not None:
        seconds = max(1, values[model.frames] - 1) / rate
    else:
        seconds = float(values.get("duration") or DEFAULT_SECONDS)
    sides = model.sizes.get(values.get("aspect_ratio") or "16:9")
    width, height = sides if sides is not None else (values["width"], values["height"])
    asked: dict[str, Any] = {
        "prompt": values["prompt"],
        "width": width,
        "height": height,
        "seconds": seconds,
        "frames_per_second": rate if model.frames is not None else 24,
        "seed": values.get("seed"),
        "loras": _loras(model, values, local),
    }
    base = model.base_of(values)
    if base is not None:
        asked["base_model"] = base
    if model.image is not None and values[model.image]:
        asked["image"] = local(values[model.image])
    if model.references is not None and values[model.references]:
        asked["references"] = [local(url) for url in values[model.references]]
    return asked


def _loras(model: PlayedModel, values: Mapping[str, Any], local: Callable[[str], str]) -> list[dict[str, Any]]:
    plain = [{"path": local(values[path]), "scale": values[scale]} for path, scale in model.loras if values[path]]
    sides = [
        {"path": local(values[path]), "scale": values[scale], "transformer": side}
        for side, (path, scale) in model.experts.items()
        if values[path]
    ]
    return plain + sides
