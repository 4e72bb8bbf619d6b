"""The fixtures of the fault matrix."""

from __future__ import annotations

from tests.faults.fixtures import grounds

__all__ = ["grounds"]
