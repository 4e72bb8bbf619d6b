"""LoRAs as loader nodes of a workflow: filled, chained, added where there is none, bypassed where nobody has one. Pure.

Loaders and their wires: replicate_comfyui.md 3.5. A loader left standing without a character's LoRA would draw the
template's own, so that it is always taken out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domain.errors import BadInput
from domain.jobs import blob_argument
from domain.profiles import Parameter, WorkflowTemplate
from domain.records import Record
from providers.comfyui.injecting import Graph, Injected, Place, find_node, find_place, is_link
from providers.vendor_ports import LoraUse

PASSES_ON: dict[str, tuple[str, ...]] = {"LoraLoader": ("model", "clip"), "LoraLoaderModelOnly": ("model",)}
"""A loader's class → the inputs that it hands on as its outputs 0, 1."""

MODEL_LOADERS = ("CheckpointLoaderSimple", "CheckpointLoader", "UNETLoader", "UnetLoaderGGUF")
"""Nodes whose output 0 is the model as it was trained."""

LOWEST_STRENGTH, HIGHEST_STRENGTH = -100.0, 100.0
"""What both loaders take (nodes.py at a125cd8)."""


class _Loader(Record):
    """A loader of the character's LoRA, and which of a LoRA's files goes in."""

    node_id: str
    field: str
    is_high_noise: bool = False


def with_loras(done: Injected, template: WorkflowTemplate, loras: Sequence[LoraUse]) -> Injected:
    """The graph with these LoRAs, each at its strength, in the order given; with none its loaders are bypassed.

    A LoRA of two files needs a template with a loader for each expert; one of a single file goes into both. `BadInput`
    when the template has no loader and none can be added, or when it cannot be told which one is the character's.
    """
    loaders = _loaders(done.graph, template)
    if not loras:
        for loader in loaders:
            _bypass(done.graph, loader)
        return done
    if not loaders:
        done, loaders = _with_new_loader(done, template)
    has_experts = any(loader.is_high_noise for loader in loaders)
    split = next((lora for lora in loras if lora.high_noise is not None), None)
    if split is not None and not has_experts:
        raise BadInput(
            f"The LoRA {split.file.file_name!r} has a file for each of two experts and the workflow "
            f"{template.name!r} has one loader: choose a workflow of two, with a target lora_high_noise."
        )
    filled: list[Place] = list(done.filled)
    for loader in loaders:
        filled += _fill(done.graph, template, loader, loras)
    return Injected(graph=done.graph, filled=tuple(filled))


def _loaders(graph: Graph, template: WorkflowTemplate) -> tuple[_Loader, ...]:
    """The loaders that are the character's: those the template names, else the only one there is."""
    named = [
        _named(graph, template, parameter, is_high_noise=parameter is Parameter.LORA_HIGH_NOISE)
        for parameter in (Parameter.LORA, Parameter.LORA_HIGH_NOISE)
        if template.targets.get(parameter)
    ]
    found = tuple(loader for loaders in named for loader in loaders)
    if found:
        return found
    standing = [node_id for node_id, node in graph.items() if _loads_lora(node)]
    if len(standing) > 1:
        raise BadInput(
            f"Nodes {', '.join(standing)} of the workflow {template.name!r} load LoRAs: name the character's by a "
            "target lora, so that no other's is drawn."
        )
    return tuple(_checked(graph, node_id, "lora_name", is_high_noise=False) for node_id in standing)


def _named(graph: Graph, template: WorkflowTemplate, parameter: Parameter, *, is_high_noise: bool) -> list[_Loader]:
    return [
        _checked(graph, *find_place(graph, target, str(parameter)), is_high_noise=is_high_noise)
        for target in template.targets[parameter]
    ]


def _checked(graph: Graph, node_id: str, field: str, *, is_high_noise: bool) -> _Loader:
    node = graph[node_id]
    if node["class_type"] not in PASSES_ON or field not in node["inputs"]:
        raise BadInput(
            f"Node {node_id} loads a LoRA as {node['class_type']}, which is not known here: use "
            f"{' or '.join(PASSES_ON)}, whose wires are."
        )
    return _Loader(node_id=node_id, field=field, is_high_noise=is_high_noise)


def _loads_lora(node: dict[str, Any]) -> bool:
    """Whether a node looks like a loader of any kind: a text in an input that is called after LoRAs."""
    return any(
        "lora" in field.lower() and (isinstance(value, str) or (isinstance(value, dict) and "lora" in value))
        for field, value in node["inputs"].items()
    )


def _bypass(graph: Graph, loader: _Loader) -> None:
    """Take a loader out and let its readers read what it read."""
    node = graph[loader.node_id]
    sources = [node["inputs"].get(name) for name in PASSES_ON[node["class_type"]]]
    if not all(is_link(source) for source in sources):
        raise BadInput(
            f"Node {loader.node_id} cannot be left out for a character without a LoRA: its "
            f"{' and '.join(PASSES_ON[node['class_type']])} come from no other node."
        )
    for slot, source in enumerate(sources):
        _rewire(graph, [loader.node_id, slot], source)
    del graph[loader.node_id]


def _rewire(graph: Graph, old: list[Any], new: Any, *, but: str | None = None) -> int:
    """Let every reader of one output read another, save the node `but`; how many did."""
    count = 0
    for node_id, node in graph.items():
        for field, value in node["inputs"].items():
            if node_id != but and is_link(value) and value == old:
                node["inputs"][field] = list(new)
                count += 1
    return count


def _with_new_loader(done: Injected, template: WorkflowTemplate) -> tuple[Injected, tuple[_Loader, ...]]:
    """A loader between the model and everything that reads it, where there is exactly one model."""
    graph = done.graph
    models = [node_id for node_id, node in graph.items() if node["class_type"] in MODEL_LOADERS]
    if len(models) != 1:
        seen = f"nodes {', '.join(models)} load one" if models else "no node that loads one is known here"
        raise BadInput(
            f"The workflow {template.name!r} has no LoRA loader, and none can be added behind its model ({seen}): add "
            "a LoraLoaderModelOnly to it."
        )
    new_id = _free_id(graph)
    source = [models[0], 0]
    if not _rewire(graph, source, [new_id, 0]):
        raise BadInput(f"Nothing in the workflow {template.name!r} reads the model of node {models[0]}.")
    graph[new_id] = {
        "class_type": "LoraLoaderModelOnly",
        "_meta": {"title": "Character LoRA"},
        "inputs": {"model": source, "lora_name": "none.safetensors", "strength_model": 1.0},
    }
    return done, (_Loader(node_id=new_id, field="lora_name"),)


def _fill(graph: Graph, template: WorkflowTemplate, loader: _Loader, loras: Sequence[LoraUse]) -> list[Place]:
    """The first LoRA into the loader, every further one into a loader of its class behind it."""
    node = graph[loader.node_id]
    class_type, last = node["class_type"], loader.node_id
    filled: list[Place] = []
    for number, lora in enumerate(loras):
        if number:
            last = _chained(graph, last, class_type)
        inputs = graph[last]["inputs"]
        file = lora.high_noise if loader.is_high_noise and lora.high_noise is not None else lora.file
        field = loader.field if not number else "lora_name"
        inputs[field] = blob_argument(file)
        filled.append((last, field))
        for name in (f"strength_{what}" for what in PASSES_ON[class_type]):
            if isinstance(inputs.get(name), list):
                raise BadInput(f"The {name} of node {last} comes from another node: let a number stand there.")
            inputs[name] = _strength(lora)
            filled.append((last, name))
    for target in template.targets.get(Parameter.LORA_STRENGTH, ()):
        if find_node(graph, target, str(Parameter.LORA_STRENGTH)) != loader.node_id:
            node_id, field = find_place(graph, target, str(Parameter.LORA_STRENGTH))
            graph[node_id]["inputs"][field] = _strength(loras[0])
            filled.append((node_id, field))
    return filled


def _chained(graph: Graph, before: str, class_type: str) -> str:
    """A loader behind another, read by everything that read that one."""
    new_id = _free_id(graph)
    inputs: dict[str, Any] = {name: [before, slot] for slot, name in enumerate(PASSES_ON[class_type])}
    for slot in range(len(PASSES_ON[class_type])):
        _rewire(graph, [before, slot], [new_id, slot])
    graph[new_id] = {"class_type": class_type, "_meta": {"title": "Another character's LoRA"}, "inputs": inputs}
    return new_id


def _free_id(graph: Graph) -> str:
    return str(1 + max((int(node_id) for node_id in graph if node_id.isdecimal()), default=0))


def _strength(lora: LoraUse) -> float:
    if not LOWEST_STRENGTH <= lora.scale <= HIGHEST_STRENGTH:
        raise BadInput(f"LoRA strength is {lora.scale:g}: a loader takes {LOWEST_STRENGTH:g} to {HIGHEST_STRENGTH:g}.")
    return lora.scale
