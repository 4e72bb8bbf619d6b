"""Manifests and the files beside them, good and bad, the ports that import them, and what an import left behind."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from psycopg import sql

from tests.media_samples import make_clip
from tests.ports_for_tests import PortsForTests, new_database, settings_for_tests

TABLES = (
    "owners",
    "projects",
    "seasons",
    "slots",
    "clips",
    "characters",
    "character_clips",
    "character_images",
    "budgets",
)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad files, made once."""
    folder = tmp_path_factory.mktemp("material")
    good = make_clip(folder / "good.mp4", seconds=6, rate="8")
    make_clip(folder / "other.mp4", seconds=6, rate="8", size=(320, 240))
    (folder / "text.mp4").write_text("this is no film")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "cut.mp4").write_bytes(good.read_bytes()[:2000])
    (folder / "folder.mp4").mkdir()
    Image.new("RGB", (640, 640), "red").save(folder / "art.png")
    Image.new("RGB", (720, 640), "blue").save(folder / "sheet.webp")
    Image.new("RGB", (200, 200), "red").save(folder / "small.png")
    Image.new("RGB", (600, 600), "red").save(folder / "art.gif")
    (folder / "text.png").write_text("no picture")
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * (10 * 1024 * 1024 + 1))
    (folder / "bomb.png").write_bytes(_bomb())
    (folder / "mei.safetensors").write_bytes(b"weights of a lora")
    return folder


def _bomb() -> bytes:
    """A PNG of a few kilobytes that claims 40,000 × 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def bare_database(server_url: str) -> Iterator[str]:
    """One database for every test that must leave nothing in it."""
    with new_database(server_url) as url:
        yield url


@pytest.fixture
def bare(bare_database: str, tmp_path: Path) -> Iterator[PortsForTests]:
    opened = PortsForTests(settings_for_tests(tmp_path / "home", bare_database), {})
    yield opened
    opened.close()


@pytest.fixture
def ports(empty_database: str, tmp_path: Path) -> Iterator[PortsForTests]:
    opened = PortsForTests(settings_for_tests(tmp_path / "home", empty_database), {})
    yield opened
    opened.close()


def season_of(**fields: Any) -> dict[str, Any]:
    return {
        "season": "neon-harbor",
        "owner": "studio-a",
        "budget_usd": 60,
        "characters": [
            {"name": "Mei Kobayashi", "clips": ["good.mp4"], "images": ["art.png"], "references": ["sheet.webp"]},
            {"name": "Rui", "lora": "none", "references": ["art.png"]},
        ],
        "slots": [
            {"number": 1, "video": "good.mp4"},
            {"number": 6, "prompt": "@Mei Kobayashi runs", "scene_references": ["art.png"]},
        ],
        **fields,
    }


Write = Callable[..., Path]


@pytest.fixture
def write(material: Path, request: pytest.FixtureRequest) -> Iterator[Write]:
    """Writes a manifest beside the material."""
    written: list[Path] = []

    def write_one(**fields: Any) -> Path:
        path = material / f"{len(written)}-{abs(hash(request.node.name))}.yaml"
        path.write_text(yaml.safe_dump(season_of(**fields), sort_keys=False, allow_unicode=True))
        written.append(path)
        return path

    yield write_one
    for path in written:
        path.unlink()


def rows(ports: PortsForTests) -> dict[str, list[Any]]:
    """Everything an import may write, as it stands, but for the moment of the last import."""
    query = sql.SQL("SELECT to_jsonb(t) - 'updated_at' FROM {} AS t ORDER BY to_jsonb(t)::text")
    with ports.database.transaction() as db:
        return {table: db.execute(query.format(sql.Identifier(table))).fetchall() for table in TABLES}


def assert_nothing_is_there(ports: PortsForTests) -> None:
    assert all(not found for found in rows(ports).values())
    assert list(ports.blobs.digests()) == []
    scratch = ports.settings.home / "scratch"
    assert not scratch.exists() or list(scratch.iterdir()) == []


def mei_with(**fields: Any) -> list[dict[str, Any]]:
    return [{**season_of()["characters"][0], **fields}]
