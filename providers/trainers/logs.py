"""What a trainer's log says: how far it is, and whether it is in trouble.

Standard library alone (Python 3.10 on) and nothing of ours, because the worker carries this file's text with it to the
rented machine. The log is whatever a program prints: nothing in it is trusted further than a number or a bounded
quotation.

Sources: shared/reference/runpod_trainers.md 2.6 (ai-toolkit), 3.1 (musubi-tuner), 3.2 (sd-scripts); the code at
ai-toolkit 27a03a9, musubi-tuner 30c658c, sd-scripts 48d368f.
"""

import re
from math import isfinite
from typing import NamedTuple


class Progress(NamedTuple):
    """How far a training is. A loss that is no finite number, or a time that is not told, is None."""

    step: int
    total_steps: int
    loss: float | None
    seconds_left: float | None


NAN_LINES_ALLOWED = 2
"""ai-toolkit prints `loss is nan`, counts that step's loss as zero and goes on (runpod_trainers.md 0.7): a single
broken step does no harm, so the third such line in the text is where a run counts as lost. The number is ours."""

LONGEST_QUOTE = 300

_NUMBER = r"[-+]?(?:nan|inf(?:inity)?|\d+(?:\.\d*)?(?:e[-+]?\d+)?)"
_BAR = re.compile(
    r"\d{1,3}%\|[^|\r\n]*\|\s*(?P<step>\d{1,9})/(?P<total>\d{1,9})\s*"
    r"\[(?P<spent>[\d:? ]+|\d+ days?, [\d:]+)<(?P<left>[\d:?]+|\d+ days?, [\d:]+),(?P<rest>[^\]\r\n]{0,400})"
)
_LOSS = re.compile(rf"\b(?:avr_loss=|loss: )\s*(?P<loss>{_NUMBER})", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(?P<days>\d+) days?, )?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")
_BREAKS = re.compile(r"[\r\n]+")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a1-\uffff]+")

_NAN_SAID = re.compile(r"^\s*loss is nan\s*$", re.IGNORECASE)
_ENDINGS = (
    (re.compile(r"OOM during training step \d+ times in a row"), "the GPU's memory was too small, step after step"),
    (
        re.compile(r"GatedRepoError|Cannot access gated repo|Access to model \S+ is restricted", re.IGNORECASE),
        "the base model is gated: accept its licence at Hugging Face and set HF_TOKEN to a token of that account",
    ),
    (re.compile(r"No space left on device"), "the disk is full"),
    (
        re.compile(r"CUDA driver version is insufficient|unsatisfied condition: cuda|driver on your system is too old"),
        "the machine's driver is too old for the program's CUDA",
    ),
    (re.compile(r"Error running job: (?P<said>.*)"), "ai-toolkit gave up"),
    (
        re.compile(r"torch\.(?:cuda\.)?OutOfMemoryError|CUDA out of memory"),
        "the GPU's memory was too small",
    ),
)
_SKIPPED_OOM = re.compile(r"OOM during training step, skipping batch")
_RAISED = re.compile(r"^(?P<kind>[A-Za-z_][\w.]{0,80}(?:Error|Exception|Interrupt|Exit))(?:: (?P<said>.*))?$")


def progress_of(text: str) -> Progress | None:
    """The newest step that a training bar in the text shows; None while there is none.

    Only training bars count: musubi's and sd-scripts' are named `steps`, ai-toolkit's says a loss. Bars of downloads,
    of caching and of samples are passed over, and so is one that makes no sense.
    """
    for line in reversed(_BREAKS.split(text)):
        # A bar may stand behind another in the same line, where a program printed without a break.
        for bar in reversed(list(_BAR.finditer(line))):
            loss = _LOSS.search(bar["rest"])
            is_ours = loss is not None or line[: bar.start()].rstrip().endswith("steps:")
            step, total = int(bar["step"]), int(bar["total"])
            if is_ours and total > 0 and step <= total:
                return Progress(step, total, _finite(loss["loss"]) if loss else None, _seconds(bar["left"]))
    return None


def trouble_in(text: str) -> str | None:
    """Why a run with this log is lost, as the end of a sentence without its full stop; None while nothing says so.

    A loss that is no finite number (musubi and sd-scripts train on with `avr_loss=nan` and save a file of it;
    ai-toolkit hides it as zero, see `NAN_LINES_ALLOWED`), memory that is too small for good, a gated base, a full disk,
    an old driver, and ai-toolkit's own word that the job failed. A batch that ai-toolkit skipped for memory is no
    trouble yet. Give it the whole log or its last 100 kB: what it counts, it counts in this text.
    """
    lines = _BREAKS.split(text)
    is_skipped = any(_SKIPPED_OOM.search(line) for line in lines)
    nan_lines = 0
    for line in lines:
        nan_lines += bool(_NAN_SAID.match(line))
        for bar in _BAR.finditer(line):
            loss = _LOSS.search(bar["rest"])
            if loss is not None and _finite(loss["loss"]) is None:
                return f"the loss became {loss['loss'].lower()} at step {bar['step']} of {bar['total']}"
    if nan_lines > NAN_LINES_ALLOWED:
        return f"the loss was no number {nan_lines} times (`loss is nan`)"
    for pattern, meaning in _ENDINGS:
        if is_skipped and "OutOfMemoryError" in pattern.pattern:
            continue
        for line in lines:
            found = pattern.search(line)
            if found:
                said = found.groupdict().get("said")
                return f"{meaning}: {_quoted(said)}" if said else meaning
    return None


def last_words(text: str) -> str | None:
    """What a program that ended with an error said last: the newest line that names one; None without such a line.

    For a program that is over: while it runs, a line that names an error may have been caught.
    """
    for line in reversed(_BREAKS.split(text)):
        if _RAISED.match(line.strip()):
            return _quoted(line)
    return None


def _finite(text: str) -> float | None:
    value = float(text)
    return value if isfinite(value) else None


def _seconds(clock: str) -> float | None:
    found = _CLOCK.fullmatch(clock.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(found[part] or 0) for part in ("days", "hours", "minutes", "seconds"))
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _quoted(text: str) -> str:
    """A stranger's words on one line, printable and of bounded length."""
    return _UNPRINTABLE.sub(" ", text).strip()[:LONGEST_QUOTE]
