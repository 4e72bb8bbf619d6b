"""A workflow held against what the server itself says of its nodes, before it is sent: `/object_info`.

ComfyUI validates too, but coerces on the way ("false" becomes true, 3.1) and ignores inputs that it does not know.
"""

from __future__ import annotations

import copy
import math
import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import httpx

from domain.errors import Rejected
from providers.comfyui.client import ComfyUiClient
from providers.comfyui.injecting import Graph, Place, is_link, title_of
from providers.vendor_words import json_of

SHOWN_CHOICES = 12
UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload")
"""Marks of an input whose list shows only the top of the input folder; files below it are accepted all the same."""


class NodeChecker:
    """What one server says of its nodes, kept for as long as it has the same version. Safe from many threads.

    Lists of files change without a restart: a value that is in no kept list is looked for in a fresh one.
    """

    def __init__(self, client: ComfyUiClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._version: str | None = None
        self._known: dict[str, dict[str, Any] | None] = {}

    def checked(self, graph: Graph, filled: Iterable[Place] = ()) -> Graph:
        """A copy of the graph with names as this server spells them; `Rejected` says what it would refuse or ignore.

        `filled` are the inputs that must be known there. Free and repeatable: nothing is sent but questions. A server
        that does not answer them is not judged here: what it says to the workflow itself counts.
        """
        if not self._can_tell():
            return graph
        graph = copy.deepcopy(graph)
        must_know = set(filled)
        for node_id, node in graph.items():
            info = self._info(node["class_type"])
            if info is None:
                continue
            if not info:
                raise Rejected(
                    f"{self._client.place} has no node {self._client.quote(node['class_type'])!r} (node {node_id}): "
                    "install what brings it, update the server, or choose another workflow."
                )
            inputs, required = _inputs_of(info)
            for field in required:
                if field not in node["inputs"]:
                    raise Rejected(f"{_name(node_id, node)} lacks its input {field}: export the workflow anew.")
            for field, value in node["inputs"].items():
                if field not in inputs:
                    if (node_id, field) in must_know:
                        raise Rejected(
                            f"{_name(node_id, node)} has no input {field!r} on {self._client.place}, which would be "
                            "ignored: adapt the workflow to the server's version."
                        )
                elif not is_link(value):
                    node["inputs"][field] = self._fitting(node_id, node, field, value, inputs[field])
        return graph

    # --- asking the server ---

    def _can_tell(self) -> bool:
        """Whether the server describes its nodes now; what is kept of another version is dropped."""
        answer = self._asked("/system_stats")
        system = answer.get("system") if isinstance(answer, dict) else None
        version = str(system.get("comfyui_version")) if isinstance(system, dict) else None
        with self._lock:
            if version != self._version:
                self._known.clear()
                self._version = version
        return version is not None and isinstance(self._asked("/object_info/SaveImage"), dict)

    def _info(self, class_type: str, *, is_fresh: bool = False) -> dict[str, Any] | None:
        """What the server says of one class: nothing when it does not know it, None when it cannot tell now."""
        with self._lock:
            if class_type in self._known and not is_fresh:
                return self._known[class_type]
        path = "/object_info/" + re.sub(r"[^A-Za-z0-9_.+-]", "_", class_type)
        answer = self._asked(path)
        if not isinstance(answer, dict):
            return None
        given = answer.get(class_type)
        info = given if isinstance(given, dict) else {}
        if info:  # a class that is missing may be there after the next restart
            with self._lock:
                self._known[class_type] = info
        return info

    def _asked(self, path: str) -> Any:
        """The JSON at an address, or None."""
        try:
            response = self._client.send("GET", path)
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            return None
        return json_of(response) if response.status_code == 200 else None

    # --- judging a value ---

    def _fitting(self, node_id: str, node: dict[str, Any], field: str, value: Any, spec: Any) -> Any:
        kind, options, choices = _read(spec)
        where = f"{field} of {_name(node_id, node)}"
        if choices is not None:
            found = _among(value, choices)
            if found is None and not any(options.get(mark) for mark in UPLOADS):
                info = self._info(node["class_type"], is_fresh=True)
                choices = _read(_inputs_of(info or {})[0].get(field))[2] or choices
                found = _among(value, choices)
                if found is None:
                    shown = ", ".join(str(choice) for choice in choices[:SHOWN_CHOICES]) or "nothing"
                    more = f" and {len(choices) - SHOWN_CHOICES} more" if len(choices) > SHOWN_CHOICES else ""
                    raise Rejected(
                        f"{where} is {self._client.quote(value)!r}, which {self._client.place} does not have: it has "
                        f"{self._client.quote(shown)}{more}."
                    )
            return value if found is None else found
        problem = _problem(kind, options, value)
        if problem:
            raise Rejected(f"{where} is {self._client.quote(value)!r}: {problem}.")
        return value


def _inputs_of(info: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Every input's description, and the names of those that must be there."""
    groups = info.get("input")
    groups = groups if isinstance(groups, dict) else {}
    given = {name: group if isinstance(group := groups.get(name), dict) else {} for name in ("required", "optional")}
    return {**given["optional"], **given["required"]}, list(given["required"])


def _read(spec: Any) -> tuple[str, dict[str, Any], Sequence[Any] | None]:
    """An input's type, its options, and the values to choose from where it is a choice.

    Old nodes write the choices where the type stands, new ones "COMBO" with `options`.
    """
    parts = spec if isinstance(spec, list) and spec else [None]
    options = parts[1] if len(parts) > 1 and isinstance(parts[1], dict) else {}
    if isinstance(parts[0], list):
        return "COMBO", options, parts[0]
    if parts[0] == "COMBO" and isinstance(options.get("options"), list):
        return "COMBO", options, options["options"]
    return str(parts[0]), options, None


def _among(value: Any, choices: Sequence[Any]) -> Any:
    """The choice that is meant, spelled as the server does: its names have backslashes on Windows (issue #3343)."""
    for choice in choices:
        if choice == value and isinstance(choice, bool) == isinstance(value, bool):
            return choice
    if isinstance(value, str):
        wanted = value.replace("\\", "/")
        return next((one for one in choices if isinstance(one, str) and one.replace("\\", "/") == wanted), None)
    return None


def _problem(kind: str, options: dict[str, Any], value: Any) -> str | None:
    """Why a literal cannot be this input's value, or None."""
    match kind:
        case "BOOLEAN":
            return None if isinstance(value, bool) else "it takes true or false"
        case "INT" | "FLOAT":
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                return "it takes a number"
            if kind == "INT" and value != int(value):
                return "it takes a whole number"
            lowest, highest = options.get("min"), options.get("max")
            if isinstance(lowest, int | float) and value < lowest:
                return f"it takes {lowest:g} or more"
            if isinstance(highest, int | float) and value > highest:
                return f"it takes {highest:g} or less"
            return None
        case "STRING":
            return None if isinstance(value, str) else "it takes a text"
        case _:
            return None


def _name(node_id: str, node: dict[str, Any]) -> str:
    title = title_of(node)
    return f"node {node_id} ({node['class_type']}{f', {title!r}' if title and title != node['class_type'] else ''})"
