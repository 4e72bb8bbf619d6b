"""A running sandbox for tests: the real server, in this process, on a stand-in engine unless told otherwise.

from tests.contract.sandbox_fixtures import running_sandbox, sandbox_client

with running_sandbox(tmp_path) as server, sandbox_client(server.url) as http:
    http.post("https://queue.fal.run/fal-ai/flux-lora", json={"prompt": "a pier at night"})
"""

from __future__ import annotations

import functools
import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from PIL import Image

from providers.sandbox.server import SandboxOptions, SandboxServer
from providers.sandbox.transport import SandboxTransport
from providers.sandbox.work import WorkOptions

STAND_IN = "tests.contract.sandbox_stand_in_engine"
REAL = "providers.sandbox.engine"
TRAINER = "fal-ai/flux-lora-fast-training"
STILLS = "fal-ai/flux-lora"
KLING = "fal-ai/kling-video/v2.5-turbo/pro/image-to-video"
ELEMENTS = "fal-ai/kling-video/o1/reference-to-video"
WAN_LORA = "fal-ai/wan/v2.2-a14b/text-to-video/lora"


@contextmanager
def running_sandbox(
    home: Path,
    *,
    faults: str = "",
    engine: str = STAND_IN,
    latency_seconds: dict[str, float] | None = None,
    concurrency: int = 2,
    keep_result_seconds: float = 3600,
) -> Iterator[SandboxServer]:
    """A sandbox over `home`, ended at the end of the block; its runners are processes of their own, as always."""
    work = WorkOptions(engine=engine, concurrency=concurrency, latency_seconds=latency_seconds or {})
    server = SandboxServer(SandboxOptions(home=home, faults=faults, keep_result_seconds=keep_result_seconds, work=work))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def sandbox_client(url: str, key: str = "test") -> Iterator[httpx.Client]:
    """An httpx client that reaches the sandbox under fal's host names."""
    headers = {"Authorization": f"Key {key}"}
    with httpx.Client(transport=SandboxTransport(url), headers=headers, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def one_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One server for the tests that only ask it things."""
    home = tmp_path_factory.mktemp("one")
    with running_sandbox(home) as server, sandbox_client(server.url) as http:
        yield http


def submit(http: httpx.Client, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
    """The accepted submit's JSON."""
    answer = http.post(f"https://queue.fal.run/{endpoint}", json=body)
    assert answer.status_code == 200, answer.text
    accepted: dict[str, Any] = answer.json()
    return accepted


def finish(http: httpx.Client, accepted: dict[str, Any], seconds: float = 20) -> httpx.Response:
    """Poll until COMPLETED, then the answer of the result address, whatever its status."""

    def is_over() -> bool:
        status = http.get(accepted["status_url"]).json()
        return bool(status["status"] == "COMPLETED")

    wait_until(is_over, seconds)
    return http.get(accepted["response_url"])


def buy(http: httpx.Client, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
    """Submit, wait and read a result that must be good."""
    answer = finish(http, submit(http, endpoint, body))
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def upload(http: httpx.Client, data: bytes, name: str, media_type: str) -> str:
    """A file in the sandbox's storage; its URL."""
    headers = {"Content-Type": media_type, "X-Fal-File-Name": name}
    answer = http.post("https://v3.fal.media/files/upload", content=data, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_url"])


def wait_until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        pause.wait(0.02)


def png(width: int = 320, height: int = 320) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 60, 40)).save(out, "PNG")
    return out.getvalue()


def training_zip(images: int = 5) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for index in range(images):
            archive.writestr(f"{index:02}.png", png())
            archive.writestr(f"{index:02}.txt", "MEIKOB_01 on a pier")
    return out.getvalue()


def clips_zip(clips: int = 4) -> bytes:
    """Clips of six frames with captions, as trainers of videos take them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for index in range(clips):
            archive.writestr(f"{index:02}.mp4", small_clip())
            archive.writestr(f"{index:02}.txt", "MEIKOB_01 walks on a pier")
    return out.getvalue()


@functools.cache
def small_clip() -> bytes:
    """An MP4 of six frames, 64 pixels square, that grow redder."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=16, options={"qscale": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for shade in range(6):
            picture = Image.new("RGB", (64, 64), (40 * shade, 90, 120))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return out.getvalue()
