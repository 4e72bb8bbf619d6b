"""Which vendors do a season's work, and which of them can stand in for the first."""

from __future__ import annotations

from decimal import Decimal

import pytest

from domain.errors import BadInput, NotConfigured
from domain.jobs import JobOrder, Operation, Stage, VendorRequest
from domain.registry import load_registry
from domain.seasons import VENDORS, Season, VendorChoice
from domain.vendors import catalogue_of, is_stand_in, stand_in_of, vendor_for, vendors_for
from tasks.fallback_orders import order_with_fallbacks


def season(*train: str, is_simulated: bool = False) -> Season:
    return Season(
        id=1,
        slug="neon-harbor",
        owner="me",
        time_zone="UTC",
        vendor=VendorChoice(train=train, image=("fal",), video=("fal",)),
        is_simulated=is_simulated,
        review=False,
        manifest_sha256="",
        finished_sha256=None,
        video_sha256=None,
        video_seconds=None,
    )


def order_at(vendor: str) -> JobOrder:
    """An order anywhere but at two vendors that cannot."""
    if vendor == "runpod":
        raise NotConfigured("RUNPOD_API_KEY is not set.")
    if vendor == "comfyui":
        raise BadInput("comfyui has no trainer for it here.")
    return JobOrder(
        season_id=1,
        stage=Stage.LORA_TRAINING,
        operation=Operation.TRAIN_LORA,
        api_name="trainer",
        model_key="trainer",
        request=VendorRequest(vendor=vendor, endpoint="train", arguments={}),
        estimate_usd=Decimal(1),
        ceiling_usd=Decimal(2),
    )


def test_vendors_come_in_the_order_of_the_manifest_and_each_once() -> None:
    assert vendors_for(season("runpod", "fal", "runpod"), "train") == ("runpod", "fal")
    assert vendor_for(season("runpod", "fal"), "train") == "runpod"


def test_a_rehearsal_has_the_sandboxs_stand_in_for_each() -> None:
    assert vendors_for(season("runpod", "fal", is_simulated=True), "train") == ("sandbox-runpod", "sandbox")
    assert vendors_for(season("sandbox", "fal", is_simulated=True), "train") == ("sandbox",)


@pytest.mark.parametrize("vendor", [vendor for vendor in VENDORS if vendor != "sandbox"])
def test_a_stand_in_has_the_models_of_the_vendor_it_plays(vendor: str) -> None:
    assert catalogue_of(stand_in_of(vendor)) == vendor
    assert is_stand_in(stand_in_of(vendor))
    assert not is_stand_in(vendor)


def test_those_that_follow_stand_in_and_the_work_stays_the_firsts() -> None:
    order = order_with_fallbacks(season("fal", "sandbox"), "train", order_at)
    assert [fallback.request.vendor for fallback in order.fallbacks] == ["sandbox"]
    assert order.work_key == order_at("fal").work_key
    assert order_with_fallbacks(season("fal"), "train", order_at).fallbacks == ()


def test_one_that_is_not_set_up_or_cannot_do_it_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "onmodel.jobs"):
        order = order_with_fallbacks(season("fal", "runpod", "comfyui", "sandbox"), "train", order_at)
    assert [fallback.request.vendor for fallback in order.fallbacks] == ["sandbox"]
    assert "runpod cannot stand in for the first vendor (train): RUNPOD_API_KEY is not set" in caplog.text
    assert "comfyui has no trainer for it here" in caplog.text


def test_the_first_vendors_own_trouble_is_raised() -> None:
    with pytest.raises(NotConfigured, match="RUNPOD_API_KEY"):
        order_with_fallbacks(season("runpod", "fal"), "train", order_at)


def test_a_vendor_without_the_very_model_does_not_stand_in() -> None:
    model = load_registry().model("flux_lora")
    registry = load_registry()
    order = order_with_fallbacks(
        season("local", "fal", "local", "sandbox"), "train", order_at, model=model, registry=registry
    )
    assert order.request.vendor == "fal"
    assert [fallback.request.vendor for fallback in order.fallbacks] == ["sandbox"]
    with pytest.raises(BadInput, match="flux_lora is not to be had at local"):
        order_with_fallbacks(season("local"), "train", order_at, model=model, registry=registry)
