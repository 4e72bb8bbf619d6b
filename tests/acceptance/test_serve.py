"""`onmodel serve`: a season rendered as from Prefect's own pages, and an end that leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from providers.postgres.embedded import stop_server
from providers.postgres.processes import is_alive
from providers.sandbox.launcher import ensure_sandbox, stop_sandbox
from tests.command_runs import ROOT
from tests.media_samples import drawn_frame
from tests.postgres_fixtures import open_folder

PATIENCE_SECONDS = 240.0
DEPLOYMENTS = {"train-character", "generate-references", "render-slot", "render-season", "maintain"}
SEASON = """\
season: little
budget_usd: 10
characters:
  - {name: Ana, lora: none, references: [ana.png, bo.png]}
slots:
  - {number: 5, prompt: "@Ana walks"}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A home of this test alone, with the built-in database and a sandbox that makes small videos."""
    folder = open_folder()
    home = folder / "home"
    home.mkdir(mode=0o711)
    for number, name in enumerate(("ana", "bo")):
        Image.fromarray(drawn_frame(9 * number, 640, 640)).save(folder / f"{name}.png")
    (folder / "season.yaml").write_text(SEASON)
    ensure_sandbox(home, more_arguments=("--max-video-height", "240"))
    yield folder
    stop_sandbox(home)
    stop_server(home)
    shutil.rmtree(folder)


def start(folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "ONMODEL_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), **more}
    del environment["PREFECT_HOME"]
    return subprocess.Popen(
        [sys.executable, "-m", "studio.cli", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_of(folder: Path) -> dict[int, str]:
    """Prefect's processes with this home, by id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ = (entry / "environ").read_bytes().split(b"\0")
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"ONMODEL_HOME={folder / 'home'}".encode() in environ and "prefect" in words:
            found[int(entry.name)] = words
    return found


def wait_for(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.2)


def test_a_season_is_rendered_from_prefects_own_pages_and_sigterm_ends_everything(folder: Path) -> None:
    serve = start(folder, "serve", "--port", "4370")
    assert serve.stdout is not None
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", serve.stdout.readline())
        assert address is not None, serve.communicate()[1]
        imported = start(folder, "season", "import", "season.yaml")
        assert imported.communicate(timeout=PATIENCE_SECONDS) and imported.returncode == 0
        with httpx.Client(base_url=f"{address.group()}/api/", trust_env=False, timeout=30) as api:
            check_the_form(api)
            render_the_season(api)
        seen = start(folder, "status", "little", "--json")
        out, err = seen.communicate(timeout=PATIENCE_SECONDS)
        assert '"state": "done"' in out, err
        serve.send_signal(signal.SIGTERM)
        _, err = serve.communicate(timeout=60)
        assert serve.returncode == 0, err
        wait_for("Prefect's processes are gone", lambda: not processes_of(folder))
    finally:
        if serve.poll() is None:
            os.killpg(serve.pid, signal.SIGKILL)
            serve.communicate()
            wait_for("the tethers have ended", lambda: not processes_of(folder))


HOLDER = """
import sys, time
from pathlib import Path
from studio.tethered import start_tethered
folder = Path(sys.argv[1])
start_tethered(["sh", "-c", "echo $$; exec sleep 300"], folder=folder, environ={"PYTHONPATH": ROOT}, log=folder / "log")
print("held", flush=True)
time.sleep(300)
"""


def test_a_tethered_program_ends_when_its_holder_is_killed(tmp_path: Path) -> None:
    code = HOLDER.replace("ROOT", repr(str(ROOT)))
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    wait_for("the program runs", lambda: (tmp_path / "log").read_text().endswith("\n"))
    program = int((tmp_path / "log").read_text())
    assert is_alive(program)
    holder.kill()
    holder.communicate()
    wait_for("the program has ended", lambda: not is_alive(program))


def found(api: httpx.Client, kind: str, **wanted: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = api.post(f"{kind}/filter", json=wanted).raise_for_status().json()
    return rows


def check_the_form(api: httpx.Client) -> None:
    """The deployments, and what a person reads in the form of one of them."""
    deployments = {row["name"]: row for row in found(api, "deployments")}
    assert set(deployments) == DEPLOYMENTS
    assert all(row["description"] for row in deployments.values())
    schema = deployments["render-slot"]["parameter_openapi_schema"]
    assert sorted(schema["required"]) == ["season", "slot"]
    assert set(schema["properties"]) == {"season", "slot", "lora_id"}
    assert all(field["title"] and field["description"] for field in schema["properties"].values())
    assert (schema["properties"]["slot"]["minimum"], schema["properties"]["slot"]["maximum"]) == (1, 75)
    assert {"type": "null"} in schema["properties"]["lora_id"]["anyOf"]


def render_the_season(api: httpx.Client) -> None:
    """A run created as the UI creates it, to its end; then its names and what it left for people."""
    (deployment,) = found(api, "deployments", deployments={"name": {"any_": ["render-season"]}})
    wrong = api.post(f"deployments/{deployment['id']}/create_flow_run", json={"parameters": {"season": 7}})
    assert wrong.status_code >= 400
    created = api.post(f"deployments/{deployment['id']}/create_flow_run", json={"parameters": {"season": "little"}})
    run_id = created.raise_for_status().json()["id"]

    def is_over() -> bool:
        state = api.get(f"flow_runs/{run_id}").raise_for_status().json()["state"]
        assert state["type"] not in ("FAILED", "CRASHED", "CANCELLED"), state
        return bool(state["type"] == "COMPLETED")

    wait_for("the run is completed", is_over)
    names = {row["name"] for row in found(api, "flow_runs")}
    assert {"season little", "slot 5 of little"} <= names
    artifacts = {row["key"]: row for row in found(api, "artifacts")}
    assert artifacts["season-little"]["type"] == "table"
    assert '"slot": "5"' in artifacts["season-little"]["data"]
    assert "0.56 USD" in artifacts["season-little-summary"]["data"]
