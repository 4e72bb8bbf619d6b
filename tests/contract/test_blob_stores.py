"""One suite over both blob stores: a folder of this machine, and a bucket of a real S3 server."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

from domain.errors import BadInput
from providers.blobs.local import LocalBlobStore
from providers.blobs.naming import put_headers
from providers.blobs.s3 import S3BlobStore
from providers.ports import BlobStore
from tests.contract.object_store_server import ObjectStoreServer

HELLO = b"a red scarf on a wet pier"
HELLO_SHA256 = hashlib.sha256(HELLO).hexdigest()
ABSENT_SHA256 = hashlib.sha256(b"never stored").hexdigest()
MINUTE = timedelta(minutes=1)
MIB = 1024 * 1024


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


def new_s3_store(request: pytest.FixtureRequest, cache: Path, **how: timedelta) -> S3BlobStore:
    server: ObjectStoreServer = request.getfixturevalue("object_store")
    request.getfixturevalue("s3_credentials")
    bucket: str = request.getfixturevalue("bucket")
    prefix = f"seasons/{secrets.token_hex(4)}"
    return S3BlobStore(
        bucket, prefix, cache, endpoint_url=server.endpoint_url, region="auto", in_parts_from_bytes=8 * MIB, **how
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


# --- how long ago ---


def test_the_store_knows_when_bytes_were_put_and_lists_those_that_are_older(store: BlobStore) -> None:
    assert store.stored_at(HELLO_SHA256) is None
    store.put_bytes(HELLO, "text/plain")
    stored_at = store.stored_at(HELLO_SHA256)
    assert stored_at is not None
    assert abs(datetime.now(UTC) - stored_at) < MINUTE
    assert list(store.digests_older_than(stored_at + MINUTE)) == [HELLO_SHA256]
    assert list(store.digests_older_than(stored_at - MINUTE)) == []
    store.delete(HELLO_SHA256)
    assert store.stored_at(HELLO_SHA256) is None
    assert list(store.digests_older_than(stored_at + MINUTE)) == []


def test_the_store_knows_which_databases_use_it_and_counts_none_of_that_as_a_file(store: BlobStore) -> None:
    assert store.sharers() == frozenset()
    for mark in ("0a1b2c3d", "ffffffff", "0a1b2c3d"):
        store.share(mark)
    assert store.sharers() == {"0a1b2c3d", "ffffffff"}
    assert list(store.digests()) == []


def test_bytes_put_again_in_a_folder_after_half_a_day_count_as_put_now(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    store.put_bytes(HELLO, "text/plain")
    for hours, is_put_again in ((11, False), (13, True)):
        at = (datetime.now(UTC) - timedelta(hours=hours)).timestamp()
        os.utime(store.local_path(HELLO_SHA256), (at, at))
        path = tmp_path / "same"
        path.write_bytes(HELLO)
        store.put_file(path, "text/plain")
        stored_at = store.stored_at(HELLO_SHA256)
        assert stored_at is not None
        assert (datetime.now(UTC) - stored_at < MINUTE) is is_put_again


def test_bytes_put_again_in_a_bucket_get_a_new_date_and_keep_their_type(
    request: pytest.FixtureRequest, tmp_path: Path, http: httpx.Client
) -> None:
    store = new_s3_store(request, tmp_path / "cache", put_again_after=timedelta(0))
    store.put_bytes(HELLO, "image/png")
    first = store.stored_at(HELLO_SHA256)
    assert first is not None
    deadline = time.monotonic() + 20
    while True:  # the server's dates are whole seconds
        store.put_bytes(HELLO, "image/png")
        again = store.stored_at(HELLO_SHA256)
        assert again is not None
        if again > first:
            break
        assert time.monotonic() < deadline
        threading.Event().wait(0.1)
    answer = http.get(store.presign_get(HELLO_SHA256, MINUTE))
    assert (answer.content, answer.headers["content-type"]) == (HELLO, "image/png")


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
