"""Prompts as people write them, with `@Name` for a character, and as each kind of model must read them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SIGN = r"(?<![A-Za-z0-9_])@"
"""Not inside an address like `a@b`; scripts that write no spaces may have a letter before it."""


@dataclass(frozen=True)
class Mention:
    """A character named in a prompt, at `[start, end)` including the `@`."""

    name: str
    start: int
    end: int


def find_mentions(prompt: str, names: Sequence[str]) -> list[Mention]:
    """Every `@Name` of a declared character, in order. The longest declared name wins; case does not matter.

    An address like `a@b` is no mention, and a name ends where the word ends: `@Mei` is not in `@Meike`.
    """
    by_length = sorted(names, key=len, reverse=True)
    mentions = []
    for sign in re.finditer(_SIGN, prompt):
        for name in by_length:
            end = sign.end() + len(name)
            if prompt[sign.end() : end].casefold() == name.casefold() and not _goes_on(prompt, end):
                mentions.append(Mention(name, sign.start(), end))
                break
    return mentions


def _goes_on(text: str, at: int) -> bool:
    """Whether the word goes on here: a letter, a digit, or a mark that belongs to the letter before."""
    return at < len(text) and (text[at].isalnum() or text[at] == "_" or unicodedata.category(text[at]).startswith("M"))


def unknown_mentions(prompt: str, names: Sequence[str]) -> list[str]:
    """The `@word`s that name nobody (an address like `a@b` is no mention)."""
    known = {mention.start for mention in find_mentions(prompt, names)}
    return [m.group(0) for m in re.finditer(_SIGN + r"\w[\w’-]*", prompt) if m.start() not in known]


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
