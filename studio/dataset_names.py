"""How a person names a character's pictures, and what was said of each: `f12` is frame 12, `s2` the second still."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import TYPE_CHECKING

from domain.errors import BadInput
from domain.picture_keys import key_of_frame, key_of_still
from domain.pictures import Decision
from domain.records import Record
from domain.seasons import Character

if TYPE_CHECKING:
    from providers.wiring import Ports

_MOST_NAMED = 12


class Names(Record):
    """Every picture of a character by its name: the key its decision is filed under."""

    keys: dict[str, str]

    def decided(self, decisions: dict[str, Decision]) -> dict[str, Decision]:
        """What was said, by name."""
        return {name: decisions[key] for name, key in self.keys.items() if key in decisions}


def names_of(ports: Ports, character: Character) -> Names:
    """The names of all frames that were looked at and of all stills. The clips must have been harvested."""
    frames = {
        frame.name: key_of_frame(clip.id, frame.at_seconds)
        for clip in ports.cast.clips(character.id)
        for frame in ports.cast.frames(clip.id)
    }
    stills = {
        f"s{number}": key_of_still(still.sha256)
        for number, still in enumerate(ports.cast.stills(character.id, "training"), 1)
    }
    return Names(keys={**frames, **stills})


def file_decisions(
    ports: Ports,
    character: Character,
    names: Names,
    *,
    keep: Sequence[str],
    drop: Sequence[str],
    undecide: Sequence[str],
) -> None:
    """File what a person says. `BadInput` for a name nobody has, or one named twice: then nothing is stored."""
    said: dict[str, Decision | None] = {}
    for given, decision in ((keep, Decision.KEEP), (drop, Decision.DROP), (undecide, None)):
        for name in given:
            if name not in names.keys:
                raise BadInput(f"{character.name} has no picture {name!r}; there are: {_told(names)}.")
            if name in said:
                raise BadInput(f"{name} is named twice among --keep, --drop and --undecide: say one thing of it.")
            said[name] = decision
    for name, word in said.items():
        if word is None:
            ports.decisions.undecide(character.id, names.keys[name])
        else:
            ports.decisions.decide(character.id, names.keys[name], word, _who())


def _told(names: Names) -> str:
    """All names where they are few, else the ends of each run."""
    every = list(names.keys)
    if len(every) <= _MOST_NAMED:
        return ", ".join(every) or "none"
    shown = ", ".join(every[: _MOST_NAMED - 2])
    return f"{shown} … {every[-1]} ({len(every)} in all; the contact sheet shows them)"


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody without a name on this machine"
