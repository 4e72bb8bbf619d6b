"""Prices: every model has one, sums are Decimal and never rounded down, an unknown price refuses."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import BadInput, NotConfigured
from domain.model_rules import Model, ModelKind
from domain.money import (
    CENT,
    ESTIMATE_STEP,
    ceiling_usd,
    load_prices,
    parse_prices,
    price_of_caption,
    price_of_still,
    price_of_training,
    price_of_video,
    round_up,
)
from domain.registry import load_registry

MODELS = load_registry().models
OWN_MACHINES = ("local", "comfyui")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.key)
def test_every_model_has_a_price_of_its_kind(model: Model) -> None:
    match model.kind:
        case ModelKind.TRAINER:
            price = price_of_training(model.key, 1000)
        case ModelKind.IMAGE:
            price = price_of_still(model.key, 1024, 1024)
        case ModelKind.VIDEO:
            assert model.video is not None
            price = price_of_video(model.key, model.video.duration.default)
        case ModelKind.CAPTIONER:
            price = price_of_caption(model.key)
    assert price > 0 or model.vendor in OWN_MACHINES


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.key)
def test_every_price_has_a_source_a_date_and_a_reason_where_it_is_not_confirmed(model: Model) -> None:
    price = load_prices().price(model.key)
    assert price.source
    assert price.date
    assert price.confidence == "confirmed" or price.note


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.key)
def test_a_price_is_true_for_what_the_registry_fixes_in_the_request(model: Model) -> None:
    for field, value in load_prices().price(model.key).when.items():
        assert model.fixed[field] == value


@pytest.mark.parametrize(
    ("price", "usd"),
    [
        (price_of_training("fal_flux_lora_fast", 1000), "2"),
        (price_of_training("fal_wan_22_t2v_a14b", 400), "1.6"),
        (price_of_training("fal_wan_22_t2v_a14b", 10), "0.4"),
        (price_of_still("flux_lora", 1024, 1024), "0.035"),
        (price_of_still("flux_lora", 1024, 576), "0.035"),
        (price_of_still("flux_lora", 1025, 1024), "0.07"),
        (price_of_video("kling_v21", 5), "0.28"),
        (price_of_video("kling_v21", 10), "0.56"),
        (price_of_video("kling_v25_turbo", 5), "0.35"),
        (price_of_video("hailuo_23", 6), "0.28"),
        (price_of_video("hailuo_23", 10), "0.56"),
        (price_of_video("wan_25_i2v", 5), "0.5"),
        (price_of_video("veo_31", 8), "1.6"),
        (price_of_video("kling_o1_reference", 3), "0.336"),
        (price_of_video("wan_22_t2v_lora", 5.0625), "0.5063"),
        (price_of_caption("moondream_3_caption"), "0.005"),
    ],
)
def test_prices_are_those_the_vendor_publishes(price: Decimal, usd: str) -> None:
    assert price == Decimal(usd)


def test_an_unknown_price_refuses() -> None:
    with pytest.raises(NotConfigured, match=r"no price for the model 'kling_v9'.*domain/prices/"):
        price_of_video("kling_v9", 5)


@pytest.mark.parametrize("seconds", [7, 6.5])
def test_a_length_that_is_not_sold_refuses_naming_those_that_are(seconds: float) -> None:
    with pytest.raises(NotConfigured, match="6 s, 10 s"):
        price_of_video("hailuo_23", seconds)


def test_a_price_asked_for_in_the_wrong_unit_refuses() -> None:
    with pytest.raises(NotConfigured, match="priced per megapixel, not per second"):
        price_of_video("flux_lora", 5)


def test_nothing_has_no_price() -> None:
    with pytest.raises(BadInput, match="above zero"):
        price_of_training("fal_flux_lora_fast", 0)


def test_a_price_list_can_be_given_instead_of_ours() -> None:
    text = (
        '[price.x]\nunit = "second"\namount_usd = "0.00001"\nsource = "s"\ndate = "2026-11"\nconfidence = "confirmed"'
    )
    assert price_of_video("x", 1, parse_prices(text)) == ESTIMATE_STEP


def test_the_ceiling_is_a_fifth_above_the_estimate_in_whole_cents() -> None:
    assert ceiling_usd(Decimal("0.28")) == Decimal("0.34")
    assert ceiling_usd(Decimal("0.0001")) == CENT


@given(st.decimals(min_value=0, max_value=10_000, places=7))
def test_rounding_never_makes_a_job_look_cheaper(amount: Decimal) -> None:
    estimate = round_up(amount, ESTIMATE_STEP)
    assert amount <= estimate < amount + ESTIMATE_STEP
    assert ceiling_usd(estimate) >= estimate
    assert ceiling_usd(estimate) % CENT == 0


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_more_steps_never_cost_less(steps: int, more: int) -> None:
    for key in ("fal_flux_lora_fast", "fal_wan_22_t2v_a14b"):
        assert price_of_training(key, steps + more) >= price_of_training(key, steps)
