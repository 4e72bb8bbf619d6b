"""The sandbox's RunPod: what its REST v2 answers, and that a pod there is a process which is started, ended and billed.

The whole of a training on it stands in tests/acceptance/test_rented_training.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.errors import (
    NotConfigured,
    OnModelError,
    OutOfCredit,
    RateLimited,
    Rejected,
    SubmissionUnknown,
    Unavailable,
)
from domain.pods import pod_name
from domain.submissions import Finding
from providers.runpod.vendor import RunPodVendor
from providers.sandbox.handover import SandboxHandover
from providers.sandbox.machines import container_command
from providers.sandbox.places import RENTED_HOSTS, RUNPOD_HOST
from providers.sandbox.server import SandboxServer
from providers.sandbox.transport import SandboxTransport
from tests.contract.runpod_orders import FIRST, TRAIN, vendor_over
from tests.contract.sandbox_fixtures import running_sandbox

URL = f"https://{RUNPOD_HOST}/v2"
KEY = {"Authorization": "Bearer a-key"}
BODY = {"name": "theirs", "image": "some/image:1", "gpu": {"id": "NVIDIA L40S"}, "args": "sleep 60"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    with running_sandbox(tmp_path_factory.mktemp("runpod")) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(server: SandboxServer) -> Iterator[httpx.Client]:
    with httpx.Client(transport=SandboxTransport(server.url, hosts=RENTED_HOSTS), timeout=10) as opened:
        yield opened


@pytest.fixture
def vendor(http: httpx.Client, server: SandboxServer) -> Iterator[RunPodVendor]:
    server.faults.set("")
    yield vendor_over(http, SandboxHandover(http), URL, "a-key")
    server.faults.set("")
    for pod in http.get(f"{URL}/pods", headers=KEY).json()["pods"]:
        http.delete(f"{URL}/pods/{pod['id']}", headers=KEY)


def rented(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post(f"{URL}/pods", json=BODY | body, headers=KEY)
    assert answer.status_code == 201, answer.text
    pod: dict[str, Any] = answer.json()
    return pod


def wait_for(is_so: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(400):
        if is_so():
            return
        pause.wait(0.02)
    raise AssertionError("it never came to that")


def status_of(http: httpx.Client, pod: dict[str, Any]) -> str:
    return str(http.get(f"{URL}/pods/{pod['id']}", headers=KEY).json().get("status", "gone"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"stopAfter": "1h"},
        {"gpu": {"id": "NVIDIA L40S", "memory": 48}},
        {"gpu": None},
        {"env": {"A": 1}},
        {"disk": 0},
        {"cloud": "ANY"},
        {"name": ""},
        {"env": {f"V{n}": "" for n in range(51)}},
    ],
)
def test_what_the_specification_does_not_have_is_refused(
    http: httpx.Client, vendor: RunPodVendor, wrong: dict[str, Any]
) -> None:
    answer = http.post(f"{URL}/pods", json=BODY | wrong, headers=KEY)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert vendor.pods() == ()


def test_a_pod_runs_its_command_and_is_found_billed_and_ended(http: httpx.Client, vendor: RunPodVendor) -> None:
    name = pod_name(FIRST)
    pod = rented(http, name=name)
    assert vendor.look_up(TRAIN, FIRST, frozenset()).finding is Finding.FOUND
    wait_for(lambda: status_of(http, pod) == "RUNNING")
    assert [one.name for one in vendor.pods()] == [name]
    now = datetime.now(UTC)
    (line,) = vendor.usage(now - timedelta(hours=1), now + timedelta(minutes=1))
    assert (line.subject, line.amount_usd > 0) == (pod["id"], True)
    vendor.delete_pod(pod["id"])
    vendor.delete_pod(pod["id"])
    assert vendor.pods() == ()
    assert vendor.look_up(TRAIN, FIRST, frozenset()).finding is Finding.ABSENT


def test_a_command_that_returns_is_started_again_with_an_empty_disk(
    http: httpx.Client, vendor: RunPodVendor, tmp_path: Path
) -> None:
    script = f"test ! -e here && touch here && echo begun >> {tmp_path}/log"
    pod = rented(http, args=f"bash -c '{script}'")
    wait_for(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text() == "begun\nbegun\n")
    vendor.delete_pod(pod["id"])


def test_a_machine_sees_its_own_variables_and_none_of_ours(
    http: httpx.Client, vendor: RunPodVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"MINE": "1", "HF_TOKEN": "{{ RUNPOD_SECRET_hf }}"}
    pod = rented(
        http, args=f"bash -c 'env > {tmp_path}/env.new && mv {tmp_path}/env.new {tmp_path}/env && sleep 9'", env=given
    )
    wait_for((tmp_path / "env").exists)
    seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    assert (seen["MINE"], seen["RUNPOD_POD_ID"], seen["HF_TOKEN"]) == ("1", pod["id"], "a-secret-of-the-sandbox")
    assert "VIRTUAL_ENV" not in seen
    own = {"Authorization": f"Bearer {seen['RUNPOD_API_KEY']}"}
    base = seen["ONMODEL_RUNPOD_URL"]
    with httpx.Client(trust_env=False) as plain:
        assert plain.get(f"{base}/pods", headers=own).status_code == 403
        assert plain.delete(f"{base}/pods/{pod['id']}", headers=own).status_code == 204
    assert vendor.pods() == ()


def test_a_stopped_pod_bills_no_more_and_takes_only_what_its_status_allows(
    http: httpx.Client, vendor: RunPodVendor
) -> None:
    pod = rented(http)
    act = f"{URL}/pods/{pod['id']}/action"
    stopped = http.post(act, json={"action": "stop"}, headers=KEY).json()
    assert (stopped["status"], stopped["cost"], stopped["runtime"]) == ("EXITED", 0.0, None)
    assert http.post(act, json={"action": "stop"}, headers=KEY).status_code == 409
    assert http.post(act, json={"action": "terminate"}, headers=KEY).status_code == 204


@pytest.mark.parametrize(
    ("args", "command"),
    [
        ("bash -c 'a b'", ["bash", "-c", "a b"]),
        ('{"cmd": ["bash", "-c", "a b"]}', ["bash", "-c", "a b"]),
        ("it's", ["false"]),
    ],
)
def test_a_command_is_read_as_a_shells_words_or_as_json(args: str, command: list[str]) -> None:
    assert container_command(args) == command


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("submit:no_capacity#1", Unavailable),
        ("submit:refuse=403#1", Unavailable),
        ("submit:refuse=422#1", Rejected),
        ("submit:lock#1", OutOfCredit),
        ("submit:rate_limit=3#1", RateLimited),
        ("submit:rate_limit_body=3#1", RateLimited),
        ("submit:unavailable=502#1", SubmissionUnknown),
        ("submit:drop_before_accept#1", SubmissionUnknown),
        ("submit:drop_after_accept#1", SubmissionUnknown),
        ("submit:malformed#1", SubmissionUnknown),
        ("status:unavailable@catalog#1", Unavailable),
    ],
)
def test_each_fault_of_an_order_is_read_as_what_it_is(
    server: SandboxServer, vendor: RunPodVendor, fault: str, error: type[OnModelError]
) -> None:
    server.faults.set(f"{fault},job:stay_queued")
    with pytest.raises(OnModelError) as raised:
        vendor.submit(TRAIN, FIRST)
    assert type(raised.value) is error
    is_there = vendor.look_up(TRAIN, FIRST, frozenset()).finding is Finding.FOUND
    assert is_there == any(word in fault for word in ("after_accept", "malformed"))


def test_a_list_that_lags_and_a_word_nobody_knows_are_played_too(
    server: SandboxServer, http: httpx.Client, vendor: RunPodVendor
) -> None:
    pod = rented(http)
    server.faults.set("list:hide#1,status:unknown_word=HIBERNATING")
    assert [len(vendor.pods()) for _ in range(2)] == [0, 1]
    assert status_of(http, pod) == "HIBERNATING"


def test_a_machine_may_come_without_a_gpu_and_one_may_never_come(
    server: SandboxServer, http: httpx.Client, vendor: RunPodVendor
) -> None:
    server.faults.set("job:no_gpu#1,job:stay_queued#2")
    bare, never = rented(http), rented(http)
    wait_for(lambda: status_of(http, bare) == "RUNNING")
    assert http.get(f"{URL}/pods/{bare['id']}", headers=KEY).json()["runtime"]["gpus"] == []
    assert (status_of(http, never), never["runtime"]) == ("STARTING", None)


def test_keys_are_judged(http: httpx.Client, vendor: RunPodVendor) -> None:
    handover = SandboxHandover(http)
    with pytest.raises(NotConfigured, match="RUNPOD_API_KEY"):
        vendor_over(http, handover, URL, "invalid").pods()
    locked = vendor_over(http, handover, URL, "locked")
    assert locked.ping().is_ready
    with pytest.raises(OutOfCredit):
        locked.submit(TRAIN, FIRST)
    assert vendor.ping().is_ready


def test_what_an_earlier_server_had_rented_has_exited(tmp_path: Path) -> None:
    for status in ("RUNNING", "EXITED"):
        with (
            running_sandbox(tmp_path) as server,
            httpx.Client(transport=SandboxTransport(server.url, hosts=RENTED_HOSTS)) as http,
        ):
            if status == "RUNNING":
                pod = rented(http)
            wait_for(lambda: status_of(http, pod) == status)  # noqa: B023 (called before the next round)
