"""What stops a season before it costs anything: its budget, a locked account, a refused key."""

from __future__ import annotations

from decimal import Decimal

import pytest

from domain.jobs import JobState, Stage
from tests.acceptance.season_homes import TRAINERS, Entry, Studio

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SLOT: Entry = {"number": 1, "prompt": "@Mei nods", "video_model": "kling_o1_reference", "seconds": 3}


def test_a_budget_too_small_for_training_stops_the_season_and_raised_lets_it_go_on(studio: Studio) -> None:
    cast, before = [studio.learned("mei", steps=1000)], studio.posts()
    small = studio.run(studio.write("poor", cast, [SLOT], budget_usd=1))
    assert small.exit_code == 4
    assert studio.posts() == before
    assert "raise budget_usd in the manifest" in small.told
    assert Decimal(small.document["total_cost_usd"]) == Decimal(small.document["reserved_usd"]) == 0
    # Two dead trainings say as well as a good one that it goes on, and at once.
    with studio.faults(f"job:fail=500@{TRAINERS}"):
        enough = studio.run(studio.write("poor", cast, [SLOT], budget_usd=20))
    assert enough.exit_code == 0
    assert studio.posts(TRAINERS) >= 2
    assert enough.lora("Mei")["status"] == "failed"
    assert enough.slot(1)["state"] == "done"


@pytest.mark.parametrize(
    ("fault", "exit_code", "words"),
    [("submit:lock", 4, "refused the account"), ("submit:refuse=401", 3, "did not accept the key")],
)
def test_a_locked_account_and_a_refused_key_end_the_run(studio: Studio, fault: str, exit_code: int, words: str) -> None:
    slot = SLOT | {"prompt": "@Dario nods"}
    manifest = studio.write(f"stopped-{exit_code}", [studio.untrained("dario")], [slot])
    with studio.faults(fault):
        stopped = studio.run(manifest)
    assert stopped.exit_code == exit_code
    assert words in stopped.told
    (job,) = studio.jobs(manifest)
    assert (job.state, job.ids) == (JobState.PLANNED, None)


def test_a_training_that_the_vendor_refuses_is_asked_for_once(studio: Studio) -> None:
    manifest, before = studio.write("refused", [studio.learned("mei")], [SLOT]), studio.posts(TRAINERS)
    with studio.faults(f"submit:refuse=422@{TRAINERS}"):
        refused = studio.run(manifest)
    assert refused.exit_code == 0
    assert studio.posts(TRAINERS) == before + 1
    assert refused.lora("Mei")["status"] == "failed"
    assert refused.routes(1) == {"Mei": "originals"}
    assert len(studio.jobs(manifest, Stage.LORA_TRAINING)) == 1
