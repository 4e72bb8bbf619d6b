"""The look at a trainer's live schema: kept for an hour, without the key, and never in the way of what is not known."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from domain.errors import Rejected, Unavailable
from domain.registry import load_registry
from providers.fal.client import FalClient
from providers.fal.schemas import KEPT_SECONDS, FalSchemas
from providers.fal.vendor import FalVendor
from providers.vendor_ports import SchemaReader
from providers.web import open_http
from tests.contract.fal_standin import (
    ACCEPTED,
    KEY,
    STILL,
    TRAIN,
    ZIP,
    Answer,
    StandIn,
    ToStandIn,
    fal_stand_in,
    sent,
    vendor_at,
)

PAGE = "GET fal.ai/api/openapi/queue/openapi.json"
TRAINER = load_registry().model("fal_flux_lora_fast")


BASE: dict[str, Any] = {"properties": {"images_data_url": {}}, "required": ["images_data_url"]}


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def document(*fields: str, required: tuple[str, ...] = (), endpoint: str = TRAIN.endpoint) -> dict[str, Any]:
    """An OpenAPI document as fal's, of one endpoint."""
    schema = {"properties": {field: {"type": "string"} for field in fields}, "required": list(required)}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/In"}}}}
    return {"components": {"schemas": {"In": schema}}, "paths": {f"/{endpoint}": {"post": {"requestBody": body}}}}


@pytest.fixture(scope="module")
def standing() -> Iterator[StandIn]:
    with fal_stand_in() as server:
        yield server


@pytest.fixture
def fal(standing: StandIn) -> StandIn:
    standing.plan.clear()
    standing.seen.clear()
    standing.on(f"POST queue.fal.run/{TRAIN.endpoint}", Answer(200, ACCEPTED))
    standing.on(f"POST queue.fal.run/{STILL.endpoint}", Answer(200, ACCEPTED))
    return standing


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def schemas(fal: StandIn, clock: Clock) -> Iterator[FalSchemas]:
    with open_http(ToStandIn(fal.server_address[1]), timeout=httpx.Timeout(0.5)) as http:
        yield FalSchemas(FalClient(http, SecretStr(KEY)), clock=clock)


@pytest.fixture
def vendor(fal: StandIn) -> Iterator[FalVendor]:
    with vendor_at(fal) as vendor:
        yield vendor


def train(vendor: FalVendor) -> object:
    return vendor.submit(TRAIN, sent({ZIP.sha256: "https://v3.fal.media/files/set.zip"}))


def posts(fal: StandIn) -> int:
    return sum(one.method == "POST" for one in fal.seen)


def test_a_training_that_fits_the_live_schema_goes_through_and_the_page_never_sees_the_key(
    fal: StandIn, vendor: FalVendor
) -> None:
    reader: SchemaReader = vendor
    assert reader
    fal.on(PAGE, Answer(200, document("images_data_url", "steps", required=("images_data_url",))))
    assert train(vendor)
    look, post = fal.seen
    assert (look.query, post.method) == ("endpoint_id=fal-ai%2Fflux-lora-fast-training", "POST")
    assert "authorization" not in look.headers


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (document("images_data_url"), "it has no field 'steps'"),
        (document("images_data_url", "steps", "consent", required=("consent",)), "it also wants 'consent'"),
        (document("data", "steps", required=("data",)), "no field 'images_data_url' and also wants 'data'"),
    ],
)
def test_a_training_that_no_longer_fits_is_refused_naming_the_field_and_nothing_is_sent(
    fal: StandIn, vendor: FalVendor, answer: dict[str, Any], reason: str
) -> None:
    fal.on(PAGE, Answer(200, answer))
    with pytest.raises(Rejected, match=reason):
        train(vendor)
    assert posts(fal) == 0


def test_a_trainer_without_a_page_is_gone_where_other_endpoints_still_have_theirs(
    fal: StandIn, vendor: FalVendor
) -> None:
    fal.on(PAGE, Answer(404), Answer(200, document("prompt", endpoint="fal-ai/flux-lora")))
    with pytest.raises(Rejected, match=r"no longer has fal-ai/flux-lora-fast-training \(fal_flux_lora_fast\)"):
        train(vendor)
    assert posts(fal) == 0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404),
        Answer(302, headers={"Location": "https://elsewhere.example/"}),
        Answer(503, b"<html>"),
        Answer(200, b"{"),
        Answer(200, b"[" * 5000),
        Answer(200, {"paths": {"/fal-ai/other": {}}}),
        Answer(200, {"paths": []}),
        Answer(200, document()),
        Answer(200, {**document("x"), "components": {"schemas": []}}),
        Answer(behaviour="drop"),
    ],
    ids=["moved", "redirect", "down", "cut off", "deep", "another's", "no paths", "no fields", "no schema", "dropped"],
)
def test_a_page_that_tells_nothing_is_a_warning_and_the_training_goes_on(
    fal: StandIn, vendor: FalVendor, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    fal.on(PAGE, answer)
    with caplog.at_level(logging.WARNING, "onmodel.fal"):
        assert train(vendor)
    assert "fal_flux_lora_fast is ordered without a look at what it takes today" in caplog.text
    with pytest.raises(Unavailable, match="schema page"):
        vendor.live_schema(TRAINER)


@pytest.mark.parametrize(
    "schemas_of_it",
    [
        {"In": {"allOf": [{"$ref": "#/components/schemas/Base"}, {"properties": {"steps": {}}}]}, "Base": BASE},
        {"In": {"$ref": "#/components/schemas/Base", "properties": {"steps": {}}}, "Base": BASE},
        {
            "In": {
                **BASE,
                "properties": {**BASE["properties"], "steps": {}},
                "allOf": [{"$ref": "#/components/schemas/In"}],
            }
        },
    ],
    ids=["allOf", "a reference with fields beside it", "one that points at itself"],
)
@pytest.mark.parametrize("path", [f"/{TRAIN.endpoint}", "/flux-lora-fast-training"])
def test_a_schema_in_parts_or_under_another_path_is_read_whole(
    fal: StandIn, vendor: FalVendor, schemas_of_it: dict[str, Any], path: str
) -> None:
    made = document("x", endpoint=path.removeprefix("/"))
    fal.on(PAGE, Answer(200, {**made, "components": {"schemas": schemas_of_it}}))
    live = vendor.live_schema(TRAINER)
    assert live.fields == {"images_data_url", "steps"}
    assert live.required == {"images_data_url"}


def test_a_schema_is_read_once_an_hour(fal: StandIn, schemas: FalSchemas, clock: Clock) -> None:
    fal.on(PAGE, Answer(200, document("images_data_url", "steps")))
    for second, looks in ((0.0, 1), (KEPT_SECONDS - 1, 1), (KEPT_SECONDS, 2)):
        clock.now = second
        schemas.check_schema(TRAINER, TRAIN)
        assert len(fal.seen) == looks


def test_what_could_not_be_read_is_asked_for_again(fal: StandIn, schemas: FalSchemas) -> None:
    fal.on(PAGE, Answer(503), Answer(200, document("images_data_url")))
    schemas.check_schema(TRAINER, TRAIN)
    with pytest.raises(Rejected, match="no field 'steps'"):
        schemas.check_schema(TRAINER, TRAIN)


def test_only_trainings_are_looked_after_because_a_still_costs_less_than_the_look(
    fal: StandIn, vendor: FalVendor
) -> None:
    vendor.submit(STILL, sent())
    assert [one.method for one in fal.seen] == ["POST"]
