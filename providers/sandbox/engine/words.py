"""The sandbox's text encoder: words become fixed directions, a caption becomes their weighted sum.

There is no language model here: each word has a direction of its own, drawn from its hash, so that unrelated
words are nearly orthogonal in a few thousand dimensions and a word that was trained is the only one that answers.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

ALWAYS = "<always>"
"""Stands in every prompt; a LoRA trained without a trigger word hangs on it, and so is never off."""

_ANCHOR_SHARE = 0.93  # of a caption's length that is the trigger's; the rest is shared by the other words
_EMPTY_WORDS = frozenset("a an and as at by for from in into is it of on or the to with".split())  # noqa: SIM905 a text reads better


def split_words(text: str) -> tuple[str, ...]:
    """The meaningful words of a text, lower case, each once, in order."""
    words = re.findall(r"\w+", text.lower())
    return tuple(dict.fromkeys(word for word in words if word not in _EMPTY_WORDS))


@lru_cache(maxsize=4096)
def word_direction(word: str, dimensions: int) -> Vector:
    """Unit vector of `dimensions`, the same for the same word on every machine."""
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    drawn = np.random.default_rng(seed).standard_normal(dimensions)
    direction: Vector = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    direction.flags.writeable = False
    return direction


def caption_direction(caption: str, trigger_word: str, dimensions: int) -> Vector:
    """Unit vector of a training caption: mostly its trigger word, if it holds one, and its other words equally."""
    words = split_words(caption)
    trigger = split_words(trigger_word)
    anchors = trigger if trigger and set(trigger) <= set(words) else (ALWAYS,)
    others = [word for word in words if word not in anchors]
    direction = _ANCHOR_SHARE * _mean_direction(anchors, dimensions)
    if others:
        direction = direction + np.sqrt(1 - _ANCHOR_SHARE**2) * _mean_direction(others, dimensions)
    unit: Vector = (direction / np.linalg.norm(direction)).astype(np.float32)
    return unit


def answer_to(prompt: str, learned: Vector) -> float:
    """How strongly a learned direction (of a LoRA's A rows) is called by a prompt: 0 not at all … 1 fully.

    Only words that the direction holds clearly are counted, so that many unrelated words do not add up.
    """
    words = (ALWAYS, *split_words(prompt))
    held = [float(word_direction(word, learned.size) @ learned) for word in words]
    called = float(np.sqrt(sum(h * h for h in held if h > 0.3)))
    ramp = min(1.0, max(0.0, (called - 0.3) / 0.4))
    return ramp * ramp * (3 - 2 * ramp)


def _mean_direction(words: list[str] | tuple[str, ...], dimensions: int) -> Vector:
    total = np.sum([word_direction(word, dimensions) for word in words], axis=0)
    unit: Vector = (total / np.linalg.norm(total)).astype(np.float32)
    return unit
