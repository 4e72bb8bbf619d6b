"""What holds for the bucket alone, on a real S3 server: credentials, parts, damage, proxies."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from domain.errors import BadInput, NotConfigured, Unavailable
from providers.blobs.s3 import S3BlobStore
from providers.blobs.s3_client import named_certificates
from tests.contract.object_store_server import ObjectStoreServer

HELLO = b"a red scarf on a wet pier"
HELLO_SHA256 = hashlib.sha256(HELLO).hexdigest()
ABSENT_SHA256 = hashlib.sha256(b"never stored").hexdigest()
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def bucket(object_store: ObjectStoreServer) -> str:
    return object_store.new_bucket()


@pytest.fixture
def s3_credentials(object_store: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in object_store.environ.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(object_store: ObjectStoreServer, bucket: str, s3_credentials: None, tmp_path: Path) -> S3BlobStore:
    """A new, empty store in which 8 MiB are many."""
    prefix = f"seasons/{secrets.token_hex(4)}"
    url = object_store.endpoint_url
    return S3BlobStore(bucket, prefix, tmp_path / "cache", endpoint_url=url, region="auto", in_parts_from_bytes=8 * MIB)


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
