"""A captioner's words read out of fal's answer. Pure.

What Moondream 3 answers is read in others' code only (domain/models/fal.toml): `output`, a text, beside `finish_reason`
and `usage_info`, which are not needed. Anything else in its place is no description, and the job has failed.
"""

from __future__ import annotations

from typing import Any

from domain.errors import JobFailed
from domain.model_rules import CaptionerRule

LONGEST_TEXT = 4000
"""Characters kept of an answer: several times what the longest description needs."""


def described_text(answer: dict[str, Any], rule: CaptionerRule, job: str) -> str:
    """What an answer says of the picture: one printable line of at most 4,000 characters.

    `JobFailed`, naming the job, when there are no words in it.
    """
    said = answer.get(rule.text_field)
    words = _one_line(said[: 2 * LONGEST_TEXT]) if isinstance(said, str) else ""
    if not words:
        raise JobFailed(f"fal calls {job} done, but its result says nothing of the picture in {rule.text_field!r}.")
    return words[:LONGEST_TEXT].rstrip()


def _one_line(text: str) -> str:
    # Half of a surrogate pair and the zero byte, which PostgreSQL refuses, are not printable either.
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
