"""How long a refusal asks us to wait: in its header or in its body, and never absurdly long."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from domain.errors import RateLimited
from providers.fal.vendor import FalVendor
from tests.contract.fal_standin import STILL, Answer, StandIn, fal_stand_in, sent, vendor_at


@pytest.fixture(scope="module")
def fal() -> Iterator[StandIn]:
    with fal_stand_in() as server:
        yield server


@pytest.fixture(scope="module")
def vendor(fal: StandIn) -> Iterator[FalVendor]:
    with vendor_at(fal) as vendor:
        yield vendor


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (Answer(429, {}, {"Retry-After": "17"}), 17.0),
        (Answer(429, {}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), 0.0),
        (Answer(429, {}, {"Retry-After": "Wed, 21 Oct 9999 07:28:00 GMT"}), 3600.0),
        (Answer(429, {}, {"Retry-After": "soon"}), None),
        (Answer(429, {"retry_after": 2}, {"Retry-After": "17"}), 17.0),
        (Answer(429, {"retry_after": 2}, {"Retry-After": "soon"}), 2.0),
        (Answer(429, {"detail": "slow", "retry_after": 2.5}), 2.5),
        (Answer(429, {"retry_after_seconds": "3"}), 3.0),
        (Answer(429, {"detail": {"message": "slow", "retry_after": 4}}), 4.0),
        (Answer(429, {"detail": [{"msg": "slow"}, {"retry_after": 5}]}), 5.0),
        (Answer(429, {"error": {"type": "rate_limit", "retryAfter": 6}}), 6.0),
        (Answer(429, {"retry_after": -5}), 0.0),
        (Answer(429, {"retry_after": 10**400}), 3600.0),
        (Answer(429, {"retry_after": 1e12}), 3600.0),
        (Answer(429, b'{"retry_after": Infinity}'), None),
        (Answer(429, b'{"retry_after": NaN}'), None),
        (Answer(429, {"retry_after": True}), None),
        (Answer(429, {"retry_after": None}), None),
        (Answer(429, {"retry_after": [1]}), None),
        (Answer(429, ["retry_after", 1]), None),
        (Answer(429, b"<html>slow down</html>"), None),
    ],
    ids=lambda value: f"{value.headers} {value.body!r}"[:60] if isinstance(value, Answer) else "",
)
def test_the_wait_that_fal_asks_for_is_kept(
    fal: StandIn, vendor: FalVendor, answer: Answer, seconds: float | None
) -> None:
    fal.on(f"POST queue.fal.run/{STILL.endpoint}", answer)
    with pytest.raises(RateLimited) as caught:
        vendor.submit(STILL, sent())
    assert caught.value.retry_after_seconds == seconds
    assert pickle.loads(pickle.dumps(caught.value)).retry_after_seconds == seconds
