"""The sandbox speaks fal's wire protocol: fal's own client, left unchanged, cannot tell the difference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.errors import NotConfigured
from providers.sandbox.launcher import control
from providers.sandbox.shelf import safe_name
from tests.contract.sandbox_fixtures import (
    KLING,
    REAL,
    STILLS,
    TRAINER,
    WAN_LORA,
    buy,
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


def test_inline_pictures_go_in_and_come_out(one_sandbox: httpx.Client) -> None:
    still = buy(one_sandbox, STILLS, {"prompt": "x", "sync_mode": True, "output_format": "png"})
    assert still["images"][0]["url"].startswith("data:image/png;base64,")


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


def test_the_transport_refuses_hosts_that_are_not_fals(one_sandbox: httpx.Client) -> None:
    with pytest.raises(NotConfigured, match=r"was asked for 'example\.org'"):
        one_sandbox.get("https://example.org/")


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
