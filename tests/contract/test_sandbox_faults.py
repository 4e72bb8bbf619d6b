"""The sandbox fails on purpose: every kind of fault does what it says, where and as often as its plan says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import BadInput
from providers.sandbox.faults import KINDS, FaultPlan, parse_faults
from providers.sandbox.launcher import control, set_faults
from providers.sandbox.server import SandboxServer
from providers.sandbox.work import parse_latency
from tests.contract.sandbox_fixtures import (
    KLING,
    STILLS,
    TRAINER,
    buy,
    finish,
    png,
    running_sandbox,
    sandbox_client,
    submit,
    training_zip,
    upload,
    wait_until,
)

SUBMIT_URL = f"https://queue.fal.run/{STILLS}"


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_sandbox(tmp_path_factory.mktemp("faults")) as server:
        yield server


@pytest.fixture
def server(shared_server: SandboxServer) -> Any:
    """One server for all, each time without faults."""
    shared_server.faults.set("")
    yield shared_server
    shared_server.faults.set("")


@pytest.fixture
def http(server: SandboxServer) -> Any:
    with sandbox_client(server.url) as client:
        yield client


def accepted_stills(server: SandboxServer) -> int:
    return int(control(server.url, "GET", "counters")["accepted"].get(STILLS, 0))


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("refuse", 422, "value_error"),
        ("refuse=422/content_policy_violation", 422, "content_policy_violation"),
        ("refuse=500", 500, "on purpose"),
        ("lock", 403, "Exhausted balance"),
        ("rate_limit=7", 429, "Too many requests"),
        ("unavailable=502", 502, "nginx"),
        ("unavailable", 503, "nginx"),
    ],
)
def test_a_refused_submit_leaves_no_job(
    server: SandboxServer, http: httpx.Client, fault: str, status: int, words: str
) -> None:
    before = accepted_stills(server)
    server.faults.set(f"submit:{fault}")
    answer = http.post(SUBMIT_URL, json={"prompt": "x"})
    assert answer.status_code == status
    assert words in answer.text
    assert answer.headers.get("Retry-After") == ("7" if status == 429 else None)
    assert accepted_stills(server) == before


@pytest.mark.parametrize(("fault", "accepted"), [("drop_before_accept", 0), ("drop_after_accept", 1)])
def test_a_dropped_connection_says_nothing_about_the_job(
    server: SandboxServer, http: httpx.Client, fault: str, accepted: int
) -> None:
    before = accepted_stills(server)
    server.faults.set(f"submit:{fault}")
    with pytest.raises(httpx.RemoteProtocolError):
        http.post(SUBMIT_URL, json={"prompt": "lost"})
    assert accepted_stills(server) == before + accepted


@pytest.mark.parametrize(("fault", "accepted"), [("stall", 0), ("stall_after_accept", 1)])
def test_a_stalled_submit_never_answers(server: SandboxServer, http: httpx.Client, fault: str, accepted: int) -> None:
    before = accepted_stills(server)
    server.faults.set(f"submit:{fault}")
    with pytest.raises(httpx.ReadTimeout):
        http.post(SUBMIT_URL, json={"prompt": "silence"}, timeout=0.2)
    assert accepted_stills(server) == before + accepted


def test_a_malformed_answer_to_a_submit_hides_a_job(server: SandboxServer, http: httpx.Client) -> None:
    before = accepted_stills(server)
    server.faults.set("submit:malformed")
    answer = http.post(SUBMIT_URL, json={"prompt": "x"})
    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r"delimiter|Unterminated"):
        answer.json()
    assert accepted_stills(server) == before + 1


def test_a_look_may_fail_and_the_job_is_well(server: SandboxServer, http: httpx.Client) -> None:
    accepted = submit(http, STILLS, {"prompt": "x"})
    assert finish(http, accepted).status_code == 200
    seen = {}
    for kind in ("unavailable=503", "rate_limit=2", "vanish", "unknown_word=PAUSED", "malformed"):
        server.faults.set(f"status:{kind}#1")
        answer = http.get(accepted["status_url"])
        seen[kind] = answer.status_code if answer.status_code != 200 else answer.text[:18]
        assert http.get(accepted["status_url"]).json()["status"] == "COMPLETED"
    assert list(seen.values()) == [503, 429, 404, '{"status": "PAUSED', '{"status": "IN_QUE']
    server.faults.set("status:drop#1")
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(accepted["status_url"])


def test_a_result_may_be_gone_or_broken(server: SandboxServer, http: httpx.Client) -> None:
    accepted = submit(http, STILLS, {"prompt": "x"})
    finish(http, accepted)
    server.faults.set("result:vanish#1,result:refuse=500#2")
    assert [http.get(accepted["response_url"]).status_code for _ in range(3)] == [404, 500, 200]


@pytest.mark.parametrize(
    ("fault", "status", "error_type"),
    [
        ("job:fail", 500, "runner_server_error"),
        ("job:fail=503/runner_disconnected", 503, "runner_disconnected"),
        ("job:fail=422/content_policy_violation", 422, None),
    ],
)
def test_a_failing_job_ends_completed_with_an_error(
    server: SandboxServer, http: httpx.Client, fault: str, status: int, error_type: str | None
) -> None:
    server.faults.set(fault)
    accepted = submit(http, STILLS, {"prompt": "x"})
    answer = finish(http, accepted)
    seen = http.get(accepted["status_url"]).json()
    assert (answer.status_code, seen["status"], seen["error_type"]) == (status, "COMPLETED", error_type)
    assert seen["error"]
    assert answer.headers.get("X-Fal-Error-Type") == error_type


def test_a_job_that_never_ends_holds_up_no_other(server: SandboxServer, http: httpx.Client) -> None:
    server.faults.set("job:never_ends#1-2,job:stay_queued#3")
    stuck = [submit(http, STILLS, {"prompt": "stuck"}) for _ in range(3)]
    assert buy(http, STILLS, {"prompt": "free"})["prompt"] == "free"
    words = [http.get(one["status_url"]).json()["status"] for one in stuck]
    assert words == ["IN_PROGRESS", "IN_PROGRESS", "IN_QUEUE"]
    assert [http.put(one["cancel_url"]).status_code for one in stuck] == [202, 202, 202]
    assert {http.get(one["status_url"]).json()["status"] for one in stuck} == {"COMPLETED"}


def test_a_parameter_can_be_ignored(server: SandboxServer, http: httpx.Client) -> None:
    archive = upload(http, training_zip(), "set.zip", "application/zip")
    lora = buy(http, TRAINER, {"images_data_url": archive, "steps": 3})["diffusers_lora_file"]["url"]
    server.faults.set(f"job:ignore=loras@{STILLS}#1")
    used = []
    for _ in range(2):
        still = buy(http, STILLS, {"prompt": "x", "loras": [{"path": lora, "scale": 0.8}]})
        used.append(http.get(still["images"][0]["url"]).json()["loras"])
    assert used == [[], [0.8]]


def test_a_truncated_file_promises_more_than_it_sends(server: SandboxServer, http: httpx.Client) -> None:
    picture = upload(http, png(), "front.png", "image/png")
    server.faults.set("result:truncate@*video*#2")
    films = [buy(http, KLING, {"prompt": "x", "image_url": picture})["video"] for _ in range(2)]
    whole = http.get(films[0]["url"])
    assert len(whole.content) == films[0]["file_size"]
    for headers in ({}, {"Range": f"bytes={films[1]['file_size'] - 10}-"}):
        with pytest.raises(httpx.RemoteProtocolError, match=r"peer closed"):
            http.get(films[1]["url"], headers=headers)


def test_a_download_that_broke_once_can_be_resumed(server: SandboxServer, http: httpx.Client) -> None:
    url = upload(http, b"0123456789", "a.txt", "text/plain")
    server.faults.set("file:truncate@upload#1")
    got = bytearray()
    with pytest.raises(httpx.RemoteProtocolError), http.stream("GET", url) as broken:
        for chunk in broken.iter_raw():
            got += chunk
    assert bytes(got) == b"01234"
    assert http.get(url, headers={"Range": f"bytes={len(got)}-"}).text == "56789"


def test_a_success_can_come_without_its_file_or_with_one_that_is_gone(
    server: SandboxServer, http: httpx.Client
) -> None:
    server.faults.set("result:no_file#1,result:expire#2")
    assert buy(http, STILLS, {"prompt": "x"})["images"] == []
    expired = buy(http, STILLS, {"prompt": "x"})["images"][0]["url"]
    kept = buy(http, STILLS, {"prompt": "x"})["images"][0]["url"]
    assert (http.get(expired).status_code, http.get(kept).status_code) == (404, 200)


def test_a_flagged_picture_comes_back_black_without_an_error(server: SandboxServer, http: httpx.Client) -> None:
    server.faults.set("job:nsfw#1")
    flagged, fine = (buy(http, STILLS, {"prompt": "x"}) for _ in range(2))
    assert (flagged["has_nsfw_concepts"], fine["has_nsfw_concepts"]) == ([True], [False])
    assert http.get(flagged["images"][0]["url"]).content.startswith(b"\xff\xd8")


def test_an_upload_can_be_refused(server: SandboxServer, http: httpx.Client) -> None:
    server.faults.set("upload:unavailable=503#1")
    assert http.post("https://v3.fal.media/files/upload", content=b"x").status_code == 503
    assert upload(http, b"x", "a.txt", "text/plain")


def test_slow_jobs_and_latency_take_their_time(tmp_path: Path) -> None:
    with running_sandbox(tmp_path, latency_seconds={"still": 0.3}) as server, sandbox_client(server.url) as http:
        began = time.monotonic()
        buy(http, STILLS, {"prompt": "x"})
        assert time.monotonic() - began >= 0.3
        server.faults.set("job:slow=30")
        accepted = submit(http, STILLS, {"prompt": "x"})
        wait_until(lambda: http.get(accepted["status_url"]).json()["status"] == "IN_PROGRESS")


def test_a_fault_drawn_for_a_job_stays_with_it_over_a_restart(tmp_path: Path) -> None:
    with running_sandbox(tmp_path, faults="job:fail,job:stay_queued") as server, sandbox_client(server.url) as http:
        accepted = submit(http, STILLS, {"prompt": "x"})
    with running_sandbox(tmp_path) as server, sandbox_client(server.url) as http:
        assert http.get(accepted["status_url"]).json()["status"] == "IN_QUEUE"
        jobs = control(server.url, "GET", "jobs")
        assert jobs[0]["faults"] == ["job:fail", "job:stay_queued"]


def test_the_plan_is_set_counted_and_cleared_at_run_time(server: SandboxServer, http: httpx.Client) -> None:
    set_faults(server.url, "submit:refuse@*kling*,submit:lock#2")
    codes = [http.post(SUBMIT_URL, json={"prompt": "x"}).status_code for _ in range(3)]
    assert codes == [200, 403, 200]
    report = control(server.url, "GET", "faults")
    assert report["faults"] == [
        {"fault": "submit:refuse@*kling*", "met": 0, "applied": 0},
        {"fault": "submit:lock#2", "met": 3, "applied": 1},
    ]
    with pytest.raises(BadInput, match="kind 'explode'"):
        set_faults(server.url, "submit:explode")
    assert control(server.url, "GET", "faults")["plan"] == "submit:refuse@*kling*,submit:lock#2"
    assert control(server.url, "DELETE", "faults")["faults"] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("submit", "cannot be read"),
        ("moon:refuse", "happens at 'moon'"),
        ("file:never_ends", "at file there are"),
        ("submit:lock#one", "cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_read_is_refused_with_one_sentence(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_faults(text)


def test_an_empty_plan_fails_nothing() -> None:
    plan = FaultPlan(" , ")
    assert plan.pick("submit", STILLS) is None
    assert plan.report() == {"plan": " , ", "faults": []}


@settings(deadline=None)
@given(
    where=st.sampled_from(sorted(KINDS)), index=st.integers(0, 20), first=st.integers(1, 30), count=st.integers(1, 30)
)
def test_a_numbered_fault_strikes_exactly_where_it_says(where: str, index: int, first: int, count: int) -> None:
    kinds = sorted(KINDS[where])
    kind = kinds[index % len(kinds)]
    plan = FaultPlan(f"{where}:{kind}@{STILLS}#{first}-{first + count - 1}")
    where = plan._rules[0].where
    struck = [nth for nth in range(1, 70) if plan.pick(where, STILLS)]
    assert struck == list(range(first, first + count))
    assert plan.pick(where, KLING) is None


@settings(deadline=None, max_examples=20)
@given(percent=st.integers(5, 95), seed=st.integers(0, 1000))
def test_a_rate_is_kept_on_average_and_falls_the_same_way_each_time(percent: int, seed: int) -> None:
    text = f"status:vanish%{percent}"
    plan, again = FaultPlan(text, seed=seed), FaultPlan(text, seed=seed)
    struck = [plan.pick("status", STILLS) is not None for _ in range(400)]
    assert struck == [again.pick("status", STILLS) is not None for _ in range(400)]
    assert abs(sum(struck) / 4 - percent) < 15


@pytest.mark.parametrize("text", ["soon", "-1", "moon=3", "train="])
def test_a_latency_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        parse_latency(text)


def test_latency_is_one_number_or_one_for_each_kind_of_work() -> None:
    assert set(parse_latency("2").values()) == {2.0}
    assert parse_latency("train=8, still=0.5") == {"train": 8.0, "still": 0.5}
    assert parse_latency("") == {}
