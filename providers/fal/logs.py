"""How far a training at fal is, as its log lines say it. For showing only: nothing is decided by it.

What fal's trainers print is not documented. A training bar is read as on our own machines; of any other line the last
"n/m" counts, with the loss and, from the lines' own times, what is left.
"""

from __future__ import annotations

import re
from math import isfinite

from domain.jobs import TrainingProgress
from providers.trainers.logs import progress_of
from providers.vendor_words import moment

_STEPS = re.compile(r"(?<![\w/.])(\d{1,9})\s*/\s*(\d{1,9})(?![\w/.])")
_LOSS = re.compile(r"\bloss\b\W{0,3}([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)", re.IGNORECASE)
LINES_READ = 400
"""The newest lines; a long training logs tens of thousands."""


def log_lines(logs: object) -> list[tuple[str, object]]:
    """The messages of a status answer's logs, oldest first, each with the time it carries."""
    entries = logs if isinstance(logs, list) else []
    found = [entry for entry in entries if isinstance(entry, dict)]
    return [(str(entry.get("message", "")), entry.get("timestamp")) for entry in found[-LINES_READ:]]


def training_progress(lines: list[tuple[str, object]]) -> TrainingProgress | None:
    """The newest step that the lines tell of; None while they tell of none."""
    bar = progress_of("\n".join(message for message, _ in lines))
    if bar is not None:
        return TrainingProgress(
            step=bar.step, total_steps=bar.total_steps, loss=bar.loss, seconds_left=bar.seconds_left
        )
    counted = [(*count, message, at) for message, at in lines if (count := _count(message)) is not None]
    if not counted:
        return None
    step, total, message, _ = counted[-1]
    loss = _LOSS.search(message)
    value = float(loss[1]) if loss else None
    return TrainingProgress(
        step=step,
        total_steps=total,
        loss=value if value is None or isfinite(value) else None,
        seconds_left=_seconds_left(counted),
    )


def _count(message: str) -> tuple[int, int] | None:
    for step, total in reversed(_STEPS.findall(message)):
        if int(total) > 0 and int(step) <= int(total):
            return int(step), int(total)
    return None


def _seconds_left(counted: list[tuple[int, int, str, object]]) -> float | None:
    """By the pace between the first and the last count of the same whole; None where the lines carry no times."""
    step, total, _, last = counted[-1]
    for earlier, of, _, first in counted:
        began, now = moment(first), moment(last)
        if of == total and earlier < step and began is not None and now is not None and now > began:
            return (total - step) * (now - began).total_seconds() / (step - earlier)
    return None
