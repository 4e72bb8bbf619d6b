"""Where the templates of pages lie, and how they are opened: every word escaped, a missing one an error."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"


def open_templates() -> Environment:
    """A fresh environment over the folder; filters and tests are the page's own to add."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
