"""A training on a rented machine, from the order to the file: RunPod's adapter, a pod that runs, a trainer that trains.

Everything is the product's own but the vendor, which is the sandbox's, and the trainers' programs, which stand in.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from pydantic import SecretStr

from domain.errors import JobFailed
from domain.jobs import BlobRef, JobOutput, JobStatus, VendorJobIds, VendorRequest, VendorState
from domain.registry import load_registry
from domain.submissions import Submission
from providers.lora_files import check_lora_file
from providers.postgres.processes import is_alive, wait_until
from providers.runpod.vendor import RunPodVendor
from providers.sandbox.handover import SandboxHandover
from providers.sandbox.places import RENTED_HOSTS
from providers.sandbox.server import SandboxOptions, SandboxServer
from providers.sandbox.transport import SandboxTransport
from providers.vendor_ports import TrainingOrder
from providers.wiring import SystemClock
from tests.trainer_machine import PICTURES, RANK, STEPS, Machine

REGISTRY = load_registry()
ENDS = (VendorState.DONE, VendorState.FAILED, VendorState.CANCELLED, VendorState.GONE)


class Ordered(NamedTuple):
    request: VendorRequest
    ids: VendorJobIds


class Rehearsal:
    """A sandbox, and RunPod's adapter before it."""

    def __init__(self, server: SandboxServer, http: httpx.Client, machine: Machine) -> None:
        self.server, self.http, self._machine = server, http, machine
        self._count = 0
        self.vendor = RunPodVendor(
            http,
            SecretStr("a-key"),
            REGISTRY,
            handover=SandboxHandover(http),
            clock=SystemClock(),
            name="sandbox-runpod",
        )

    def order(self, key: str, faults: str = "") -> Ordered:
        self.server.faults.set(faults)
        path, ref = self._set_for(key)
        order = TrainingOrder(
            trainer_key=key, zip=ref, trigger_word="MEIKOB_01", steps=STEPS, image_count=PICTURES, rank=RANK
        )
        request = self.vendor.training_request(order)
        self._count += 1
        submission = Submission(
            installation="0a1b2c3d",
            job_key=f"{self._count:020x}" * 2,
            number=1,
            sent_at=datetime.now(UTC),
            url_of={ref.sha256: self.vendor.upload(path, ref)},
        )
        return Ordered(request, self.vendor.submit(request, submission))

    def watch(self, ordered: Ordered, seconds: float = 60) -> list[JobStatus]:
        """Every look until it is over."""
        pause, seen = threading.Event(), list[JobStatus]()
        for _ in range(int(seconds / 0.1)):
            seen.append(self.vendor.status(*ordered))
            if seen[-1].state in ENDS:
                return seen
            pause.wait(0.1)
        raise AssertionError(f"it is not over: {seen[-1]}")

    def _set_for(self, key: str) -> tuple[Path, BlobRef]:
        training = REGISTRY.model(key).training
        assert training is not None
        root, path = self._machine.folder / training.layout, self._machine.folder / f"{training.layout}.zip"
        with zipfile.ZipFile(path, "w") as zipped:
            for file in sorted(root.rglob("*.*")):
                zipped.write(file, file.relative_to(root))
        data = path.read_bytes()
        ref = BlobRef(sha256=hashlib.sha256(data).hexdigest(), media_type="application/zip", file_name="set.zip")
        return path, ref


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    server = SandboxServer(SandboxOptions(home=tmp_path_factory.mktemp("home")))
    server.start()
    with httpx.Client(transport=SandboxTransport(server.url, hosts=RENTED_HOSTS), timeout=30) as http:
        yield Rehearsal(server, http, Machine(tmp_path_factory.mktemp("sets")))
    server.stop()


@pytest.mark.parametrize(
    ("key", "roles"),
    [
        ("runpod_ai_toolkit_wan_22", {"lora", "lora_high_noise", "config", "log"}),
        ("runpod_musubi_hunyuan_video", {"lora", "config", "log"}),
        ("runpod_sd_scripts_sdxl", {"lora", "log"}),
    ],
)
def test_a_pod_trains_hands_over_what_it_made_and_is_gone(
    rehearsal: Rehearsal, tmp_path: Path, key: str, roles: set[str]
) -> None:
    ordered = rehearsal.order(key)
    last = rehearsal.watch(ordered)[-1]
    assert last.state is VendorState.DONE, last
    assert last.training is not None
    assert last.training.step == last.training.total_steps
    output = rehearsal.vendor.output(*ordered)
    assert {file.role for file in output.files} == roles
    assert output.billed_usd is not None
    assert Decimal(0) < output.billed_usd < Decimal("0.1")
    assert rehearsal.vendor.pods() == ()
    for name, data in fetched(rehearsal, output).items():
        if name.startswith("lora"):
            path = tmp_path / f"{name}.safetensors"
            path.write_bytes(data)
            base = REGISTRY.model(key).base_model
            assert check_lora_file(path, expected_base=base, expected_rank=RANK).verdict == "healthy"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("job:trainer=nan", "loss"),
        ("job:trainer=short", "of 20 steps"),
        ("job:fail,job:slow=60", "EXITED"),  # slow, so that its host dies before it is done
    ],
)
def test_a_training_that_went_wrong_says_how_costs_its_minutes_and_leaves_no_pod(
    rehearsal: Rehearsal, fault: str, says: str
) -> None:
    ordered = rehearsal.order("runpod_ai_toolkit_sdxl", fault)
    assert rehearsal.watch(ordered)[-1].state is VendorState.FAILED
    with pytest.raises(JobFailed, match=says) as failed:
        rehearsal.vendor.output(*ordered)
    assert failed.value.billed_usd is not None
    assert failed.value.billed_usd > 0
    assert rehearsal.vendor.pods() == ()


def test_a_pod_that_may_not_be_deleted_is_stopped_and_its_result_is_had_all_the_same(rehearsal: Rehearsal) -> None:
    ordered = rehearsal.order("runpod_ai_toolkit_sdxl", "cancel:refuse=403")
    assert rehearsal.watch(ordered)[-1].state is VendorState.DONE
    assert rehearsal.vendor.output(*ordered).files
    (pod,) = rehearsal.vendor.pods()
    assert (pod.status, pod.cost_usd_per_hour) == ("EXITED", Decimal(0))


def test_a_cancelled_training_is_gone_with_its_pod(rehearsal: Rehearsal) -> None:
    ordered = rehearsal.order("runpod_ai_toolkit_sdxl", "job:slow=60")
    assert rehearsal.vendor.status(*ordered).state in (VendorState.QUEUED, VendorState.RUNNING)
    rehearsal.vendor.cancel(*ordered)
    rehearsal.vendor.cancel(*ordered)
    assert rehearsal.vendor.status(*ordered).state is VendorState.GONE


def test_a_machine_that_stands_still_goes_on_billing_and_says_nothing_more(rehearsal: Rehearsal) -> None:
    ordered = rehearsal.order("runpod_ai_toolkit_sdxl", "job:freeze,job:slow=60")
    handover, pause = SandboxHandover(rehearsal.http), threading.Event()
    (pod,) = [pod for pod in rehearsal.vendor.pods() if pod.pod_id == ordered.ids.request_id]
    words = [b"", b"", b""]
    for _ in range(40):
        if words[-1] and words[-1] == words[-3]:  # a heartbeat every half second, a look every 0.7 s
            break
        pause.wait(0.7)
        words.append(handover.read(pod.name, "status.json") or b"")
    assert words[-1] == words[-3]
    assert b'"running"' in words[-1]
    assert rehearsal.vendor.status(*ordered).state is VendorState.RUNNING
    rehearsal.vendor.cancel(*ordered)


START_A_MACHINE = """
import pathlib, sys, threading
from providers.sandbox.machines import Machine
Machine(pathlib.Path(sys.argv[1]), sys.argv[2], {}, None).start(lambda: None)
threading.Event().wait(60)
"""


def test_a_machine_does_not_outlive_a_sandbox_that_was_killed(tmp_path: Path) -> None:
    args = f"bash -c 'echo $$ > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/pid && sleep 60'"
    command = [sys.executable, "-c", START_A_MACHINE, str(tmp_path / "disk"), args]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as sandbox:
        assert wait_until((tmp_path / "pid").exists, 30)
        sandbox.kill()
    pid = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not is_alive(pid), 30)


def fetched(rehearsal: Rehearsal, output: JobOutput) -> dict[str, bytes]:
    found = {}
    for file in output.files:
        into = io.BytesIO()
        rehearsal.vendor.download(file, into)
        found[file.role] = into.getvalue()
    return found
