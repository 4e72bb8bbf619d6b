"""Job keys: the same work has the same key for ever, other work another, and addresses never count."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.jobs import (
    LEGAL_EDGES,
    BlobRef,
    JobOrder,
    JobState,
    Operation,
    Stage,
    VendorRequest,
    blob_argument,
    canonical_json,
)

ZIP = BlobRef(sha256="a" * 64, media_type="application/zip", file_name="set.zip")


def order(*, arguments: dict[str, Any] | None = None, endpoint: str = "train/flux", **fields: Any) -> JobOrder:
    request = VendorRequest(
        vendor="fal", endpoint=endpoint, arguments={"zip": blob_argument(ZIP), "steps": 1000, **(arguments or {})}
    )
    return JobOrder(
        **{
            "season_id": 1,
            "slot_number": 6,
            "character_id": 2,
            "stage": Stage.LORA_TRAINING,
            "operation": Operation.TRAIN_LORA,
            "api_name": "fal_flux_lora_fast",
            "model_key": "fal_flux_lora_fast",
            "request": request,
            "estimate_usd": Decimal(2),
            "ceiling_usd": Decimal("2.4"),
            **fields,
        }
    )


def test_the_same_work_has_the_same_key_in_every_process_and_version() -> None:
    assert order().work_key == order().work_key
    # Written down: a key that changed with the code would buy every finished season again.
    assert order().work_key == "832eacafb1cb639584cdb44b34fdb5ed1620380e55d8424adda7810b485f5fd4"
    assert order().job_key(1) == "281347b64682aa8ceffbbe96998f57cbfe72a403"


@pytest.mark.parametrize(
    "change",
    [
        {"season_id": 2},
        {"slot_number": 7},
        {"slot_number": None},
        {"character_id": 3},
        {"character_id": None},
        {"stage": Stage.REFERENCES},
        {"operation": Operation.MAKE_STILL},
        {"model_key": "another"},
        {"endpoint": "train/wan"},
        {"arguments": {"steps": 1001}},
        {"arguments": {"rank": 16}},
        {"arguments": {"zip": blob_argument(ZIP.model_copy(update={"sha256": "b" * 64}))}},
    ],
)
def test_other_work_has_another_key(change: dict[str, Any]) -> None:
    assert order(**change).work_key != order().work_key
    assert order(**change).job_key(1) != order().job_key(1)


@pytest.mark.parametrize(
    "change",
    [
        {"estimate_usd": Decimal(3)},
        {"ceiling_usd": Decimal(9)},
        {"is_simulated": True},
        {"api_name": "renamed"},
        {"arguments": {"zip": blob_argument(ZIP.model_copy(update={"file_name": "other.zip", "media_type": "x/y"}))}},
    ],
)
def test_prices_and_names_of_files_are_no_other_work(change: dict[str, Any]) -> None:
    assert order(**change).work_key == order().work_key


def test_the_urls_of_a_submit_never_reach_the_key_and_the_digests_never_reach_the_vendor() -> None:
    request = order().request
    first = request.with_urls({ZIP.sha256: "https://files.example/1?token=a"})
    second = request.with_urls({ZIP.sha256: "https://files.example/2?token=b"})
    assert first == {"zip": "https://files.example/1?token=a", "steps": 1000}
    assert first != second
    assert order().request == request
    assert "$blob" not in json.dumps(second)


def test_each_attempt_has_its_own_key_and_all_share_the_work_key() -> None:
    keys = [order().job_key(attempt) for attempt in range(1, 6)]
    assert len(set(keys)) == 5
    assert all(len(key) == 40 for key in keys)


def test_the_files_of_a_request_are_found_wherever_they_stand_each_once() -> None:
    other = ZIP.model_copy(update={"sha256": "c" * 64})
    request = VendorRequest(
        vendor="fal",
        endpoint="x",
        arguments={"a": [{"b": blob_argument(ZIP)}, blob_argument(other)], "c": (blob_argument(ZIP),), "d": None},
    )
    assert request.blobs() == (ZIP, other)
    filled = request.with_urls({ZIP.sha256: "u1", other.sha256: "u2"})
    assert filled == {"a": [{"b": "u1"}, "u2"], "c": ["u1"], "d": None}


# --- canonical JSON ---

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(inner) for key, inner in reversed(value.items())}
    return [shuffled(inner) for inner in value] if isinstance(value, list) else value


@settings(deadline=None)
@given(values)
def test_the_order_of_fields_never_matters_and_nothing_else_is_lost(value: Any) -> None:
    text = canonical_json(value)
    assert text == canonical_json(shuffled(value))
    assert canonical_json(json.loads(text)) == text
    assert json.loads(text) == value
    assert "\n" not in text


def test_canonical_text_is_as_short_as_json_can_be() -> None:
    assert canonical_json({"b": (1, 2), "a": "é"}) == '{"a":"é","b":[1,2]}'
    assert canonical_json({"x": blob_argument(ZIP)}) == '{"x":{"$blob":"' + "a" * 64 + '"}}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_what_is_no_number_has_no_canonical_text(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


# --- states ---


def test_every_state_has_its_edges_and_an_end_has_none() -> None:
    assert set(LEGAL_EDGES) == set(JobState)
    ends = {state for state, following in LEGAL_EDGES.items() if not following}
    assert ends == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}


def test_nothing_is_submitted_but_what_was_marked_and_only_a_planned_job_is_marked() -> None:
    into = {state: {one for one in JobState if state in LEGAL_EDGES[one]} for state in JobState}
    assert into[JobState.SUBMITTING] == {JobState.PLANNED}
    assert into[JobState.SUBMITTED] == {JobState.SUBMITTING, JobState.SUBMISSION_UNKNOWN}
    assert into[JobState.SUBMISSION_UNKNOWN] == {JobState.SUBMITTING}
    assert JobState.SUBMITTING not in LEGAL_EDGES[JobState.SUBMISSION_UNKNOWN]
