"""The model registry: complete, sourced, and clear about what it cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from domain.errors import BadInput
from domain.model_rules import DurationRule, Model, ModelKind
from domain.registry import load_registry, parse_registry

REGISTRY = load_registry()
OWNERS_FIVE = ("kling_v21", "kling_v25_turbo", "hailuo_23", "wan_25_i2v", "veo_31")
FACTS = ("endpoint", "base_model", "fixed", "prompt_max_chars", "lora", "training", "still", "video", "captioner")


@pytest.mark.parametrize("model", REGISTRY.models, ids=lambda model: model.key)
def test_every_fact_of_a_model_has_a_source_and_a_date(model: Model) -> None:
    stated = {fact for fact in FACTS if getattr(model, fact)}
    assert {cited.fact for cited in model.sources} == stated
    assert all(cited.source and cited.date >= "2025-12" for cited in model.sources)


@pytest.mark.parametrize("model", REGISTRY.models, ids=lambda model: model.key)
def test_a_model_has_the_rule_of_its_kind_and_no_other(model: Model) -> None:
    rules = {
        ModelKind.TRAINER: model.training,
        ModelKind.IMAGE: model.still,
        ModelKind.VIDEO: model.video,
        ModelKind.CAPTIONER: model.captioner,
    }
    assert [kind for kind, rule in rules.items() if rule is not None] == [model.kind]
    assert (model.lora is None) == (model.kind in (ModelKind.TRAINER, ModelKind.CAPTIONER))


@pytest.mark.parametrize("model", REGISTRY.models, ids=lambda model: model.key)
def test_a_model_takes_loras_in_a_field_or_says_why_not(model: Model) -> None:
    if model.lora is not None:
        assert bool(model.lora.field) == model.lora.takes
        assert bool(model.lora.reason) != model.lora.takes


@pytest.mark.parametrize("key", OWNERS_FIVE)
def test_none_of_the_owners_five_video_models_takes_a_lora(key: str) -> None:
    model = REGISTRY.model(key)
    assert model.kind is ModelKind.VIDEO
    assert model.lora is not None
    assert not model.lora.takes
    assert model.lora.reason
    assert model.video is not None
    assert model.video.takes == ("image", "text")


def test_the_default_video_model_takes_elements() -> None:
    video = REGISTRY.model(REGISTRY.default_video_model).video
    assert REGISTRY.default_video_model == "kling_o1_reference"
    assert video is not None
    assert video.takes == ("elements", "images", "text")
    assert video.elements is not None
    assert (video.elements.min_references, video.elements.max_references, video.max_images_and_elements) == (1, 3, 7)


def test_wan_text_to_video_takes_loras_for_both_experts() -> None:
    lora = REGISTRY.model("wan_22_t2v_lora").lora
    assert lora is not None
    assert (lora.takes, lora.field, lora.transformer) == (True, "loras", "both")


def test_an_unknown_model_is_refused_naming_the_near_ones() -> None:
    with pytest.raises(BadInput, match="kling_v21"):
        REGISTRY.model("kling_21")


def test_a_model_like_none_is_refused_naming_them_all() -> None:
    with pytest.raises(BadInput, match=r"choose one of .*hailuo_23"):
        REGISTRY.model("???")


def test_each_trainable_base_has_its_trainer() -> None:
    assert REGISTRY.trainer_for("flux-1-dev").key == "fal_flux_lora_fast"
    assert REGISTRY.trainer_for("wan-22-t2v-a14b", "fal").key == "fal_wan_22_t2v_a14b"


@pytest.mark.parametrize(
    ("base", "vendor", "reason"),
    [
        ("wan-22-i2v-a14b", "fal", "needs videos"),
        ("sdxl", "fal", "no SDXL trainer"),
        ("flux-1-dev", "replicate", "replicate has no trainer"),
        ("flux-2", "fal", "no base model"),
    ],
)
def test_a_base_without_a_trainer_is_refused_with_the_reason(base: str, vendor: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        REGISTRY.trainer_for(base, vendor)


def test_fal_has_a_captioner_and_another_vendor_is_refused_naming_what_to_write() -> None:
    assert REGISTRY.captioner_for("fal").key == "moondream_3_caption"
    with pytest.raises(BadInput, match="replicate has no captioner here: write captions: auto"):
        REGISTRY.captioner_for("replicate")


def test_only_flux_has_a_still_model_and_the_others_say_why_not() -> None:
    still = REGISTRY.still_model_for("flux-1-dev")
    assert still is not None
    assert still.key == "flux_lora"
    for base in ("wan-22-t2v-a14b", "wan-22-i2v-a14b", "sdxl"):
        assert REGISTRY.still_model_for(base) is None
        assert REGISTRY.base_model(base).no_still_model


def test_wan_text_and_image_to_video_are_different_bases() -> None:
    keys = [base.key for base in REGISTRY.base_models]
    assert keys == ["flux-1-dev", "wan-22-t2v-a14b", "wan-22-i2v-a14b", "sdxl"]


def test_every_video_model_is_listed_and_can_be_found_by_its_endpoint() -> None:
    assert {model.key for model in REGISTRY.video_models()} == {*OWNERS_FIVE, "kling_o1_reference", "wan_22_t2v_lora"}
    for model in REGISTRY.models:
        assert REGISTRY.by_endpoint("fal", model.endpoint) == model
    assert REGISTRY.by_endpoint("fal", "fal-ai/nothing") is None


@pytest.mark.parametrize(("wanted", "offered"), [(3, 6), (6, 6), (7, 10), (30, 10)])
def test_the_nearest_length_is_the_next_longer_one(wanted: float, offered: float) -> None:
    video = REGISTRY.model("hailuo_23").video
    assert video is not None
    assert video.duration.nearest_seconds(wanted) == offered


def test_a_length_counted_in_frames_is_kept_within_its_limits() -> None:
    video = REGISTRY.model("wan_22_t2v_lora").video
    assert video is not None
    assert video.duration.shortest_and_longest == (1.0, 10.0)
    assert [video.duration.nearest_seconds(seconds) for seconds in (0.2, 5.5, 60)] == [1.0, 5.5, 10.0]


@pytest.mark.parametrize("model", REGISTRY.video_models(), ids=lambda model: model.key)
def test_the_default_length_is_one_that_can_be_bought(model: Model) -> None:
    assert model.video is not None
    rule: DurationRule = model.video.duration
    assert rule.nearest_seconds(rule.default) == rule.default


def test_a_misspelt_field_in_the_file_is_noticed() -> None:
    text = (Path(__file__).parents[2] / "domain" / "models.toml").read_text("utf-8")
    with pytest.raises(ValidationError, match="min_imagez"):
        parse_registry(text.replace("min_images = 4", "min_imagez = 4", 1))
