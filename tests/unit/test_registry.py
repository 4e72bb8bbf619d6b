"""The model registry: complete, sourced, and clear about what it cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from domain.errors import BadInput
from domain.model_rules import DurationRule, LoraWire, Model, ModelKind
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
        assert bool(model.lora.field or model.lora.wire is LoraWire.NODES) == model.lora.takes
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


@pytest.mark.parametrize(
    ("base", "vendor", "reason"),
    [
        ("sdxl", "fal", "fal has no trainer for it here; choose one of .*z-image"),
        ("hunyuan-video", "fal", "fal has no trainer"),
        ("sd-15", "fal", "known for AnimateDiff"),
        ("flux-1-dev", "nobody", "nobody has no trainer for it here; nobody trains nothing here"),
        ("flux-2", "fal", "no base model"),
    ],
)
def test_a_base_without_a_trainer_is_refused_with_the_reason(base: str, vendor: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        REGISTRY.trainer_for(base, vendor)


def test_fal_has_a_captioner_and_another_vendor_is_refused_naming_what_to_write() -> None:
    assert REGISTRY.captioner_for("fal").key == "moondream_3_caption"
    with pytest.raises(BadInput, match="comfyui has no captioner here: write captions: auto"):
        REGISTRY.captioner_for("comfyui")


@pytest.mark.parametrize(
    ("base", "trainer", "still", "film"),
    [
        ("flux-1-dev", "fal_flux_lora_fast", "flux_lora", None),
        ("flux-2-dev", "fal_flux_2", "flux_2_lora", None),
        ("z-image", "fal_z_image", "z_image_lora", None),
        ("z-image-turbo", "fal_z_image_turbo_v2", "z_image_turbo_lora", None),
        ("qwen-image", "fal_qwen_image_2512", "qwen_image_2512_lora", None),
        ("wan-22-t2v-a14b", "fal_wan_22_t2v_a14b", "wan_22_t2i_lora", "wan_22_t2v_lora"),
        ("wan-22-i2v-a14b", "fal_wan_22_i2v_a14b", None, "wan_22_i2v_lora"),
        ("wan-21-i2v-14b", "fal_wan_21_i2v_720p", None, "wan_21_i2v_lora"),
        ("ltx-23", "fal_ltx_23", None, "ltx_23_t2v_lora"),
        ("minimax-h3-t2v", "fal_h3_t2v", None, "h3_t2v_lora"),
        ("minimax-h3-i2v", "fal_h3_i2v", None, "h3_i2v_lora"),
    ],
)
def test_what_fal_trains_it_also_loads_in_the_model_that_comes_first(
    base: str, trainer: str, still: str | None, film: str | None
) -> None:
    assert REGISTRY.trainer_for(base).key == trainer
    for wanted, found in ((still, REGISTRY.still_model_for(base)), (film, REGISTRY.filming_model_for(base))):
        assert (found.key if found else None) == wanted


def test_a_base_that_no_vendor_draws_stills_with_says_why() -> None:
    every = {model.vendor for model in REGISTRY.models}
    for base in REGISTRY.base_models:
        if REGISTRY.still_model_for(base.key, sorted(every)) is None and base.key.startswith(("wan-22", "ltx", "mini")):
            assert base.no_still_model


def test_the_models_that_keep_a_face_without_a_lora_say_how_many_pictures_they_take() -> None:
    identities = {model.key: model.still.identity for model in REGISTRY.face_still_models() if model.still}
    assert {"flux_pulid", "flux_kontext", "flux_2_edit", "ip_adapter_face_id"} <= identities.keys()
    assert all(rule is not None and 1 <= rule.minimum <= rule.maximum for rule in identities.values())


def test_wan_text_and_image_to_video_are_different_bases() -> None:
    keys = [base.key for base in REGISTRY.base_models]
    assert {"wan-22-t2v-a14b", "wan-22-i2v-a14b"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_every_model_can_be_found_by_its_endpoint_and_those_that_share_one_give_the_same_files() -> None:
    for model in REGISTRY.models:
        found = REGISTRY.by_endpoint(model.vendor, model.endpoint)
        assert found is not None
        if model.vendor == "fal":
            assert found.kind is model.kind
            assert model.training is None or (found.training and found.training.weights == model.training.weights)
    assert REGISTRY.by_endpoint("fal", "fal-ai/nothing") is None


@pytest.mark.parametrize(
    "model",
    [model for model in REGISTRY.models if model.training and model.vendor == "fal"],
    ids=lambda model: model.key,
)
def test_a_trainer_at_fal_names_the_files_it_answers_with(model: Model) -> None:
    assert model.training is not None
    assert "lora" in model.training.weights.values()


@pytest.mark.parametrize("key", ["fal_hunyuan_video", "hunyuan_video_lora", "fal_h3_ref2va"])
def test_a_model_that_cannot_be_had_is_refused_with_the_reason(key: str) -> None:
    unsupported = next(one for one in REGISTRY.unsupported if one.key == key)
    assert unsupported.date
    with pytest.raises(BadInput) as refused:
        REGISTRY.model(key)
    assert unsupported.reason in refused.value.message


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


@pytest.mark.parametrize(
    ("width", "height", "size_bytes", "problem"),
    [
        (300, 300, 10 * 1024 * 1024, None),
        (300, 300, 10 * 1024 * 1024 + 1, "bytes"),
        (299, 300, 9, "300"),
        (400, 1000, 9, None),
        (399, 1000, 9, "0.4 to 2.5"),
        (1000, 400, 9, None),
        (1001, 400, 9, "0.4 to 2.5"),
    ],
)
def test_a_picture_is_held_against_klings_limits(width: int, height: int, size_bytes: int, problem: str | None) -> None:
    video = REGISTRY.model("kling_v21").video
    assert video is not None
    assert video.picture is not None
    said = video.picture.problem_of(width, height, size_bytes)
    assert said is None if problem is None else problem in str(said)


def test_a_misspelt_field_in_the_file_is_noticed() -> None:
    text = (Path(__file__).parents[2] / "domain" / "models" / "fal.toml").read_text("utf-8")
    with pytest.raises(ValidationError, match="min_imagez"):
        parse_registry(text.replace("min_images = 4", "min_imagez = 4", 1))
