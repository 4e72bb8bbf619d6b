"""Reading `season.yaml`: every error names the file, the line and the field, and says what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from domain.errors import BadInput
from domain.seasons import SeasonManifest

LARGEST_MANIFEST_BYTES = 2_000_000


def read_manifest(path: Path) -> SeasonManifest:
    """The checked manifest, trigger words made where left out. Reads only this file. `BadInput` for anything wrong."""
    text = _text(path)
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it is no YAML"
        raise BadInput(f"{path}{line}: {problem}. Mend the line; docs/manifest.md shows a whole manifest.") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path}: a manifest begins with season: your-season; this file holds no fields.")
    try:
        return SeasonManifest.model_validate(data).with_trigger_words()
    except ValidationError as errors:
        sentences = [_sentence(path, tree, dict(error)) for error in errors.errors()]
        raise BadInput("\n".join(sentences)) from None


def field_error(path: Path, location: tuple[str | int, ...], message: str) -> str:
    """One sentence about a field of a manifest that was read before, with its line."""
    tree = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    return f"{path}, line {_line(tree, location)}, {_field(location)}: {message}"


def _text(path: Path) -> str:
    if path.is_dir():
        raise BadInput(f"{path} is a folder: give the manifest in it, such as {path / 'season.yaml'}.")
    if not path.is_file():
        raise BadInput(f"{path}: there is no such file. Give the path of a manifest, such as season.yaml.")
    if path.stat().st_size > LARGEST_MANIFEST_BYTES:
        raise BadInput(f"{path} is {path.stat().st_size} bytes: a manifest is a small text file of at most 2 MB.")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no UTF-8 text (byte {error.start}): give the manifest, a YAML text file.") from error


_WORDS = {
    "missing": "is missing; write it",
    "extra_forbidden": "is no field of the manifest; take it out, or see docs/manifest.md for its right name",
    "decimal_parsing": "is no amount; write a number such as 60",
    "int_parsing": "is no whole number; write one",
    "int_from_float": "is no whole number; write one",
    "float_parsing": "is no number; write one",
    "bool_parsing": "is neither true nor false; write one of them",
}


def _sentence(path: Path, tree: Any, error: dict[str, Any]) -> str:
    location: tuple[str | int, ...] = tuple(part for part in error["loc"] if part != "[key]")
    kind, seen = str(error["type"]), error.get("input")
    shown = f" (seen: {seen!r})" if isinstance(seen, str | int | float) and kind != "missing" else ""
    limits = error.get("ctx") or {}
    if kind == "value_error":
        words = str(limits.get("error", error["msg"]))
        shown = ""
    elif kind in _WORDS:
        words = _WORDS[kind]
    elif kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        bound = next(iter(limits.values()))
        words = f"must be {kind.replace('_', ' ').replace('than equal', 'than or equal to')} {bound}"
    elif kind == "enum":
        words = f"must be {limits.get('expected')}"
    else:
        words = error["msg"][0].lower() + error["msg"][1:]
    field = _field(location)
    where = f"{path}, line {_line(tree, location)}" + (f", {field}" if field else "")
    return f"{where}: {words}{shown}."


def _field(location: tuple[str | int, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _line(tree: Any, location: tuple[str | int, ...]) -> int:
    """The line of the deepest part of the location that is in the file, counted from 1."""
    node, line = tree, tree.start_mark.line + 1
    for part in location:
        found = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, found = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = node.value[part]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return int(line)
