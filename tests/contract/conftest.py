"""The fixtures of the contract tests."""

from __future__ import annotations

from tests.contract.sandbox_fixtures import one_sandbox

__all__ = ["one_sandbox"]
