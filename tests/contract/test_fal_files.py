"""Files to and from fal through the adapter: uploads by fal's own package, downloads that carry on where they broke."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import (
    JobFailed,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    Rejected,
    ResultExpired,
    Unavailable,
)
from domain.jobs import OutputFile
from providers.fal.files import MULTIPART_FROM_BYTES
from providers.fal.vendor import FalVendor
from tests.contract.fal_standin import KEY, LOCKED, ZIP, Answer, StandIn, fal_stand_in, vendor_at


@pytest.fixture
def fal() -> Iterator[StandIn]:
    with fal_stand_in() as server:
        yield server


@pytest.fixture
def vendor(fal: StandIn) -> Iterator[FalVendor]:
    with vendor_at(fal) as vendor:
        yield vendor


# --- uploads ---

TOKEN = {
    "token": "upload-token",
    "token_type": "Bearer",
    "base_url": "https://v3b.fal.media",
    "expires_at": "2999-01-01T00:00:00+00:00",
}


def test_an_upload_goes_through_fals_package_and_only_the_token_sees_the_key(
    fal: StandIn, vendor: FalVendor, tmp_path: Path
) -> None:
    path = tmp_path / "0123abcd"
    path.write_bytes(b"zip bytes")
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, TOKEN))
    fal.on("POST v3.fal.media/files/upload", Answer(200, {"access_url": "https://v3.fal.media/files/set.zip"}))
    for _ in range(2):
        assert vendor.upload(path, ZIP) == "https://v3.fal.media/files/set.zip"
    token, upload, again = fal.seen  # the token is asked for once
    assert token.headers["authorization"] == f"Key {KEY}"
    assert upload.headers["authorization"] == "Bearer upload-token"
    assert upload.headers["content-type"] == "application/zip"
    assert upload.headers["x-fal-file-name"] == "set.zip"
    assert upload.body == again.body == b"zip bytes"


def test_a_strange_file_name_cannot_break_out_of_its_header(fal: StandIn, vendor: FalVendor, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, TOKEN | {"expires_at": "2999-01-01T00:00:00"}))
    fal.on("POST v3.fal.media/files/upload", Answer(200, {"access_url": "https://v3.fal.media/f"}))
    vendor.upload(path, ZIP.model_copy(update={"file_name": "../ü\r\nX-Evil: 1.zip"}))
    assert fal.seen[1].headers["x-fal-file-name"] == "____X-Evil__1.zip"
    assert "x-evil" not in fal.seen[1].headers


def test_an_upload_that_fails_falls_back_to_the_second_store_without_the_key(
    fal: StandIn, vendor: FalVendor, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, TOKEN))
    fal.on("POST v3.fal.media/files/upload", Answer(500, {"detail": "oops"}))
    there = {"upload_url": "https://storage.googleapis.com/put", "file_url": "https://storage.googleapis.com/f"}
    fal.on("POST rest.fal.ai/storage/upload/initiate", Answer(200, there))
    fal.on("PUT storage.googleapis.com/put", Answer(200, {}))
    assert vendor.upload(path, ZIP) == "https://storage.googleapis.com/f"
    assert fal.seen[-1].body == b"x"
    assert "authorization" not in fal.seen[-1].headers


def test_a_connection_that_breaks_while_uploading_is_left_to_the_one_who_repeats_uploads(
    fal: StandIn, vendor: FalVendor, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, TOKEN))
    fal.on("POST v3.fal.media/files/upload", Answer(behaviour="drop"))
    fal.on("POST rest.fal.ai/storage/upload/initiate", Answer(behaviour="drop"))
    with pytest.raises(Unavailable, match=r"rest\.fal\.ai could not be reached"):
        vendor.upload(path, ZIP)
    assert len(fal.seen) == 3


def test_a_file_above_the_limit_goes_up_in_parts(fal: StandIn, vendor: FalVendor, tmp_path: Path) -> None:
    path = tmp_path / "0123abcd"
    with path.open("wb") as file:
        file.truncate(MULTIPART_FROM_BYTES + 1)
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, TOKEN))
    begun = {"access_url": "https://v3b.fal.media/files/set.zip", "uploadId": "u1"}
    fal.on("POST v3b.fal.media/files/upload/multipart", Answer(200, begun))
    parts = [f"v3b.fal.media/files/set.zip/multipart/u1/{number}" for number in range(1, 12)]
    for part in parts:
        fal.on(f"PUT {part}", Answer(200, {}, {"ETag": part[-2:]}))
    fal.on("POST v3b.fal.media/files/set.zip/multipart/u1/complete", Answer(200, {}))
    assert vendor.upload(path, ZIP) == "https://v3b.fal.media/files/set.zip"
    assert sorted(seen.address for seen in fal.seen if seen.method == "PUT") == sorted(parts)
    assert fal.seen[1].headers["x-fal-file-name"] == "set.zip"
    assert len(json.loads(fal.seen[-1].body)["parts"]) == 11
    assert not any("Key " in seen.headers["authorization"] for seen in fal.seen[1:])


@pytest.mark.parametrize(
    ("token", "upload", "error"),
    [
        (Answer(401, {"detail": "?"}), Answer(), NotConfigured),
        (Answer(403, LOCKED), Answer(), OutOfCredit),
        (Answer(200, {"token": "?"}), Answer(), Unavailable),
        (Answer(503, b""), Answer(), Unavailable),
        (Answer(behaviour="drop"), Answer(), Unavailable),
        (Answer(200, TOKEN), Answer(403, LOCKED), OutOfCredit),
        (Answer(200, TOKEN), Answer(415, {"detail": "no"}), Rejected),
        (Answer(200, TOKEN), Answer(500, {"detail": "no"}), Unavailable),
        (Answer(200, TOKEN), Answer(200, {"file_url": "ftp://x", "upload_url": "https://x.example/put"}), Unavailable),
        (Answer(200, TOKEN), Answer(200, b"no json"), Unavailable),
    ],
    ids=lambda value: f"{value.status}-{value.behaviour}" if isinstance(value, Answer) else "",
)
def test_an_upload_that_fails_everywhere_says_what_to_do(
    fal: StandIn, vendor: FalVendor, tmp_path: Path, token: Answer, upload: Answer, error: type[OnModelError]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    fal.on("POST rest.fal.ai/storage/auth/token", token)
    fal.on("POST v3.fal.media/files/upload", upload)
    fal.on("POST rest.fal.ai/storage/upload/initiate", upload)
    fal.on("PUT x.example/put", Answer(200, {}))
    with pytest.raises(error) as caught:
        vendor.upload(path, ZIP)
    assert type(caught.value) is error
    assert KEY not in caught.value.message


# --- downloads ---

DATA = hashlib.sha256(b"seed").digest() * 4000
LORA = OutputFile(role="lora", url="https://v3.fal.media/files/l.safetensors", file_name="l.safetensors")
AT = "GET v3.fal.media/files/l.safetensors"


def rest_from(
    offset: int, *, claims: int | None = None, promised: int | None = None, upto: int | None = None
) -> Answer:
    place = f"bytes {offset if claims is None else claims}-{len(DATA) - 1}/{len(DATA)}"
    return Answer(206, DATA[offset:upto], {"Content-Range": place}, promised=promised)


def test_a_file_is_fetched_whole_and_the_key_stays_home(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(AT, Answer(200, DATA))
    into = io.BytesIO()
    vendor.download(LORA, into)
    assert into.getvalue() == DATA
    assert "authorization" not in fal.seen[0].headers


@pytest.mark.parametrize(
    "answers",
    [
        (rest_from(1000),),
        (Answer(200, DATA),),
        (rest_from(1000, promised=len(DATA) - 1000, upto=5000), rest_from(5000)),
        (Answer(behaviour="drop"), Answer(behaviour="drop"), rest_from(1000)),
    ],
    ids=["resumed", "range ignored", "broken twice", "broken three times"],
)
def test_a_broken_download_is_carried_on_to_the_same_bytes(
    fal: StandIn, vendor: FalVendor, answers: tuple[Answer, ...]
) -> None:
    fal.on(AT, Answer(200, DATA[:1000], promised=len(DATA)), *answers)
    into = io.BytesIO(b"before")
    into.seek(6)
    vendor.download(LORA, into)
    assert into.getvalue() == b"before" + DATA
    assert fal.seen[1].headers["range"] == "bytes=1000-"


@pytest.mark.parametrize(
    ("answers", "error", "says"),
    [
        ((Answer(404, {}),), ResultExpired, "gone"),
        ((Answer(410, {}),), ResultExpired, "gone"),
        ((Answer(403, {}),), Unavailable, "403"),
        ((Answer(503, b""),), Unavailable, "503"),
        ((Answer(200, b"x", {"Content-Encoding": "br"}),), Unavailable, "compressed"),
        ((Answer(behaviour="drop"),), Unavailable, "after 0 bytes"),
        ((Answer(behaviour="hang"), Answer(503, b"")), Unavailable, "503"),
        ((Answer(200, DATA[:100], promised=len(DATA)),), Unavailable, "after 100 bytes"),
        ((Answer(200, DATA[:9], promised=len(DATA)), rest_from(9, claims=8)), Unavailable, "another place"),
        ((Answer(200, DATA[:9], promised=len(DATA)), Answer(416, {})), Unavailable, "9 bytes"),
        ((Answer(302, b"", {"Location": "http://v3.fal.media/x"}),), JobFailed, "public https"),
        ((Answer(302, b"", {"Location": "https://v3.fal.media/files/l.safetensors"}),), Unavailable, "302"),
    ],
    ids=lambda value: "-".join(str(answer.status) for answer in value) if isinstance(value, tuple) else "",
)
def test_a_file_that_cannot_be_had_says_whether_it_is_gone(
    fal: StandIn, vendor: FalVendor, answers: tuple[Answer, ...], error: type[OnModelError], says: str
) -> None:
    fal.on(AT, *answers)
    with pytest.raises(error, match=says) as caught:
        vendor.download(LORA, io.BytesIO())
    assert type(caught.value) is error


def test_a_redirect_to_another_public_store_is_followed(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(AT, Answer(302, b"", {"Location": "https://storage.googleapis.com/l"}))
    fal.on("GET storage.googleapis.com/l", Answer(200, DATA))
    into = io.BytesIO()
    vendor.download(LORA, into)
    assert into.getvalue() == DATA


@pytest.mark.parametrize(
    "url",
    [
        "http://v3.fal.media/x",
        "https://127.0.0.1/x",
        "https://169.254.169.254/meta",
        "https://localhost/x",
        "file:///x",
    ],
)
def test_an_address_that_is_not_public_https_is_never_asked(fal: StandIn, vendor: FalVendor, url: str) -> None:
    with pytest.raises(JobFailed, match="not public https"):
        vendor.download(OutputFile(role="lora", url=url), io.BytesIO())
    assert fal.seen == []


def test_a_proxy_in_the_environment_never_leads_an_upload_past_the_client_we_gave(
    fal: StandIn, vendor: FalVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    path = tmp_path / "x"
    path.write_bytes(b"x")
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, TOKEN))
    fal.on("POST v3.fal.media/files/upload", Answer(200, {"access_url": "https://v3.fal.media/f"}))
    assert vendor.upload(path, ZIP) == "https://v3.fal.media/f"
