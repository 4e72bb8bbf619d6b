"""What holds for the folder alone, and which store the settings choose."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from domain.errors import BadInput, NotConfigured
from providers.blobs.local import SWEEP_AFTER_SECONDS, LocalBlobStore
from providers.blobs.opening import open_blob_store
from providers.settings import Settings

HELLO = b"a red scarf on a wet pier"
HELLO_SHA256 = hashlib.sha256(HELLO).hexdigest()
MINUTE = timedelta(minutes=1)


def test_a_writer_that_is_killed_leaves_nothing_to_be_seen(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    code = (
        "import sys; from pathlib import Path; from providers.blobs.local import LocalBlobStore as Store; "
        "Store(Path(sys.argv[1])).put_chunks(iter(lambda: sys.stdin.buffer.read(65536), b''), 'video/mp4')"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(root)], cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, bufsize=0
    )
    assert writer.stdin is not None
    with writer.stdin:
        writer.stdin.write(HELLO * 100_000)  # more than a pipe holds, so part of it has been read and written
        writer.kill()
        writer.wait(20)
    store = LocalBlobStore(root)
    assert list(store.digests()) == []
    leftovers = list((root / "unfinished").iterdir())
    assert len(leftovers) == 1

    sha256 = store.put_bytes(HELLO, "text/plain")
    assert leftovers[0].exists(), "it may still be written to"
    long_ago = leftovers[0].stat().st_mtime - SWEEP_AFTER_SECONDS - 60
    os.utime(leftovers[0], (long_ago, long_ago))
    store.put_bytes(b"another", "text/plain")
    assert list((root / "unfinished").iterdir()) == []
    assert store.has(sha256)


def test_a_folder_that_cannot_be_used_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = LocalBlobStore(tmp_path / "file" / "blobs")
    with pytest.raises(NotConfigured, match="ONMODEL_STORAGE_URL"):
        store.put_bytes(HELLO, "text/plain")
    with pytest.raises(NotConfigured, match=r"links\.key"):
        store.presign_get(HELLO_SHA256, MINUTE)


def test_a_new_folder_is_closed_to_other_users(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    store.put_bytes(HELLO, "text/plain")
    assert store.root.stat().st_mode & 0o777 == 0o700


# --- the choice ---


def test_the_storage_address_chooses_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "blobs of ours"
    local = open_blob_store(Settings(home=tmp_path, storage_url=folder.as_uri()))
    assert isinstance(local, LocalBlobStore)
    assert local.root == folder
    assert not folder.exists(), "opening alone makes nothing"
    remote = open_blob_store(
        Settings(home=tmp_path, storage_url="s3://bucket/a/b/", database_url=SecretStr("postgresql://"))
    )
    assert remote.url(HELLO_SHA256) == f"s3://bucket/a/b/{HELLO_SHA256[:2]}/{HELLO_SHA256}"
    with pytest.raises(BadInput, match="ONMODEL_STORAGE_URL"):
        open_blob_store(Settings(home=tmp_path, storage_url="ftp://bucket"))


def test_a_local_store_loads_no_boto3(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from providers.settings import Settings; "
        "from providers.blobs.opening import open_blob_store as opened; "
        "opened(Settings(home=Path('/'), storage_url=sys.argv[1])).put_bytes(b'x', 'text/plain'); "
        "sys.exit('boto3' in sys.modules or 'http.server' in sys.modules)"
    )
    arguments = [sys.executable, "-c", code, (tmp_path / "blobs").as_uri()]
    assert subprocess.run(arguments, cwd=Path(__file__).parents[2], check=False, timeout=60).returncode == 0
