"""Routes of a slot as they are stored: resolved once, moved down step by step, each character for itself."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from decimal import Decimal

import pytest

from domain.applications import Route
from domain.characters import LoraStatus
from domain.errors import BadInput
from domain.loras import PinnedCharacter
from domain.proofs import Proof, Verdict, entry_sha256
from domain.renders import RenderState
from tasks.application import choose_lora, fall_back, start_render
from tasks.rendering import finish_render, video_job
from tasks.season_facts import clips_of_season
from tasks.slot_stills import plan_slot_stills
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import PortsForTests, new_database, settings_for_tests, store_season

FLUX, WAN, LTX = "flux-1-dev", "wan-22-t2v-a14b", "ltx-23"
_slugs = (f"routes-{n}" for n in itertools.count(1))


@pytest.fixture(scope="module")
def ports(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortsForTests]:
    with new_database(server_url) as url:
        opened = PortsForTests(settings_for_tests(tmp_path_factory.mktemp("home"), url), {"sandbox": StandinVendor()})
        yield opened
        opened.close()


def season_with(ports: PortsForTests, prompt: str, model: str | None = None) -> int:
    """A season with Mei, Rui, Tova and Dario and one slot, number 6."""
    return store_season(
        ports,
        next(_slugs),
        characters=[{"name": name, "base_models": [FLUX, WAN, LTX]} for name in ("Mei", "Rui", "Tova", "Dario")],
        slots=[{"number": 6, "prompt": prompt, "video_model": model}],
    )


def give_lora(
    ports: PortsForTests, season_id: int, name: str, base: str = FLUX, status: LoraStatus = LoraStatus.READY
) -> int:
    character = ports.cast.named(season_id, name)
    lora = ports.loras.create(character, base, trainer="t", training_set_id=None, images_count=12, created_by="test")
    digest = ports.blobs.put_bytes(f"{season_id}/{name}/{base}".encode(), "application/octet-stream")
    ports.loras.keep_weights(
        lora.id, trainer="t", sha256=digest, lora_url="file:///x", config_url=None, request_id=None, cost_usd=Decimal(2)
    )
    ports.loras.set_status(lora.id, status)
    return lora.id


def pin(ports: PortsForTests, season_id: int, name: str) -> None:
    digest = ports.blobs.put_bytes(f"{season_id}/{name}/front".encode(), "image/png")
    ports.loras.pin(
        season_id,
        PinnedCharacter(
            character_id=ports.cast.named(season_id, name).id,
            character_name=name,
            lora_id=None,
            frontal_sha256=digest,
            frontal_image_url="file:///x",
            reference_sha256s=(digest,),
            reference_image_urls=("file:///x",),
        ),
    )


def routes(ports: PortsForTests, render_id: int) -> dict[str, Route]:
    return {route.name: route.route for route in ports.renders.get(render_id).routes}


def test_each_character_of_a_slot_is_resolved_once_and_never_anew(ports: PortsForTests) -> None:
    season_id = season_with(ports, "@Mei, @rui, @Tova and @Dario")
    pin(ports, season_id, "Mei")
    give_lora(ports, season_id, "Rui")
    give_lora(ports, season_id, "Tova", status=LoraStatus.TRAINING)
    render_id = start_render(ports, season_id, 6)
    first = {"Mei": "elements", "Rui": "preprocessed", "Tova": "originals", "Dario": "originals"}
    assert routes(ports, render_id) == first
    give_lora(ports, season_id, "Dario")
    assert start_render(ports, season_id, 6) == render_id
    assert routes(ports, render_id) == first


def test_a_still_that_fails_moves_its_own_characters_and_nobody_else(ports: PortsForTests) -> None:
    season_id = season_with(ports, "@Mei, @Rui and @Tova", "kling_v25_turbo")
    for name in ("Mei", "Rui"):
        give_lora(ports, season_id, name)
    render_id = start_render(ports, season_id, 6)
    (key,) = plan_slot_stills(ports, render_id, max_attempts=4)
    stills = frozenset({Route.PREPROCESSED})
    other = plan_slot_stills(ports, start_render(ports, _one_with_a_still(ports), 6), max_attempts=4)[0]
    assert not fall_back(ports, render_id, "another slot's", from_routes=stills, still_key=other)
    assert routes(ports, render_id)["Mei"] is Route.PREPROCESSED
    assert fall_back(ports, render_id, "it was refused", from_routes=stills, still_key=key)
    assert set(routes(ports, render_id).values()) == {Route.ORIGINALS}
    assert not fall_back(ports, render_id, "the end", from_routes=frozenset(Route))
    assert ports.renders.get(render_id).notes == (
        "Mei: preprocessed failed: it was refused",
        "Rui: preprocessed failed: it was refused",
    )


def _one_with_a_still(ports: PortsForTests) -> int:
    season_id = season_with(ports, "@Mei", "kling_v25_turbo")
    give_lora(ports, season_id, "Mei")
    return season_id


def test_a_direct_lora_that_fails_is_filmed_by_a_model_that_shows_pictures(ports: PortsForTests) -> None:
    season_id = season_with(ports, "@Mei waits", "ltx_23_t2v_lora")
    give_lora(ports, season_id, "Mei", LTX)
    render_id = start_render(ports, season_id, 6)
    assert (routes(ports, render_id), ports.renders.get(render_id).notes) == ({"Mei": Route.DIRECT}, ())
    assert fall_back(ports, render_id, "it failed", from_routes=frozenset({Route.DIRECT}))
    render = ports.renders.get(render_id)
    assert (routes(ports, render_id), render.video_model) == ({"Mei": Route.ORIGINALS}, "kling_o1_reference")
    assert "filmed with kling_o1_reference instead" in render.notes[-1]


@pytest.mark.parametrize("base", [FLUX, None])
def test_a_model_that_can_show_nobody_is_replaced_from_the_start_and_the_report_says_so(
    ports: PortsForTests, base: str | None
) -> None:
    season_id = season_with(ports, "@Mei waits", "wan_22_t2v_lora")
    if base:
        give_lora(ports, season_id, "Mei", base)
    render = ports.renders.get(start_render(ports, season_id, 6))
    assert render.video_model == "kling_o1_reference"
    assert [route.route for route in render.routes] == [Route.PREPROCESSED if base else Route.ORIGINALS]
    assert render.notes == (
        "wan_22_t2v_lora cannot show anybody here, by a picture or by a LoRA it needs: "
        "filmed with kling_o1_reference instead.",
    )


def test_one_direct_lora_keeps_the_model_and_the_other_character_is_put_in_words(ports: PortsForTests) -> None:
    season_id = season_with(ports, "@Mei meets @Rui", "wan_22_t2v_lora")
    give_lora(ports, season_id, "Mei", WAN)
    give_lora(ports, season_id, "Rui", FLUX)
    render_id = start_render(ports, season_id, 6)
    job = video_job(ports, render_id)
    assert job.model_key == "wan_22_t2v_lora"
    assert routes(ports, render_id) == {"Mei": Route.DIRECT, "Rui": Route.ORIGINALS}
    assert job.request.arguments["prompt"] == "MEI_01 meets Rui"
    assert len(job.request.arguments["loras"]) == 1


@pytest.mark.parametrize("damage", ["missing", "other bytes"])
def test_a_lora_file_that_is_missing_or_damaged_is_an_error_in_the_log(
    ports: PortsForTests, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    season_id = season_with(ports, "@Mei waits")
    lora = ports.loras.get(give_lora(ports, season_id, "Mei"))
    assert lora.sha256 is not None
    path = ports.blobs.local_path(lora.sha256)
    if damage == "missing":
        ports.blobs.delete(lora.sha256)
    else:
        path.chmod(0o600)
        path.write_bytes(b"something else")
    with caplog.at_level(logging.INFO, "onmodel.application"):
        render_id = start_render(ports, season_id, 6)
    assert routes(ports, render_id) == {"Mei": Route.ORIGINALS}
    assert [(record.levelname, "missing or damaged" in record.message) for record in caplog.records] == [
        ("ERROR", True)
    ]


def test_a_slot_can_be_rendered_with_an_existing_lora_of_its_character_only(ports: PortsForTests) -> None:
    season_id = season_with(ports, "@Mei waits", "kling_v25_turbo")
    first = give_lora(ports, season_id, "Mei")
    second = give_lora(ports, season_id, "Mei")
    render_id = start_render(ports, season_id, 6)
    assert ports.renders.get(render_id).routes[0].lora_id == second
    choose_lora(ports, season_id, 6, first)
    assert start_render(ports, season_id, 6) == render_id
    assert ports.renders.get(render_id).routes[0].lora_id == first
    training = give_lora(ports, season_id, "Mei", status=LoraStatus.TRAINING)
    with pytest.raises(BadInput, match="is training, not ready"):
        choose_lora(ports, season_id, 6, training)
    with pytest.raises(BadInput, match="Slot 6 does not show Rui"):
        choose_lora(ports, season_id, 6, give_lora(ports, season_id, "Rui"))
    with pytest.raises(BadInput, match="There is no LoRA"):
        choose_lora(ports, season_id, 6, give_lora(ports, season_with(ports, "@Mei"), "Mei"))


def test_a_finished_slot_is_left_alone_and_one_that_is_not_there_is_named(ports: PortsForTests) -> None:
    season_id = season_with(ports, "rain")
    render_id = start_render(ports, season_id, 6)
    ports.renders.end(render_id, RenderState.DONE)
    assert start_render(ports, season_id, 6) == render_id
    with pytest.raises(BadInput, match="Slot 7 is not in this season; it has 6"):
        start_render(ports, season_id, 7)


def test_a_slot_is_done_only_when_its_clip_is_scored_so_that_a_crash_in_between_loses_no_score(
    ports: PortsForTests,
) -> None:
    season_id = season_with(ports, "@Dario waves")
    render_id = start_render(ports, season_id, 6)
    digest = ports.blobs.put_bytes(b"a clip", "video/mp4")
    ports.renders.keep_clip(render_id, sha256=digest, url="file:///clip.mp4", job_key="k")
    assert clips_of_season(ports, season_id) == []
    assert start_render(ports, season_id, 6) == render_id
    assert ports.renders.get(render_id).state is RenderState.RUNNING
    finish_render(ports, render_id)
    finish_render(ports, render_id)
    assert [clip.sha256 for clip in clips_of_season(ports, season_id)] == [digest]


def test_a_model_that_was_proved_to_ignore_loras_films_nobody_by_one_until_a_probe_says_otherwise(
    ports: PortsForTests,
) -> None:
    model = ports.registry.model("wan_22_t2v_lora")

    def prove(verdict: Verdict) -> None:
        ports.proofs.add(
            Proof(
                model_key=model.key,
                vendor="sandbox",
                verdict=verdict,
                detail="as told",
                registry_sha256=entry_sha256(model),
                is_simulated=True,
                proved_at=ports.clock.now(),
            )
        )

    def resolved() -> tuple[str, Route]:
        season_id = season_with(ports, "@Mei runs", model.key)
        give_lora(ports, season_id, "Mei", WAN)
        render_id = start_render(ports, season_id, 6)
        return ports.renders.get(render_id).video_model, routes(ports, render_id)["Mei"]

    assert resolved() == (model.key, Route.DIRECT)
    prove(Verdict.IGNORED)
    other, route = resolved()
    assert other == ports.registry.default_video_model
    assert route is not Route.DIRECT
    prove(Verdict.WORKS)
    assert resolved() == (model.key, Route.DIRECT)
