"""One suite over both blob stores: a folder of this machine, and a real S3 server."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from pydantic import SecretStr

from domain.errors import BadInput, NotConfigured, Unavailable
from providers.blobs.local import SWEEP_AFTER_SECONDS, LocalBlobStore
from providers.blobs.naming import put_headers
from providers.blobs.opening import open_blob_store
from providers.blobs.s3 import S3BlobStore
from providers.blobs.s3_client import named_certificates
from providers.ports import BlobStore
from providers.settings import Settings
from tests.contract.object_store_server import ObjectStoreServer, running_object_store

HELLO = b"a red scarf on a wet pier"
HELLO_SHA256 = hashlib.sha256(HELLO).hexdigest()
ABSENT_SHA256 = hashlib.sha256(b"never stored").hexdigest()
MINUTE = timedelta(minutes=1)
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def object_store() -> Iterator[ObjectStoreServer]:
    with running_object_store() as server:
        yield server


@pytest.fixture(scope="module")
def bucket(object_store: ObjectStoreServer) -> str:
    return object_store.new_bucket()


@pytest.fixture
def s3_credentials(object_store: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in object_store.environ.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    """A new, empty store."""
    if request.param == "local":
        local = LocalBlobStore(tmp_path / "blobs")
        yield local
        local.close()
        return
    yield new_s3_store(request, tmp_path / "cache")


@pytest.fixture
def s3(request: pytest.FixtureRequest, tmp_path: Path) -> S3BlobStore:
    return new_s3_store(request, tmp_path / "cache")


def new_s3_store(request: pytest.FixtureRequest, cache: Path) -> S3BlobStore:
    server: ObjectStoreServer = request.getfixturevalue("object_store")
    request.getfixturevalue("s3_credentials")
    bucket: str = request.getfixturevalue("bucket")
    prefix = f"seasons/{secrets.token_hex(4)}"
    return S3BlobStore(
        bucket, prefix, cache, endpoint_url=server.endpoint_url, region="auto", in_parts_from_bytes=8 * MIB
    )


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield client


# --- bytes in, bytes out ---


def test_what_is_put_is_read_back_under_its_digest(store: BlobStore) -> None:
    assert store.put_bytes(HELLO, "text/plain") == HELLO_SHA256
    assert store.has(HELLO_SHA256)
    assert store.size_bytes(HELLO_SHA256) == len(HELLO)
    assert store.read(HELLO_SHA256) == HELLO
    assert store.local_path(HELLO_SHA256).read_bytes() == HELLO
    with store.open(HELLO_SHA256) as file:
        file.seek(2)
        assert file.read(3) == b"red"


def test_a_file_is_put_and_stays_where_it_is(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "clip – 1.mp4"
    path.write_bytes(HELLO)
    assert store.put_file(path, "video/mp4") == HELLO_SHA256
    assert path.read_bytes() == HELLO
    assert store.read(HELLO_SHA256) == HELLO


def test_an_empty_file_can_be_stored_and_read_by_a_link(store: BlobStore, http: httpx.Client) -> None:
    empty = store.put_bytes(b"", "text/plain")
    assert store.read(empty) == b""
    answer = http.get(store.presign_get(empty, MINUTE))
    assert (answer.status_code, answer.content) == (200, b"")


def test_equal_bytes_are_stored_once(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "same"
    path.write_bytes(HELLO)
    store.put_bytes(HELLO, "text/plain")
    store.put_file(path, "text/plain")
    other = store.put_bytes(b"another", "text/plain")
    assert sorted(store.digests()) == sorted([HELLO_SHA256, other])


def test_a_new_store_holds_nothing(store: BlobStore) -> None:
    assert list(store.digests()) == []
    assert not store.has(ABSENT_SHA256)


def test_many_writers_of_the_same_bytes_all_succeed(store: BlobStore, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB)
    path = tmp_path / "same"
    path.write_bytes(data)
    start = threading.Barrier(8)

    def put(_: int) -> str:
        start.wait(20)
        return store.put_file(path, "video/mp4")

    with ThreadPoolExecutor(8) as writers:
        answers = set(writers.map(put, range(8)))
    assert answers == {hashlib.sha256(data).hexdigest()} == set(store.digests())
    assert store.read(answers.pop()) == data


def test_a_large_file_takes_little_memory(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(os.urandom(MIB) * 20)
    store.put_bytes(HELLO, "text/plain")  # opens what is opened once
    tracemalloc.start()
    try:
        sha256 = store.put_file(path, "video/mp4")
        digest = hashlib.sha256()
        with store.open(sha256) as file:
            while chunk := file.read(MIB):
                digest.update(chunk)
        assert digest.hexdigest() == sha256
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert store.size_bytes(sha256) == 20 * MIB
    assert peak < 8 * MIB


def test_deleting_forgets_the_bytes_and_may_be_repeated(store: BlobStore) -> None:
    store.put_bytes(HELLO, "text/plain")
    store.delete(HELLO_SHA256)
    store.delete(HELLO_SHA256)
    assert not store.has(HELLO_SHA256)
    assert list(store.digests()) == []
    with pytest.raises(BadInput):
        store.read(HELLO_SHA256)


@pytest.mark.parametrize("operation", ["open", "read", "local_path", "size_bytes"])
def test_a_missing_digest_is_named_in_the_error(store: BlobStore, operation: str) -> None:
    with pytest.raises(BadInput, match=ABSENT_SHA256):
        getattr(store, operation)(ABSENT_SHA256)


@pytest.mark.parametrize("bad", ["", "../" * 8 + "etc/passwd", HELLO_SHA256.upper(), HELLO_SHA256[:-1], "é" * 64])
def test_what_is_no_digest_is_refused_everywhere(store: BlobStore, bad: str) -> None:
    for operation in (store.open, store.read, store.local_path, store.has, store.size_bytes, store.delete, store.url):
        with pytest.raises(BadInput, match="64 lower-case hex"):
            operation(bad)
    with pytest.raises(BadInput, match="64 lower-case hex"):
        store.presign_get(bad, MINUTE)
    with pytest.raises(BadInput, match="64 lower-case hex"):
        store.presign_put(bad, "text/plain", MINUTE)


def test_a_file_that_is_not_there_is_refused_with_one_sentence(store: BlobStore, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(BadInput, match="cannot be stored"):
            store.put_file(path, "video/mp4")


def test_the_stable_address_holds_the_digest_and_no_secret(store: BlobStore) -> None:
    url = store.url(HELLO_SHA256)
    assert url.startswith(("file:///", "s3://"))
    assert url.endswith(HELLO_SHA256)
    assert "?" not in url


# --- links to read ---


def test_a_link_is_read_by_plain_http_with_its_media_type(store: BlobStore, http: httpx.Client) -> None:
    store.put_bytes(HELLO, "text/plain; charset=utf-8")
    answer = http.get(store.presign_get(HELLO_SHA256, MINUTE))
    assert (answer.status_code, answer.content) == (200, HELLO)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("media_type", ["bild/größe", "text/plain\r\nX-Injected: yes", "", "not a type"])
def test_a_media_type_that_no_header_can_carry_does_no_harm(
    store: BlobStore, http: httpx.Client, media_type: str
) -> None:
    store.put_bytes(HELLO, media_type)
    answer = http.get(store.presign_get(HELLO_SHA256, MINUTE))
    assert answer.content == HELLO
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "x-injected" not in answer.headers


def test_part_of_a_file_is_read_by_range(store: BlobStore, http: httpx.Client) -> None:
    store.put_bytes(HELLO, "text/plain")
    link = store.presign_get(HELLO_SHA256, MINUTE)
    answer = http.get(link, headers={"Range": "bytes=2-4"})
    assert (answer.status_code, answer.content) == (206, b"red")
    assert answer.headers["content-range"] == f"bytes 2-4/{len(HELLO)}"
    assert http.get(link, headers={"Range": f"bytes={len(HELLO)}-"}).status_code == 416


def test_a_link_to_a_missing_file_answers_404(store: BlobStore, http: httpx.Client) -> None:
    assert http.get(store.presign_get(ABSENT_SHA256, MINUTE)).status_code == 404


def test_an_expired_link_is_refused(store: BlobStore, http: httpx.Client) -> None:
    store.put_bytes(HELLO, "text/plain")
    for valid_for in (timedelta(seconds=-1), timedelta(0)):
        answer = http.get(store.presign_get(HELLO_SHA256, valid_for))
        assert answer.status_code == 403
        assert HELLO not in answer.content


def test_a_link_cannot_be_asked_to_live_for_more_than_a_week(store: BlobStore) -> None:
    store.presign_get(HELLO_SHA256, timedelta(days=7))
    with pytest.raises(BadInput, match="7 days"):
        store.presign_get(HELLO_SHA256, timedelta(days=7, seconds=1))


def test_a_link_for_one_file_opens_no_other(store: BlobStore, http: httpx.Client) -> None:
    store.put_bytes(HELLO, "text/plain")
    other = store.put_bytes(b"another", "text/plain")
    parts = urlsplit(store.presign_get(HELLO_SHA256, MINUTE))
    path = parts.path.replace(HELLO_SHA256, other).replace(f"/{HELLO_SHA256[:2]}/", f"/{other[:2]}/")
    assert http.get(urlunsplit(parts._replace(path=path))).status_code == 403
    assert http.get(urlunsplit(parts._replace(query=""))).status_code in (400, 403)


def test_a_link_whose_life_was_lengthened_is_refused(store: BlobStore, http: httpx.Client) -> None:
    store.put_bytes(HELLO, "text/plain")
    link = httpx.URL(store.presign_get(HELLO_SHA256, MINUTE))
    name = "expires" if "expires" in link.params else "X-Amz-Expires"
    longer = link.copy_set_param(name, str(int(link.params[name]) + 3600))
    assert http.get(link).status_code == 200
    assert http.get(longer).status_code == 403


def test_a_link_to_read_neither_writes_nor_deletes(store: BlobStore, http: httpx.Client) -> None:
    store.put_bytes(HELLO, "text/plain")
    link = store.presign_get(HELLO_SHA256, MINUTE)
    assert http.put(link, content=HELLO, headers=put_headers(HELLO_SHA256, "text/plain")).status_code == 403
    assert http.delete(link).status_code >= 400
    assert store.has(HELLO_SHA256)


# --- links to write ---


def test_a_link_takes_exactly_the_bytes_of_its_digest(store: BlobStore, http: httpx.Client) -> None:
    link = store.presign_put(HELLO_SHA256, "image/png", MINUTE)
    headers = put_headers(HELLO_SHA256, "image/png")
    refused = http.put(link, content=HELLO[::-1], headers=headers)
    assert refused.status_code in (400, 422)
    assert not store.has(HELLO_SHA256)
    for _ in range(2):
        assert http.put(link, content=HELLO, headers=headers).status_code == 200
    assert store.read(HELLO_SHA256) == HELLO
    assert http.get(store.presign_get(HELLO_SHA256, MINUTE)).headers["content-type"] == "image/png"


def test_a_link_to_write_does_not_read(store: BlobStore, http: httpx.Client) -> None:
    store.put_bytes(HELLO, "text/plain")
    assert http.get(store.presign_put(HELLO_SHA256, "text/plain", MINUTE)).status_code == 403


def test_an_expired_link_takes_nothing(store: BlobStore, http: httpx.Client) -> None:
    link = store.presign_put(HELLO_SHA256, "text/plain", timedelta(seconds=-1))
    answer = http.put(link, content=HELLO, headers=put_headers(HELLO_SHA256, "text/plain"))
    assert answer.status_code == 403
    assert not store.has(HELLO_SHA256)


def test_a_link_for_one_file_takes_no_other(store: BlobStore, http: httpx.Client) -> None:
    other = hashlib.sha256(b"another").hexdigest()
    parts = urlsplit(store.presign_put(HELLO_SHA256, "text/plain", MINUTE))
    path = parts.path.replace(HELLO_SHA256, other).replace(f"/{HELLO_SHA256[:2]}/", f"/{other[:2]}/")
    answer = http.put(
        urlunsplit(parts._replace(path=path)), content=b"another", headers=put_headers(other, "text/plain")
    )
    assert answer.status_code == 403
    assert not store.has(other)


# --- the folder ---


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


# --- the bucket ---


def test_a_file_in_several_parts_arrives_whole(
    s3: S3BlobStore, tmp_path: Path, object_store: ObjectStoreServer
) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(os.urandom(20 * MIB))
    sha256 = s3.put_file(path, "video/mp4")
    address = urlsplit(s3.url(sha256))
    answer = object_store.client().get_object(Bucket=address.netloc, Key=address.path[1:])
    assert hashlib.file_digest(io.BytesIO(answer["Body"].read()), "sha256").hexdigest() == sha256
    assert answer["ContentType"] == "video/mp4"
    assert answer["ETag"].strip('"').endswith("-2"), "the ETag of an object in two parts"


def test_a_damaged_object_is_never_handed_out(
    request: pytest.FixtureRequest, s3: S3BlobStore, tmp_path: Path, object_store: ObjectStoreServer
) -> None:
    s3.put_bytes(HELLO, "text/plain")
    address = urlsplit(s3.url(HELLO_SHA256))
    elsewhere = same_place_from_another_machine(s3, tmp_path, object_store)
    object_store.client().put_object(Bucket=address.netloc, Key=address.path[1:], Body=HELLO[:-1])
    with pytest.raises(BadInput, match="other bytes than its name says"):
        elsewhere.local_path(HELLO_SHA256)
    elsewhere.delete(HELLO_SHA256)
    elsewhere.put_bytes(HELLO, "text/plain")
    assert same_place_from_another_machine(s3, tmp_path / "third", object_store).read(HELLO_SHA256) == HELLO


def test_what_one_machine_put_another_reads(s3: S3BlobStore, tmp_path: Path, object_store: ObjectStoreServer) -> None:
    s3.put_bytes(HELLO, "text/plain")
    elsewhere = same_place_from_another_machine(s3, tmp_path, object_store)
    assert elsewhere.local_path(HELLO_SHA256).read_bytes() == HELLO
    assert list(elsewhere.digests()) == [HELLO_SHA256]


def same_place_from_another_machine(s3: S3BlobStore, folder: Path, server: ObjectStoreServer) -> S3BlobStore:
    address = urlsplit(s3.url(HELLO_SHA256))
    prefix = address.path.removesuffix(f"/{HELLO_SHA256[:2]}/{HELLO_SHA256}")
    return S3BlobStore(address.netloc, prefix, folder / "cache-2", endpoint_url=server.endpoint_url, region="auto")


@pytest.mark.usefixtures("s3_credentials")
@pytest.mark.parametrize("named_by", ["our setting", "AWS_ENDPOINT_URL_S3"])
def test_a_bucket_on_loopback_is_reached_past_any_proxy(
    named_by: str, tmp_path: Path, object_store: ObjectStoreServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    endpoint_url: str | None = object_store.endpoint_url
    if named_by == "AWS_ENDPOINT_URL_S3":
        monkeypatch.setenv(named_by, object_store.endpoint_url)
        endpoint_url = None
    store = S3BlobStore(bucket, "proxied", tmp_path, endpoint_url=endpoint_url, region="auto")
    assert not store.has(ABSENT_SHA256)


def test_the_machines_own_certificates_count_only_when_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert named_certificates() is None
    (tmp_path / "ca.pem").write_text("certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert named_certificates() == str(tmp_path / "ca.pem")


def test_without_credentials_one_sentence_says_what_to_set(
    tmp_path: Path, object_store: ObjectStoreServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = S3BlobStore(bucket, "", tmp_path, endpoint_url=object_store.endpoint_url, region="auto")
    with pytest.raises(NotConfigured, match="AWS_ACCESS_KEY_ID"):
        store.has(HELLO_SHA256)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(NotConfigured, match="nobody"):
        store.has(HELLO_SHA256)


@pytest.mark.usefixtures("s3_credentials")
def test_a_missing_bucket_is_named(tmp_path: Path, object_store: ObjectStoreServer) -> None:
    store = S3BlobStore("no-such-bucket", "", tmp_path, endpoint_url=object_store.endpoint_url, region="auto")
    for ask in (store.has, store.read):
        with pytest.raises(NotConfigured, match="no-such-bucket does not exist"):
            ask(HELLO_SHA256)


@pytest.mark.usefixtures("s3_credentials")
def test_a_wrong_secret_is_not_configured_and_stays_secret(
    tmp_path: Path, object_store: ObjectStoreServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    store = S3BlobStore(bucket, "", tmp_path, endpoint_url=object_store.endpoint_url, region="auto")
    with pytest.raises(NotConfigured, match="closed to these credentials") as caught:
        store.put_bytes(HELLO, "text/plain")
    assert "not-the-secret" not in str(caught.value)


@pytest.mark.usefixtures("s3_credentials")
def test_a_server_that_is_not_there_may_be_tried_again(tmp_path: Path, bucket: str) -> None:
    store = S3BlobStore(bucket, "", tmp_path, endpoint_url="http://127.0.0.1:9", region="auto")
    with pytest.raises(Unavailable, match="tried again"):
        store.has(HELLO_SHA256)


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
