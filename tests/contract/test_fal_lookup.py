"""A lost submit is looked for in fal's list of requests, and adopted only where it cannot be another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.errors import NotConfigured, OnModelError, OutOfCredit, RateLimited, Unavailable
from domain.submissions import Finding, LookUp
from providers.fal.vendor import FalVendor
from tests.contract.fal_standin import (
    LOCKED,
    STILL,
    TRAIN,
    ZIP,
    Answer,
    StandIn,
    fal_stand_in,
    sent,
    vendor_at,
)

LIST = "GET api.fal.ai/v1/models/requests/by-endpoint"
SENT_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
OURS = {"prompt": "a harbour"}


@pytest.fixture(scope="module")
def shared() -> Iterator[StandIn]:
    with fal_stand_in() as server:
        yield server


@pytest.fixture
def fal(shared: StandIn) -> StandIn:
    """One stand-in for all, each time without plans and memories."""
    shared.plan.clear()
    shared.seen.clear()
    return shared


@pytest.fixture(scope="module")
def vendor(shared: StandIn) -> Iterator[FalVendor]:
    with vendor_at(shared) as vendor:
        yield vendor


def item(request_id: str, given: Any = None, *, minutes: float = 0, **fields: Any) -> dict[str, Any]:
    at = (SENT_AT + timedelta(minutes=minutes)).isoformat()
    shown = {} if given is None else {"json_input": given}
    return {"request_id": request_id, "endpoint_id": STILL.endpoint, "sent_at": at, **shown, **fields}


def page(*items: Any, cursor: str | None = None) -> Answer:
    return Answer(200, {"items": list(items), "next_cursor": cursor, "has_more": cursor is not None})


def look(vendor: FalVendor, known: frozenset[str] = frozenset()) -> LookUp:
    return vendor.look_up(STILL, sent(at=SENT_AT), known)


def test_fal_says_that_it_cannot_prove_absence_and_why(vendor: FalVendor) -> None:
    assert not vendor.absence.can_prove
    assert "not prove that there is none" in vendor.absence.reason


def test_a_request_with_our_input_sent_since_our_post_is_ours(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(LIST, page(item("other", {"prompt": "a pier"}), item("mine", OURS), item("before", OURS, minutes=-3)))
    found = look(vendor)
    assert found.finding is Finding.FOUND
    assert found.ids is not None
    assert (found.ids.request_id, found.ids.status_url) == ("mine", None)
    assert fal.seen[0].query.split("&") == [
        "endpoint_id=fal-ai%2Fflux-lora",
        "start=2026-03-01T11%3A58%3A00Z",
        "expand=payloads",
        "limit=100",
    ]


def test_files_count_by_the_addresses_that_were_sent(fal: StandIn, vendor: FalVendor) -> None:
    url = "https://v3.fal.media/files/set.zip"
    submission = sent({ZIP.sha256: url}, SENT_AT)
    ours, others = ({"images_data_url": one, "steps": 9} for one in (url, "https://v3.fal.media/files/other.zip"))
    fal.on(
        LIST, page(item("other", others, endpoint_id=TRAIN.endpoint), item("mine", ours, endpoint_id=TRAIN.endpoint))
    )
    found = vendor.look_up(TRAIN, submission, frozenset())
    assert found.ids is not None
    assert found.ids.request_id == "mine"


@pytest.mark.parametrize(
    "mine",
    [
        item("mine", None, input=OURS),
        item("mine", json.dumps(OURS)),
        item("mine", OURS, minutes=-1.9),
        item("mine", OURS, minutes=600),
        item("mine", OURS, sent_at="2026-03-01T14:00:00.5+02:00"),
    ],
)
def test_it_is_found_in_every_form_a_list_may_have(fal: StandIn, vendor: FalVendor, mine: dict[str, Any]) -> None:
    fal.on(LIST, page(mine))
    assert look(vendor).finding is Finding.FOUND


def test_every_page_is_read_before_anything_is_said(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(LIST, page(item("mine", OURS), cursor="Mg=="), page(item("twin", OURS), cursor="Mw=="), page())
    unclear = look(vendor)
    assert (unclear.finding, unclear.candidates) == (Finding.UNCLEAR, ("mine", "twin"))
    assert [seen.query.rpartition("&")[2] for seen in fal.seen] == ["limit=100", "cursor=Mg%3D%3D", "cursor=Mw%3D%3D"]


def test_a_request_listed_twice_is_one(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(LIST, page(item("mine", OURS), cursor="Mg=="), page(item("mine", OURS)))
    assert look(vendor).finding is Finding.FOUND


def test_a_job_of_ours_is_never_taken_for_another(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(LIST, page(item("known", OURS), item("hidden-but-known")))
    assert look(vendor, frozenset({"known", "hidden-but-known"})).finding is Finding.ABSENT
    fal.on(LIST, page(item("known", OURS), item("mine", OURS)))
    found = look(vendor, frozenset({"known"}))
    assert found.ids is not None
    assert found.ids.request_id == "mine"


@pytest.mark.parametrize(
    "maybe",
    [
        item("maybe"),
        item("maybe", "not json"),
        item("maybe", "[1]"),
        item("maybe", {**OURS, "num_images": 1}),
        item("maybe", OURS, sent_at=None),
    ],
    ids=["no input", "unreadable", "no object", "defaults filled in", "no time"],
)
def test_what_cannot_be_compared_is_shown_to_a_person(fal: StandIn, vendor: FalVendor, maybe: dict[str, Any]) -> None:
    fal.on(LIST, page(maybe, item("other", {"prompt": "a pier"})))
    unclear = look(vendor)
    assert (unclear.finding, unclear.ids, unclear.candidates) == (Finding.UNCLEAR, None, ("maybe",))


@pytest.mark.parametrize(
    "other",
    [
        item("other", {"prompt": "a pier"}),
        item("other", {}),
        item("other", OURS, minutes=-2.1),
        item("other", None, minutes=-2.1),
        item("other", OURS, endpoint_id="fal-ai/flux-lora/image-to-image"),
    ],
)
def test_what_is_not_ours_is_not_found(fal: StandIn, vendor: FalVendor, other: dict[str, Any]) -> None:
    fal.on(LIST, page(other))
    assert look(vendor).finding is Finding.ABSENT


def test_one_and_true_are_not_the_same_input(fal: StandIn, vendor: FalVendor) -> None:
    request = STILL.model_copy(update={"arguments": {"num_images": 1, "scales": [1.0, 2]}})
    fal.on(LIST, page(item("other", {"num_images": True, "scales": [1, 2]})))
    assert vendor.look_up(request, sent(at=SENT_AT), frozenset()).finding is Finding.ABSENT
    fal.on(LIST, page(item("mine", {"num_images": 1.0, "scales": [1, 2.0]})))
    assert vendor.look_up(request, sent(at=SENT_AT), frozenset()).finding is Finding.FOUND


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(500, {"error": {"type": "server_error", "message": "Unexpected server error"}}), Unavailable),
        (Answer(502, b"<html>nginx</html>"), Unavailable),
        (Answer(404, {"detail": "Not found"}), Unavailable),
        (Answer(422, {"detail": "start"}), Unavailable),
        (Answer(200, b'{"items": [{"requ'), Unavailable),
        (Answer(200, b"[" * 100_000), Unavailable),
        (Answer(200, ["x"]), Unavailable),
        (Answer(200, {"items": {"a": 1}}), Unavailable),
        (Answer(200, {"items": ["x"]}), Unavailable),
        (Answer(200, {"items": [{"request_id": None}]}), Unavailable),
        (Answer(200, {"items": [], "has_more": True}), Unavailable),
        (Answer(200, {"items": [], "has_more": True, "next_cursor": "again"}), Unavailable),
        (Answer(behaviour="drop"), Unavailable),
        (Answer(401, {"detail": "?"}), NotConfigured),
        (Answer(403, LOCKED), OutOfCredit),
        (Answer(429, {"retry_after": 3}), RateLimited),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else "",
)
def test_a_list_that_cannot_be_read_whole_is_an_error_and_never_nothing(
    fal: StandIn, vendor: FalVendor, answer: Answer, error: type[OnModelError]
) -> None:
    fal.on(LIST, answer)
    with pytest.raises(error) as caught:
        look(vendor)
    assert type(caught.value) is error


def test_a_second_page_that_fails_is_an_error_too(fal: StandIn, vendor: FalVendor) -> None:
    fal.on(LIST, page(item("mine", OURS), cursor="Mg=="), Answer(503, b"<html>nginx</html>"))
    with pytest.raises(Unavailable):
        look(vendor)
