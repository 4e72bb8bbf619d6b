"""Requests to fal: the vendor's own field names and forms, and everything refused that a model does not take."""

from __future__ import annotations

from typing import Any

import pytest

from domain.errors import BadInput, BadTrainingSet
from domain.jobs import BlobRef, VendorRequest, blob_argument, canonical_json
from domain.model_rules import LoraRule, Model
from domain.registry import load_registry
from providers.requests.loras import lora_arguments
from providers.requests.writer import RequestWriter
from providers.sandbox.schemas import check_input, load_catalogue
from providers.vendor_ports import CaptionOrder, Element, LoraUse, StillOrder, TrainingOrder, VideoOrder
from tests.fal_orders import MODELS, plainest_order

REGISTRY = load_registry()
AT_FAL = RequestWriter(REGISTRY, "fal")
REHEARSED = RequestWriter(REGISTRY, "sandbox")


def blob(letter: str, media_type: str = "image/png", name: str = "a.png") -> BlobRef:
    return BlobRef(sha256=letter * 64, media_type=media_type, file_name=name)


ZIP = blob("a", "application/zip", "set.zip")
LORA = LoraUse(file=blob("b", "application/octet-stream", "lora.safetensors"), scale=0.8)
PICTURE = blob("c")


def training(trainer_key: str = "fal_flux_lora_fast", **changes: Any) -> VendorRequest:
    wished: dict[str, Any] = {"zip": ZIP, "trigger_word": "MEIKOB_01", "steps": 1000, "image_count": 12} | changes
    return AT_FAL.training_request(TrainingOrder(trainer_key=trainer_key, **wished))


def still(**changes: Any) -> VendorRequest:
    wished: dict[str, Any] = {
        "model_key": "flux_lora",
        "prompt": "MEIKOB_01 runs",
        "image_size": "landscape_16_9",
        "seed": 7,
    } | changes
    return REHEARSED.still_request(StillOrder(**wished))


def video(model_key: str, **changes: Any) -> VendorRequest:
    wished: dict[str, Any] = {"prompt": "she runs", "seconds": 5} | changes
    return AT_FAL.video_request(VideoOrder(model_key=model_key, **wished))


# --- trainers ---


def test_flux_training_sends_zip_trigger_word_and_steps_only() -> None:
    request = training()
    assert request.endpoint == "fal-ai/flux-lora-fast-training"
    assert request.arguments == {
        "images_data_url": blob_argument(ZIP),
        "trigger_word": "MEIKOB_01",
        "steps": 1000,
        "create_masks": True,
        "is_style": False,
    }
    assert request.blobs() == (ZIP,)


def test_wan_training_uses_its_own_field_names() -> None:
    request = training("fal_wan_22_t2v_a14b", steps=400, learning_rate=1e-4)
    assert request.arguments == {
        "training_data_url": blob_argument(ZIP),
        "trigger_phrase": "MEIKOB_01",
        "number_of_steps": 400,
        "learning_rate": 1e-4,
        "auto_scale_input": False,
    }


@pytest.mark.parametrize(
    ("trainer", "changes", "reason"),
    [
        ("fal_flux_lora_fast", {"learning_rate": 1e-4}, "no learning_rate field"),
        ("fal_flux_lora_fast", {"rank": 16}, "no rank field"),
        ("fal_wan_22_t2v_a14b", {"rank": 16}, "no rank field"),
        ("fal_flux_lora_fast", {"steps": 0}, "takes 1 to 10000"),
        ("fal_flux_lora_fast", {"steps": 10001}, "takes 1 to 10000"),
        ("fal_wan_22_t2v_a14b", {"steps": 99}, "takes 100 to 20000"),
        ("fal_wan_22_t2v_a14b", {"learning_rate": 2.0}, "learning_rate is 2"),
        ("fal_flux_lora_fast", {"trigger_word": " "}, "trigger word"),
        ("flux_lora", {}, "is no trainer"),
        ("fal_flux", {}, "did you mean fal_flux"),
    ],
)
def test_a_training_option_that_is_not_taken_is_refused_with_the_reason(
    trainer: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadInput, match=reason):
        training(trainer, **changes)


def test_a_training_set_below_the_trainers_floor_is_refused_and_one_at_it_is_not() -> None:
    with pytest.raises(BadTrainingSet, match="at least 4 images and the set has 3"):
        training(image_count=3)
    assert training(image_count=4)


# --- captions ---


def test_a_captioner_is_sent_the_picture_and_what_the_registry_fixes() -> None:
    order = CaptionOrder(model_key="moondream_3_caption", picture=PICTURE)
    request = REHEARSED.caption_request(order)
    assert (request.vendor, request.endpoint) == ("sandbox", "fal-ai/moondream3-preview/caption")
    assert request.arguments == {"image_url": blob_argument(PICTURE), "length": "normal"}
    assert request.blobs() == (PICTURE,)


def test_a_model_that_describes_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="flux_lora describes no pictures"):
        AT_FAL.caption_request(CaptionOrder(model_key="flux_lora", picture=PICTURE))


# --- stills ---


def test_a_still_sends_size_steps_guidance_seed_and_its_loras() -> None:
    request = still(loras=(LORA,))
    assert (request.vendor, request.endpoint) == ("sandbox", "fal-ai/flux-lora")
    assert request.arguments == {
        "prompt": "MEIKOB_01 runs",
        "image_size": "landscape_16_9",
        "num_inference_steps": 28,
        "guidance_scale": 3.5,
        "seed": 7,
        "loras": [{"path": blob_argument(LORA.file), "scale": 0.8}],
        "num_images": 1,
        "enable_safety_checker": True,
        "output_format": "png",
    }


def test_a_still_without_a_lora_has_no_lora_field_and_takes_a_size_in_pixels() -> None:
    arguments = still(image_size=(1024, 1024)).arguments
    assert "loras" not in arguments
    assert arguments["image_size"] == {"width": 1024, "height": 1024}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_size": "cinema"}, "no size 'cinema': choose one of .*landscape_16_9"),
        ({"image_size": (0, 512)}, "above zero"),
        ({"steps": 51}, "takes 1 to 50"),
        ({"guidance": 36.0}, "takes 0 to 35"),
        ({"prompt": "  "}, "empty prompt"),
        ({"seed": -1}, "seed is -1"),
        ({"loras": (LoraUse(file=LORA.file, scale=4.5),)}, "scale is 4.5"),
        ({"model_key": "veo_31"}, "makes no stills"),
    ],
)
def test_a_still_out_of_the_models_limits_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        still(**changes)


# --- videos ---


@pytest.mark.parametrize(
    ("key", "seconds", "wire"),
    [
        ("kling_v21", 5, "5"),
        ("kling_v21", 10, "10"),
        ("kling_v25_turbo", 5, "5"),
        ("hailuo_23", 6, "6"),
        ("wan_25_i2v", 10, "10"),
        ("veo_31", 8, "8s"),
    ],
)
def test_each_image_to_video_model_gets_its_picture_and_its_own_form_of_duration(
    key: str, seconds: float, wire: str
) -> None:
    arguments = video(key, seconds=seconds, image=PICTURE).arguments
    assert arguments["image_url"] == blob_argument(PICTURE)
    assert arguments["duration"] == wire


def test_kling_elements_are_written_with_frontal_and_references() -> None:
    element = Element(frontal=blob("d"), references=(blob("e"), blob("f")))
    request = video("kling_o1_reference", prompt="@Element1 runs to @Image1", elements=(element,), images=(PICTURE,))
    assert request.arguments == {
        "prompt": "@Element1 runs to @Image1",
        "elements": [
            {
                "frontal_image_url": blob_argument(blob("d")),
                "reference_image_urls": [blob_argument(blob("e")), blob_argument(blob("f"))],
            }
        ],
        "image_urls": [blob_argument(PICTURE)],
        "duration": "5",
        "aspect_ratio": "16:9",
    }


def test_wan_counts_frames_and_sends_its_lora_to_both_experts() -> None:
    arguments = video("wan_22_t2v_lora", loras=(LORA,), seed=3).arguments
    assert arguments["num_frames"] == 81
    assert arguments["frames_per_second"] == 16
    assert arguments["loras"] == [{"path": blob_argument(LORA.file), "scale": 0.8, "transformer": "both"}]
    assert arguments["seed"] == 3
    assert video("wan_22_t2v_lora", frames=17).arguments["num_frames"] == 17


def test_a_seed_is_left_out_where_the_model_has_none() -> None:
    assert "seed" not in video("kling_v21", image=PICTURE, seed=3).arguments
    assert video("veo_31", image=PICTURE, seed=3, seconds=8).arguments["seed"] == 3


def full_element(references: int = 1) -> Element:
    return Element(frontal=blob("d"), references=tuple(blob(str(number)) for number in range(references)))


@pytest.mark.parametrize(
    ("key", "changes", "reason"),
    [
        ("kling_v21", {}, "was given none"),
        ("kling_v21", {"image": PICTURE, "seconds": 7}, "clips of 5, 10 s, not 7 s: 10 s fits best"),
        ("kling_v21", {"image": PICTURE, "loras": (LORA,)}, "Kling loads no LoRA"),
        ("kling_v21", {"image": PICTURE, "elements": (full_element(),)}, "was given elements"),
        ("kling_v21", {"image": PICTURE, "images": (PICTURE,)}, "was given images"),
        ("kling_v21", {"image": PICTURE, "frames": 81}, "counts in seconds"),
        ("kling_v21", {"image": PICTURE, "prompt": "x" * 2501}, "takes 2500"),
        ("veo_31", {"image": PICTURE, "seconds": 8, "aspect_ratio": "1:1"}, "no aspect ratio '1:1'"),
        ("kling_o1_reference", {"image": PICTURE}, "was given image"),
        ("kling_o1_reference", {"elements": (full_element(),)}, "does not call @Element1"),
        ("kling_o1_reference", {"prompt": "@Element1", "elements": (full_element(0),)}, "has 0 reference images"),
        ("kling_o1_reference", {"prompt": "@Element1", "elements": (full_element(4),)}, "has 4 reference images"),
        ("kling_o1_reference", {"images": (PICTURE,) * 8}, "takes 7 elements and images in all and was given 8"),
        ("kling_o1_reference", {"seconds": 2}, "3 s fits best"),
        ("wan_22_t2v_lora", {"image": PICTURE}, "was given image"),
        ("wan_22_t2v_lora", {"seconds": 11}, "1 to 10 s"),
        ("wan_22_t2v_lora", {"frames": 16}, "16 frames are not among them"),
        ("flux_lora", {}, "makes no videos"),
    ],
)
def test_a_clip_that_a_model_cannot_make_is_refused_with_the_reason(
    key: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadInput, match=reason):
        video(key, **changes)


def test_seven_elements_and_images_are_still_taken() -> None:
    request = video("kling_o1_reference", prompt="@Element1", elements=(full_element(3),), images=(PICTURE,) * 6)
    assert len(request.arguments["image_urls"]) == 6


# --- every model ---


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.key)
def test_what_is_ordered_of_a_model_is_what_its_schema_takes(model: Model) -> None:
    request = plainest_order(AT_FAL, model, archive=ZIP, picture=PICTURE, lora=LORA)
    endpoint = load_catalogue().endpoints[request.endpoint]
    body = request.with_urls({ref.sha256: "https://v3.fal.media/files/a" for ref in request.blobs()})
    _, issues = check_input(endpoint, body)
    assert issues == []
    assert request.blobs()


@pytest.mark.parametrize("model", [one for one in MODELS if one.lora and one.lora.takes], ids=lambda model: model.key)
def test_a_lora_reaches_the_field_that_the_model_loads_it_from(model: Model) -> None:
    assert LORA.file in plainest_order(AT_FAL, model, archive=ZIP, picture=PICTURE, lora=LORA).blobs()


def test_a_trainer_of_clips_counts_clips_and_a_set_of_too_few_is_refused() -> None:
    with pytest.raises(BadTrainingSet, match="at least 4 clips and the set has 3"):
        training("fal_wan_22_i2v_a14b", steps=400, image_count=3)


def test_a_rank_between_the_ranks_a_trainer_offers_is_refused() -> None:
    assert training("fal_ltx_23", steps=2000, rank=64).arguments["rank"] == 64
    with pytest.raises(BadInput, match="rank is 48 and fal_ltx_23 takes 8, 16, 32, 64, 128"):
        training("fal_ltx_23", steps=2000, rank=48)


def test_a_trainer_without_a_trigger_field_is_sent_none() -> None:
    assert training("fal_flux_2").arguments == {
        "output_lora_format": "fal",
        "image_data_url": blob_argument(ZIP),
        "steps": 1000,
    }


def test_the_two_files_of_a_wan_lora_go_each_to_its_own_expert() -> None:
    both = LoraUse(file=blob("b"), high_noise=blob("9"), scale=0.9)
    for request in (video("wan_22_t2v_lora", loras=(both,)), still(model_key="wan_22_t2i_lora", loras=(both,))):
        assert request.arguments["loras"] == [
            {"path": blob_argument(blob("b")), "scale": 0.9, "transformer": "low"},
            {"path": blob_argument(blob("9")), "scale": 0.9, "transformer": "high"},
        ]
    with pytest.raises(BadInput, match="loads one file for a LoRA and was given one of two"):
        still(loras=(both,))


def test_a_model_that_makes_nothing_without_a_lora_asks_for_one() -> None:
    with pytest.raises(BadInput, match="makes nothing without a LoRA: give one of ltx-23"):
        video("ltx_23_t2v_lora")


def test_the_pictures_of_a_face_go_in_as_a_list_or_as_a_single_one() -> None:
    edited = still(model_key="flux_2_edit", faces=(PICTURE, blob("d")))
    assert edited.arguments["image_urls"] == [blob_argument(PICTURE), blob_argument(blob("d"))]
    assert still(model_key="flux_pulid", faces=(PICTURE,)).arguments["reference_image_url"] == blob_argument(PICTURE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_key": "flux_pulid"}, "takes 1 pictures of the one who is drawn and was given 0"),
        ({"model_key": "flux_2_edit", "faces": (PICTURE,) * 5}, "takes 1 to 4 pictures .* given 5"),
        ({"faces": (PICTURE,)}, "draws nobody from pictures"),
        ({"model_key": "flux_pulid", "faces": (PICTURE,), "loras": (LORA,)}, "has no field for a LoRA"),
        ({"model_key": "z_image_turbo_lora", "steps": 9}, "takes 1 to 8"),
        ({"model_key": "flux_2_lora", "image_size": (511, 1024)}, "sides of 512 to 2048 pixels, not 511×1024"),
        ({"model_key": "flux_2_lora", "image_size": (2049, 1024)}, "sides of 512 to 2048 pixels, not 2049×1024"),
        ({"model_key": "flux_2_lora", "loras": (LORA,) * 4}, "takes 3 LoRAs and was given 4"),
    ],
)
def test_a_still_by_pictures_out_of_the_models_limits_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        still(**changes)


def test_steps_and_guidance_that_nobody_asked_for_are_the_models_own() -> None:
    turbo = still(model_key="z_image_turbo_lora", guidance=3.5).arguments
    assert turbo["num_inference_steps"] == 8
    assert "guidance_scale" not in turbo
    assert still(model_key="flux_2_lora").arguments["guidance_scale"] == 2.5


@pytest.mark.parametrize(
    ("size", "field", "sent"),
    [
        ("landscape_16_9", "aspect_ratio", "16:9"),
        ((700, 1000), "aspect_ratio", "2:3"),
        ((1000, 1000), "aspect_ratio", "1:1"),
    ],
)
def test_a_model_that_takes_shapes_gets_the_nearest(size: Any, field: str, sent: str) -> None:
    arguments = still(model_key="flux_kontext", faces=(PICTURE,), image_size=size).arguments
    assert arguments[field] == sent
    assert "image_size" not in arguments


def test_a_size_at_the_models_bounds_is_taken() -> None:
    sent = still(model_key="flux_2_lora", image_size=(512, 2048)).arguments["image_size"]
    assert sent == {"width": 512, "height": 2048}


def test_a_model_that_takes_sides_gets_width_and_height() -> None:
    arguments = still(model_key="ip_adapter_face_id", faces=(PICTURE,)).arguments
    assert (arguments["width"], arguments["height"]) == (1024, 576)


def test_the_field_of_the_first_frame_is_each_versions_own() -> None:
    assert "start_image_url" in video("kling_v26_pro", image=PICTURE).arguments
    assert "image_url" in video("kling_v21_pro", image=PICTURE).arguments
    assert "start_image_url" not in video("kling_o3_reference").arguments


def test_ltx_counts_frames_in_eights_and_takes_its_shape_in_pixels() -> None:
    arguments = video("ltx_23_t2v_lora", loras=(LORA,), aspect_ratio="9:16").arguments
    assert arguments["num_frames"] == 121
    assert arguments["video_size"] == {"width": 720, "height": 1280}
    with pytest.raises(BadInput, match=r"as 8 × N \+ 1 and was given 122"):
        video("ltx_23_t2v_lora", loras=(LORA,), frames=122)


def test_a_model_with_one_length_is_sent_none_and_any_other_is_refused() -> None:
    assert "duration" not in video("hailuo_23_pro", image=PICTURE, seconds=6).arguments
    with pytest.raises(BadInput, match="clips of 6 s, not 5 s"):
        video("hailuo_23_pro", image=PICTURE)


def test_seconds_are_a_number_where_the_model_reads_one() -> None:
    assert video("h3_t2v_lora", loras=(LORA,), seconds=7).arguments["duration"] == 7


def test_reference_pictures_are_sent_and_cited_where_the_model_wants_it() -> None:
    pictures = (PICTURE, blob("d"))
    sent = video("veo_31_reference", seconds=8, references=pictures).arguments
    assert sent["image_urls"] == [blob_argument(ref) for ref in pictures]
    with pytest.raises(BadInput, match="takes 1 to 3 pictures of the characters and was given 0"):
        video("veo_31_reference", seconds=8)
    assert video("h3_reference_lora", prompt="Image 1 runs", loras=(LORA,), references=pictures)
    with pytest.raises(BadInput, match="does not call Image 1"):
        video("h3_reference_lora", prompt="she runs", loras=(LORA,), references=pictures)


# --- other vendors' wires ---


@pytest.mark.parametrize(
    ("rule", "loras", "sent"),
    [
        (
            {"wire": "flat", "field": "lora_weights", "scale_field": "lora_scale", "extra_field": "extra_lora"},
            (LORA, LoraUse(file=blob("9"), scale=0.4)),
            {"lora_weights": blob("b"), "lora_scale": 0.8, "extra_lora": blob("9")},
        ),
        (
            {"wire": "experts", "field": "low", "high_noise_field": "high", "scale_field": "low_scale"},
            (LoraUse(file=blob("b"), high_noise=blob("9"), scale=0.8),),
            {"low": blob("b"), "high": blob("9"), "low_scale": 0.8},
        ),
        (
            {"wire": "experts", "field": "low", "high_noise_field": "high", "high_noise_scale_field": "high_scale"},
            (LORA,),
            {"low": blob("b"), "high": blob("b"), "high_scale": 0.8},
        ),
        (
            {"wire": "weights", "field": "loras"},
            (LORA,),
            {"loras": [{"url": blob("b"), "sha256": "b" * 64, "scale": 0.8}]},
        ),
    ],
    ids=["flat", "two experts", "one file for two experts", "our worker's"],
)
def test_loras_are_written_as_each_wire_wants_them(
    rule: dict[str, Any], loras: tuple[LoraUse, ...], sent: dict[str, Any]
) -> None:
    def as_arguments(value: Any) -> Any:
        if isinstance(value, BlobRef):
            return blob_argument(value.model_copy(update={"media_type": LORA.file.media_type, "file_name": "x"}))
        if isinstance(value, dict):
            return {key: as_arguments(inner) for key, inner in value.items()}
        return [as_arguments(inner) for inner in value] if isinstance(value, list) else value

    model = REGISTRY.model("flux_lora").model_copy(update={"lora": LoraRule.model_validate({"takes": True, **rule})})
    assert canonical_json(lora_arguments(model, loras)) == canonical_json(as_arguments(sent))


@pytest.mark.parametrize(
    ("rule", "loras", "reason"),
    [
        ({"wire": "flat", "field": "lora"}, (LORA, LORA), "takes 1 LoRAs and was given 2"),
        ({"wire": "nodes"}, (LORA,), "loader nodes"),
        ({"wire": "flat"}, (LORA,), "names no LoRA field"),
    ],
)
def test_loras_that_a_wire_cannot_carry_are_refused(
    rule: dict[str, Any], loras: tuple[LoraUse, ...], reason: str
) -> None:
    model = REGISTRY.model("flux_lora").model_copy(update={"lora": LoraRule.model_validate({"takes": True, **rule})})
    with pytest.raises(BadInput, match=reason):
        lora_arguments(model, loras)


def test_a_model_of_another_vendor_is_not_ordered_here() -> None:
    with pytest.raises(BadInput, match="flux_lora is fal's and was ordered from sandbox-replicate"):
        RequestWriter(REGISTRY, "sandbox-replicate").still_request(
            StillOrder(model_key="flux_lora", prompt="x", image_size="square", seed=1)
        )


def test_the_same_order_always_makes_the_same_request() -> None:
    assert still(loras=(LORA,)) == still(loras=(LORA,))
