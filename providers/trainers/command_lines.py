"""Options as a command line: each by its own long name, in the order given."""

from __future__ import annotations

from collections.abc import Mapping

Options = Mapping[str, str | int | float | bool]
"""A program's options by name; True is a flag that is set, False one that is left away."""


def command_line(options: Options) -> tuple[str, ...]:
    """`--name value` for each; numbers are written plainly (0.0001, not 1e-04), which every parser reads."""
    words: list[str] = []
    for name, value in options.items():
        if value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words.append(plain_number(value) if isinstance(value, float) else str(value))
    return tuple(words)


def plain_number(value: float) -> str:
    """A number without an exponent, as short as it can be."""
    return f"{value:.10f}".rstrip("0").rstrip(".")
