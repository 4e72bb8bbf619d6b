"""Prompts as people write them, with `@Name` for a character, and as each kind of model must read them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mention:
    """A character named in a prompt, at `[start, end)` including the `@`."""

    name: str
    start: int
    end: int


def find_mentions(prompt: str, names: Sequence[str]) -> list[Mention]:
    """Every `@Name` of a declared character, in order. The longest declared name wins; case does not matter."""
    by_length = sorted(names, key=len, reverse=True)
    if not by_length:
        return []
    pattern = re.compile("@(" + "|".join(re.escape(name) for name in by_length) + r")(?!\w)", re.IGNORECASE)
    spelled = {name.casefold(): name for name in names}
    return [Mention(spelled[m.group(1).casefold()], m.start(), m.end()) for m in pattern.finditer(prompt)]


def unknown_mentions(prompt: str, names: Sequence[str]) -> list[str]:
    """The `@word`s that name nobody (an address like `a@b` is no mention)."""
    known = {mention.start for mention in find_mentions(prompt, names)}
    return [m.group(0) for m in re.finditer(r"(?<!\w)@\w[\w’-]*", prompt) if m.start() not in known]


def mentioned_names(prompt: str, names: Sequence[str]) -> tuple[str, ...]:
    """The characters of a prompt, each once, in order of first appearance."""
    return tuple(dict.fromkeys(mention.name for mention in find_mentions(prompt, names)))


def rewrite_prompt(prompt: str, replacement_of: Mapping[str, str]) -> str:
    """The prompt with every mention replaced: a trigger word, `@Element1`, or a description in words."""
    parts: list[str] = []
    cursor = 0
    for mention in find_mentions(prompt, list(replacement_of)):
        parts += [prompt[cursor : mention.start], replacement_of[mention.name]]
        cursor = mention.end
    return "".join([*parts, prompt[cursor:]])


def in_words(name: str, description: str) -> str:
    """How a character without a LoRA is put to a model: `Mei Kobayashi (fisher's daughter, red scarf)`."""
    return f"{name} ({description})" if description else name


def with_trigger(trigger_word: str, description: str) -> str:
    """How a character with a LoRA is put to a model: the trigger word, then what the base should still know."""
    return f"{trigger_word}, {description}," if description else trigger_word
