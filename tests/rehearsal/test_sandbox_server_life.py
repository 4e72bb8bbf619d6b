"""The sandbox's server from start to end: jobs outlive a stop and a kill, many starters share one server."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from domain.errors import NotConfigured
from providers.sandbox.launcher import PACKAGE_ROOT, control, ensure_sandbox, find_sandbox, stop_sandbox
from providers.sandbox.tls import ensure_certificate
from providers.sandbox.transport import SandboxTransport
from providers.sandbox.wire import code_stamp
from tests.contract.sandbox_fixtures import (
    STAND_IN,
    STILLS,
    TRAINER,
    buy,
    finish,
    running_sandbox,
    sandbox_client,
    submit,
    training_zip,
    upload,
    wait_until,
)


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
