"""What the stand-in of ComfyUI knows of nodes: `/object_info` in the server's own shape, and prompts judged by it.

The kinds of error and what stands in them: replicate_comfyui.md 3.1 and execution.py of Comfy-Org/ComfyUI at a125cd8.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LONGEST_SHOWN_LIST = 20
"""A longer list of choices is left out of the error (3.1)."""


@dataclass(frozen=True)
class InputSpec:
    """One input of a node. `choices` names the list of a choice; `lowest` and `highest` bound a number."""

    type: str
    is_required: bool
    choices: str | None = None
    is_new_style: bool = False
    is_upload: bool = False
    lowest: float | int | None = None
    highest: float | int | None = None


@dataclass(frozen=True)
class NodeClass:
    """One class of nodes."""

    name: str
    inputs: Mapping[str, InputSpec]
    outputs: tuple[str, ...]
    is_output: bool


@dataclass(frozen=True)
class NodeBook:
    """All classes, the fixed lists of choices, and which base a model file is of."""

    classes: Mapping[str, NodeClass]
    lists: Mapping[str, list[str]]
    bases: Mapping[str, str]


@cache
def node_book() -> NodeBook:
    raw = tomllib.loads(Path(__file__).with_name("comfy_nodes.toml").read_text("utf-8"))
    classes = {
        name: NodeClass(
            name=name,
            inputs={field.rstrip("?"): _parse(field, text) for field, text in entry["inputs"].items()},
            outputs=tuple(entry["outputs"]),
            is_output=entry.get("is_output", False),
        )
        for name, entry in raw["nodes"].items()
    }
    return NodeBook(classes, raw["lists"] | raw["files"], raw["bases"])


def _parse(field: str, text: str) -> InputSpec:
    kind, *words = text.split()
    is_required = not field.endswith("?")
    if kind in ("COMBO", "V3COMBO"):
        return InputSpec("COMBO", is_required, words[0], kind == "V3COMBO", "image_upload" in words)
    if not words:
        return InputSpec(kind, is_required)
    lowest, highest = (int(word) if kind == "INT" else float(word) for word in words)
    return InputSpec(kind, is_required, lowest=lowest, highest=highest)


def object_info(one: NodeClass, lists: Mapping[str, list[str]]) -> dict[str, Any]:
    """The description of a class as the server gives it; `lists` are the choices of this moment."""
    groups: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
    for field, spec in one.inputs.items():
        groups["required" if spec.is_required else "optional"][field] = _described(spec, lists)
    return {
        "input": {name: group for name, group in groups.items() if group or name == "required"},
        "input_order": {name: list(group) for name, group in groups.items() if group or name == "required"},
        "output": list(one.outputs),
        "output_is_list": [False] * len(one.outputs),
        "output_name": list(one.outputs),
        "name": one.name,
        "display_name": one.name,
        "description": "",
        "python_module": "nodes",
        "category": "sandbox",
        "output_node": one.is_output,
    }


def _described(spec: InputSpec, lists: Mapping[str, list[str]]) -> list[Any]:
    if spec.choices is not None:
        given = lists[spec.choices]
        if spec.is_new_style:
            return ["COMBO", {"multiselect": False, "options": given}]
        return [given, {"image_upload": True}] if spec.is_upload else [given]
    limits = {"min": spec.lowest, "max": spec.highest}
    return [spec.type, {name: value for name, value in limits.items() if value is not None}]


@dataclass(frozen=True)
class Verdict:
    """What a prompt is worth: the outputs that will run, and what is wrong with each bad node; or one error for all."""

    outputs: tuple[str, ...] = ()
    node_errors: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


def judge(graph: Any, lists: Mapping[str, list[str]], book: NodeBook) -> Verdict:
    """As the server validates: every output by itself, so that a bad branch is dropped and a good one runs."""
    if not isinstance(graph, dict):
        return Verdict(error=_error("no_prompt", "No prompt provided"))
    for node_id, node in graph.items():
        if not isinstance(node, dict) or "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return Verdict(error=_error("invalid_prompt", message, f"Node ID '#{node_id}'"))
        if node["class_type"] not in book.classes:
            message = f"Cannot execute because node {node['class_type']} does not exist."
            return Verdict(error=_error("invalid_prompt", message, f"Node ID '#{node_id}'"))
    outputs = [node_id for node_id, node in graph.items() if book.classes[node["class_type"]].is_output]
    if not outputs:
        return Verdict(error=_error("prompt_no_outputs", "Prompt has no outputs"))
    wrong: dict[str, Any] = {}
    good: list[str] = []
    for output in outputs:
        bad = {one: errors for one in reached(graph, output) if (errors := list(_errors(graph, one, lists, book)))}
        if not bad:
            good.append(output)
        for node_id, errors in bad.items():
            class_type = graph[node_id]["class_type"] if node_id in graph else ""
            entry = wrong.setdefault(node_id, {"errors": errors, "dependent_outputs": [], "class_type": class_type})
            entry["dependent_outputs"].append(output)
    if not good:
        said = "; ".join(f"{error['message']}" for entry in wrong.values() for error in entry["errors"])
        error = _error("prompt_outputs_failed_validation", "Prompt outputs failed validation", said)
        return Verdict(node_errors=wrong, error=error)
    return Verdict(outputs=tuple(good), node_errors=wrong)


def reached(graph: Mapping[str, Any], start: str) -> tuple[str, ...]:
    """A node and everything that it reads, directly or not, in the order in which they would be executed."""
    seen: dict[str, None] = {}

    def walk(node_id: str, above: frozenset[str]) -> None:
        if node_id in seen or node_id in above or node_id not in graph:
            return
        for value in graph[node_id].get("inputs", {}).values():
            if is_link(value):
                walk(value[0], above | {node_id})
        seen[node_id] = None

    walk(start, frozenset())
    return tuple(seen)


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _errors(graph: Mapping[str, Any], node_id: str, lists: Mapping[str, list[str]], book: NodeBook) -> Iterator[Any]:
    node = graph[node_id]
    one, inputs = book.classes[node["class_type"]], node.get("inputs", {})
    for field, spec in one.inputs.items():
        if field not in inputs:
            if spec.is_required:
                yield _error("required_input_missing", "Required input is missing", field, field)
            continue
        value = inputs[field]
        if isinstance(value, list):
            yield from _link_errors(graph, field, value, spec, book)
        else:
            yield from _value_errors(field, value, spec, lists)
    for field in inputs:
        if field not in one.inputs:
            # Stricter than the real server, which ignores what it does not know: here a mistake of ours must show.
            yield _error("unknown_input", "Unknown input", field, field)


def _link_errors(
    graph: Mapping[str, Any], field: str, value: list[Any], spec: InputSpec, book: NodeBook
) -> Iterator[dict[str, Any]]:
    if not is_link(value):
        yield _error(
            "bad_linked_input", "Bad linked input, must be a length-2 list of [node_id, slot_index]", field, field
        )
        return
    source, slot = value
    if source not in graph:
        yield _error("exception_during_inner_validation", "Exception when validating inner node", f"'{source}'", field)
        return
    outputs = book.classes[graph[source]["class_type"]].outputs
    given = outputs[slot] if isinstance(slot, int) and 0 <= slot < len(outputs) else "nothing"
    if given != spec.type:
        detail = f"{field}, received_type({given}) mismatch input_type({spec.type})"
        yield _error("return_type_mismatch", "Return type mismatch between linked nodes", detail, field)


def _value_errors(field: str, value: Any, spec: InputSpec, lists: Mapping[str, list[str]]) -> Iterator[dict[str, Any]]:
    if spec.choices is not None:
        given = lists[spec.choices]
        is_file_below = spec.is_upload and isinstance(value, str) and value in lists["input below"]
        if value not in given and not is_file_below:
            shown = str(given) if len(given) <= LONGEST_SHOWN_LIST else f"(list of length {len(given)})"
            yield _error("value_not_in_list", "Value not in list", f"{field}: '{value}' not in {shown}", field)
        return
    try:
        number = {"INT": int, "FLOAT": float}[spec.type](value) if spec.type in ("INT", "FLOAT") else None
    except (TypeError, ValueError):
        message = f"Failed to convert an input value to a {spec.type} value"
        yield _error("invalid_input_type", message, f"{field}, {value}", field)
        return
    if number is not None and spec.lowest is not None and number < spec.lowest:
        yield _error("value_smaller_than_min", f"Value {value} smaller than min of {spec.lowest:g}", field, field)
    if number is not None and spec.highest is not None and number > spec.highest:
        yield _error("value_bigger_than_max", f"Value {value} bigger than max of {spec.highest:g}", field, field)
    if number is None and spec.type not in ("STRING", "BOOLEAN"):
        yield _error(
            "bad_linked_input", "Bad linked input, must be a length-2 list of [node_id, slot_index]", field, field
        )


def _error(kind: str, message: str, details: str = "", field: str | None = None) -> dict[str, Any]:
    extra = {} if field is None else {"input_name": field}
    return {"type": kind, "message": message, "details": details, "extra_info": extra}
