"""Prompts of any length: the text encoders read 77 tokens and drop the rest, so a longer one is read in windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

WINDOW_TOKENS = 75
"""What is left of 77 beside the two marks at a window's ends."""


def split_prompt(prompt: str, count: Callable[[str], int], most: int = WINDOW_TOKENS) -> list[str]:
    """The prompt's words, in order, in texts of at most `most` tokens each, as `count` counts them.

    A single word of more tokens is cut where they end; what is left of it goes on in the next text.
    """
    windows: list[str] = []
    held = ""
    for word in prompt.split():
        wider = f"{held} {word}".strip()
        if count(wider) <= most:
            held = wider
            continue
        if held:
            windows.append(held)
        while count(word) > most:
            end = next(end for end in range(len(word) - 1, 0, -1) if count(word[:end]) <= most)
            windows.append(word[:end])
            word = word[end:]
        held = word
    return [*windows, held] if held else windows


def prompt_arguments(pipe: Any, prompt: str, negative_prompt: str | None) -> dict[str, Any]:
    """What the pipeline is called with: the two texts as they are, or, where either is longer than the encoders read,
    the embeddings of their windows one after another. The whole picture's direction (the pooled embedding) is the
    first window's.
    """
    import torch

    def count(text: str) -> int:
        return len(pipe.tokenizer(text).input_ids) - 2

    asked = split_prompt(prompt, count)
    unwanted = split_prompt(negative_prompt or "", count)
    windows = max(len(asked), len(unwanted))
    if windows <= 1:
        return {"prompt": prompt, "negative_prompt": negative_prompt}
    parts = [
        pipe.encode_prompt(
            prompt=asked[place] if place < len(asked) else "",
            negative_prompt=None if negative_prompt is None else (unwanted[place] if place < len(unwanted) else ""),
            device=pipe.device,
            do_classifier_free_guidance=True,
        )
        for place in range(windows)
    ]
    return {
        "prompt_embeds": torch.cat([part[0] for part in parts], dim=1),
        "negative_prompt_embeds": torch.cat([part[1] for part in parts], dim=1),
        "pooled_prompt_embeds": parts[0][2],
        "negative_pooled_prompt_embeds": parts[0][3],
    }
