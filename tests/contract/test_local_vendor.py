"""One's own GPU: trainings as processes of this machine, begun once, found again, stopped whole, one at a time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from domain.errors import BadInput, JobFailed, NotConfigured, Rejected, ResultExpired, Unavailable
from domain.jobs import BlobRef, OutputFile, VendorJobIds, VendorRequest, VendorState
from domain.model_rules import TrainerKind
from domain.registry import load_registry
from domain.submissions import Finding, Submission
from providers.local import supervisor
from providers.local.orders import fill_folder, read_order, trainers_environment
from providers.local.vendor import LocalVendor
from providers.vendor_ports import TrainingOrder
from tests.contract.sandbox_fixtures import wait_until

MODEL = "local_ai_toolkit_sdxl"
SENT_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

PROGRAM = '''
"""A trainer in ai-toolkit's place: does what the learning rate of its configuration says, in its real words."""
import json, re, struct, sys, time
from pathlib import Path

text = Path(sys.argv[1]).read_text()
folder = Path(re.search(r"training_folder: (.+)", text)[1]) / "lora"
pictures = Path(re.search(r"folder_path: (.+)", text)[1])
lr = float(re.search(r" lr: (.+)", text)[1])
assert list(pictures.glob("*.png")), "no pictures"
for step in (5, 10, 20):
    print(f"lora: {step * 5}%|###| {step}/20 [00:01<00:01, 10.0it/s, lr: 1.0e-04 loss: 1.5e-01]", end="\\r", flush=True)
    if lr == 0.002 and step == 10:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    while lr == 0.003 and step == 10:
        time.sleep(0.02)
print(flush=True)
folder.mkdir(parents=True, exist_ok=True)
header = json.dumps({"x.lora_A.weight": {"dtype": "F16", "shape": [1, 1], "data_offsets": [0, 2]}}).encode()
(folder / "lora.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"ab")
'''
TRAINS, BREAKS, WAITS = 0.001, 0.002, 0.003


class Machine:
    """A machine with one trainer, a training set in its store, and adapters over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "ai-toolkit"
        self.home.mkdir()
        (self.home / "run.py").write_text(PROGRAM, "utf-8")
        self.zip = folder / "set"
        with zipfile.ZipFile(self.zip, "w") as packed:
            for number in range(4):
                packed.writestr(f"MEIKOB_01/{number}.png", b"a picture")
        digest = hashlib.sha256(self.zip.read_bytes()).hexdigest()
        self.ref = BlobRef(sha256=digest, media_type="application/zip", file_name="set.zip")
        self.serial = 0

    def vendor(self, homes: dict[TrainerKind, Path] | None = None) -> LocalVendor:
        """An adapter, as another process would open one."""
        return LocalVendor(
            self.folder / "local",
            load_registry(),
            trainer_homes={TrainerKind.AI_TOOLKIT: self.home} if homes is None else homes,
            python=Path(sys.executable),
            heartbeat_seconds=0.05,
        )

    def order(self, learning_rate: float = TRAINS, **change: object) -> TrainingOrder:
        given = {"trainer_key": MODEL, "zip": self.ref, "trigger_word": "MEIKOB_01", "steps": 20, "image_count": 4}
        return TrainingOrder.model_validate({**given, "learning_rate": learning_rate, **change})

    def request(self, learning_rate: float = TRAINS) -> VendorRequest:
        return self.vendor().training_request(self.order(learning_rate))

    def submission(self) -> Submission:
        self.serial += 1
        key = hashlib.sha256(f"job {self.serial}".encode()).hexdigest()[:40]
        url_of = {self.ref.sha256: self.vendor().upload(self.zip, self.ref)}
        return Submission(installation="0badcafe", job_key=key, number=1, sent_at=SENT_AT, url_of=url_of)

    def begin(self, learning_rate: float) -> tuple[VendorRequest, VendorJobIds]:
        request = self.request(learning_rate)
        return request, self.vendor().submit(request, self.submission())

    def state(self, request: VendorRequest, ids: VendorJobIds) -> VendorState:
        return self.vendor().status(request, ids).state

    def folder_of(self, ids: VendorJobIds) -> Path:
        return self.folder / "local" / "jobs" / ids.request_id

    def becomes(self, request: VendorRequest, ids: VendorJobIds, *states: VendorState) -> None:
        wait_until(lambda: self.state(request, ids) in states)

    def is_training(self, request: VendorRequest, ids: VendorJobIds) -> Callable[[], bool]:
        return lambda: self.vendor().status(request, ids).training is not None


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("own-gpu"))
    yield machine
    for folder in (machine.folder / "local" / "jobs").iterdir():
        machine.vendor().cancel(machine.request(), VendorJobIds(request_id=folder.name))


def pid_of(folder: Path) -> int:
    pid = supervisor.read_json(folder / supervisor.PROCESS)["pid"]
    assert isinstance(pid, int)
    return pid


@pytest.fixture(scope="module")
def done(one: Machine) -> tuple[VendorRequest, VendorJobIds]:
    """A training that has ended well."""
    request, ids = one.begin(TRAINS)
    one.becomes(request, ids, VendorState.DONE, VendorState.FAILED)
    return request, ids


def test_a_training_leaves_its_lora_on_this_disk_and_costs_nothing(
    one: Machine, done: tuple[VendorRequest, VendorJobIds]
) -> None:
    request, ids = done
    assert request.arguments["dataset"]["$blob"]["sha256"] == one.ref.sha256
    assert str(one.folder) not in json.dumps(request.arguments)
    assert one.state(request, ids) is VendorState.DONE
    output = one.vendor().output(request, ids)
    assert output.billed_usd == 0
    assert {file.role for file in output.files} == {"lora", "config", "log"}
    (lora,) = (file for file in output.files if file.role == "lora")
    into = io.BytesIO()
    one.vendor().download(lora, into)
    assert len(into.getvalue()) == lora.size_bytes
    assert into.getvalue().endswith(b"ab")


def test_one_trains_and_the_others_wait_and_a_stopped_one_makes_room(one: Machine) -> None:
    first, first_ids = one.begin(WAITS)
    wait_until(one.is_training(first, first_ids))
    shown = one.vendor().status(first, first_ids)
    assert shown.state is VendorState.RUNNING
    assert shown.training is not None
    assert (shown.training.step, shown.training.total_steps, shown.training.loss) == (10, 20, 0.15)
    second, second_ids = one.begin(TRAINS)
    wait_until(lambda: (one.folder_of(second_ids) / supervisor.PROCESS).exists())
    waiting = one.vendor().status(second, second_ids)
    assert (waiting.state, waiting.queue_position) == (VendorState.QUEUED, 1)
    with pytest.raises(Unavailable):
        one.vendor().output(second, second_ids)
    one.vendor().cancel(first, first_ids)
    assert one.state(first, first_ids) is VendorState.CANCELLED
    wait_until(lambda: supervisor.kill_job(first_ids.request_id) == 0)
    one.vendor().cancel(first, first_ids)
    one.becomes(second, second_ids, VendorState.DONE)


def test_a_training_that_breaks_says_why(one: Machine) -> None:
    request, ids = one.begin(BREAKS)
    one.becomes(request, ids, VendorState.FAILED)
    with pytest.raises(JobFailed, match="illegal memory access") as caught:
        one.vendor().output(request, ids)
    assert caught.value.billed_usd == 0


def test_a_killed_supervisor_is_seen_and_nothing_of_it_goes_on(one: Machine) -> None:
    request, ids = one.begin(WAITS)
    wait_until(one.is_training(request, ids))
    os.killpg(pid_of(one.folder_of(ids)), signal.SIGKILL)  # it and the worker, and not the trainer
    one.becomes(request, ids, VendorState.FAILED)
    assert "without a word" in (one.vendor().status(request, ids).message or "")
    wait_until(lambda: supervisor.kill_job(ids.request_id) == 0)


def test_a_job_that_was_taken_and_never_begun_is_begun_by_the_next_look(one: Machine) -> None:
    request, mark = one.request(), one.submission().mark
    draft, folder = one.folder / "draft", one.folder / "local" / "jobs" / mark
    draft.mkdir()
    fill_folder(draft, folder, load_registry(), read_order(request), one.zip, one.vendor()._place)
    draft.rename(folder)  # and here the process that submits it is killed
    ids = VendorJobIds(request_id=mark)
    assert one.state(request, ids) is VendorState.QUEUED
    one.becomes(request, ids, VendorState.DONE)
    assert {path.name for path in folder.iterdir()} >= {"results", "run.log", "end.json"}
    assert not (folder / "dataset").exists()
    assert not (folder / "dataset.zip").exists()


def test_a_submission_is_found_by_its_name_or_was_never_taken(one: Machine) -> None:
    request, submission = one.request(), one.submission()
    assert one.vendor().absence.can_prove
    assert one.vendor().look_up(request, submission, frozenset()).finding is Finding.ABSENT
    ids = one.vendor().submit(request, submission)
    assert one.vendor().submit(request, submission) == ids
    found = one.vendor().look_up(request, submission, frozenset())
    assert (found.finding, found.ids) == (Finding.FOUND, ids)
    one.vendor().cancel(request, ids)


def test_what_is_not_there_is_gone_and_no_address_leads_out_of_the_jobs(one: Machine, tmp_path: Path) -> None:
    request, nobody = one.request(), VendorJobIds(request_id="0badcafe-aaaaaaaaaaaaaaaaaaaa-1")
    assert one.state(request, nobody) is VendorState.GONE
    with pytest.raises(ResultExpired):
        one.vendor().output(request, nobody)
    one.vendor().cancel(request, nobody)
    with pytest.raises(BadInput):
        one.vendor().status(request, VendorJobIds(request_id="../../etc"))
    outside = tmp_path / "secret"
    outside.write_bytes(b"x")
    with pytest.raises(JobFailed, match="not read"):
        one.vendor().download(OutputFile(role="lora", url=outside.as_uri() + "#" + "0" * 64), io.BytesIO())


def test_a_result_that_somebody_changed_is_not_the_lora(one: Machine, done: tuple[VendorRequest, VendorJobIds]) -> None:
    request, ids = done
    (lora,) = (file for file in one.vendor().output(request, ids).files if file.role == "lora")
    path, into = one.folder_of(ids) / "results" / "lora.safetensors", io.BytesIO()
    kept = path.read_bytes()
    path.write_bytes(b"another")
    try:
        with pytest.raises(JobFailed, match="changed"):
            one.vendor().download(lora, into)
    finally:
        path.write_bytes(kept)
    assert into.getvalue() == b""


def test_a_program_that_is_not_set_up_names_its_variable(one: Machine, tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="ONMODEL_AI_TOOLKIT_HOME"):
        one.vendor({}).training_request(one.order())
    with pytest.raises(NotConfigured, match=r"no run\.py"):
        one.vendor({TrainerKind.AI_TOOLKIT: tmp_path}).training_request(one.order())
    assert not one.vendor({}).ping().is_ready
    assert one.vendor().ping().is_ready


def test_an_order_of_another_kind_is_refused(one: Machine) -> None:
    with pytest.raises(BadInput):
        one.vendor().training_request(one.order(trainer_key="fal_flux_lora_fast"))
    with pytest.raises(BadInput):
        one.vendor().training_request(one.order(learning_rate=3.0))
    request = one.request()
    with pytest.raises(Rejected):
        one.vendor().submit(request.model_copy(update={"endpoint": "pods"}), one.submission())
    with pytest.raises(Rejected, match="no path"):
        one.vendor().submit(request, one.submission().model_copy(update={"url_of": {}}))


def test_a_trainer_gets_no_key_of_ours() -> None:
    kept = trainers_environment({"FAL_KEY": "x", "ONMODEL_DATABASE_URL": "x", "HF_TOKEN": "y", "PATH": "/bin"})
    assert kept == {"HF_TOKEN": "y", "PATH": "/bin"}
