"""The loopback server behind a local store's links, spoken to as a stranger would."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from providers.blobs.link_server import LinkServer
from providers.blobs.local import LocalBlobStore

HELLO = b"a red scarf on a wet pier"
HELLO_SHA256 = hashlib.sha256(HELLO).hexdigest()
LIMIT = 1000


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


@pytest.fixture
def server(store: LocalBlobStore) -> Iterator[LinkServer]:
    server = LinkServer(store, max_put_bytes=LIMIT)
    yield server
    server.close()


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield client


def test_it_listens_on_loopback_only(server: LinkServer) -> None:
    assert urlsplit(server.url).hostname == "127.0.0.1"


def test_head_tells_of_the_file_without_sending_it(
    server: LinkServer, store: LocalBlobStore, http: httpx.Client
) -> None:
    store.put_bytes(HELLO, "image/png")
    link = server.link("GET", HELLO_SHA256, 60)
    for _ in range(2):  # over one connection: no stray body is left on it
        answer = http.head(link)
        assert answer.status_code == 200
        assert answer.headers["content-length"] == str(len(HELLO))
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["etag"] == f'"{HELLO_SHA256}"'
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_range_of_an_older_file_is_answered_with_the_whole(
    server: LinkServer, store: LocalBlobStore, http: httpx.Client
) -> None:
    store.put_bytes(HELLO, "image/png")
    link = server.link("GET", HELLO_SHA256, 60)
    part = http.get(link, headers={"Range": "bytes=-4", "If-Range": f'"{HELLO_SHA256}"'})
    assert (part.status_code, part.content) == (206, b"pier")
    whole = http.get(link, headers={"Range": "bytes=-4", "If-Range": '"another"'})
    assert (whole.status_code, whole.content) == (200, HELLO)


def test_a_file_as_large_as_the_limit_is_taken_and_one_byte_more_is_not(
    server: LinkServer, store: LocalBlobStore, http: httpx.Client
) -> None:
    for size, status in ((LIMIT, 200), (LIMIT + 1, 413), (40 * LIMIT * LIMIT, 413)):
        data = b"x" * size
        sha256 = hashlib.sha256(data).hexdigest()
        assert http.put(server.link("PUT", sha256, 60), content=data).status_code == status
        assert store.has(sha256) == (status == 200)


def test_a_file_of_unknown_length_is_refused(server: LinkServer, store: LocalBlobStore, http: httpx.Client) -> None:
    answer = http.put(server.link("PUT", HELLO_SHA256, 60), content=iter([HELLO]))
    assert answer.status_code == 411
    assert not store.has(HELLO_SHA256)


def test_a_refused_sender_hears_why_even_while_still_sending(server: LinkServer, http: httpx.Client) -> None:
    link = server.link("PUT", HELLO_SHA256, -1)
    answer = http.put(link, content=os.urandom(4 * 1024 * 1024))
    assert (answer.status_code, "expired" in answer.text) == (403, True)


def test_a_sender_that_goes_away_leaves_nothing(server: LinkServer, store: LocalBlobStore) -> None:
    address = urlsplit(server.link("PUT", HELLO_SHA256, 60))
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=20) as connection:
        head = f"PUT {address.path}?{address.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(HELLO)}\r\n\r\n"
        connection.sendall(head.encode() + HELLO[:5])
        unfinished = store.root / "unfinished"
        wait_until(lambda: unfinished.exists() and any(unfinished.iterdir()))
    wait_until(lambda: not any(unfinished.iterdir()))
    assert list(store.digests()) == []


def test_a_store_that_cannot_write_answers_503(server: LinkServer, store: LocalBlobStore, http: httpx.Client) -> None:
    (store.root / "unfinished").write_text("in the way")
    answer = http.put(server.link("PUT", HELLO_SHA256, 60), content=HELLO)
    assert answer.status_code == 503


def test_other_methods_and_nonsense_get_an_answer(server: LinkServer, http: httpx.Client) -> None:
    link = server.link("GET", HELLO_SHA256, 60)
    for method in ("DELETE", "POST", "PATCH", "OPTIONS"):
        assert http.request(method, link).status_code == 501
    assert http.get(server.url + "/").status_code == 403


def test_a_closed_store_serves_again_when_a_link_is_asked_for(store: LocalBlobStore, http: httpx.Client) -> None:
    store.put_bytes(HELLO, "text/plain")
    first = store.presign_get(HELLO_SHA256, timedelta(minutes=1))
    store.close()
    with pytest.raises(httpx.ConnectError):
        http.get(first)
    try:
        assert http.get(store.presign_get(HELLO_SHA256, timedelta(minutes=1))).content == HELLO
    finally:
        store.close()
    store.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look every few milliseconds, for at most ten seconds."""
    deadline, pause = time.monotonic() + 10, threading.Event()
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about in ten seconds"
        pause.wait(0.01)
