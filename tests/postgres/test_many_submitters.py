"""Fifty real processes at one budget, and fifty at one job: nobody passes the limit, and nobody pays twice."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

from tests.ports_for_tests import PortsForTests, store_season
from tests.postgres.door_orders import slugs

ROOT = Path(__file__).parents[2]
CROWD = 50


def _crowd(ports: PortsForTests, season_id: int, what: str) -> list[tuple[str, str, int]]:
    """(key, end, POSTs) of each process."""
    assert ports.settings.database_url is not None
    url = ports.settings.database_url.get_secret_value()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.postgres.submitting_crowd"),
            *(url, str(ports.settings.home), str(season_id), str(CROWD), what),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(key, end, int(posts)) for key, end, posts in lines]


def test_of_fifty_at_a_budget_for_twenty_eight_exactly_twenty_eight_run(shared: PortsForTests) -> None:
    season_id = store_season(shared, next(slugs), budget_usd="10")
    ends = _crowd(shared, season_id, "each")
    assert Counter(end for _, end, _ in ends) == {"succeeded": 28, "OverBudget": 22}
    assert sum(posts for _, _, posts in ends) == 28
    assert shared.ledger.budget(season_id) == (Decimal(10), Decimal(0), Decimal("9.80"))
    assert len(shared.ledger.jobs_of_season(season_id)) == len(shared.ledger.costs(season_id)) == 28


def test_of_fifty_at_one_job_one_sends_it_and_all_have_it(shared: PortsForTests) -> None:
    season_id = store_season(shared, next(slugs), budget_usd="10")
    ends = _crowd(shared, season_id, "one")
    (job,) = shared.ledger.jobs_of_season(season_id)
    assert {(key, end) for key, end, _ in ends} == {(job.key, "succeeded")}
    assert len(ends) == CROWD
    assert sum(posts for _, _, posts in ends) == job.post_count == 1
    assert shared.ledger.budget(season_id) == (Decimal(10), Decimal(0), Decimal("0.35"))
