"""Falling back down the application table: each fall, and each retry before it, really taken on the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from itertools import count
from pathlib import Path

import pytest

from domain.applications import Route
from domain.jobs import JobState, Stage
from domain.renders import Render, RenderState
from providers.sandbox.launcher import set_faults
from tests.acceptance.season_homes import (
    ELEMENTS,
    FROM_IMAGE,
    STILLS,
    WAN_LORA,
    WAN_STILLS,
    Entry,
    Harbor,
    Outcome,
    Studio,
    wait_for,
)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

FREE_NUMBERS = count(20)
BACKOFFS = [2.0, 4.0, 8.0]
COUNTED = (ELEMENTS, FROM_IMAGE, STILLS, WAN_LORA, WAN_STILLS)


class Shoot:
    """Renders further slots of the season `harbor`, whose characters are ready; counts what the vendor was asked."""

    def __init__(self, studio: Studio, harbor: Harbor) -> None:
        self._studio, self._harbor = studio, harbor
        self.ports, self.clock = studio.ports, studio.clock

    def __call__(self, prompt: str, model: str, seconds: float, faults: str = "") -> Render:
        number = next(FREE_NUMBERS)
        slot: Entry = {"number": number, "prompt": prompt, "video_model": model, "seconds": seconds}
        manifest = self._studio.write("harbor", self._harbor.cast, [*self._harbor.slots, slot])
        with self._studio.faults(faults):
            self.before = {endpoint: self._studio.posts(endpoint) for endpoint in COUNTED}
            return self._studio.render(manifest, number)

    def posts(self, endpoint: str) -> int:
        return self._studio.posts(endpoint) - self.before[endpoint]


@pytest.fixture
def shoot(studio: Studio, harbor: Harbor) -> Shoot:
    return Shoot(studio, harbor)


def only_route(render: Render) -> tuple[Route, str]:
    (route,) = render.routes
    return route.route, route.reason


def test_elements_that_fail_four_times_give_way_to_the_original_references(shoot: Shoot) -> None:
    render = shoot("@Mei waits", "kling_o1_reference", 3, f"job:fail=500@{ELEMENTS}#1-4")
    route, reason = only_route(render)
    assert (render.state, route) == (RenderState.DONE, Route.ORIGINALS)
    assert reason.startswith("elements failed: ")
    assert (shoot.posts(ELEMENTS), shoot.clock.backoffs()) == (5, BACKOFFS)


def test_elements_that_work_at_the_fourth_try_stay(shoot: Shoot) -> None:
    render = shoot("@Mei waits on", "kling_o1_reference", 3, f"job:fail=500@{ELEMENTS}#1-3")
    assert (render.state, only_route(render)[0]) == (RenderState.DONE, Route.ELEMENTS)
    assert (shoot.posts(ELEMENTS), shoot.clock.backoffs()) == (4, BACKOFFS)


def test_a_refused_request_is_not_repeated_before_falling_back(shoot: Shoot) -> None:
    render = shoot("@Mei turns", "kling_o1_reference", 3, f"submit:refuse=422@{ELEMENTS}#1")
    assert (render.state, only_route(render)[0]) == (RenderState.DONE, Route.ORIGINALS)
    assert (shoot.posts(ELEMENTS), shoot.clock.backoffs()) == (2, [])


def test_a_direct_lora_that_fails_twice_gives_way_to_a_still_with_it_and_a_model_that_shows_that(shoot: Shoot) -> None:
    render = shoot("@Tova skips", "wan_22_t2v_lora", 1, f"job:fail=500@{WAN_LORA}#1-2")
    route, reason = only_route(render)
    assert (render.state, route) == (RenderState.DONE, Route.PREPROCESSED)
    assert reason.startswith("direct failed: ")
    assert render.video_model == shoot.ports.registry.default_video_model
    assert (shoot.posts(WAN_LORA), shoot.posts(WAN_STILLS), shoot.posts(ELEMENTS)) == (2, 1, 1)


def test_a_direct_lora_whose_still_fails_too_gives_way_to_the_originals(shoot: Shoot) -> None:
    faults = f"job:fail=500@{WAN_LORA}#1-2,job:fail=500@{WAN_STILLS}#1-4"
    render = shoot("@Tova leaps", "wan_22_t2v_lora", 1, faults)
    assert (render.state, only_route(render)[0]) == (RenderState.DONE, Route.ORIGINALS)
    assert (shoot.posts(WAN_LORA), shoot.posts(WAN_STILLS), shoot.posts(ELEMENTS)) == (2, 4, 1)


def test_a_direct_lora_is_tried_twice(shoot: Shoot) -> None:
    render = shoot("@Tova hops", "wan_22_t2v_lora", 1, f"job:fail=500@{WAN_LORA}#1")
    assert (render.state, only_route(render)[0]) == (RenderState.DONE, Route.DIRECT)
    assert shoot.posts(WAN_LORA) == 2


def test_a_still_that_fails_four_times_gives_way_to_the_originals_of_its_character_alone(shoot: Shoot) -> None:
    render = shoot("@Mei and @Tova dive", "kling_v25_turbo", 5, f"job:fail=500@{STILLS}#1-4")
    mei, tova = render.routes
    assert (render.state, mei.route, tova.route) == (RenderState.DONE, Route.ORIGINALS, Route.PREPROCESSED)
    assert mei.reason.startswith("preprocessed failed: ")
    assert (shoot.posts(STILLS), shoot.posts(FROM_IMAGE), shoot.clock.backoffs()) == (4, 1, BACKOFFS)


def test_a_still_that_works_at_the_fourth_try_is_filmed(shoot: Shoot) -> None:
    render = shoot("@Mei and @Tova swim", "kling_v25_turbo", 5, f"job:fail=500@{STILLS}#1-3")
    routes = [route.route for route in render.routes]
    assert (render.state, routes) == (RenderState.DONE, [Route.PREPROCESSED, Route.PREPROCESSED])
    assert render.still_sha256 is not None
    assert shoot.posts(STILLS) == 4


@contextmanager
def spoiled(studio: Studio, harbor: Harbor, how: str) -> Iterator[None]:
    """Mei's LoRA file gone from the store, or other bytes in its place; afterwards it is whole again."""
    lora = studio.ports.loras.get(harbor.first.lora("Mei")["id"])
    assert lora.sha256 is not None
    path = studio.ports.blobs.local_path(lora.sha256)
    kept = path.rename(path.with_name("kept"))
    try:
        if how == "damaged":
            whole = kept.read_bytes()
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 0xFF]))
        yield
    finally:
        kept.replace(path)


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_lora_file_that_is_missing_or_damaged_is_an_error_and_the_originals(
    shoot: Shoot, studio: Studio, harbor: Harbor, how: str
) -> None:
    with spoiled(studio, harbor, how):
        render = shoot(f"@Mei finds it {how}", "kling_v25_turbo", 5)
    route, reason = only_route(render)
    assert (render.state, route, reason) == (
        RenderState.DONE,
        Route.ORIGINALS,
        "its LoRA file is missing or damaged",
    )
    assert render.routes[0].severity == "error"
    assert shoot.posts(STILLS) == 0


def quay(studio: Studio, slug: str) -> Path:
    """A cheap season of one untrained character: two slots of different models."""
    slots: list[Entry] = [
        {"number": 1, "prompt": "@Dario nods", "video_model": "kling_v25_turbo", "seconds": 5},
        {"number": 2, "prompt": "@Dario bows", "video_model": "kling_o1_reference", "seconds": 3},
    ]
    return studio.write(slug, [studio.untrained("dario")], slots)


def states(outcome: Outcome) -> dict[int, str]:
    return {slot["number"]: slot["state"] for slot in outcome.document["slots"]}


def test_a_slot_whose_last_route_fails_is_a_gap_and_stops_no_other(studio: Studio) -> None:
    manifest = quay(studio, "gap")
    with studio.faults(f"job:fail=500@{FROM_IMAGE}"):
        failed = studio.run(manifest)
    assert failed.exit_code == 5
    assert states(failed) == {1: "failed", 2: "done"}
    assert "Failed on purpose" in failed.slot(1)["reason"]
    assert failed.document["gaps"] == [1]
    assert failed.document["video_seconds"] == pytest.approx(3, abs=0.2)
    assert (studio.out(manifest) / "season.mp4").exists()
    assert "Failed on purpose" in (studio.out(manifest) / "report.html").read_text()
    assert [job.state for job in studio.jobs(manifest)].count(JobState.FAILED) == 2


def test_a_lost_answer_makes_its_slot_wait_until_the_vendor_shows_it_and_nothing_is_sent_twice(studio: Studio) -> None:
    manifest, before = quay(studio, "lost"), studio.posts(FROM_IMAGE)
    with studio.faults(f"submit:drop_after_accept@{FROM_IMAGE},list:hide"):
        lost = studio.run(manifest)
    assert lost.exit_code == 6
    assert states(lost) == {1: "waiting", 2: "done"}
    job = next(job for job in studio.jobs(manifest) if job.state is JobState.SUBMISSION_UNKNOWN)
    assert job.key[:12] in lost.slot(1)["reason"]
    with studio.faults("list:hide"):
        again = studio.run(manifest)
    assert (again.exit_code, states(again)) == (6, states(lost))
    assert again.routes(1) == {"Dario": "originals"}
    assert studio.ports.ledger.budget(job.season_id)[1] == job.ceiling_usd
    found = studio.run(manifest)
    assert (found.exit_code, states(found)) == (0, {1: "done", 2: "done"})
    assert studio.posts(FROM_IMAGE) == before + 1


def test_slots_are_rendered_side_by_side(studio: Studio) -> None:
    manifest = quay(studio, "overlap")
    with studio.faults("job:stay_queued"), ThreadPoolExecutor(1) as aside:
        run = aside.submit(copy_context().run, studio.run, manifest)  # the context knows Prefect's server
        # The first is sent and cannot end; the second is sent all the same.
        wait_for(lambda: [job.state for job in studio.jobs(manifest)] == [JobState.SUBMITTED] * 2)
        set_faults(studio.sandbox_url, "")
        for job in studio.jobs(manifest):
            assert job.ids is not None
            studio.ports.job_vendor(job.request.vendor).cancel(job.request, job.ids)
    assert run.result().exit_code == 0
    assert len(studio.jobs(manifest, Stage.VIDEO)) == 4
