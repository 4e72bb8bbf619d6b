"""Parameters put into a copy of a workflow: where each goes, what may stand there, and what is never touched. Pure.

The rules are those of replicate_comfyui.md 3.6 (run against ComfyUI 0.3.64): a server takes nearly anything without a
word, so that whatever is not checked here is drawn wrongly rather than refused.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any

from domain.errors import BadInput
from domain.profiles import Parameter, Target, WorkflowTemplate
from domain.records import Record

Graph = dict[str, dict[str, Any]]
"""Node id → `{"class_type", "inputs", "_meta"?}`."""

Place = tuple[str, str]
"""An input of a node: the node's id, the input's name."""

OUR_PREFIX = "onmodel/JOB"
"""Stands where a file name's beginning goes, until the job is sent: `queue.py` puts the prompt's own id in its place.
A job with a prefix of its own writes files even when the server has everything else in its cache (3.4)."""

FILE_INPUTS = re.compile(r"(.*_name\d*|image|video|audio|mask|filename_prefix|lora_\d+)")
"""Inputs whose texts are file names, by what core nodes and common custom ones call them."""

_MEANS_MORE = re.compile(r" \[(input|output|temp)\]$")


class Injected(Record):
    """A filled workflow, and which inputs were filled: a server that does not know one of them would ignore it."""

    graph: Graph
    filled: tuple[Place, ...]


def check_api_format(workflow: object, name: str) -> Graph:
    """The workflow, when it is a graph in ComfyUI's API format; `BadInput` says what it is instead."""
    if not isinstance(workflow, dict) or not workflow:
        raise BadInput(f"The workflow {name!r} holds no nodes in ComfyUI's API format: export it with Export (API).")
    if isinstance(workflow.get("nodes"), list) or "links" in workflow:
        raise BadInput(
            f"The workflow {name!r} is in ComfyUI's editor format and not in API format, so it cannot be queued: "
            "export it with Export (API), after switching on the developer options where the menu lacks it."
        )
    for node_id, node in workflow.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            raise BadInput(
                f"The workflow {name!r} has {node_id!r}, no node of the API format: export it with Export (API)."
            )
        if not isinstance(node.get("inputs"), dict):
            raise BadInput(f"Node {node_id} of the workflow {name!r} has no inputs: export it with Export (API).")
    for node_id, node in workflow.items():
        for field, value in node["inputs"].items():
            if is_link(value) and value[0] not in workflow:
                raise BadInput(
                    f"Node {node_id} of the workflow {name!r} reads its {field} from node {value[0]}, which is not "
                    "there: export the whole workflow."
                )
    return workflow


def is_link(value: object) -> bool:
    """Whether an input's value is another node's output, `[id, slot]`."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )


def title_of(node: Mapping[str, Any]) -> str | None:
    """A node's title; `_meta` may be missing."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return title if isinstance(title, str) else None


def find_node(graph: Graph, target: Target, what: str) -> str:
    """The id of the one node that the target names; `BadInput` when none or several fit."""
    if target.node_id is not None:
        way, found = f"the id {target.node_id!r}", [node_id for node_id in graph if node_id == target.node_id]
    elif target.title is not None:
        way, found = (
            f"the title {target.title!r}",
            [key for key, node in graph.items() if title_of(node) == target.title],
        )
    else:
        way = f"the class {target.class_type!r}"
        found = [key for key, node in graph.items() if node["class_type"] == target.class_type]
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadInput(
            f"The workflow has no node with {way}, where the {what} should go: correct the template's target."
        )
    raise BadInput(
        f"Nodes {', '.join(found)} of the workflow all have {way}, where the {what} should go: give one a title of its "
        "own, or name it by its id."
    )


def find_place(graph: Graph, target: Target, what: str) -> Place:
    """The input that the target names; `BadInput` when it is not there, or comes from another node."""
    node_id = find_node(graph, target, what)
    inputs = graph[node_id]["inputs"]
    if target.input not in inputs:
        raise BadInput(
            f"Node {node_id} ({graph[node_id]['class_type']}) has no input {target.input!r} for the {what}: it has "
            f"{', '.join(inputs) or 'none'}."
        )
    if isinstance(inputs[target.input], list):
        raise BadInput(
            f"The input {target.input!r} of node {node_id} comes from another node and is not overwritten: let the "
            f"template's target for the {what} name the node that it comes from."
        )
    return node_id, target.input


def injected(template: WorkflowTemplate, values: Mapping[Parameter, Any]) -> Injected:
    """A copy of the template's graph with every value at its parameter's targets; parameters without a target are left
    as they stand. `BadInput` names what does not fit.

    A value has the type of what stands there: a text for a text, a number for a number (whole where a whole one
    stands), a yes or no for one; a file (`{"$blob": …}`) for a text.
    """
    graph = copy.deepcopy(check_api_format(template.workflow, template.name))
    check_file_names(graph, template.name)
    filled: list[Place] = []
    for parameter, value in values.items():
        for target in template.targets.get(parameter, ()):
            node_id, field = find_place(graph, target, str(parameter))
            inputs = graph[node_id]["inputs"]
            inputs[field] = _fitted(value, inputs[field], f"the {parameter} of node {node_id}")
            filled.append((node_id, field))
    return Injected(graph=graph, filled=tuple(filled))


def with_own_prefix(done: Injected, template: WorkflowTemplate) -> Injected:
    """The graph with our mark as the beginning of every file name it saves under; `BadInput` when it saves none."""
    targets = template.targets.get(Parameter.OUTPUT_PREFIX, ())
    places = [find_place(done.graph, target, str(Parameter.OUTPUT_PREFIX)) for target in targets]
    if not places:
        places = [
            (node_id, "filename_prefix")
            for node_id, node in done.graph.items()
            if isinstance(node["inputs"].get("filename_prefix"), str)
        ]
    if not places:
        raise BadInput(f"The workflow {template.name!r} saves nothing: it needs a node with a filename_prefix.")
    for node_id, field in places:
        done.graph[node_id]["inputs"][field] = OUR_PREFIX
    return Injected(graph=done.graph, filled=(*done.filled, *places))


def check_template(template: WorkflowTemplate) -> None:
    """`BadInput` when a template cannot be used: not in API format, a target that fits no input or several, no place
    for the prompt or the seed, nothing saved. What `onmodel templates import` asks before it keeps one."""
    graph = copy.deepcopy(check_api_format(template.workflow, template.name))
    check_file_names(graph, template.name)
    for parameter, targets in template.targets.items():
        for target in targets:
            find_place(graph, target, str(parameter))
    require(template, (Parameter.PROMPT, Parameter.SEED))
    with_own_prefix(Injected(graph=graph, filled=()), template)


def require(template: WorkflowTemplate, parameters: Iterable[Parameter]) -> None:
    """`BadInput` for a parameter that the template has no target for."""
    for parameter in parameters:
        if not template.targets.get(parameter):
            raise BadInput(
                f"The workflow {template.name!r} says nowhere where the {parameter} goes: add a target for it."
            )


def check_file_names(graph: Graph, name: str) -> None:
    """`BadInput` when a file name of the workflow itself leads out of its folder."""
    for node_id, node in graph.items():
        for field, value in node["inputs"].items():
            if isinstance(value, str) and FILE_INPUTS.fullmatch(field):
                check_file_name(value.replace("\\", "/"), f"The {field} of node {node_id} of the workflow {name!r}")


def check_file_name(name: str, what: str) -> str:
    """A server's file name that leads nowhere but down from its folder; `BadInput` for any other.

    ComfyUI's own guards are uneven: `LoadImage` reads "../output/x.png" without a word (3.6).
    """
    problem = None
    if not name.strip():
        problem = "is empty"
    elif not name.isprintable():
        problem = "holds characters that no name has"
    elif "\\" in name or ".." in name or name.startswith(("/", "~")) or re.match(r"[A-Za-z]:", name):
        problem = "leads out of its folder"
    elif _MEANS_MORE.search(name) or name.startswith("blake3:"):
        problem = "names another folder than its own"
    if problem:
        raise BadInput(f"{what} {problem} ({name[:80]!r}): write a name below the server's own folder, with slashes.")
    return name


def _fitted(value: Any, standing: Any, what: str) -> Any:
    """The value in the type of what stands there."""
    is_file = isinstance(value, dict) and set(value) == {"$blob"}
    if isinstance(standing, bool) or isinstance(value, bool):
        if isinstance(standing, bool) and isinstance(value, bool):
            return value
    elif isinstance(standing, int) and isinstance(value, int | float) and value == int(value):
        return int(value)
    elif isinstance(standing, float) and isinstance(value, int | float):
        return float(value)
    elif isinstance(standing, str) and (isinstance(value, str) or is_file):
        return value
    raise BadInput(
        f"{value!r} cannot be {what}, where {type(standing).__name__} {standing!r} stands: give one of that kind."
    )
