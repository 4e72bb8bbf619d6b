"""Cells of a CSV file that a spreadsheet reads as text, never as a formula."""

from __future__ import annotations

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What spreadsheets take for the beginning of a formula, or skip to find one (OWASP, CSV injection)."""


def safe_cell(text: str) -> str:
    """The text, with an apostrophe before it where a spreadsheet would otherwise run it. For text, not for amounts."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
