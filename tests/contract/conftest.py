"""The fixtures of the contract tests."""

from __future__ import annotations

from tests.contract.object_store_server import object_store
from tests.contract.sandbox_fixtures import one_sandbox

__all__ = ["object_store", "one_sandbox"]
