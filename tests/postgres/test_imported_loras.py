"""Importing LoRAs that are given: as a file, by a web address, or by their id."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from domain.characters import LoraStatus
from domain.errors import BadInput
from tasks.importing import import_season
from tests.ports_for_tests import PortsForTests
from tests.postgres.import_material import Write, assert_nothing_is_there, mei_with


def test_a_lora_given_as_a_file_is_kept_by_its_digest(ports: PortsForTests, write: Write, material: Path) -> None:
    season_id = import_season(ports, write(characters=mei_with(lora="mei.safetensors"), slots=[]))
    lora = ports.cast.of_season(season_id)[0].lora
    assert ports.blobs.read(lora.removeprefix("sha256:")) == (material / "mei.safetensors").read_bytes()


@pytest.fixture
def web() -> Iterator[str]:
    """A web server on this machine that has one LoRA, at /mei.safetensors."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_there = self.path.startswith("/mei.safetensors")
            body = b"weights from the web" if is_there else b""
            self.send_response(200 if is_there else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_lora_given_by_its_address_is_fetched(ports: PortsForTests, write: Write, web: str) -> None:
    season_id = import_season(ports, write(characters=mei_with(lora=f"{web}/mei.safetensors?token=x"), slots=[]))
    lora = ports.cast.of_season(season_id)[0].lora
    assert ports.blobs.read(lora.removeprefix("sha256:")) == b"weights from the web"
    assert list((ports.settings.home / "scratch").iterdir()) == []


def test_an_address_with_nothing_there_leaves_nothing_behind_and_shows_no_token(
    bare: PortsForTests, write: Write, web: str
) -> None:
    two = [
        {**mei_with(lora=f"{web}/mei.safetensors")[0], "name": "Mei"},
        {**mei_with(lora=f"{web}/gone?token=hunter2")[0], "name": "Rui"},
    ]
    with pytest.raises(BadInput, match=r"characters\[1\]\.lora: the web address answers 404") as refused:
        import_season(bare, write(characters=two, slots=[]))
    assert "hunter2" not in refused.value.message
    assert_nothing_is_there(bare)
    with pytest.raises(BadInput, match="cannot be reached"):
        import_season(bare, write(characters=mei_with(lora="http://127.0.0.1:1/x"), slots=[]))
    assert_nothing_is_there(bare)


def test_a_lora_given_by_its_id_must_have_a_file_and_the_same_base(ports: PortsForTests, write: Write) -> None:
    season_id = import_season(ports, write())
    mei = ports.cast.named(season_id, "Mei Kobayashi")
    lora = ports.loras.create(mei, "flux-1-dev", trainer="t", training_set_id=None, images_count=0, created_by="test")
    with pytest.raises(BadInput, match="has no file yet; wait until it is trained"):
        import_season(ports, write(characters=mei_with(lora=lora.id), slots=[]))
    digest = ports.blobs.put_bytes(b"trained", "application/octet-stream")
    ports.loras.keep_weights(
        lora.id, trainer="t", sha256=digest, lora_url="file:///x", config_url=None, request_id=None, cost_usd=Decimal(2)
    )
    ports.loras.set_status(lora.id, LoraStatus.READY)
    with pytest.raises(BadInput, match=f"LoRA {lora.id} is one of flux-1-dev; write that in base_models"):
        import_season(ports, write(characters=mei_with(lora=lora.id, base_models=["wan-22-t2v-a14b"]), slots=[]))
    import_season(ports, write(characters=mei_with(lora=lora.id), slots=[]))
    assert ports.cast.get(mei.id).lora == f"sha256:{digest}"
