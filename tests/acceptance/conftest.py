"""The fixtures of the acceptance tests."""

from __future__ import annotations

from tests.acceptance.season_fixtures import art, harbor, own_home, prefect_url, session_home, studio, untouched

__all__ = ["art", "harbor", "own_home", "prefect_url", "session_home", "studio", "untouched"]
