"""Orders of the stages with the same work at the vendors that follow, and what is found again after it has moved."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from psycopg.types.json import Jsonb

from domain.errors import JobFailed, Unavailable
from domain.jobs import JobState, ProviderJob, VendorState
from domain.training_sets import Coverage, CuratedSet, TrainingImage
from domain.vendors import WORKS
from tasks.application import start_render
from tasks.captioning import plan_captions
from tasks.jobs import await_job, move_to_next_vendor, plan_again, plan_job, submit_job
from tasks.rendering import plan_slot_video, video_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import HandClock, PortsForTests, store_season

slugs = (f"two-vendors-{n}" for n in itertools.count(1))
SLOT = {"number": 1, "prompt": "rain on the pier"}


@pytest.fixture
def fal() -> StandinVendor:
    """The first vendor: down."""
    return StandinVendor(name="fal", submits=[Unavailable("503")] * 50)


@pytest.fixture
def ports(shared: PortsForTests, fal: StandinVendor) -> Iterator[PortsForTests]:
    opened = PortsForTests(shared.settings, {"fal": fal, "sandbox": StandinVendor(role="other")}, HandClock())
    yield opened
    with opened.database.transaction() as db:
        db.execute("DELETE FROM vendor_circuits")
    opened.close()


def season_at(ports: PortsForTests, *vendors: str) -> int:
    """A real season, all of whose work is to be done by these vendors, in this order."""
    characters = [{"name": "Mei", "captions": "described"}]
    season_id = store_season(ports, next(slugs), characters=characters, slots=[SLOT])
    choice = {work: list(vendors) for work in WORKS}
    with ports.database.transaction() as db:
        db.execute("UPDATE seasons SET is_simulated = false, vendor = %s WHERE id = %s", (Jsonb(choice), season_id))
    return season_id


def caption_job(ports: PortsForTests, season_id: int) -> ProviderJob:
    image = TrainingImage(
        sha256=ports.blobs.put_bytes(b"a picture", "image/jpeg"),
        file_name="001.jpg",
        media_type="image/jpeg",
        caption="MEI_01",
        source="a",
        width=9,
        height=9,
    )
    set_id = ports.cast.keep_training_set(
        CuratedSet(
            character_id=ports.cast.named(season_id, "Mei").id,
            digest=f"set of {season_id}",
            trained=(image,),
            held_out=(),
            left_out=(),
            coverage=Coverage(),
            warnings=(),
        )
    )
    (key,) = plan_captions(ports, set_id).job_keys
    return ports.ledger.get(key)


def test_a_caption_and_a_video_can_move_to_the_vendors_that_have_the_model_and_are_set_up(
    ports: PortsForTests,
) -> None:
    season_id = season_at(ports, "fal", "runpod", "replicate", "sandbox")
    render_id = start_render(ports, season_id, 1)
    for work in (caption_job(ports, season_id), video_job(ports, render_id)):
        (fallback,) = work.fallbacks
        assert (work.request.vendor, fallback.request.vendor) == ("fal", "sandbox")
        assert (work.is_simulated, fallback.is_simulated) == (False, True)
        assert (fallback.model_key, fallback.ceiling_usd) == (work.model_key, work.ceiling_usd)


def test_a_list_of_vendors_changes_no_key_of_work_that_was_ordered_with_the_first_alone(ports: PortsForTests) -> None:
    season_id = season_at(ports, "fal")
    render_id = start_render(ports, season_id, 1)
    alone = video_job(ports, render_id)
    with ports.database.transaction() as db:
        db.execute("UPDATE seasons SET vendor = jsonb_set(vendor, '{video}', '[\"fal\", \"sandbox\"]')")
    listed = video_job(ports, render_id)
    assert (len(alone.fallbacks), len(listed.fallbacks)) == (0, 1)
    assert listed.work_key == alone.work_key


def test_what_moved_is_planned_no_more_at_the_first_vendor(ports: PortsForTests, fal: StandinVendor) -> None:
    render_id = start_render(ports, season_at(ports, "fal", "sandbox"), 1)
    first = plan_slot_video(ports, render_id, max_attempts=2)
    with pytest.raises(Unavailable):
        submit_job(ports, first)
    moved = move_to_next_vendor(ports, first)
    assert moved is not None
    asked = len(fal.posts)
    submit_job(ports, moved)
    await_job(ports, moved)
    assert plan_slot_video(ports, render_id, max_attempts=2) == moved
    assert plan_job(ports, video_job(ports, render_id)) == moved
    assert (ports.ledger.get(first).state, ports.ledger.get(moved).state) == (JobState.CANCELLED, JobState.SUCCEEDED)
    assert len(fal.posts) == asked


def test_a_job_that_its_vendor_cancels_is_not_bought_again_by_the_run_that_waits_for_it(shared: PortsForTests) -> None:
    vendor = StandinVendor(states=(VendorState.CANCELLED,))
    ports = PortsForTests(shared.settings, {"sandbox": vendor}, HandClock())
    render_id = start_render(ports, store_season(ports, next(slugs), slots=[SLOT]), 1)
    key = plan_slot_video(ports, render_id, max_attempts=4)
    submit_job(ports, key)
    with pytest.raises(JobFailed, match="was cancelled at sandbox"):
        await_job(ports, key)
    assert plan_again(ports, key, max_attempts=4) is None
    assert ports.ledger.get(plan_slot_video(ports, render_id, max_attempts=4)).attempt == 2
    ports.close()
