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
        tree = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 (a safe loader, and stricter)
    except (yaml.YAMLError, RecursionError) as error:
        problem, line = _yaml_problem(error, text)
        raise BadInput(
            f"{path}, line {line}: {problem}. Mend the line; docs/manifest.md shows a whole manifest."
        ) from error
    if not isinstance(data, dict):
        raise BadInput(f"{path}: a manifest begins with season: your-season; this file holds no fields.")
    try:
        return SeasonManifest.model_validate(data).with_trigger_words()
    except ValidationError as errors:
        sentences = [_sentence(path, tree, dict(error)) for error in errors.errors()]
        raise BadInput("\n".join(sentences)) from None


def field_error(path: Path, location: tuple[str | int, ...], message: str) -> str:
    """One sentence about a field of a manifest that was read before, with its line."""
    tree = yaml.compose(path.read_text("utf-8"), Loader=_Loader)
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


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a field written twice is an error, not a silent choice of the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the field {key.value!r} is written twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, IndexError, KeyError, OverflowError) as error:
            # Values that look like a date or a number and are none: PyYAML lets Python's own errors through.
            raise yaml.constructor.ConstructorError(
                None, None, f"{_shown(node.value)} cannot be read; put it in quotes", node.start_mark
            ) from error


def _yaml_problem(error: Exception, text: str) -> tuple[str, int]:
    """What is wrong, and in which line, counted from 1."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return error.problem or error.context or "it is no YAML", error.problem_mark.line + 1
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character {chr(int(error.character))!r} cannot stand in a manifest", text.count(
            "\n", 0, error.position
        ) + 1
    return "it is no YAML, or lists lie in lists too deeply", 1


def _number(bound: Any) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


_WORDS = {
    "missing": "is missing; write it",
    "extra_forbidden": "is no field of the manifest; take it out, or see docs/manifest.md for its right name",
    "decimal_parsing": "is no amount; write a number such as 60",
    "int_parsing": "is no whole number; write one",
    "int_from_float": "is no whole number; write one",
    "float_parsing": "is no number; write one",
    "bool_parsing": "is neither true nor false; write one of them",
    "bool_type": "is neither true nor false; write one of them",
    "string_type": "is no text; write text, in quotes where it looks like something else",
    "tuple_type": "is no list; write one, such as [one, another]",
    "model_type": "holds no fields; write them as name: value",
    "int_type": "is no whole number; write one",
    "float_type": "is no number; write one",
    "decimal_type": "is no amount; write a number such as 60",
    "finite_number": "is no number; write one",
    "decimal_max_places": "has more than two decimal places; write dollars and cents",
    "invalid_key": "is no name of a field; write text",
}


def _sentence(path: Path, tree: Any, error: dict[str, Any]) -> str:
    location: tuple[str | int, ...] = tuple(part for part in error["loc"] if part != "[key]")
    kind, seen = str(error["type"]), error.get("input")
    is_shown = isinstance(seen, str | int | float) and kind not in ("missing", "broken_rule", "extra_forbidden")
    shown = f" (seen: {_shown(seen)})" if is_shown else ""
    limits = error.get("ctx") or {}
    location = (*location, *limits.get("at", ()))
    if kind == "value_error":
        words = str(limits.get("error", error["msg"]))
        shown = ""
    elif kind in _WORDS:
        words = _WORDS[kind]
    elif kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        bound = next(iter(limits.values()))
        words = f"must be {kind.replace('_', ' ').replace('than equal', 'than or equal to')} {_number(bound)}"
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
