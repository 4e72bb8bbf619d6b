"""A vendor that is down: its work moves to the next one of the manifest, and the season is finished there."""

from __future__ import annotations

import pytest

from domain.circuits import OUTAGES_TO_OPEN
from domain.errors import Unavailable
from domain.jobs import JobState, Stage
from tests.acceptance.season_homes import Entry, Studio
from tests.acceptance.standin_vendor import StandinVendor

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SLOT: Entry = {"number": 1, "prompt": "@Mei runs", "video_model": "kling_v25_turbo", "seconds": 5}
CHOICE = {"train": ["fal", "sandbox"], "image": ["fal", "sandbox"], "video": "sandbox"}


def test_work_of_a_vendor_that_is_down_moves_to_the_next_and_the_season_is_finished(studio: Studio) -> None:
    down = StandinVendor(name="fal", submits=[Unavailable("503")] * 200)
    studio.ports._vendors["fal"] = down
    manifest = studio.write("moved", [studio.learned("mei")], [SLOT], vendor=CHOICE)
    outcome = studio.run(manifest)
    assert outcome.exit_code == 0, outcome.told
    assert outcome.lora("Mei")["status"] == "ready"
    assert outcome.routes(1) == {"Mei": "preprocessed"}
    assert "moves from fal to sandbox" in outcome.told

    jobs = studio.jobs(manifest)
    given_up = [job for job in jobs if job.request.vendor == "fal"]
    assert {(job.state, job.billed_usd) for job in given_up} == {(JobState.CANCELLED, 0)}
    assert {job.stage for job in given_up} >= {Stage.LORA_TRAINING, Stage.IDENTITY_CHECK, Stage.LORA_APPLICATION}
    taken_over = {job.key: job for job in jobs if job.request.vendor == "sandbox"}
    assert all(taken_over[job.moved_to or ""].state is JobState.SUCCEEDED for job in given_up)
    assert len({job.moved_to for job in given_up}) == len(given_up)

    asked_to_train = [post for post in down.posts if post.endpoint.startswith("train/")]
    assert len(asked_to_train) == OUTAGES_TO_OPEN
    trainings = [job for job in jobs if job.stage is Stage.LORA_TRAINING]
    assert [(job.request.vendor, job.attempt) for job in trainings] == [("fal", 1), ("sandbox", 1)]
    asked, bought = len(down.posts), studio.posts()
    again = studio.run(manifest)
    assert (again.exit_code, len(down.posts), studio.posts()) == (0, asked, bought)
    assert len(studio.jobs(manifest)) == len(jobs)
