"""What the three programs take: their options and configuration tables, read at their source, with where each was read.

The tables stand in providers/trainers/options/, one file per program. They are much longer than what our plans use, so
that a plan is held against the programs' own lists and not against itself.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from domain.model_rules import TrainerKind
from domain.records import Record

_TYPES: dict[str, tuple[type, ...]] = {
    "flag": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "list": (list,),
    "table": (dict,),
    "string_list": (list,),
    "number_list": (list,),
    "any": (object,),
}
_NUMBERS = ("integer", "number")
_TABLES_OF_A_PROCESS = ("network", "save", "train", "model", "sample", "logging")


class OptionGroup(Record):
    """Options that are declared in one place; `read` is that place. `kinds` maps a type's word to their names."""

    read: str
    kinds: dict[str, tuple[str, ...]]
    choices: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    required: tuple[str, ...] = ()

    def kind_of(self, name: str) -> str | None:
        """The type's word of an option, or None where it is not one of these."""
        return next((kind for kind, names in self.kinds.items() if name in names), None)


class ProgramOptions(Record):
    """Everything one trainer takes: groups by name, and which groups each of its programs takes."""

    source: str
    date: str
    groups: dict[str, OptionGroup]
    programs: dict[str, tuple[str, ...]]

    def of(self, program: str) -> tuple[OptionGroup, ...]:
        """The groups of one program, by its file's name; `KeyError` for a program that does not exist."""
        return tuple(self.groups[name] for name in self.programs[program])

    def citation(self, groups: Sequence[OptionGroup], name: str) -> str | None:
        """Where an option's meaning was read, or None when none of these groups has it."""
        where = next((group.read for group in groups if group.kind_of(name) is not None), None)
        return f"{self.source}: {where}" if where else None


@cache
def options_of(trainer: TrainerKind) -> ProgramOptions:
    """The trainer's options, read once."""
    text = (Path(__file__).with_name("options") / f"{trainer.value}.toml").read_text("utf-8")
    given = tomllib.loads(text)
    tables = {**given["group"], **{f"dataset_{name}": table for name, table in given.get("dataset", {}).items()}}
    return ProgramOptions(
        source=given["source"],
        date=given["date"],
        groups={name: _group(table) for name, table in tables.items()},
        programs=given.get("program", {}),
    )


def config_problems(config: Any) -> tuple[str, ...]:
    """What is wrong with a whole ai-toolkit configuration, a sentence each: unknown keys, wrong types, missing ones.

    Stricter than ai-toolkit, which passes over what it does not know; a key it would pass over does nothing there.
    """
    groups = options_of(TrainerKind.AI_TOOLKIT).groups
    found = list(_table_problems("root", config, groups))
    if found:
        return tuple(found)
    found += _table_problems("config", config["config"], groups)
    found += _table_problems("meta", config.get("meta", {}), groups)
    for process in config["config"].get("process", ()):
        found += _table_problems("process", process, groups)
        if isinstance(process, dict):
            for name in _TABLES_OF_A_PROCESS:
                found += _table_problems(name, process.get(name, {}), groups)
            for dataset in process.get("datasets", ()):
                found += _table_problems("datasets", dataset, groups)
    return tuple(found)


def _table_problems(name: str, given: Any, groups: Mapping[str, OptionGroup]) -> Iterator[str]:
    if not isinstance(given, dict):
        yield f"{name} must be a table, not {given!r}"
        return
    group = groups[name]
    for key, value in given.items():
        kind = group.kind_of(key)
        if kind is None:
            yield f"unknown key {key!r} in {name}"
        elif not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind in _NUMBERS):
            yield f"{name}.{key} must be a {kind}, not {value!r}"
        elif key in group.choices and value not in group.choices[key]:
            yield f"{name}.{key} cannot be {value!r}"
    for key in group.required:
        if key not in given:
            yield f"config file must have a {name}.{key} key"


def read_command_line(groups: Sequence[OptionGroup], words: Sequence[str]) -> dict[str, Any]:
    """Options as the programs' own parsers read them; `ValueError` in their words for what they would refuse."""
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        name, equals, value = rest.pop(0).removeprefix("--").partition("=")
        group = next((one for one in groups if one.kind_of(name) is not None), None)
        if group is None:
            raise ValueError(f"unrecognized arguments: --{name}")
        kind = str(group.kind_of(name))
        if kind == "flag":
            found[name] = True
            continue
        values = [value] if equals else _taken(rest, is_list=kind.endswith("_list"))
        if not values:
            raise ValueError(f"argument --{name}: expected one argument")
        read = [_value(name, kind, one, group.choices) for one in values]
        found[name] = read if kind.endswith("_list") else read[0]
    missing = [name for group in groups for name in group.required if name not in found]
    if missing:
        raise ValueError(f"the following arguments are required: {', '.join(f'--{name}' for name in missing)}")
    return found


def _taken(rest: list[str], *, is_list: bool) -> list[str]:
    taken: list[str] = []
    while rest and not rest[0].startswith("--") and (is_list or not taken):
        taken.append(rest.pop(0))
    return taken


def _value(name: str, kind: str, text: str, choices: Mapping[str, Sequence[str]]) -> str | int | float:
    if name in choices and text not in choices[name]:
        offered = ", ".join(repr(one) for one in choices[name])
        raise ValueError(f"argument --{name}: invalid choice: {text!r} (choose from {offered})")
    try:
        match kind.removesuffix("_list"):
            case "integer":
                return int(text)
            case "number":
                return float(text)
    except ValueError:
        raise ValueError(f"argument --{name}: invalid {kind} value: {text!r}") from None
    return text


def _group(table: Mapping[str, Any]) -> OptionGroup:
    kinds = {kind: names for kind, names in table.items() if kind in _TYPES}
    return OptionGroup(
        read=table["read"], kinds=kinds, choices=table.get("choices", {}), required=table.get("required", ())
    )
