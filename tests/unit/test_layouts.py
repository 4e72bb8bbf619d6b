"""How datasets are laid out for each kind of trainer, read back with the readers those trainers use."""

from __future__ import annotations

import json
import tomllib

import pytest
import yaml

from domain.dataset_manifests import (
    DatasetManifest,
    counts_of,
    generated_warning,
    manifest_item,
    manifest_json,
    time_code,
)
from domain.errors import BadInput
from domain.layouts import (
    FEWEST_STEPS,
    MOST_STEPS,
    USUAL_EPOCHS,
    LayoutFacts,
    LayoutKind,
    ai_toolkit_yaml,
    caption_path,
    folder_of,
    has_manifest_inside,
    kohya_toml,
    musubi_toml,
    path_in,
    repeats_for,
    texts_of,
)
from domain.pictures import Box, Framing, Light, Origin, View
from domain.recipes import RULES, WAN_FRAMES, recipe_for, recipe_names
from domain.registry import load_registry, parse_registry
from domain.stretches import FrameRule, Stretch, TooShort, plan_stretch, span_of_shot
from domain.training_sets import TrainingImage

FACTS = LayoutFacts(trigger_word="MEIKOB_01", class_word="person", image_count=20, resolutions=(512, 768, 1024))


@pytest.mark.parametrize("kind", [LayoutKind.PLAIN, LayoutKind.CLIPS])
def test_a_vendors_zip_holds_pictures_and_captions_and_nothing_else(kind: LayoutKind) -> None:
    assert path_in(kind, FACTS, "001.jpg") == "001.jpg"
    assert texts_of(kind, FACTS) == ()
    assert not has_manifest_inside(kind)


def test_a_caption_has_its_pictures_stem() -> None:
    assert caption_path("MEIKOB_01/001.jpg") == "MEIKOB_01/001.txt"


def test_kohya_reads_repeats_and_class_from_the_folder_and_from_its_text() -> None:
    folder = folder_of(LayoutKind.KOHYA, FACTS)
    assert folder == "12_MEIKOB_01 person"
    read = tomllib.loads(kohya_toml(FACTS))
    (dataset,) = read["datasets"]
    assert dataset["subsets"] == [
        {"image_dir": f"./{folder}", "class_tokens": "MEIKOB_01 person", "num_repeats": 12, "keep_tokens": 1}
    ]
    assert read["general"]["bucket_no_upscale"] is True


def test_musubi_gets_pictures_without_enlarging_them() -> None:
    read = tomllib.loads(musubi_toml(FACTS, "/data"))
    assert read["general"] == {
        "resolution": [1024, 1024],
        "caption_extension": ".txt",
        "batch_size": 1,
        "enable_bucket": True,
        "bucket_no_upscale": True,
    }
    assert read["datasets"] == [
        {"image_directory": "/data/images", "cache_directory": "/data/cache/MEIKOB_01", "num_repeats": 12}
    ]


def test_musubi_gets_clips_with_their_frames_and_a_rate_that_is_a_float() -> None:
    (dataset,) = tomllib.loads(musubi_toml(FACTS.model_copy(update={"frames": (29, 81), "fps": 16})))["datasets"]
    assert (dataset["video_directory"], dataset["target_frames"]) == ("./clips", [29, 81])
    assert (dataset["frame_extraction"], dataset["source_fps"]) == ("head", 16.0)
    assert isinstance(dataset["source_fps"], float)
    assert "image_directory" not in dataset


def test_ai_toolkit_reads_its_folder_and_its_resolutions() -> None:
    (dataset,) = yaml.safe_load(ai_toolkit_yaml(FACTS))["datasets"]
    assert dataset["folder_path"] == f"./{folder_of(LayoutKind.AI_TOOLKIT, FACTS)}"
    assert (dataset["caption_ext"], dataset["resolution"]) == ("txt", [512, 768, 1024])
    assert "trigger_word" not in dataset


def test_a_folder_with_quotes_and_accents_survives_both_formats() -> None:
    root = 'C:\\so "called"\\été'
    assert tomllib.loads(kohya_toml(FACTS, root))["datasets"][0]["subsets"][0]["image_dir"].startswith(root)
    assert yaml.safe_load(ai_toolkit_yaml(FACTS, root))["datasets"][0]["folder_path"].startswith(root)


@pytest.mark.parametrize(("images", "repeats"), [(1, 150), (10, 15), (20, 12), (30, 12), (400, 1)])
def test_repeats_bring_a_training_to_a_sane_number_of_steps(images: int, repeats: int) -> None:
    assert repeats_for(images) == repeats
    if images <= 30:
        assert FEWEST_STEPS <= images * repeats * USUAL_EPOCHS <= MOST_STEPS * 1.1


def item(origin: Origin = Origin.CLIP, number: int = 1) -> TrainingImage:
    return TrainingImage(
        sha256="a" * 64,
        file_name=f"{number:03d}.png",
        media_type="image/png",
        caption="MEIKOB_01, a close-up",
        source="slot-01.mp4",
        at_seconds=3723.5,
        sharpness=321.98765,
        likeness=0.912345,
        width=1920,
        height=1080,
        name=f"f{number}",
        origin=origin,
        framing=Framing.CLOSE_UP,
        view=View.FRONTAL,
        light=Light.DIM,
        rights="made for this season",
    )


def manifest(*origins: Origin) -> DatasetManifest:
    items = tuple(
        manifest_item(
            item(origin, number),
            file=f"{number:03d}.jpg",
            caption_file=f"{number:03d}.txt",
            caption="MEIKOB_01, a close-up",
            sha256="b" * 64,
            size=(1344, 768),
            crop=Box(left=15, top=0, right=1905, bottom=1080),
            scale=1344 / 1890,
        )
        for number, origin in enumerate(origins, 1)
    )
    return DatasetManifest(
        season="neon-harbor",
        character="Mei Kobayashi",
        trigger_word="MEIKOB_01",
        trainer="kohya",
        layout="kohya",
        rules=RULES,
        training_set_digest="c" * 64,
        counts=counts_of(items),
        warnings=(),
        items=items,
    )


def test_the_manifest_says_of_each_picture_where_it_comes_from_and_what_was_done_to_it() -> None:
    read = json.loads(manifest_json(manifest(Origin.CLIP)))
    (one,) = read["items"]
    assert (one["source"], one["time_code"], one["rights"]) == ("slot-01.mp4", "01:02:03.500", "made for this season")
    assert (one["crop"], one["scale"]) == ({"left": 15, "top": 0, "right": 1905, "bottom": 1080}, 0.7111)
    assert (one["sharpness"], one["likeness"]) == (321.99, 0.9123)
    assert (one["framing"], one["view"], one["light"]) == ("close_up", "frontal", "dim")
    assert (one["sha256"], one["picture_sha256"]) == ("b" * 64, "a" * 64)


def test_equal_manifests_are_equal_texts_with_keys_in_order() -> None:
    text = manifest_json(manifest(Origin.CLIP, Origin.STILL))
    assert text == manifest_json(manifest(Origin.CLIP, Origin.STILL))
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert text.endswith("}\n")


def test_pictures_of_our_own_making_are_counted_and_warned_about() -> None:
    mixed = manifest(Origin.CLIP, Origin.GENERATED, Origin.GENERATED)
    assert mixed.counts == {"items": 3, "clip": 1, "still": 0, "generated": 2}
    warning = generated_warning([item.origin for item in mixed.items])
    assert warning is not None
    assert warning.startswith("2 of 3 were generated")
    assert generated_warning([Origin.CLIP]) is None


@pytest.mark.parametrize(
    ("seconds", "code"), [(0, "00:00:00.000"), (59.9996, "00:01:00.000"), (3661.25, "01:01:01.250")]
)
def test_a_time_code_is_hours_minutes_seconds_and_milliseconds(seconds: float, code: str) -> None:
    assert time_code(seconds) == code


# --- recipes ---


def test_every_trainer_and_every_layout_has_a_recipe() -> None:
    registry = load_registry()
    names = recipe_names(registry)
    assert {"fal_flux_lora_fast", "fal_wan_22_t2v_a14b", "kohya", "musubi", "ai_toolkit"} <= set(names)
    assert len({recipe_for(registry, name).key for name in names}) == len(names)
    assert recipe_for(registry, "fal_flux_lora_fast").layout is LayoutKind.PLAIN


def test_an_unknown_trainer_is_refused_naming_those_there_are() -> None:
    with pytest.raises(BadInput, match="ai_toolkit"):
        recipe_for(load_registry(), "photoshop")


TRAINER = """
default_video_model = ""
base_model = {}
[source.s]
what = "here"
date = "2026-11"
[model.films]
kind = "trainer"
title = "A trainer of films"
vendor = "fal"
endpoint = "films"
base_model = "films"
[model.films.sources]
training = "s"
[model.films.training]
zip_field = "zip"
trigger_field = "word"
min_images = 3
steps = { takes = false }
learning_rate = { takes = false }
rank = { takes = false }
"""


def test_a_trainer_of_videos_states_its_frame_rule_and_its_recipe_has_it() -> None:
    rule = "{ frames_multiple = 4, frames_offset = 1, min_frames = 17, max_frames = 81, fps = 16 }"
    registry = parse_registry(f'{TRAINER}takes = "videos"\nlayout = "clips"\nvideos = {rule}\n')
    recipe = recipe_for(registry, "films")
    assert (recipe.layout, recipe.videos, recipe.fewest_items) == (LayoutKind.CLIPS, WAN_FRAMES, 3)
    with pytest.raises(ValueError, match="frame rule"):
        parse_registry(f'{TRAINER}takes = "videos"\n')
    with pytest.raises(ValueError, match="frame rule"):
        parse_registry(f"{TRAINER}videos = {rule}\n")


# --- stretches of clips ---


@pytest.mark.parametrize(("available", "frames"), [(16, None), (17, 17), (20, 17), (80, 77), (81, 81), (500, 81)])
def test_a_stretch_has_as_many_frames_as_the_rule_allows(available: int, frames: int | None) -> None:
    assert WAN_FRAMES.frames_within(available) == frames


def test_a_stretch_has_its_frame_in_the_middle_and_stays_within_the_shot() -> None:
    middle = plan_stretch(WAN_FRAMES, 10.0, (0.0, 20.0), 1920, 1080)
    assert isinstance(middle, Stretch)
    assert (middle.frames, middle.fps) == (81, 16)
    assert middle.from_seconds == pytest.approx(10 - 81 / 32, abs=0.001)
    assert (middle.width, middle.height) == (1280, 720)
    early = plan_stretch(WAN_FRAMES, 10.0, (9.5, 20.0), 640, 370)
    assert isinstance(early, Stretch)
    assert (early.from_seconds, early.width, early.height) == (9.5, 640, 368)


def test_stretches_that_share_most_of_their_seconds_are_told_from_neighbours() -> None:
    first = Stretch(from_seconds=0, frames=32, fps=16, width=64, height=64)
    assert first.shares(first.model_copy(update={"from_seconds": 0.5})) == pytest.approx(0.75)
    assert first.shares(first.model_copy(update={"from_seconds": 2.0})) == 0
    assert first.shares(first.model_copy(update={"frames": 16, "from_seconds": 1.0})) == 1


def test_a_shot_too_short_for_the_trainer_is_refused_with_both_lengths() -> None:
    short = plan_stretch(WAN_FRAMES, 1.0, (0.5, 1.5), 640, 480)
    assert isinstance(short, TooShort)
    assert short.sentence("slot-01.mp4 at 1.0 s") == (
        "slot-01.mp4 at 1.0 s stands in a shot of 1.00 s; the trainer needs 1.06 s at 16 frames per second without a "
        "cut: give a longer clip."
    )
    assert isinstance(plan_stretch(WAN_FRAMES, 1.0, (0.5, 0.5 + 17 / 16), 640, 480), Stretch)


def test_other_trainers_rules_give_their_own_counts() -> None:
    h3 = FrameRule(frames_multiple=17, frames_offset=5, min_frames=22, max_frames=124, fps=24)
    assert [h3.frames_within(count) for count in (21, 22, 38, 39, 200)] == [None, 22, 22, 39, 124]
    assert h3.shortest_seconds == pytest.approx(22 / 24)


def test_a_shot_lasts_as_long_as_its_own_looks_where_another_is_beside_it() -> None:
    looks = [(0.5, 0), (2.0, 0), (3.0, 1), (5.0, 1)]
    assert span_of_shot(looks, 1.0, 6.0) == (0.0, 2.0)
    assert span_of_shot(looks, 4.0, 6.0) == (3.0, 6.0)
    assert span_of_shot([], 4.0, 6.0) == (0.0, 6.0)
