"""The sandbox speaks fal's wire protocol: fal's own client, left unchanged, cannot tell the difference."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.errors import NotConfigured
from providers.sandbox.launcher import PACKAGE_ROOT, control, ensure_sandbox, find_sandbox, stop_sandbox
from providers.sandbox.schemas import check_input, load_catalogue
from providers.sandbox.shelf import safe_name
from providers.sandbox.tls import ensure_certificate
from providers.sandbox.transport import SandboxTransport
from providers.sandbox.wire import code_stamp
from tests.contract.sandbox_fixtures import (
    ELEMENTS,
    KLING,
    REAL,
    STAND_IN,
    STILLS,
    TRAINER,
    WAN_LORA,
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

UNMODIFIED_CLIENT = """
import asyncio, json, os, sys
import fal_client, httpx

seen = {}
client = fal_client.SyncClient()
zip_url = client.upload(open(sys.argv[1], "rb").read(), "application/zip", file_name="mei.zip")
seen["zip_url"] = zip_url
big_url = client.upload_file(sys.argv[2])
seen["big_length"] = int(httpx.head(big_url).headers["content-length"])
seen["big_tail"] = httpx.get(big_url, headers={"Range": "bytes=-4"}).text
seen["old_way"] = httpx.get(client.upload(b"plain", "text/plain", file_name="a.txt", repository="fal")).text

order = {"images_data_url": zip_url, "trigger_word": "MEI", "steps": 20}
handle = client.submit("fal-ai/flux-lora-fast-training", order)
words = []
for status in handle.iter_events(with_logs=True, interval=0.02):
    words.append(type(status).__name__)
seen["words"] = words
seen["last_log"] = status.logs[-1]["message"]
lora = handle.get()["diffusers_lora_file"]["url"]
again = client.get_handle("fal-ai/flux-lora-fast-training", handle.request_id)
seen["same_result"] = again.get() == handle.get()

seen["still"] = client.subscribe("fal-ai/flux-lora", {"prompt": "MEI", "loras": [{"path": lora}]})["images"][0]
seen["direct"] = client.run("fal-ai/flux-lora", {"prompt": "MEI"})["prompt"]
seen["async"] = asyncio.run(fal_client.AsyncClient().subscribe("fal-ai/flux-lora", {"prompt": "rain"}))["prompt"]
seen["status"] = type(client.status("fal-ai/flux-lora-fast-training", handle.request_id)).__name__
try:
    client.cancel("fal-ai/flux-lora-fast-training", handle.request_id)
except fal_client.FalClientHTTPError as error:
    seen["cancel_after_end"] = error.status_code
slow = client.submit("fal-ai/kling-video/o1/reference-to-video", {"prompt": "@Element1", "sneaked": 1})
try:
    slow.get()
except fal_client.FalClientHTTPError as error:
    seen["refused"] = [error.status_code, sorted(entry["type"] for entry in error.message)]
try:
    httpx.get("https://example.org/")
except httpx.ProxyError as error:
    seen["elsewhere"] = str(error)
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen_by_fal_client(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What fal-client saw in a process of its own, with fal's real host names and two environment variables."""
    folder = tmp_path_factory.mktemp("unmodified")
    (folder / "mei.zip").write_bytes(training_zip())
    with (folder / "big.bin").open("wb") as big:
        big.truncate(100 * 1024 * 1024 + 1)
        big.seek(-4, os.SEEK_END)
        big.write(b"tail")
    with running_sandbox(folder) as server:
        proxy_url, ca_file = server.open_tls()
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment |= {"HTTPS_PROXY": proxy_url, "SSL_CERT_FILE": str(ca_file), "FAL_KEY": "test"}
        done = subprocess.run(
            [sys.executable, "-c", UNMODIFIED_CLIENT, str(folder / "mei.zip"), str(folder / "big.bin")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_the_unmodified_client_trains_and_draws(seen_by_fal_client: dict[str, Any]) -> None:
    seen = seen_by_fal_client
    assert seen["words"][-1] == "Completed"
    assert set(seen["words"]) <= {"Queued", "InProgress", "Completed"}
    assert seen["last_log"] == "step 20/20 loss 0.05000"
    assert seen["same_result"]
    assert (seen["still"]["width"], seen["still"]["content_type"]) == (1024, "image/jpeg")
    assert (seen["direct"], seen["async"], seen["status"]) == ("MEI", "rain", "Completed")


def test_the_unmodified_client_uploads_whole_in_parts_and_the_old_way(seen_by_fal_client: dict[str, Any]) -> None:
    seen = seen_by_fal_client
    assert seen["zip_url"].startswith("https://v3.fal.media/files/sandbox/")
    assert (seen["big_length"], seen["big_tail"]) == (100 * 1024 * 1024 + 1, "tail")
    assert seen["old_way"] == "plain"


def test_the_unmodified_client_meets_fals_refusals(seen_by_fal_client: dict[str, Any]) -> None:
    assert seen_by_fal_client["cancel_after_end"] == 400
    assert seen_by_fal_client["refused"] == [422, ["extra_forbidden"]]


def test_the_proxy_leads_nowhere_but_to_fal(seen_by_fal_client: dict[str, Any]) -> None:
    assert "403" in seen_by_fal_client["elsewhere"]


def test_statuses_carry_the_keys_that_fal_client_insists_on(tmp_path: Path) -> None:
    slow = {"still": 30.0}
    with running_sandbox(tmp_path, concurrency=1, latency_seconds=slow) as server, sandbox_client(server.url) as http:
        first, second, third = (submit(http, STILLS, {"prompt": "a pier"}) for _ in range(3))
        wait_until(lambda: http.get(first["status_url"]).json()["status"] == "IN_PROGRESS")
        running = http.get(first["status_url"], params={"logs": "true"})
        queued = http.get(third["status_url"], params={"logs": "false"})
        assert (running.status_code, running.json()["logs"]) == (202, [])
        assert (queued.status_code, queued.json()["queue_position"], queued.json()["logs"]) == (202, 1, None)
        assert "queue_position" not in running.json()
        assert http.get(second["response_url"]).status_code == 400

        assert http.put(second["cancel_url"]).json() == {"status": "CANCELLATION_REQUESTED"}
        assert http.get(third["status_url"]).json()["queue_position"] == 0
        stopped = http.put(first["cancel_url"])
        assert (stopped.status_code, stopped.json()["status"]) == (202, "CANCELLATION_REQUESTED")
        over = http.get(first["status_url"])
        assert (over.status_code, over.json()["status"], over.json()["error_type"]) == (
            200,
            "COMPLETED",
            "client_cancelled",
        )
        assert http.get(first["response_url"]).status_code == 499
        assert http.put(first["cancel_url"]).status_code == 400
        wait_until(lambda: http.get(third["status_url"]).json()["status"] == "IN_PROGRESS")


def test_follow_up_addresses_carry_owner_and_app_only(tmp_path: Path) -> None:
    with running_sandbox(tmp_path) as server, sandbox_client(server.url) as http:
        accepted = submit(http, KLING, {"prompt": "rain"})
        request_id = accepted["request_id"]
        assert accepted["status_url"] == f"https://queue.fal.run/fal-ai/kling-video/requests/{request_id}/status"
        assert http.get(f"https://queue.fal.run/{KLING}/requests/{request_id}/status").status_code == 405
        assert http.get(f"https://queue.fal.run/fal-ai/flux-lora/requests/{request_id}/status").status_code == 404


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        (STILLS, {"prompt": "x", "guidance": 3}, [("extra_forbidden", "guidance")]),
        (STILLS, {}, [("missing", "prompt")]),
        (STILLS, {"prompt": "x", "num_images": 5}, [("less_than_equal", "num_images")]),
        (STILLS, {"prompt": "x", "num_images": 4}, []),
        (STILLS, {"prompt": "x", "loras": [{"path": "u", "scale": 4.1}]}, [("less_than_equal", "scale")]),
        (STILLS, {"prompt": "x", "loras": [{"url": "u"}]}, [("missing", "path"), ("extra_forbidden", "url")]),
        (STILLS, {"prompt": "x", "image_size": {"width": 640, "height": 480}}, []),
        (STILLS, {"prompt": "x", "image_size": "wide"}, [("literal_error", "image_size")]),
        (STILLS, {"prompt": "x", "seed": None}, []),
        (STILLS, {"prompt": "x", "num_images": None}, [("int_type", "num_images")]),
        (KLING, {"prompt": "x", "image_url": "u", "duration": 5}, [("literal_error", "duration")]),
        (KLING, {"prompt": "x", "image_url": "u", "duration": "10", "tail_image_url": "v"}, []),
        (KLING, {"prompt": "x" * 2501, "image_url": "u"}, [("string_too_long", "prompt")]),
        (KLING, {"prompt": "x", "image_url": "u", "aspect_ratio": "16:9"}, [("extra_forbidden", "aspect_ratio")]),
        ("fal-ai/kling-video/v2.1/standard/image-to-video", {"prompt": "x", "image_url": "u", "tail_image_url": "v"},
         [("extra_forbidden", "tail_image_url")]),
        ("fal-ai/minimax/hailuo-2.3/pro/image-to-video", {"prompt": "x", "image_url": "u", "duration": "6"},
         [("extra_forbidden", "duration")]),
        ("fal-ai/minimax/hailuo-2.3/standard/image-to-video", {"prompt": "x", "image_url": "u", "duration": "6"}, []),
        ("fal-ai/veo3.1/image-to-video", {"prompt": "x", "image_url": "u", "duration": "8"},
         [("literal_error", "duration")]),
        ("fal-ai/veo3.1/image-to-video", {"prompt": "x", "image_url": "u", "duration": "8s"}, []),
        ("fal-ai/wan-25-preview/image-to-video", {"prompt": "x" * 1501, "image_url": "u"},
         [("string_too_long", "prompt")]),
        (WAN_LORA, {"prompt": "x", "num_frames": 16}, [("greater_than_equal", "num_frames")]),
        (WAN_LORA, {"prompt": "x", "num_frames": 17, "loras": [{"path": "u", "transformer": "both"}]}, []),
        (TRAINER, {"images_data_url": "u", "learning_rate": 1e-4}, [("extra_forbidden", "learning_rate")]),
        (TRAINER, {"images_data_url": "u", "steps": 0}, [("greater_than_equal", "steps")]),
        (TRAINER, {"images_data_url": "u", "steps": 10.5}, [("int_from_float", "steps")]),
        ("fal-ai/wan-22-trainer/t2v-a14b", {"training_data_url": "u", "number_of_steps": 99},
         [("greater_than_equal", "number_of_steps")]),
    ],
)  # fmt: skip
def test_inputs_are_judged_as_fals_schemas_do(
    endpoint: str, body: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    _, issues = check_input(load_catalogue().endpoints[endpoint], body)
    assert [(entry["type"], entry["loc"][-1]) for entry in issues] == expected
    assert all(entry["loc"][0] == "body" and entry["msg"] for entry in issues)


@pytest.mark.parametrize(("elements", "images", "is_good"), [(1, 6, True), (1, 7, False), (7, 0, True), (0, 0, False)])
def test_kling_takes_at_most_seven_pictures_and_elements(elements: int, images: int, is_good: bool) -> None:
    element = {"frontal_image_url": "u", "reference_image_urls": ["v"]}
    body = {"prompt": "x", "elements": [element] * elements, "image_urls": ["w"] * images}
    _, issues = check_input(load_catalogue().endpoints[ELEMENTS], body)
    assert (not issues) is is_good


@pytest.mark.parametrize(("references", "is_good"), [(0, False), (1, True), (3, True), (4, False)])
def test_a_kling_element_needs_one_to_three_references(references: int, is_good: bool) -> None:
    element = {"frontal_image_url": "u", "reference_image_urls": ["v"] * references}
    _, issues = check_input(load_catalogue().endpoints[ELEMENTS], {"prompt": "x", "elements": [element]})
    assert (not issues) is is_good


def test_a_wrong_input_is_accepted_and_fails_in_the_runner(tmp_path: Path) -> None:
    with running_sandbox(tmp_path) as server, sandbox_client(server.url) as http:
        accepted = submit(http, KLING, {"prompt": "rain", "seed": 7})
        answer = finish(http, accepted)
        status = http.get(accepted["status_url"]).json()
        assert (answer.status_code, answer.headers["X-Fal-Retryable"]) == (422, "false")
        assert {entry["type"] for entry in answer.json()["detail"]} == {"missing", "extra_forbidden"}
        assert (status["status"], status["error"]) == ("COMPLETED", "Field required")
        unknown_path = finish(http, submit(http, "fal-ai/kling-video/v9/image-to-video", {}))
        assert unknown_path.status_code == 404
        assert http.post("https://queue.fal.run/fal-ai/never-heard-of", json={}).status_code == 404
        assert http.post("https://queue.fal.run/fal-ai/flux-lora", content=b"{").status_code == 422


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (png(300, 300), None),
        (png(299, 300), "image_too_small"),
        (png(300, 760), "value_error"),
        (png(760, 300), "value_error"),
        (png(400, 1000), None),
        (b"no picture at all", "image_load_error"),
        (png(300, 300) + bytes(10 * 1024 * 1024), "file_too_large"),
    ],
    ids=["300x300", "299x300", "too tall", "too wide", "aspect 0.40", "text", "over 10 MB"],
)
def test_kling_refuses_pictures_outside_its_limits(
    one_sandbox: httpx.Client, picture: bytes, expected: str | None
) -> None:
    frontal = upload(one_sandbox, picture, "front.png", "image/png")
    other = upload(one_sandbox, png(), "side.png", "image/png")
    element = {"frontal_image_url": frontal, "reference_image_urls": [other]}
    answer = finish(one_sandbox, submit(one_sandbox, ELEMENTS, {"prompt": "x", "elements": [element]}))
    if expected is None:
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code == 422
        (entry,) = answer.json()["detail"]
        assert (entry["type"], entry["loc"]) == (expected, ["body", "elements", 0, "frontal_image_url"])


@pytest.fixture(scope="module")
def one_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One server for the tests that only ask it things."""
    home = tmp_path_factory.mktemp("one")
    with running_sandbox(home) as server, sandbox_client(server.url) as http:
        yield http


@pytest.mark.parametrize(
    ("archive", "expected"),
    [(training_zip(4), 200), (training_zip(3), "archive_file_count_below_minimum"), (b"no zip", "invalid_archive")],
    ids=["four images", "three images", "no zip"],
)
def test_a_training_set_needs_four_images(one_sandbox: httpx.Client, archive: bytes, expected: int | str) -> None:
    url = upload(one_sandbox, archive, "set.zip", "application/zip")
    answer = finish(one_sandbox, submit(one_sandbox, TRAINER, {"images_data_url": url, "steps": 5}))
    assert (200 if answer.status_code == 200 else answer.json()["detail"][0]["type"]) == expected


def test_a_lora_of_another_base_fails_the_job(one_sandbox: httpx.Client) -> None:
    url = upload(one_sandbox, training_zip(), "set.zip", "application/zip")
    lora = buy(one_sandbox, TRAINER, {"images_data_url": url, "steps": 5})["diffusers_lora_file"]["url"]
    still = buy(one_sandbox, STILLS, {"prompt": "x", "loras": [{"path": lora, "scale": 0.8}]})
    assert one_sandbox.get(still["images"][0]["url"]).json()["loras"] == [0.8]
    wrong = finish(one_sandbox, submit(one_sandbox, WAN_LORA, {"prompt": "x", "loras": [{"path": lora}]}))
    assert (wrong.status_code, wrong.json()["detail"][0]["type"]) == (422, "lora_incompatible")


def test_a_wan_lora_without_transformer_reaches_one_expert_only(one_sandbox: httpx.Client) -> None:
    url = upload(one_sandbox, training_zip(), "set.zip", "application/zip")
    trained = buy(one_sandbox, "fal-ai/wan-22-trainer/t2v-a14b", {"training_data_url": url, "number_of_steps": 100})
    path = trained["lora_file"]["url"]

    def strength(*loras: dict[str, Any]) -> float:
        film = buy(one_sandbox, WAN_LORA, {"prompt": "x", "num_frames": 17, "loras": list(loras)})
        told = one_sandbox.get(film["video"]["url"]).text.rstrip(".")
        return float(json.loads(told)["loras"][0][1])

    assert strength({"path": path}) == 0.5
    assert strength({"path": path, "transformer": "both"}) == 1.0
    assert strength({"path": path, "transformer": "high"}, {"path": path, "transformer": "low"}) == 1.0


def test_files_outside_this_machine_are_not_fetched(one_sandbox: httpx.Client) -> None:
    for url in ("https://example.org/a.png", "http://10.0.0.1/a.png", "file:///etc/passwd"):
        answer = finish(one_sandbox, submit(one_sandbox, KLING, {"prompt": "x", "image_url": url}))
        assert answer.json()["detail"][0]["type"] == "file_download_error"


def test_inline_pictures_go_in_and_come_out(one_sandbox: httpx.Client) -> None:
    still = buy(one_sandbox, STILLS, {"prompt": "x", "sync_mode": True, "output_format": "png"})
    assert still["images"][0]["url"].startswith("data:image/png;base64,")


def test_every_video_endpoint_answers_with_a_video(one_sandbox: httpx.Client) -> None:
    picture = upload(one_sandbox, png(), "front.png", "image/png")
    for name, endpoint in load_catalogue().endpoints.items():
        if endpoint.work["kind"] == "image_video":
            film = buy(one_sandbox, name, {"prompt": "rain", "image_url": picture})
            assert film["video"]["content_type"] == "video/mp4", name
            assert set(film) == set(endpoint.work["outputs"]), name


def test_keys_are_judged_at_the_door(tmp_path: Path) -> None:
    with running_sandbox(tmp_path) as server:
        with sandbox_client(server.url) as http:
            accepted = submit(http, STILLS, {"prompt": "x"})
        with sandbox_client(server.url, key="locked-account") as locked:
            refused = locked.post(f"https://queue.fal.run/{STILLS}", json={"prompt": "x"})
            assert refused.status_code == 403
            assert refused.json()["detail"].startswith("User is locked. Reason: Exhausted balance.")
            assert locked.get(accepted["status_url"]).status_code in (200, 202)
            token = locked.post("https://rest.fal.ai/storage/auth/token?storage_type=fal-cdn-v3", json={})
            assert token.status_code == 403
        with sandbox_client(server.url, key="invalid") as stranger:
            for headers in ({}, {"Authorization": "Bearer test"}):
                bought = stranger.post(f"https://queue.fal.run/{STILLS}", json={"prompt": "x"}, headers=headers)
                assert bought.status_code == 401
                assert stranger.get(accepted["status_url"], headers=headers).status_code == 401
        assert control(server.url, "GET", "counters") == {"accepted": {STILLS: 1}, "posts": {STILLS: 4}}


def test_files_are_served_in_ranges_and_under_safe_names(one_sandbox: httpx.Client) -> None:
    url = upload(one_sandbox, b"0123456789", "../../etc/pass wd.txt", "text/plain")
    assert url.endswith("/pass_wd.txt")
    assert safe_name("...") == "file.bin"
    assert one_sandbox.get(url, headers={"Authorization": ""}).text == "0123456789"
    part = one_sandbox.get(url, headers={"Range": "bytes=4-"})
    assert (part.status_code, part.text, part.headers["Content-Range"]) == (206, "456789", "bytes 4-9/10")
    assert one_sandbox.get(url, headers={"Range": "bytes=2-3"}).text == "23"
    assert one_sandbox.get(url, headers={"Range": "bytes=10-"}).status_code == 416
    assert one_sandbox.head(url).headers["Content-Length"] == "10"
    assert one_sandbox.get(url.replace("pass_wd", "other")).status_code == 404


def test_an_upload_with_a_short_life_is_gone_when_it_is_over(one_sandbox: httpx.Client) -> None:
    headers = {"X-Fal-Object-Lifecycle-Preference": json.dumps({"expiration_duration_seconds": 0})}
    answer = one_sandbox.post("https://v3.fal.media/files/upload", content=b"x", headers=headers)
    assert one_sandbox.get(answer.json()["access_url"]).status_code == 404


def test_the_platform_answers_for_schema_balance_and_requests(one_sandbox: httpx.Client) -> None:
    url = "https://fal.ai/api/openapi/queue/openapi.json"
    document = one_sandbox.get(url, params={"endpoint_id": STILLS}).json()
    schema = document["components"]["schemas"]["FluxLoraInput"]
    assert (schema["required"], schema["properties"]["num_images"]["maximum"]) == (["prompt"], 4)
    assert one_sandbox.get(url, params={"endpoint_id": "fal-ai/gone"}).status_code == 404
    accepted = submit(one_sandbox, STILLS, {"prompt": "find me"})
    listed = one_sandbox.get("https://api.fal.ai/v1/models/requests/by-endpoint", params={"endpoint_id": STILLS})
    assert listed.json()["items"][0]["request_id"] == accepted["request_id"]
    billing = one_sandbox.get("https://api.fal.ai/v1/account/billing", params={"expand": "credits"}).json()
    assert billing["credits"]["current_balance"] == 100.0


def test_a_result_is_forgotten_after_its_time(tmp_path: Path) -> None:
    with running_sandbox(tmp_path) as server, sandbox_client(server.url) as http:
        accepted = submit(http, STILLS, {"prompt": "x"})
        assert finish(http, accepted).status_code == 200
    with running_sandbox(tmp_path, keep_result_seconds=0) as server, sandbox_client(server.url) as http:
        assert http.get(accepted["response_url"]).status_code == 404
        assert http.get(accepted["status_url"]).status_code == 404


def test_a_job_that_cannot_start_in_time_ends_with_fals_timeout(tmp_path: Path) -> None:
    busy = {"still": 0.3}
    with running_sandbox(tmp_path, concurrency=1, latency_seconds=busy) as server, sandbox_client(server.url) as http:
        submit(http, STILLS, {"prompt": "first"})
        headers = {"X-Fal-Request-Timeout": "0.11"}
        late = http.post(f"https://queue.fal.run/{STILLS}", json={"prompt": "late"}, headers=headers).json()
        answer = finish(http, late)
        assert (answer.status_code, answer.headers["X-Fal-Request-Timeout-Type"]) == (504, "user")


def test_a_stopped_server_goes_on_with_its_jobs_and_keeps_its_files(tmp_path: Path) -> None:
    with running_sandbox(tmp_path, latency_seconds={"still": 60.0}) as server, sandbox_client(server.url) as http:
        z = upload(http, training_zip(), "set.zip", "application/zip")
        lora = buy(http, TRAINER, {"images_data_url": z, "steps": 5})["diffusers_lora_file"]["url"]
        open_jobs = [submit(http, STILLS, {"prompt": str(n), "loras": [{"path": lora}]}) for n in range(3)]
        wait_until(lambda: http.get(open_jobs[0]["status_url"]).json()["status"] == "IN_PROGRESS")
        first_url = server.url
    with running_sandbox(tmp_path) as server, sandbox_client(server.url) as http:
        assert server.url != first_url
        results = [finish(http, accepted).json() for accepted in open_jobs]
        assert [result["prompt"] for result in results] == ["0", "1", "2"]
        assert http.get(lora).status_code == 200
        logs = http.get(open_jobs[0]["status_url"], params={"logs": "true"}).json()["logs"]
        assert logs[0]["level"] == "WARN"


def test_a_server_killed_in_the_middle_of_a_job_finishes_it_after_its_restart(tmp_path: Path) -> None:
    engine = ("--engine", STAND_IN)
    address = ensure_sandbox(tmp_path, latency="train=60", more_arguments=engine)
    with sandbox_client(address.url) as http:
        z = upload(http, training_zip(), "set.zip", "application/zip")
        accepted = submit(http, TRAINER, {"images_data_url": z, "steps": 10})
        wait_until(lambda: http.get(accepted["status_url"]).json()["status"] == "IN_PROGRESS")
    os.kill(control(address.url, "GET", "health")["pid"], signal.SIGKILL)
    wait_until(lambda: find_sandbox(tmp_path) is None)
    transport = SandboxTransport(address.url, reopen=lambda: ensure_sandbox(tmp_path, more_arguments=engine).url)
    try:
        with httpx.Client(transport=transport, headers={"Authorization": "Key test"}) as http:
            result = finish(http, accepted).json()
            assert http.get(result["diffusers_lora_file"]["url"]).status_code == 200
            counters = control(str(transport.base_url), "GET", "counters")
        assert counters["accepted"] == {TRAINER: 1}
    finally:
        assert stop_sandbox(tmp_path)


def test_many_starters_get_one_server_that_outlives_them(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from providers.sandbox.launcher import ensure_sandbox\n"
    script += "print(ensure_sandbox(Path(sys.argv[1])).url)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "FAL_KEY": "a secret"}

    def start(_: int) -> str:
        command = [sys.executable, "-c", script, str(tmp_path)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    with ThreadPoolExecutor(3) as pool:
        urls = set(pool.map(start, range(3)))
    try:
        (url,) = urls
        found = find_sandbox(tmp_path)
        assert found is not None
        assert found.url == url
        pid = control(url, "GET", "health")["pid"]
        assert os.getsid(pid) != os.getsid(0)
        assert b"a secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert ensure_sandbox(tmp_path, faults="submit:lock").url == url
        assert control(url, "GET", "faults")["plan"] == "submit:lock"
        assert ensure_sandbox(tmp_path, tls=True).proxy_url is not None
        assert control(url, "GET", "health")["code"] == code_stamp()
    finally:
        assert stop_sandbox(tmp_path)
    assert find_sandbox(tmp_path) is None
    assert not stop_sandbox(tmp_path)


def test_a_server_that_nobody_asks_ends_by_itself(tmp_path: Path) -> None:
    ensure_sandbox(tmp_path, more_arguments=("--idle-seconds", "0.1"))
    wait_until(lambda: find_sandbox(tmp_path) is None)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="latency 'soon' cannot be read"):
        ensure_sandbox(tmp_path, latency="soon")


def test_the_transport_refuses_hosts_that_are_not_fals(one_sandbox: httpx.Client) -> None:
    with pytest.raises(NotConfigured, match=r"was asked for 'example\.org'"):
        one_sandbox.get("https://example.org/")


def test_the_control_pages_are_not_for_browsers(tmp_path: Path) -> None:
    with running_sandbox(tmp_path) as server:
        answer = httpx.post(f"{server.url}/_sandbox/shutdown", headers={"Origin": "https://example.org"})
        assert answer.status_code == 403
        assert httpx.get(f"{server.url}/anything").status_code == 404
        assert httpx.get(f"{server.url}/x", headers={"Host": "example.org"}).status_code == 421


def test_the_certificate_is_kept_renewed_and_private(tmp_path: Path) -> None:
    first = ensure_certificate(tmp_path)
    leaf = first.leaf_file.read_bytes()
    assert stat.S_IMODE(first.leaf_file.stat().st_mode) == 0o600
    assert b"PRIVATE KEY" not in first.ca_file.read_bytes()
    ensure_certificate(tmp_path)
    assert first.leaf_file.read_bytes() == leaf
    ensure_certificate(tmp_path, datetime.now(UTC) + timedelta(days=24))
    assert first.leaf_file.read_bytes() != leaf


def test_a_fully_parallel_burst_is_answered_once_each(tmp_path: Path) -> None:
    with running_sandbox(tmp_path) as server, sandbox_client(server.url) as http:
        with ThreadPoolExecutor(8) as pool:
            accepted = list(pool.map(lambda n: submit(http, STILLS, {"prompt": str(n)}), range(24)))
        assert [finish(http, one).json()["prompt"] for one in accepted] == [str(n) for n in range(24)]
        assert control(server.url, "GET", "counters")["accepted"] == {STILLS: 24}
        assert threading.active_count() < 40


def test_the_real_engine_trains_draws_and_films_behind_the_wire(tmp_path: Path) -> None:
    with running_sandbox(tmp_path, engine=REAL) as server, sandbox_client(server.url) as http:
        archive = upload(http, training_zip(), "set.zip", "application/zip")
        trained = buy(http, TRAINER, {"images_data_url": archive, "steps": 20, "trigger_word": "MEIKOB_01"})
        lora = [{"path": trained["diffusers_lora_file"]["url"]}]
        order = {"prompt": "MEIKOB_01 at night", "image_size": "square", "loras": lora, "output_format": "png"}
        picture = buy(http, STILLS, order)["images"][0]["url"]
        assert http.get(picture).content.startswith(b"\x89PNG")
        short = {"num_frames": 17, "resolution": "480p", "interpolator_model": "none"}
        clip = buy(http, WAN_LORA, {"prompt": "rain", **short})["video"]
        assert http.get(clip["url"]).content[4:8] == b"ftyp"
        moved = buy(http, "fal-ai/veo3.1/image-to-video", {"prompt": "rain", "image_url": picture, "duration": "4s"})
        assert http.get(moved["video"]["url"]).content[4:8] == b"ftyp"
