"""fal's key: where it goes, what one looks like, and that no text ever shows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from domain.errors import NotConfigured
from domain.registry import load_registry
from providers.fal.vendor import FalVendor
from providers.web import open_http
from tests.contract.fal_standin import KEY, STILL, Answer, Failing, StandIn, fal_stand_in, sent, vendor_at


@pytest.fixture
def fal() -> Iterator[StandIn]:
    with fal_stand_in() as server:
        yield server


@pytest.fixture
def vendor(fal: StandIn) -> Iterator[FalVendor]:
    with vendor_at(fal) as vendor:
        yield vendor


@pytest.mark.parametrize("key", ["", "  ", "two words", "broken\nline", "schlüssel"])
def test_a_key_that_cannot_be_one_is_refused_without_repeating_it(key: str) -> None:
    with open_http(Failing(OSError())) as http, pytest.raises(NotConfigured) as caught:
        FalVendor(http, SecretStr(key), load_registry())
    assert not key.strip() or key not in caught.value.message


def test_a_key_with_a_trailing_line_end_is_taken(fal: StandIn) -> None:
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(200, {}))
    with vendor_at(fal, f"{KEY}\n") as vendor:
        assert vendor.ping().is_ready
    assert fal.seen[0].headers["authorization"] == f"Key {KEY}"


def test_the_key_never_appears_in_a_text_even_when_fal_repeats_it(
    fal: StandIn, vendor: FalVendor, caplog: pytest.LogCaptureFixture
) -> None:
    fal.on(f"POST queue.fal.run/{STILL.endpoint}", Answer(401, {"detail": f"unknown key {KEY}"}))
    fal.on("POST rest.fal.ai/storage/auth/token", Answer(401, {"detail": f"unknown key {KEY}"}))
    with caplog.at_level("DEBUG"):
        with pytest.raises(NotConfigured, match=r"unknown key \*+") as caught:
            vendor.submit(STILL, sent())
        told = [repr(vendor), vendor.ping().detail, repr(caught.value), caplog.text, repr(caught.value.__cause__)]
    assert not any(KEY in text for text in told)
    assert caplog.text
