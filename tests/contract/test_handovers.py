"""One suite over every handover: what a machine that holds none of our keys reads from us and leaves for us."""

from __future__ import annotations

import hashlib
import io
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from domain.errors import BadInput, NotConfigured, ResultExpired
from domain.jobs import BlobRef
from providers.blobs.handover import LocalHandover
from providers.blobs.s3 import S3BlobStore
from providers.blobs.s3_handover import StoreHandover
from providers.sandbox.handover import SandboxHandover
from providers.sandbox.places import RENTED_HOSTS
from providers.sandbox.transport import SandboxTransport
from providers.trainers.worker_web import Web
from providers.vendor_ports import Handover
from tests.contract.object_store_server import ObjectStoreServer
from tests.contract.sandbox_fixtures import running_sandbox

DATA = b"a training set"
REF = BlobRef(sha256=hashlib.sha256(DATA).hexdigest(), media_type="application/zip", file_name="the set/mei v2.zip")
HOUR = timedelta(hours=1)


@contextmanager
def _in_a_bucket(folder: Path, request: pytest.FixtureRequest) -> Iterator[Handover]:
    server: ObjectStoreServer = request.getfixturevalue("object_store")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environ.items():
            patch.setenv(name, value)
        store = S3BlobStore(
            server.new_bucket(), "season", folder / "cache", endpoint_url=server.endpoint_url, region="auto"
        )
        store.put_bytes(DATA, "application/zip")
        yield StoreHandover(store)


@contextmanager
def _in_the_sandbox(folder: Path, _request: pytest.FixtureRequest) -> Iterator[Handover]:
    with (
        running_sandbox(folder) as server,
        httpx.Client(transport=SandboxTransport(server.url, hosts=RENTED_HOSTS)) as http,
    ):
        yield SandboxHandover(http)


@contextmanager
def _on_this_disk(folder: Path, _request: pytest.FixtureRequest) -> Iterator[Handover]:
    yield LocalHandover(folder / "handover", here=True)


@pytest.fixture(scope="module", params=[_in_a_bucket, _in_the_sandbox, _on_this_disk], ids=lambda make: make.__name__)
def handover(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handover]:
    with request.param(tmp_path_factory.mktemp("handover"), request) as opened:
        yield opened


@pytest.fixture
def set_path(tmp_path: Path) -> Path:
    path = tmp_path / "bytes"
    path.write_bytes(DATA)
    return path


def test_a_machine_reads_our_bytes_by_a_link_that_ends_with_their_name(handover: Handover, set_path: Path) -> None:
    for _ in range(2):
        link = handover.read_link(set_path, REF, HOUR)
        assert urlsplit(link).path.endswith("/mei_v2.zip")
        assert Web().read(link) == DATA


def test_what_a_machine_leaves_by_its_link_is_read_fetched_and_forgotten(handover: Handover) -> None:
    link, back = handover.write_link("box-1", "run.log", HOUR), handover.read_back_link("box-1", "run.log", HOUR)
    assert handover.read("box-1", "run.log") is None
    assert Web().read(back) is None
    with pytest.raises(ResultExpired):
        handover.fetch("box-1", "run.log", io.BytesIO())
    for text in (b"first", b"second, and longer"):
        Web().put(link, text, ())
    fetched = io.BytesIO()
    handover.fetch("box-1", "run.log", fetched)
    assert (fetched.getvalue(), handover.read("box-1", "run.log", 6)) == (b"second, and longer", b"second")
    assert Web().read(back) == b"second, and longer"
    handover.delete("box-1")
    handover.delete("box-1")
    assert handover.read("box-1", "run.log") is None


@pytest.mark.parametrize(("box", "name"), [("../box", "a"), ("box", "../a"), ("", "a"), ("box", ""), ("box", ".a")])
def test_no_name_leads_elsewhere(handover: Handover, box: str, name: str) -> None:
    for ask in (handover.read, lambda box, name: handover.write_link(box, name, HOUR)):
        with pytest.raises(BadInput):
            ask(box, name)


def test_a_link_is_good_for_its_own_method_and_file_alone(handover: Handover) -> None:
    link = handover.write_link("box-2", "lora.safetensors", HOUR)
    if link.startswith("file:"):
        return  # whoever is on this disk needs no link
    Web().put(link, b"weights", ())
    for url in (link, link.replace("lora.safetensors", "status.json"), link.split("?", maxsplit=1)[0]):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url)
        refused.value.close()
        assert refused.value.code in (400, 403, 404)
    assert Web().read(handover.read_back_link("box-2", "lora.safetensors", timedelta(seconds=-9))) is None


def test_no_machine_elsewhere_is_given_a_link_to_this_disk(tmp_path: Path, set_path: Path) -> None:
    handover = LocalHandover(tmp_path / "here")
    with pytest.raises(NotConfigured, match="ONMODEL_STORAGE_URL=s3://"):
        handover.read_link(set_path, REF, HOUR)
    with pytest.raises(NotConfigured, match="ONMODEL_STORAGE_URL=s3://"):
        handover.write_link("box", "run.log", HOUR)
    assert handover.read("box", "run.log") is None
