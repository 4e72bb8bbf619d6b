"""What a signed link to a local store allows, and everything that it does not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import BadInput, NotConfigured
from providers.blobs.link_server import byte_range
from providers.blobs.links import Link, LinkRefused, read_link, signing_key
from providers.blobs.naming import header_media_type, lifetime_seconds, put_headers

KEY = b"k" * 32
SHA256 = "0123456789abcdef" * 4
OTHER_SHA256 = "fedcba9876543210" * 4
NOON = 1_800_000_000
LINK = Link(method="GET", sha256=SHA256, expires_at=NOON)


def test_a_link_says_again_what_was_signed() -> None:
    link = Link(method="PUT", sha256=SHA256, expires_at=NOON, media_type="text/plain; charset=utf-8")
    assert read_link("PUT", link.target(KEY), KEY, NOON - 1) == link


def test_a_link_holds_until_its_second_and_not_in_it() -> None:
    assert read_link("GET", LINK.target(KEY), KEY, NOON - 0.1) == LINK
    with pytest.raises(LinkRefused, match="expired"):
        read_link("GET", LINK.target(KEY), KEY, NOON)


def test_a_link_to_read_also_answers_head_and_nothing_else() -> None:
    assert read_link("HEAD", LINK.target(KEY), KEY, NOON - 1) == LINK
    for method in ("PUT", "DELETE", "POST"):
        with pytest.raises(LinkRefused, match=f"not valid for {method}"):
            read_link(method, LINK.target(KEY), KEY, NOON - 1)


def test_a_link_of_another_store_is_refused() -> None:
    with pytest.raises(LinkRefused, match="signature"):
        read_link("GET", LINK.target(b"x" * 32), KEY, NOON - 1)


@pytest.mark.parametrize(
    "target",
    [
        LINK.target(KEY).replace(SHA256, OTHER_SHA256),
        LINK.target(KEY).replace(str(NOON), str(NOON + 1)),
        LINK.target(KEY) + "&type=text%2Fhtml",
        LINK.target(KEY) + f"&expires={NOON}",
        LINK.target(KEY)[:-1],
        f"/{SHA256}?expires={NOON}",
        f"/{SHA256}?expires={NOON}&signature=%C3%A9",
        f"/{SHA256}",
        "/",
        "/../../etc/passwd?expires=1&signature=0",
        f"/{SHA256}?expires={'9' * 5000}&signature=0",
    ],
)
def test_a_link_that_was_changed_is_refused(target: str) -> None:
    with pytest.raises(LinkRefused):
        read_link("GET", target, KEY, NOON - 1)


@given(st.text(max_size=80))
def test_no_text_at_all_passes_for_a_link(text: str) -> None:
    with pytest.raises(LinkRefused):
        read_link("GET", f"/{text}", KEY, 0)


def test_no_field_can_move_the_border_to_the_next() -> None:
    one = Link(method="PUT", sha256=SHA256, expires_at=1, media_type="2\nx")
    other = Link(method="PUT", sha256=SHA256 + "\n1", expires_at=2, media_type="x")
    assert one.signature(KEY) != other.signature(KEY)


def test_the_query_names_no_type_where_there_is_none() -> None:
    assert set(parse_qs(urlsplit(LINK.target(KEY)).query)) == {"expires", "signature"}


# --- the key ---


def test_the_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    with ThreadPoolExecutor(8) as makers:
        keys = set(makers.map(lambda _: signing_key(root), range(8)))
    assert len(keys) == 1
    assert (root / "links.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in root.iterdir()] == ["links.key"]
    assert signing_key(tmp_path / "other") not in keys


def test_a_damaged_key_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "links.key").write_bytes(b"")
    with pytest.raises(NotConfigured, match="delete that file"):
        signing_key(tmp_path)


# --- ranges, types and lifetimes ---


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("bytes=0-", range(10)),
        ("bytes=2-4", range(2, 5)),
        ("bytes=9-9", range(9, 10)),
        ("bytes=4-400", range(4, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-300", range(10)),
        ("bytes=10-", range(0)),
        ("bytes=-0", range(0)),
        ("bytes=4-2", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
    ],
)
def test_a_range_is_the_bytes_that_were_asked_for(header: str, expected: range | None) -> None:
    assert byte_range(header, 10) == expected


def test_only_a_clean_media_type_becomes_a_header() -> None:
    for clean in ("video/mp4", "text/plain; charset=utf-8", "application/vnd.api+json"):
        assert header_media_type(clean) == clean
    for unclean in ("", "mp4", "vidéo/mp4", "text/plain\r\nSet-Cookie: a", "text/plain\n"):
        assert header_media_type(unclean) == "application/octet-stream"


def test_a_link_lives_a_week_at_most() -> None:
    assert lifetime_seconds(timedelta(days=7)) == 604_800
    assert lifetime_seconds(timedelta(seconds=-1)) == -1
    with pytest.raises(BadInput, match="at most 7 days"):
        lifetime_seconds(timedelta(days=8))


def test_a_put_carries_its_checksum_as_s3_writes_it() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert put_headers(empty, "image/png") == {
        "Content-Type": "image/png",
        "x-amz-checksum-sha256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    }
