"""What does not fit into a budget waits where its owner wants to be asked; the rest goes on, nothing is repeated."""

from __future__ import annotations

from decimal import Decimal

import pytest

from domain.jobs import JobState, Stage
from tests.acceptance.season_homes import TRAINERS, Entry, Outcome, Studio

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

CHEAP: Entry = {"number": 1, "prompt": "@Dario nods", "video_model": "kling_o1_reference", "seconds": 3}
LEARNED: Entry = {"number": 2, "prompt": "@Mei nods", "video_model": "kling_o1_reference", "seconds": 3}
DEAR: Entry = {"number": 3, "prompt": "@Dario waits", "video_model": "kling_o1_reference", "seconds": 10}


def states(outcome: Outcome) -> list[str]:
    return [slot["state"] for slot in outcome.document["slots"]]


def test_what_asks_for_budget_waits_and_cheaper_work_goes_on_without_a_fallback(studio: Studio) -> None:
    trained = studio.posts(TRAINERS)
    cast = [studio.learned("mei", steps=1000), studio.untrained("dario")]
    manifest = studio.write("asks", cast, [DEAR, CHEAP, LEARNED], budget_usd="1.00", at_limit="ask")
    asked = studio.run(manifest)
    assert asked.exit_code == 6, asked.told
    assert states(asked) == ["done", "planned", "waiting"]
    more = "onmodel budget asks --limit USD, and onmodel run season.yaml"
    todo = {item["what"]: item for item in asked.document["todo"]}
    assert set(todo) == {"Slot 3 has no clip", "Mei waits for a budget"}
    assert all(item["command"] == more and "may cost up to" in item["why"] for item in todo.values())
    assert Decimal(asked.document["reserved_usd"]) == 0

    # Enough for the slot, and still not for the training.
    bought = studio.posts()
    studio.ports.budgets.set_season(studio.ports.seasons.by_slug("asks").id, limit_usd=Decimal("2.20"))
    allowed = studio.run(manifest)
    assert (allowed.exit_code, states(allowed)) == (6, ["done", "planned", "done"])
    assert [item["what"] for item in allowed.document["todo"]] == ["Mei waits for a budget"]
    assert (studio.posts(), studio.posts(TRAINERS)) == (bought + 1, trained)
    assert {(job.stage, job.state) for job in studio.jobs(manifest)} == {(Stage.VIDEO, JobState.SUCCEEDED)}


def test_a_character_over_its_own_limit_stops_alone(studio: Studio) -> None:
    mei = studio.learned("mei", steps=1000, budget_usd="1.00")
    manifest = studio.write("own-limit", [mei, studio.untrained("dario")], [CHEAP, LEARNED])
    stopped = studio.run(manifest)
    assert stopped.exit_code == 4, stopped.told
    assert states(stopped) == ["done", "planned"]
    assert {job.stage for job in studio.jobs(manifest)} == {Stage.VIDEO}
    (todo,) = stopped.document["todo"]
    assert todo["command"] == "onmodel budget own-limit 'Mei' --limit USD, and onmodel run season.yaml"
