"""The program on the rented machine: what it does with a job, told by what it leaves at its links."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from providers.trainers.worker import work_off
from providers.trainers.worker_job import (
    JobCommand,
    JobData,
    JobFile,
    JobResult,
    WorkerJob,
    WorkerStatus,
    packed,
    pod_command,
    read_status,
    worker_source,
)
from providers.trainers.worker_web import Web

BAR = "x:  {0}%|#| {1}/{2} [00:05<00:01,  1.29s/it, lr: 1.0e-04 loss: 3.5e-01]"
TRAINER = """
import json, pathlib, struct, sys
config = json.loads(pathlib.Path("config.json").read_text())
assert sorted(p.name for p in pathlib.Path(config["data"]).iterdir()) == ["1.png", "1.txt"]
for line in config["lines"]:
    print(line, flush=True)
header = json.dumps({"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}, "__metadata__": config["said"]})
if config["leaves"]:
    pathlib.Path("out.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header.encode() + b"\\0" * config["leaves"])
sys.exit(config["code"])
"""


def data_zip(name: str = "1.png") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr(name, b"a picture")
        zipped.writestr("1.txt", "a caption")
    return buffer.getvalue()


class Place:
    """A folder for one job; what the trainer does stands in its config."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.archive = data_zip()
        self.store = str(root)

    def job(self, **config: Any) -> WorkerJob:
        (self.root / "set.zip").write_bytes(self.archive)
        work = self.root / "work"
        given = {
            "data": str(self.root / "data"),
            "lines": [BAR.format(100, 10, 10)],
            "said": {},
            "leaves": 2,
            "code": 0,
        }
        return WorkerJob(
            job="mine",
            dataset=JobData(
                url=f"{self.store}/set.zip",
                sha256=hashlib.sha256(self.archive).hexdigest(),
                folder=str(self.root / "data"),
            ),
            work_folder=str(work),
            files=(
                JobFile(path=str(work / "config.json"), text=json.dumps(given | config)),
                JobFile(path=str(work / "train.py"), text=TRAINER),
            ),
            commands=(
                JobCommand(
                    name="training", argv=(sys.executable, "-S", "train.py"), is_training=True, timeout_seconds=60
                ),
            ),
            results=(
                JobResult(role="lora", glob=str(work / "out*.safetensors"), url=f"{self.store}/lora.safetensors"),
                JobResult(role="config", glob=str(work / "no*.json"), is_required=False, url=f"{self.store}/config"),
            ),
            status_url=f"{self.store}/status.json",
            log_url=f"{self.store}/run.log",
            total_steps=10,
        )

    def told(self) -> WorkerStatus:
        status = read_status((self.root / "status.json").read_bytes())
        assert status is not None
        return status


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def carry_out(job: WorkerJob) -> int:
    return work_off(job.model_dump(mode="json"), Web(), lambda run: None)


def test_a_training_that_went_well_leaves_its_file_its_log_and_a_final_status(place: Place) -> None:
    assert carry_out(place.job()) == 0
    told = place.told()
    assert (told.state, told.step, told.total_steps, told.loss, told.starts) == ("done", 10, 10, 0.35, 1)
    lora, log = told.files
    data = (place.root / "lora.safetensors").read_bytes()
    assert (lora.role, lora.size_bytes, lora.sha256) == ("lora", len(data), hashlib.sha256(data).hexdigest())
    assert log.role == "log"
    assert "10/10" in (place.root / "run.log").read_text()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"code": 3, "lines": ["RuntimeError: it broke"]}, "training"),
        ({"lines": ["loss is nan"] * 9}, "nan"),
        ({"lines": [BAR.format(40, 4, 10)]}, "after 4 of 10 steps"),
        ({"leaves": 0}, "left no lora"),
        ({"leaves": 1}, "no whole file"),
        ({"lines": ["no bar at all"], "said": {"ss_steps": "4"}}, "after 4 of 10 steps"),
    ],
)
def test_a_training_that_did_not_train_has_failed_whatever_it_returned(
    place: Place, config: dict[str, Any], says: str
) -> None:
    assert carry_out(place.job(**config)) == 1
    told = place.told()
    assert told.state == "failed"
    assert says in (told.reason or "").lower()
    assert [file.role for file in told.files] == ["log"]


def test_a_trainer_without_a_bar_is_believed_by_what_its_file_says(place: Place) -> None:
    said = {"training_info": json.dumps({"step": 10})}
    assert carry_out(place.job(lines=["quiet"], said=said)) == 0


@pytest.mark.parametrize("name", ["../1.png", "/1.png"])
def test_data_that_would_climb_out_of_its_folder_is_not_unpacked(place: Place, name: str) -> None:
    place.archive = data_zip(name)
    assert carry_out(place.job()) == 1
    assert "outside its folder" in (place.told().reason or "")
    assert not (place.root / "1.png").exists()


def test_other_data_than_was_ordered_is_not_trained_on(place: Place) -> None:
    job = place.job()
    (place.root / "set.zip").write_bytes(data_zip("2.png"))
    assert carry_out(job) == 1
    assert "SHA-256" in (place.told().reason or "")


def test_a_job_that_is_over_is_not_done_again(place: Place) -> None:
    job = place.job(code=3)
    assert carry_out(job) == 1
    told = place.told()
    (place.root / "set.zip").unlink()
    assert carry_out(job) == 1
    assert place.told() == told


def test_a_machine_that_begins_again_and_again_gives_up(place: Place) -> None:
    job = place.job()
    for starts, state in ((2, "done"), (3, "failed")):
        earlier = WorkerStatus(job="mine", state="running", at=1.0, starts=starts)
        (place.root / "status.json").write_text(earlier.model_dump_json())
        carry_out(job)
        assert (place.told().state, place.told().starts) == (state, starts + 1)


def test_past_its_deadline_a_machine_begins_nothing(place: Place) -> None:
    job = place.job(lines=["wait"]).model_copy(update={"deadline": 1_000_000_000})
    assert carry_out(job) == 1
    assert "hard stop" in (place.told().reason or "")


# --- as a program of its own ---


class Store(ThreadingHTTPServer):
    """Files by PUT and GET, and pods to be deleted; `refusals` are statuses of the next PUTs, by name."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.root = root
        self.refusals: dict[str, list[int]] = {}
        self.asked: list[str] = []
        self.may_delete = True
        self.is_left = threading.Event()
        self.has_begun = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Talk(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        path = self.server.root / self.path.strip("/")
        self._answer(200 if path.is_file() else 403, path.read_bytes() if path.is_file() else b"")

    def do_PUT(self) -> None:
        name = self.path.strip("/")
        data = self.rfile.read(int(self.headers["Content-Length"]))
        refusals = self.server.refusals.get(name)
        if refusals:
            return self._answer(refusals.pop(0))
        (self.server.root / name).write_bytes(data)
        if b'"training"' in data:
            self.server.has_begun.set()
        return self._answer(200)

    def do_DELETE(self) -> None:
        self.server.asked.append(f"DELETE {self.path} {self.headers['Authorization']}")
        self._answer(204 if self.server.may_delete else 403)
        if self.server.may_delete:
            self.server.is_left.set()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append(f"POST {self.path} {body}")
        self._answer(200)
        self.server.is_left.set()

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    server = Store(place.root)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    place.store = server.url
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("may_delete", [True, False])
def test_a_pods_start_command_trains_and_gives_the_pod_back_and_never_returns(
    place: Place, store: Store, may_delete: bool
) -> None:
    store.may_delete = may_delete
    variables = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TMPDIR": str(place.root),
        "ONMODEL_JOB": packed(place.job()),
        "ONMODEL_DEADLINE": "99999999999",
        "ONMODEL_RUNPOD_URL": f"{store.url}/v2",
        "RUNPOD_POD_ID": "pod1",
        "RUNPOD_API_KEY": "the-pods-own-key",
    }
    with subprocess.Popen(pod_command(), shell=True, env=variables, stderr=subprocess.PIPE) as pod:
        assert store.is_left.wait(20)
        assert pod.poll() is None
        pod.kill()
    assert place.told().state == "done"
    deleted = "DELETE /v2/pods/pod1 Bearer the-pods-own-key"
    stopped = 'POST /v2/pods/pod1/action {"action": "stop"}'
    assert store.asked == ([deleted] if may_delete else [deleted, stopped])
    assert (place.root / "lora.safetensors").stat().st_size > 8
    assert "the-pods-own-key" not in (place.root / "run.log").read_text()


def test_on_ones_own_machine_a_stopped_worker_takes_its_trainer_along(place: Place, store: Store) -> None:
    (place.root / "worker.py").write_text(worker_source())
    (place.root / "job.json").write_text(
        place.job()
        .model_copy(update={"commands": (JobCommand(name="training", argv=("sleep", "60"), is_training=True),)})
        .model_copy(update={"heartbeat_seconds": 0.02})
        .model_dump_json()
    )
    command = [sys.executable, "worker.py", "--no-pod", "job.json"]
    with subprocess.Popen(command, cwd=place.root) as worker:
        assert store.has_begun.wait(20)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 143
    assert (place.told().state, store.asked) == ("cancelled", [])


def test_the_worker_travels_as_one_text_of_the_standard_library_and_no_job_is_too_long_for_a_variable(
    place: Place,
) -> None:
    tree = ast.parse(worker_source(), feature_version=(3, 10))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    imported = {alias.name.partition(".")[0] for node in imports for alias in node.names}
    imported |= {(node.module or "").partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - sys.stdlib_module_names == {"certifi"}, "which it can do without"
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(defined) == len(set(defined)), "no part hides another's names"
    command = pod_command()
    assert command.count("'") == 2
    assert not set(command) & set('"\\\n')
    with pytest.raises(ValueError, match="at most"):
        packed(place.job(lines=[hashlib.sha512(str(n).encode()).hexdigest() for n in range(1500)]))


def test_a_store_that_fails_once_is_asked_again_and_one_that_goes_on_failing_is_an_error(store: Store) -> None:
    store.refusals["out"] = [503, 503, 503]
    with pytest.raises(OSError, match="503"):
        Web().put(f"{store.url}/out", b"whole", (0.0,))
    Web().put(f"{store.url}/out", b"whole", (0.0,))
    assert Web().read(f"{store.url}/out") == b"whole"
    assert Web().read(f"{store.url}/never") is None
