"""Where a training happens: the folders and the Python of a machine, checked before they get into a command or text."""

from __future__ import annotations

import re

from domain.errors import BadInput, NotConfigured
from domain.model_rules import ProgramRule
from domain.records import Record

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ @+,-]{0,199}|\.[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""ai-toolkit replaces `[name]` and `${VARIABLE}` in its configuration (toolkit/config.py at 27a03a9), and an option
must not look like another one: so brackets, dollars and leading dashes have no place in a path."""

_TRIGGER = re.compile(r"[A-Za-z0-9_]{1,64}")
_WEIGHTS = re.compile(r"(?P<repository>[\w][\w.-]{0,95}/[\w][\w.-]{0,95})(?::(?P<file>[\w][\w./-]{0,199}))?")


class Place(Record):
    """Absolute paths on the machine that trains.

    `home` is the program's folder, `work` this job's, `dataset` where the training set is unpacked, `weights` where
    fetched base models are kept, for later jobs too. `python` runs the program: a path or a name on PATH.
    """

    home: str
    work: str
    dataset: str
    weights: str
    python: str = "python"


def checked_place(rule: ProgramRule, place: Place) -> Place:
    """The place, with `home` from the rule where it is not given; `NotConfigured` or `BadInput` says what is wrong."""
    home = place.home or rule.home
    if not home:
        raise NotConfigured(f"It is not said where {rule.program} is installed on this machine: set its home folder.")
    found = place.model_copy(update={"home": home})
    for what in ("home", "work", "dataset", "weights"):
        check_path(what, getattr(found, what))
    if "/" in found.python:
        check_path("python", found.python)
    elif not _SEGMENT.fullmatch(found.python):
        raise BadInput(f"{found.python!r} cannot be a Python's name: give a path or a plain name.")
    return found


def check_path(what: str, path: str) -> None:
    """`BadInput` unless the path is absolute, of plain segments and climbs nowhere."""
    segments = path.removeprefix("/").split("/")
    if not path.startswith("/") or not all(_SEGMENT.fullmatch(one) and ".." not in one for one in segments):
        raise BadInput(
            f"The {what} folder {path!r} cannot stand in a trainer's configuration: use an absolute path of letters, "
            "digits, spaces and . _ - + @ , only."
        )


def check_trigger(word: str) -> str:
    """The trigger word; `BadInput` unless it is letters, digits and underscores (it names a folder)."""
    if not _TRIGGER.fullmatch(word):
        raise BadInput(f"The trigger word {word!r} cannot name a folder: use letters, digits and _ only, 64 at most.")
    return word


def weights_of(text: str) -> tuple[str, str]:
    """Repository and file of `owner/name:path/in/it`; the file is '' where the whole repository is meant."""
    found = _WEIGHTS.fullmatch(text)
    if found is None or ".." in text:
        raise BadInput(f"{text!r} names no weights: write owner/name or owner/name:path/in/the/repository.")
    return found["repository"], found["file"] or ""


def weights_path(place: Place, text: str) -> str:
    """Where a file of a repository lies once it is fetched."""
    repository, file = weights_of(text)
    return f"{place.weights}/{repository.replace('/', '--')}/{file}".rstrip("/")
