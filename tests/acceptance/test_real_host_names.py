"""The fal vendor with its real host names: a whole season through HTTPS_PROXY and SSL_CERT_FILE."""

from __future__ import annotations

import pytest

from domain.jobs import Stage
from providers.sandbox.launcher import ensure_sandbox
from tests.acceptance.season_fixtures import ports_of
from tests.acceptance.season_homes import Entry, Studio

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SLOTS: list[Entry] = [
    {"number": 1, "prompt": "@Mei nods", "video_model": "kling_o1_reference", "seconds": 3},
    {"number": 2, "prompt": "@Mei bows", "video_model": "kling_v25_turbo", "seconds": 5},
]


def test_a_season_runs_at_fals_own_addresses_behind_a_proxy(session_home: Studio) -> None:
    opened = ensure_sandbox(session_home.home, tls=True)
    assert opened.proxy_url is not None
    behind = {"HTTPS_PROXY": opened.proxy_url, "SSL_CERT_FILE": str(opened.ca_path), "FAL_KEY": "x"}
    manifest = session_home.write("proxied", [session_home.learned("mei")], SLOTS, vendor="fal")
    before = session_home.posts()
    with ports_of(session_home, **behind):
        ended = session_home.run(manifest)
        assert ended.exit_code == 0, ended.told
        jobs = session_home.jobs(manifest)
    assert ended.document["is_simulated"] is False
    assert (ended.routes(1), ended.routes(2)) == ({"Mei": "elements"}, {"Mei": "preprocessed"})
    assert len(jobs) == session_home.posts() - before
    assert {Stage.LORA_TRAINING, Stage.IDENTITY_CHECK, Stage.REFERENCES, Stage.VIDEO} <= {job.stage for job in jobs}
    assert {(job.request.vendor, job.is_simulated) for job in jobs} == {("fal", False)}


def test_without_a_key_nothing_is_asked_of_anybody(studio: Studio) -> None:
    before = studio.posts()
    slot = SLOTS[1] | {"prompt": "@Dario nods"}
    ended = studio.run(studio.write("keyless", [studio.untrained("dario")], [slot], vendor="fal"))
    assert ended.exit_code == 3
    assert "FAL_KEY is not set" in ended.told
    assert studio.posts() == before
